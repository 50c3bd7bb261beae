//! How far the copies of this node's slots have its log.
//!
//! Slots whose copies are the same are a *group*: they are counted together, so that nothing is kept per slot and waiter.
//! Who sends to copies says what they have; the groups change with the topology. A copy is known by its number.

use super::LogOffset;
use crate::base::identity::NodeId;
use crate::base::slot_ranges::SlotRanges;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Slots with the same copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedGroup {
    /// The numbers of the copies that count: they had everything once, and are up.
    pub copies: Vec<u64>,
    pub slots: SlotRanges,
}

/// What one copy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyState {
    pub node: NodeId,
    /// It has the log of its slots up to here; 0: it is being sent something older.
    pub has: LogOffset,
    /// When it asked for more last.
    pub heard: Instant,
}

/// See the module.
#[derive(Debug)]
pub struct Copied {
    table: Mutex<Table>,
    /// Counts what became known.
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Table {
    groups: Vec<CopiedGroup>,
    copies: BTreeMap<u64, CopyState>,
}

impl Default for Copied {
    fn default() -> Copied {
        Copied { table: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Copied {
    /// The slots of which this node is the primary, by their copies.
    pub fn set_groups(&self, groups: Vec<CopiedGroup>) {
        let mut table = self.table.lock();
        if table.groups != groups {
            table.groups = groups;
            drop(table);
            self.tell();
        }
    }

    /// A copy has asked for more, and has the log up to here; less than before where it is sent something anew.
    pub fn heard(&self, number: u64, state: CopyState) {
        let before = self.table.lock().copies.insert(number, state);
        if before.is_none_or(|before| before.has < state.has) {
            self.tell();
        }
    }

    /// A copy is sent nothing any more.
    pub fn ended(&self, number: u64) {
        self.table.lock().copies.remove(&number);
    }

    /// What is known of all copies that a node has; the one that has the least, and was heard first. `None`: it is sent nothing.
    pub fn state_of(&self, node: NodeId) -> Option<CopyState> {
        let table = self.table.lock();
        let of_it = table.copies.values().filter(|state| state.node == node).copied();
        of_it.reduce(|one, other| CopyState { node, has: one.has.min(other.has), heard: one.heard.min(other.heard) })
    }

    /// How many copies have the log up to here, of the slots that have the fewest.
    pub fn count(&self, to: LogOffset) -> usize {
        self.table.lock().least(|state| state.has >= to)
    }

    /// How many copies have been heard within this time, of the slots that have the fewest.
    pub fn count_heard(&self, within: Duration, now: Instant) -> usize {
        self.table.lock().least(|state| now.saturating_duration_since(state.heard) <= within)
    }

    /// Over when so many copies have the log up to here.
    pub async fn until(&self, copies: usize, to: LogOffset) {
        let mut changed = self.changed.subscribe();
        // The sender is this one's own.
        let _ = changed.wait_for(|_| self.count(to) >= copies).await;
    }

    fn tell(&self) {
        self.changed.send_modify(|count| *count += 1);
    }
}

impl Table {
    fn least(&self, is_counted: impl Fn(&CopyState) -> bool) -> usize {
        let count = |group: &CopiedGroup| {
            group.copies.iter().filter(|number| self.copies.get(number).is_some_and(&is_counted)).count()
        };
        self.groups.iter().map(count).min().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::slot::Slot;

    fn heard(node: u128, has: u64, heard: Instant) -> CopyState {
        CopyState { node: NodeId(node), has: LogOffset(has), heard }
    }

    #[test]
    fn the_slots_with_the_fewest_copies_decide() {
        let copied = Copied::default();
        let now = Instant::now();
        let at = LogOffset;
        assert_eq!(copied.count(at(0)), 0, "there are no slots");
        let slots = |from: usize| Slot::all().skip(from).take(10).collect::<SlotRanges>();
        let groups = vec![
            CopiedGroup { copies: vec![1, 2], slots: slots(0) },
            CopiedGroup { copies: vec![1, 3], slots: slots(10) },
        ];
        copied.set_groups(groups.clone());
        copied.heard(1, heard(1, 10, now));
        assert_eq!((copied.count(at(10)), copied.count(at(11))), (1, 0));
        copied.heard(2, heard(2, 20, now));
        assert_eq!(copied.count(at(10)), 1, "the second group has one");
        copied.heard(3, heard(3, 10, now));
        assert_eq!((copied.count(at(10)), copied.count(at(11))), (2, 0));
        copied.heard(1, heard(1, 0, now + Duration::from_secs(1)));
        assert_eq!(copied.count(at(10)), 1, "it is sent something anew");
        assert_eq!(copied.count_heard(Duration::from_millis(500), now + Duration::from_secs(1)), 1);
        copied.ended(1);
        assert_eq!((copied.state_of(NodeId(1)), copied.count(at(10))), (None, 1));
        copied.set_groups(groups[..1].to_vec());
        assert_eq!(copied.count(at(20)), 1);
    }

    #[test]
    fn who_waits_is_told() {
        let copied = Copied::default();
        copied.set_groups(vec![CopiedGroup { copies: vec![1], slots: SlotRanges::all() }]);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let is_told = |to| {
            let waits = std::pin::pin!(copied.until(1, LogOffset(to)));
            waits.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        assert!(!is_told(5));
        copied.heard(1, heard(1, 5, Instant::now()));
        assert!(is_told(5) && !is_told(6));
        runtime.block_on(copied.until(1, LogOffset(5)));
    }
}
