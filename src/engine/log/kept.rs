//! Who keeps the log on a disk, how well, and who waits for that.

use super::{GATED, Log, LogOffset};
use crate::engine::Engine;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is known of the keeping of a log.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Somebody keeps it, and passes the gates.
    is_kept: AtomicBool,
    /// And syncs it.
    is_synced: AtomicBool,
    /// Somebody waits until it is kept to here.
    wanted: AtomicU64,
}

impl Log {
    /// Says whether somebody keeps it.
    pub fn set_kept(&self, is_kept: bool) {
        self.kept.is_kept.store(is_kept, Ordering::SeqCst);
    }

    /// Says whether who keeps it syncs it, at some time.
    pub fn set_synced(&self, is_synced: bool) {
        self.kept.is_synced.store(is_synced, Ordering::SeqCst);
    }

    /// Whether what is kept of it is on a disk, as far as the system can say.
    pub fn is_on_disk(&self) -> bool {
        self.kept.is_kept.load(Ordering::SeqCst) && self.kept.is_synced.load(Ordering::SeqCst)
    }

    /// Over when it is kept to here; at once where nobody keeps it.
    pub async fn until_kept(&self, to: LogOffset) {
        if !self.kept.is_kept.load(Ordering::SeqCst) {
            return;
        }
        let mut passed = self.gates.passed();
        self.want_kept(to);
        self.ask();
        // The sender is the log's own.
        let _ = passed.wait_for(|passed| *passed >= to).await;
    }

    /// Whether somebody waits until more is kept than this.
    pub fn is_wanted(&self, kept: LogOffset) -> bool {
        self.kept.wanted.load(Ordering::SeqCst) > kept.0
    }

    /// It is to be kept to here soon. Who keeps it has to be asked besides.
    pub(super) fn want_kept(&self, to: LogOffset) {
        self.kept.wanted.fetch_max(to.0, Ordering::SeqCst);
    }
}

impl Engine {
    /// Makes replies wait until the log is kept as far as what they show, or lets them go at once. A reader must be there
    /// and pass the gates; what was executed before counts as kept.
    pub fn set_gated(&self, is_gated: bool) {
        if is_gated {
            self.log.gates.pass(self.log.end());
            self.log.flags.fetch_or(GATED, Ordering::SeqCst);
            // Whoever has not seen the flag holds the lock of a shard.
            self.shards.iter().for_each(|shard| drop(shard.lock()));
        } else {
            self.log.flags.fetch_and(!GATED, Ordering::SeqCst);
            self.log.gates.tell();
        }
    }
}
