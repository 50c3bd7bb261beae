//! MIGRATE: keys from one server to another, and what becomes of those that are written on their way.

use crate::server::{Client, LIMIT, Server, encoded};
use std::io::Write;
use std::net::{TcpListener, TcpStream};

/// A target that the test answers for: it sees each request, and decides when it is done.
struct Stand {
    listener: TcpListener,
}

impl Stand {
    fn new() -> Stand {
        Stand { listener: TcpListener::bind("127.0.0.1:0").expect("a port") }
    }

    fn port(&self) -> u16 {
        self.listener.local_addr().expect("an address").port()
    }

    /// A connection that has selected its database.
    fn accept(&self) -> Client {
        let (stream, _): (TcpStream, _) = self.listener.accept().expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        let mut taken = Client::new(stream);
        assert_eq!(taken.receive(), "*2 $6 SELECT $1 0");
        taken.stream.write_all(b"+OK\r\n").expect("sent");
        taken
    }
}

/// What a request for a key does: its command, its name, its time to live, and the words behind the payload.
fn shown(request: &str) -> String {
    let words: Vec<&str> = request.split(' ').filter(|word| !word.starts_with(['$', '*'])).collect();
    let behind = words.iter().rev().take_while(|word| ["REPLACE", "ABSTTL"].contains(word)).count();
    [&words[..2], &words[words.len() - behind..]].concat().join(" ")
}

#[test]
fn keys_of_all_types_arrive_with_their_deadlines() {
    let (from, to) = (Server::start(&[]), Server::start(&[]));
    let (mut here, mut there) = (from.client(), to.client());
    let long = "x".repeat(200_000);
    for request in [
        "SET string value",
        "SET number 12345",
        &format!("SET long {long}"),
        "RPUSH list a b c",
        "SADD set 1 2 3",
        "HSET hash f v g w",
        "ZADD sorted 1.5 a 2 b",
        "XADD stream 1-1 f v",
    ] {
        assert!(!here.ask(request).starts_with('-'));
    }
    assert_eq!(here.ask("PEXPIRE string 100000"), ":1");
    let port = to.address.port();
    let keys = "string number long missing list set hash sorted stream";
    assert_eq!(here.ask(&format!("MIGRATE 127.0.0.1 {port}  3 5000 KEYS {keys}")), "+OK");
    assert_eq!(here.ask("DBSIZE"), ":0");
    assert_eq!(there.ask("SELECT 3"), "+OK");
    assert_eq!(there.ask("DBSIZE"), ":8");
    for (request, reply) in [
        ("GET string", "$5 value"),
        ("GET number", "$5 12345"),
        ("STRLEN long", ":200000"),
        ("LRANGE list 0 -1", "*3 $1 a $1 b $1 c"),
        ("SMEMBERS set", "*3 $1 1 $1 2 $1 3"),
        ("HGETALL hash", "*4 $1 f $1 v $1 g $1 w"),
        ("ZRANGE sorted 0 -1 WITHSCORES", "*4 $1 a $3 1.5 $1 b $1 2"),
        ("XRANGE stream - +", "*1 *2 $3 1-1 *2 $1 f $1 v"),
        ("TTL number", ":-1"),
    ] {
        assert_eq!(there.ask(request), reply, "{request}");
    }
    let left: u64 = there.ask("PTTL string")[1..].parse().expect("a number");
    assert!((1..=100_000).contains(&left), "{left}");
    // More keys than travel together.
    let names: Vec<String> = (0..1000).map(|number| format!("key:{number}")).collect();
    names.iter().for_each(|name| assert_eq!(here.ask(&format!("SET {name} {name}")), "+OK"));
    assert_eq!(here.ask(&format!("MIGRATE 127.0.0.1 {port}  3 5000 COPY KEYS {}", names.join(" "))), "+OK");
    assert_eq!((here.ask("DBSIZE"), there.ask("DBSIZE")), (":1000".into(), ":1008".into()));
}

#[test]
fn the_replies_are_those_of_redis() {
    let (from, to) = (Server::start(&[]), Server::start(&["--requirepass", "secret"]));
    let mut here = from.client();
    let port = to.address.port();
    let mut check = |request: &str, reply: &str| {
        assert_eq!(here.ask(&request.replace("PORT", &port.to_string())), reply, "{request}");
    };
    const REFUSED: &str = "-ERR Target instance replied with error: ";
    check("MIGRATE 127.0.0.1 PORT none 0 1000", "+NOKEY");
    check("MIGRATE 127.0.0.1 PORT  0 1000 KEYS", "+NOKEY");
    check("SET a 1", "+OK");
    check("MIGRATE 127.0.0.1 1 a 0 1000", "-IOERR error or timeout connecting to the client");
    check("MIGRATE 127.0.0.1 PORT a zero 1000", "-ERR value is not an integer or out of range");
    check("MIGRATE 127.0.0.1 PORT a 0 soon", "-ERR value is not an integer or out of range");
    check("MIGRATE 127.0.0.1 PORT a 0 1000 AUTH", "-ERR syntax error");
    check("MIGRATE 127.0.0.1 PORT a 0 1000 AUTH2 name", "-ERR syntax error");
    check("MIGRATE 127.0.0.1 PORT a 0 1000 WHAT", "-ERR syntax error");
    check(
        "MIGRATE 127.0.0.1 PORT a 0 1000 KEYS b",
        "-ERR When using MIGRATE KEYS option, the key argument must be set to the empty string",
    );
    check("MIGRATE 127.0.0.1 PORT a 0 1000", &format!("{REFUSED}NOAUTH Authentication required."));
    check(
        "MIGRATE 127.0.0.1 PORT a 0 1000 AUTH wrong",
        &format!("{REFUSED}WRONGPASS invalid username-password pair or user is disabled."),
    );
    check("MIGRATE 127.0.0.1 PORT a 99 1000 AUTH secret", &format!("{REFUSED}ERR DB index is out of range"));
    check("EXISTS a", ":1");
    check("MIGRATE 127.0.0.1 PORT a 0 1000 COPY AUTH secret", "+OK");
    check("EXISTS a", ":1");
    let busy = format!("{REFUSED}BUSYKEY Target key name already exists.");
    check("MIGRATE 127.0.0.1 PORT a 0 1000 AUTH2 default secret", &busy);
    // What is refused stays, the others go.
    check("SET b 2", "+OK");
    check("MIGRATE 127.0.0.1 PORT  0 1000 AUTH secret KEYS a b", &busy);
    check("EXISTS a b", ":1");
    check("MIGRATE 127.0.0.1 PORT a 0 1000 REPLACE AUTH secret", "+OK");
    check("EXISTS a b", ":0");
    check("COMMAND GETKEYS MIGRATE h 1  0 10 AUTH keys KEYS x y", "*2 $1 x $1 y");
    check("COMMAND GETKEYS MIGRATE h 1 x 0 10 AUTH keys", "*1 $1 x");
    check("MULTI", "+OK");
    check("MIGRATE 127.0.0.1 PORT a 0 1000", "+QUEUED");
    check("EXEC", "*1 -ERR MIGRATE is not allowed inside a transaction");
}

/// Nobody waits for the network but who has asked, and that one in order.
#[test]
fn only_the_connection_that_asks_waits() {
    let (server, stand) = (Server::start(&[]), Stand::new());
    let (mut mover, mut other) = (server.client(), server.client());
    assert_eq!(other.ask("SET k first"), "+OK");
    mover.send(&[&format!("MIGRATE 127.0.0.1 {} k 0 30000", stand.port()), "EXISTS k"]);
    let mut taken = stand.accept();
    assert_eq!(shown(&taken.receive()), "RESTORE k");
    assert_eq!(other.ask("GET k"), "$5 first");
    taken.send_bytes(b"+OK\r\n");
    assert_eq!((mover.receive(), mover.receive()), ("+OK".into(), ":0".into()));
}

/// A key that changes on its way is sent again, and one that goes is taken away there: no write is lost.
#[test]
fn a_key_that_changes_on_its_way_is_sent_again() {
    let (server, stand) = (Server::start(&[]), Stand::new());
    let (mut mover, mut writer) = (server.client(), server.client());
    assert_eq!(writer.ask("MSET k 1 gone 1"), "+OK");
    mover.send(&[&format!("MIGRATE 127.0.0.1 {}  0 30000 KEYS k gone", stand.port())]);
    let mut taken = stand.accept();
    assert_eq!(shown(&taken.receive()), "RESTORE k");
    assert_eq!(shown(&taken.receive()), "RESTORE gone");
    assert_eq!(writer.ask("INCR k"), ":2");
    assert_eq!(writer.ask("DEL gone"), ":1");
    taken.send_bytes(b"+OK\r\n+OK\r\n");
    assert_eq!(shown(&taken.receive()), "RESTORE k REPLACE");
    assert_eq!(shown(&taken.receive()), "RESTORE gone REPLACE ABSTTL");
    assert_eq!(writer.ask("EXPIRE k 1000"), ":1");
    taken.send_bytes(b"+OK\r\n+OK\r\n");
    let again = taken.receive();
    assert_eq!(shown(&again), "RESTORE k REPLACE");
    assert_eq!(writer.ask("EXISTS k"), ":1");
    taken.send_bytes(b"+OK\r\n");
    assert_eq!(mover.receive(), "+OK");
    assert_eq!(writer.ask("EXISTS k gone"), ":0");
}

/// One that is written to without an end stays; so does one whose target falls silent, or whose client leaves.
#[test]
fn what_is_not_settled_stays() {
    let (server, stand) = (Server::start(&[]), Stand::new());
    let (mut mover, mut writer) = (server.client(), server.client());
    assert_eq!(writer.ask("SET k 0"), "+OK");
    mover.send(&[&format!("MIGRATE 127.0.0.1 {} k 0 30000", stand.port())]);
    let mut taken = stand.accept();
    for _ in 0..64 {
        assert!(shown(&taken.receive()).starts_with("RESTORE k"));
        assert!(writer.ask("INCR k").starts_with(':'));
        taken.send_bytes(b"+OK\r\n");
    }
    assert!(mover.receive().starts_with("-ERR A key was written to all the while"));
    assert_eq!(writer.ask("GET k"), "$2 64");
    mover.send(&[&format!("MIGRATE 127.0.0.1 {} k 0 50", stand.port())]);
    let mut taken = stand.accept();
    assert_eq!(shown(&taken.receive()), "RESTORE k");
    assert_eq!(mover.receive(), "-IOERR error or timeout reading to target instance");
    mover.send_bytes(&encoded(&[&format!("MIGRATE 127.0.0.1 {} k 0 30000", stand.port())]));
    let mut taken = stand.accept();
    assert_eq!(shown(&taken.receive()), "RESTORE k");
    drop(mover);
    assert_eq!(taken.try_receive(), None, "it ends with its client");
    assert_eq!(writer.ask("GET k"), "$2 64");
}
