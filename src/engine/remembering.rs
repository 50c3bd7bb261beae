//! What an entry remembers of its last access, said from outside (RESTORE's IDLETIME and FREQ).

use super::keyspace::Keyspace;

/// Seconds of the access clock.
const CLOCK: u32 = 0x00ff_ffff;
const COUNTER: u32 = 0xff;

impl Keyspace<'_> {
    /// Says that the key was accessed last so many seconds ago. Nothing where accesses are counted instead, or where there
    /// is no such key.
    pub fn set_idle_seconds(&mut self, key: &[u8], seconds: u64) {
        let moment = self.engine.access.load();
        if !moment.counts() {
            let clock = moment.clock();
            // The clock wraps: who is idle for longer than it has run counts as idle for half of its turn, as in Redis.
            let idle = u32::try_from(seconds).ok().filter(|idle| *idle <= clock).unwrap_or(CLOCK / 2);
            self.set_access_bits(key, clock.wrapping_sub(idle) & CLOCK);
        }
    }

    /// Says how often the key is accessed, as Redis's LFU counts. Nothing where that is not counted, or where there is no
    /// such key.
    pub fn set_frequency(&mut self, key: &[u8], counter: u8) {
        let moment = self.engine.access.load();
        if moment.counts() {
            self.set_access_bits(key, moment.clock() & !COUNTER | u32::from(counter));
        }
    }

    fn set_access_bits(&mut self, key: &[u8], bits: u32) {
        let place = self.place(key);
        let find = |table: &mut super::shard::SlotTable| {
            let at = table.entries.find_index(place.hash, |entry| entry.key() == key)?;
            table.entries.get_mut(at).map(|entry| entry.set_access(bits))
        };
        let _ = self.table(place).and_then(find);
    }
}
