//! Writes that only a primary had when it was given up: when it is back they are counted.

use crate::client::Client;
use crate::cluster::{Member, start_with};
use crate::nodes::until;
use rustix::process::Signal;

/// In a pipeline, and pipelines before it is given up that no writes get into any more.
const WRITES: usize = 500;
const PIPELINES_MAX: usize = 40;

/// How a member is lost, and how it comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Its process ends, and starts again with its log.
    Killed,
    /// It stands still, and goes on.
    Stopped,
}

fn told(clients: &mut [Client]) -> usize {
    let number = |client: &mut Client| {
        let info = client.ask("CLUSTER INFO");
        let count = info.lines().find_map(|line| line.strip_prefix("starling_writes_lost:")).expect("it is told");
        count.parse::<usize>().expect("a number")
    };
    clients.iter_mut().map(number).sum()
}

/// Writes keys of their own to slots of a member, while the others stand still, until it refuses: what comes behind that on this
/// connection it refuses too. The keys that were written.
fn write_unheard(client: &mut Client) -> Vec<String> {
    let mut written = Vec::new();
    for pipeline in 0..PIPELINES_MAX {
        let keys: Vec<String> = (0..WRITES).map(|number| format!("unheard:{pipeline}:{number}")).collect();
        client.send(&keys.iter().map(|key| format!("SET {key} v")).collect::<Vec<_>>());
        for key in keys {
            let reply = client.receive();
            if reply.starts_with("-CLUSTERDOWN") {
                return written;
            }
            if reply.starts_with("+OK") || reply.starts_with("-INDOUBT") {
                written.push(key);
            }
        }
    }
    written
}

fn check(fault: Fault) {
    let mut members = start_with(3, &["--replicas", "2", "--appendonly", "yes", "--appendfsync", "always"]);
    let connect = |members: &[Member]| -> Vec<Client> {
        members.iter().map(|member| Client::connect(member.node.peer)).collect()
    };
    let is_whole = |client: &mut Client| client.ask("CLUSTER INFO").contains("starling_copies_ready:32768\r\n");
    let mut clients = connect(&members);
    until("all copies are there", || clients.iter_mut().all(is_whole));
    assert_eq!(told(&mut clients), 0);

    let others = |signal| members[1..].iter().for_each(|member| member.node.signal(signal));
    others(Signal::STOP);
    let written = write_unheard(&mut clients[0]);
    members[0].node.signal(if fault == Fault::Killed { Signal::KILL } else { Signal::STOP });
    others(Signal::CONT);
    let mut proxied = members[1].proxied();
    until("its slots are elected", || {
        let info = clients[1].ask("CLUSTER INFO");
        info.contains("cluster_slots_ok:16384\r\n") && info.contains("starling_slots_electing:0\r\n")
    });
    let is_missing = |key: &&String| {
        let mut reply = String::new();
        until("it is known whether a key is there", || {
            reply = proxied.ask(&format!("EXISTS {key}"));
            reply.starts_with(':')
        });
        reply == ":0\r\n"
    };
    let missing = written.iter().filter(is_missing).count();
    assert_eq!(told(&mut clients[1..]), 0, "nobody knows before it is back");

    match fault {
        Fault::Killed => {
            members[0].node.until_ended();
            members[0].start_again(&[]);
        }
        Fault::Stopped => members[0].node.signal(Signal::CONT),
    }
    let mut clients = connect(&members);
    until("it has its copies again", || clients.iter_mut().all(is_whole));
    assert!(missing > 0, "some of {} writes are lost", written.len());
    // All of it on a quiet machine; a slot that was elected twice meanwhile says nothing.
    until("what is missing is told", || {
        let told = told(&mut clients);
        assert!(told <= missing, "{told} told, {missing} of {} missing", written.len());
        told > 0
    });
    for client in &mut clients {
        let told = told(std::slice::from_mut(client));
        assert!(client.ask("INFO replication").contains(&format!("\r\nstarling_writes_lost:{told}\r\n")));
    }
}

#[test]
fn writes_that_only_a_killed_primary_had_are_counted_when_it_is_back() {
    check(Fault::Killed);
}

#[test]
fn writes_that_only_a_stopped_primary_had_are_counted_when_it_is_back() {
    check(Fault::Stopped);
}
