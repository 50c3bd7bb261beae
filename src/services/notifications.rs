//! Keyspace notifications: key events as messages of channels (notify-keyspace-events).
//!
//! ```text
//!  K   __keyspace@<database>__:<key>     the event's name
//!  E   __keyevent@<database>__:<event>   the key
//! ```
//! They reach subscribers of this node, as in Redis Cluster.

use super::Services;
use crate::engine::event::KeyEvent;
use crate::services::clients::Client;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const BY_KEY: u8 = 1;
const BY_EVENT: u8 = 2;

/// Which channels there are.
#[derive(Debug, Default)]
pub struct Notifications {
    channels: AtomicU8,
}

/// Lets the engine tell its events to these services.
pub fn listen(services: &Arc<Services>) {
    // The engine belongs to them.
    let services_of_engine = Arc::downgrade(services);
    services.engine.set_listener(Box::new(move |events| {
        if let Some(services) = services_of_engine.upgrade() {
            tell(&services, events);
        }
    }));
}

/// Follows the letters of notify-keyspace-events.
pub fn configure(services: &Services, letters: &str) {
    let by_key = if letters.contains('K') { BY_KEY } else { 0 };
    let by_event = if letters.contains('E') { BY_EVENT } else { 0 };
    services.notifications.channels.store(by_key | by_event, Ordering::Relaxed);
    // Without a channel there is nothing to tell.
    services.engine.set_event_classes(if by_key | by_event == 0 { "" } else { letters });
}

fn tell(services: &Services, events: &[KeyEvent]) {
    let channels = services.notifications.channels.load(Ordering::Relaxed);
    let limit = services.settings.load().output_limit_pubsub;
    let over_limit = |_: &Client, waiting: usize| limit.hard != 0 && waiting as u64 >= limit.hard;
    for KeyEvent { database, key, event } in events {
        if channels & BY_KEY != 0 {
            let channel = [format!("__keyspace@{database}__:").as_bytes(), key].concat();
            services.pubsub.publish(&channel, event.name.as_bytes(), over_limit);
        }
        if channels & BY_EVENT != 0 {
            let channel = format!("__keyevent@{database}__:{}", event.name);
            services.pubsub.publish(channel.as_bytes(), key, over_limit);
        }
    }
}
