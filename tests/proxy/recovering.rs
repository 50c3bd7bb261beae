//! A majority of the voters is lost for good: those that are left go on at an operator's word.

use crate::client::Client;
use crate::cluster::{Member, start_with};
use crate::nodes::{LIMIT, until};
use std::time::Instant;

const KEYS: usize = 500;

fn knows(client: &mut Client, field: &str) -> bool {
    client.ask("CLUSTER INFO").contains(&format!("{field}\r\n"))
}

fn key(number: usize) -> String {
    format!("key:{number}")
}

/// Whether a node has a key, as the primary of its slot or as a copy.
fn has(client: &mut Client, number: usize) -> bool {
    client.ask(&format!("EXISTS {}", key(number))) == ":1\r\n"
}

/// Asks one after the other until one of them does it: which of them knows more is not for this test to say.
fn recover(clients: &mut [Client], request: &str) -> String {
    let began = Instant::now();
    loop {
        for client in clients.iter_mut() {
            let answer = client.ask(request);
            if answer.starts_with('*') {
                return answer;
            }
            assert!(answer.starts_with("-ERR Nothing is to be recovered") || answer.contains("say it to"), "{answer}");
        }
        assert!(began.elapsed() < LIMIT, "the others are missed");
    }
}

#[test]
fn two_of_five_nodes_go_on_when_three_are_lost_for_good() {
    let mut members = start_with(5, &["--replicas", "1", "--appendonly", "yes"]);
    let mut left = members.split_off(3);
    let mut clients: Vec<Client> = left.iter().map(|member| Client::connect(member.node.peer)).collect();
    until("all copies are there", || clients.iter_mut().all(|client| knows(client, "starling_copies_ready:16384")));
    let mut writer = left[0].proxied();
    (0..KEYS).for_each(|number| writer.check(&format!("SET {} {number}", key(number)), "+OK"));
    clients.iter_mut().for_each(|client| client.check("READONLY", "+OK"));
    let is_kept = |clients: &mut [Client], number| clients.iter_mut().any(|client| has(client, number));
    // Copies have it a moment later.
    let mut kept = Vec::new();
    until("copies have what was written", || {
        let counted = (0..KEYS).filter(|number| is_kept(&mut clients, *number)).collect::<Vec<_>>();
        let is_all = counted.len() == kept.len() && counted.len() > KEYS / 2;
        kept = counted;
        is_all
    });
    assert!(kept.len() < KEYS, "the others have some alone");
    assert!(clients[0].ask("CLUSTER RECOVER").contains("leads the raft group. A node that is down is given up by"));
    for request in ["CLUSTER RECOVER NOW", "CLUSTER RECOVER CONFIRM FORCE", "CLUSTER RECOVER FORCE CONFIRM NOW"] {
        clients[0].check(request, "-ERR syntax error");
    }
    members.iter_mut().for_each(|member| member.node.signal(rustix::process::Signal::KILL));
    assert!(members.iter_mut().all(|member| member.node.until_ended() != 0));

    let would = recover(&mut clients, "CLUSTER RECOVER");
    assert_eq!(would.matches("kept: ").count(), 2, "{would}");
    assert_eq!(would.matches("given up for good: ").count(), 3, "{would}");
    assert!(would.contains(&members[0].node.peer.to_string()) && would.contains("nothing has changed"), "{would}");
    assert!(clients.iter_mut().all(|client| knows(client, "cluster_known_nodes:5")));
    let does = recover(&mut clients, "CLUSTER RECOVER --force CONFIRM");
    assert!(does.contains("generation 1 of the cluster has begun"), "{does}");
    let is_well =
        |client: &mut Client| knows(client, "cluster_known_nodes:2") && knows(client, "cluster_slots_ok:16384");
    until("both go on, with all slots", || clients.iter_mut().all(is_well));
    let value = |number: usize| format!("${}\r\n{number}\r\n", number.to_string().len());
    for number in &kept {
        assert_eq!(writer.ask(&format!("GET {}", key(*number))), value(*number));
    }
    writer.check("DBSIZE", &format!(":{}", kept.len()));
    (0..KEYS).for_each(|number| writer.check(&format!("SET {} {number}", key(number)), "+OK"));
    assert!(clients[1].ask("CLUSTER RECOVER").contains("Nothing is to be recovered"));

    // All three at once would be a majority of what was.
    std::thread::scope(|scope| {
        for member in &members {
            scope.spawn(|| {
                let (code, words) = member.refused(&[]);
                assert_eq!(code, Some(1), "{words}");
                assert!(words.contains("the cluster was recovered without this node"), "{words}");
            });
        }
    });
    assert!(clients.iter_mut().all(is_well), "nobody was disturbed");
    (0..KEYS).for_each(|number| assert_eq!(writer.ask(&format!("GET {}", key(number))), value(number)));
    // They start again as ever, and new ones join.
    for member in &mut left {
        member.kill();
        member.start_again(&[]);
    }
    let third = Member::start_with(left.first(), &[]);
    let mut clients: Vec<Client> =
        left.iter().chain([&third]).map(|member| Client::connect(member.node.peer)).collect();
    let has_joined =
        |client: &mut Client| knows(client, "cluster_known_nodes:3") && knows(client, "cluster_slots_ok:16384");
    until("a third has joined", || clients.iter_mut().all(has_joined));
    let mut reader = third.proxied();
    (0..KEYS).for_each(|number| assert_eq!(reader.ask(&format!("GET {}", key(number))), value(number)));
}
