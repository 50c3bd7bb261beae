//! Connections over real sockets: what one client may do to the others, and in which order it is answered.

mod append_log;
mod behind;
mod blocking;
mod cluster_scan;
mod conditions;
mod eviction;
mod fields;
mod foreign;
mod hotkeys;
mod local;
mod migrate;
mod notifications;
mod order;
mod output;
mod server;
mod snapshots;
mod sorting;
mod streams;
mod timing;

use server::Server;

#[test]
fn a_request_may_have_more_than_a_million_arguments() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut request = b"*1100002\r\n$4\r\nSADD\r\n$3\r\nset\r\n".to_vec();
    for member in 0..1_100_000 {
        request.extend_from_slice(format!("$7\r\n{member:07}\r\n").as_bytes());
    }
    client.send_bytes(&request);
    assert_eq!(client.receive(), ":1100000");
    assert_eq!(client.ask("SCARD set"), ":1100000");
}

#[test]
fn arguments_count_as_bytes_of_the_query_buffer() {
    let server = Server::start(&["--client-query-buffer-limit", "1mb"]);
    let mut client = server.client();
    // 720 KB that have arrived need as much again to remember where each of them lies.
    let mut request = b"*200000\r\n".to_vec();
    request.extend_from_slice(&b"$0\r\n\r\n".repeat(120_000));
    client.send_bytes(&request);
    assert_eq!(client.try_receive(), None, "closed without a word, as Redis does");
    assert_eq!(server.client().ask("PING"), "+PONG");
}

#[test]
fn a_panic_in_a_handler_ends_the_process_with_a_last_line() {
    for prelude in [&[][..], &["MULTI"]] {
        let mut server = Server::start(&[]);
        let mut client = server.client();
        prelude.iter().for_each(|request| assert_eq!(client.ask(request), "+OK"));
        match prelude {
            [] => client.send(&["DEBUG PANIC"]),
            _ => {
                assert_eq!(client.ask("DEBUG PANIC"), "+QUEUED");
                client.send(&["EXEC"]);
            }
        }
        let (status, log) = server.wait();
        assert!(!status.success(), "{status}");
        let last = log.last().expect("a log");
        assert!(last.contains("PANIC") && last.contains("command 'debug'") && last.contains("'worker-0'"), "{last}");
        assert!(last.contains("debug.rs:"), "the place: {last}");
        assert_eq!(client.try_receive(), None);
    }
}

#[test]
fn debug_panic_is_guarded_as_debug_is() {
    let server = Server::start(&["--enable-debug-command", "no"]);
    let mut client = server.client();
    assert!(client.ask("DEBUG PANIC").starts_with("-ERR DEBUG command not allowed"));
    assert_eq!(client.ask("PING"), "+PONG");
}

#[test]
fn debug_moves_large_elements_of_lists_to_chunks_of_their_own() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let mut check = |requests: &[&str], encoding: &str| {
        client.ask("DEL list");
        requests.iter().for_each(|request| drop(client.ask(request)));
        assert_eq!(client.ask("OBJECT ENCODING list"), format!("${} {encoding}", encoding.len()), "{requests:?}");
    };
    check(&["RPUSH list large small"], "listpack");
    check(&["DEBUG QUICKLIST-PACKED-THRESHOLD 5b", "RPUSH list tiny"], "listpack");
    check(&["RPUSH list tiny large"], "quicklist");
    // Another directive is changed: this one stays.
    check(&["CONFIG SET set-max-intset-entries 100", "RPUSH list large"], "quicklist");
    check(&["DEBUG QUICKLIST-PACKED-THRESHOLD 0", "RPUSH list large"], "listpack");
    for refused in ["4gb", "-1", "many"] {
        let reply = client.ask(&format!("DEBUG QUICKLIST-PACKED-THRESHOLD {refused}"));
        assert!(reply.starts_with("-ERR argument must be a memory value"), "{refused}: {reply}");
    }
}

#[test]
fn what_expires_while_writers_wait_is_not_there_and_not_removed_before_they_go_on() {
    let server = Server::start(&[]);
    let mut client = server.client();
    // In one transaction, so that the pause is there before the moment.
    let requests = ["MULTI", "SET key value PX 1", "SET other value PX 1", "CLIENT PAUSE 1000000 WRITE", "EXEC"];
    requests.iter().for_each(|request| drop(client.ask(request)));
    let expired = |client: &mut server::Client| {
        let info = client.ask("INFO stats");
        let line = info.split_whitespace().find_map(|line| line.strip_prefix("expired_keys:"));
        line.expect("a line").parse::<u64>().expect("a number")
    };
    while client.ask("GET key") != "$-1" {}
    assert_eq!(client.ask("EXISTS key other"), ":0");
    assert_eq!(expired(&mut client), 0);
    assert_eq!(client.ask("CLIENT UNPAUSE"), "+OK");
    assert_eq!(client.ask("EXISTS key other"), ":0");
    while expired(&mut client) < 2 {}
    assert_eq!(expired(&mut client), 2);
}

#[test]
fn a_command_that_has_waited_is_in_the_slow_log_and_in_the_statistics() {
    let server = Server::start(&["--slowlog-log-slower-than", "0"]);
    let (mut client, mut waiting) = (server.client(), server.client());
    for (request, ends) in [("BLPOP list 0", "RPUSH list a"), ("BLPOP none 0.001", "PING")] {
        client.ask("CONFIG RESETSTAT");
        waiting.send(&[request]);
        if request.ends_with(" 0") {
            while !client.ask("INFO clients").contains("blocked_clients:1") {}
        }
        client.ask(ends);
        waiting.receive();
        assert_eq!(waiting.ask("PING"), "+PONG");
        let words: Vec<String> = request.split(' ').map(|word| format!("${} {word}", word.len())).collect();
        let entry = format!("*3 {}", words.join(" "));
        let log = client.ask("SLOWLOG GET 10");
        assert!(log.contains(&entry), "{request}: {log}");
        let latencies = client.ask("INFO latencystats");
        assert!(latencies.contains("latency_percentiles_usec_blpop:"), "{request}: {latencies}");
    }
}
