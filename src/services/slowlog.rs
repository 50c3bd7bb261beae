//! The slow log: the last commands that took longer than the user finds right (SLOWLOG).

use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

/// Redis keeps at most this many arguments of a command,
const ARGUMENTS_MAX: usize = 32;
/// and this many bytes of each.
const ARGUMENT_BYTES_MAX: usize = 128;

/// One slow command.
#[derive(Clone, Debug)]
pub struct SlowCommand {
    pub id: u64,
    /// Unix seconds.
    pub at: u64,
    pub duration_us: u64,
    pub arguments: Vec<Vec<u8>>,
    pub client_address: String,
    pub client_name: String,
}

#[derive(Debug, Default)]
struct Entries {
    next_id: u64,
    entries: VecDeque<SlowCommand>,
}

/// The slow log of a node.
#[derive(Debug)]
pub struct Slowlog {
    entries: Mutex<Entries>,
    threshold_us: AtomicI64,
    length_max: AtomicUsize,
}

impl Default for Slowlog {
    fn default() -> Slowlog {
        Slowlog { entries: Mutex::default(), threshold_us: AtomicI64::new(10_000), length_max: AtomicUsize::new(128) }
    }
}

impl Slowlog {
    /// Sets `slowlog-log-slower-than` in microseconds (negative: nothing is logged) and `slowlog-max-len`.
    pub fn configure(&self, threshold_us: i64, length_max: usize) {
        self.threshold_us.store(threshold_us, Ordering::Relaxed);
        self.length_max.store(length_max, Ordering::Relaxed);
        self.entries.lock().entries.truncate(length_max);
    }

    /// Microseconds from which a command is slow; `None` where nothing is logged.
    #[inline]
    pub fn threshold_us(&self) -> Option<u64> {
        u64::try_from(self.threshold_us.load(Ordering::Relaxed)).ok()
    }

    /// Enters a command; its id is given here.
    pub fn record<'a>(
        &self,
        at: u64,
        duration_us: u64,
        arguments: impl ExactSizeIterator<Item = &'a [u8]>,
        client_address: String,
        client_name: String,
    ) {
        let length_max = self.length_max.load(Ordering::Relaxed);
        if length_max == 0 {
            return;
        }
        let arguments = trim(arguments);
        let mut log = self.entries.lock();
        let id = log.next_id;
        log.next_id += 1;
        log.entries.push_front(SlowCommand { id, at, duration_us, arguments, client_address, client_name });
        log.entries.truncate(length_max);
    }

    /// The latest `count` commands, the newest first.
    pub fn latest(&self, count: usize) -> Vec<SlowCommand> {
        self.entries.lock().entries.iter().take(count).cloned().collect()
    }

    pub fn len(&self) -> usize {
        self.entries.lock().entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets all of them.
    pub fn reset(&self) {
        self.entries.lock().entries.clear();
    }
}

fn trim<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let count = arguments.len();
    let kept = if count > ARGUMENTS_MAX { ARGUMENTS_MAX - 1 } else { count };
    let mut trimmed: Vec<Vec<u8>> = arguments
        .take(kept)
        .map(|argument| match argument.len().checked_sub(ARGUMENT_BYTES_MAX) {
            Some(more) if more > 0 => {
                let mut shortened = argument[..ARGUMENT_BYTES_MAX].to_vec();
                shortened.extend_from_slice(format!("... ({more} more bytes)").as_bytes());
                shortened
            }
            _ => argument.to_vec(),
        })
        .collect();
    if kept < count {
        trimmed.push(format!("... ({} more arguments)", count - kept).into_bytes());
    }
    trimmed
}
