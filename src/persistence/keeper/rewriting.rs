//! Making the log shorter: all is written that was before the moment of a snapshot, a segment begins there, and when the
//! snapshot's file is whole the manifest names it and that segment; the files before them are removed. Where that fails the
//! log is as long as before, and as good; it is tried again after a pause that doubles from one failure to the next.

use super::{Growth, NotRewritten, Order, TAKEN_BYTES, Thread};
use crate::engine::log::{Chunk, LogOffset};
use crate::engine::snapshot::Snapshot;
use crate::persistence::disk::Disk;
use crate::persistence::manifest::{Manifest, Names};
use crate::persistence::saving::{self, Progress, Saved};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The pause after the first failure, and the longest.
const RETRY_PAUSE_MIN: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How far that is.
pub(super) struct Rewriting {
    is_running: bool,
    /// It begins as soon as that can be.
    pub(super) is_scheduled: bool,
    /// It has failed, and is tried again then.
    retry_at: Option<Instant>,
    /// How far the last one is.
    progress: Arc<Progress>,
    /// Bytes of the log when it was last made shorter, or that was last tried.
    pub(super) log_bytes: u64,
}

impl Rewriting {
    pub(super) fn new(is_scheduled: bool) -> Rewriting {
        Rewriting { is_running: false, is_scheduled, retry_at: None, progress: Arc::default(), log_bytes: 0 }
    }

    pub(super) fn give_up(&self) {
        self.progress.is_given_up.store(true, Ordering::Relaxed);
    }

    fn is_retry_due(&self) -> bool {
        self.retry_at.is_some_and(|at| Instant::now() >= at)
    }
}

/// How long to wait after so many failures in a row.
fn retry_pause(failures: u64) -> Duration {
    let doublings = u32::try_from(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    RETRY_PAUSE_MIN.saturating_mul(2u32.saturating_pow(doublings)).min(RETRY_PAUSE_MAX)
}

impl Thread {
    pub(super) fn rewrite_if_due(&mut self) {
        if self.rewriting.is_running {
            return;
        }
        if !self.rewriting.is_scheduled && !self.rewriting.is_retry_due() {
            if !self.has_grown() {
                return;
            }
            let bytes = self.base_bytes + self.journal.bytes();
            tracing::info!("The log has grown to {bytes} bytes: it is made shorter");
        }
        if self.rewrite() == Ok(()) {
            self.rewriting.is_scheduled = false;
        }
    }

    /// By as much as the configuration says, since it was last made shorter, or that was last tried.
    fn has_grown(&self) -> bool {
        let Growth { percentage, bytes_min } = self.settings.growth;
        let bytes = self.base_bytes + self.journal.bytes();
        let grown = bytes.saturating_sub(self.rewriting.log_bytes) as u128 * 100;
        percentage > 0
            && bytes >= bytes_min
            && grown >= u128::from(percentage) * u128::from(self.rewriting.log_bytes.max(1))
    }

    /// Begins to make the log shorter: all before the snapshot's moment is in segments that will be superfluous then.
    pub(super) fn rewrite(&mut self) -> Result<(), NotRewritten> {
        if self.rewriting.is_running {
            return Err(NotRewritten::Runs);
        }
        if self.failed_since.is_some() {
            return Err(NotRewritten::Failed);
        }
        let snapshot = self.engine.begin_snapshot().map_err(|_| NotRewritten::Scheduled)?;
        let begun = self.begin_segment_at(snapshot.offset()).and_then(|first| self.save(first, snapshot));
        if let Err(error) = begun {
            self.failed(&error);
            return Err(NotRewritten::Failed);
        }
        Ok(())
    }

    /// What the log had before this moment is in segments before the one that begins now.
    fn begin_segment_at(&mut self, moment: LogOffset) -> io::Result<u32> {
        let mut behind: Vec<Arc<Chunk>> = Vec::new();
        while self.journal.taken() < moment && behind.is_empty() {
            let taken = self.reader.take(TAKEN_BYTES).map_err(io::Error::other)?;
            for chunk in taken {
                // A chunk begins where a snapshot does.
                if chunk.start() < moment { self.journal.take(&[chunk]) } else { behind.push(chunk) }
            }
        }
        let first = self.journal.begin_segment();
        self.journal.take(&behind);
        first
    }

    fn save(&mut self, first: u32, mut snapshot: Snapshot) -> io::Result<()> {
        let manifest = Manifest { base: self.next_base()?, first };
        let superfluous_bytes = self.journal.finished_bytes();
        let (engine, disk, orders) = (Arc::clone(&self.engine), Arc::clone(&self.disk), self.orders.clone());
        let (name, bell) = (self.names.base(manifest.base), Arc::clone(&self.bell));
        let progress = Arc::new(Progress::default());
        self.rewriting.progress = Arc::clone(&progress);
        let options = saving::Options { is_base: true, ..(self.settings.saving)() };
        let save = move || {
            let saved = saving::save(&engine, &mut snapshot, &*disk, &name, &options, &progress);
            drop(snapshot);
            let _ = orders.send(Order::Rewritten { manifest, saved, superfluous_bytes });
            bell.notify_one();
        };
        std::thread::Builder::new().name("log-rewriter".into()).spawn(save)?;
        self.rewriting.is_running = true;
        let mut figures = self.shared.figures.lock();
        figures.rewriting_since = Some(Instant::now());
        Ok(())
    }

    fn next_base(&self) -> io::Result<u32> {
        let there = self.disk.names()?.iter().filter_map(|name| self.names.base_number(name)).max();
        Ok(there.unwrap_or(0).max(self.manifest.base) + 1)
    }

    /// The snapshot's file is whole, or will never be.
    pub(super) fn rewritten(&mut self, manifest: Manifest, saved: io::Result<Saved>, superfluous_bytes: u64) {
        self.rewriting.is_running = false;
        let outcome = saved.and_then(|saved| {
            manifest.write(&*self.disk, &self.names)?;
            Ok(saved)
        });
        let mut figures = self.shared.figures.lock();
        figures.last_rewriting = figures.rewriting_since.take().map(|since| since.elapsed());
        figures.last_rewriting_failed = outcome.is_err();
        match outcome {
            Ok(saved) => {
                figures.rewritings += 1;
                figures.failed_in_a_row = 0;
                figures.has_begun = true;
                drop(figures);
                tracing::info!("The log was made shorter: it begins with {} keys in {} bytes", saved.keys, saved.bytes);
                self.manifest = manifest;
                self.base_bytes = saved.bytes;
                self.rewriting.retry_at = None;
                self.journal.forget(superfluous_bytes);
                self.rewriting.log_bytes = self.base_bytes + self.journal.bytes();
                clean(&*self.disk, &self.names, manifest);
            }
            Err(error) => {
                figures.failed_in_a_row += 1;
                let pause = retry_pause(figures.failed_in_a_row);
                drop(figures);
                self.forget(manifest);
                self.rewriting.retry_at = Some(Instant::now() + pause);
                self.rewriting.log_bytes = self.base_bytes + self.journal.bytes();
                let seconds = pause.as_secs();
                tracing::error!(
                    "The log could not be made shorter, and stays as it is; that is tried again in {seconds} s: {error}"
                );
            }
        }
        self.shared.changed.notify_all();
    }

    /// Removes the snapshot that this manifest was to name, for there will be more of them. Where the manifest has its place
    /// already, and only that could not be made to survive a crash, a crash may show either.
    fn forget(&self, manifest: Manifest) {
        if Manifest::read(&*self.disk, &self.names).is_ok_and(|named| named != Some(manifest)) {
            // It may not be there.
            let _ = self.disk.remove(&self.names.base(manifest.base));
        }
    }
}

/// Removes files of the log that its manifest has no use for: what a rewriting has made superfluous, or has left half done.
pub fn clean(disk: &dyn Disk, names: &Names, manifest: Manifest) {
    let is_superfluous = |name: &String| {
        names.base_number(name).is_some_and(|number| number != manifest.base)
            || names.segment_number(name).is_some_and(|number| number < manifest.first)
            || name.starts_with("temp-")
    };
    // A file that stays is in nobody's way, but for its bytes: the next time takes it along.
    let removed =
        disk.names().map(|list| list.iter().filter(|name| is_superfluous(name)).try_for_each(|name| disk.remove(name)));
    if let Err(error) = removed.flatten() {
        tracing::warn!("A file of the log that is of no use any more could not be removed: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        let seconds: Vec<u64> = [1, 2, 3, 6, 7, 8, u64::MAX].map(|failures| retry_pause(failures).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60]);
    }
}
