//! Whole clusters in one thread, each run a function of its seed.
//!
//! A run begins with nodes that find each other, then things go wrong for a minute of virtual time, then everything
//! works again and the cluster must agree within a limit. After every happening the invariants are asserted.
//! `RUNS=500` does more runs, `SEED=7` one run again, `TRACE=1` prints what happens. `docs/simulation.md` says more.

mod chaos;
mod invariants;
mod network;
mod node;
mod trace;
mod world;

use world::World;

const SECOND_US: u64 = 1_000_000;
/// All nodes, started at once, must know each other after this long.
const JOIN_LIMIT_US: u64 = 10 * SECOND_US;
/// Things go wrong for this long.
const CHAOS_US: u64 = 60 * SECOND_US;
/// With the faults off, all must agree after this long: an announcement to those that are down (each 5 s), twice over,
/// and a suspicion (3 s). 3,000 runs took 4.8 s at most.
const HEAL_LIMIT_US: u64 = 15 * SECOND_US;
/// They must still agree so much later: longer than the latest datagram of the time before is underway.
const STAY_US: u64 = 15 * SECOND_US;
/// In the default test run; `RUNS` overrides it.
const RUNS: u64 = 20;

/// The seeds to run: one from `SEED`, or `RUNS` fixed ones.
fn seeds() -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("RUNS").unwrap_or(RUNS)).collect(),
    }
}

fn run(seed: u64) -> World {
    let mut world = World::new(seed);
    world.start();
    if !world.run_until(JOIN_LIMIT_US, World::all_agree) {
        world.fail("the nodes do not know each other 10 s after their start");
    }
    world.begin_chaos();
    world.run_until(CHAOS_US, |_| false);
    world.end_chaos();
    if !world.run_until(HEAL_LIMIT_US, World::all_agree) {
        world.fail("the nodes do not agree 15 s after the faults ended");
    }
    world.healed_us = world.now_us - world.ended_us;
    world.run_until(STAY_US, |_| false);
    if !world.all_agree() {
        world.fail("the nodes agreed after the faults ended, and later no longer");
    }
    world
}

#[test]
fn clusters_survive_chaos_and_then_agree() {
    let mut healed_ms: Vec<u64> = Vec::new();
    for seed in seeds() {
        let world = run(seed);
        healed_ms.push(world.healed_us / 1000);
    }
    healed_ms.sort_unstable();
    let (median, most) = (healed_ms[healed_ms.len() / 2], healed_ms[healed_ms.len() - 1]);
    println!("{} runs; agreed after the faults within {median} ms (median), {most} ms (most)", healed_ms.len());
}

#[test]
fn equal_seeds_give_equal_runs() {
    for seed in seeds().into_iter().take(3) {
        let (first, second) = (run(seed), run(seed));
        assert_eq!((first.trace.digest(), first.now_us), (second.trace.digest(), second.now_us), "seed {seed}");
        assert!(first.trace.length > 100, "seed {seed}: a run in which nothing happens");
    }
}
