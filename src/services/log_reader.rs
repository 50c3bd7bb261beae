//! A reader of the log that only counts (DEBUG LOG-READER): for measuring what a reader costs, and for tests of what happens
//! when one stands still. It must have everything, as a disk would.

use crate::engine::Engine;
use crate::engine::log::Behind;
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// It may be so far behind before writers wait.
const LIMIT_BYTES: u64 = 64 * 1024 * 1024;
/// How often it reads what nobody has asked it to read.
const TURN: Duration = Duration::from_millis(10);

/// The node's counting reader, if there is one.
#[derive(Debug, Default)]
pub struct LogReader {
    running: Mutex<Option<Running>>,
}

/// Its thread ends after this, by itself: whoever drops it may hold locks that the thread waits for.
#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    is_over: AtomicBool,
    is_standing: AtomicBool,
    groups: AtomicU64,
}

impl LogReader {
    /// Lets it read, and starts it if need be.
    pub fn start(&self, engine: &Arc<Engine>) -> std::io::Result<()> {
        let mut running = self.running.lock();
        if let Some(running) = &*running {
            running.shared.is_standing.store(false, Ordering::Relaxed);
            return Ok(());
        }
        let shared = Arc::new(Shared::default());
        let (engine, of_thread) = (Arc::clone(engine), Arc::clone(&shared));
        std::thread::Builder::new().name("log-reader".into()).spawn(move || run(&engine, &of_thread))?;
        *running = Some(Running { shared });
        Ok(())
    }

    /// Lets it stand still: writers wait when it is too far behind.
    pub fn stand(&self) {
        if let Some(running) = &*self.running.lock() {
            running.shared.is_standing.store(true, Ordering::Relaxed);
        }
    }

    /// Ends it.
    pub fn stop(&self) {
        drop(self.running.lock().take());
    }

    /// How many groups it has read; `None`: there is no reader.
    pub fn groups(&self) -> Option<u64> {
        self.running.lock().as_ref().map(|running| running.shared.groups.load(Ordering::Relaxed))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Relaxed);
    }
}

fn run(engine: &Arc<Engine>, shared: &Shared) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else { return };
    let (mut reader, bell) = (engine.read_log(Behind::Wait(LIMIT_BYTES)), engine.log.listen());
    while !shared.is_over.load(Ordering::Relaxed) {
        // Asked, or its turn.
        let _ = runtime.block_on(async { tokio::time::timeout(TURN, bell.notified()).await });
        if shared.is_standing.load(Ordering::Relaxed) {
            continue;
        }
        let Ok(chunks) = reader.take(usize::MAX) else { return };
        let groups: usize = chunks.iter().map(|chunk| chunk.groups().count()).sum();
        shared.groups.fetch_add(groups as u64, Ordering::Relaxed);
    }
}
