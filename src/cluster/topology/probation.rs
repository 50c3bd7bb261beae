//! Members that are fenced again and again: such a one has copies and leads no slots until it has been there for a while, so that
//! its next end makes nobody wait.

use super::change::{Refused, TopologyChange};
use super::state::{EventKind, Topology};
use crate::base::identity::NodeId;
use crate::base::slot_ranges::SlotRanges;
use serde::{Deserialize, Serialize};

/// The setting of the cluster that says, in seconds, how close to each other the fences are that make a probation, and how
/// long it lasts after the latest; 0: there is none.
pub const PROBATION: &str = "probation";
/// What it is where nobody has agreed on another.
pub const PROBATION_SECONDS: u64 = 300;
/// So many fences within that time.
const FENCES: usize = 3;

/// What is remembered of a member's fences.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Probation {
    pub is_on: bool,
    /// When the latest fences were, by the clocks of those who led, ms since 1970; ascending but for clocks that differ.
    fenced_ms: Vec<u64>,
}

impl Topology {
    /// Seconds; 0: no member is ever on probation.
    pub fn probation_seconds(&self) -> u64 {
        self.config.get(PROBATION).and_then(|value| value.parse().ok()).unwrap_or(PROBATION_SECONDS)
    }

    /// What ends probations, at this time, ms since 1970.
    pub fn probations_over(&self, now_ms: u64) -> Vec<TopologyChange> {
        let limit_ms = self.probation_seconds().saturating_mul(1000);
        let on = self.nodes.values().filter(|node| node.probation.is_on);
        let latest = on.filter_map(|node| Some((node.id, *node.probation.fenced_ms.last()?)));
        let over = latest.filter(|(_, fenced_ms)| now_ms.saturating_sub(*fenced_ms) >= limit_ms);
        over.map(|(node, fenced_ms)| TopologyChange::EndProbation { node, fenced_ms }).collect()
    }

    /// A member has been fenced.
    pub(super) fn begin_probation(&mut self, id: NodeId, at_ms: u64) {
        let limit_ms = self.probation_seconds().saturating_mul(1000);
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let Probation { is_on, fenced_ms } = &mut node.probation;
        if fenced_ms.len() == FENCES {
            fenced_ms.remove(0);
        }
        fenced_ms.push(at_ms);
        let is_flapping = fenced_ms.len() == FENCES && limit_ms > 0 && at_ms.saturating_sub(fenced_ms[0]) <= limit_ms;
        if is_flapping && !std::mem::replace(is_on, true) {
            self.record(EventKind::ProbationBegun, Some(id), SlotRanges::default());
        }
    }

    pub(super) fn end_probation(&mut self, id: NodeId, fenced_ms: u64) -> Result<(), Refused> {
        let node = self.nodes.get_mut(&id).ok_or(Refused::UnknownNode)?;
        if !node.probation.is_on {
            return Err(Refused::NoChange);
        }
        if node.probation.fenced_ms.last() != Some(&fenced_ms) {
            return Err(Refused::DecidedBefore);
        }
        node.probation = Probation::default();
        self.record(EventKind::ProbationOver, Some(id), SlotRanges::default());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::identity::ClusterId;
    use crate::cluster::topology::{Applied, Node, sample};

    const FLAPPING: NodeId = NodeId(2);

    struct Log(Topology);

    impl Log {
        fn new(seconds: &str) -> Log {
            let mut log = Log(Topology::default());
            log.agree(&TopologyChange::InitCluster { cluster: ClusterId(1), hash_key: 1 });
            log.agree(&TopologyChange::SetConfig { name: PROBATION.into(), value: seconds.into() });
            log.start();
            log
        }

        fn agree(&mut self, change: &TopologyChange) -> Applied {
            self.0.apply(self.0.version + 1, change)
        }

        fn start(&mut self) {
            let start_ms = self.0.nodes.get(&FLAPPING).map_or(1, |node| node.start_ms + 1);
            let node = Node { start_ms, ..sample::node(FLAPPING) };
            self.agree(&TopologyChange::RegisterNode { node });
        }

        /// It is fenced at these seconds, and starts again each time; whether it is on probation then.
        fn fenced(&mut self, seconds: &[u64]) -> bool {
            for at in seconds {
                let fence = self.0.fence_of(FLAPPING, at * 1000).expect("a member");
                assert_eq!(self.agree(&fence), Applied::Done);
                self.start();
            }
            let node = &self.0.nodes[&FLAPPING];
            assert_ne!(node.leads_slots(), node.probation.is_on);
            node.probation.is_on
        }
    }

    #[test]
    fn three_fences_close_to_each_other_make_a_probation() {
        let check = |seconds: &str, fences: &[u64], expected: bool| {
            assert_eq!(Log::new(seconds).fenced(fences), expected, "{seconds}: {fences:?}");
        };
        check("", &[0, 100], false);
        check("", &[0, 100, 300], true);
        check("", &[0, 100, 301], false);
        check("", &[0, 100, 301, 400], true);
        check("", &[0, 100, 300, 1000], true);
        check("10", &[0, 5, 10], true);
        check("10", &[0, 5, 11], false);
        check("0", &[0, 0, 0, 0], false);
    }

    #[test]
    fn it_ends_when_the_member_has_been_there_for_long() {
        let mut log = Log::new("");
        assert!(log.fenced(&[0, 1, 2]));
        assert_eq!(log.0.probations_over(301_999), []);
        let over = log.0.probations_over(302_000);
        assert_eq!(over, [TopologyChange::EndProbation { node: FLAPPING, fenced_ms: 2000 }]);
        // It is fenced once more before that is agreed.
        assert!(log.fenced(&[3]));
        assert_eq!(log.agree(&over[0]), Applied::Refused(Refused::DecidedBefore));
        let over = log.0.probations_over(303_000);
        assert_eq!(log.agree(&over[0]), Applied::Done);
        assert!(log.0.nodes[&FLAPPING].leads_slots());
        assert_eq!(log.agree(&over[0]), Applied::Refused(Refused::NoChange));
        assert!(!log.fenced(&[400, 401]), "what was before counts no more");
    }
}
