//! The demo without a terminal: lines, and a script instead of a keyboard.

use super::nodes::DemoNodes;
use super::traffic::Traffic;
use super::{Options, Step};
use crate::base::slot::Slot;
use crate::cli::observer::ClusterReport;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long the cluster may take to be whole again when the traffic is over.
const WHOLE_LIMIT: Duration = Duration::from_secs(120);

/// Runs the script over the given time, and then waits until the cluster is whole.
pub(super) fn run(options: &Options, nodes: &mut DemoNodes, traffic: &Traffic, stop: &AtomicBool) -> io::Result<()> {
    let began = Instant::now();
    let seconds = Duration::from_secs(options.seconds);
    let gap = seconds / (options.script.len() as u32 + 1);
    let mut steps = options.script.iter();
    let mut next = began + gap;
    let (mut shown, mut operations) = (0, 0);
    while began.elapsed() < seconds && !stop.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_secs(1));
        if Instant::now() >= next {
            next += gap;
            if let Some(step) = steps.next() {
                perform(*step, nodes)?;
            }
        }
        nodes.reap();
        traffic.update(nodes.addresses(), nodes.lost_slots());
        for event in &nodes.events()[shown.min(nodes.events().len())..] {
            println!("event {event}");
        }
        shown = nodes.events().len();
        match ClusterReport::look(&nodes.addresses()) {
            Ok(report) => operations = show(&report, nodes, traffic, operations),
            Err(error) => println!("no node answers: {error}"),
        }
    }
    if !stop.load(Ordering::Acquire) {
        nodes.until_whole(WHOLE_LIMIT, stop)?;
        traffic.update(nodes.addresses(), nodes.lost_slots());
    }
    Ok(())
}

fn perform(step: Step, nodes: &mut DemoNodes) -> io::Result<()> {
    // The one that came last goes first.
    let last = nodes.last();
    match (step, last, nodes.ended().last()) {
        (Step::Add, ..) => nodes.add().map(drop),
        (Step::Drain, Some(port), _) => nodes.drain(port),
        (Step::Kill, Some(port), _) => nodes.kill(port),
        (Step::Restart, _, Some(&port)) => nodes.restart(port),
        _ => Ok(()),
    }
}

/// Prints the cluster; gives the operations so far.
fn show(report: &ClusterReport, nodes: &DemoNodes, traffic: &Traffic, before: u64) -> u64 {
    let counters = traffic.counters();
    let operations = counters.operations.load(Ordering::Relaxed);
    let [median, most, greatest] = traffic.take_latencies();
    let (word, reason) = report.health();
    println!(
        "{word}: {reason}; {} ops/s, us: p50 {median} p99 {most} max {greatest}; {} keys, {} redirects, {} failures {}",
        operations - before,
        report.keys(),
        counters.redirects.load(Ordering::Relaxed),
        counters.failures.load(Ordering::Relaxed),
        traffic.last_failure(),
    );
    println!("  {}", copies(report, nodes));
    report.table().iter().for_each(|line| println!("  {line}"));
    println!("  {}", routes(report).join("  "));
    operations
}

/// The copies of slots, and what became of those of the node that was killed last.
pub(super) fn copies(report: &ClusterReport, nodes: &DemoNodes) -> String {
    let (ready, missing) = report.copies();
    format!("copies: {ready} ready, {missing} missing; {}", nodes.failover())
}

/// The ways of a few keys: key, slot, node.
pub(super) fn routes(report: &ClusterReport) -> Vec<String> {
    let route = |key: &&str| {
        let slot = Slot::of_key(key.as_bytes());
        let node = report.owner(slot).map_or("nobody".to_owned(), |node| node.address.to_string());
        format!("{key} -> {slot} -> {node}")
    };
    ["user:1", "cart:{42}", "session:abc"].iter().map(route).collect()
}
