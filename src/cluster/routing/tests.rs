use super::*;
use proptest::prelude::*;
use smallvec::smallvec;

const READ: RequestTraits = RequestTraits { write: false };
const WRITE: RequestTraits = RequestTraits { write: true };

/// Of slots 0 to 99 node 1 is primary and node 2 has a copy, of 100 to 199 the other way round, 200 to 299 are node 3's
/// alone; 90 to 99 and 190 to 199 are being handed off to or by the node that asks; of 400 to 409 a copy is being elected; all
/// others are nobody's.
fn place(slot: Slot) -> SlotPlace {
    let handing_off = matches!(slot.number(), 90..100 | 190..200);
    match slot.number() {
        0..100 => SlotPlace { primary: Some(NodeId(1)), copies: smallvec![NodeId(2)], handing_off, last_owner: None },
        100..200 => SlotPlace { primary: Some(NodeId(2)), copies: smallvec![NodeId(1)], handing_off, last_owner: None },
        200..300 => SlotPlace { primary: Some(NodeId(3)), copies: smallvec![], handing_off, last_owner: None },
        400..410 => SlotPlace { handing_off: true, ..SlotPlace::default() },
        _ => SlotPlace::default(),
    }
}

fn node(id: u128) -> RoutingNode {
    let hostname = if id == 3 { String::new() } else { format!("node-{id}.example") };
    RoutingNode { id: NodeId(id), ip: IpAddr::from([10, 0, 0, id as u8]), port: 7000 + id as u16, hostname }
}

fn parts(this_node: u128) -> RoutingParts {
    RoutingParts {
        version: 7,
        this_node: NodeId(this_node),
        nodes: vec![node(3), node(1), node(2)],
        preferred_endpoint: PreferredEndpoint::Ip,
        service: Service::All,
    }
}

fn view(parts: RoutingParts) -> RoutingView {
    RoutingView::new(parts, place).expect("parts that fit together")
}

fn slots(numbers: &[u64]) -> Vec<Slot> {
    numbers.iter().map(|&number| Slot::new(number).expect("a slot")).collect()
}

#[track_caller]
fn check(view: &RoutingView, numbers: &[u64], request: RequestTraits, expected: Route) {
    assert_eq!(route(&slots(numbers), view, request), expected, "slots {numbers:?}, {request:?}");
}

/// -MOVED to the node with this id, which stands at id - 1.
fn moved(number: u64, id: u16) -> Route {
    Route::Moved { slot: Slot::new(number).expect("a slot"), node: NodeIndex(id - 1) }
}

#[test]
fn requests_go_to_the_primary() {
    let view = view(parts(1));
    check(&view, &[], WRITE, Route::Local);
    check(&view, &[5], READ, Route::Local);
    check(&view, &[5, 5, 5], WRITE, Route::Local);
    check(&view, &[100], READ, moved(100, 2));
    check(&view, &[299, 299], WRITE, moved(299, 3));
}

#[test]
fn the_first_key_decides_before_the_slots_are_compared() {
    let view = view(parts(1));
    check(&view, &[5, 6], READ, Route::CrossSlot);
    check(&view, &[100, 5], READ, Route::CrossSlot);
    check(&view, &[5, 300], READ, Route::CrossSlot);
    check(&view, &[300, 5], READ, Route::Down(DownReason::Unserved));
    check(&view, &[300], READ, Route::Down(DownReason::Unserved));
}

#[test]
fn a_copy_executes_nothing() {
    let view = view(parts(1));
    check(&view, &[100], READ, moved(100, 2));
    check(&view, &[100], WRITE, moved(100, 2));
}

#[test]
fn a_slot_being_handed_off_waits_at_both_ends() {
    let view = view(parts(1));
    check(&view, &[95], READ, Route::Wait(slots(&[95])[0]));
    check(&view, &[95], WRITE, Route::Wait(slots(&[95])[0]));
    check(&view, &[195], WRITE, Route::Wait(slots(&[195])[0]));
}

#[test]
fn a_slot_that_is_being_elected_waits_everywhere() {
    for node in [1, 3] {
        let view = view(parts(node));
        check(&view, &[405], WRITE, Route::Wait(slots(&[405])[0]));
        check(&view, &[405, 5], WRITE, Route::CrossSlot);
    }
}

#[test]
fn a_cluster_that_is_down_serves_what_it_may() {
    let reads = view(RoutingParts { service: Service::Reads, ..parts(1) });
    check(&reads, &[5], READ, Route::Local);
    check(&reads, &[100], READ, moved(100, 2));
    check(&reads, &[5], WRITE, Route::Down(DownReason::ReadsOnly));
    check(&reads, &[], WRITE, Route::Local);
    let nothing = view(RoutingParts { service: Service::Nothing, ..parts(1) });
    check(&nothing, &[5], READ, Route::Down(DownReason::Cluster));
    check(&nothing, &[], READ, Route::Local);
    check(&nothing, &[5, 6], READ, Route::CrossSlot);
    check(&nothing, &[300], READ, Route::Down(DownReason::Unserved));
}

#[test]
fn nothing_is_local_to_a_node_that_is_no_member() {
    let view = view(parts(9));
    assert_eq!(view.this_node(), None);
    check(&view, &[5], READ, moved(5, 1));
    check(&view, &[95], WRITE, moved(95, 1));
}

#[test]
fn addresses_follow_the_preferred_endpoint() {
    let expected = [
        (PreferredEndpoint::Ip, ["10.0.0.1:7001", "10.0.0.3:7003"]),
        (PreferredEndpoint::Hostname, ["node-1.example:7001", "?:7003"]),
        (PreferredEndpoint::Unknown, [":7001", ":7003"]),
    ];
    for (preferred_endpoint, [first, third]) in expected {
        let view = view(RoutingParts { preferred_endpoint, ..parts(1) });
        assert_eq!((view.address(NodeIndex(0)), view.address(NodeIndex(2))), (first, third));
    }
    let loopback = RoutingNode { ip: "::1".parse().expect("an address"), ..node(1) };
    assert_eq!(address(&loopback, PreferredEndpoint::Ip), "::1:7001");
}

#[test]
fn ranges_are_merged_by_owners_in_order() {
    let view = view(parts(1));
    let ranges: Vec<_> = view.ranges().map(|range| (range.first.number(), range.last.number(), range.owners)).collect();
    let (one, two, three) = (NodeIndex(0), NodeIndex(1), NodeIndex(2));
    assert_eq!(ranges, [(0, 99, &[one, two][..]), (100, 199, &[two, one]), (200, 299, &[three])]);
    assert_eq!(view.slots_of(two), (100..200).filter_map(Slot::new).collect());
    assert_eq!(view.node(three).id, NodeId(3));
    assert_eq!(view.primary(slots(&[300])[0]), None);
    assert!(view.owners(slots(&[300])[0]).is_empty());
}

#[test]
fn every_primary_is_listed_as_one_before_it_is_named_as_a_copy() {
    let view = view(parts(1));
    let listed: Vec<_> =
        view.listed_ranges().iter().map(|range| (range.first.number(), range.last.number(), range.owners)).collect();
    let (one, two, three) = (NodeIndex(0), NodeIndex(1), NodeIndex(2));
    let introduced: [(u16, u16, &[NodeIndex]); 3] = [(0, 0, &[one]), (100, 100, &[two]), (200, 200, &[three])];
    assert_eq!(listed[..3], introduced);
    assert_eq!(listed[3..], [(1, 99, &[one, two][..]), (101, 199, &[two, one]), (201, 299, &[three])]);
    let alone = RoutingView::new(parts(1), |slot| SlotPlace { copies: smallvec![], ..place(slot) }).expect("a view");
    assert_eq!(alone.listed_ranges(), alone.shown_ranges(), "where nobody has copies");
}

#[test]
fn slots_that_nobody_serves_are_shown_with_their_last_owner() {
    let lose = |slot: Slot| match slot.number() {
        50..150 => SlotPlace { last_owner: Some(NodeId(3)), ..SlotPlace::default() },
        _ => place(slot),
    };
    let view = RoutingView::new(parts(1), lose).expect("parts that fit together");
    let shown: Vec<_> = view.shown_ranges().iter().map(|range| (range.first.number(), range.owners[0].0)).collect();
    assert_eq!(shown, [(0, 0), (50, 2), (150, 1), (200, 2)]);
    assert_eq!(view.ranges().len(), 3);
    for number in [50, 149, 300] {
        check(&view, &[number], READ, Route::Down(DownReason::Unserved));
        assert!(view.owners(slots(&[number])[0]).is_empty());
    }
}

#[test]
fn parts_that_contradict_each_other_make_no_view() {
    let unknown = RoutingView::new(RoutingParts { nodes: vec![node(1), node(3)], ..parts(1) }, place);
    assert_eq!(unknown.err(), Some(RoutingError::UnknownOwner(slots(&[0])[0], NodeId(2))));
    let twice = RoutingView::new(RoutingParts { nodes: vec![node(1), node(2), node(1)], ..parts(1) }, place);
    assert_eq!(twice.err(), Some(RoutingError::NodeListedTwice(NodeId(1))));
    let nodes = (0..=NODES_MAX as u128).map(|id| RoutingNode { id: NodeId(id), ..node(1) }).collect();
    let many = RoutingView::new(RoutingParts { nodes, ..parts(1) }, place);
    assert_eq!(many.err(), Some(RoutingError::TooManyNodes(NODES_MAX + 1)));
}

#[test]
fn a_view_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<RoutingView>();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Whatever the table: the ranges tell the same as a look at each slot, touching ranges differ, and every node
    /// decides in agreement with the table.
    #[test]
    fn ranges_and_routes_agree_with_the_table(
        runs in prop::collection::vec((1usize..2000, prop::option::of((0u128..6, 0usize..3))), 1..60),
        this_node in 0u128..6,
    ) {
        let ids: Vec<NodeId> = (0..6).chain(0..6).map(NodeId).collect();
        let mut table: Vec<&[NodeId]> = Vec::new();
        for (length, owners) in runs {
            let owners = owners.map_or(&[][..], |(first, copies)| &ids[first as usize..=first as usize + copies]);
            table.extend(std::iter::repeat_n(owners, length));
        }
        table.resize(SLOT_COUNT, &[]);
        let parts = RoutingParts { nodes: (0..6).map(node).collect(), ..parts(this_node) };
        let view = RoutingView::new(parts, |slot| SlotPlace {
            primary: table[slot.index()].first().copied(),
            copies: table[slot.index()].get(1..).unwrap_or_default().into(),
            handing_off: false,
            last_owner: None,
        }).expect("parts that fit together");

        let mut from_ranges: Vec<Vec<NodeId>> = vec![Vec::new(); SLOT_COUNT];
        let mut before: Option<OwnedRange<'_>> = None;
        for range in view.ranges() {
            if let Some(before) = before {
                prop_assert!(before.last < range.first);
                prop_assert!(before.last.index() + 1 < range.first.index() || before.owners != range.owners);
            }
            for owners in &mut from_ranges[range.first.index()..=range.last.index()] {
                *owners = range.owners.iter().map(|&owner| view.node(owner).id).collect();
            }
            before = Some(range);
        }
        for slot in Slot::all() {
            let owners = table[slot.index()];
            prop_assert_eq!(&from_ranges[slot.index()], owners);
            let expected = match owners {
                [] => Route::Down(DownReason::Unserved),
                [first, ..] if *first == NodeId(this_node) => Route::Local,
                [first, ..] => Route::Moved { slot, node: NodeIndex(first.0 as u16) },
            };
            prop_assert_eq!(route(&[slot], &view, WRITE), expected);
            prop_assert_eq!(route(&[slot], &view, READ), expected);
        }
    }
}

/// What a view says about every slot and range, as text that two views can be compared by.
fn said(view: &RoutingView) -> String {
    let name = |index: &NodeIndex| view.node(*index).id.0;
    let owners = |range: &OwnedRange<'_>| range.owners.iter().map(name).collect::<Vec<_>>();
    let ranges: Vec<_> = view.ranges().map(|range| (range.first, range.last, owners(&range))).collect();
    let shown: Vec<_> = view.shown_ranges().iter().map(|range| (range.first, range.last, owners(range))).collect();
    let primaries: Vec<_> = Slot::all().map(|slot| view.primary(slot).as_ref().map(name)).collect();
    format!("{ranges:?} {shown:?} {primaries:?} {:?}", view.handing_off)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A view made from the one before and the slots that have changed is the view made from all slots, also where nodes
    /// have come and gone meanwhile.
    #[test]
    fn a_view_that_follows_another_is_the_view_made_anew(
        first in prop::collection::vec((1usize..2000, 0u128..4, any::<bool>(), any::<bool>()), 1..40),
        changes in prop::collection::vec((0usize..SLOT_COUNT, 1usize..300, 0u128..6, any::<bool>(), any::<bool>()), 0..12),
    ) {
        let slot_place = |&(owner, lost, handing_off): &(u128, bool, bool)| SlotPlace {
            primary: (!lost).then_some(NodeId(owner)),
            copies: smallvec![],
            last_owner: Some(NodeId(owner)),
            handing_off: handing_off && !lost,
        };
        let mut table: Vec<(u128, bool, bool)> = Vec::new();
        for (length, owner, lost, handing_off) in first {
            table.extend(std::iter::repeat_n((owner, lost, handing_off), length));
        }
        table.resize(SLOT_COUNT, (1, false, false));
        let nodes = |count: u128| RoutingParts { nodes: (0..count).map(node).collect(), ..parts(1) };
        let before = RoutingView::new(nodes(4), |slot| slot_place(&table[slot.index()])).expect("parts that fit");
        let mut changed = SlotRanges::new();
        for (from, length, owner, lost, handing_off) in changes {
            for slot in Slot::all().skip(from).take(length) {
                table[slot.index()] = (owner, lost, handing_off);
                changed.insert(slot);
            }
        }
        let anew = RoutingView::new(nodes(6), |slot| slot_place(&table[slot.index()])).expect("parts that fit");
        let following =
            before.followed_by(nodes(6), changed.slots(), |slot| slot_place(&table[slot.index()])).expect("parts that fit");
        prop_assert_eq!(said(&following), said(&anew));
    }
}
