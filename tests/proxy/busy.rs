//! Commands that need a shard which somebody holds for long: their connection waits, the others of its worker do not.

use crate::client::Client;
use crate::listener::Trio;
use crate::nodes::LIMIT;
use starling::base::slot::Slot;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const KEY: &str = "{k}ey";

/// Asks on a thread of its own; gives what is answered.
fn asked(mut client: Client, request: &str) -> (Receiver<()>, std::thread::JoinHandle<(Client, String)>) {
    let (told, answered) = channel();
    let request = request.to_owned();
    let thread = std::thread::spawn(move || {
        let reply = client.ask(&request);
        // Whoever waits for it may have given up.
        let _ = told.send(());
        (client, reply)
    });
    (answered, thread)
}

/// Whether it is so in one of a few rounds: a request that has waited for a while stays until it has its locks, so on a
/// machine that stands still for that long a round may fail.
fn holds_once(mut round: impl FnMut() -> bool) -> bool {
    (0..10).any(|_| round())
}

#[test]
fn a_busy_shard_holds_up_only_the_connection_that_needs_it() {
    let trio = Trio::start();
    trio.show(3, [0, 0, 0]);
    let slot = Slot::of_key(KEY.as_bytes());
    trio.client().check(&format!("SET {KEY} v"), "+OK");
    let requests = [
        (format!("GET {KEY}"), "$1\r\nv\r\n"),
        (format!("WATCH {KEY}"), "+OK\r\n"),
        (format!("DEBUG OBJECT {KEY}"), "+Value at"),
        (format!("CLUSTER COUNTKEYSINSLOT {slot}"), ":1\r\n"),
        (format!("CLUSTER GETKEYSINSLOT {slot} 10"), "*1\r\n"),
    ];
    for (request, expected) in requests {
        let is_passed = holds_once(|| {
            let held = trio.services.engine.lock_slot(slot, 0, 1);
            let (answered, waiting) = asked(trio.client(), &request);
            let (other_answered, other) = asked(trio.client(), "PING");
            let is_passed = other_answered.recv_timeout(Duration::from_secs(2)).is_ok() && answered.try_recv().is_err();
            drop(held);
            assert_eq!(other.join().expect("it was asked").1, "+PONG\r\n");
            let (_, reply) = waiting.join().expect("it was asked");
            assert!(reply.starts_with(expected), "{request}: {reply}");
            is_passed
        });
        assert!(is_passed, "{request} holds up a connection that needs nothing");
    }
}

/// What ends watches does not even wait for the shards of the keys: nobody looks at these watches any more.
#[test]
fn watches_end_without_waiting_for_a_busy_shard() {
    let trio = Trio::start();
    trio.show(3, [0, 0, 0]);
    let slot = Slot::of_key(KEY.as_bytes());
    let endings: [(&[&str], &str, &str); 5] = [
        (&[], "UNWATCH", "+OK\r\n"),
        (&["MULTI"], "DISCARD", "+OK\r\n"),
        (&["MULTI", "NONSENSE"], "EXEC", "-EXECABORT Transaction discarded because of previous errors.\r\n"),
        (&[], "RESET", "+RESET\r\n"),
        (&[], "QUIT", "+OK\r\n"),
    ];
    for (before, ending, expected) in endings {
        let mut client = trio.client();
        client.check(&format!("WATCH {KEY}"), "+OK");
        for request in before {
            client.ask(request);
        }
        let held = trio.services.engine.lock_slot(slot, 0, 1);
        let (answered, waiting) = asked(client, ending);
        let is_passed = answered.recv_timeout(LIMIT).is_ok();
        let (other_answered, other) = asked(trio.client(), "PING");
        let is_other_passed = other_answered.recv_timeout(LIMIT).is_ok();
        drop(held);
        assert!(is_passed && is_other_passed, "{ending} waits");
        other.join().expect("it was asked");
        let (mut client, reply) = waiting.join().expect("it was asked");
        assert_eq!(reply, expected);
        if ending != "QUIT" {
            // The watches are gone, also those that were taken away later.
            client.check("MULTI", "+OK");
            trio.client().ask(&format!("APPEND {KEY} x"));
            client.check("PING", "+QUEUED");
            client.check("EXEC", "*1 +PONG");
        }
    }
}
