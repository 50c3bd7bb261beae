//! Writes a snapshot as an RDB file: under another name, synced, and renamed when it is whole.
//!
//! Records are encoded where the snapshot hands them out, often under the lock of a slot: into memory, and nothing else is
//! done there. A value that comes in parts is written element by element, but for streams and hashes of which fields have
//! deadlines: the form of these begins with what is known only at their end, so they are put together again first.

mod encoder;

use super::disk::{Disk, File};
use super::loading::Functions;
use super::positions;
use crate::base::clock;
use crate::base::slot::Slot;
use crate::engine::Engine;
use crate::engine::snapshot::Snapshot;
use crate::rdb::file::{VERSION, Writer, writer};
pub use crate::rdb::length::Compression;
use encoder::Encoder;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// The auxiliary field with the slots' positions.
pub(super) const POSITIONS: &str = "starling-positions";
/// Bytes of records that are written at once.
const WRITE_BYTES: usize = 256 * 1024;
/// More than a snapshot hands out under a lock: what is beyond may be written while it is handed out.
const UNLOCKED_BYTES: usize = 2 * 1024 * 1024;
/// Bytes after which a file is synced while it is written, so that the end has little left to do.
const SYNC_BYTES: u64 = 16 * 1024 * 1024;
/// How often a save that is slowed down looks whether it has been given up.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// How a file is written.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The version of Redis that this server says it is.
    pub redis_version: &'static str,
    /// Bytes of memory that are in use, for whoever wonders.
    pub used_memory: u64,
    /// It is the beginning of a log of commands, in Redis's sense.
    pub is_base: bool,
    pub with_checksum: bool,
    /// Of all strings, but for those that are written in parts: these are never compressed.
    pub compression: Compression,
    /// Keys say when they were last accessed. Where accesses are counted, they always say how often.
    pub with_idle: bool,
    /// It is synced while it is written.
    pub syncs_often: bool,
    /// Microseconds to wait for each key: for tests.
    pub key_delay_us: u64,
    /// What else is said about the file: names and values.
    pub fields: Vec<(&'static str, String)>,
    /// Libraries that were loaded.
    pub functions: Arc<Functions>,
}

/// How far a save is, for whoever looks; and whether it shall go on.
#[derive(Debug, Default)]
pub struct Progress {
    pub keys: AtomicU64,
    /// Keys in all, roughly: some may have gone or come.
    pub total: AtomicU64,
    pub is_given_up: AtomicBool,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    pub keys: u64,
    pub bytes: u64,
    /// Of the format.
    pub version: u16,
}

/// Writes the snapshot to a file of this name, in place of one that has it. The file that was there stays until the new one
/// is whole, and where this fails.
pub fn save(
    engine: &Engine,
    snapshot: &mut Snapshot,
    disk: &dyn Disk,
    name: &str,
    options: &Options,
    progress: &Progress,
) -> io::Result<Saved> {
    let temporary = format!("temp-{}.rdb", std::process::id());
    let saved = write(engine, snapshot, disk.create(&temporary)?, options, progress);
    let saved = saved.and_then(|saved| {
        disk.rename(&temporary, name)?;
        Ok(saved)
    });
    match saved {
        Ok(saved) => {
            disk.sync()?;
            Ok(saved)
        }
        Err(error) => {
            // It is of no use to anybody; where even that fails there is nothing to be done.
            let _ = disk.remove(&temporary);
            Err(error)
        }
    }
}

/// Writes all of the snapshot to a file, and syncs it.
fn write(
    engine: &Engine,
    snapshot: &mut Snapshot,
    file: Box<dyn File>,
    options: &Options,
    progress: &Progress,
) -> io::Result<Saved> {
    let statistics = engine.statistics();
    progress.total.store(statistics.databases.iter().map(|(keys, _)| keys).sum(), Ordering::Relaxed);
    let out = Appending { file, at: 0, synced: 0, syncs_often: options.syncs_often };
    let mut file = Writer::new(out, options.with_checksum)?;
    let mut encoder = Encoder::new(engine, statistics.databases, options);
    describe(&mut encoder.out, snapshot, options);
    let (mut failed, mut has_more) = (Ok(()), true);
    while has_more {
        let before = encoder.keys;
        has_more = snapshot.step(|record| {
            encoder.put(record);
            if encoder.out.len() >= UNLOCKED_BYTES && failed.is_ok() {
                failed = file.put(&encoder.out);
                encoder.out.clear();
            }
        });
        failed?;
        failed = Ok(());
        progress.keys.store(encoder.keys, Ordering::Relaxed);
        if encoder.out.len() >= WRITE_BYTES {
            file.put(&encoder.out)?;
            encoder.out.clear();
        }
        wait((encoder.keys - before).saturating_mul(options.key_delay_us), progress)?;
    }
    file.put(&encoder.out)?;
    let version = encoder.version;
    let keys = encoder.keys;
    let (mut out, header) = file.finish(version)?;
    if version != VERSION {
        out.file.write_at(&header, 0)?;
    }
    out.file.sync()?;
    Ok(Saved { keys, bytes: out.at, version })
}

/// Waits so many microseconds, and no longer than somebody wants the file.
fn wait(microseconds: u64, progress: &Progress) -> io::Result<()> {
    let until_us = clock::boot_us().saturating_add(microseconds);
    loop {
        if progress.is_given_up.load(Ordering::Relaxed) {
            return Err(io::Error::other("it was given up"));
        }
        let left_us = until_us.saturating_sub(clock::boot_us());
        if microseconds == 0 || left_us == 0 {
            return Ok(());
        }
        std::thread::sleep(LOOK_AGAIN.min(Duration::from_micros(left_us)));
    }
}

/// What is said about a file as a whole.
fn describe(out: &mut Vec<u8>, snapshot: &Snapshot, options: &Options) {
    let now_ms = clock::unix_us() / 1000;
    writer::auxiliary(out, "redis-ver", options.redis_version.as_bytes(), options.compression);
    writer::auxiliary(out, "redis-bits", usize::BITS.to_string().as_bytes(), options.compression);
    writer::auxiliary(out, "ctime", (now_ms / 1000).to_string().as_bytes(), options.compression);
    writer::auxiliary(out, "used-mem", options.used_memory.to_string().as_bytes(), options.compression);
    writer::auxiliary(out, "aof-base", if options.is_base { b"1" } else { b"0" }, options.compression);
    writer::auxiliary(out, "starling-time-ms", now_ms.to_string().as_bytes(), options.compression);
    for (name, value) in &options.fields {
        writer::auxiliary(out, name, value.as_bytes(), options.compression);
    }
    let positions: Vec<_> = Slot::all().map(|slot| snapshot.slot_position(slot)).collect();
    writer::auxiliary(out, POSITIONS, &positions::encode(&positions), options.compression);
    for code in &options.functions.libraries {
        writer::function(out, code, options.compression);
    }
}

/// A file that is written from its beginning on.
struct Appending {
    file: Box<dyn File>,
    at: u64,
    synced: u64,
    syncs_often: bool,
}

impl Write for Appending {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, self.at)?;
        self.at += bytes.len() as u64;
        if self.syncs_often && self.at - self.synced >= SYNC_BYTES {
            self.file.sync()?;
            self.synced = self.at;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
