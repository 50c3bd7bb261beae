//! What a node keeps on disk: snapshots in Redis's file format, and the log of what has changed since.
//!
//! Everything that touches a file goes through [`disk`], so that a test can lose what was not synced, fill the disk, or
//! break it.

pub mod directory;
pub mod disk;
pub mod journal;
pub mod keeper;
pub mod loading;
pub mod manifest;
mod positions;
pub mod recovery;
pub mod redis_log;
pub mod saving;
pub mod segment;
