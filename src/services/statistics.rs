//! What the node counts: per thread by its only writer, added up when somebody asks (INFO).

use crossbeam::utils::CachePadded;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Adds to a counter of which the calling thread is the only writer.
#[inline]
pub fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
}

/// Of one command, by one thread.
#[derive(Debug, Default)]
pub struct CommandCounters {
    pub calls: AtomicU64,
    /// That the calls took. An estimate where calls were sampled: each that was measured counts for those that were not.
    pub nanoseconds: AtomicU64,
    /// Calls since the last measured one; the next one stands for them.
    pub unmeasured: AtomicU64,
    /// Refused before execution.
    pub rejected: AtomicU64,
    /// Answered with an error.
    pub failed: AtomicU64,
    /// Calls by how long they took, measured or estimated.
    pub latencies: Histogram,
}

/// Classes of a histogram: the last one has everything from half an hour on.
pub const LATENCY_CLASSES: usize = 32;

/// How many calls took how long: class `n` has those of at most 2^n microseconds that class `n - 1` does not have.
#[derive(Debug, Default)]
pub struct Histogram([AtomicU64; LATENCY_CLASSES]);

impl Histogram {
    /// Counts calls that took so many nanoseconds each. The calling thread must be the only writer.
    #[inline]
    pub fn record(&self, nanoseconds: u64, calls: u64) {
        bump(self.class(nanoseconds.div_ceil(1000)), calls);
    }

    #[inline]
    fn class(&self, microseconds: u64) -> &AtomicU64 {
        let class = (u64::BITS - microseconds.saturating_sub(1).leading_zeros()) as usize;
        &self.0[class.min(LATENCY_CLASSES - 1)]
    }
}

/// The histograms of several threads, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Latencies([u64; LATENCY_CLASSES]);

impl Latencies {
    /// Calls counted.
    pub fn count(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The classes that have calls: their greatest microseconds, and how many calls took no longer than that.
    pub fn cumulative(&self) -> Vec<(u64, u64)> {
        let mut sum = 0;
        let classes = self.0.iter().enumerate().filter(|(_, count)| **count > 0);
        classes
            .map(|(class, count)| {
                sum += count;
                (1 << class, sum)
            })
            .collect()
    }

    /// Microseconds that this share of the calls (0 to 1) did not exceed, rounded up to a power of two.
    pub fn quantile(&self, share: f64) -> u64 {
        let wanted = (self.count() as f64 * share).ceil() as u64;
        self.cumulative().iter().find(|(_, count)| *count >= wanted).map_or(0, |(microseconds, _)| *microseconds)
    }
}

/// Of one thread.
#[derive(Debug)]
pub struct ThreadCounters {
    /// By index in the command table.
    pub commands: Box<[CommandCounters]>,
    pub input_bytes: AtomicU64,
    pub output_bytes: AtomicU64,
    /// Times that bytes were received from clients, and sent to them.
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub connections: AtomicU64,
    error_replies: AtomicU64,
    /// Errors by their first word. Only the thread itself waits for its lock, and only while somebody adds up.
    errors: Mutex<BTreeMap<String, u64>>,
}

impl ThreadCounters {
    /// Counts an error reply by its code, the first word of its text.
    pub fn count_error(&self, text: &str) {
        self.error_replies.fetch_add(1, Ordering::Relaxed);
        let code = text.split_ascii_whitespace().next().unwrap_or("ERR");
        count_code(&mut self.errors.lock(), code, 1);
    }

    /// Counts what was received at once. The calling thread must be the only writer, here and below.
    #[inline]
    pub fn received(&self, bytes: usize) {
        bump(&self.input_bytes, bytes as u64);
        bump(&self.reads, 1);
    }

    /// Counts what was sent at once.
    #[inline]
    pub fn sent(&self, bytes: usize) {
        bump(&self.output_bytes, bytes as u64);
        bump(&self.writes, u64::from(bytes > 0));
    }
}

/// The counters of a node.
#[derive(Debug, Default)]
pub struct Statistics {
    threads: Mutex<Vec<Arc<CachePadded<ThreadCounters>>>>,
    /// What many threads count in, because it happens too rarely to have a counter in each.
    shared: OnceLock<Arc<CachePadded<ThreadCounters>>>,
    pub connections_received: AtomicU64,
    pub connections_rejected: AtomicU64,
    /// Clients that wait now, and are not read from meanwhile.
    pub blocked_clients: AtomicU64,
    pub output_limit_disconnections: AtomicU64,
    pub input_limit_disconnections: AtomicU64,
    /// Commands a second over the last seconds, measured by the node's timer.
    pub operations_per_second: AtomicU64,
    pub input_bytes_per_second: AtomicU64,
    pub output_bytes_per_second: AtomicU64,
    pub peak_memory_bytes: AtomicU64,
    /// `latency-tracking no`: calls are counted, and how long they took is not.
    pub latency_untracked: AtomicBool,
}

/// Different error codes that are counted; what comes after shares one count, as in Redis.
const ERROR_KINDS_MAX: usize = 128;

impl Statistics {
    /// The counters of a new thread.
    pub fn add_thread(&self, commands: usize) -> Arc<CachePadded<ThreadCounters>> {
        let counters = Arc::new(CachePadded::new(ThreadCounters {
            commands: (0..commands).map(|_| CommandCounters::default()).collect(),
            input_bytes: AtomicU64::new(0),
            output_bytes: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            connections: AtomicU64::new(0),
            error_replies: AtomicU64::new(0),
            errors: Mutex::default(),
        }));
        self.threads.lock().push(Arc::clone(&counters));
        counters
    }

    /// Counts a call that does not come by a thread's dispatcher: one of a transaction. `commands` is the length of
    /// the command table.
    pub fn count_call(&self, commands: usize, index: usize, took_ns: u64, failed: bool) {
        let shared = self.shared.get_or_init(|| self.add_thread(commands));
        let Some(command) = shared.commands.get(index) else { return };
        command.calls.fetch_add(1, Ordering::Relaxed);
        command.nanoseconds.fetch_add(took_ns, Ordering::Relaxed);
        command.failed.fetch_add(u64::from(failed), Ordering::Relaxed);
        if !self.latency_untracked.load(Ordering::Relaxed) {
            command.latencies.class(took_ns.div_ceil(1000)).fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds up one counter over the threads.
    pub fn sum(&self, counter: impl Fn(&ThreadCounters) -> u64) -> u64 {
        self.threads.lock().iter().map(|thread| counter(thread)).sum()
    }

    /// Commands executed.
    pub fn commands_processed(&self) -> u64 {
        self.sum(|thread| thread.commands.iter().map(|command| command.calls.load(Ordering::Relaxed)).sum())
    }

    /// Calls, microseconds, rejected and failed calls of a command, by its index in the table.
    pub fn command(&self, index: usize) -> [u64; 4] {
        let mut sum = [0; 4];
        for thread in self.threads.lock().iter() {
            let Some(command) = thread.commands.get(index) else { continue };
            let counters = [&command.calls, &command.nanoseconds, &command.rejected, &command.failed];
            for (sum, counter) in sum.iter_mut().zip(counters) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        let [calls, nanoseconds, rejected, failed] = sum;
        [calls, nanoseconds / 1000, rejected, failed]
    }

    /// How long the calls of a command took, by its index in the table. The last few may be missing: those that are
    /// sampled count with the next one that is measured.
    pub fn latencies(&self, index: usize) -> Latencies {
        let mut sum = Latencies::default();
        for thread in self.threads.lock().iter() {
            let Some(command) = thread.commands.get(index) else { continue };
            for (sum, counter) in sum.0.iter_mut().zip(&command.latencies.0) {
                *sum += counter.load(Ordering::Relaxed);
            }
        }
        sum
    }

    /// Counts the error of a call that does not come by a thread's dispatcher. `commands`: as for `count_call`.
    pub fn count_error(&self, commands: usize, text: &str) {
        self.shared.get_or_init(|| self.add_thread(commands)).count_error(text);
    }

    /// Errors by code.
    pub fn errors(&self) -> Vec<(String, u64)> {
        let mut sum = BTreeMap::new();
        for thread in self.threads.lock().iter() {
            thread.errors.lock().iter().for_each(|(code, count)| count_code(&mut sum, code, *count));
        }
        sum.into_iter().collect()
    }

    /// Error replies, of all codes.
    pub fn error_replies(&self) -> u64 {
        self.sum(|thread| thread.error_replies.load(Ordering::Relaxed))
    }

    /// Sets everything to zero (CONFIG RESETSTAT). Counts of this very moment may survive.
    pub fn reset(&self) {
        for thread in self.threads.lock().iter() {
            for command in &thread.commands {
                let counted = [&command.calls, &command.nanoseconds, &command.unmeasured];
                for counter in counted.into_iter().chain([&command.rejected, &command.failed]) {
                    counter.store(0, Ordering::Relaxed);
                }
                command.latencies.0.iter().for_each(|class| class.store(0, Ordering::Relaxed));
            }
            thread.input_bytes.store(0, Ordering::Relaxed);
            thread.output_bytes.store(0, Ordering::Relaxed);
            thread.reads.store(0, Ordering::Relaxed);
            thread.writes.store(0, Ordering::Relaxed);
            thread.error_replies.store(0, Ordering::Relaxed);
            thread.errors.lock().clear();
        }
        self.connections_received.store(0, Ordering::Relaxed);
        self.connections_rejected.store(0, Ordering::Relaxed);
        self.output_limit_disconnections.store(0, Ordering::Relaxed);
        self.input_limit_disconnections.store(0, Ordering::Relaxed);
    }
}

fn count_code(errors: &mut BTreeMap<String, u64>, code: &str, by: u64) {
    let room = errors.len() < ERROR_KINDS_MAX;
    match errors.get_mut(code) {
        Some(count) => *count += by,
        None if room => drop(errors.insert(code.to_owned(), by)),
        None => *errors.entry("ERRORSTATS_OVERFLOW".to_owned()).or_default() += by,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_all_threads_are_added_up_by_code() {
        let statistics = Statistics::default();
        let threads = [statistics.add_thread(1), statistics.add_thread(1)];
        threads.iter().for_each(|thread| thread.count_error("MOVED 1 127.0.0.1:1"));
        threads[0].count_error("ERR no");
        statistics.count_error(1, "ERR in a transaction");
        assert_eq!(statistics.errors(), [("ERR".to_owned(), 2), ("MOVED".to_owned(), 2)]);
        assert_eq!(statistics.error_replies(), 4);
        (0..2 * ERROR_KINDS_MAX).for_each(|number| threads[1].count_error(&format!("E{number}")));
        assert!(statistics.errors().len() <= ERROR_KINDS_MAX + 1);
        statistics.reset();
        assert_eq!((statistics.errors(), statistics.error_replies()), (Vec::new(), 0));
    }

    #[test]
    fn classes_double() {
        let histogram = Histogram::default();
        for nanoseconds in [0, 1, 1001, 3000, 4000, 4001, 1_000_000, u64::MAX] {
            histogram.record(nanoseconds, 1);
        }
        let latencies = Latencies(histogram.0.map(|class| class.into_inner()));
        assert_eq!(latencies.count(), 8);
        assert_eq!(latencies.cumulative(), [(1, 2), (2, 3), (4, 5), (8, 6), (1024, 7), (1 << 31, 8)]);
        assert_eq!(latencies.quantile(0.5), 4);
        assert_eq!(latencies.quantile(1.0), 1 << 31);
        assert_eq!(Latencies::default().quantile(0.5), 0);
    }
}
