//! Who should vote in the raft group: a pure function of the members and of who votes now.
//!
//! One voter for one or two nodes, three from three, five from five. The number follows the members, not who is up: a
//! group must not shrink to whoever is left. A voter that is down, leaves or cannot write its log is replaced as soon as there is
//! somebody to replace it with. Zones that have no voter come first.
//!
//! With five voters two may die at about the same time. With three of five members the second death would meet a list of lease voters
//! that is on its way to the first one's successor, and has no vote to spare (`cluster/fencing`).
//!
//! An arbiter is there to vote, so it comes before members with slots, and only the raft leader before it. Alone it does not
//! vote where anybody else can: nobody should need it who has slots.

use super::state::NodeState;
use crate::base::identity::NodeId;
use std::collections::{BTreeMap, BTreeSet};

/// A member, as far as voting goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VoterCandidate {
    pub id: NodeId,
    pub zone: String,
    /// It has no slots, and is there to vote.
    pub arbiter: bool,
    pub state: NodeState,
    /// It leaves, and gives its vote away now.
    pub leaving: bool,
    /// It can write what it agrees to.
    pub can_write: bool,
    /// It did not answer when it was to become a voter: others come first for a while.
    pub avoided: bool,
}

/// How many voters this many members should have.
pub fn voters_count(members: usize) -> usize {
    match members {
        0..3 => 1,
        3..5 => 3,
        _ => 5,
    }
}

/// Who should vote. `leader` stays where somebody has to go. Never empty while anybody votes now.
pub fn desired_voters(members: &[VoterCandidate], current: &BTreeSet<NodeId>, leader: NodeId) -> BTreeSet<NodeId> {
    let able = |member: &&VoterCandidate| member.state == NodeState::Active && !member.leaving && member.can_write;
    let staying = members.iter().filter(|member| !member.leaving).count();
    let count = voters_count(staying);
    let mut chosen = Chosen::default();
    let votes = |member: &VoterCandidate| current.contains(&member.id);
    let (avoided, ready): (Vec<_>, Vec<_>) =
        members.iter().filter(able).partition(|member| member.avoided && !votes(member));
    let rank = |member: &VoterCandidate| match member.arbiter {
        true if count == 1 => Rank::ArbiterAlone,
        _ if member.id == leader && votes(member) => Rank::Leader,
        true => Rank::Arbiter,
        false if votes(member) => Rank::Voting,
        false => Rank::New,
    };
    for wanted in [Rank::Leader, Rank::Arbiter, Rank::Voting, Rank::New, Rank::ArbiterAlone] {
        let mut ranked: Vec<_> = ready.iter().copied().filter(|member| rank(member) == wanted).collect();
        // Who votes and can stays.
        ranked.sort_by_key(|member| (!votes(member), member.id));
        chosen.fill(&ranked, count);
    }
    // Nobody to replace them with: they keep their vote. One who may come back before one who leaves.
    let mut rest: Vec<_> = members.iter().filter(|m| !able(m) && current.contains(&m.id)).collect();
    rest.sort_by_key(|member| (member.leaving, member.id));
    chosen.fill(&rest, count);
    if chosen.ids.is_empty() {
        chosen.fill(&avoided, count);
    }
    let mut ids = chosen.ids;
    // Two voters tolerate no more losses than one, and an even number no more than the odd one below it. But a voter
    // that is only waiting for its replacement is better kept than dropped.
    if ids.len() == 2 && !current.is_superset(&ids) {
        ids.retain(|id| current.contains(id));
    }
    if ids.is_empty() { current.clone() } else { ids }
}

/// In which order members that can vote are taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rank {
    Leader,
    Arbiter,
    Voting,
    New,
    /// An arbiter, where there is one voter.
    ArbiterAlone,
}

#[derive(Default)]
struct Chosen {
    ids: BTreeSet<NodeId>,
    zones: BTreeMap<String, usize>,
}

impl Chosen {
    /// Takes from these, in their order, until there are `count`: each time from a zone with the fewest voters.
    fn fill(&mut self, from: &[&VoterCandidate], count: usize) {
        let mut left = from.to_vec();
        while self.ids.len() < count && !left.is_empty() {
            let crowd = |member: &VoterCandidate| self.zones.get(&member.zone).copied().unwrap_or(0);
            let Some(best) = (0..left.len()).min_by_key(|&at| (crowd(left[at]), at)) else { return };
            let member = left.remove(best);
            self.ids.insert(member.id);
            *self.zones.entry(member.zone.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Members as `id state zone`: `a` active, `d` down, `l` leaving, `x` avoided, `u` unable to write;
    /// `r` behind that: an arbiter.
    fn check(members: &str, current: &[u128], expected: &[u128]) {
        let parsed: Vec<VoterCandidate> = members
            .split_whitespace()
            .map(|word| {
                let (id, rest) = word.split_at(1);
                let state = if rest.starts_with('d') { NodeState::Down } else { NodeState::Active };
                let (leaving, avoided) = (rest.starts_with('l'), rest.starts_with('x'));
                let can_write = !rest.starts_with('u');
                let id = NodeId(id.parse().expect("a digit"));
                let (arbiter, zone) = (rest[1..].starts_with('r'), rest[1..].trim_start_matches('r').into());
                VoterCandidate { id, zone, arbiter, state, leaving, can_write, avoided }
            })
            .collect();
        let ids = |ids: &[u128]| ids.iter().copied().map(NodeId).collect::<BTreeSet<_>>();
        let leader = NodeId(current.first().copied().unwrap_or(0));
        let desired = desired_voters(&parsed, &ids(current), leader);
        assert_eq!(desired, ids(expected), "{members} with {current:?}");
        let again = desired_voters(&parsed, &desired, leader);
        assert_eq!(again, desired, "{members}: what is desired stays");
    }

    #[test]
    fn the_group_grows_with_the_cluster() {
        check("1a", &[1], &[1]);
        check("1a 2a", &[1], &[1]);
        check("1a 2a 3a", &[1], &[1, 2, 3]);
        check("1a 2a 3a 4a", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2a 3a 4a 5a", &[1, 2, 3], &[1, 2, 3, 4, 5]);
        check("1a 2a 3a 4a 5a 6a 7a", &[1, 2, 3], &[1, 2, 3, 4, 5]);
    }

    #[test]
    fn it_shrinks_when_members_leave_not_when_they_fail() {
        check("1a 2a 3d", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2d 3d", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2a 3a 4d 5d", &[1, 2, 3, 4, 5], &[1, 2, 3, 4, 5]);
        check("1a 2a", &[2, 1, 3], &[2]);
        check("1l 2a", &[1], &[2]);
        check("1a 2a 3l", &[3, 1, 2], &[1]);
        check("1l", &[1], &[1]);
    }

    #[test]
    fn a_voter_that_fails_is_replaced_where_there_is_somebody() {
        check("1a 2a 3d 4a", &[1, 2, 3], &[1, 2, 4]);
        check("1a 2a 3l 4a 5l", &[1, 2, 3], &[1, 2, 4]);
        check("1a 2a 3d 4a 5a 6a", &[1, 2, 3, 4, 5], &[1, 2, 4, 5, 6]);
        check("1a 2a 3d 4x", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2x 3x", &[1], &[1]);
        check("1a 2a 3x", &[1], &[1]);
    }

    #[test]
    fn a_voter_that_cannot_write_is_replaced_and_none_is_made_of_such_a_node() {
        check("1a 2a 3u 4a", &[1, 2, 3], &[1, 2, 4]);
        check("1a 2a 3u 4u", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2a 3u", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2u 3u 4a 5a", &[1, 2, 3], &[1, 2, 3, 4, 5]);
        check("1a 2u 3a 4a 5a 6a", &[1, 2, 3], &[1, 3, 4, 5, 6]);
        check("1a 2u 3u", &[1], &[1]);
        check("1a 2u 3d 4a", &[1, 2, 3], &[1, 2, 4]);
    }

    #[test]
    fn an_arbiter_votes_before_others_and_not_alone() {
        check("1a 2a 3ar", &[1], &[1, 2, 3]);
        check("1a 2d 3ar", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2a 3a 4ar", &[1, 2, 3], &[1, 2, 4]);
        check("1a 2a 3a 4ar", &[3, 1, 2], &[1, 3, 4]);
        check("1a 2a 3a 4dr", &[1, 2, 4], &[1, 2, 3]);
        check("1a 2a 3a 4xr", &[1, 2, 3], &[1, 2, 3]);
        check("1a 2a 3a 4ar 5lr", &[1, 2, 5], &[1, 2, 4]);
        check("1a 2ar", &[1], &[1]);
        check("1a 2l 3ar", &[3, 1, 2], &[1]);
        check("1l 2ar", &[1], &[2]);
        check("1ar 2ar", &[1], &[1]);
        check("1d 2ar", &[1], &[2]);
    }

    #[test]
    fn zones_are_spread() {
        check("1aA 2aA 3aB 4aC", &[1], &[1, 3, 4]);
        check("1aA 2aA 3aA 4aB", &[1, 2, 3], &[1, 2, 3]);
    }
}
