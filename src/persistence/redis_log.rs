//! Redis's log on disk, which is read here and never written: a base, and files of commands behind it.
//!
//! ```text
//!  appendonly.aof.manifest        file "appendonly.aof.1.base.rdb" seq 1 type b, and so on
//!  appendonly.aof.1.base.rdb      a snapshot, or commands (`aof-use-rdb-preamble no`)
//!  appendonly.aof.1.incr.aof      commands as a client would send them, with #TS:<Unix seconds> between
//!  appendonly.aof                 before Redis 7.0: commands, or a snapshot and commands behind it
//! ```

pub mod commands;
pub mod manifest;

use manifest::Manifest;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A manifest is shorter than this: whoever made a longer one means harm.
const MANIFEST_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A log that was found: its files, in the order in which they count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisLog {
    pub base: Option<PathBuf>,
    pub increments: Vec<PathBuf>,
}

impl RedisLog {
    /// Reads a manifest; the files lie beside it.
    ///
    /// # Errors
    /// Also where it makes no sense: which line, and what is wrong with it.
    pub fn open(manifest: &Path) -> io::Result<RedisLog> {
        let mut text = Vec::new();
        std::fs::File::open(manifest)?.take(MANIFEST_BYTES_MAX).read_to_end(&mut text)?;
        let Manifest { base, increments } =
            Manifest::parse(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
        let beside = |name: String| manifest.with_file_name(name);
        Ok(RedisLog { base: base.map(beside), increments: increments.into_iter().map(beside).collect() })
    }

    /// The log of one file, as Redis wrote it before 7.0.
    pub fn single(file: &Path) -> RedisLog {
        RedisLog { base: None, increments: vec![file.to_owned()] }
    }

    /// All of its files, the base first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.base.iter().chain(&self.increments).map(PathBuf::as_path)
    }
}
