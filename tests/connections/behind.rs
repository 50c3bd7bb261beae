//! Writers and a reader of the log that is behind.

use crate::server::{Client, LIMIT, Server, encoded};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

const VALUE_BYTES: usize = 10_000;
const WRITERS: usize = 4;
const PER_WRITER: usize = 6_000;

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "{what}");
    }
}

fn kept_bytes(client: &mut Client) -> usize {
    let status = client.ask("DEBUG LOG-READER STATUS");
    let kept = status.split(' ').find_map(|word| word.strip_prefix("kept_bytes=")).expect("the bytes");
    kept.parse().expect("a number")
}

/// A reader that stands still: memory stays in its bound, writers wait and nobody else does, and when it reads on all
/// writes are done, none of them refused.
#[test]
fn writers_wait_for_a_reader_that_stands_still_and_go_on_when_it_reads() {
    let server = Server::start(&["--threads", "2"]);
    let mut observer = server.client();
    assert_eq!(observer.ask("DEBUG LOG-READER ON"), "+OK");
    assert_eq!(observer.ask("DEBUG LOG-READER STAND"), "+OK");
    assert_eq!(observer.ask("SET x 1 PX 1"), "+OK");
    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            let (mut client, done) = (server.client(), Arc::clone(&done));
            let mut sending = client.stream.try_clone().expect("the socket once more");
            std::thread::spawn(move || {
                let value = "v".repeat(VALUE_BYTES);
                std::thread::spawn(move || {
                    for round in 0..PER_WRITER {
                        // One in some is a transaction.
                        let set = format!("SET key:{number}:{} {value}", round % 100);
                        let requests = if round % 50 == 0 { vec!["MULTI", &set, "EXEC"] } else { vec![&*set] };
                        sending.write_all(&encoded(&requests)).expect("sent");
                    }
                });
                for round in 0..PER_WRITER {
                    let replies = if round % 50 == 0 { 3 } else { 1 };
                    let last = (0..replies).map(|_| client.receive()).last();
                    assert!(matches!(last.as_deref(), Some("+OK" | "*1 +OK")), "{last:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    until("writers wait", || observer.ask("DEBUG LOG-READER STATUS").contains("full=1"));
    let mut before = usize::MAX;
    until("they stand still", || {
        let now = done.load(Ordering::Relaxed);
        (0..20).for_each(|_| drop(observer.ask("PING")));
        now == std::mem::replace(&mut before, now)
    });
    assert!(before < WRITERS * PER_WRITER, "all of them were let through");
    assert!(kept_bytes(&mut observer) < 70 << 20, "{} bytes are kept", kept_bytes(&mut observer));
    // Who only reads goes on; what has expired is not seen, and not removed either.
    assert_eq!(observer.ask("GET x"), "$-1");
    assert!(observer.ask("GET key:0:1").starts_with("$10000"));
    // A client that leaves while it waits is noticed.
    let mut leaving = server.client();
    leaving.send(&["CLIENT SETNAME leaving", "SET never 1"]);
    assert_eq!(leaving.receive(), "+OK");
    drop(leaving);
    until("it has gone", || !observer.ask("CLIENT LIST").contains("name=leaving"));
    assert_eq!(observer.ask("DEBUG LOG-READER ON"), "+OK");
    writers.into_iter().for_each(|writer| writer.join().expect("all its writes are done"));
    assert_eq!(observer.ask("EXISTS never"), ":0");
    until("it has read everything", || kept_bytes(&mut observer) == 0);
    assert_eq!(observer.ask("DEBUG LOG-READER OFF"), "+OK");
}
