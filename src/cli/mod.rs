//! The command line: `starling [server] [redis.conf] [--directive value]...`, and the other subcommands.

mod check;
mod client;
mod demo;
mod dump;
mod export;
mod import;
mod observer;
mod panics;
mod pidfile;
mod servers;
mod status;

use crate::config::load::{self, Loaded};
use crate::node::{Ending, Node};
use pidfile::Pidfile;
use std::ffi::OsString;
use std::process::ExitCode;

/// The exit code of a node that was the last one to have some slots.
const ENDED_WITH_LOSS: u8 = 3;

const HELP: &str = "\
Starling: a Redis-protocol cache whose nodes form, balance and heal a cluster by themselves.

Usage: starling [server] [/path/to/redis.conf | -] [--directive value]...

  starling                            a server on 127.0.0.1:6379
  starling --cluster                  a cluster of one
  starling --port 7000 --join localhost:6379
                                      a node that joins it
  starling --port 7001 --join localhost:6379 --arbiter
                                      one that votes in it, and has no slots
  starling --port 7000 --maxmemory 1gb
  starling /etc/redis/redis.conf --requirepass secret
  STARLING_PORT=7000 starling

  starling demo [--help]              a cluster on this machine, with live traffic
  starling status host:port           a cluster in the terminal
  starling check [redis.conf] [--directive value]...
                                      reads a configuration, starts nothing
  starling check [--fix] FILE...      explains snapshots and logs, repairs what can be
  starling dump FILE                  prints a snapshot or a log as commands
  starling export FILE.rdb [--from host:port]
                                      the keys of a server or a cluster, in a snapshot
  starling import FILE [--to host:port]
                                      the keys of a snapshot or a log of Redis, to a server or a cluster

Directives are those of redis.conf; docs/configuration.md lists them all.

  --help, -h                          this text
  --version, -v                       the version
";

/// Runs the program with these arguments, its own name not among them.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let arguments: Vec<String> = arguments.iter().map(|argument| argument.to_string_lossy().into_owned()).collect();
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h" | "help") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        Some("--version" | "-v") => {
            println!("starling {} (redis {})", env!("CARGO_PKG_VERSION"), crate::commands::REDIS_VERSION);
            ExitCode::SUCCESS
        }
        Some("server") => configured(&arguments[1..], serve),
        Some("demo") => demo::run(&arguments[1..]),
        Some("status") => status::run(&arguments[1..]),
        Some("check") => check::run(&arguments[1..]),
        Some("dump") => dump::run(&arguments[1..]),
        Some("export") => export::run(&arguments[1..]),
        Some("import") => import::run(&arguments[1..]),
        _ => configured(&arguments, serve),
    }
}

/// Runs what takes a configuration: `[file | -] [--directive value]...`, or a word that asks for help.
fn configured(arguments: &[String], run: fn(&[String]) -> ExitCode) -> ExitCode {
    match arguments.first().map(String::as_str) {
        Some("--help" | "-h" | "help") => {
            print!("{HELP}");
            ExitCode::SUCCESS
        }
        // Mistyped, most likely; as a configuration that cannot be read it would say less.
        Some(word) if word != "-" && !word.starts_with("--") && !std::path::Path::new(word).exists() => {
            eprintln!("starling: no such subcommand or file: '{word}' (starling --help lists what there is)");
            ExitCode::FAILURE
        }
        _ => run(arguments),
    }
}

/// Prints what clap has to say: help, or what is wrong with the options.
fn usage(error: &clap::Error) -> ExitCode {
    // Nowhere to print to is no reason to fail differently.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn serve(arguments: &[String]) -> ExitCode {
    let loaded = match load::load(arguments, std::env::vars()) {
        Ok(loaded) => loaded,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(error) = crate::node::log::start(&loaded.config) {
        eprintln!("cannot write the log: {error}");
        return ExitCode::FAILURE;
    }
    panics::end_the_process();
    if !loaded.unknown_variables.is_empty() {
        let names = loaded.unknown_variables.join(", ");
        tracing::warn!("these variables of the environment name no directive and are ignored: {names}");
    }
    if !loaded.without_effect.is_empty() {
        let names = loaded.without_effect.join(", ");
        tracing::warn!("these directives are accepted and have no effect here: {names}");
    }
    match run_node(loaded) {
        Ok(Ending::Clean) => ExitCode::SUCCESS,
        Ok(Ending::WithLoss) => ExitCode::from(ENDED_WITH_LOSS),
        Err(error) => {
            tracing::error!("cannot start: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_node(loaded: Loaded) -> std::io::Result<Ending> {
    let config = loaded.config;
    std::env::set_current_dir(&config.dir)
        .map_err(|error| std::io::Error::new(error.kind(), format!("'dir' {}: {error}", config.dir)))?;
    let config = config.standing_in(std::env::current_dir()?.display().to_string());
    let pidfile = config.pidfile.clone();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let node = Node::start(config).await?;
        // Only a node that listens says so: the file may be that of another one on the same port.
        let _pidfile = Pidfile::write(pidfile);
        node.run().await
    })
}
