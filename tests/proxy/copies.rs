//! Copies of slots: how many there shall be, one value for all nodes, and what they answer.

use crate::client::Client;
use crate::cluster::{Member, start_with};
use crate::nodes::until;

const REFUSAL: &str = "-ERR CONFIG SET failed (possibly related to argument 'replicas') - ";

#[test]
fn replicas_are_agreed_by_all_nodes() {
    let first = Member::start_with(None, &["--replicas", "1"]);
    // What a node says that joins counts for nothing.
    let second = Member::start_with(Some(&first), &["--replicas", "3"]);
    let [mut at_first, mut at_second] = [&first, &second].map(|member| Client::connect(member.node.peer));
    let shown = |count: usize| format!("*2 $8 replicas $1 {count}");
    at_first.check("CONFIG GET replicas", &shown(1));
    at_second.check("CONFIG GET replicas", &shown(1));
    at_second.check("CONFIG SET replicas 5", &format!("{REFUSAL}argument must be between 0 and 4 inclusive"));
    let alone = format!("{REFUSAL}all nodes of the cluster agree on it: set it by itself");
    at_second.check("CONFIG SET replicas 0 hz 20", &alone);
    at_second.check("CONFIG SET replicas 1 hz 20", "+OK");
    at_second.check("CONFIG SET replicas 0", "+OK");
    at_second.check("CONFIG GET replicas", &shown(0));
    until("the other hears of it", || at_first.ask("CONFIG GET replicas").ends_with("$1\r\n0\r\n"));
    at_first.check("CONFIG SET replicas 0", "+OK");
}

#[test]
fn a_cluster_without_copies_says_so_and_readonly_ends_with_reset() {
    let member = Member::start_with(None, &["--replicas", "0"]);
    let mut client = Client::connect(member.node.peer);
    until("it has registered", || client.ask("CLUSTER INFO").contains("cluster_slots_ok:16384"));
    let id = client.ask("CLUSTER MYID").lines().nth(1).expect("a name").to_owned();
    client.check(&format!("CLUSTER REPLICAS {id}"), "*0");
    client.check("CLUSTER SLAVES nobody", "-ERR Unknown node nobody");
    client.check("ROLE", "*3 $6 master :0 *0");
    assert!(client.ask("INFO replication").contains("connected_slaves:0\r\nmaster_failover_state"));
    client.check("CONFIG SET replicas 2", "+OK");
    let info = client.ask("CLUSTER INFO");
    for line in ["replicas:2", "copies_ready:0", "copies_missing:32768", "copies_different:0", "slots_electing:0"] {
        assert!(info.contains(&format!("\r\nstarling_{line}\r\n")), "{line}: {info}");
    }
    client.check("READONLY", "+OK");
    assert!(client.ask("CLIENT INFO").contains(" flags=r "));
    client.check("RESET", "+RESET");
    assert!(client.ask("CLIENT INFO").contains(" flags=N "));
}

#[test]
fn writes_are_acknowledged_by_copies_and_refused_without_them() {
    let members = start_with(3, &["--replicas", "2"]);
    let mut clients: Vec<Client> = members.iter().map(|member| Client::connect(member.node.peer)).collect();
    let ready = "starling_copies_ready:32768";
    until("all slots have their copies", || clients.iter_mut().all(|it| it.ask("CLUSTER INFO").contains(ready)));
    let mut proxied = members[0].proxied();
    for round in 0..20 {
        for key in 0..20 {
            proxied.check(&format!("SET key:{key} {round}"), "+OK");
        }
        for client in &mut clients {
            client.check("WAIT 2 10000", ":2");
        }
    }
    for client in &mut clients {
        // What there is, is the answer: at once where nothing more is asked for, and in a transaction.
        client.check("WAIT 0 0", ":2");
        client.check("WAIT 3 20", ":2");
        client.check("MULTI", "+OK");
        client.check("WAIT 3 0", "+QUEUED");
        client.check("EXEC", "*1 :2");
        let info = client.ask("INFO replication");
        let end = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:")).expect("an offset");
        let copies = info.matches(&format!("state=online,offset={end},lag=0,")).count();
        assert_eq!(copies, 2, "{info}");
        assert!(client.ask("ROLE").matches(&format!("\r\n{end}\r\n")).count() == 2, "by both copies");
        client.check("CONFIG SET min-replicas-to-write 3", "+OK");
        assert!(client.ask("INFO replication").contains("\r\nmin_slaves_good_slaves:2\r\n"));
    }
    let refused = "-NOREPLICAS Not enough good replicas to write.";
    proxied.check("SET key:1 refused", refused);
    proxied.check("GET key:1", "$2 19");
    for client in &mut clients {
        client.check("CONFIG SET min-replicas-to-write 2", "+OK");
    }
    proxied.check("SET key:1 written", "+OK");
}

#[test]
fn replies_wait_for_a_quorum_where_it_is_asked_for() {
    let alone = Member::start_with(None, &["--replicas", "2", "--acknowledge", "quorum"]);
    let mut client = Client::connect(alone.node.peer);
    until("it has registered", || client.ask("CLUSTER INFO").contains("cluster_slots_ok:16384"));
    let refused = "-NOREPLICAS Too few copies of the slot are there for a quorum, and nothing was executed";
    until("its slots are counted", || client.ask("SET a 1") == format!("{refused}\r\n"));
    client.check("GET a", refused);
    client.check("MULTI", "+OK");
    client.check("SET a 1", refused);
    client.check("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    client.check("CONFIG SET acknowledge async", "+OK");
    client.check("SET a 1", "+OK");
    client.check("CLIENT ACK quorum", "+OK");
    client.check("SET a 2", refused);
    client.check("CLIENT ACK async", "+OK");
    client.check("GET a", "$1 1");
    let refusal = "-ERR Forwarded requests are acknowledged as the cluster agrees on: see the parameter 'acknowledge'";
    alone.proxied().check("CLIENT ACK quorum", refusal);
    client.check("CONFIG SET acknowledge quorum", "+OK");

    let second = Member::start_with(Some(&alone), &[]);
    let mut proxied = second.proxied();
    until("there are copies", || client.ask("CLUSTER INFO").contains("starling_copies_ready:16384"));
    for round in 0..200 {
        // Roles change hands meanwhile, and copies begin to follow new primaries.
        until("it is written", || proxied.ask(&format!("SET key:{round} {round}")) == "+OK\r\n");
        let value = format!("${}\r\n{round}\r\n", round.to_string().len());
        until("it is read", || proxied.ask(&format!("GET key:{round}")) == value);
    }
    proxied.check("RPUSH list 1 2 3", ":3");
    proxied.check("BLPOP list 1", "*2 $4 list $1 1");
    // Its own parts of what is spread over all wait too.
    until("roles are shared", || client.ask("SET b 1").starts_with('+') != client.ask("SET a 1").starts_with('+'));
    for mut client in [alone.proxied(), second.proxied()] {
        client.check("MSET a 1 b 2 c 3 d 4", "+OK");
        client.check("MGET d c b a", "*4 $1 4 $1 3 $1 2 $1 1");
        client.check("DEL a b", ":2");
        assert!(client.ask("DBSIZE").starts_with(":20"));
    }
    proxied.check("FLUSHALL", "+OK");
    proxied.check("DBSIZE", ":0");
}

/// The reply to a write of a key that the node does not send elsewhere: roles may still be changing hands.
fn write_own(client: &mut Client) -> String {
    let mut replies = (0..50).map(|number| client.ask(&format!("SET key:{number} x")));
    replies.find(|reply| !reply.starts_with("-MOVED")).expect("each has some of the slots")
}

/// With quorum+fsync a reply leaves when what it tells is on two disks.
#[test]
fn replies_wait_for_two_disks_where_it_is_asked_for() {
    let members = start_with(2, &["--replicas", "1", "--appendonly", "yes", "--appendfsync", "everysec"]);
    let mut clients: Vec<Client> = members.iter().map(|member| Client::connect(member.node.peer)).collect();
    let is_whole = |client: &mut Client| client.ask("CLUSTER INFO").contains("starling_copies_ready:16384\r\n");
    until("all copies are there", || clients.iter_mut().all(is_whole));
    let [first, second] = &mut clients[..] else { panic!("two") };
    first.check("CLIENT ACK quorum+fsync", "+OK");
    for _ in 0..20 {
        // Not after a second: the disks are asked.
        assert_eq!(write_own(first), "+OK\r\n");
        first.check("WAITAOF 1 1 10000", "*2 :1 :1");
    }
    first.check("CLIENT ACK async", "+OK");
    assert_eq!(write_own(first), "+OK\r\n");
    first.check("WAITAOF 1 1 10000", "*2 :1 :1");
    first.check("CONFIG SET acknowledge quorum+fsync", "+OK");
    until("all know it", || second.ask("CONFIG GET acknowledge").contains("quorum+fsync"));
    let mut proxied = members[1].proxied();
    for round in 0..50 {
        proxied.check(&format!("SET key:{round} {round}"), "+OK");
    }
}

/// Who keeps no log can neither promise that something is on its disk, nor help others to.
#[test]
fn a_node_without_a_log_is_nobody_s_second_disk() {
    let keeps = Member::start_with(None, &["--replicas", "1", "--appendonly", "yes"]);
    let forgets = Member::start_with(Some(&keeps), &[]);
    let mut clients = [&keeps, &forgets].map(|member| Client::connect(member.node.peer));
    let is_whole = |client: &mut Client| client.ask("CLUSTER INFO").contains("starling_copies_ready:16384\r\n");
    until("all copies are there", || clients.iter_mut().all(is_whole));
    let [first, second] = &mut clients;
    let needs = second.ask("CONFIG SET acknowledge quorum+fsync");
    assert!(needs.contains("it needs a log that is synced to disk"), "{needs}");
    for client in [&mut *first, &mut *second] {
        client.check("CLIENT ACK quorum+fsync", "+OK");
    }
    let refused = "-NOREPLICAS This node keeps no log that is synced to disk, and nothing was executed\r\n";
    until("it has some slots", || (0..50).any(|number| second.ask(&format!("SET key:{number} x")) == refused));
    let answer = write_own(first);
    assert!(answer.starts_with("-INDOUBT") && answer.contains("on its disk"), "{answer}");
    first.check("CLIENT ACK quorum", "+OK");
    assert_eq!(write_own(first), "+OK\r\n");
    first.check("WAITAOF 1 1 300", "*2 :1 :0");
}

/// What only reads is answered at copies for who says READONLY; nothing is changed there.
#[test]
fn copies_answer_readers_who_say_readonly() {
    let members = start_with(2, &["--replicas", "1"]);
    let mut clients: Vec<Client> = members.iter().map(|member| Client::connect(member.node.peer)).collect();
    let is_whole = |client: &mut Client| client.ask("CLUSTER INFO").contains("starling_copies_ready:16384\r\n");
    until("all copies are there", || clients.iter_mut().all(is_whole));
    let is_primary = clients[0].ask("SET {k} 1") == "+OK\r\n";
    let [first, second] = &mut clients[..] else { panic!("two") };
    let (primary, copy) = if is_primary { (first, second) } else { (second, first) };
    for request in ["SET {k} 1", "XADD s{k} 1 f v", "PFADD p{k} a b", "SET e{k} v PX 1"] {
        assert!(!primary.ask(request).starts_with('-'), "{request}");
    }
    let moved = copy.ask("GET {k}");
    assert!(moved.starts_with("-MOVED "), "{moved}");
    copy.check("READONLY", "+OK");
    until("the copy has it", || copy.ask("XLEN s{k}") == ":1\r\n" && copy.ask("PFCOUNT p{k}") == ":2\r\n");
    copy.check("GET {k}", "$1 1");
    until("it has expired", || copy.ask("GET e{k}") == "$-1\r\n");
    copy.check("MULTI", "+OK");
    copy.check("GET {k}", "+QUEUED");
    copy.check("EXISTS {k} e{k}", "+QUEUED");
    copy.check("EXEC", "*2 $1 1 :1");
    // A change that comes from the primary is one for WATCH too.
    copy.check("WATCH {k}", "+OK");
    copy.check("MULTI", "+OK");
    copy.check("GET {k}", "+QUEUED");
    primary.check("SET {k} 2", "+OK");
    until("a read elsewhere has it", || {
        let mut other = Client::connect(members[usize::from(is_primary)].node.peer);
        other.check("READONLY", "+OK");
        other.ask("GET {k}").ends_with("\r\n2\r\n")
    });
    copy.check("EXEC", "*-1");
    for request in ["SET {k} 3", "GETDEL {k}"] {
        assert_eq!(copy.ask(request), moved, "{request}");
    }
    copy.check("MULTI", "+OK");
    assert_eq!(copy.ask("INCR {k}"), moved);
    copy.check("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    // Who waits at a copy is served by what comes from the primary.
    copy.send(&["XREAD BLOCK 0 STREAMS s{k} 1".to_owned()]);
    primary.check("XADD s{k} 2 f v", "$3 2-0");
    assert!(copy.receive().contains("2-0"));
    copy.check("READWRITE", "+OK");
    assert_eq!(copy.ask("GET {k}"), moved);
    until("nothing was changed at the copy", || primary.ask("CLUSTER INFO").contains("copies_different:0\r\n"));
}
