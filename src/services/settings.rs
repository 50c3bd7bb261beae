//! The node's configuration while it runs: read everywhere, changed by CONFIG SET.

use super::clients::Client;
use crate::config::{Config, OutputLimit};
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The current configuration.
#[derive(Debug)]
pub struct Settings {
    current: ArcSwap<Config>,
    changing: Mutex<()>,
    /// DEBUG SET-ACTIVE-EXPIRE.
    active_expire: AtomicBool,
}

impl Settings {
    pub fn new(config: Config) -> Settings {
        Settings {
            current: ArcSwap::from_pointee(config),
            changing: Mutex::new(()),
            active_expire: AtomicBool::new(true),
        }
    }

    /// A look at it; not to be held while waiting.
    #[inline]
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.current.load()
    }

    /// A look at it that may be kept.
    pub fn load_full(&self) -> Arc<Config> {
        self.current.load_full()
    }

    /// Replaces it by what `change` makes of it; one change at a time.
    pub fn change<E>(&self, change: impl FnOnce(&Config) -> Result<Config, E>) -> Result<Arc<Config>, E> {
        let _one_at_a_time = self.changing.lock();
        let changed = Arc::new(change(&self.current.load())?);
        self.current.store(Arc::clone(&changed));
        Ok(changed)
    }

    /// The output limit of a client's class.
    pub fn output_limit(&self, client: &Client) -> OutputLimit {
        let config = self.current.load();
        if client.is_subscribed() { config.output_limit_pubsub } else { config.output_limit_normal }
    }

    pub fn is_active_expire_on(&self) -> bool {
        self.active_expire.load(Ordering::Relaxed)
    }

    pub fn set_active_expire(&self, on: bool) {
        self.active_expire.store(on, Ordering::Relaxed);
    }
}
