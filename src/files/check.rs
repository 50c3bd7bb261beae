//! What is in a file, and whether it is whole.

use super::{Kind, Report, log, rdb, redis_log, segment};
use std::io;
use std::path::Path;

/// Explains a file, or a directory of files that belong together.
///
/// # Errors
/// Where it cannot be read. What is wrong with what was read is no error, but in the report.
pub fn look(path: &Path, kind: &Kind) -> io::Result<Report> {
    match kind {
        Kind::Rdb => rdb_or_log(path),
        Kind::Segment => segment::look(path),
        Kind::Log { directory, stem } => log::look(directory, stem),
        Kind::RedisLog { manifest } => redis_log::look(manifest),
        Kind::Commands => redis_log::look_at_file(path),
    }
}

/// A snapshot alone, or with commands behind it.
fn rdb_or_log(path: &Path) -> io::Result<Report> {
    let (report, end) = rdb::look(path)?;
    match end {
        Some(end) if end < path.metadata()?.len() => redis_log::look_at_file(path),
        _ => Ok(report),
    }
}
