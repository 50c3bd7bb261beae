//! Reading the log back from its segments, and telling what a crash has left from what somebody has destroyed.
//!
//! | found | means |
//! |---|---|
//! | the last segment ends in zeros, or with its last block | all is there |
//! | it ends in a part of a block, or in blocks behind a hole, of none of which it was known that they are kept | a torn tail: it is cut, with a warning (`aof-load-truncated`) |
//! | a block is not there that had been kept when a later one was written | damage: nobody knows what is missing, so the log is not used |
//! | an earlier segment ends before the next one says | damage |
//! | a segment in the middle is missing, or is another log's | damage |
//! | the last segment has no header and nothing behind it | it was about to be made: it does not count |

use super::disk::Disk;
use super::journal::Place;
use super::manifest::Names;
use super::segment::{Blocks, End, HEADER_BYTES, Header, NoSegment, Owner};
use crate::base::hlc::Stamp;
use crate::engine::Group;
use std::fmt;
use std::io;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Where the log goes on.
    pub place: Place,
    /// How much of that segment is known to be kept: what comes behind it may be in the kernel's memory only.
    kept: u64,
    /// The stamp of the last group, or of the last segment.
    pub stamp: Stamp,
    pub groups: u64,
    /// Bytes of the segments that belong to the log, without what stands in front of [`Found::place`] in its segment.
    pub finished_bytes: u64,
    pub torn: Option<Torn>,
}

/// A torn tail, which does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: String,
    /// The log ends there.
    pub at: u64,
    /// What is left of the tail.
    pub bytes: u64,
}

/// Why a log cannot be used. Each names the file, in its directory, and where it has one the place in it.
#[derive(Debug)]
pub enum Broken {
    Disk {
        file: String,
        error: io::Error,
    },
    Missing {
        file: String,
    },
    NoSegment {
        file: String,
        why: NoSegment,
    },
    /// It stands under a number that is not its own.
    Misnamed {
        file: String,
        number: u32,
    },
    /// Of another node or cluster.
    Foreign {
        file: String,
        owner: Owner,
    },
    Damaged {
        file: String,
        at: u64,
    },
    /// The snapshot that the log begins with.
    Base {
        file: String,
        error: String,
    },
    /// Only where a torn tail is not to be cut.
    Torn(Torn),
    /// What was read makes no sense.
    Group {
        file: String,
        at: u64,
        error: String,
    },
}

impl Broken {
    /// The file that it is about.
    pub fn file(&self) -> &str {
        match self {
            Broken::Disk { file, .. }
            | Broken::Missing { file }
            | Broken::NoSegment { file, .. }
            | Broken::Misnamed { file, .. }
            | Broken::Foreign { file, .. }
            | Broken::Damaged { file, .. }
            | Broken::Base { file, .. }
            | Broken::Torn(Torn { file, .. })
            | Broken::Group { file, .. } => file,
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.file())?;
        match self {
            Broken::Disk { error, .. } => error.fmt(f),
            Broken::Missing { .. } => f.write_str("this segment of the log is missing"),
            Broken::NoSegment { why, .. } => why.fmt(f),
            Broken::Misnamed { number, .. } => write!(f, "it is segment {number} of its log, under another name"),
            Broken::Foreign { owner, .. } => {
                write!(f, "it is the log of node {:032x} of cluster {:032x}", owner.node, owner.cluster)
            }
            Broken::Damaged { at, .. } => {
                write!(f, "damaged at byte {at}: what stood there had been kept, and more behind it")
            }
            Broken::Base { error, .. } => f.write_str(error),
            Broken::Torn(torn) => {
                write!(f, "it ends at byte {} with {} bytes that a crash has left of more", torn.at, torn.bytes)
            }
            Broken::Group { at, error, .. } => write!(f, "in the block at byte {at}: {error}"),
        }
    }
}

impl std::error::Error for Broken {}

/// A segment that was read.
struct Segment {
    file: String,
    bytes: Vec<u8>,
    header: Header,
}

/// Reads the segments of a log from the first on, in order, and gives each group to `visit` with the file and the place of
/// its block.
///
/// # Errors
/// Where the log is not all there; groups in front of that have been visited.
pub fn read(
    disk: &dyn Disk,
    names: &Names,
    owner: Owner,
    first: u32,
    mut visit: impl FnMut(Group<'_>, &str, u64) -> Result<(), String>,
) -> Result<Found, Broken> {
    let last = last_segment(disk, names)?.unwrap_or(0);
    let mut found = Found { place: Place { segment: first.saturating_sub(1), bytes: 0 }, ..Found::default() };
    let mut next = open(disk, names, owner, first, last)?;
    if next.is_none() {
        return Err(Broken::Missing { file: names.segment(first) });
    }
    while let Some(segment) = next {
        next = match segment.header.number {
            number if number < last => open(disk, names, owner, number + 1, last)?,
            _ => None,
        };
        found.finished_bytes += found.place.bytes;
        let before = next.as_ref().map(|next| next.header.before);
        read_segment(&segment, before, &mut found, &mut visit)?;
    }
    Ok(found)
}

/// The number of the last segment that is there.
fn last_segment(disk: &dyn Disk, names: &Names) -> Result<Option<u32>, Broken> {
    let list = disk.names().map_err(|error| Broken::Disk { file: disk.place(), error })?;
    Ok(list.iter().filter_map(|name| names.segment_number(name)).max())
}

/// `None`: it is the last, and was about to be made, or there is none.
fn open(disk: &dyn Disk, names: &Names, owner: Owner, number: u32, last: u32) -> Result<Option<Segment>, Broken> {
    if number > last {
        return Ok(None);
    }
    let file = names.segment(number);
    let bytes = match read_file(disk, &file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Broken::Missing { file }),
        Err(error) => return Err(Broken::Disk { file, error }),
        Ok(bytes) => bytes,
    };
    let header = match Header::decode(&bytes) {
        Ok(header) => header,
        Err(why) => {
            // Its header is kept before its first block is written.
            let is_empty = bytes.iter().skip(HEADER_BYTES).all(|byte| *byte == 0);
            let is_newer = matches!(why, NoSegment::Newer(_));
            return match number == last && is_empty && !is_newer {
                true => Ok(None),
                false => Err(Broken::NoSegment { file, why }),
            };
        }
    };
    if header.number != number {
        return Err(Broken::Misnamed { file, number: header.number });
    }
    if header.owner != owner {
        return Err(Broken::Foreign { file, owner: header.owner });
    }
    Ok(Some(Segment { file, bytes, header }))
}

/// `before`: how much of it the next segment says belongs to the log; `None`: it is the last.
fn read_segment(
    segment: &Segment,
    before: Option<u64>,
    found: &mut Found,
    visit: &mut impl FnMut(Group<'_>, &str, u64) -> Result<(), String>,
) -> Result<(), Broken> {
    let file = || segment.file.clone();
    found.stamp = found.stamp.max(segment.header.stamp);
    let mut kept = 0;
    let mut blocks = Blocks::new(&segment.bytes, segment.header.number);
    while before.is_none_or(|before| blocks.place() < before) {
        let at = blocks.place();
        let Some(block) = blocks.next() else { break };
        kept = kept.max(block.kept);
        let mut rest = block.groups;
        while !rest.is_empty() {
            let group = Group::read(&mut rest).ok_or_else(|| "it holds something that is no group".to_owned());
            let visited = group.and_then(|group| {
                found.groups += 1;
                found.stamp = found.stamp.max(group.stamp);
                visit(group, &segment.file, at)
            });
            visited.map_err(|error| Broken::Group { file: file(), at, error })?;
        }
    }
    found.kept = kept;
    found.place = Place { segment: segment.header.number, bytes: blocks.place() };
    match before {
        Some(before) if blocks.place() == before => {}
        Some(_) => return Err(Broken::Damaged { file: file(), at: blocks.place() }),
        None => match blocks.end() {
            End::Clean => {}
            End::Damaged => return Err(Broken::Damaged { file: file(), at: blocks.place() }),
            End::Torn { bytes } => found.torn = Some(Torn { file: file(), at: blocks.place(), bytes }),
        },
    }
    Ok(())
}

/// Makes what was found survive a crash, which must be before anything is written that builds on it. The process that wrote
/// it may have ended before it had synced it, or after that had failed: the kernel shows then what it will not write. So it
/// is written again, with the same bytes at the same place.
pub fn settle(disk: &dyn Disk, names: &Names, found: &Found) -> Result<(), Broken> {
    let file = names.segment(found.place.segment);
    let write = || {
        let bytes = read_file(disk, &file)?;
        let header = &bytes[..HEADER_BYTES.min(bytes.len())];
        let at = (found.kept as usize).clamp(header.len(), bytes.len());
        let unsure = &bytes[at..(found.place.bytes as usize).clamp(at, bytes.len())];
        let mut file = disk.open(&file)?;
        file.write_at(header, 0)?;
        file.write_at(unsure, at as u64)?;
        file.sync()?;
        disk.sync()
    };
    write().map_err(|error| Broken::Disk { file: file.clone(), error })
}

/// The whole of a file.
pub fn read_file(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name)?;
    let mut bytes = vec![0; usize::try_from(file.length()?).map_err(io::Error::other)?];
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests;
