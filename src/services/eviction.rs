//! maxmemory: who asks for memory makes room first, as the policy says.
//!
//! A batch of commands that begins above the limit evicts until it is below, or until its time is used up; the commands
//! are executed in both cases, and the next batch, or the worker's own turn, goes on. Where nothing may be evicted,
//! commands that may take more memory are refused.

use super::{Services, memory};
use crate::base::clock;
use crate::config::Config;
use crate::engine::eviction::{Evicted, Evictor, Order, Policy};
use arc_swap::ArcSwap;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Keys evicted between two looks at the time.
const KEYS_PER_LOOK: u32 = 16;
/// A limit above this one is compared with a total that is a little old (by 2 MB at most), others with an exact one.
const EXACT_BELOW: u64 = 256 * 1024 * 1024;
/// So far may the total be from the truth.
const TOTAL_SLACK: u64 = 2 * 1024 * 1024;

thread_local! {
    static EVICTOR: RefCell<Evictor> = RefCell::default();
}

/// What the configuration says.
#[derive(Clone, Copy, Debug, Default)]
struct Rules {
    /// `None`: nothing is evicted.
    policy: Option<Policy>,
    samples: usize,
    /// How long one batch may evict.
    budget_us: u64,
}

/// The limit of memory, and what is done about it.
#[derive(Debug, Default)]
pub struct Eviction {
    /// Bytes; 0: none. Looked at by every batch, hence beside the rules.
    limit: AtomicU64,
    rules: ArcSwap<Rules>,
    /// Since when memory is above the limit in spite of evictions, in microseconds since boot; 0: it is not.
    exceeded_since_us: AtomicU64,
    /// Microseconds for which it was, before.
    exceeded_us: AtomicU64,
}

/// The policy with this name of maxmemory-policy; `None`: noeviction.
fn policy(name: &str) -> Option<Policy> {
    let (keys, order) = name.split_once('-')?;
    let order = match order {
        "lru" => Order::Idle,
        "lfu" => Order::Seldom,
        "ttl" => Order::Deadline,
        _ => Order::Random,
    };
    Some(Policy { order, volatile: keys == "volatile" })
}

/// How long one batch may evict, as Redis has it (maxmemory-eviction-tenacity).
fn budget_us(tenacity: u64) -> u64 {
    match tenacity {
        0..=10 => 50 * tenacity,
        11..100 => (500.0 * 1.15f64.powi(tenacity as i32 - 10)) as u64,
        _ => u64::MAX,
    }
}

/// Takes over what the configuration says.
pub fn configure(services: &Services, config: &Config) {
    let policy = policy(&config.maxmemory_policy);
    let counts = policy.is_some_and(|policy| policy.order == Order::Seldom);
    let now_ms = clock::unix_us() / 1000;
    services.engine.set_frequency(counts, config.lfu_log_factor, config.lfu_decay_time, now_ms);
    services.eviction.rules.store(std::sync::Arc::new(Rules {
        policy,
        samples: config.maxmemory_samples,
        budget_us: budget_us(config.maxmemory_eviction_tenacity),
    }));
    services.eviction.limit.store(config.maxmemory, Ordering::Relaxed);
}

/// Makes room where memory is above the limit. True where it still is, and nothing may be evicted: what may take more is
/// to be refused.
#[inline]
pub fn is_out_of_memory(services: &Services) -> bool {
    let limit = services.eviction.limit.load(Ordering::Relaxed);
    limit != 0 && memory::counted_bytes(services) + TOTAL_SLACK > limit && !make_room(services, limit)
}

/// Whether commands may take more memory now: there is room, or there will be.
#[cold]
fn make_room(services: &Services, limit: u64) -> bool {
    if !is_over(services, limit) {
        services.eviction.is_met();
        return true;
    }
    let rules = **services.eviction.rules.load();
    let is_met = EVICTOR.with_borrow_mut(|evictor| evict(services, limit, rules, evictor));
    if is_met == Some(true) {
        services.eviction.is_met()
    } else {
        services.eviction.is_exceeded()
    }
    is_met.is_some()
}

/// Evicts until memory is below the limit (true), or the time is over (false); `None`: nothing may be evicted.
fn evict(services: &Services, limit: u64, rules: Rules, evictor: &mut Evictor) -> Option<bool> {
    let policy = rules.policy?;
    let begun_us = clock::boot_us();
    let mut count = 0;
    loop {
        match services.engine.evict(evictor, policy, rules.samples, clock::unix_us() / 1000) {
            Evicted::One => {}
            Evicted::Nothing => return None,
            Evicted::Later => return Some(false),
        }
        if !is_over(services, limit) {
            return Some(true);
        }
        count += 1;
        if count % KEYS_PER_LOOK == 0 && clock::boot_us() - begun_us >= rules.budget_us {
            return Some(false);
        }
    }
}

fn is_over(services: &Services, limit: u64) -> bool {
    let rough = memory::counted_bytes(services);
    if limit > EXACT_BELOW || rough > limit + TOTAL_SLACK {
        return rough > limit;
    }
    memory::used_bytes(services) + memory::between_bytes() > limit
}

impl Eviction {
    fn is_met(&self) {
        if self.exceeded_since_us.load(Ordering::Relaxed) != 0 {
            let since_us = self.exceeded_since_us.swap(0, Ordering::Relaxed);
            if since_us != 0 {
                self.exceeded_us.fetch_add(clock::boot_us() - since_us, Ordering::Relaxed);
            }
        }
    }

    fn is_exceeded(&self) {
        if self.exceeded_since_us.load(Ordering::Relaxed) == 0 {
            self.exceeded_since_us.store(clock::boot_us(), Ordering::Relaxed);
        }
    }

    /// Milliseconds for which memory was above the limit in spite of evictions: in all, and without a break until now.
    pub fn exceeded_ms(&self) -> (u64, u64) {
        let since_us = self.exceeded_since_us.load(Ordering::Relaxed);
        let current_us = if since_us == 0 { 0 } else { clock::boot_us().saturating_sub(since_us) };
        ((self.exceeded_us.load(Ordering::Relaxed) + current_us) / 1000, current_us / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_the_names_of_redis() {
        let of = |order, volatile| Some(Policy { order, volatile });
        let cases = [
            ("noeviction", None),
            ("allkeys-lru", of(Order::Idle, false)),
            ("allkeys-lfu", of(Order::Seldom, false)),
            ("allkeys-random", of(Order::Random, false)),
            ("volatile-lru", of(Order::Idle, true)),
            ("volatile-lfu", of(Order::Seldom, true)),
            ("volatile-random", of(Order::Random, true)),
            ("volatile-ttl", of(Order::Deadline, true)),
        ];
        for (name, expected) in cases {
            assert_eq!(policy(name), expected, "{name}");
        }
    }
}
