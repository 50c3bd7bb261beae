//! CLIENT PAUSE: clients wait until a moment, all of them or those who write. What has expired stays meanwhile, and is not
//! there for who reads.

use super::Services;
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

/// Makes clients of this node wait until this moment. A pause under way is never shortened, nor made milder (CLIENT PAUSE).
pub fn begin(services: &Services, who: Paused, until_ms: u64, now_ms: u64) {
    services.pause.begin(who, until_ms, now_ms);
    services.engine.keep_expired_until(services.pause.until_ms.load(Ordering::Acquire));
}

/// Lets them go on (CLIENT UNPAUSE).
pub fn end(services: &Services) {
    services.pause.end();
    services.engine.keep_expired_until(0);
}

impl Pause {
    fn begin(&self, who: Paused, until_ms: u64, now_ms: u64) {
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

    fn end(&self) {
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
