//! Two nodes with the data and a third that only votes.

use crate::client::Client;
use crate::cluster::{Member, shares_at, start_with};
use crate::nodes::until;
use std::collections::BTreeSet;

const KEYS: usize = 500;

/// The id that a node has.
fn id(member: &Member) -> String {
    Client::connect(member.node.peer).ask("CLUSTER MYID").lines().nth(1).expect("an id").to_owned()
}

/// A field of what a node says of the cluster.
fn field(client: &mut Client, name: &str) -> String {
    let info = client.ask("CLUSTER INFO");
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).expect("the field").trim().to_owned()
}

fn is_led_by(client: &mut Client, member: &str) -> bool {
    field(client, "starling_raft_leader") == member
}

/// Two nodes whose slots have a copy each, and an arbiter; each knows that all three vote.
fn two_and_an_arbiter() -> (Vec<Member>, Member) {
    let members = start_with(2, &["--replicas", "1"]);
    let arbiter = Member::start_with(members.first(), &["--arbiter"]);
    for member in members.iter().chain([&arbiter]) {
        let mut client = Client::connect(member.node.peer);
        let mut is = |name: &str, check: &dyn Fn(&str) -> bool| check(&field(&mut client, name));
        until("all slots have a copy", || is("starling_copies_ready", &|count| count == "16384"));
        let votes = |list: &str| list.split(',').collect::<BTreeSet<_>>().len() == 3;
        until("all vote", || is("starling_raft_voters", &votes));
        until("all support leases", || {
            is("starling_lease_voters", &|list| votes(list) && list.split(',').count() == 3)
        });
    }
    (members, arbiter)
}

fn write(member: &Member) {
    let mut client = member.proxied();
    (0..KEYS).for_each(|key| client.check(&format!("SET key:{key} {key}"), "+OK"));
}

fn has_keys(client: &mut Client) -> bool {
    (0..KEYS).all(|key| client.ask(&format!("GET key:{key}")) == format!("${}\r\n{key}\r\n", key.to_string().len()))
}

/// Kills one of the two; the other serves everything, with what both had, and gives half of it back.
fn outlives(mut members: Vec<Member>, arbiter: &Member, killed: usize) {
    write(arbiter);
    let mut at_arbiter = Client::connect(arbiter.node.peer);
    // What the other does not have yet would be lost.
    for member in &members {
        Client::connect(member.node.peer).check("WAIT 1 10000", ":1");
    }
    members[killed].kill();
    let mut other = Client::connect(members[1 - killed].node.peer);
    until("the other has all slots", || {
        field(&mut other, "cluster_slots_ok") == "16384" && shares_at(&mut other).contains(&16384)
    });
    // On its main port: nothing is anywhere else.
    until("and all keys", || has_keys(&mut other));
    other.check("SET key:0 0", "+OK");
    assert!(has_keys(&mut arbiter.proxied()));
    members[killed].start_again(&[]);
    until("all slots have a copy again", || field(&mut other, "starling_copies_ready") == "16384");
    until("each has its half", || shares_at(&mut at_arbiter).iter().filter(|share| **share == 8192).count() == 2);
    assert!(has_keys(&mut arbiter.proxied()));
}

#[test]
fn an_arbiter_votes_and_has_no_slots() {
    let (members, arbiter) = two_and_an_arbiter();
    let name = id(&arbiter);
    let mut client = Client::connect(arbiter.node.peer);
    assert_eq!(field(&mut client, "starling_arbiters"), name);
    assert_eq!(field(&mut client, "cluster_state"), "ok");
    assert_eq!(field(&mut client, "cluster_size"), "2");
    let nodes = client.ask("CLUSTER NODES");
    let own = nodes.lines().find(|line| line.contains("myself,master")).expect("its own line");
    assert_eq!((own.starts_with(&name), own.split(' ').count()), (true, 8), "no slots: {own}");
    assert!(!client.ask("CLUSTER SLOTS").contains(&name));
    client.check("DBSIZE", ":0");
    client.check("READONLY", "+OK");
    assert!((0..10).all(|key| client.ask(&format!("GET key:{key}")).starts_with("-MOVED ")));
    write(&arbiter);
    client.check("DBSIZE", ":0");
    arbiter.proxied().check("DBSIZE", &format!(":{KEYS}"));
    // Nothing is to be moved, and it may go.
    client.check("CLUSTER REBALANCE DRYRUN", "*0");
    client.check("CLUSTER LEAVE", "+OK");
    let mut other = Client::connect(members[0].node.peer);
    until("it has gone", || field(&mut other, "cluster_known_nodes") == "2");
    assert_eq!(field(&mut other, "starling_arbiters"), "");
    other.check("PING", "+PONG");
}

#[test]
fn one_of_two_nodes_serves_everything_when_the_other_is_killed() {
    let (members, arbiter) = two_and_an_arbiter();
    // The other one: the raft leader goes on.
    let mut client = Client::connect(arbiter.node.peer);
    let killed = usize::from(!is_led_by(&mut client, &id(&members[1])));
    outlives(members, &arbiter, killed);
}

#[test]
fn one_of_two_nodes_serves_everything_when_the_raft_leader_is_killed() {
    let (members, arbiter) = two_and_an_arbiter();
    let mut client = Client::connect(arbiter.node.peer);
    let killed = usize::from(is_led_by(&mut client, &id(&members[1])));
    assert!(is_led_by(&mut client, &id(&members[killed])), "who has created the cluster leads");
    outlives(members, &arbiter, killed);
}

#[test]
fn a_node_with_data_becomes_no_arbiter_before_it_has_left() {
    let mut members = start_with(2, &["--replicas", "1"]);
    let mut first = Client::connect(members[0].node.peer);
    until("all slots have a copy", || field(&mut first, "starling_copies_ready") == "16384");
    let mut second = members.pop().expect("two");
    second.kill();
    let (code, words) = second.refused(&["--arbiter"]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("CLUSTER LEAVE"), "{words}");
}
