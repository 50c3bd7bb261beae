//! What an acknowledgement means: who has to have what a reply tells, before the reply leaves.

use std::fmt;

/// From the least that is promised to the most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub enum Acknowledge {
    /// This node alone, as in Redis.
    #[default]
    Async,
    /// One copy besides, in its memory.
    Quorum,
    /// One copy besides, and both on their disks.
    QuorumFsync,
}

impl Acknowledge {
    /// The names of all, in their order: the values of the parameter `acknowledge`, and the words of CLIENT ACK.
    pub const NAMES: &[&str] = &["async", "quorum", "quorum+fsync"];

    /// The one of this name, in whatever case.
    pub fn of_name(name: &[u8]) -> Option<Acknowledge> {
        let all = [Acknowledge::Async, Acknowledge::Quorum, Acknowledge::QuorumFsync];
        all.into_iter().find(|one| one.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        Acknowledge::NAMES[self as usize]
    }
}

impl fmt::Display for Acknowledge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
