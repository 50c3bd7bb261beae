//! CLIENT PAUSE: clients wait until a moment, all of them or those who write.

use parking_lot::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Paused {
    Writes,
    All,
}

/// The pause of a node.
#[derive(Debug, Default)]
pub struct Pause {
    /// Unix milliseconds; 0: nobody waits. Read on every command.
    until_ms: AtomicU64,
    who: Mutex<Option<Paused>>,
}

impl Pause {
    /// Makes clients wait until this moment. A pause under way is never shortened, nor made milder (CLIENT PAUSE).
    pub fn begin(&self, who: Paused, until_ms: u64, now_ms: u64) {
        let mut current = self.who.lock();
        let running = self.until_ms.load(Ordering::Relaxed);
        if running > now_ms {
            *current = Some(current.map_or(who, |current| current.max(who)));
            self.until_ms.store(running.max(until_ms), Ordering::Release);
        } else {
            *current = Some(who);
            self.until_ms.store(until_ms, Ordering::Release);
        }
    }

    /// Lets them go on (CLIENT UNPAUSE); the caller wakes the connections.
    pub fn end(&self) {
        *self.who.lock() = None;
        self.until_ms.store(0, Ordering::Release);
    }

    /// Who waits now, and until when.
    #[inline]
    pub fn current(&self, now_ms: u64) -> Option<(Paused, u64)> {
        let until = self.until_ms.load(Ordering::Acquire);
        if until <= now_ms { None } else { self.who.lock().map(|who| (who, until)) }
    }
}
