//! What Redis Cluster is put together with by hand, on nodes that do it by themselves.

use crate::client::Client;
use crate::cluster::start_with;

#[test]
fn what_nodes_do_by_themselves_says_what_to_do_instead() {
    let members = start_with(2, &["--replicas", "1"]);
    let mut client = Client::connect(members[0].node.peer);
    let other = members[1].node.peer.port();
    let mut check = |request: &str, expected: &str| {
        let reply = client.ask(&format!("CLUSTER {request}"));
        assert!(reply.starts_with(expected) && reply.ends_with("\r\n"), "{request}: {reply}");
        assert_eq!(reply.lines().count(), 1, "{request}: {reply}");
    };
    check("SAVECONFIG", "+OK");
    check(&format!("MEET 127.0.0.1 {other}"), "+OK");
    check(&format!("MEET 127.0.0.1 {other} 1"), "+OK");
    check("MEET 127.0.0.1 1", "-ERR No member of this cluster is there: start the node with --join");
    check("MEET localhost 7000", "-ERR Invalid node address specified: localhost:7000");
    check("MEET 127.0.0.1 0", "-ERR Invalid node address specified: 127.0.0.1:0");
    check("MEET 127.0.0.1 7000 70000", "-ERR Invalid node address specified: 127.0.0.1:7000");
    check("MEET 127.0.0.1 x", "-ERR Invalid base port specified: x");
    check("MEET 127.0.0.1 7000 x", "-ERR Invalid bus port specified: x");
    check("MEET 127.0.0.1 7000 17000 x", "-ERR unknown subcommand or wrong number of arguments for 'MEET'");
    check("MEET 127.0.0.1", "-ERR wrong number of arguments for 'cluster|meet' command");
    for request in
        ["ADDSLOTS 1", "addslotsrange 1 2", "DELSLOTS 1", "DELSLOTSRANGE 1 2", "FLUSHSLOTS", "SETSLOT 1 STABLE"]
    {
        let name = request.split(' ').next().expect("a word").to_uppercase();
        check(request, &format!("-ERR CLUSTER {name} is not done by hand: slots are given out by the plan"));
    }
    check("BUMPEPOCH", "-ERR CLUSTER BUMPEPOCH is not done by hand: every slot has an epoch of its own");
    check(
        "SET-CONFIG-EPOCH 1",
        "-ERR CLUSTER SET-CONFIG-EPOCH is not done by hand: every slot has an epoch of its own",
    );
    check("REPLICATE 1", "-ERR CLUSTER REPLICATE is not done by hand: every node has copies of others' slots");
    check("RESET HARD", "-ERR CLUSTER RESET is not done by hand: CLUSTER LEAVE hands everything over");
    check("ADDSLOTS", "-ERR wrong number of arguments for 'cluster|addslots' command");
}
