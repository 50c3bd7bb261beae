//! What has to be done now and then for the whole node: measuring rates and memory, closing idle clients.

use super::Services;
use crate::base::clock;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Between two turns.
const PERIOD: Duration = Duration::from_millis(100);

/// Runs for as long as the node does.
pub async fn run(services: Arc<Services>) {
    let mut interval = tokio::time::interval(PERIOD);
    let mut last = [0u64; 3];
    let mut turn = 0u64;
    super::memory::observe(&services);
    loop {
        interval.tick().await;
        turn += 1;
        // A soft output limit runs out though nothing happens on the connection: let those who owe output look.
        for client in services.clients.list().iter().filter(|client| client.output_bytes.load(Ordering::Relaxed) > 0) {
            client.inbox.wake();
        }
        // Where memory has a limit, what is not counted by every change must not run away either.
        if turn.is_multiple_of(10) || services.settings.load().maxmemory != 0 {
            super::memory::observe(&services);
        }
        super::snapshots::keep_rules(&services);
        // Rates over a second, so that INFO shows calm numbers.
        if turn.is_multiple_of(10) {
            let statistics = &services.statistics;
            let now = [
                statistics.commands_processed(),
                statistics.sum(|thread| thread.input_bytes.load(Ordering::Relaxed)),
                statistics.sum(|thread| thread.output_bytes.load(Ordering::Relaxed)),
            ];
            let rates = [
                &statistics.operations_per_second,
                &statistics.input_bytes_per_second,
                &statistics.output_bytes_per_second,
            ];
            for ((rate, now), last) in rates.into_iter().zip(now).zip(&mut last) {
                rate.store(now.saturating_sub(*last), Ordering::Relaxed);
                *last = now;
            }
            close_idle(&services);
        }
    }
}

/// Closes clients that have asked for nothing for `timeout` seconds; subscribers only listen, and stay.
fn close_idle(services: &Services) {
    let timeout = services.settings.load().timeout;
    if timeout == 0 {
        return;
    }
    let now_ms = clock::unix_us() / 1000;
    for client in services.clients.list() {
        let idle_ms = now_ms.saturating_sub(client.active_at_ms.load(Ordering::Relaxed));
        if idle_ms > timeout * 1000 && !client.is_subscribed() {
            client.close();
        }
    }
}
