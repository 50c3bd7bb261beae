//! What asks a node to end, and what it does before it does.

use super::redis_log;
use crate::config::Config;
use crate::services::{Services, append_log, snapshots};
use std::io;
use std::sync::Arc;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that ask a node to end.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Signals> {
        Ok(Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// The name of the next one.
    pub(super) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// What the configuration says to a signal of this name.
fn word<'a>(config: &'a Config, name: &str) -> &'a str {
    if name == "SIGINT" { &config.shutdown_on_sigint } else { &config.shutdown_on_sigterm }
}

/// Waits for a reason to end, and takes the last snapshot where one is wanted. Who fails at that goes on.
pub(super) async fn wait(services: &Arc<Services>, signals: &mut Signals) {
    loop {
        let name = tokio::select! {
            name = signals.next() => name,
            // The last snapshot has been taken by whoever says this.
            () = services.shutdown.notified() => return tracing::info!("Told to shut down by a client"),
        };
        tracing::info!("Received {name}, shutting down");
        let (saves, forces) = {
            let config = services.settings.load();
            match word(&config, name) {
                "save" => (Some(true), false),
                "nosave" => (Some(false), false),
                "force" => (None, true),
                _ => (None, false),
            }
        };
        tokio::select! {
            may_end = snapshots::save_before_end(services, saves, forces) => {
                if may_end {
                    return;
                }
                tracing::warn!("{name} received but errors trying to shut down the server, check the logs for more information");
            }
            name = signals.next() => return tracing::warn!("Received {name} again, ending without a snapshot"),
        }
    }
}

/// Loads what was saved, unless something asks the node to end meanwhile: false.
pub(super) async fn load(services: &Arc<Services>, signals: &mut Signals) -> io::Result<bool> {
    let loader = Arc::clone(services);
    let mut loading = tokio::task::spawn_blocking(move || append_log::restore(&loader, redis_log::load));
    tokio::select! {
        loaded = &mut loading => return loaded.map_err(io::Error::other)?.map(|()| true),
        name = signals.next() => tracing::info!("Received {name} while loading, ending"),
        () = services.shutdown.notified() => tracing::info!("Told to shut down by a client while loading"),
    }
    services.snapshots.loads.give_up();
    // What it says does not matter any more.
    let _ = loading.await;
    Ok(false)
}
