//! Keys that go because memory is short, and what is known of their use.

use crate::output::eventually;
use crate::server::{Client, Server};

fn figure(info: &str, name: &str) -> u64 {
    let line = info.split_ascii_whitespace().find_map(|line| line.strip_prefix(&format!("{name}:"))).expect(name);
    line.parse().expect("a number")
}

#[test]
fn keys_go_where_the_policy_lets_them_and_writes_are_refused_where_none_may() {
    let server = Server::start(&["--maxmemory", "60mb"]);
    let mut client = server.client();
    let value = "v".repeat(100_000);
    let fill = |client: &mut Client| -> Vec<String> {
        (0..1000).map(|number| client.ask(&format!("SET key:{number} {value}"))).collect()
    };
    let refused = fill(&mut client);
    assert_eq!(refused.last().map(String::as_str), Some("-OOM command not allowed when used memory > 'maxmemory'."));
    assert!(client.ask("DEL key:0").starts_with(":1"), "what makes room is not refused");
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        assert_eq!(client.ask(&format!("CONFIG SET maxmemory-policy {policy}")), "+OK");
        assert!(fill(&mut client).iter().all(|reply| reply == "+OK"), "{policy}");
        let info = client.ask("INFO");
        assert!(figure(&info, "evicted_keys") > 100, "{policy}: {}", figure(&info, "evicted_keys"));
        assert!(figure(&info, "used_memory") <= 61 << 20, "{policy}: {}", figure(&info, "used_memory"));
        assert_eq!(client.ask("CONFIG RESETSTAT"), "+OK");
    }
    // Without a deadline nothing may go.
    assert_eq!(client.ask("CONFIG SET maxmemory-policy volatile-ttl"), "+OK");
    assert!(fill(&mut client).iter().any(|reply| reply.starts_with("-OOM")));
    // An idle server comes down too.
    assert_eq!(client.ask("CONFIG SET maxmemory-policy allkeys-lru maxmemory 30mb"), "+OK");
    eventually("it has made room", || figure(&client.ask("INFO memory"), "used_memory") <= 31 << 20);
}

#[test]
fn accesses_are_counted_unless_a_client_leaves_no_trace() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lfu", "--lfu-log-factor", "0"]);
    let mut client = server.client();
    let script = [
        ("SET key value", "+OK"),
        ("OBJECT FREQ key", ":5"),
        ("GET key", "$5 value"),
        ("APPEND key s", ":6"),
        ("OBJECT FREQ key", ":7"),
        ("CLIENT NO-TOUCH ON", "+OK"),
        ("GET key", "$6 values"),
        ("SET key value", "+OK"),
        ("OBJECT FREQ key", ":7"),
        ("TOUCH key", ":1"),
        ("OBJECT FREQ key", ":8"),
        ("CLIENT NO-TOUCH OFF", "+OK"),
        ("MULTI", "+OK"),
        ("GET key", "+QUEUED"),
        ("EXEC", "*1 $5 value"),
        ("OBJECT FREQ key", ":9"),
        ("CLIENT NO-TOUCH maybe", "-ERR syntax error"),
    ];
    for (request, reply) in script {
        assert_eq!(client.ask(request), reply, "{request}");
    }
    assert!(client.ask("OBJECT IDLETIME key").starts_with("-ERR An LFU maxmemory policy is selected"));
    assert_eq!(client.ask("CONFIG SET maxmemory-policy allkeys-lru"), "+OK");
    assert!(client.ask("OBJECT FREQ key").starts_with("-ERR An LFU maxmemory policy is not selected"));
}
