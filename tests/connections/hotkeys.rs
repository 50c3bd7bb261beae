//! HOTKEYS: sessions, what they find, and what is refused.

use super::output::eventually;
use super::server::{Client, Server, encoded};

/// A field of HOTKEYS GET, with all that stands behind it.
fn field(client: &mut Client, name: &str) -> Option<String> {
    let reply = client.ask("HOTKEYS GET");
    reply.split_once(&format!("${} {name} ", name.len())).map(|(_, rest)| rest.to_owned())
}

fn number(client: &mut Client, name: &str) -> Option<u64> {
    let rest = field(client, name)?;
    rest.split(' ').next()?.strip_prefix(':')?.parse().ok()
}

#[track_caller]
fn check(client: &mut Client, request: &str, expected: &str) {
    assert_eq!(client.ask(request), expected, "{request}");
}

#[test]
fn what_is_wrong_with_a_request_is_said() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for (request, expected) in [
        ("HOTKEYS START", "-ERR METRICS parameter is required"),
        ("HOTKEYS START COUNT 5", "-ERR METRICS parameter is required"),
        ("HOTKEYS START METRICS 0", "-ERR METRICS count must be > 0 and <= 2"),
        ("HOTKEYS START METRICS 3 CPU NET", "-ERR METRICS count must be > 0 and <= 2"),
        ("HOTKEYS START METRICS x CPU", "-ERR METRICS count must be > 0 and <= 2"),
        ("HOTKEYS START METRICS 2 CPU", "-ERR METRICS count does not match number of metric types provided"),
        ("HOTKEYS START METRICS 2 CPU CPU", "-ERR METRICS CPU defined more than once!"),
        ("HOTKEYS START METRICS 2 NET NET", "-ERR METRICS NET defined more than once!"),
        ("HOTKEYS START METRICS 1 GPU", "-ERR METRICS no valid metrics passed. Supported: CPU|NET"),
        ("HOTKEYS START METRICS 1 CPU NET", "-ERR syntax error"),
        ("HOTKEYS START METRICS 1 CPU COUNT", "-ERR syntax error"),
        ("HOTKEYS START METRICS 1 CPU COUNT 65", "-ERR COUNT must be between 1 and 64"),
        ("HOTKEYS START METRICS 1 CPU DURATION 1000001", "-ERR DURATION must be between 1 and 1000000"),
        ("HOTKEYS START METRICS 1 CPU SAMPLE 0", "-ERR SAMPLE ratio must be positive"),
        ("HOTKEYS START METRICS 1 CPU SLOTS 1 0", "-ERR SLOTS parameter cannot be used in non-cluster mode"),
        ("HOTKEYS STOP", "$-1"),
        ("HOTKEYS GET", "$-1"),
        ("HOTKEYS RESET", "+OK"),
        ("HOTKEYS START METRICS 2 GPU CPU", "+OK"),
        ("HOTKEYS START METRICS 1 CPU", "-ERR hotkey tracking session already in progress"),
        ("HOTKEYS RESET", "-ERR hotkey tracking session in progress, stop tracking first"),
        ("HOTKEYS STOP", "+OK"),
        ("HOTKEYS STOP", "$-1"),
        ("HOTKEYS RESET", "+OK"),
        ("HOTKEYS GET", "$-1"),
    ] {
        check(&mut client, request, expected);
    }
}

#[test]
fn the_keys_of_most_bytes_are_found_also_deep_in_pipelines_and_in_transactions() {
    let server = Server::start(&["--threads", "2"]);
    let mut client = server.client();
    check(&mut client, "HOTKEYS START METRICS 1 NET COUNT 2", "+OK");
    let noise: Vec<String> = (0..2000).map(|number| format!("SET noise:{number} {number}")).collect();
    let noise: Vec<&str> = noise.iter().map(String::as_str).collect();
    client.send_bytes(&encoded(&noise));
    noise.iter().for_each(|_| drop(client.receive()));
    let mut other = server.client();
    other.send_bytes(&encoded(&["GET hot"; 1000]));
    (0..1000).for_each(|_| drop(other.receive()));
    check(&mut client, "MULTI", "+OK");
    (0..300).for_each(|_| check(&mut client, "GET warm", "+QUEUED"));
    assert_eq!(client.ask("EXEC").matches("$-1").count(), 300);
    // *2 $3 GET $3 hot, and $-1: 27 bytes.
    let bytes = (1000 * 27, 300 * 28);
    let found = field(&mut client, "by-net-bytes").expect("it was asked for");
    assert_eq!(found, format!("*4 $3 hot :{} $4 warm :{}", bytes.0, bytes.1));
    let total = number(&mut client, "total-net-bytes");
    assert_eq!(total, number(&mut client, "net-bytes-all-commands-all-slots"));
    assert!(total > Some(bytes.0 + bytes.1));
    assert_eq!(field(&mut client, "by-cpu-time-us"), None);
    assert_eq!(number(&mut client, "all-commands-selected-slots-us"), None, "only where slots were given");
    assert!(client.ask("HOTKEYS GET").contains("$14 selected-slots *1 *2 :0 :16383 "));
    // What comes later is not counted.
    check(&mut client, "HOTKEYS STOP", "+OK");
    check(&mut client, "GET hot", "$-1");
    assert_eq!(number(&mut client, "total-net-bytes"), total);
    assert_eq!(number(&mut client, "tracking-active"), Some(0));
}

#[test]
fn the_keys_of_most_time_are_found_and_those_of_one_command_share_it() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let members: Vec<String> = (0..5000).map(|number| format!("{number} member:{number}")).collect();
    assert_eq!(client.ask(&format!("ZADD large {}", members.join(" "))), ":5000");
    check(&mut client, "HOTKEYS START METRICS 2 CPU NET", "+OK");
    for _ in 0..20 {
        client.ask("ZRANGE large 0 -1");
        client.ask("GET small");
    }
    client.ask("MGET one other");
    let found = field(&mut client, "by-cpu-time-us").expect("it was asked for");
    assert!(found.starts_with("*8 $5 large :"), "{found}");
    let found = field(&mut client, "by-net-bytes").expect("it was asked for");
    // *3 $4 MGET $3 one $5 other, and *2 $-1 $-1: 48 bytes.
    assert!(found.ends_with("$3 one :24 $5 other :24"), "{found}");
    assert!(number(&mut client, "all-commands-all-slots-us") > Some(0));
    assert!(number(&mut client, "total-cpu-time-user-ms").is_some());
}

#[test]
fn a_sample_has_the_keys_of_some_commands_and_the_sums_of_all() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(&mut client, "HOTKEYS START METRICS 1 NET SAMPLE 10", "+OK");
    client.send_bytes(&encoded(&["GET hot"; 5000]));
    (0..5000).for_each(|_| drop(client.receive()));
    assert_eq!(number(&mut client, "net-bytes-all-commands-all-slots"), Some(5000 * 27));
    let noted = number(&mut client, "total-net-bytes").expect("it was asked for") / 27;
    assert!((300..700).contains(&noted), "{noted} of 5000");
}

#[test]
fn a_session_ends_when_its_time_is_over() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(&mut client, "HOTKEYS START METRICS 1 CPU DURATION 1", "+OK");
    eventually("the session ends", || number(&mut client, "tracking-active") == Some(0));
    assert_eq!(number(&mut client, "collection-duration-ms"), Some(1000));
    check(&mut client, "HOTKEYS STOP", "$-1");
    check(&mut client, "HOTKEYS START METRICS 1 CPU", "+OK");
}
