//! How many copies of a slot there shall be: one value for all nodes.

use crate::client::Client;
use crate::cluster::Member;
use crate::nodes::until;

const REFUSAL: &str = "-ERR CONFIG SET failed (possibly related to argument 'replicas') - ";

#[test]
fn replicas_are_agreed_by_all_nodes() {
    let first = Member::start_with(None, &[]);
    let second = Member::start_with(Some(&first), &[]);
    let [mut at_first, mut at_second] = [&first, &second].map(|member| Client::connect(member.node.peer));
    let shown = |count: usize| format!("*2 $8 replicas $1 {count}");
    at_first.check("CONFIG SET replicas 1", "+OK");
    at_first.check("CONFIG GET replicas", &shown(1));
    until("the other hears of it", || at_second.ask("CONFIG GET replicas").ends_with("$1\r\n1\r\n"));
    at_second.check("CONFIG SET replicas 5", &format!("{REFUSAL}argument must be between 0 and 4 inclusive"));
    let alone = format!("{REFUSAL}all nodes of the cluster agree on it: set it by itself");
    at_second.check("CONFIG SET replicas 0 hz 20", &alone);
    at_second.check("CONFIG SET replicas 1 hz 20", "+OK");
    at_second.check("CONFIG SET replicas 0", "+OK");
    at_second.check("CONFIG GET replicas", &shown(0));
    until("the other hears of it", || at_first.ask("CONFIG GET replicas").ends_with("$1\r\n0\r\n"));
    at_first.check("CONFIG SET replicas 0", "+OK");
}
