//! Which keys take the most time and the most bytes, while somebody wants to know (HOTKEYS).
//!
//! ```text
//!  a command of a worker --its keys, time, bytes--> lane of each key, by its hash --read by HOTKEYS GET--> the top of all
//! ```
//! Workers meet in a lane only over keys of the same lane. Without a session a command asks one flag, and nothing else.

use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::values::hashing::table_hash;
use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use top_keys::TopKeys;

pub mod top_keys;

/// A power of two.
const LANES: usize = 8;
/// Keys of each lane for one that is shown, and the fewest: what is shown is of far more than a thousandth of all.
const PLACES_PER_SHOWN: usize = 4;
const PLACES_MIN: usize = 64;
/// The bytes of a longer key are not kept: it counts in the totals, and is not shown. So 2 * 8 * 256 of them are 16 MB at most.
const KEY_BYTES_MAX: usize = 4096;
const NS_PER_US: u64 = 1000;

/// What a session observes.
#[derive(Clone, Debug)]
pub struct Observed {
    pub cpu: bool,
    pub net: bool,
    /// Keys shown.
    pub count: usize,
    /// How long; `None`: until it is stopped.
    pub duration_ms: Option<u64>,
    /// One command of so many has its keys noted.
    pub sample_ratio: u64,
    /// `None`: all.
    pub slots: Option<SlotRanges>,
    /// User and system time of the process at the beginning, in seconds.
    pub cpu_seconds: [f64; 2],
}

/// Time and bytes of commands.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub ns: u64,
    pub bytes: u64,
}

/// The sums of a session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub all: Cost,
    pub selected: Cost,
    pub sampled: Cost,
}

/// The top keys by one measure, the greatest first.
#[derive(Debug)]
pub struct Top {
    pub keys: Vec<(Box<[u8]>, u64)>,
    /// The measures of all keys that were noted.
    pub total: u64,
}

/// A session, running or ended.
#[derive(Debug)]
pub struct Session {
    pub observed: Observed,
    pub started_at_ms: u64,
    /// 0: it runs.
    ended_at_ms: AtomicU64,
    lanes: [Mutex<Lane>; LANES],
}

#[derive(Debug)]
struct Lane {
    totals: Totals,
    by_ns: TopKeys,
    by_bytes: TopKeys,
    random: u64,
}

/// The session of a node, if there is one.
#[derive(Debug, Default)]
pub struct Hotkeys {
    is_on: AtomicBool,
    session: ArcSwapOption<Session>,
}

impl Hotkeys {
    /// Whether commands have to be recorded.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Begins a session in the place of one that has ended; false where one runs.
    pub fn start(&self, observed: Observed, now_ms: u64) -> bool {
        if self.running(now_ms).is_some() {
            return false;
        }
        self.session.store(Some(Arc::new(Session::new(observed, now_ms))));
        self.is_on.store(true, Ordering::Relaxed);
        true
    }

    /// Ends the session; false where none runs.
    pub fn stop(&self, now_ms: u64) -> bool {
        let running = self.running(now_ms);
        running.inspect(|session| self.end(session, now_ms)).is_some()
    }

    /// Forgets a session that has ended; false where one runs.
    pub fn reset(&self, now_ms: u64) -> bool {
        let runs = self.running(now_ms).is_some();
        if !runs {
            self.session.store(None);
        }
        !runs
    }

    /// The session that runs, or the last one.
    pub fn session(&self, now_ms: u64) -> Option<Arc<Session>> {
        self.running(now_ms).or_else(|| self.session.load_full())
    }

    /// Notes what a command has cost, by its keys; a session whose time is over ends.
    #[cold]
    pub fn record<'a>(&self, keys: impl ExactSizeIterator<Item = &'a [u8]>, cost: Cost, now_ms: u64) {
        if let Some(session) = self.running(now_ms) {
            session.record(keys, cost);
        }
    }

    fn running(&self, now_ms: u64) -> Option<Arc<Session>> {
        let session = self.session.load_full().filter(|session| session.is_running())?;
        let end_ms = session.observed.duration_ms.map(|duration_ms| session.started_at_ms + duration_ms);
        match end_ms.filter(|end_ms| *end_ms <= now_ms) {
            Some(end_ms) => {
                self.end(&session, end_ms);
                None
            }
            None => Some(session),
        }
    }

    fn end(&self, session: &Session, now_ms: u64) {
        session.ended_at_ms.store(now_ms.max(1), Ordering::Relaxed);
        self.is_on.store(false, Ordering::Relaxed);
    }
}

impl Session {
    fn new(observed: Observed, now_ms: u64) -> Session {
        let places = (observed.count * PLACES_PER_SHOWN).max(PLACES_MIN);
        let lane = |index: usize| {
            let (by_ns, by_bytes) = (TopKeys::new(places), TopKeys::new(places));
            Mutex::new(Lane { totals: Totals::default(), by_ns, by_bytes, random: now_ms ^ (index as u64 + 1) << 48 })
        };
        let lanes = std::array::from_fn(lane);
        Session { observed, started_at_ms: now_ms, ended_at_ms: AtomicU64::new(0), lanes }
    }

    pub fn is_running(&self) -> bool {
        self.ended_at_ms.load(Ordering::Relaxed) == 0
    }

    /// How long it has been running, or was.
    pub fn duration_ms(&self, now_ms: u64) -> u64 {
        let ended_at_ms = match self.ended_at_ms.load(Ordering::Relaxed) {
            0 => now_ms,
            ended_at_ms => ended_at_ms,
        };
        ended_at_ms.saturating_sub(self.started_at_ms)
    }

    /// The cost is told to all keys in equal parts.
    fn record<'a>(&self, keys: impl ExactSizeIterator<Item = &'a [u8]>, cost: Cost) {
        let count = keys.len() as u64;
        let mut is_noted = None;
        for key in keys {
            let hash = table_hash(key);
            let mut lane = self.lanes[hash as usize % LANES].lock();
            let is_noted = *is_noted.get_or_insert_with(|| self.count(&mut lane, key, cost));
            if !is_noted {
                return;
            }
            if self.observed.cpu {
                note(&mut lane.by_ns, hash, key, cost.ns / count);
            }
            if self.observed.net {
                note(&mut lane.by_bytes, hash, key, cost.bytes / count);
            }
        }
    }

    /// Adds a command to the sums, by its first key; whether its keys are to be noted.
    fn count(&self, lane: &mut Lane, key: &[u8], cost: Cost) -> bool {
        let is_selected = self.observed.slots.as_ref().is_none_or(|slots| slots.contains(Slot::of_key(key)));
        let is_sampled = lane.random().is_multiple_of(self.observed.sample_ratio);
        lane.totals.all.add(cost);
        if is_selected {
            lane.totals.selected.add(cost);
        }
        if is_selected && is_sampled {
            lane.totals.sampled.add(cost);
        }
        is_selected && is_sampled
    }

    pub fn totals(&self) -> Totals {
        self.lanes.iter().fold(Totals::default(), |mut sum, lane| {
            let lane = lane.lock().totals;
            sum.all.add(lane.all);
            sum.selected.add(lane.selected);
            sum.sampled.add(lane.sampled);
            sum
        })
    }

    /// The keys that took the most time, in microseconds.
    pub fn by_cpu(&self) -> Top {
        let mut top = self.top(|lane| &lane.by_ns);
        top.keys.iter_mut().for_each(|(_, ns)| *ns = ns.div_ceil(NS_PER_US));
        top.total /= NS_PER_US;
        top
    }

    /// The keys that took the most bytes, of requests and replies.
    pub fn by_bytes(&self) -> Top {
        self.top(|lane| &lane.by_bytes)
    }

    fn top(&self, of: impl Fn(&Lane) -> &TopKeys) -> Top {
        let mut keys: Vec<(Box<[u8]>, u64)> = Vec::new();
        let mut total = 0u64;
        for lane in &self.lanes {
            let lane = lane.lock();
            let lane = of(&lane);
            total = total.saturating_add(lane.total());
            keys.extend(lane.certain().filter(|(_, sum)| *sum > 0).map(|(key, sum)| (Box::from(key), sum)));
        }
        keys.sort_unstable_by(|(one, sum), (other, more)| more.cmp(sum).then_with(|| one.cmp(other)));
        keys.truncate(self.observed.count);
        Top { keys, total }
    }
}

fn note(keys: &mut TopKeys, hash: u64, key: &[u8], weight: u64) {
    if key.len() <= KEY_BYTES_MAX {
        keys.add(hash, key, weight);
    }
}

impl Cost {
    fn add(&mut self, other: Cost) {
        self.ns = self.ns.saturating_add(other.ns);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    pub fn us(self) -> u64 {
        self.ns / NS_PER_US
    }
}

impl Lane {
    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.random ^ self.random >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
