//! Strings that change where they are what a client thinks (Redis 8.4, Valkey 9).

use crate::server::{Client, Server};

fn check(client: &mut Client, cases: &[(&str, &str)]) {
    for (request, expected) in cases {
        assert_eq!(client.ask(request), *expected, "{request}");
    }
}

#[test]
fn set_delex_and_delifeq_look_first() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(
        &mut client,
        &[
            ("SET k a IFEQ b", "$-1"),
            ("EXISTS k", ":0"),
            ("SET k a IFNE b", "+OK"),
            ("SET k b IFEQ a GET", "$1 a"),
            ("SET k c IFEQ a GET", "$1 b"),
            ("GET k", "$1 b"),
            ("SET k c IFNE b EX 100", "$-1"),
            ("SET k c NX IFEQ b", "-ERR syntax error"),
            ("SET k c IFEQ b XX", "-ERR syntax error"),
            ("SET k c IFEQ", "-ERR syntax error"),
            ("SET k b IFDEQ abc", "-ERR must be exactly 16 hexadecimal characters"),
            ("SET none b IFDEQ abc", "$-1"),
            ("DELEX k IFNE b", ":0"),
            ("DELEX k IFOO b", "-ERR Invalid condition. Use IFEQ, IFNE, IFDEQ, or IFDNE"),
            ("DELEX k IFEQ", "-ERR wrong number of arguments for 'delex' command"),
            ("DELEX k IFEQ b", ":1"),
            ("RPUSH l x", ":1"),
            ("SET l x IFEQ x", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("DELEX l IFEQ x", "-ERR Key should be of string type if conditions are specified"),
            ("DELIFEQ l x", "-WRONGTYPE Operation against a key holding the wrong kind of value"),
            ("DELEX l", ":1"),
            ("SET k 12", "+OK"),
            ("DELIFEQ k 13", ":0"),
            ("DELIFEQ k 12", ":1"),
            ("DELIFEQ k 12", ":0"),
        ],
    );
}

#[test]
fn digests_are_xxh3() {
    let server = Server::start(&[]);
    let mut client = server.client();
    assert_eq!(client.ask("DIGEST k"), "$-1");
    assert_eq!(client.ask("SETRANGE k 0 x"), ":1");
    let digest = client.ask("DIGEST k").replace("$16 ", "");
    assert_eq!(digest.len(), 16, "{digest}");
    assert_eq!(client.ask(&format!("SET k y IFDNE {digest}")), "$-1");
    assert_eq!(client.ask(&format!("SET k y IFDEQ {}", digest.to_uppercase())), "+OK");
    assert_eq!(client.ask(&format!("DELEX k IFDEQ {digest}")), ":0");
    assert_eq!(client.ask(&format!("DELEX k IFDNE {digest}")), ":1");
}

#[test]
fn msetex_sets_all_keys_or_none() {
    let server = Server::start(&[]);
    let mut client = server.client();
    check(
        &mut client,
        &[
            ("MSETEX 2 {a}1 x {a}2 y NX EX 100", ":1"),
            ("TTL {a}2", ":100"),
            ("MSETEX 2 {a}1 z {a}3 z NX", ":0"),
            ("MSETEX 2 {a}1 z {a}3 z XX", ":0"),
            ("MGET {a}1 {a}3", "*2 $1 x $-1"),
            ("MSETEX 2 {a}1 z {a}2 z XX KEEPTTL", ":1"),
            ("TTL {a}2", ":100"),
            ("MSETEX 1 {a}2 z", ":1"),
            ("TTL {a}2", ":-1"),
            ("MSETEX 0 {a}1 z", "-ERR invalid numkeys value"),
            ("MSETEX x {a}1 z", "-ERR invalid numkeys value"),
            ("MSETEX 2 {a}1 z {a}2", "-ERR wrong number of key-value pairs"),
            ("MSETEX 1 {a}1 z GET", "-ERR syntax error"),
            ("MSETEX 1 {a}1 z EX 0", "-ERR invalid expire time in 'msetex' command"),
        ],
    );
}
