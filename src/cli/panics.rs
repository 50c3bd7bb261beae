//! What becomes of a panic in a server: the process ends, with one last line in its log.
//!
//! Whatever panicked may have left a shard half changed, a connection in the middle of a reply, or one of the cluster's
//! loops dead. Nobody can tell which, so nothing goes on as if nothing had happened.

use crate::commands::execution;
use std::panic::{self, PanicHookInfo};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long the log may take to write the last line, before it goes to standard error and nowhere else.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// From now on a panic in any thread ends the process, by an abort: the system sees that it did not end well.
pub(super) fn end_the_process() {
    panic::set_hook(Box::new(|panic| {
        static HAS_PANICKED: AtomicBool = AtomicBool::new(false);
        if HAS_PANICKED.swap(true, Ordering::Relaxed) {
            // Another thread says why, and ends this one too.
            thread::sleep(2 * LOG_PATIENCE);
        } else {
            say(last_words(panic));
        }
        std::process::abort();
    }));
}

/// Logs it from a thread of its own: the one that panicked may hold a lock of the log.
fn say(words: String) {
    let (said, is_said) = mpsc::channel();
    let logged = words.clone();
    let logging = thread::Builder::new().spawn(move || {
        tracing::error!("{logged}");
        let _ = said.send(());
    });
    if logging.is_err() || is_said.recv_timeout(LOG_PATIENCE).is_err() {
        eprintln!("{words}");
    }
}

fn last_words(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let place = panic.location().map(|place| format!(" at {}:{}", place.file(), place.line())).unwrap_or_default();
    let command = execution::last_begun().map(|command| format!(", last command '{}'", command.name));
    // One line, whatever was said.
    let reason = panic.payload_as_str().unwrap_or("no reason given").replace(['\r', '\n'], " ");
    format!(
        "PANIC, the process ends: {reason}{place}, thread '{}'{}",
        thread.name().unwrap_or("unnamed"),
        command.unwrap_or_default()
    )
}
