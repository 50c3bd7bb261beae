//! Plain clients that wait for keys (BLPOP) on the proxy listeners of a cluster, while the keys' slots move.

use crate::client::Client;
use crate::cluster::{Member, await_balance, start_with};
use crate::nodes::until;

const WAITING: usize = 40;

/// How many clients wait on a node.
fn blocked(member: &Member) -> usize {
    let info = Client::connect(member.node.peer).ask("INFO clients");
    let line = info.lines().find_map(|line| line.strip_prefix("blocked_clients:")).expect("a count");
    line.trim().parse().expect("a number")
}

#[test]
fn who_waits_through_a_proxy_is_served_wherever_the_key_goes() {
    let mut members = start_with(2, &[]);
    let mut waiting: Vec<Client> = (0..WAITING)
        .map(|number| {
            let mut client = members[number % 2].proxied();
            client.send(&[format!("BLPOP list:{number} 0")]);
            client
        })
        .collect();
    until("all wait at the owners", || members.iter().map(blocked).sum::<usize>() >= WAITING);
    let third = Member::start_with(members.first(), &[]);
    members.push(third);
    await_balance(&members);
    let mut pusher = members[2].proxied();
    for number in 0..WAITING {
        pusher.check(&format!("RPUSH list:{number} {number} left"), ":2");
    }
    for (number, client) in waiting.iter_mut().enumerate() {
        let (list, element) = (format!("list:{number}"), number.to_string());
        let expected = format!("*2\r\n${}\r\n{list}\r\n${}\r\n{element}\r\n", list.len(), element.len());
        assert_eq!(client.receive(), expected);
        // The connection goes on, and nothing was taken twice.
        client.check(&format!("LRANGE {list} 0 -1"), "*1 $4 left");
    }
}

#[test]
fn who_waits_through_a_proxy_is_served_in_order_and_given_up_in_time() {
    let members = start_with(2, &[]);
    let mut waiting: Vec<Client> = (0..6)
        .map(|number| {
            let mut client = members[number % 2].proxied();
            client.send(&["BLMOVE from {from}to LEFT RIGHT 0".to_owned()]);
            until("it waits", || members.iter().map(blocked).sum::<usize>() > number);
            client
        })
        .collect();
    members[0].proxied().check("RPUSH from 0 1 2 3 4 5", ":6");
    for (number, client) in waiting.iter_mut().enumerate() {
        assert_eq!(client.receive(), format!("$1\r\n{number}\r\n"), "the first to come is the first to be served");
    }
    for member in &members {
        member.proxied().check("BLPOP nothing 0.05", "*-1");
        // Where all keys have one slot they may be several.
        member.proxied().check("BLPOP {from}a {from}to 1", "*2 $8 {from}to $1 0");
        member.proxied().check("LPUSH {from}to 0", ":6");
    }
}
