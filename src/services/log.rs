//! The log: where it goes and how much it says. The level may change while the node runs; the rest is set at the start.

use crate::config::Config;
use std::sync::OnceLock;
use tracing_subscriber::{EnvFilter, Registry, reload};

type Handle = Box<dyn Fn(EnvFilter) + Send + Sync>;

/// Changes what the log lets through. There is one log in a process.
static FILTER: OnceLock<Handle> = OnceLock::new();

/// What a `loglevel` lets through.
fn filter(loglevel: &str) -> EnvFilter {
    let level = match loglevel {
        "debug" => "debug",
        "warning" => "warn",
        "nothing" => "off",
        _ => "info",
    };
    // openraft says the same again for every message that a voter does not answer, as errors. What it means for this node is
    // logged by who runs it.
    EnvFilter::new(format!("{level},openraft={}", if level == "debug" { "error" } else { "off" }))
}

/// Logs to `logfile`, or to standard output where there is none. At the start `RUST_LOG` says more than `loglevel`.
///
/// # Errors
/// The file cannot be opened.
pub fn start(config: &Config) -> std::io::Result<()> {
    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::util::SubscriberInitExt;
    use tracing_subscriber::{Layer, fmt};
    let initial = EnvFilter::try_from_default_env().unwrap_or_else(|_| filter(&config.loglevel));
    let (filter, handle) = reload::Layer::<EnvFilter, Registry>::new(initial);
    let layer = fmt::layer().with_target(false);
    let layer = if config.logfile.is_empty() {
        let layer = layer.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stdout()));
        if config.log_json { layer.json().boxed() } else { layer.boxed() }
    } else {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&config.logfile)?;
        let layer = layer.with_ansi(false).with_writer(std::sync::Mutex::new(file));
        if config.log_json { layer.json().boxed() } else { layer.boxed() }
    };
    tracing_subscriber::registry().with(filter).with(layer).init();
    // Without its log there is nothing to change, and nowhere to say so.
    let _ = FILTER.set(Box::new(move |filter| {
        let _ = handle.reload(filter);
    }));
    Ok(())
}

/// Changes how much the log says, from now on.
pub fn set_level(loglevel: &str) {
    if let Some(change) = FILTER.get() {
        change(filter(loglevel));
    }
}
