//! CLUSTERSCAN on a node that has all slots.

use crate::server::{Client, LIMIT, Server};
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::time::Instant;

/// A cluster of one node, which serves.
fn serving() -> (Server, tempfile::TempDir) {
    let directory = tempfile::tempdir().expect("a directory");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
    let (port, path) = (free.port().to_string(), directory.path().display().to_string());
    let server = Server::start(&["--cluster-enabled", "yes", "--cluster-port", &port, "--dir", &path]);
    let (mut client, started) = (server.client(), Instant::now());
    while client.ask("DEL ready") != ":0" {
        assert!(started.elapsed() < LIMIT, "it serves its slots");
    }
    (server, directory)
}

/// The keys that a walk from this cursor on finds.
fn walked(client: &mut Client, mut cursor: String, options: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    loop {
        let reply = client.ask(&format!("CLUSTERSCAN {cursor}{options}"));
        let words: Vec<&str> = reply.split(' ').collect();
        assert_eq!(words[0], "*2", "{reply}");
        keys.extend(words.iter().skip(5).step_by(2).map(|key| key.to_string()));
        cursor = words[2].to_owned();
        if cursor == "0" {
            return keys;
        }
    }
}

#[test]
fn a_walk_finds_every_key_once_or_more() {
    let (server, _directory) = serving();
    let mut client = server.client();
    let keys: BTreeSet<String> = (0..200).map(|number| format!("key:{number}")).collect();
    keys.iter().for_each(|key| drop(client.ask(&format!("SET {key} v"))));
    let tagged: BTreeSet<String> = (0..50).map(|number| format!("{{06S}}:{number}")).collect();
    tagged.iter().for_each(|key| drop(client.ask(&format!("SADD {key} v"))));
    assert_eq!(walked(&mut client, "0".into(), ""), keys.union(&tagged).cloned().collect());
    assert_eq!(walked(&mut client, "0".into(), " TYPE set COUNT 3"), tagged);
    assert_eq!(walked(&mut client, "0".into(), " SLOT 0 COUNT 3"), tagged);
    assert_eq!(walked(&mut client, "0".into(), " MATCH {06S}:* COUNT 7"), tagged);
    assert_eq!(walked(&mut client, "0".into(), " MATCH key:* COUNT 7"), keys);
    // Where the order may have been another one the slot begins anew.
    assert_eq!(walked(&mut client, "elsewhere-{06S}-4000000000".into(), " SLOT 0"), tagged);
    assert_eq!(walked(&mut client, "0-{06S}-09393399393".into(), " SLOT 0"), tagged);
    // What lies behind the slot of the cursor.
    assert_eq!(walked(&mut client, "0-{Qi}-0".into(), ""), keys);
}

#[test]
fn cursors_name_slots_and_options_are_checked() {
    let (server, _directory) = serving();
    let mut client = server.client();
    let nothing = "*2 $1 0 *0";
    let cases = [
        ("0", "*2 $9 0-{06S}-0 *0"),
        ("0 SLOT 1", "*2 $8 0-{Qi}-0 *0"),
        ("0 MATCH {Qi}-*", "*2 $8 0-{Qi}-0 *0"),
        ("0-{06S}-0 MATCH {Qi}-*", "*2 $8 0-{Qi}-0 *0"),
        ("0-{Qi}-0 MATCH {06S}-*", nothing),
        ("0 SLOT 0 MATCH {Qi}-*", nothing),
        ("0-{06S}-0 SLOT 0 MATCH {Qi}-*", nothing),
        ("0-{6ZJ}-0", nothing),
        ("0-{06S}-0", nothing),
        ("invalid", "-ERR Invalid cursor"),
        ("abc-def-ghi", "-ERR Invalid cursor"),
        ("0-", "-ERR Invalid cursor"),
        ("0-{0}", "-ERR Invalid cursor"),
        ("0-{0}-", "-ERR Invalid cursor"),
        ("0-{0}-x", "-ERR Invalid cursor"),
        ("0-{}-0", "-ERR Invalid cursor"),
        ("0-{06S}-0 UNKNOWNOPTION", "-ERR syntax error"),
        ("0-{06S}-0 COUNT 10 BADOPTION", "-ERR syntax error"),
        ("0 COUNT 0", "-ERR syntax error"),
        ("0 COUNT x", "-ERR value is not an integer or out of range"),
        ("0 TYPE notatype", "-ERR unknown type name 'notatype'"),
        ("0-{06S}-0 SLOT 1", "-ERR Cursor slot mismatch"),
        ("0-{06S}-0 SLOT 20000", "-ERR Invalid or out of range slot"),
        ("0-{06S}-0 SLOT 0 SLOT 0", "-ERR SLOT option can only be specified once"),
    ];
    for (request, reply) in cases {
        assert_eq!(client.ask(&format!("CLUSTERSCAN {request}")), reply, "{request}");
    }
    let alone = Server::start(&[]);
    let disabled = "-ERR This instance has cluster support disabled";
    assert_eq!(alone.client().ask("CLUSTERSCAN 0"), disabled);
    assert_eq!(alone.client().ask("SCAN 0 SLOT 0"), "-ERR syntax error");
}
