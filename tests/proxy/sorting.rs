//! SORT in a cluster: the keys that its patterns name must be in the slot of the key that is sorted.

use crate::cluster::start_with;

#[test]
fn patterns_stay_in_the_slot_of_the_sorted_key() {
    let members = start_with(2, &[]);
    let mut client = members[0].proxied();
    for tag in ["{a}", "{b}", "{c}", "{d}"] {
        client.check(&format!("RPUSH {tag}list 1 2"), ":2");
        client.check(&format!("MSET {tag}weight:1 20 {tag}weight:2 10"), "+OK");
        let sort = format!("SORT {tag}list BY {tag}weight:* GET # GET {tag}weight:*");
        client.check(&sort, "*4 $1 2 $2 10 $1 1 $2 20");
        client.check(&format!("{sort} STORE {tag}sorted"), ":4");
        client.check(&format!("LINDEX {tag}sorted 3"), "$2 20");
        let strays = "patterns may lead elsewhere, whatever slots are here";
        for option in ["BY weight:*", "GET weight:*", "BY weight:*{a}", "GET {*}"] {
            let reply = client.ask(&format!("SORT {tag}list {option}"));
            assert!(reply.contains("denied in cluster mode"), "{strays}: {option}: {reply}");
        }
        client.check(&format!("SORT {tag}list BY nothing GET #"), "*2 $1 1 $1 2");
    }
}
