//! Gates: what was written, or shown, may leave the node when the log is kept that far.
//!
//! Who keeps the log (a disk, a set of copies) says how far: the *watermark*. A keyspace notes for its thread the greatest
//! end of the groups that it has written, and of those that it has shown: what a read tells may be lost as well. Without
//! anybody who asks for it nothing is noted.
//!
//! A party is a thread that holds replies back. Passing the watermark wakes each party once, not each connection. The
//! race is closed by the order of steps: who holds raises its flag, then looks at the watermark again; who passes sets
//! the watermark, then takes the flag.

use super::LogOffset;
use super::copied::Groups;
use parking_lot::{Mutex, RwLock};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;
use tokio::sync::{Notify, watch};

/// What the keyspaces of a thread have shown since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// A reply that tells of it waits until the log is kept to here; 0: it tells of nothing.
    pub gate: LogOffset,
    /// Whose slots it tells of.
    pub groups: Groups,
    /// Something was written.
    pub wrote: bool,
}

impl Shown {
    /// Everything that has happened so far.
    pub fn all(end: LogOffset) -> Shown {
        Shown { gate: end, groups: Groups::ALL, wrote: true }
    }

    /// Something of these slots is shown, which stand at this place of the log.
    #[inline]
    pub fn show(&mut self, gate: LogOffset, groups: Groups) {
        *self = self.and(Shown { gate, groups, wrote: false });
    }

    /// What tells of both.
    pub fn and(self, other: Shown) -> Shown {
        Shown {
            gate: self.gate.max(other.gate),
            groups: self.groups.and(other.groups),
            wrote: self.wrote | other.wrote,
        }
    }
}

impl FromIterator<Shown> for Shown {
    fn from_iter<I: IntoIterator<Item = Shown>>(shown: I) -> Shown {
        shown.into_iter().fold(Shown::default(), Shown::and)
    }
}

/// What replies wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needed {
    pub shown: Shown,
    /// Copies have to have it too, and have until then.
    pub copies_until: Option<Instant>,
    /// On their disks, and on this node's, whatever else is asked of that.
    pub on_disk: bool,
}

thread_local! {
    static SHOWN: Cell<Shown> = const { Cell::new(Shown { gate: LogOffset(0), groups: Groups::NONE, wrote: false }) };
}

/// Notes what a keyspace has shown.
pub fn note(shown: Shown) {
    SHOWN.set(SHOWN.get().and(shown));
}

/// What was shown since the last time.
pub fn take_shown() -> Shown {
    SHOWN.take()
}

/// Whether a gate is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    Open,
    Closed,
    /// It will never open, and why; one that needs no more than this is open.
    Failed(Arc<str>, LogOffset),
}

/// How far the log is kept, and who waits for it.
#[derive(Debug, Default)]
pub struct Gates {
    watermark: AtomicU64,
    is_failed: AtomicBool,
    failure: RwLock<Option<Arc<str>>>,
    parties: Mutex<Vec<Arc<Party>>>,
    passed: watch::Sender<LogOffset>,
}

/// A thread that holds replies back.
#[derive(Debug, Default)]
pub struct Party {
    is_waiting: AtomicBool,
    bell: Notify,
}

impl Party {
    /// Over when the watermark has passed, or will not, since replies were held.
    pub async fn until_told(&self) {
        self.bell.notified().await;
    }

    /// To be called before the gate is looked at for the last time.
    pub fn wait(&self) {
        self.is_waiting.store(true, Ordering::SeqCst);
    }
}

impl Gates {
    /// A thread that will hold replies back; it belongs to them until it drops this.
    pub fn join(&self) -> Arc<Party> {
        let party = Arc::new(Party::default());
        let mut parties = self.parties.lock();
        parties.retain(|other| Arc::strong_count(other) > 1);
        parties.push(Arc::clone(&party));
        party
    }

    /// How far the log is kept.
    #[inline]
    pub fn watermark(&self) -> LogOffset {
        LogOffset(self.watermark.load(Ordering::SeqCst))
    }

    /// Whether a reply with this gate may leave.
    pub fn look(&self, gate: LogOffset) -> Gate {
        if gate <= self.watermark() {
            return Gate::Open;
        }
        if self.is_failed.load(Ordering::SeqCst)
            && let Some(reason) = &*self.failure.read()
        {
            return Gate::Failed(Arc::clone(reason), self.watermark());
        }
        Gate::Closed
    }

    /// The log is kept to here.
    pub fn pass(&self, to: LogOffset) {
        self.watermark.fetch_max(to.0, Ordering::SeqCst);
        self.passed.send_if_modified(|passed| {
            to > *passed && {
                *passed = to;
                true
            }
        });
        self.tell();
    }

    /// The watermark, whenever it rises.
    pub(super) fn passed(&self) -> watch::Receiver<LogOffset> {
        self.passed.subscribe()
    }

    /// What is above the watermark will not be kept, or nobody can say: replies that wait for it are replaced by errors,
    /// until [`Gates::recover`].
    pub fn fail(&self, reason: &str) {
        *self.failure.write() = Some(reason.into());
        self.is_failed.store(true, Ordering::SeqCst);
        self.tell();
    }

    /// The log is kept again.
    pub fn recover(&self) {
        self.is_failed.store(false, Ordering::SeqCst);
    }

    /// Wakes whoever waits, to look again.
    pub(super) fn tell(&self) {
        for party in self.parties.lock().iter() {
            if party.is_waiting.swap(false, Ordering::SeqCst) {
                party.bell.notify_one();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_opens_at_its_place_and_says_why_it_never_will() {
        let gates = Gates::default();
        let at = LogOffset;
        assert_eq!(gates.look(at(0)), Gate::Open, "of what shows nothing");
        assert_eq!(gates.look(at(1)), Gate::Closed);
        gates.pass(at(10));
        gates.pass(at(5));
        assert_eq!((gates.look(at(10)), gates.look(at(11))), (Gate::Open, Gate::Closed), "it never falls");
        gates.fail("the disk is broken");
        assert_eq!(
            (gates.look(at(10)), gates.look(at(11))),
            (Gate::Open, Gate::Failed("the disk is broken".into(), at(10)))
        );
        gates.recover();
        assert_eq!(gates.look(at(11)), Gate::Closed);
    }

    #[test]
    fn each_party_that_waits_is_told_once() {
        let gates = Gates::default();
        let (waiting, busy) = (gates.join(), gates.join());
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        waiting.wait();
        gates.pass(LogOffset(1));
        runtime.block_on(waiting.until_told());
        gates.pass(LogOffset(2));
        let told = |party: &Party| {
            let told = std::pin::pin!(party.until_told());
            told.poll(&mut std::task::Context::from_waker(std::task::Waker::noop())).is_ready()
        };
        assert!(!told(&waiting) && !told(&busy), "nobody waits");
        drop(busy);
        drop(gates.join());
        assert_eq!(gates.parties.lock().len(), 2, "parties that have gone are forgotten");
    }
}
