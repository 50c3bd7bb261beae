//! Roles that an operator has placed by CLUSTER FAILOVER, and what ends that.

use super::*;

impl Cluster {
    /// CLUSTER FAILOVER on that node, until nobody has anything to do. How many slots it was handed.
    fn fail_over_to(&mut self, number: u8) -> usize {
        let asked = KeptRoles::asked(&self.topology, NodeId(u128::from(number))).expect("it has copies");
        self.rebalance(&asked.value());
        (self.handed_over, self.joined) = (0, 0);
        self.settle();
        assert!(kept_roles(&self.topology).is_some());
        self.handed_over
    }

    fn rebalance(&mut self, value: &str) {
        let (name, value) = (REBALANCE.to_owned(), value.to_owned());
        assert_eq!(self.apply(&TopologyChange::SetConfig { name, value }), Applied::Done);
    }
}

#[test]
fn a_node_is_handed_every_slot_that_it_has_a_copy_of_and_roles_stay() {
    let mut cluster = Cluster::with_copies(3, 1);
    let before = cluster.owned()[1];
    let handed = cluster.fail_over_to(2);
    assert!(handed > before / 2, "{handed}");
    assert_eq!(cluster.owned()[1], before + handed);
    assert_eq!((cluster.joined, cluster.holders()), (0, (2, 2)), "its copies are where they were");
    assert_eq!(leader_duties(&cluster.topology, false, &BTreeSet::new()), [], "it stays so");
    assert_eq!(KeptRoles::asked(&cluster.topology, NodeId(2)), None, "there is no more that it could be handed");
    // What it gives away again it does not take back.
    cluster.fail_over_to(1);
    let owned = cluster.owned();
    assert!(owned[0] > owned[1], "{owned:?}");
    cluster.rebalance("");
    cluster.settle();
    cluster.check_shares(3);
}

#[test]
fn one_node_can_be_given_all_roles_or_none() {
    let mut cluster = Cluster::with_copies(3, 2);
    cluster.fail_over_to(3);
    assert_eq!(cluster.owned(), [0, 0, SLOT_COUNT]);
    cluster.fail_over_to(1);
    assert_eq!(cluster.owned(), [SLOT_COUNT, 0, 0]);
    cluster.rebalance("paused");
    assert_eq!(kept_roles(&cluster.topology), None);
    cluster.rebalance("");
    cluster.settle();
    cluster.check_shares(3);
}

#[test]
fn few_slots_change_hands_at_a_time() {
    let mut cluster = Cluster::with_copies(2, 1);
    let asked = KeptRoles::asked(&cluster.topology, NodeId(2)).expect("it has copies");
    cluster.rebalance(&asked.value());
    let changes = leader_duties(&cluster.topology, false, &BTreeSet::new());
    let [TopologyChange::HandOver { slots, .. }] = &changes[..] else { panic!("{changes:?}") };
    assert_eq!(slots.len(), SLOTS_HANDED_OVER);
    assert_eq!(cluster.apply(&changes[0]), Applied::Done);
    assert_eq!(leader_duties(&cluster.topology, false, &BTreeSet::new()), [], "the next come when these are there");
    assert_eq!(leader_duties(&cluster.topology, true, &BTreeSet::new()), []);
}

#[test]
fn members_that_start_and_leave_end_it() {
    type Change = fn(&mut Cluster);
    let changes: [(&str, Change, usize); 4] = [
        ("a member joins", |cluster| cluster.start(4), 4),
        ("one starts again", |cluster| cluster.start(2), 3),
        ("one leaves", |cluster| cluster.leave(2), 2),
        ("one that is down is forgotten", forget, 2),
    ];
    let mut kept = Cluster::with_copies(3, 1);
    kept.fail_over_to(1);
    for (what, change, nodes) in changes {
        let mut cluster = kept.clone();
        change(&mut cluster);
        assert_eq!(kept_roles(&cluster.topology), None, "{what}");
        cluster.settle();
        cluster.check_shares(nodes);
    }
}

fn forget(cluster: &mut Cluster) {
    cluster.kill(3);
    cluster.settle();
    let (node, incarnation) = (NodeId(3), cluster.topology.nodes[&NodeId(3)].incarnation);
    let change = TopologyChange::ForgetNode { node, incarnation, decided_by: cluster.topology.version };
    assert_eq!(cluster.apply(&change), Applied::Done);
}

#[test]
fn a_member_that_was_only_believed_to_be_down_does_not_end_it() {
    let mut cluster = Cluster::with_copies(3, 2);
    cluster.fail_over_to(1);
    cluster.kill(2);
    cluster.settle();
    cluster.back(2);
    cluster.settle();
    assert_eq!(cluster.owned(), [SLOT_COUNT, 0, 0]);
    // The one that has the roles: its copies are elected.
    cluster.kill(1);
    cluster.settle();
    let elected = cluster.owned();
    assert_eq!((elected[0], elected.iter().sum()), (0, SLOT_COUNT));
    cluster.back(1);
    cluster.settle();
    assert_eq!(cluster.owned(), elected);
}

#[test]
fn slots_and_copies_are_levelled_all_the_same() {
    let mut cluster = Cluster::with_copies(3, 1);
    cluster.fail_over_to(1);
    cluster.apply(&TopologyChange::SetConfig { name: REPLICAS.into(), value: "2".into() });
    cluster.settle();
    assert!(kept_roles(&cluster.topology).is_some());
    assert_eq!(cluster.holders(), (3, 3));
    cluster.apply(&TopologyChange::SetConfig { name: REPLICAS.into(), value: "0".into() });
    cluster.settle();
    assert_eq!(cluster.holders(), (1, 1));
    cluster.check_shares(3);
}

#[test]
fn a_node_without_copies_asks_for_nothing_and_what_is_no_such_value_means_nothing() {
    let mut cluster = Cluster::with_copies(2, 0);
    assert_eq!(KeptRoles::asked(&cluster.topology, NodeId(1)), None);
    assert_eq!(KeptRoles::asked(&cluster.topology, NodeId(9)), None);
    for value in ["roles-kept", "roles-kept 1 2 3 4", "paused", "later"] {
        cluster.rebalance(value);
        assert_eq!(kept_roles(&cluster.topology), None, "{value}");
    }
    cluster.rebalance("");
    cluster.start(3);
    cluster.apply(&TopologyChange::SetConfig { name: REPLICAS.into(), value: "1".into() });
    cluster.settle();
    cluster.leave(2);
    assert_eq!(KeptRoles::asked(&cluster.topology, NodeId(2)), None, "it leaves");
}
