//! The latency monitor: when something took longer than `latency-monitor-threshold`, by kind of event (LATENCY).

use parking_lot::Mutex;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

/// Samples kept per event, as in Redis.
const SAMPLES_MAX: usize = 160;

/// What is remembered of one kind of event.
#[derive(Clone, Debug, Default)]
pub struct EventHistory {
    /// (Unix seconds, milliseconds), the oldest first; at most one a second, the worst of it.
    pub samples: VecDeque<(u64, u64)>,
    pub worst_ms: u64,
}

/// The latency monitor of a node.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    events: Mutex<BTreeMap<&'static str, EventHistory>>,
    threshold_ms: AtomicU64,
}

impl LatencyMonitor {
    /// Sets the threshold in milliseconds; 0 turns the monitor off.
    pub fn set_threshold_ms(&self, threshold_ms: u64) {
        self.threshold_ms.store(threshold_ms, Ordering::Relaxed);
    }

    /// Whether it is on.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.threshold_ms.load(Ordering::Relaxed) != 0
    }

    /// Remembers an event that took at least the threshold.
    pub fn observe(&self, event: &'static str, now_s: u64, duration_ms: u64) {
        let threshold = self.threshold_ms.load(Ordering::Relaxed);
        if threshold == 0 || duration_ms < threshold {
            return;
        }
        let mut events = self.events.lock();
        let history = events.entry(event).or_default();
        history.worst_ms = history.worst_ms.max(duration_ms);
        match history.samples.back_mut() {
            Some((at, worst)) if *at == now_s => *worst = (*worst).max(duration_ms),
            _ => {
                if history.samples.len() == SAMPLES_MAX {
                    history.samples.pop_front();
                }
                history.samples.push_back((now_s, duration_ms));
            }
        }
    }

    /// All histories, by event.
    pub fn histories(&self) -> Vec<(&'static str, EventHistory)> {
        self.events.lock().iter().map(|(event, history)| (*event, history.clone())).collect()
    }

    /// The history of one event.
    pub fn history(&self, event: &str) -> Option<EventHistory> {
        self.events.lock().get(event).cloned()
    }

    /// Forgets one event, or all. Returns how many there were.
    pub fn reset(&self, event: Option<&str>) -> usize {
        let mut events = self.events.lock();
        match event {
            Some(event) => usize::from(events.remove(event).is_some()),
            None => std::mem::take(&mut *events).len(),
        }
    }
}
