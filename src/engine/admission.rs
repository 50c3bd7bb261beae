//! Whether a command may be executed on its slots, looked at under their locks: who serves them, and whether writers wait.

use super::keyspace::Keyspace;
use super::shard::SlotState;
use crate::base::slot::Slot;

/// Whether a command may be executed on some slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    Executes,
    /// It writes, and readers of the log are behind, or a snapshot has something large to read first: it waits for room.
    Full,
    /// A slot is being handed over.
    Frozen,
    /// A slot is somebody else's.
    Elsewhere,
}

impl Keyspace<'_> {
    /// Whether commands may be executed on these slots: the least favourable of their states.
    pub fn slots_state(&mut self, slots: &[Slot]) -> SlotState {
        let placement = self.engine.placement();
        let mut state = SlotState::Serving;
        for slot in slots {
            match self.locks.shard(placement.shard(*slot)).meta(placement.slot_in_shard(*slot)).state {
                SlotState::Serving => {}
                SlotState::Frozen if state == SlotState::Serving => state = SlotState::Frozen,
                SlotState::Frozen => {}
                SlotState::Elsewhere => return SlotState::Elsewhere,
            }
        }
        state
    }

    /// Whether a command on these slots may be executed now.
    #[inline(always)]
    pub fn admits(&mut self, slots: &[Slot], writes: bool) -> Admission {
        let [slot] = slots else { return self.admits_all(slots, writes) };
        let placement = self.engine.placement();
        let is_full = writes && self.engine.log.may_be_full() && self.is_congested(&[*slot]);
        let shard = self.locks.shard(placement.shard(*slot));
        let slot_in_shard = placement.slot_in_shard(*slot);
        match shard.state(slot_in_shard) {
            SlotState::Serving if is_full || writes && shard.is_throttled(slot_in_shard) => Admission::Full,
            SlotState::Serving => Admission::Executes,
            SlotState::Frozen => Admission::Frozen,
            SlotState::Elsewhere => Admission::Elsewhere,
        }
    }

    /// Whether who may read copies may read all of these slots here.
    pub fn has_copies(&mut self, slots: &[Slot]) -> bool {
        let placement = self.engine.placement();
        slots.iter().all(|slot| {
            let meta = self.locks.shard(placement.shard(*slot)).meta(placement.slot_in_shard(*slot));
            meta.has_copy || meta.state == SlotState::Serving
        })
    }

    fn admits_all(&mut self, slots: &[Slot], writes: bool) -> Admission {
        match self.slots_state(slots) {
            SlotState::Serving if writes && self.is_congested(slots) => Admission::Full,
            SlotState::Serving => Admission::Executes,
            SlotState::Frozen => Admission::Frozen,
            SlotState::Elsewhere => Admission::Elsewhere,
        }
    }

    /// Whether writers of these slots have to wait: so much of them waits to be sent elsewhere, the log is full, or a
    /// snapshot has not read what is large in them, which it does next then.
    #[cold]
    pub(crate) fn is_congested(&mut self, slots: &[Slot]) -> bool {
        let (engine, placement) = (self.engine, self.engine.placement());
        let mut is_congested = engine.log.is_full();
        for slot in slots {
            let (shard, slot_in_shard) = (self.locks.shard(placement.shard(*slot)), placement.slot_in_shard(*slot));
            is_congested |= shard.is_throttled(slot_in_shard);
            if engine.access.load().has_snapshot() && shard.has_large(slot_in_shard) {
                is_congested |= engine.snapshots.wants(*slot);
            }
        }
        is_congested
    }

    /// Whether a slot of the locked shards is being handed over: what may change any key has to wait.
    pub fn has_frozen(&mut self) -> bool {
        self.locks.indexes().any(|index| self.locks.shard(index).has_frozen())
    }
}
