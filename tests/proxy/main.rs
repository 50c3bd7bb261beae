//! The proxy over real sockets: links, order, redirections, spread requests, transactions, and links that break.

mod arbiter;
mod busy;
mod by_hand;
mod client;
mod cluster;
mod copies;
mod demo;
mod joining;
mod leaving;
mod listener;
mod lost;
mod nodes;
mod order;
mod recovering;
mod returning;
mod roles;
mod sorting;
mod waiting;

use nodes::{Act, Node, Table, made_up, request, with_proxy};
use starling::base::slot::Slot;
use starling::proxy::forward::{Forward, Goal, Job};
use starling::proxy::lane::Lane;
use starling::proxy::scan::{Scan, scan};
use starling::proxy::spread::{self, Everywhere, Keyed, Merge};
use starling::proxy::transaction::{self, WatchLink};
use starling::proxy::{Credentials, HOPS_MAX, Peer, Place, Proxy, reply};
use starling::resp::reply::Protocol;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn text(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Sends a request with one key to the owner by the table.
fn start(proxy: &Rc<Proxy>, lane: &Rc<Lane>, words: &[&str]) -> Forward {
    start_as(proxy, lane, words, Protocol::Resp2)
}

fn start_as(proxy: &Rc<Proxy>, lane: &Rc<Lane>, words: &[&str], protocol: Protocol) -> Forward {
    let slot = Slot::of_key(words[1].as_bytes());
    let writes = !words[0].eq_ignore_ascii_case("GET");
    let Place::At(peer) = proxy.home.place(slot, writes) else { panic!("a peer owns every slot") };
    let job = Job { goal: Goal::Owner(slot), requests: vec![request(words)], protocol, writes, blocks: false };
    Forward::start(proxy, lane.enter(proxy.way(protocol)), peer, job)
}

async fn ask(proxy: &Rc<Proxy>, words: &[&str]) -> String {
    text(start(proxy, &Rc::default(), words).finish().await)
}

async fn spread_keys(proxy: &Rc<Proxy>, words: &[&str], step: usize, merge: Merge) -> String {
    let owned = request(words);
    let arguments = owned.borrow();
    let keys = (1..words.len()).step_by(step).map(|at| (at, Slot::of_key(words[at].as_bytes()))).collect();
    let request = Keyed { arguments, keys, step, merge, protocol: Protocol::Resp2, writes: merge != Merge::ByKey };
    text(spread::keyed(proxy, &Rc::default(), request).expect("all slots are served").await)
}

async fn ask_everywhere(proxy: &Rc<Proxy>, words: &[&str], merge: Merge) -> Vec<u8> {
    let request = Everywhere { request: request(words), merge, protocol: Protocol::Resp2, writes: false };
    spread::everywhere(proxy, &Rc::default(), request).expect("all nodes are there").await
}

fn three() -> (Vec<Node>, Vec<Peer>) {
    let nodes: Vec<Node> = (0..3).map(|_| Node::start(&[])).collect();
    let peers = nodes.iter().map(|node| node.peer).collect();
    (nodes, peers)
}

#[test]
fn requests_of_one_client_are_executed_in_their_order() {
    let (_nodes, peers) = three();
    with_proxy(Table::new(peers), |proxy, _| async move {
        let lane = Rc::new(Lane::default());
        // Several clients share the links.
        let other = Rc::new(Lane::default());
        let keys: Vec<String> = (0..50).map(|number| format!("key:{number}")).collect();
        let mut under_way = Vec::new();
        for round in 0..40 {
            for key in &keys {
                under_way.push((round, start(&proxy, &lane, &["APPEND", key, "x"])));
                drop(start(&proxy, &other, &["APPEND", &format!("other:{key}"), "y"]));
            }
        }
        for (round, forward) in under_way {
            assert_eq!(text(forward.finish().await), format!(":{}\r\n", round + 1));
        }
        assert!(!lane.is_busy());
        let length = format!(":{}\r\n", 40);
        assert_eq!(
            ask(&proxy, &["STRLEN", "other:key:7"]).await,
            length,
            "a client that has gone: executed all the same"
        );
    });
}

#[test]
fn replies_are_those_of_the_clients_protocol() {
    let node = Node::start(&[]);
    with_proxy(Table::new(vec![node.peer]), |proxy, _| async move {
        let lane = Rc::new(Lane::default());
        for (protocol, null) in [(Protocol::Resp2, "$-1\r\n"), (Protocol::Resp3, "_\r\n")] {
            let reply = start_as(&proxy, &lane, &["GET", "missing"], protocol).finish().await;
            assert_eq!(text(reply), null);
        }
        let large = "x".repeat(3_000_000);
        assert_eq!(ask(&proxy, &["SET", "large", &large]).await, "+OK\r\n");
        assert_eq!(ask(&proxy, &["GET", "large"]).await, format!("${}\r\n{large}\r\n", large.len()));
        assert_eq!(ask(&proxy, &["LPUSH", "large", "x"]).await.split(' ').next(), Some("-WRONGTYPE"));
    });
}

#[test]
fn links_identify_themselves() {
    let node = Node::start(&["--requirepass", "secret"]);
    for (password, expected) in [("secret", "$-1\r\n"), ("wrong", "-CLUSTERDOWN")] {
        let credentials = Rc::new(Credentials { user: String::new(), password: password.into() });
        let table = Table { credentials, ..Table::new(vec![node.peer]) };
        with_proxy(table, |proxy, _| async move {
            for protocol in [Protocol::Resp2, Protocol::Resp3] {
                let reply = text(start_as(&proxy, &Rc::default(), &["GET", "k"], protocol).finish().await);
                let expected = if protocol == Protocol::Resp3 { expected.replace("$-1", "_") } else { expected.into() };
                assert!(reply.starts_with(&expected), "{password}: {reply}");
            }
        });
    }
}

#[test]
fn spread_requests_reach_every_owner_and_become_one_reply() {
    let (_nodes, peers) = three();
    with_proxy(Table::new(peers), |proxy, _| async move {
        let keys: Vec<String> = (0..300).map(|number| format!("key:{number}")).collect();
        let mut set = vec!["MSET"];
        keys.iter().for_each(|key| set.extend([key.as_str(), &key[4..]]));
        assert_eq!(spread_keys(&proxy, &set, 2, Merge::AllOk).await, "+OK\r\n");
        let mut get = vec!["MGET", "missing"];
        get.extend(keys.iter().map(String::as_str));
        get.push("key:0");
        let bulk = |key: &str| format!("${}\r\n{}\r\n", key[4..].len(), &key[4..]);
        let all: String = keys.iter().map(|key| bulk(key)).collect();
        let expected = format!("*302\r\n$-1\r\n{all}{}", bulk("key:0"));
        assert_eq!(spread_keys(&proxy, &get, 1, Merge::ByKey).await, expected);
        for peer in proxy.home.peers() {
            let table = Table::new(vec![peer]);
            let alone = Proxy::new(Rc::new(table));
            let held = ask_everywhere(&alone, &["DBSIZE"], Merge::Sum).await;
            assert!(reply::integer(&held).is_some_and(|held| held > 50), "every node has its share");
        }
        assert_eq!(text(ask_everywhere(&proxy, &["DBSIZE"], Merge::Sum).await), ":300\r\n");
        let found = ask_everywhere(&proxy, &["KEYS", "key:1?"], Merge::Concatenate).await;
        assert_eq!(reply::elements(&found).map(|found| found.len()), Some(10));
        let mut exists = vec!["EXISTS", "missing"];
        exists.extend(keys.iter().map(String::as_str));
        assert_eq!(spread_keys(&proxy, &exists, 1, Merge::Sum).await, ":300\r\n");
        exists[0] = "DEL";
        exists.truncate(102);
        assert_eq!(spread_keys(&proxy, &exists, 1, Merge::Sum).await, ":100\r\n");
        assert_eq!(text(ask_everywhere(&proxy, &["FLUSHALL"], Merge::AllOk).await), "+OK\r\n");
        assert_eq!(text(ask_everywhere(&proxy, &["DBSIZE"], Merge::Sum).await), ":0\r\n");
        let error = ask_everywhere(&proxy, &["FLUSHALL", "NEVER"], Merge::AllOk).await;
        assert_eq!(text(error), "-ERR syntax error\r\n", "the first error is the reply");
    });
}

#[test]
fn a_scan_visits_every_key_once() {
    let (_nodes, peers) = three();
    with_proxy(Table::new(peers), |proxy, _| async move {
        for number in 0..500 {
            assert_eq!(ask(&proxy, &["SET", &format!("key:{number}"), "v"]).await, "+OK\r\n");
        }
        let lane = Rc::new(Lane::default());
        let (mut cursor, mut seen, mut calls) = (0, BTreeSet::new(), 0);
        loop {
            let request = request(&["SCAN", "ignored", "COUNT", "20", "MATCH", "key:*"]);
            let step = Scan { request, cursor, count: 20, protocol: Protocol::Resp2 };
            let answer = scan(Rc::clone(&proxy), lane.enter(proxy.way(Protocol::Resp2)), step).await;
            let parts = reply::elements(&answer).expect("an array");
            for key in reply::elements(parts[1]).expect("an array") {
                assert!(seen.insert(reply::bulk(key).expect("a key").to_vec()), "no key comes twice");
            }
            let next = reply::bulk(parts[0]).expect("a cursor");
            cursor = std::str::from_utf8(next).expect("digits").parse().expect("a number");
            calls += 1;
            if cursor == 0 {
                break;
            }
            assert!(cursor < 1 << 53 && calls < 500);
        }
        assert_eq!(seen.len(), 500);
        assert!(calls > 10, "COUNT is heeded");
    });
}

#[test]
fn a_scan_waits_for_the_owner_of_its_slot() {
    let mut tries = 0;
    let peer = made_up(move |request| {
        tries += 1;
        assert_eq!(request[1..], [&(7u64 << 32 | 5).to_string(), "UNTIL-SLOT", "16383"]);
        let found = "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n";
        Act::Reply(if tries < 3 { "-TRYAGAIN not here\r\n".into() } else { found.into() })
    });
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let request = request(&["SCAN", "ignored"]);
        let step = Scan { request, cursor: 7 << 32 | 5, count: 10, protocol: Protocol::Resp2 };
        let ticket = Rc::new(Lane::default()).enter(proxy.way(Protocol::Resp2));
        let answer = scan(proxy, ticket, step).await;
        assert_eq!(text(answer), "*2\r\n$1\r\n0\r\n*1\r\n$1\r\nk\r\n");
    });
}

#[test]
fn moved_is_followed_and_never_seen() {
    let owner = made_up(|request| Act::Reply(format!("+{}\r\n", request.join(" "))));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let former = made_up(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Act::Reply(format!("-MOVED 1 {owner}\r\n"))
    });
    with_proxy(Table::new(vec![former]), |proxy, table| async move {
        let lane = Rc::new(Lane::default());
        let under_way: Vec<Forward> =
            (0..20).map(|number| start(&proxy, &lane, &["SET", "k", &number.to_string()])).collect();
        let mut replies = Vec::new();
        for forward in under_way {
            replies.push(text(forward.finish().await));
        }
        let expected: Vec<String> = (0..20).map(|number| format!("+SET k {number}\r\n")).collect();
        assert_eq!(replies, expected);
        assert_eq!(asked.load(Ordering::SeqCst), 20);
        assert!(!lane.must_wait(proxy.way(Protocol::Resp2)), "nothing is under way any more");
        // The table has learned of it: nobody is asked in vain.
        table.change(vec![owner]);
        assert_eq!(ask(&proxy, &["GET", "k"]).await, "+GET k\r\n");
        assert_eq!(asked.load(Ordering::SeqCst), 20);
    });
}

#[test]
fn a_client_waits_while_its_requests_look_for_the_owner() {
    let owner = made_up(|_| Act::Reply("+OK\r\n".into()));
    let former = made_up(move |_| Act::Reply(format!("-MOVED 1 {owner}\r\n")));
    with_proxy(Table::new(vec![former]), |proxy, table| async move {
        let lane = Rc::new(Lane::default());
        let first = start(&proxy, &lane, &["SET", "k", "1"]);
        table.change(vec![owner]);
        assert!(lane.must_wait(proxy.way(Protocol::Resp2)), "the next one would overtake it");
        let waiting = lane.until_free(proxy.way(Protocol::Resp2));
        let (reply, ()) = tokio::join!(first.finish(), waiting);
        assert_eq!(text(reply), "+OK\r\n");
    });
}

#[test]
fn nodes_that_disagree_do_not_keep_a_request_for_ever() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let peer = made_up(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        Act::Reply("-MOVED 1 ?:1\r\n".into())
    });
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let reply = ask(&proxy, &["SET", "k", "1"]).await;
        assert!(reply.starts_with("-CLUSTERDOWN"), "{reply}");
        assert_eq!(asked.load(Ordering::SeqCst) as u32, HOPS_MAX);
    });
}

#[test]
fn a_slot_that_changes_hands_is_asked_again() {
    let mut tries = 0;
    let peer = made_up(move |_| {
        tries += 1;
        Act::Reply(if tries < 3 { "-TRYAGAIN not now\r\n".into() } else { "+OK\r\n".into() })
    });
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        assert_eq!(ask(&proxy, &["SET", "k", "1"]).await, "+OK\r\n");
    });
}

#[test]
fn a_broken_link_says_whether_a_write_may_have_been_executed() {
    let mut asked = 0;
    let peer = made_up(move |_| {
        asked += 1;
        if asked % 2 == 1 { Act::Close } else { Act::Reply("+OK\r\n".into()) }
    });
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let lost = ask(&proxy, &["SET", "k", "1"]).await;
        assert!(lost.contains("may have been executed"), "{lost}");
        assert_eq!(ask(&proxy, &["SET", "k", "1"]).await, "+OK\r\n", "the next request opens another link");
        assert_eq!(ask(&proxy, &["GET", "k"]).await, "+OK\r\n", "a read is sent again");
    });
}

#[test]
fn a_node_that_is_gone_executes_nothing() {
    let peer = Peer::from(([127, 0, 0, 1], nodes::free_port()));
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let reply = ask(&proxy, &["SET", "k", "1"]).await;
        assert!(reply.starts_with("-CLUSTERDOWN") && reply.contains("not executed"), "{reply}");
        // What has been sent behind it does not look for the node all over again.
        let lane = Rc::new(Lane::default());
        let under_way: Vec<Forward> = (0..1000).map(|_| start(&proxy, &lane, &["SET", "k", "1"])).collect();
        for forward in under_way {
            assert!(text(forward.finish().await).starts_with("-CLUSTERDOWN"));
        }
    });
}

#[test]
fn a_node_that_does_not_answer_is_given_up() {
    let peer = made_up(|_| Act::Silence);
    let table = Table { patience: Duration::from_millis(300), ..Table::new(vec![peer]) };
    with_proxy(table, |proxy, _| async move {
        let reply = ask(&proxy, &["SET", "k", "1"]).await;
        assert!(reply.contains("may have been executed"), "{reply}");
    });
}

#[test]
fn what_is_under_way_is_bounded() {
    let peer = made_up(|_| Act::Silence);
    with_proxy(Table::new(vec![peer]), |proxy, table| async move {
        let link = proxy.links.get(&*table, peer, Protocol::Resp2);
        let lane = Rc::new(Lane::default());
        let mut under_way = Vec::new();
        while link.has_room() {
            under_way.push(link.submit(&[request(&["SET", "k", &"x".repeat(10_000)])], &lane));
            assert!(under_way.len() < 10_000);
        }
        assert!(under_way.len() > 1000);
        let until_room = tokio::time::timeout(Duration::from_millis(50), link.until_room());
        assert!(until_room.await.is_err(), "who comes now has to wait");
    });
}

#[test]
fn what_is_no_reply_breaks_the_link() {
    let peer = made_up(|_| Act::Reply("?\r\n".into()));
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let reply = ask(&proxy, &["SET", "k", "1"]).await;
        assert!(reply.contains("may have been executed"), "{reply}");
    });
}

#[test]
fn a_transaction_goes_as_one_block() {
    let node = Node::start(&[]);
    let peer = node.peer;
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let lane = Rc::new(Lane::default());
        let slot = Slot::of_key(b"k");
        let queue = vec![request(&["SET", "k", "1"]), request(&["INCR", "k"]), request(&["LPUSH", "k", "x"])];
        let exec = transaction::execute(&proxy, &lane, peer, slot, queue, Protocol::Resp2);
        let reply = text(exec.await);
        assert!(reply.starts_with("*3\r\n+OK\r\n:2\r\n-WRONGTYPE"), "{reply}");
        let exec = transaction::execute(&proxy, &lane, peer, slot, vec![request(&["NONSENSE"])], Protocol::Resp2);
        assert!(text(exec.await).starts_with("-EXECABORT"));
        assert_eq!(ask(&proxy, &["GET", "k"]).await, "$1\r\n2\r\n", "the link is not left in a transaction");
    });
}

#[test]
fn a_watched_key_that_changes_stops_the_transaction() {
    let node = Node::start(&[]);
    let peer = node.peer;
    with_proxy(Table::new(vec![peer]), |proxy, _| async move {
        let lane = Rc::new(Lane::default());
        for (is_changed, expected) in [(false, "*1\r\n+OK\r\n"), (true, "*-1\r\n")] {
            let watch = WatchLink::open(&proxy, peer, Slot::of_key(b"k"), Protocol::Resp2);
            let added = watch.add(&lane, proxy.way(Protocol::Resp2), request(&["WATCH", "k"]));
            assert!(lane.must_wait(proxy.way(Protocol::Resp2)), "what comes behind goes by another link");
            assert_eq!(text(added.await), "+OK\r\n");
            if is_changed {
                ask(&proxy, &["SET", "k", "other"]).await;
            }
            let exec = watch.execute(&lane, proxy.way(Protocol::Resp2), vec![request(&["SET", "k", "mine"])]);
            assert_eq!(text(exec.await), expected);
        }
    });
}
