//! The command line.

use crate::config::Config;
use crate::node::Node;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program with these arguments.
pub fn run(arguments: Vec<OsString>) -> ExitCode {
    let mut config = Config::default();
    let mut rest = arguments.iter().map(|a| a.to_string_lossy().into_owned());
    while let Some(word) = rest.next() {
        match word.as_str() {
            "--port" => config.port = rest.next().and_then(|p| p.parse().ok()).unwrap_or(6379),
            "--threads" => config.threads = rest.next().and_then(|p| p.parse().ok()).unwrap_or(0),
            "--requirepass" => config.requirepass = rest.next().unwrap_or_default().into_bytes(),
            _ => {}
        }
    }
    tracing_subscriber::fmt().init();
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::FAILURE,
    };
    match runtime.block_on(async { Node::start(config)?.run().await }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            ExitCode::FAILURE
        }
    }
}
