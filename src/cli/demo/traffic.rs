//! The demo's traffic: writers and readers that remember what the cluster has acknowledged.

use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cli::client::{ClusterClient, Failure};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use redis_protocol::resp2::types::OwnedFrame;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Clients at the same time.
const WORKERS: u32 = 4;
/// Between two requests of one client: enough to see something, little enough for a laptop.
const PAUSE: Duration = Duration::from_micros(500);
/// Tries to read a key back at the end.
const READ_TRIES: u32 = 50;
/// Keys of a killed node that have no answer before no more of them are asked for: its slots may have had no copies.
const EXCUSED_UNREAD_MAX: u32 = 5;

/// What one key must hold.
#[derive(Clone, Debug, Default)]
struct Expected {
    /// The last value that was acknowledged; 0: none.
    acknowledged: u64,
    /// Values whose writes had no answer since.
    maybe: Vec<u64>,
}

/// Counted since the start.
#[derive(Default)]
pub(super) struct Counters {
    pub(super) operations: AtomicU64,
    pub(super) redirects: AtomicU64,
    pub(super) failures: AtomicU64,
    /// Reads that gave what was never acknowledged last.
    pub(super) wrong: AtomicU64,
}

/// Running traffic.
pub(super) struct Traffic {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<Vec<Expected>>>,
}

struct Shared {
    counters: Counters,
    /// Microseconds of each request.
    latencies: Mutex<Histogram<u64>>,
    seeds: Mutex<Vec<SocketAddr>>,
    /// Slots whose keys may have been lost.
    lost: Mutex<SlotRanges>,
    last_failure: Mutex<String>,
    stop: AtomicBool,
}

/// What came of the traffic.
pub(super) struct TrafficReport {
    acknowledged: u64,
    read_back: u64,
    excused: u64,
    missing: u64,
    wrong: u64,
    operations: u64,
    redirects: u64,
    failures: u64,
    example: String,
}

impl TrafficReport {
    pub(super) fn is_good(&self) -> bool {
        self.missing == 0 && self.wrong == 0 && self.acknowledged > 0
    }
}

impl fmt::Display for TrafficReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = if self.is_good() { "PASS" } else { "FAIL" };
        write!(
            f,
            "{word}: {} keys were acknowledged, {} read back, {} lost with a killed node, {} missing or wrong; {} \
             operations, {} redirects, {} refused or without answer, {} wrong reads",
            self.acknowledged,
            self.read_back,
            self.excused,
            self.missing,
            self.operations,
            self.redirects,
            self.failures,
            self.wrong
        )?;
        if !self.example.is_empty() {
            write!(f, " ({})", self.example)?;
        }
        Ok(())
    }
}

impl Traffic {
    /// Begins to write and read this many keys.
    pub(super) fn start(seeds: Vec<SocketAddr>, keys: u32) -> Traffic {
        let shared = Arc::new(Shared {
            counters: Counters::default(),
            latencies: Mutex::new(new_histogram()),
            seeds: Mutex::new(seeds),
            lost: Mutex::default(),
            last_failure: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let workers = (0..WORKERS.min(keys))
            .map(|worker| {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || work(&shared, worker, keys / WORKERS.min(keys)))
            })
            .collect();
        Traffic { shared, workers }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    /// The latencies since the last call, in microseconds: median, 99th percentile, greatest.
    pub(super) fn take_latencies(&self) -> [u64; 3] {
        let taken = std::mem::replace(&mut *self.shared.latencies.lock(), new_histogram());
        [taken.value_at_quantile(0.5), taken.value_at_quantile(0.99), taken.max()]
    }

    /// Tells clients where nodes are now, and what may be lost.
    pub(super) fn update(&self, seeds: Vec<SocketAddr>, lost: SlotRanges) {
        *self.shared.seeds.lock() = seeds;
        *self.shared.lost.lock() = lost;
    }

    pub(super) fn last_failure(&self) -> String {
        self.shared.last_failure.lock().clone()
    }

    /// Ends the traffic and reads everything back.
    pub(super) fn finish(self, seeds: &[SocketAddr], lost: &SlotRanges) -> TrafficReport {
        self.shared.stop.store(true, Ordering::Release);
        let mut client = ClusterClient::new(seeds.to_vec());
        let mut unread = 0;
        let counters = &self.shared.counters;
        let mut report = TrafficReport {
            acknowledged: 0,
            read_back: 0,
            excused: 0,
            missing: 0,
            wrong: 0,
            operations: 0,
            redirects: 0,
            failures: 0,
            example: String::new(),
        };
        for (worker, thread) in self.workers.into_iter().enumerate() {
            // A writer that panicked has lost its memory: nothing it wrote is confirmed.
            let expected = thread.join().unwrap_or_default();
            for (number, expected) in expected.iter().enumerate().filter(|(_, expected)| expected.acknowledged > 0) {
                report.acknowledged += 1;
                let key = key(worker as u32, number as u32);
                let is_excused = lost.contains(Slot::of_key(key.as_bytes()));
                let tries = match is_excused {
                    true if unread >= EXCUSED_UNREAD_MAX => 0,
                    true => 1,
                    false => READ_TRIES,
                };
                match read_back(&mut client, &key, tries) {
                    Ok(value) if value == expected.acknowledged || expected.maybe.contains(&value) => {
                        report.read_back += 1;
                    }
                    other if is_excused => {
                        report.excused += 1;
                        unread += u32::from(other.is_err());
                    }
                    other => {
                        report.missing += 1;
                        report.example = format!("{key}: {other:?} for {}", expected.acknowledged);
                    }
                }
            }
        }
        report.operations = counters.operations.load(Ordering::Relaxed);
        report.redirects = counters.redirects.load(Ordering::Relaxed);
        report.failures = counters.failures.load(Ordering::Relaxed);
        report.wrong = counters.wrong.load(Ordering::Relaxed);
        report
    }
}

fn new_histogram() -> Histogram<u64> {
    Histogram::new_with_max(60_000_000, 3).expect("bounds that fit together")
}

fn key(worker: u32, number: u32) -> String {
    format!("demo:{worker}:{number}")
}

/// One client: writes its own keys, and reads some of them between.
fn work(shared: &Shared, worker: u32, keys: u32) -> Vec<Expected> {
    let mut expected = vec![Expected::default(); keys as usize];
    let mut client = ClusterClient::new(shared.seeds.lock().clone());
    // A linear congruential step over the keys: spread, repeatable, and every key comes.
    let (mut at, mut value) = (0u32, 0u64);
    while !shared.stop.load(Ordering::Acquire) {
        at = (at + 7919) % keys;
        value += 1;
        let name = key(worker, at);
        let began = Instant::now();
        let is_write = !value.is_multiple_of(4);
        let outcome = match is_write {
            true => write(&mut client, &name, value, &mut expected[at as usize]),
            false => read(shared, &mut client, &name, &expected[at as usize]),
        };
        let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Beyond a minute there is nothing to tell apart.
        shared.latencies.lock().saturating_record(took);
        shared.counters.operations.fetch_add(1, Ordering::Relaxed);
        shared.counters.redirects.fetch_add(std::mem::take(&mut client.redirects), Ordering::Relaxed);
        if let Err(failure) = outcome {
            shared.counters.failures.fetch_add(1, Ordering::Relaxed);
            *shared.last_failure.lock() = failure.to_string();
            client = ClusterClient::new(shared.seeds.lock().clone());
            std::thread::sleep(PAUSE * 20);
        }
        std::thread::sleep(PAUSE);
    }
    expected
}

fn write(client: &mut ClusterClient, name: &str, value: u64, expected: &mut Expected) -> Result<(), Failure> {
    match client.call(name.as_bytes(), &[b"SET", name.as_bytes(), value.to_string().as_bytes()]) {
        Ok(_) => {
            *expected = Expected { acknowledged: value, maybe: Vec::new() };
            Ok(())
        }
        Err(failure) => {
            if let Failure::Unknown(_) | Failure::Closed(_) = failure {
                expected.maybe.push(value);
            }
            Err(failure)
        }
    }
}

fn read(shared: &Shared, client: &mut ClusterClient, name: &str, expected: &Expected) -> Result<(), Failure> {
    let read = value_of(&client.call(name.as_bytes(), &[b"GET", name.as_bytes()])?);
    let is_right = read == expected.acknowledged || expected.maybe.contains(&read);
    if !is_right && !shared.lost.lock().contains(Slot::of_key(name.as_bytes())) {
        shared.counters.wrong.fetch_add(1, Ordering::Relaxed);
        *shared.last_failure.lock() = format!("{name} was {read}, not {}", expected.acknowledged);
    }
    Ok(())
}

/// Slots may be on their way when the traffic ends.
fn read_back(client: &mut ClusterClient, name: &str, tries: u32) -> Result<u64, String> {
    let mut failure = String::new();
    for _ in 0..tries {
        match client.call(name.as_bytes(), &[b"GET", name.as_bytes()]) {
            Ok(frame) => return Ok(value_of(&frame)),
            Err(error) => failure = error.to_string(),
        }
        std::thread::sleep(PAUSE * 100);
    }
    Err(failure)
}

/// The number in a reply; 0 for nothing.
fn value_of(frame: &OwnedFrame) -> u64 {
    match frame {
        OwnedFrame::BulkString(bytes) => {
            std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
        }
        _ => 0,
    }
}
