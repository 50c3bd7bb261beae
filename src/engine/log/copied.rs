//! How far the copies of this node's slots have its log.
//!
//! Slots whose copies are the same are a *group*: they are counted together, so that nothing is kept per slot and waiter.
//! Who sends to copies says what they have; the groups change with the topology. A copy is known by its number.

use super::LogOffset;
use super::gate::{Gate, Needed};
use super::{Engine, QUORATE};
use crate::base::acknowledge::Acknowledge;
use crate::base::identity::NodeId;
use crate::base::slot::{QUORUM, SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// How long a reply waits for a quorum: then it says that nobody knows.
pub(super) const QUORUM_PATIENCE: Duration = Duration::from_secs(5);

/// Groups that are told apart; with more of them the last ones are one.
const GROUPS_MAX: usize = 63;
/// What slots are in of which this node is not known to be the primary.
const NO_GROUP: u8 = 63;

/// Slots with the same copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopiedGroup {
    /// The numbers of the copies that count: they had everything once, and are up.
    pub copies: Vec<u64>,
    pub slots: SlotRanges,
}

/// A set of groups, as they were numbered in one generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    /// 0: of several.
    generation: u32,
    mask: u64,
}

impl Groups {
    pub const NONE: Groups = Groups { generation: 0, mask: 0 };
    /// All there are, whatever they are numbered.
    pub const ALL: Groups = Groups { generation: 0, mask: u64::MAX };

    /// Those of both.
    #[inline]
    pub fn and(self, other: Groups) -> Groups {
        match (self.mask, other.mask) {
            (0, _) => other,
            (_, 0) => self,
            _ if self.generation == other.generation => Groups { mask: self.mask | other.mask, ..self },
            _ => Groups::ALL,
        }
    }
}

/// What one copy has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyState {
    pub node: NodeId,
    /// It has the log of its slots up to here; 0: it is being sent something older.
    pub has: LogOffset,
    /// It has said that this much is on its disk.
    pub kept: LogOffset,
    /// When it asked for more last.
    pub heard: Instant,
}

impl CopyState {
    /// How far it has what replies need of it.
    fn in_need(&self, needed: Needed) -> LogOffset {
        if needed.on_disk { self.kept } else { self.has }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Copied {
    table: Mutex<Table>,
    /// By slot.
    group_of: Box<[AtomicU8]>,
    /// Raised when groups are numbered anew; the first is 1.
    generation: AtomicU32,
    /// The groups with enough copies for a quorum.
    able: AtomicU64,
    /// What replies of all connections wait for, as a number.
    asked_of_all: AtomicU8,
    /// Connections whose replies wait for a quorum.
    asking: AtomicUsize,
    /// Connections that wait for the disks of copies.
    asking_disks: AtomicUsize,
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
        Copied {
            table: Mutex::default(),
            group_of: (0..SLOT_COUNT).map(|_| AtomicU8::new(NO_GROUP)).collect(),
            generation: AtomicU32::new(1),
            able: AtomicU64::new(u64::MAX),
            asked_of_all: AtomicU8::new(0),
            asking: AtomicUsize::new(0),
            asking_disks: AtomicUsize::new(0),
            changed: watch::Sender::new(0),
        }
    }
}

impl Copied {
    /// The slots of which this node is the primary, by their copies.
    pub(super) fn set_groups(&self, groups: Vec<CopiedGroup>) -> bool {
        let mut table = self.table.lock();
        if table.groups == groups {
            return false;
        }
        // Who has read the former generation finds that it is over, whatever it has read then.
        self.group_of.iter().for_each(|group| group.store(NO_GROUP, Ordering::SeqCst));
        let mut able = 1 << NO_GROUP;
        for (index, group) in groups.iter().enumerate() {
            let number = index.min(GROUPS_MAX - 1);
            // Where several are one, the last of them says so for all: what it says too early the gate makes good.
            able |= u64::from(group.copies.len() + 1 >= QUORUM) << number;
            for slot in group.slots.slots() {
                self.group_of[slot.index()].store(number as u8, Ordering::SeqCst);
            }
        }
        table.groups = groups;
        self.able.store(able, Ordering::SeqCst);
        self.generation.fetch_add(1, Ordering::SeqCst);
        drop(table);
        self.tell();
        true
    }

    /// A copy has asked for more, and has the log up to here; less than before where it is sent something anew. Whether it has
    /// more than was known.
    pub(super) fn heard(&self, number: u64, state: CopyState) -> bool {
        let before = self.table.lock().copies.insert(number, state);
        let has_more = before.is_none_or(|before| before.has < state.has || before.kept < state.kept);
        if has_more {
            self.tell();
        }
        has_more
    }

    /// A copy is sent nothing any more.
    pub fn ended(&self, number: u64) {
        self.table.lock().copies.remove(&number);
    }

    /// What is known of all copies that a node has; the one that has the least, and was heard first. `None`: it is sent nothing.
    pub fn state_of(&self, node: NodeId) -> Option<CopyState> {
        let table = self.table.lock();
        let of_it = table.copies.values().filter(|state| state.node == node).copied();
        of_it.reduce(|one, other| CopyState {
            node,
            has: one.has.min(other.has),
            kept: one.kept.min(other.kept),
            heard: one.heard.min(other.heard),
        })
    }

    /// How many copies have the log up to here, of the slots that have the fewest.
    pub fn count(&self, to: LogOffset) -> usize {
        self.table.lock().least(|state| state.has >= to)
    }

    /// How many of them have it on their disks.
    pub fn count_kept(&self, to: LogOffset) -> usize {
        self.table.lock().least(|state| state.kept >= to)
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

    /// Over when so many copies have it on their disks. Somebody has to ask for that meanwhile ([`Engine::ask_for`]).
    pub async fn until_kept(&self, copies: usize, to: LogOffset) {
        let mut changed = self.changed.subscribe();
        let _ = changed.wait_for(|_| self.count_kept(to) >= copies).await;
    }

    /// Whether a quorum of the members of each of these slots has the log up to here, or all where there are fewer.
    pub fn have(&self, slots: &SlotRanges, to: LogOffset) -> bool {
        let table = self.table.lock();
        let has = |number: &&u64| table.copies.get(number).is_some_and(|state| state.has >= to);
        let has_all =
            |group: &CopiedGroup| group.copies.iter().filter(has).count() >= (QUORUM - 1).min(group.copies.len());
        let concerned = |group: &&CopiedGroup| group.slots.slots().any(|slot| slots.contains(slot));
        table.groups.iter().filter(concerned).all(has_all)
    }

    /// The group of a slot, to be asked for under its lock.
    #[inline]
    pub fn group(&self, slot: Slot) -> Groups {
        // In this order: what is read behind it is of this generation, or the generation is over.
        let generation = self.generation.load(Ordering::SeqCst);
        Groups { generation, mask: 1 << self.group_of[slot.index()].load(Ordering::SeqCst) }
    }

    /// Whether a quorum of the members of a slot is there, as far as is agreed.
    pub fn is_able(&self, slot: Slot) -> bool {
        let group = self.group_of[slot.index()].load(Ordering::SeqCst);
        self.able.load(Ordering::SeqCst) & (1 << group) != 0
    }

    /// What replies of all connections wait for.
    #[inline]
    pub fn asked_of_all(&self) -> Acknowledge {
        match self.asked_of_all.load(Ordering::SeqCst) {
            0 => Acknowledge::Async,
            1 => Acknowledge::Quorum,
            _ => Acknowledge::QuorumFsync,
        }
    }

    /// Whether any wait for a quorum.
    fn is_asked(&self) -> bool {
        self.asked_of_all() >= Acknowledge::Quorum || self.asking.load(Ordering::SeqCst) > 0
    }

    /// Whether any wait for the disks of copies: then a copy asks for more when what it has is on its disk.
    pub fn are_disks_asked(&self) -> bool {
        self.asked_of_all() == Acknowledge::QuorumFsync || self.asking_disks.load(Ordering::SeqCst) > 0
    }

    fn count_asking(&self, asks: Acknowledge, one_more: bool) {
        let change = |count: &AtomicUsize| match one_more {
            true => count.fetch_add(1, Ordering::SeqCst),
            false => count.fetch_sub(1, Ordering::SeqCst),
        };
        if asks >= Acknowledge::Quorum {
            change(&self.asking);
        }
        if asks == Acknowledge::QuorumFsync {
            change(&self.asking_disks);
        }
    }

    /// Whether a quorum has what was shown.
    pub(super) fn look(&self, needed: Needed) -> Gate {
        let Some(until) = needed.copies_until else { return Gate::Open };
        let Groups { generation, mask } = needed.shown.groups;
        if mask == 0 {
            return Gate::Open;
        }
        let table = self.table.lock();
        let is_current = generation == self.generation.load(Ordering::SeqCst);
        let is_meant = |index: usize| !is_current || mask & (1 << index.min(GROUPS_MAX - 1)) != 0;
        // It will be numbered in a moment.
        let mut waits = is_current && mask & (1 << NO_GROUP) != 0;
        for (_, group) in table.groups.iter().enumerate().filter(|(index, _)| is_meant(*index)) {
            if group.copies.len() + 1 < QUORUM {
                return Gate::Failed("too few copies are left to have it".into(), LogOffset(0));
            }
            let have = group.copies.iter().filter(|number| {
                table.copies.get(number).is_some_and(|state| state.in_need(needed) >= needed.shown.gate)
            });
            waits |= have.count() + 1 < QUORUM;
        }
        drop(table);
        match waits {
            false => Gate::Open,
            true if Instant::now() < until => Gate::Closed,
            true if needed.on_disk => {
                Gate::Failed("no copy has said in time that it has it on its disk".into(), LogOffset(0))
            }
            true => Gate::Failed("no copy has said in time that it has it".into(), LogOffset(0)),
        }
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

impl Engine {
    /// Makes the replies of all connections wait until so many have what they show.
    pub fn acknowledge_all(&self, asked: Acknowledge) {
        self.log.copied.asked_of_all.store(asked as u8, Ordering::SeqCst);
        self.follow_asking();
    }

    /// A connection asks for that, or asks no more.
    pub fn ask_for(&self, asks: Acknowledge, one_more: bool) {
        self.log.copied.count_asking(asks, one_more);
        self.follow_asking();
    }

    fn follow_asking(&self) {
        // Who asks last decides: it has counted before.
        if !self.log.copied.is_asked() {
            self.log.flags.fetch_and(!QUORATE, Ordering::SeqCst);
            self.log.gates.tell();
        }
        if self.log.copied.is_asked() && self.log.flags.fetch_or(QUORATE, Ordering::SeqCst) & QUORATE == 0 {
            // Whoever has not seen the flag holds the lock of a shard.
            self.shards.iter().for_each(|shard| drop(shard.lock()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::log::gate::Shown;

    fn heard(node: u128, has: u64, heard: Instant) -> CopyState {
        CopyState { node: NodeId(node), has: LogOffset(has), kept: LogOffset(0), heard }
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
    fn a_quorum_has_what_one_copy_of_each_group_has() {
        let copied = Copied::default();
        let now = Instant::now();
        let slots = |from: usize| Slot::all().skip(from).take(10).collect::<SlotRanges>();
        let slot = |number: usize| Slot::all().nth(number).expect("a slot");
        let shown = |groups, gate| Shown { gate: LogOffset(gate), groups, wrote: true };
        let needed = |groups, gate, until| Needed { shown: shown(groups, gate), copies_until: until, on_disk: false };
        let look = |groups, gate, until| copied.look(needed(groups, gate, until));
        let soon = Some(now + Duration::from_secs(3600));
        let early = copied.group(slot(0));
        assert_eq!(look(Groups::NONE, 5, soon), Gate::Open, "it tells of no slot");
        assert_eq!(look(early, 5, None), Gate::Open, "nobody asks");
        assert_eq!(look(early, 5, soon), Gate::Closed, "nothing is known of the slot yet");
        copied.set_groups(vec![
            CopiedGroup { copies: vec![1, 2], slots: slots(0) },
            CopiedGroup { copies: vec![3], slots: slots(10) },
            CopiedGroup { copies: vec![], slots: slots(20) },
        ]);
        let of = |number| copied.group(slot(number));
        let fails = |gate| matches!(gate, Gate::Failed(..));
        assert!(copied.is_able(slot(5)) && copied.is_able(slot(15)) && !copied.is_able(slot(25)));
        copied.heard(2, heard(2, 10, now));
        assert_eq!((look(of(0), 10, soon), look(of(0), 11, soon)), (Gate::Open, Gate::Closed), "one is enough");
        let kept = |gate| copied.look(Needed { on_disk: true, ..needed(of(0), gate, soon) });
        assert_eq!(kept(10), Gate::Closed, "nobody has said that it is on its disk");
        copied.heard(2, CopyState { kept: LogOffset(9), ..heard(2, 10, now) });
        assert_eq!((kept(9), kept(10), look(of(0), 10, soon)), (Gate::Open, Gate::Closed, Gate::Open));
        assert_eq!(look(of(10), 10, soon), Gate::Closed);
        assert_eq!(look(of(0).and(of(10)), 10, soon), Gate::Closed);
        assert!(fails(look(of(10), 10, Some(now))), "it has taken too long");
        assert!(copied.have(&slots(0), LogOffset(10)) && !copied.have(&slots(0), LogOffset(11)));
        assert!(!copied.have(&slots(10), LogOffset(10)) && copied.have(&slots(20), LogOffset(10)), "all of none");
        copied.heard(3, heard(3, 10, now));
        assert_eq!(look(of(0).and(of(10)), 10, soon), Gate::Open);
        assert!(fails(look(of(20), 1, soon)), "there is no copy");
        let before = of(0);
        copied.set_groups(vec![CopiedGroup { copies: vec![1, 2], slots: slots(0) }]);
        assert_eq!((look(before, 10, soon), look(before, 11, soon)), (Gate::Open, Gate::Closed));
        copied.set_groups(vec![
            CopiedGroup { copies: vec![1, 2], slots: slots(0) },
            CopiedGroup { copies: vec![4], slots: slots(10) },
        ]);
        assert_eq!(look(before, 10, soon), Gate::Closed, "nobody knows which groups were meant: it waits for all");
        assert_eq!(look(of(0), 10, soon), Gate::Open);
        assert_eq!(of(0).and(before), Groups::ALL);
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
