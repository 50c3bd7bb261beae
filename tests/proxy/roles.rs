//! CLUSTER FAILOVER: a node takes the roles of its copies while clients write, and roles stay where they are then.

use crate::client::Client;
use crate::cluster::{Member, await_balance, shares, start_with};
use crate::nodes::until;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

const COUNTERS: usize = 200;
const IS_PRIMARY: &str = "-ERR You should send CLUSTER FAILOVER to a replica";

fn is_ready(client: &mut Client) -> bool {
    client.ask("CLUSTER INFO").contains("\r\nstarling_copies_ready:32768\r\n")
}

/// Writes until it is told to end, and knows every reply: none may be missing, doubled or out of order.
fn count(proxy: SocketAddr, done: &AtomicBool, rounds: &AtomicUsize) {
    let mut client = Client::connect(proxy);
    let mut counts = [0u64; COUNTERS];
    let requests: Vec<String> = (0..COUNTERS).map(|number| format!("INCR c:{number}")).collect();
    while !done.load(Ordering::Relaxed) {
        client.send(&requests);
        for (number, count) in counts.iter_mut().enumerate() {
            let increased = client.receive();
            // On a busy machine a slot may stand still for longer than requests wait: then nothing was executed.
            if !increased.starts_with("-TRYAGAIN") {
                *count += 1;
                assert_eq!(increased, format!(":{count}\r\n"), "INCR c:{number}");
            }
        }
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    for (number, count) in counts.iter().enumerate() {
        client.check(&format!("GET c:{number}"), &format!("${} {count}", count.to_string().len()));
    }
}

#[test]
fn a_node_takes_all_roles_without_a_lost_write_and_keeps_them_until_they_are_levelled_again() {
    let members = start_with(3, &["--replicas", "2"]);
    let mut clients: Vec<Client> = members.iter().map(|member| Client::connect(member.node.peer)).collect();
    until("all slots have their copies", || clients.iter_mut().all(is_ready));
    let (done, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| count(members[0].proxy, &done, &rounds));
        let more_rounds = || {
            let before = rounds.load(Ordering::Relaxed);
            until("it writes", || rounds.load(Ordering::Relaxed) > before + 3);
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            more_rounds();
            clients[1].check("CLUSTER FAILOVER", "+OK");
            await_all(&mut clients, 1);
            more_rounds();
            for client in &mut clients {
                client.check("CLUSTER REBALANCE", "$10 roles-kept");
            }
            clients[0].check("CLUSTER REBALANCE RESUME", "+OK");
            await_balance(&members);
            clients[0].check("CLUSTER REBALANCE", "$7 running");
        }));
        done.store(true, Ordering::Relaxed);
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    members[1].proxied().check("DBSIZE", &format!(":{COUNTERS}"));
}

/// Waits until it is the primary of all slots, and the others have copies of them.
fn await_all(clients: &mut [Client], taker: usize) {
    let id = clients[taker].ask("CLUSTER MYID").lines().nth(1).expect("a name").to_owned();
    let has_all = |client: &mut Client| {
        let nodes = client.ask("CLUSTER NODES");
        nodes.lines().any(|line| line.starts_with(&id) && line.ends_with(" 0-16383")) && is_ready(client)
    };
    until("it has all roles", || clients.iter_mut().all(has_all));
    clients[taker].check("CLUSTER FAILOVER", IS_PRIMARY);
}

#[test]
fn what_a_failover_is_refused_with() {
    let members = start_with(2, &["--replicas", "1"]);
    let mut client = Client::connect(members[0].node.peer);
    until("it has copies", || client.ask("CLUSTER INFO").contains("\r\nstarling_copies_ready:16384\r\n"));
    for request in ["CLUSTER FAILOVER gently", "CLUSTER FAILOVER FORCE FORCE"] {
        client.check(request, "-ERR syntax error");
    }
    client.check(
        "CLUSTER FAILOVER TAKEOVER",
        "-ERR No role is taken without a majority: copies of a node that is down are elected by themselves, and of a node \
         that is up CLUSTER FAILOVER takes it",
    );
    client.check("CLUSTER REBALANCE PAUSE", "+OK");
    client.check("CLUSTER FAILOVER", "-ERR Nothing is moved while rebalancing is paused: CLUSTER REBALANCE RESUME");
    client.check("CLUSTER REBALANCE RESUME", "+OK");
    client.check("MULTI", "+OK");
    client.check("CLUSTER FAILOVER", "+QUEUED");
    client.check("EXEC", "*1 -ERR CLUSTER FAILOVER is not allowed in transactions");
    client.check("CLUSTER FAILOVER FORCE", "+OK");
    until("it has all roles", || shares(&members[1]).contains(&16384));
    client.check("CLUSTER FAILOVER", IS_PRIMARY);
    client.check("CONFIG SET replicas 0", "+OK");
    // A node that joins has its share of the roles too.
    let mut members = members;
    members.push(Member::start_with(members.first(), &[]));
    await_balance(&members);
    client.check("CLUSTER REBALANCE", "$7 running");
}
