//! What waits for a client that reads slowly or not at all.

use crate::server::{Client, LIMIT, Server, encoded};
use std::time::Instant;

const VALUE_BYTES: usize = 1 << 20;

fn set_large(client: &mut Client, key: &str, bytes: usize) {
    assert_eq!(client.ask(&format!("SET {key} {}", "x".repeat(bytes))), "+OK");
}

/// A field of a client's line in CLIENT LIST, by the client's name.
pub(crate) fn field(beside: &mut Client, name: &str, field: &str) -> Option<usize> {
    let list = beside.ask("CLIENT LIST");
    let line = list.split("id=").find(|line| line.contains(&format!(" name={name} ")))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix(&format!("{field}=")))?;
    value.parse().ok()
}

/// Asks again until it is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < LIMIT, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn a_reader_always_a_little_behind_does_not_make_the_process_grow() {
    const REQUESTS: usize = 1000;
    // Measured: 63 MB, of which 16 are held and the rest are pages the allocator keeps for a while; with every reply kept
    // until all were sent it was 2,806.
    const GROWTH_MAX: usize = 128 << 20;
    let server = Server::start(&["--client-output-buffer-limit", "normal 0 0 0"]);
    let (mut reader, mut beside) = (server.client(), server.client());
    set_large(&mut reader, "k", VALUE_BYTES);
    assert_eq!(reader.ask("CLIENT SETNAME reader"), "+OK");
    let before = server.peak_memory_bytes();
    reader.send(&["GET k"; REQUESTS]);
    for _ in 0..REQUESTS {
        assert_eq!(reader.receive().len(), VALUE_BYTES + "$1048576 ".len());
    }
    let growth = server.peak_memory_bytes() - before;
    assert!(growth < GROWTH_MAX, "grew by {growth} bytes");
    eventually("nothing is held any more", || field(&mut beside, "reader", "omem") == Some(0));
}

#[test]
fn what_is_held_for_a_client_is_shown_until_it_takes_it() {
    let server = Server::start(&[]);
    let (mut idle, mut beside) = (server.client(), server.client());
    set_large(&mut idle, "k", 32 * VALUE_BYTES);
    assert_eq!(idle.ask("CLIENT SETNAME idle"), "+OK");
    idle.send(&["GET k"]);
    eventually("its block is held", || field(&mut beside, "idle", "omem") >= Some(16 * VALUE_BYTES));
    assert!(field(&mut beside, "idle", "tot-mem") > field(&mut beside, "idle", "omem"));
    idle.receive();
    eventually("nothing is held any more", || field(&mut beside, "idle", "omem") == Some(0));
}

#[test]
fn a_reply_over_the_output_limit_is_not_sent_in_part() {
    let server = Server::start(&["--client-output-buffer-limit", "normal 1mb 0 0"]);
    let mut client = server.client();
    set_large(&mut client, "k", VALUE_BYTES / 2);
    assert_eq!(client.ask("GET k").len(), VALUE_BYTES / 2 + "$524288 ".len());
    set_large(&mut client, "k", 2 * VALUE_BYTES);
    client.send(&["GET k"]);
    assert_eq!(client.try_receive(), None);
    assert!(!client.has_received_more(), "not a byte of it");
    assert_eq!(server.client().ask("PING"), "+PONG");
}

#[test]
fn a_flood_of_one_client_takes_its_turns_like_others() {
    // Other clients are read from after one turn, not after as many as the runtime likes to string together.
    const REQUESTS_BETWEEN_MAX: i64 = 8 * 1024;
    const ROUNDS: usize = 50;
    let server = Server::start(&[]);
    let mut flood = server.client().stream;
    let mut drain = flood.try_clone().expect("the socket once more");
    std::thread::spawn(move || std::io::copy(&mut drain, &mut std::io::sink()));
    let flooding = std::thread::spawn(move || {
        let requests = encoded(&["INCR n"; 4096]);
        while std::io::Write::write_all(&mut flood, &requests).is_ok() {}
    });
    let mut beside = server.client();
    let mut count = || beside.ask("GET n").rsplit(' ').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    eventually("the flood has begun", || count() > 100_000);
    let counts: Vec<i64> = (0..ROUNDS).map(|_| count()).collect();
    // This thread itself may have waited for the processor: the shortest round counts.
    let least = counts.windows(2).map(|pair| pair[1] - pair[0]).min().expect("rounds");
    assert!(least <= REQUESTS_BETWEEN_MAX, "{least} requests of the flood between two of another client");
    drop(server);
    flooding.join().expect("it ends with the server");
}

#[test]
fn a_client_that_has_gone_is_noticed_while_it_waits_with_much_to_execute() {
    let server = Server::start(&[]);
    let mut beside = server.client();
    // Little to execute; more than is read ahead; more than its sockets take, so that only a reset says that it has gone.
    for (pipelined, is_reset) in [(1, false), (4_500, false), (20_000, true)] {
        let mut waiting = server.client();
        assert_eq!(waiting.ask("CLIENT SETNAME waiting"), "+OK");
        assert_eq!(beside.ask("CLIENT PAUSE 100000000 WRITE"), "+OK");
        waiting.send(&["SET k v"].repeat(pipelined));
        eventually("it waits", || beside.ask("INFO clients").contains("blocked_clients:1"));
        if is_reset {
            socket2::SockRef::from(&waiting.stream).set_linger(Some(std::time::Duration::ZERO)).expect("a reset");
        }
        drop(waiting);
        eventually("it has gone", || field(&mut beside, "waiting", "age").is_none());
        assert!(beside.ask("INFO clients").contains("blocked_clients:0"));
        assert_eq!(beside.ask("CLIENT UNPAUSE"), "+OK");
    }
}

#[test]
fn what_was_sent_during_a_wait_is_executed_after_it() {
    const REQUESTS: usize = 20_000;
    let server = Server::start(&[]);
    let (mut beside, mut waiting) = (server.client(), server.client());
    assert_eq!(beside.ask("CLIENT PAUSE 100000000 WRITE"), "+OK");
    waiting.send(&["INCR n"; REQUESTS]);
    eventually("it waits", || beside.ask("INFO clients").contains("blocked_clients:1"));
    assert_eq!(beside.ask("CLIENT UNPAUSE"), "+OK");
    (1..=REQUESTS).for_each(|number| assert_eq!(waiting.receive(), format!(":{number}")));
}

#[test]
fn what_waits_for_exec_is_shown_and_counts_against_maxmemory() {
    let server = Server::start(&["--maxmemory", "32mb"]);
    let (mut queueing, mut beside) = (server.client(), server.client());
    assert_eq!(queueing.ask("CLIENT SETNAME queueing"), "+OK");
    assert_eq!(field(&mut beside, "queueing", "multi"), None, "-1 is no number of commands");
    assert_eq!(queueing.ask("MULTI"), "+OK");
    assert_eq!(field(&mut beside, "queueing", "multi"), Some(0));
    let request = format!("ECHO {}", "x".repeat(VALUE_BYTES));
    let mut queued = 0;
    let refusal = loop {
        match queueing.ask(&request) {
            reply if reply == "+QUEUED" => queued += 1,
            reply => break reply,
        }
        assert_eq!(field(&mut beside, "queueing", "multi"), Some(queued));
        assert!(queued < 40, "the queue is bounded");
    };
    assert!(refusal.starts_with("-OOM "), "{refusal}");
    assert!(queued > 20, "{queued}");
    assert!(field(&mut beside, "queueing", "multi-mem") >= Some(queued * VALUE_BYTES));
    assert!(field(&mut beside, "queueing", "tot-mem") > field(&mut beside, "queueing", "multi-mem"));
    assert_eq!(beside.ask("CONFIG SET maxmemory 16mb"), "+OK");
    assert!(beside.ask("SET k v").starts_with("-OOM "));
    assert!(queueing.ask("EXEC").starts_with("-EXECABORT "));
    assert_eq!(field(&mut beside, "queueing", "multi-mem"), Some(0));
    eventually("memory is there again", || beside.ask("SET k v") == "+OK");
    drop(queueing);
}

#[test]
fn what_waits_for_a_client_counts_against_maxmemory() {
    let server = Server::start(&["--maxmemory", "24mb"]);
    let (mut idle, mut beside) = (server.client(), server.client());
    set_large(&mut idle, "k", 8 * VALUE_BYTES);
    idle.send(&["GET k"; 4]);
    eventually("it is held", || beside.ask("SET other v").starts_with("-OOM "));
    assert_eq!(beside.ask("DEL k"), ":1");
    drop(idle);
    eventually("memory is there again", || beside.ask("SET other v") == "+OK");
}
