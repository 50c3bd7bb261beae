//! The node's configuration while it runs: read everywhere, changed by CONFIG SET.

use super::clients::Client;
use crate::config::{Config, OutputLimit};
use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

/// Moves the node's listeners to where a configuration says.
pub type Listen = Box<dyn Fn(&Config) -> io::Result<()> + Send + Sync>;

/// The current configuration.
pub struct Settings {
    current: ArcSwap<Config>,
    changing: Mutex<()>,
    /// DEBUG SET-ACTIVE-EXPIRE.
    active_expire: AtomicBool,
    listen: OnceLock<Listen>,
}

impl Settings {
    pub fn new(config: Config) -> Settings {
        Settings {
            current: ArcSwap::from_pointee(config),
            changing: Mutex::new(()),
            active_expire: AtomicBool::new(true),
            listen: OnceLock::new(),
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
        self.replace(change)
    }

    /// The same by who holds shards, for which a change under way may wait: `None` where there is one.
    pub fn try_change<E>(&self, change: impl FnOnce(&Config) -> Result<Config, E>) -> Option<Result<Arc<Config>, E>> {
        let _one_at_a_time = self.changing.try_lock()?;
        Some(self.replace(change))
    }

    fn replace<E>(&self, change: impl FnOnce(&Config) -> Result<Config, E>) -> Result<Arc<Config>, E> {
        let changed = Arc::new(change(&self.current.load())?);
        self.current.store(Arc::clone(&changed));
        Ok(changed)
    }

    /// Says how listeners move, once there are some.
    pub fn set_listen(&self, listen: Listen) {
        // There is one node in a process, which says it once.
        let _ = self.listen.set(listen);
    }

    /// Listens where `config` says.
    ///
    /// # Errors
    /// An address is not available, and nothing has changed; or nothing listens yet.
    pub fn listen(&self, config: &Config) -> io::Result<()> {
        self.listen.get().ok_or_else(|| io::Error::other("nothing listens yet"))?(config)
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
