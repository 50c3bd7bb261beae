//! Commands that need a shard which somebody holds for long, or room in the log: their connection waits, the others of its
//! worker do not.

use crate::client::Client;
use crate::listener::Trio;
use crate::nodes::LIMIT;
use starling::base::slot::Slot;
use starling::engine::Deadline;
use starling::engine::log::Behind;
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
            let mut waiting = trio.client();
            waiting.send(std::slice::from_ref(&request));
            // One after the other: the first may be there before the request.
            let mut other = trio.client();
            let (told, pinged) = channel();
            let pinging = std::thread::spawn(move || {
                (0..20).for_each(|_| other.check("PING", "+PONG"));
                let _ = told.send(());
            });
            let is_passed = pinged.recv_timeout(Duration::from_secs(2)).is_ok();
            drop(held);
            pinging.join().expect("they are answered");
            let reply = waiting.receive();
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

/// However long readers of the log take: nothing of a transaction is given up, as nothing of a single write is.
#[test]
fn exec_waits_for_room_in_the_log_until_there_is_some() {
    // Longer than a request waits for a slot that stands still.
    const LONGER: Duration = Duration::from_millis(1500);
    let trio = Trio::start();
    trio.show(3, [0, 0, 0]);
    let (engine, slot) = (&trio.services.engine, Slot::of_key(KEY.as_bytes()));
    let reader = engine.read_log(Behind::Wait(100_000));
    while !engine.log.is_full() {
        engine.lock_slot(slot, 0, 1).set_string(KEY.as_bytes(), &[b'x'; 10_000], Deadline::Clear);
    }
    let mut client = trio.client();
    client.check("MULTI", "+OK");
    client.check(&format!("SET {KEY} v"), "+QUEUED");
    let (answered, waiting) = asked(client, "EXEC");
    let has_waited = answered.recv_timeout(LONGER).is_err();
    drop(reader);
    assert_eq!(waiting.join().expect("it was asked").1, "*1\r\n+OK\r\n");
    assert!(has_waited);
}
