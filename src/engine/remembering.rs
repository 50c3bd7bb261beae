//! What an entry remembers of its last access, said from outside (RESTORE's IDLETIME and FREQ, files).

use super::Engine;
use super::keyspace::Keyspace;
use super::loading::Access;

/// Seconds of the access clock.
const CLOCK: u32 = 0x00ff_ffff;
const COUNTER: u32 = 0xff;

impl Keyspace<'_> {
    /// Says that the key was accessed last so many seconds ago. Nothing where accesses are counted instead, or where there
    /// is no such key.
    pub fn set_idle_seconds(&mut self, key: &[u8], seconds: u64) {
        self.set_access(key, Access::IdleSeconds(seconds));
    }

    /// Says how often the key is accessed, as Redis's LFU counts. Nothing where that is not counted, or where there is no
    /// such key.
    pub fn set_frequency(&mut self, key: &[u8], counter: u8) {
        self.set_access(key, Access::Frequency(counter));
    }

    fn set_access(&mut self, key: &[u8], access: Access) {
        let Some(bits) = access_bits(self.engine, access) else { return };
        let place = self.place(key);
        let find = |table: &mut super::shard::SlotTable| {
            let at = table.entries.find_index(place.hash, |entry| entry.key() == key)?;
            table.entries.get_mut(at).map(|entry| entry.set_access(bits))
        };
        let _ = self.table(place).and_then(find);
    }
}

/// The access bits that say this; `None` where entries do not remember it.
pub(super) fn access_bits(engine: &Engine, access: Access) -> Option<u32> {
    let moment = engine.access.load();
    let clock = moment.clock();
    match access {
        // The clock wraps: who is idle for longer than it has run counts as idle for half of its turn, as in Redis.
        Access::IdleSeconds(seconds) => (!moment.counts()).then(|| {
            let idle = u32::try_from(seconds).ok().filter(|idle| *idle <= clock).unwrap_or(CLOCK / 2);
            clock.wrapping_sub(idle) & CLOCK
        }),
        Access::Frequency(counter) => moment.counts().then_some(clock & !COUNTER | u32::from(counter)),
    }
}
