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
