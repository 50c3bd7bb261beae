//! The order of one connection's requests, whatever link each of them takes: what a client of the proxy listener of three
//! nodes is answered is what one node answers.

use crate::client::Client;
use crate::listener::{Trio, keys_of_thirds};
use crate::nodes::Node;

/// Sends everything in one write; the replies, their line ends as blanks.
fn answers(client: &mut Client, requests: &[&str]) -> Vec<String> {
    client.send(&requests.iter().map(|request| (*request).to_owned()).collect::<Vec<_>>());
    requests.iter().map(|_| client.receive().trim_end().replace("\r\n", " ")).collect()
}

#[test]
fn nothing_overtakes_an_exec_that_watches() {
    let trio = Trio::start();
    let mut client = trio.client();
    for key in keys_of_thirds("k") {
        for _ in 0..20 {
            client.check(&format!("SET {key} 1"), "+OK");
            client.check(&format!("WATCH {key}"), "+OK");
            let incr = format!("INCR {key}");
            let spread = format!("MGET {key} missing");
            let replies = answers(&mut client, &["MULTI", &incr, "EXEC", &incr, &spread]);
            assert_eq!(replies, ["+OK", "+QUEUED", "*1 :2", ":3", "*2 $1 3 $-1"], "{key}");
        }
    }
}

#[test]
fn a_watch_that_is_given_up_at_once_is_answered_all_the_same() {
    let trio = Trio::start();
    let [a, b, c] = keys_of_thirds("k");
    let crossing = "-CROSSSLOT Keys in request don't hash to the same slot";
    for key in [&a, &b, &c] {
        // Each time another client: the link is still being made.
        let watch = format!("WATCH {key}");
        assert_eq!(answers(&mut trio.client(), &[&watch, "UNWATCH"]), ["+OK", "+OK"]);
        assert_eq!(answers(&mut trio.client(), &[&watch, "MULTI", "DISCARD"]), ["+OK"; 3]);
        assert_eq!(answers(&mut trio.client(), &[&watch, "RESET"]), ["+OK", "+RESET"]);
        let other = format!("GET {}", if *key == c { &b } else { &c });
        let replies = answers(&mut trio.client(), &[&watch, "MULTI", &other, "EXEC", &other]);
        assert_eq!(replies, ["+OK", "+OK", "+QUEUED", crossing, "$-1"]);
        assert_eq!(answers(&mut trio.client(), &[&watch, "QUIT"]), ["+OK", "+OK"]);
    }
}

#[test]
fn a_watch_inside_a_transaction_is_refused_and_watches_for_nobody() {
    let trio = Trio::start();
    let (mut client, mut other) = (trio.client(), trio.client());
    for key in keys_of_thirds("k") {
        let (watch, incr) = (format!("WATCH {key}"), format!("INCR {key}"));
        let refusal = "-ERR WATCH inside MULTI is not allowed";
        assert_eq!(answers(&mut client, &["MULTI", &watch, "DISCARD"]), ["+OK", refusal, "+OK"]);
        other.check(&incr, ":1");
        assert_eq!(answers(&mut client, &["MULTI", &incr, "EXEC"])[2], "*1 :2", "{key}");
    }
}

#[test]
fn a_watch_lasts_until_something_ends_it() {
    let trio = Trio::start();
    let (mut client, mut other) = (trio.client(), trio.client());
    for key in keys_of_thirds("k") {
        // Neither EXEC nor DISCARD without MULTI ends it, nor does another version of the protocol.
        for (request, is_error) in [("EXEC", true), ("DISCARD", true), ("HELLO 3", false), ("HELLO 2", false)] {
            client.check(&format!("WATCH {key}"), "+OK");
            assert_eq!(client.ask(request).starts_with('-'), is_error, "{request}");
            other.ask(&format!("INCR {key}"));
            let replies = answers(&mut client, &["MULTI", "PING", "EXEC", "PING"]);
            let null = if request == "HELLO 3" { "_" } else { "*-1" };
            assert_eq!(replies[2..], [null, "+PONG"], "{key} {request}");
        }
        // An EXEC that is refused does.
        client.check(&format!("WATCH {key}"), "+OK");
        assert!(client.ask("EXEC now").starts_with("-EXECABORT"));
        other.ask(&format!("INCR {key}"));
        let get = format!("EXISTS {key}");
        assert_eq!(answers(&mut client, &["MULTI", &get, "EXEC"])[2], "*1 :1");
    }
}

#[test]
fn requests_of_two_protocol_versions_keep_their_order() {
    let trio = Trio::start();
    for key in keys_of_thirds("k") {
        let mut client = trio.client();
        let requests: Vec<String> =
            (0..200).flat_map(|number| [format!("APPEND {key} x"), format!("HELLO {}", 2 + number % 2)]).collect();
        client.send(&requests);
        for length in 1..=200 {
            assert_eq!(client.receive(), format!(":{length}\r\n"), "{key}");
            client.receive();
        }
    }
}

/// Draws numbers from a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound
    }

    fn key(&mut self) -> String {
        format!("key:{}", self.below(30))
    }

    /// Requests that have the same replies on one server as on several.
    fn requests(&mut self) -> Vec<String> {
        let (a, b, c) = (self.key(), self.key(), self.key());
        let number = self.below(100);
        let one = match self.below(24) {
            0 => format!("SET {a} {number}"),
            1 => format!("GET {a}"),
            2 => format!("INCRBY {a} {number}"),
            3 => format!("APPEND {a} {number}"),
            4 => format!("MSET {a} {number} {b} x {c} y"),
            5 => format!("MGET {a} {b} {c} {a}"),
            6 => format!("DEL {a} {b}"),
            7 => format!("EXISTS {a} {b} {c}"),
            8 => format!("LPUSH {a} {number}"),
            9 => "DBSIZE".into(),
            10 => format!("MSET {a} {number} {b}"),
            11 => format!("SET {a} {number} NEVER"),
            12 => format!("HELLO {}", 2 + number % 2),
            13 => ["EXEC", "DISCARD", "UNWATCH", "RESET"][number % 4].into(),
            14 => ["NONSENSE", "GET", "FLUSHALL NEVER", "SCAN x"][number % 4].into(),
            15 if number < 10 => "FLUSHALL".into(),
            16 => format!("OBJECT ENCODING {a}"),
            17 => format!("UNLINK {a} {b} {c}"),
            18 => return vec![format!("RPUSH {{{a}}}l x"), format!("BLPOP {{{a}}}l 5"), format!("LLEN {{{a}}}l")],
            19..=22 => return self.transaction(&a),
            _ => "ECHO hello".into(),
        };
        vec![one]
    }

    /// A transaction on keys of one slot, and what stands around it.
    fn transaction(&mut self, key: &str) -> Vec<String> {
        let mut requests = Vec::new();
        for _ in 0..self.below(3) {
            requests.push([format!("WATCH {key}"), format!("WATCH {{{key}}}2 {key}")][self.below(2)].clone());
            if self.below(3) == 0 {
                // What it does itself counts as a change.
                requests.push([format!("INCR {key}"), format!("MSET {key} 1 {} 2", self.key())][self.below(2)].clone());
            }
        }
        if self.below(8) == 0 {
            requests.push("UNWATCH".into());
        }
        requests.push("MULTI".into());
        for _ in 0..self.below(4) {
            requests.push(match self.below(16) {
                0 => "NONSENSE".into(),
                1 => "MULTI".into(),
                2 => format!("WATCH {key}"),
                3 => "PING".into(),
                4 => format!("MGET {key} {{{key}}}2"),
                5 => format!("LPUSH {key} x"),
                6 => "UNWATCH".into(),
                _ => format!("INCR {key}"),
            });
        }
        requests.push(if self.below(6) == 0 { "DISCARD" } else { "EXEC" }.into());
        let after = [format!("INCR {key}"), format!("GET {key}"), format!("MGET {key} {}", self.key()), "PING".into()];
        requests.extend(after.into_iter().take(self.below(5)));
        requests
    }
}

/// `PIPELINES=100000` is the long form; `SEED` draws the same ones again.
#[test]
fn three_nodes_answer_as_one_does() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = variable("SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
        now.as_nanos() as u64 | 1
    });
    println!("SEED={seed}");
    let (trio, alone) = (Trio::start(), Node::start(&["--databases", "1"]));
    let mut dice = Dice(seed);
    let (mut forwarded, mut direct) = (trio.client(), Client::connect(alone.peer));
    for round in 0..variable("PIPELINES").unwrap_or(400) {
        if round % 50 == 0 {
            // Links of their own are made anew, and no watch is left.
            (forwarded, direct) = (trio.client(), Client::connect(alone.peer));
        }
        let mut requests: Vec<String> = Vec::new();
        while requests.len() < 20 && dice.below(8) > 0 {
            requests.extend(dice.requests());
        }
        let mut rest = &requests[..];
        while !rest.is_empty() {
            // Some of it is answered before the rest is sent.
            let (now, later) = rest.split_at(1 + dice.below(rest.len()));
            forwarded.send(now);
            direct.send(now);
            for request in now {
                let (found, expected) = (forwarded.receive(), direct.receive());
                // It says who is connected.
                if !request.starts_with("HELLO") {
                    assert_eq!(found, expected, "{request} of {requests:?} (round {round}, SEED={seed})");
                }
            }
            rest = later;
        }
    }
}

#[test]
fn a_transaction_leaves_nothing_behind_on_the_link_that_all_share() {
    let trio = Trio::start();
    let [here, there, _] = keys_of_thirds("k");
    let mut client = trio.client();
    for request in [
        "CLIENT REPLY OFF",
        "CLIENT ROUTING PROXY",
        "CLIENT SETNAME me",
        "CLIENT ID",
        "SUBSCRIBE news",
        "PSUBSCRIBE n*",
        "UNSUBSCRIBE",
        "HELLO 3",
        "AUTH nobody nothing",
        "READONLY",
    ] {
        let replies = answers(&mut client, &["MULTI", &format!("INCR {there}"), request, "EXEC"]);
        let name = request.split(' ').take(if request.starts_with("CLIENT") { 2 } else { 1 });
        let name = name.collect::<Vec<_>>().join("|").to_lowercase();
        let expected = format!(
            "-EXECABORT Transaction discarded because of: '{name}' is about this connection, and the keys are on another node"
        );
        assert_eq!(replies[3], expected);
        assert_eq!(trio.client().ask(&format!("GET {there}")), "$-1\r\n", "{request}");
    }
    let replies = answers(&mut client, &["MULTI", &format!("INCR {here}"), "CLIENT SETNAME me", "EXEC"]);
    assert_eq!(replies[3], "*2 :1 +OK");
    let replies = answers(&mut client, &["MULTI", &format!("INCR {there}"), "PING", "ECHO x", "DBSIZE", "EXEC"]);
    assert_eq!(replies[5], "*4 :1 +PONG $1 x :1");
}
