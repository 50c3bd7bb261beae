//! `starling status host:port`: the cluster in a terminal.

use super::observer::ClusterReport;
use clap::Parser;
use std::net::ToSocketAddrs;
use std::process::ExitCode;
use std::time::Duration;

/// Shows a cluster: its nodes, who owns what, whether it is healthy.
#[derive(Parser)]
#[command(name = "starling status")]
struct Options {
    /// Any node of the cluster.
    #[arg(default_value = "127.0.0.1:6379")]
    node: String,
    /// Show it again every second, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// Runs `starling status`. Fails where the cluster does not serve all slots.
pub(super) fn run(arguments: &[String]) -> ExitCode {
    let options =
        match Options::try_parse_from(std::iter::once("starling status").chain(arguments.iter().map(String::as_str))) {
            Ok(options) => options,
            Err(error) => return super::usage(&error),
        };
    loop {
        let outcome = show(&options.node);
        if !options.watch {
            return outcome;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn show(node: &str) -> ExitCode {
    let looked = node.to_socket_addrs().and_then(|addresses| ClusterReport::look(&addresses.collect::<Vec<_>>()));
    match looked {
        Ok(report) => {
            report.table().iter().for_each(|line| println!("{line}"));
            let (word, reason) = report.health();
            println!("{word}: {reason}; {} keys on {} nodes", report.keys(), report.nodes.len());
            if word == "critical" { ExitCode::FAILURE } else { ExitCode::SUCCESS }
        }
        Err(error) => {
            eprintln!("{node}: {error}");
            ExitCode::FAILURE
        }
    }
}
