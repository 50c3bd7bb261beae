//! Key events as messages, in Redis's words and order.

use crate::server::{Client, Server};

/// What a subscriber of every event hears of some requests: the event and its key.
pub(crate) fn heard(client: &mut Client, listener: &mut Client, requests: &[&str]) -> Vec<String> {
    requests.iter().for_each(|request| drop(client.ask(request)));
    assert!(client.ask("PUBLISH __keyevent@0__:end end").starts_with(':'));
    let mut events = Vec::new();
    loop {
        let message = listener.receive();
        let words: Vec<&str> = message.split(' ').collect();
        let (channel, key) = (words[words.len() - 3], words[words.len() - 1]);
        let name = channel.trim_start_matches("__keyevent@").replace("__:", ":");
        match name.as_str() {
            "0:end" => return events,
            name => events.push(format!("{} {key}", name.trim_start_matches("0:"))),
        }
    }
}

#[test]
fn every_change_tells_its_event() {
    let server = Server::start(&["--notify-keyspace-events", "EAmn"]);
    let (mut client, mut listener) = (server.client(), server.client());
    assert!(listener.ask("PSUBSCRIBE __keyevent@*__:*").starts_with("*3"));
    // As redis-server 7.0.15 tells them.
    let cases: [(&[&str], &[&str]); 20] = [
        (&["SET k v", "SET k v EX 100", "SET k v NX"], &["new k", "set k", "set k", "expire k"]),
        (&["GETSET k w", "APPEND k x", "SETRANGE k 2 y"], &["set k", "append k", "setrange k"]),
        (
            &[
                "SETBIT k 0 1",
                "SETBIT k 0 1",
                "BITFIELD k SET u8 0 1 SET u8 8 2",
                "BITFIELD k GET u8 0",
                "BITOP OR k k",
            ],
            &["setbit k", "setbit k", "set k"],
        ),
        (
            &["PFADD p a b", "PFADD p a", "PFCOUNT p", "PFMERGE q p", "PFDEBUG TODENSE q", "PFADD q c", "DEL p q"],
            &["new p", "pfadd p", "keymiss q", "new q", "pfadd q", "pfadd q", "del p", "del q"],
        ),
        (
            &["MSET a 1 b 2", "INCR a", "INCRBYFLOAT a 1"],
            &["new a", "set a", "new b", "set b", "incrby a", "incrbyfloat a"],
        ),
        (
            &["EXPIRE k 9", "GETEX k PERSIST", "GETEX k EX 9", "GETDEL k"],
            &["expire k", "persist k", "expire k", "del k"],
        ),
        (&["GET k", "EXISTS a", "STRLEN missing"], &["keymiss k", "keymiss missing"]),
        (&["EXPIRE a 100", "PERSIST a", "EXPIREAT a 1", "DEL b k"], &["expire a", "persist a", "del a", "del b"]),
        (
            &["RPUSH l 1 2", "LPUSH l 0", "LPOP l", "RPOP l 2"],
            &["new l", "rpush l", "lpush l", "lpop l", "rpop l", "del l"],
        ),
        (&["RPUSH l 1", "LMOVE l m LEFT RIGHT"], &["new l", "rpush l", "new m", "rpush m", "lpop l", "del l"]),
        (&["HSET h f v g w", "HDEL h f", "HDEL h g z"], &["new h", "hset h", "hdel h", "hdel h", "del h"]),
        (&["SADD s 1 2", "SADD s 1", "SREM s 1", "SPOP s"], &["new s", "sadd s", "srem s", "spop s", "del s"]),
        (&["ZADD z 1 a 2 b", "ZADD z 1 a", "ZINCRBY z 2 b"], &["new z", "zadd z", "zincr z"]),
        (&["ZREM z a", "ZPOPMIN z"], &["zrem z", "zpopmin z", "del z"]),
        (
            &["SET r 1", "RENAME r q", "COPY q p", "COPY q p"],
            &["new r", "set r", "new q", "rename_from r", "rename_to q", "new p", "copy_to p"],
        ),
        (&["MOVE q 1"], &["1:new q", "move_from q", "1:move_to q"]),
        (&["SET x 1 PXAT 1", "GET x"], &["new x", "set x", "expire x", "expired x", "keymiss x"]),
        (&["MULTI", "SET m2 1", "DEL m2", "EXEC"], &["new m2", "set m2", "del m2"]),
        (&["FLUSHALL", "SWAPDB 0 1"], &[]),
        (&["CONFIG SET notify-keyspace-events Kg", "SET k v", "DEL k"], &[]),
    ];
    for (requests, events) in cases {
        assert_eq!(heard(&mut client, &mut listener, requests), events, "{requests:?}");
    }
    let mut other = server.client();
    assert!(other.ask("SUBSCRIBE __keyspace@0__:k").starts_with("*3"));
    client.send(&["SET k v", "DEL k"]);
    assert!(other.receive().ends_with("$3 del"), "strings are not told, by CONFIG SET");
}

/// What serves a client that waits is told after what made its key ready.
#[test]
fn events_of_those_who_waited_come_behind() {
    let server = Server::start(&["--notify-keyspace-events", "KEA", "--threads", "2"]);
    let (mut client, mut listener, mut waiting) = (server.client(), server.client(), server.client());
    waiting.send(&["BLPOP l 0"]);
    while !client.ask("INFO clients").contains("blocked_clients:1 ") {}
    assert!(listener.ask("PSUBSCRIBE __keyevent@*__:*").starts_with("*3"));
    assert_eq!(heard(&mut client, &mut listener, &["RPUSH l 1 2"]), ["rpush l", "lpop l"]);
    assert_eq!(waiting.receive(), "*2 $1 l $1 1");
}
