//! Plain clients on the proxy listeners of a real cluster, in which slots move with their keys.

use crate::client::Client;
use crate::nodes::{LIMIT, Node, free_port, member_port};
use rustix::process::Signal;
use starling::proxy::reply;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// A member of a cluster, with the folder of its data.
pub(crate) struct Member {
    pub(crate) node: Node,
    pub(crate) proxy: SocketAddr,
    /// What it was started with.
    directives: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Member {
    fn start(seed: Option<&Member>) -> Member {
        Member::start_with(seed, &[])
    }

    pub(crate) fn start_with(seed: Option<&Member>, more: &[&str]) -> Member {
        for _ in 0..10 {
            let port = member_port();
            let proxy = free_port();
            let folder = tempfile::tempdir().expect("a folder");
            let path = folder.path().display().to_string();
            let seed = seed.map(|seed| seed.node.peer.to_string());
            let (proxy_port, way) = (proxy.to_string(), seed.as_ref().map_or("--cluster", |_| "--join"));
            let mut directives = vec!["--dir", &path, "--proxy-port", &proxy_port, way];
            directives.extend(seed.as_deref());
            directives.extend(more);
            if let Some(node) = Node::try_start(port, &directives) {
                let directives = directives.into_iter().map(str::to_owned).collect();
                return Member { node, proxy: SocketAddr::from(([127, 0, 0, 1], proxy)), directives, _folder: folder };
            }
        }
        panic!("a member does not start");
    }

    /// Ends it in the middle of whatever it does.
    pub(crate) fn kill(&mut self) {
        self.node.signal(Signal::KILL);
        self.node.until_ended();
    }

    /// Starts it where it was, as it was and with these directives. It must have ended.
    pub(crate) fn start_again(&mut self, more: &[&str]) {
        let node = Node::try_start(self.node.peer.port(), &self.with(more));
        self.node = node.expect("it starts again");
    }

    /// The same where it is expected not to start: its exit code and what it said.
    pub(crate) fn refused(&self, more: &[&str]) -> (Option<i32>, String) {
        Node::refused(self.node.peer.port(), &self.with(more))
    }

    fn with<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.directives.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    pub(crate) fn proxied(&self) -> Client {
        Client::connect(self.proxy)
    }
}

fn start(count: usize) -> Vec<Member> {
    start_with(count, &[])
}

pub(crate) fn start_with(count: usize, more: &[&str]) -> Vec<Member> {
    let mut members = vec![Member::start_with(None, more)];
    for _ in 1..count {
        let next = Member::start_with(members.first(), more);
        members.push(next);
    }
    await_balance(&members);
    members
}

/// How many slots each member sees each of them own.
pub(crate) fn shares(member: &Member) -> Vec<u64> {
    let mut client = Client::connect(member.node.peer);
    // Where no password is needed this is an error, and does no harm.
    client.ask("AUTH secret");
    shares_at(&mut client)
}

/// The same, by the member that the client is connected to.
pub(crate) fn shares_at(client: &mut Client) -> Vec<u64> {
    let nodes = client.ask("CLUSTER NODES");
    let share = |line: &str| -> u64 {
        let ranges = line.split(' ').skip(8).filter(|range| !range.starts_with('['));
        let bounds = ranges.filter_map(|range| {
            let (first, last) = range.trim_end().split_once('-').unwrap_or((range, range));
            Some((first.trim().parse::<u64>().ok()?, last.trim().parse::<u64>().ok()?))
        });
        bounds.map(|(first, last)| last - first + 1).sum()
    };
    nodes.lines().filter(|line| line.contains("connected")).map(share).collect()
}

/// Waits until every member owns its share, and all know it.
pub(crate) fn await_balance(members: &[Member]) {
    let fair = 16384 / members.len() as u64;
    let is_balanced = |member: &Member| {
        let shares = shares(member);
        shares.len() == members.len() && shares.iter().all(|share| share.abs_diff(fair) <= 164)
    };
    let started = Instant::now();
    while !members.iter().all(is_balanced) {
        assert!(started.elapsed() < 2 * LIMIT, "the slots are dealt out: {:?}", shares(&members[0]));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_plain_client_sees_one_server() {
    let members = start(3);
    let mut clients: Vec<Client> = members.iter().map(Member::proxied).collect();
    let keys: Vec<String> = (0..300).map(|number| format!("key:{number}")).collect();
    let pairs: String = keys.iter().map(|key| format!(" {key} {key}")).collect();
    clients[0].check(&format!("MSET{pairs}"), "+OK");
    for client in &mut clients {
        for key in &keys {
            assert_eq!(client.ask(&format!("GET {key}")), format!("${}\r\n{key}\r\n", key.len()));
        }
        client.check("DBSIZE", ":300");
        let mut seen = client.scan(10);
        seen.sort();
        let mut expected = keys.clone();
        expected.sort();
        assert_eq!(seen, expected, "every key once");
        client.check("MULTI", "+OK");
        client.check("INCR {tag}a", "+QUEUED");
        client.check("APPEND {tag}b x", "+QUEUED");
        client.check("EXEC", "*2 :1 :1");
        client.check("UNLINK {tag}a {tag}b", ":2");
    }
    // A cursor is good everywhere.
    let answer = clients[0].ask("SCAN 0 COUNT 100");
    let parts = reply::elements(answer.as_bytes()).expect("an array");
    let cursor = String::from_utf8_lossy(reply::bulk(parts[0]).expect("a cursor")).into_owned();
    assert!(clients[1].ask(&format!("SCAN {cursor} COUNT 100")).starts_with("*2"));
    clients[2].check("FLUSHALL", "+OK");
    clients[0].check("DBSIZE", ":0");
}

#[test]
fn main_ports_that_forward_send_nothing_in_circles() {
    let members = start_with(2, &["--routing", "proxy", "--requirepass", "secret"]);
    for member in &members {
        let mut client = Client::connect(member.node.peer);
        client.check("GET key", "-NOAUTH Authentication required.");
        client.check("AUTH secret", "+OK");
        for number in 0..100 {
            client.check(&format!("SET key:{number} v"), "+OK");
        }
        client.check("DBSIZE", ":100");
        let clients = client.ask("CLIENT LIST");
        let links = clients.lines().filter(|line| line.contains("lib-name=starling-proxy")).count();
        assert!(links <= 1, "one link from the other node's one thread: {clients}");
        // A connection that is not forwarded is told where to go.
        client.check("CLIENT ROUTING REDIRECT", "+OK");
        let moved = (0..100).filter(|number| client.ask(&format!("GET key:{number}")).starts_with("-MOVED")).count();
        assert!((20..80).contains(&moved), "{moved}");
    }
}

#[test]
fn nothing_is_lost_or_done_twice_while_a_node_comes_and_goes() {
    const COUNTERS: usize = 200;
    let mut members = start(2);
    let stable: BTreeSet<String> = (0..2000).map(|number| format!("stable:{number}")).collect();
    let mut client = members[0].proxied();
    let requests: Vec<String> = stable.iter().map(|key| format!("SET {key} v")).collect();
    client.send(&requests);
    requests.iter().for_each(|_| assert_eq!(client.receive(), "+OK\r\n"));
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    let proxies: Vec<SocketAddr> = members.iter().map(|member| member.proxy).collect();
    std::thread::scope(|scope| {
        for (writer, proxy) in proxies.iter().enumerate() {
            let (done, rounds) = (&done, &rounds);
            // Each has its own counters, so that it knows every reply: none may be missing, doubled or out of order.
            scope.spawn(move || {
                let mut client = Client::connect(*proxy);
                let mut counts = [0u64; COUNTERS];
                while !done.load(Ordering::Relaxed) {
                    let requests: Vec<String> = (0..COUNTERS)
                        .flat_map(|number| [format!("INCR c:{writer}:{number}"), format!("GET c:{writer}:{number}")])
                        .collect();
                    client.send(&requests);
                    for (number, count) in counts.iter_mut().enumerate() {
                        let increased = client.receive();
                        // On a busy machine a slot may stand still, or a lease be over, for longer than requests wait: then nothing was
                        // executed.
                        let is_executed =
                            |reply: &str| !reply.starts_with("-TRYAGAIN") && !reply.starts_with("-CLUSTERDOWN");
                        if is_executed(&increased) {
                            *count += 1;
                            assert_eq!(increased, format!(":{count}\r\n"), "INCR c:{writer}:{number}");
                        }
                        let (text, read) = (count.to_string(), client.receive());
                        if is_executed(&read) {
                            assert_eq!(read, format!("${}\r\n{text}\r\n", text.len()));
                        }
                    }
                    rounds.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let (done_too, stable) = (&done, &stable);
        let first = proxies[0];
        scope.spawn(move || {
            let mut client = Client::connect(first);
            while !done_too.load(Ordering::Relaxed) {
                let seen: BTreeSet<String> = client.scan(100).into_iter().collect();
                assert_eq!(stable.difference(&seen).count(), 0, "keys that were there all the time");
            }
        });
        let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            members.push(Member::start(members.first()));
            await_balance(&members);
            // It takes its slots along in both directions.
            let mut newcomer = members.pop().expect("three members");
            assert_eq!(newcomer.node.terminate(), 0);
        }));
        done.store(true, Ordering::Relaxed);
        joined.expect("the third node has its share, and gives it back");
    });
    assert!(rounds.load(Ordering::Relaxed) > 0);
    for member in &members {
        let mut client = member.proxied();
        client.check("DBSIZE", &format!(":{}", 2000 + 2 * COUNTERS));
    }
}

#[test]
fn malformed_requests_are_answered_wherever_their_keys_are() {
    let mut members = start(2);
    let mut client = members[0].proxied();
    let keys: Vec<String> = (0..10).map(|number| format!("key:{number}")).collect();
    let check = |client: &mut Client| {
        for pair in keys.windows(2) {
            let (a, b) = (&pair[0], &pair[1]);
            client.check(&format!("MSET {a} 1 {b}"), "-ERR wrong number of arguments for 'mset' command");
            client.check(&format!("MSETNX {a} 1 {b}"), "-ERR wrong number of arguments for 'msetnx' command");
        }
        for words in ["FLUSHALL NEVER", "FLUSHDB SYNC ASYNC", "SCAN 0 COUNT", "SCAN 0 COUNT 0"] {
            client.check(words, "-ERR syntax error");
        }
        client.check("SCAN nonsense", "-ERR invalid cursor");
        for name in ["mset", "mget", "del", "unlink", "exists", "touch", "keys"] {
            client.check(name, &format!("-ERR wrong number of arguments for '{name}' command"));
        }
        client.check("DBSIZE more", "-ERR wrong number of arguments for 'dbsize' command");
    };
    check(&mut client);
    // Nor does it matter that nobody has them.
    drop(members.pop());
    check(&mut client);
}
