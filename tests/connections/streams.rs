//! What Redis versions after 7.0 added to streams, over sockets.

use crate::server::{Client, Server};

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
