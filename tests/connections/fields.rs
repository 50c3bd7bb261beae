//! Fields of hashes that expire. No redis-server 7.0 to compare with has them: replies, errors and events are those that
//! Redis 8.0 documents.

use crate::notifications::heard;
use crate::output::eventually;
use crate::server::{Client, LIMIT, Server};
use std::time::Instant;

/// Each request with its reply.
fn check(client: &mut Client, cases: &[(&str, &str)]) {
    for (request, reply) in cases {
        assert_eq!(client.ask(request), *reply, "{request}");
    }
}

#[test]
fn fields_have_deadlines_until_they_are_set_anew() {
    let server = Server::start(&[]);
    let mut client = server.client();
    let far = "4000000000";
    check(
        &mut client,
        &[
            ("HSET h a 1 b 2 c 3", ":3"),
            ("OBJECT ENCODING h", "$8 listpack"),
            ("HEXPIRE h 100 FIELDS 3 a b none", "*3 :1 :1 :-2"),
            ("OBJECT ENCODING h", "$10 listpackex"),
            ("HTTL h FIELDS 4 a b c none", "*4 :100 :100 :-1 :-2"),
            ("HGETALL h", "*6 $1 a $1 1 $1 b $1 2 $1 c $1 3"),
            // NX: none; XX: any; GT: later; LT: earlier, or none.
            (&format!("HEXPIREAT h {far} NX FIELDS 2 a c"), "*2 :0 :1"),
            (&format!("HPEXPIREAT h {far}001 GT FIELDS 2 a c"), "*2 :1 :1"),
            (&format!("HPEXPIREAT h {far}001 GT FIELDS 1 c"), "*1 :0"),
            (&format!("HEXPIREAT h {far} lt fields 1 c"), "*1 :1"),
            (&format!("HPEXPIREAT h {far}001 LT FIELDS 1 c"), "*1 :0"),
            ("HEXPIRETIME h FIELDS 2 a c", "*2 :4000000001 :4000000000"),
            ("HPEXPIRETIME h FIELDS 3 a c none", "*3 :4000000000001 :4000000000000 :-2"),
            ("HPERSIST h FIELDS 4 a a none c", "*4 :1 :-1 :-2 :1"),
            ("HEXPIRE h 100 XX FIELDS 2 a b", "*2 :0 :1"),
            ("HEXPIRE h 100 GT FIELDS 1 a", "*1 :0"),
            // Setting clears it, incrementing does not.
            ("HEXPIRE h 100 FIELDS 2 a b", "*2 :1 :1"),
            ("HINCRBY h a 5", ":6"),
            ("HINCRBYFLOAT h a 0.5", "$3 6.5"),
            ("HSET h b 7", ":0"),
            ("HTTL h FIELDS 2 a b", "*2 :100 :-1"),
            // So do COPY and RENAME, which take it along.
            ("COPY h i", ":1"),
            ("RENAME i j", "+OK"),
            ("HTTL j FIELDS 2 a b", "*2 :100 :-1"),
            // A moment that has passed.
            ("HEXPIRE h 0 FIELDS 3 a a none", "*3 :2 :-2 :-2"),
            ("HPEXPIREAT h 1 FIELDS 2 b c", "*2 :2 :2"),
            ("EXISTS h", ":0"),
            ("HEXPIRE h 10 FIELDS 1 a", "*1 :-2"),
            ("HTTL h FIELDS 1 a", "*1 :-2"),
            ("HPERSIST h FIELDS 2 a b", "*2 :-2 :-2"),
        ],
    );
}

#[test]
fn fields_are_read_set_and_taken_with_their_deadlines() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(
        &mut client,
        &[
            ("HSETEX h FXX FIELDS 1 a 1", ":0"),
            ("EXISTS h", ":0"),
            ("HSETEX h FNX EX 100 FIELDS 2 a 1 b 2", ":1"),
            ("HSETEX h FNX FIELDS 2 b 3 c 3", ":0"),
            ("HSETEX h FXX FIELDS 2 b 3 c 3", ":0"),
            ("HMGET h a b c", "*3 $1 1 $1 2 $-1"),
            ("HSETEX h FXX KEEPTTL FIELDS 1 a 4", ":1"),
            ("HSETEX h FIELDS 1 b 5", ":1"),
            ("HTTL h FIELDS 2 a b", "*2 :100 :-1"),
            ("HSETEX h PXAT 4000000000001 FIELDS 2 b 6 c 7", ":1"),
            ("HPEXPIRETIME h FIELDS 2 b c", "*2 :4000000000001 :4000000000001"),
            ("HSETEX h PX 0 FIELDS 1 c 8", ":1"),
            ("HGETEX h FIELDS 3 a b c", "*3 $1 4 $1 6 $-1"),
            ("HGETEX h PERSIST FIELDS 2 a b", "*2 $1 4 $1 6"),
            ("HTTL h FIELDS 2 a b", "*2 :-1 :-1"),
            ("HGETEX h EX 50 FIELDS 2 a none", "*2 $1 4 $-1"),
            ("HTTL h FIELDS 2 a b", "*2 :50 :-1"),
            ("HGETEX h PXAT 5 FIELDS 2 a a", "*2 $1 4 $-1"),
            ("HGETDEL h FIELDS 3 b b none", "*3 $1 6 $-1 $-1"),
            ("EXISTS h", ":0"),
            ("HGETDEL h FIELDS 1 b", "*1 $-1"),
            ("HGETEX h EX 5 FIELDS 1 b", "*1 $-1"),
        ],
    );
}

#[test]
fn errors_are_those_of_redis() {
    let server = Server::start(&[]);
    let mut client = server.client();
    const FIELDS: &str = "-ERR Mandatory argument FIELDS is missing or not at the right position";
    const MATCH: &str = "-ERR The `numfields` parameter must match the number of arguments";
    const WRONG_TYPE: &str = "-WRONGTYPE Operation against a key holding the wrong kind of value";
    const POSITIVE: &str = "-ERR Number of fields must be a positive integer";
    const ONE_TIME: &str = "-ERR Only one of EX, PX, EXAT, PXAT or KEEPTTL arguments can be specified";
    check(
        &mut client,
        &[
            ("SET s 1", "+OK"),
            ("HSET h a 1", ":1"),
            ("HEXPIRE s x FIELDS 1 a", WRONG_TYPE),
            ("HTTL s FIELDS x a", WRONG_TYPE),
            ("HGETEX s EX x FIELDS 1 a", WRONG_TYPE),
            ("HGETDEL s FIELDS x a", WRONG_TYPE),
            ("HSETEX s FIELDS 1 a 1", WRONG_TYPE),
            ("HEXPIRE h 1 FIELDS 1", "-ERR wrong number of arguments for 'hexpire' command"),
            ("HEXPIRE h x FIELDS 1 a", "-ERR value is not an integer or out of range"),
            ("HEXPIRE h -1 FIELDS 1 a", "-ERR invalid expire time, must be >= 0"),
            ("HEXPIRE h 70368744178 FIELDS 1 a", "-ERR invalid expire time in 'hexpire' command"),
            ("HPEXPIREAT h 70368744177664 FIELDS 1 a", "-ERR invalid expire time in 'hpexpireat' command"),
            ("HEXPIRE h 1 WHAT FIELDS 1 a", FIELDS),
            ("HEXPIRE h 1 NX XX FIELDS 1 a", FIELDS),
            ("HEXPIRE h 1 FIELDS 0 a", "-ERR Parameter `numFields` should be greater than 0"),
            ("HEXPIRE h 1 FIELDS a a", "-ERR Parameter `numFields` should be greater than 0"),
            ("HEXPIRE h 1 FIELDS 9223372036854775807 a", MATCH),
            ("HTTL h FIELDS 0 a", POSITIVE),
            ("HTTL h FIELDS 2 a", MATCH),
            ("HTTL h WHAT 1 a", FIELDS),
            ("HPERSIST h FIELDS -1 a", POSITIVE),
            ("HGETDEL h FIELDS 2 a", MATCH),
            ("HGETEX h EX -1 FIELDS 1 a", "-ERR invalid expire time, must be >= 0"),
            ("HGETEX h EX 1 FIELDS", POSITIVE),
            ("HGETEX h KEEPTTL FIELDS 1 a", FIELDS),
            ("HSETEX h EX 1 PX 1 FIELDS 1 a 1", ONE_TIME),
            ("HSETEX h KEEPTTL EX 1 FIELDS 1 a 1", ONE_TIME),
            ("HSETEX h FNX FXX FIELDS 1 a 1", "-ERR Only one of FXX or FNX arguments can be specified"),
            ("HSETEX h NX FIELDS 1 a 1", "-ERR unknown argument: NX"),
            ("HSETEX h FIELDS 0 a 1", "-ERR invalid number of fields"),
            ("HSETEX h FIELDS 2 a 1", "-ERR wrong number of arguments for 'hsetex' command"),
            ("HSETEX h FIELDS 1 a 1 b", "-ERR wrong number of arguments for 'hsetex' command"),
            ("HSETEX h EX 1 FNX EX", ONE_TIME),
            ("HGETALL h", "*2 $1 a $1 1"),
        ],
    );
}

/// Fields go at their moment, and the key with the last of them, for every command; nobody has to come by.
#[test]
fn expired_fields_are_gone() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(
        &mut client,
        &[
            ("HSET h a 1 b 2", ":2"),
            ("HSET lone a 1", ":1"),
            ("HSET left a 1", ":1"),
            ("HPEXPIRE h 1 FIELDS 1 a", "*1 :1"),
            ("HPEXPIRE lone 1 FIELDS 1 a", "*1 :1"),
            ("HPEXPIRE left 1 FIELDS 1 a", "*1 :1"),
        ],
    );
    eventually("the last one set is gone too", || client.ask("HLEN left") == ":0");
    check(
        &mut client,
        &[
            ("HLEN h", ":1"),
            ("HGET h a", "$-1"),
            ("HEXISTS h a", ":0"),
            ("HGETALL h", "*2 $1 b $1 2"),
            ("HKEYS h", "*1 $1 b"),
            ("HVALS h", "*1 $1 2"),
            ("HRANDFIELD h", "$1 b"),
            ("HRANDFIELD h 5 WITHVALUES", "*2 $1 b $1 2"),
            ("HSCAN h 0", "*2 $1 0 *2 $1 b $1 2"),
            ("HSCAN h 0 NOVALUES", "*2 $1 0 *1 $1 b"),
            ("HSCAN h 0 COUNT 5 novalues MATCH b", "*2 $1 0 *1 $1 b"),
            ("HSCAN h 0 NOVALUES COUNT", "-ERR syntax error"),
            ("SCAN 0 NOVALUES", "-ERR NOVALUES option can only be used in HSCAN"),
            ("HTTL h FIELDS 1 a", "*1 :-2"),
            ("HSTRLEN h a", ":0"),
            ("HDEL h a", ":0"),
            ("HSETNX h a 3", ":1"),
            ("TYPE lone", "+none"),
        ],
    );
    let began = Instant::now();
    while client.ask("DBSIZE") != ":1" {
        assert!(began.elapsed() < LIMIT, "the key that nobody asks for goes too");
    }
    check(&mut client, &[("HINCRBY h a 1", ":4"), ("HGETALL h", "*4 $1 b $1 2 $1 a $1 4")]);
}

#[test]
fn changes_of_fields_tell_their_events() {
    let server = Server::start(&["--notify-keyspace-events", "EAn"]);
    let (mut client, mut listener) = (server.client(), server.client());
    assert!(listener.ask("PSUBSCRIBE __keyevent@*__:*").starts_with("*3"));
    let cases: [(&[&str], &[&str]); 5] = [
        (
            &["HSETEX h EX 100 FIELDS 2 a 1 b 2", "HGETEX h PERSIST FIELDS 1 a", "HGETEX h FIELDS 1 a"],
            &["new h", "hset h", "hexpire h", "hpersist h"],
        ),
        (
            &["HEXPIRE h 5 FIELDS 1 a", "HGETEX h PX 500 FIELDS 1 a", "HPERSIST h FIELDS 2 a b"],
            &["hexpire h", "hexpire h", "hpersist h"],
        ),
        (&["HGETDEL h FIELDS 1 a", "HEXPIRE h 0 FIELDS 1 b"], &["hdel h", "hdel h", "del h"]),
        (&["HSETEX h PX 0 FIELDS 1 a 1"], &["new h", "hset h", "hdel h", "del h"]),
        (
            &["HSET h a 1", "HPEXPIRE h 1 FIELDS 1 a", "DEBUG SLEEP 0.005", "HGET h a"],
            &["new h", "hset h", "hexpire h", "hexpired h", "del h"],
        ),
    ];
    for (requests, events) in cases {
        assert_eq!(heard(&mut client, &mut listener, requests), events, "{requests:?}");
    }
}
