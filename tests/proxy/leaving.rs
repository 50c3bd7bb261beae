//! Nodes that are asked to end: what they hold goes to the others first, or they say that it is lost.

use crate::client::Client;
use crate::cluster::{Member, await_balance, shares, start_with};
use crate::nodes::{LIMIT, until};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const KEYS: usize = 3000;
const ENDED_WITH_LOSS: i32 = 3;

fn write(member: &Member) {
    let mut client = member.proxied();
    let requests: Vec<String> = (0..KEYS).map(|number| format!("SET key:{number} v")).collect();
    client.send(&requests);
    requests.iter().for_each(|_| assert_eq!(client.receive(), "+OK\r\n"));
}

#[test]
fn a_node_that_stands_still_while_it_leaves_goes_on_and_loses_nothing() {
    // Shorter than it takes until a member that stands still is believed to be down.
    let mut members = start_with(3, &["--shutdown-timeout", "2"]);
    write(&members[0]);
    let mut leaving = members.pop().expect("three members");
    let before: u64 = *shares(&members[0]).iter().min().expect("shares");
    leaving.node.signal(Signal::TERM);
    until("its slots begin to move", || shares(&members[0]).iter().any(|share| *share < before.saturating_sub(100)));
    leaving.node.signal(Signal::STOP);
    let mut other = Client::connect(members[0].node.peer);
    until("it is believed to be down", || other.ask("CLUSTER NODES").lines().any(|line| line.contains("fail")));
    leaving.node.signal(Signal::CONT);
    assert_eq!(leaving.node.until_ended(), 0);
    await_balance(&members);
    for member in &members {
        member.proxied().check("DBSIZE", &format!(":{KEYS}"));
    }
}

/// A node that has left answers MOVED for what is queued; its clients waited a second for EXEC then.
#[test]
fn a_transaction_that_is_spoilt_is_over_without_a_lease() {
    let members = start_with(2, &[]);
    let mut client = Client::connect(members[1].node.peer);
    let set = (0..)
        .map(|number| format!("SET key:{number} v"))
        .find(|set| client.ask(set).starts_with("+OK"))
        .expect("a key");
    // Of two votes one is missing from now on.
    members[0].node.signal(Signal::STOP);
    until("its lease is over", || client.ask(&set).starts_with("-CLUSTERDOWN"));
    client.check("MULTI", "+OK");
    assert!(client.ask(&set).starts_with("-CLUSTERDOWN"));
    client.check("EXEC", "-EXECABORT Transaction discarded because of previous errors.");
    members[0].node.signal(Signal::CONT);
}

#[test]
fn a_node_that_is_told_twice_ends_with_what_nobody_takes_and_says_so() {
    let mut members = start_with(2, &[]);
    write(&members[0]);
    let mut leaving = members.pop().expect("two members");
    // Nobody moves anything while the other one stands still: one of two votes is missing.
    members[0].node.signal(Signal::STOP);
    let began = Instant::now();
    let code = loop {
        leaving.node.signal(Signal::TERM);
        std::thread::sleep(Duration::from_millis(200));
        if let Some(code) = leaving.node.exit_code() {
            break code;
        }
        assert!(began.elapsed() < LIMIT, "it ends when it is told again");
    };
    assert_eq!(code, ENDED_WITH_LOSS);
}

#[test]
fn the_last_node_says_whether_keys_are_lost() {
    let mut empty = Member::start_with(None, &[]);
    await_balance(std::slice::from_ref(&empty));
    assert_eq!(empty.node.terminate(), 0);
    let mut full = Member::start_with(None, &[]);
    await_balance(std::slice::from_ref(&full));
    write(&full);
    assert_eq!(full.node.terminate(), ENDED_WITH_LOSS);
}

#[test]
fn an_operator_holds_the_plan_up_looks_at_it_and_sends_a_node_away() {
    let mut members = start_with(2, &[]);
    write(&members[0]);
    let mut clients = [Client::connect(members[0].node.peer), Client::connect(members[1].node.peer)];
    clients[0].check("CLUSTER REBALANCE", "$7 running");
    clients[0].check("CLUSTER REBALANCE DRYRUN", "*0");
    clients[0].check("CLUSTER REBALANCE maybe", "-ERR syntax error");
    clients[0].check("CLUSTER REBALANCE PAUSE", "+OK");
    clients[0].check("CLUSTER REBALANCE PAUSE", "+OK");
    until("the other knows", || clients[1].ask("CLUSTER INFO").contains("\r\nstarling_rebalance:paused\r\n"));
    clients[1].check("CLUSTER LEAVE", "-ERR Nothing is moved while rebalancing is paused: CLUSTER REBALANCE RESUME");
    members.push(Member::start_with(members.first(), &[]));
    until("the plan would give it slots", || clients[1].ask("CLUSTER REBALANCE DRYRUN").contains("primary from "));
    let mut third = Client::connect(members[2].node.peer);
    third.check("CLUSTER REBALANCE", "$6 paused");
    assert_eq!(shares(&members[0]).iter().min(), Some(&0), "it has none");
    clients[1].check("CLUSTER REBALANCE RESUME", "+OK");
    await_balance(&members);
    let id = third.ask("CLUSTER MYID");
    third.check("CLUSTER LEAVE", "+OK");
    let mut leaving = members.pop().expect("three members");
    assert_eq!(leaving.node.until_ended(), 0);
    await_balance(&members);
    assert!(!clients[0].ask("CLUSTER NODES").contains(id.lines().nth(1).expect("a name")));
    members[0].proxied().check("DBSIZE", &format!(":{KEYS}"));
}

#[test]
fn the_only_node_does_not_leave() {
    let member = Member::start_with(None, &[]);
    await_balance(std::slice::from_ref(&member));
    let refused = "-ERR There is no other node that could take the slots: SHUTDOWN ends this one";
    Client::connect(member.node.peer).check("CLUSTER LEAVE", refused);
}
