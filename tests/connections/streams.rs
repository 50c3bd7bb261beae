//! What Redis versions after 7.0 added to streams, over sockets.

use crate::server::{Client, Server};
use std::time::{Duration, Instant};

/// Entries 1-0 to `count`-0 under `s`, which the groups `a` and `b` have read.
fn prepare(client: &mut Client, count: u64) {
    client.ask("DEL s");
    for number in 1..=count {
        client.ask(&format!("XADD s {number}-0 f v"));
    }
    for group in ["a", "b"] {
        client.ask(&format!("XGROUP CREATE s {group} 0"));
        client.ask(&format!("XREADGROUP GROUP {group} one STREAMS s >"));
    }
}

/// The ids of an array of entries, or of what is pending.
fn ids(reply: &str) -> Vec<&str> {
    reply.split(' ').filter(|word| word.ends_with("-0")).collect()
}

fn check(client: &mut Client, cases: &[(&str, &str)]) {
    for (request, reply) in cases {
        assert_eq!(client.ask(request), *reply, "{request}");
    }
}

#[test]
fn entries_are_deleted_with_regard_to_groups() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(&mut client, &[("XDELEX s IDS 2 1-0 2-0", "*2 :-1 :-1"), ("XACKDEL s a IDS 1 1-0", "*1 :-1")]);
    prepare(&mut client, 6);
    check(
        &mut client,
        &[
            ("XDELEX s IDS 3 1-0 1-0 9-0", "*3 :1 :-1 :-1"),
            ("XDELEX s ACKED IDS 2 2-0 9-0", "*2 :2 :2"),
            ("XACK s a 2-0", ":1"),
            ("XDELEX s ACKED IDS 1 2-0", "*1 :2"),
            ("XACK s b 2-0", ":1"),
            ("XDELEX s ACKED IDS 2 2-0 2-0", "*2 :1 :-1"),
            ("XDELEX s IDS 2 3-0 1-0 DELREF", "*2 :1 :-1"),
            ("XACKDEL s nobody IDS 1 4-0", "*1 :-1"),
            ("XACKDEL s a IDS 2 4-0 4-0", "*2 :1 :-1"),
            ("XACKDEL s b KEEPREF IDS 1 4-0", "*1 :1"),
            ("XACKDEL s a ACKED IDS 2 5-0 3-0", "*2 :2 :-1"),
            ("XACKDEL s b ACKED IDS 1 5-0", "*1 :1"),
            ("XACKDEL s a DELREF IDS 1 6-0", "*1 :1"),
            ("XLEN s", ":0"),
        ],
    );
    for group in ["a", "b"] {
        assert_eq!(client.ask(&format!("XPENDING s {group}")), "*4 :0 $-1 $-1 *-1", "{group}");
    }
    // What a group has not had yet stays, and without groups nothing does.
    prepare(&mut client, 2);
    check(
        &mut client,
        &[
            ("XADD s 3-0 f v", "$3 3-0"),
            ("XDELEX s ACKED IDS 1 3-0", "*1 :2"),
            ("XGROUP DESTROY s a", ":1"),
            ("XGROUP DESTROY s b", ":1"),
            ("XDELEX s ACKED IDS 3 1-0 2-0 3-0", "*3 :1 :1 :1"),
        ],
    );
}

#[test]
fn the_ids_are_counted_and_the_options_exclude_each_other() {
    let server = Server::start(&[]);
    let mut client = server.client();
    for name in ["XDELEX s", "XACKDEL s g"] {
        let cases = [
            ("IDS abc 1-1", "-ERR Number of IDs must be a positive integer"),
            ("IDS 0 1-1", "-ERR Number of IDs must be a positive integer"),
            ("IDS -5 1-1", "-ERR Number of IDs must be a positive integer"),
            ("IDS 3 1-1 2-2", "-ERR The `numids` parameter must match the number of arguments"),
            ("IDS 9223372036854775807 1-1", "-ERR The `numids` parameter must match the number of arguments"),
            ("IDS 1 1-1 2-2", "-ERR syntax error"),
            ("KEEPREF DELREF IDS 1 1-1", "-ERR syntax error"),
            ("ACKED ACKED IDS 1 1-1", "-ERR syntax error"),
            ("ACKED 1-1 2-2", "-ERR syntax error"),
            ("IDS 1 x", "-ERR Invalid stream ID specified as stream command argument"),
        ];
        for (options, error) in cases {
            assert_eq!(client.ask(&format!("{name} {options}")), error, "{name} {options}");
        }
    }
    client.ask("SET string 1");
    for request in ["XDELEX string IDS 1 1-1", "XACKDEL string g IDS 1 1-1"] {
        assert!(client.ask(request).starts_with("-WRONGTYPE"), "{request}");
    }
}

#[test]
fn trimming_regards_groups() {
    let server = Server::start(&[]);
    let mut client = server.client();
    prepare(&mut client, 6);
    client.ask("XACK s a 1-0 2-0 4-0");
    client.ask("XACK s b 2-0 3-0 4-0");
    assert_eq!(client.ask("XTRIM s MAXLEN 5 ACKED"), ":1");
    assert_eq!(ids(&client.ask("XRANGE s - +")), ["1-0", "3-0", "4-0", "5-0", "6-0"]);
    assert_eq!(client.ask("XADD s MAXLEN = 1 ACKED 7-0 f v"), "$3 7-0");
    assert_eq!(ids(&client.ask("XRANGE s - +")), ["1-0", "3-0", "5-0", "6-0", "7-0"]);
    assert_eq!(client.ask("XTRIM s DELREF MINID 5"), ":2");
    assert_eq!(ids(&client.ask("XPENDING s a - + 10")), ["5-0", "6-0"]);
    assert_eq!(client.ask("XTRIM s KEEPREF MAXLEN 0"), ":3");
    assert_eq!(ids(&client.ask("XPENDING s b - + 10")), ["5-0", "6-0"]);
    check(
        &mut client,
        &[
            ("XTRIM s MAXLEN 1 KEEPREF ACKED", "-ERR syntax error"),
            ("XTRIM s ACKED LIMIT 5", "-ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"),
            ("XTRIM nothing MAXLEN 1 ACKED", ":0"),
            ("XADD s DELREF 8-0 f v", "$3 8-0"),
        ],
    );
}

/// The reply without the times in it, which stand before the counts.
fn claimed(reply: &str) -> Vec<(String, Option<String>)> {
    let words: Vec<&str> = reply.split(' ').collect();
    let entries = words.iter().enumerate().filter(|(_, word)| word.ends_with("-0"));
    let count = |at: usize| words.get(at + 7).filter(|_| words[at - 2] == "*4").map(|count| count.to_string());
    entries.map(|(at, id)| (id.to_string(), count(at))).collect()
}

fn expected(entries: &[(&str, &str)]) -> Vec<(String, Option<String>)> {
    entries.iter().map(|(id, count)| (id.to_string(), Some(count.to_string()))).collect()
}

#[test]
fn who_reads_for_a_group_claims_what_has_been_idle() {
    let server = Server::start(&[]);
    let mut client = server.client();
    client.ask("XGROUP CREATE s g 0 MKSTREAM");
    (1..=4).for_each(|number| drop(client.ask(&format!("XADD s {number}-0 f v"))));
    client.ask("XREADGROUP GROUP g one COUNT 3 STREAMS s >");
    client.ask("XDEL s 3-0");
    let long_ago = "XCLAIM s g one 0 2-0 IDLE 5000 JUSTID";
    client.ask(long_ago);
    // What has waited longest is first, and what is new is last.
    let reply = client.ask("XREADGROUP GROUP g two CLAIM 0 STREAMS s >");
    assert_eq!(claimed(&reply), expected(&[("2-0", ":1"), ("1-0", ":1"), ("4-0", ":0")]), "{reply}");
    assert!(reply.starts_with("*1 *2 $1 s *3 *4 $3 2-0 *2 $1 f $1 v :5"), "{reply}");
    assert!(reply.ends_with("*4 $3 4-0 *2 $1 f $1 v :0 :0"), "{reply}");
    assert_eq!(client.ask("XREADGROUP GROUP g two CLAIM 60000 STREAMS s >"), "*-1");
    // A count is for both, and NOACK is not for what is claimed.
    client.ask("XADD s 5-0 f v");
    client.ask(long_ago);
    let reply = client.ask("XREADGROUP GROUP g one CLAIM 4000 COUNT 2 NOACK STREAMS s >");
    assert_eq!(claimed(&reply), expected(&[("2-0", ":2"), ("5-0", ":0")]), "{reply}");
    assert_eq!(ids(&client.ask("XPENDING s g - + 10")), ["1-0", "2-0", "3-0", "4-0"]);
    // The history has entries of two parts.
    assert!(client.ask("XREADGROUP GROUP g two CLAIM 0 STREAMS s 0").starts_with("*1 *2 $1 s *2 *2 $3 1-0"));
    let not_an_integer = "-ERR min-idle-time is not an integer";
    check(
        &mut client,
        &[
            ("XREADGROUP GROUP g c CLAIM 5.5 STREAMS s >", not_an_integer),
            ("XREADGROUP GROUP g c CLAIM -0 STREAMS s >", not_an_integer),
            ("XREADGROUP GROUP g c CLAIM STREAMS s >", not_an_integer),
            ("XREADGROUP GROUP g c CLAIM -10 STREAMS s >", "-ERR min-idle-time must be a positive integer"),
            ("XREADGROUP GROUP g CLAIM 50 c STREAMS s >", "-ERR syntax error"),
            ("XREADGROUP GROUP g c CLAIM 9223372036854775807 STREAMS s >", "*-1"),
            (
                "XREAD CLAIM 1 STREAMS s 0",
                "-ERR The CLAIM option is only supported by XREADGROUP. You called XREAD instead.",
            ),
        ],
    );
}

#[test]
fn what_becomes_idle_serves_who_waits() {
    let server = Server::start(&["--threads", "2"]);
    let (mut client, mut observer) = (server.client(), server.client());
    client.ask("XGROUP CREATE s g 0 MKSTREAM");
    client.ask("XADD s 1-0 f v");
    client.ask("XREADGROUP GROUP g one STREAMS s >");
    let started = Instant::now();
    let reply = client.ask("XREADGROUP GROUP g two BLOCK 30000 CLAIM 200 STREAMS s >");
    assert_eq!(claimed(&reply), expected(&[("1-0", ":1")]), "{reply}");
    assert!(started.elapsed() >= Duration::from_millis(150), "{:?}", started.elapsed());
    // What another gets while it waits comes to it in time, too.
    client.ask("XACK s g 1-0");
    client.send(&["XREADGROUP GROUP g two BLOCK 0 CLAIM 300 STREAMS s >"]);
    let mut first = server.client();
    first.send(&["XREADGROUP GROUP g one BLOCK 0 CLAIM 300 STREAMS s >"]);
    while !observer.ask("INFO clients").contains("blocked_clients:2 ") {}
    observer.ask("XADD s 2-0 f v");
    let mut replies = [claimed(&client.receive()), claimed(&first.receive())];
    replies.sort();
    assert_eq!(replies, [expected(&[("2-0", ":0")]), expected(&[("2-0", ":1")])]);
    // It gives up when it said.
    client.ask("XACK s g 2-0");
    let started = Instant::now();
    assert_eq!(client.ask("XREADGROUP GROUP g two BLOCK 100 CLAIM 20 STREAMS s >"), "*-1");
    assert!((80..5000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
}
