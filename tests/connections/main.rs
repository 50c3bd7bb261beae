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
