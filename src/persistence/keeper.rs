//! The thread that keeps the log on disk: it reads the log, writes it, syncs it as asked, and says how far it is kept.
//!
//! ```text
//!   appendfsync   written               synced                            replies
//!   always        as soon as asked      with each write, for all in it    leave when what they show is kept
//!   everysec      within 10 ms          each second, and every 32 MB      leave at once
//!   no            within 10 ms          when a segment ends               leave at once
//! ```
//! With `always` zeros are written ahead of the log, when the replies have left, so that the next syncs are shorter.
//!
//! Where a write or a sync fails, changes are refused (-MISCONF) from then on, and what was not kept is written again to a
//! new segment, once a second, until that works: then everything goes on, and nothing is lost. Replies that wait for it are
//! replaced by errors after a while, for nobody can say whether what they tell of will be kept.
//!
//! The log is made shorter (BGREWRITEAOF, or when it has grown) by a snapshot: see `rewriting`.

mod rewriting;

pub use rewriting::clean;

use super::disk::Disk;
use super::journal::Journal;
use super::manifest::{Manifest, Names};
use super::saving::{self, Saved};
use crate::engine::Engine;
use crate::engine::log::{LogOffset, Reader};
use parking_lot::{Condvar, Mutex};
use rewriting::Rewriting;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, oneshot, watch};

/// What is written at once.
const TAKEN_BYTES: usize = 4 * 1024 * 1024;
/// How often it writes what nobody has asked it to write.
const TURN: Duration = Duration::from_millis(10);
/// `everysec`.
const SYNC_PERIOD: Duration = Duration::from_secs(1);
/// What is written and not synced stays in memory: no more than so much.
const UNSYNCED_BYTES: u64 = 32 * 1024 * 1024;
/// How often a disk that has failed is tried again.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// Replies wait no longer for a disk that has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// When what was written is synced: the parameter `appendfsync`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    Always,
    #[default]
    EverySecond,
    No,
}

/// When the log is made shorter by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Growth {
    /// By how much it has grown since the last time; 0: never.
    pub percentage: u64,
    pub bytes_min: u64,
}

/// What INFO says about the log.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Bytes of the snapshot and the segments.
    pub bytes: u64,
    /// The same, when the log was last made shorter.
    pub base_bytes: u64,
    /// Bytes that are not known to be kept.
    pub pending_bytes: u64,
    /// Why the disk does not keep the log, where it does not.
    pub failure: Option<String>,
    /// Since when it has been made shorter, where it is.
    pub rewriting_since: Option<Instant>,
    /// It will be, when a snapshot that runs has ended.
    pub is_rewriting_scheduled: bool,
    pub last_rewriting: Option<Duration>,
    pub last_rewriting_failed: bool,
    pub rewritings: u64,
    pub failed_in_a_row: u64,
    /// Syncs so far, and how long the last took.
    pub syncs: u64,
    pub last_sync: Duration,
    /// It can be read back.
    has_begun: bool,
}

/// Why the log is not made shorter now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotRewritten {
    /// It is being made shorter.
    Runs,
    /// It will be, when a snapshot that runs has ended.
    Scheduled,
    /// The disk does not keep the log.
    Failed,
}

/// How a node's log is kept.
pub struct Settings {
    pub fsync: Fsync,
    pub growth: Growth,
    /// How snapshots are written.
    pub saving: Box<dyn Fn() -> saving::Options + Send>,
    /// Told why changes have to be refused, and when no more.
    pub broken: Told,
}

/// Is told an error, or that there is none any more.
pub type Told = Box<dyn Fn(Option<&str>) + Send>;

/// The log of a node on disk. Its thread ends with it, when all is written and synced.
#[derive(Debug)]
pub struct Keeper {
    orders: Sender<Order>,
    bell: Arc<Notify>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    figures: Mutex<Figures>,
    /// The figures have changed in a way that somebody may wait for.
    changed: Condvar,
    kept: watch::Sender<LogOffset>,
    is_over: AtomicBool,
    /// The node ends with it.
    is_last: AtomicBool,
}

enum Order {
    Fsync(Fsync),
    Growth(Growth),
    Rewrite(oneshot::Sender<Result<(), NotRewritten>>),
    Schedule,
    Rewritten { manifest: Manifest, saved: io::Result<Saved>, superfluous_bytes: u64 },
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("fsync", &self.fsync).field("growth", &self.growth).finish_non_exhaustive()
    }
}

impl Keeper {
    /// Keeps from here on what happens to the keys of the engine. The journal's segment has been begun, or goes on from what
    /// was read; `manifest` is what the directory's says; where
    /// `has_begun` says that there is none, the first thing that happens is that the log gets its beginning. `lock` is let go
    /// of at the end.
    #[expect(clippy::too_many_arguments, reason = "one caller, who has them all")]
    pub(super) fn start(
        engine: &Arc<Engine>,
        disk: Arc<dyn Disk>,
        names: Names,
        journal: Journal,
        reader: Reader,
        manifest: Manifest,
        settings: Settings,
        has_begun: bool,
        lock: std::fs::File,
    ) -> io::Result<Keeper> {
        let (orders, incoming) = channel();
        let bell = engine.log.listen();
        let kept = watch::channel(journal.kept()).0;
        let figures = Mutex::new(Figures { has_begun, ..Figures::default() });
        let shared = Arc::new(Shared {
            figures,
            changed: Condvar::new(),
            kept,
            is_over: AtomicBool::new(false),
            is_last: AtomicBool::new(false),
        });
        let now = Instant::now();
        let mut thread = Thread {
            _lock: lock,
            engine: Arc::clone(engine),
            disk,
            names,
            journal,
            reader,
            base_bytes: 0,
            manifest,
            settings,
            orders: orders.clone(),
            incoming,
            bell: Arc::clone(&bell),
            shared: Arc::clone(&shared),
            last_sync: now,
            failed_since: None,
            retry_at: now,
            rewriting: Rewriting::new(!has_begun),
        };
        thread.base_bytes = thread.length_of_base();
        thread.rewriting.log_bytes = thread.base_bytes + thread.journal.bytes();
        thread.apply_fsync();
        engine.log.set_kept(true);
        let thread = std::thread::Builder::new().name("log-keeper".into()).spawn(move || thread.run())?;
        Ok(Keeper { orders, bell, shared, thread: Some(thread) })
    }

    /// Syncs as told from here on.
    pub fn set_fsync(&self, fsync: Fsync) {
        self.order(Order::Fsync(fsync));
    }

    pub fn set_growth(&self, growth: Growth) {
        self.order(Order::Growth(growth));
    }

    /// Makes the log shorter (BGREWRITEAOF). Answers when that has begun.
    pub fn rewrite(&self) -> oneshot::Receiver<Result<(), NotRewritten>> {
        let (sender, receiver) = oneshot::channel();
        self.order(Order::Rewrite(sender));
        receiver
    }

    /// Makes the log shorter as soon as that can be.
    pub fn schedule(&self) {
        self.order(Order::Schedule);
    }

    /// Waits until the log has a beginning: what is written to it before cannot be read back.
    ///
    /// # Errors
    /// Where that cannot be written.
    pub fn until_begun(&self) -> io::Result<()> {
        let mut figures = self.shared.figures.lock();
        while !figures.has_begun {
            if figures.last_rewriting_failed || figures.failure.is_some() {
                return Err(io::Error::other("the log's beginning cannot be written"));
            }
            self.shared.changed.wait(&mut figures);
        }
        Ok(())
    }

    /// Writes and syncs what there is, and ends with the node: nobody is told of what happens from here on. Whether all that
    /// anybody was told of can be read back.
    pub fn finish(self) -> bool {
        self.shared.is_last.store(true, Ordering::SeqCst);
        let shared = Arc::clone(&self.shared);
        // Its thread ends with it.
        drop(self);
        let figures = shared.figures.lock();
        figures.has_begun && figures.failure.is_none()
    }

    pub fn figures(&self) -> Figures {
        self.shared.figures.lock().clone()
    }

    /// How far the log is kept: changes whenever it is kept further.
    pub fn kept(&self) -> watch::Receiver<LogOffset> {
        self.shared.kept.subscribe()
    }

    fn order(&self, order: Order) {
        // A thread that has ended keeps nothing, and has said so.
        let _ = self.orders.send(order);
        self.bell.notify_one();
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.bell.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Thread {
    engine: Arc<Engine>,
    disk: Arc<dyn Disk>,
    names: Names,
    journal: Journal,
    reader: Reader,
    manifest: Manifest,
    /// Bytes of the snapshot that the log begins with.
    base_bytes: u64,
    settings: Settings,
    orders: Sender<Order>,
    incoming: Receiver<Order>,
    bell: Arc<Notify>,
    shared: Arc<Shared>,
    last_sync: Instant,
    failed_since: Option<Instant>,
    retry_at: Instant,
    rewriting: Rewriting,
    /// Keeps others out of the directory.
    _lock: std::fs::File,
}

impl Thread {
    fn run(mut self) {
        let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_time().build() else {
            return self.failed(&io::Error::other("the thread that keeps the log cannot run"));
        };
        loop {
            let _ = runtime.block_on(async { tokio::time::timeout(TURN, self.bell.notified()).await });
            let is_over = self.shared.is_over.load(Ordering::SeqCst);
            while let Ok(order) = self.incoming.try_recv() {
                self.follow(order);
            }
            if is_over && self.is_last() {
                // What is written behind the last turn is not kept: replies that tell of it never leave.
                self.engine.set_gated(true);
            }
            match self.failed_since {
                None => self.turn(is_over),
                Some(since) => self.try_again(since),
            }
            if self.failed_since.is_none() && !is_over {
                self.rewrite_if_due();
            }
            self.show();
            if is_over {
                return self.end();
            }
        }
    }

    fn is_last(&self) -> bool {
        self.shared.is_last.load(Ordering::SeqCst)
    }

    /// Nobody keeps the log from here on: nobody waits for it either.
    fn end(self) {
        self.rewriting.give_up();
        if self.failed_since.is_some() {
            let bytes = self.journal.pending_bytes();
            tracing::error!("{bytes} bytes of the log could not be written: what they tell of is lost");
        }
        if self.is_last() {
            // As long as somebody reads, writes have a place in the log, behind what is kept: no reply that tells of them leaves.
            std::mem::forget(self.reader);
            return;
        }
        self.engine.log.set_kept(false);
        self.engine.set_gated(false);
        self.engine.log.gates.recover();
        (self.settings.broken)(None);
    }

    /// Writes and syncs what there is.
    fn turn(&mut self, is_over: bool) {
        loop {
            let taken = match self.reader.take(TAKEN_BYTES) {
                Ok(taken) => taken,
                Err(lost) => return self.failed(&io::Error::other(lost)),
            };
            let is_done = taken.is_empty();
            self.journal.take(&taken);
            self.reader.give_back(taken);
            let is_due = match self.settings.fsync {
                _ if is_over => is_done,
                Fsync::Always => true,
                _ if self.engine.log.is_wanted(self.journal.kept()) => true,
                Fsync::EverySecond => {
                    self.last_sync.elapsed() >= SYNC_PERIOD || self.journal.pending_bytes() >= UNSYNCED_BYTES
                }
                Fsync::No => false,
            };
            let written = self.journal.write().and_then(|()| if is_due { self.sync() } else { Ok(()) });
            if let Err(error) = written {
                return self.failed(&error);
            }
            if self.settings.fsync == Fsync::No && !is_over {
                self.journal.believe();
            }
            self.pass();
            if self.settings.fsync == Fsync::Always && !is_over {
                self.journal.prepare();
            }
            if is_done {
                return;
            }
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.last_sync = Instant::now();
        if self.journal.pending_bytes() == 0 {
            return Ok(());
        }
        self.journal.sync()?;
        let mut figures = self.shared.figures.lock();
        figures.syncs += 1;
        figures.last_sync = self.last_sync.elapsed();
        Ok(())
    }

    /// Says how far the log is kept.
    fn pass(&self) {
        let kept = self.journal.kept();
        if self.engine.log.gates.watermark() < kept {
            self.engine.log.gates.pass(kept);
        }
        self.shared.kept.send_if_modified(|before| std::mem::replace(before, kept) != kept);
    }

    fn failed(&mut self, error: &io::Error) {
        tracing::error!("The log cannot be kept on disk, changes are refused until it can: {error}");
        let now = Instant::now();
        self.failed_since = Some(now);
        self.retry_at = now + RETRY_PERIOD;
        self.shared.figures.lock().failure = Some(error.to_string());
        self.shared.changed.notify_all();
        (self.settings.broken)(Some(&error.to_string()));
    }

    fn try_again(&mut self, since: Instant) {
        let now = Instant::now();
        // At its end there is no later time.
        if now < self.retry_at && !self.shared.is_over.load(Ordering::SeqCst) {
            return;
        }
        self.retry_at = now + RETRY_PERIOD;
        match self.journal.resume() {
            Ok(_) => {
                tracing::warn!("The log is kept on disk again, after {} s; nothing is lost", since.elapsed().as_secs());
                self.failed_since = None;
                self.engine.log.gates.recover();
                self.pass();
                self.shared.figures.lock().failure = None;
                (self.settings.broken)(None);
            }
            Err(error) if since.elapsed() >= PATIENCE => self.engine.log.gates.fail(&error.to_string()),
            Err(error) => tracing::debug!("The log can still not be kept: {error}"),
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Fsync(fsync) => {
                self.settings.fsync = fsync;
                self.apply_fsync();
            }
            Order::Growth(growth) => self.settings.growth = growth,
            Order::Rewrite(answer) => {
                let outcome = self.rewrite();
                if outcome == Err(NotRewritten::Scheduled) {
                    self.rewriting.is_scheduled = true;
                }
                // Who has asked may have gone.
                let _ = answer.send(outcome);
            }
            Order::Schedule => self.rewriting.is_scheduled = true,
            Order::Rewritten { manifest, saved, superfluous_bytes } => {
                self.rewritten(manifest, saved, superfluous_bytes)
            }
        }
    }

    fn apply_fsync(&mut self) {
        self.engine.log.set_synced(self.settings.fsync != Fsync::No);
        if self.settings.fsync != Fsync::Always {
            return self.engine.set_gated(false);
        }
        // What comes from here on waits; what was said before was said without waiting.
        self.engine.set_gated(true);
    }

    fn length_of_base(&self) -> u64 {
        let length = self.disk.open(&self.names.base(self.manifest.base)).and_then(|file| file.length());
        length.unwrap_or(0)
    }

    fn show(&self) {
        let mut figures = self.shared.figures.lock();
        figures.bytes = self.base_bytes + self.journal.bytes();
        figures.base_bytes = self.rewriting.log_bytes;
        figures.pending_bytes = self.engine.log.end().0 - self.journal.kept().0;
        figures.is_rewriting_scheduled = self.rewriting.is_scheduled;
    }
}

#[cfg(test)]
mod tests;
