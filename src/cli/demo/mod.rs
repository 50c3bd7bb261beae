//! `starling demo`: a cluster of real processes on this machine, with live traffic, and keys to break it.
//!
//! ```text
//!  nodes (processes) <-- traffic: writers that remember what was acknowledged
//!        ^          <--  observer: what the nodes say of themselves
//!        +-- kill, restart, add, drain: from the keyboard, or from a script in plain mode
//! ```
//!
//! A kill is watched until copies serve every slot. At the end everything that was acknowledged is read back; of slots that a
//! killed node served the last moment's writes may be lost.

mod failover;
mod nodes;
mod plain;
mod screen;
mod traffic;

use clap::Parser;
use nodes::DemoNodes;
use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use traffic::Traffic;

/// Starts a cluster on this machine, with live traffic.
#[derive(Parser)]
#[command(name = "starling demo")]
pub(super) struct Options {
    /// How many nodes to start with.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    nodes: u16,
    /// Print lines instead of a screen; this is also what happens without a terminal.
    #[arg(long)]
    plain: bool,
    /// In plain mode: how long the traffic runs.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// In plain mode: what happens meanwhile, evenly spread: add, drain, kill, restart.
    #[arg(long, value_delimiter = ',', default_value = "add,drain")]
    script: Vec<Step>,
    /// How many keys the traffic writes.
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    keys: u32,
}

/// Something that happens to the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Step {
    /// Another node joins.
    Add,
    /// A node hands over its slots and ends.
    Drain,
    /// A node is ended by SIGKILL; what only it held is lost.
    Kill,
    /// The killed node starts again.
    Restart,
}

/// Runs `starling demo`.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    let arguments = std::iter::once("starling demo").chain(arguments.iter().map(String::as_str));
    let options = match Options::try_parse_from(arguments) {
        Ok(options) => options,
        Err(error) => return super::usage(&error),
    };
    let stop = Arc::new(AtomicBool::new(false));
    if let Err(error) = stop_on_signals(Arc::clone(&stop)) {
        eprintln!("signals cannot be handled: {error}");
        return ExitCode::FAILURE;
    }
    match demo(&options, &stop) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the demo has failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether everything that was acknowledged could be read back.
fn demo(options: &Options, stop: &Arc<AtomicBool>) -> io::Result<bool> {
    println!("starting {} nodes", options.nodes);
    let started = Instant::now();
    let mut nodes = DemoNodes::start(options.nodes)?;
    nodes.until_whole(Duration::from_secs(60), stop)?;
    println!(
        "a cluster of {} after {:.1} s, in {}",
        options.nodes,
        started.elapsed().as_secs_f64(),
        nodes.directory().display()
    );
    let traffic = Traffic::start(nodes.addresses(), options.keys);
    let is_plain = options.plain || !io::stdout().is_terminal() || !io::stdin().is_terminal();
    if is_plain {
        plain::run(options, &mut nodes, &traffic, stop)?;
    } else {
        screen::run(&mut nodes, &traffic, stop)?;
    }
    let report = traffic.finish(&nodes.addresses(), &nodes.lost_slots());
    println!("{report}");
    Ok(report.is_good())
}

/// Ctrl-C and SIGTERM end the demo in order: its nodes are in process groups of their own, and end with it.
fn stop_on_signals(stop: Arc<AtomicBool>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        runtime.block_on(async {
            let Ok(mut terminate) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) else {
                return;
            };
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            stop.store(true, Ordering::Release);
        });
    })?;
    Ok(())
}
