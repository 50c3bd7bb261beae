//! The manifest of the log on disk: which snapshot it begins with, and which segments follow. And the names of its files.
//!
//! ```text
//!  appendonly.aof.segments        the manifest
//!  appendonly.aof.7.snapshot.rdb  a snapshot, in Redis's format
//!  appendonly.aof.12.segment      what has changed since, and so on with 13, 14 ...
//! ```
//! The manifest is replaced as a whole, when a snapshot is complete and kept: there is no moment at which what it names is
//! not all of the log. Segments that come later than the first are found by their numbers. Redis keeps a manifest of its own
//! beside files of its own (`appendonly.aof.manifest`); the names do not meet.

use super::disk::Disk;
use std::io;

/// The first line of a manifest; the number is its format.
const TITLE: &str = "starling log 1";
/// A manifest is shorter than this.
const BYTES_MAX: usize = 4096;

/// The names of a log's files. All begin with the parameter `appendfilename`.
#[derive(Clone, Debug)]
pub struct Names {
    stem: String,
}

impl Names {
    pub fn new(appendfilename: &str) -> Names {
        Names { stem: appendfilename.to_owned() }
    }

    /// Of the manifest.
    pub fn manifest(&self) -> String {
        format!("{}.segments", self.stem)
    }

    /// Of a snapshot.
    pub fn base(&self, number: u32) -> String {
        format!("{}.{number}.snapshot.rdb", self.stem)
    }

    pub fn segment(&self, number: u32) -> String {
        format!("{}.{number}.segment", self.stem)
    }

    /// What is written first, and then takes the place of a file of this name.
    pub fn temporary(&self, name: &str) -> String {
        format!("temp-{name}")
    }

    /// The number of a segment with this name.
    pub fn segment_number(&self, name: &str) -> Option<u32> {
        self.number(name, ".segment")
    }

    /// The number of a snapshot with this name.
    pub fn base_number(&self, name: &str) -> Option<u32> {
        self.number(name, ".snapshot.rdb")
    }

    fn number(&self, name: &str, ending: &str) -> Option<u32> {
        let digits = name.strip_prefix(&self.stem)?.strip_prefix('.')?.strip_suffix(ending)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    }
}

/// What the log on disk is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The number of the snapshot.
    pub base: u32,
    /// The number of the first segment behind it.
    pub first: u32,
}

impl Manifest {
    /// Reads the manifest of a directory; `None`: there is none.
    ///
    /// # Errors
    /// Also where it is damaged, or of a later format.
    pub fn read(disk: &dyn Disk, names: &Names) -> io::Result<Option<Manifest>> {
        let file = match disk.open(&names.manifest()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut bytes = vec![0; BYTES_MAX];
        let mut length = 0;
        while length < bytes.len() {
            match file.read_at(&mut bytes[length..], length as u64)? {
                0 => break,
                read => length += read,
            }
        }
        let wrong = |what: &str| {
            let text = format!("{}/{}: {what}", disk.place(), names.manifest());
            io::Error::new(io::ErrorKind::InvalidData, text)
        };
        let text = std::str::from_utf8(&bytes[..length]).map_err(|_| wrong("it is no manifest of a log"))?;
        let mut lines = text.lines();
        match lines.next() {
            Some(TITLE) => {}
            Some(line) if line.starts_with("starling log ") => {
                return Err(wrong("it is of a later format than this build knows"));
            }
            _ => return Err(wrong("it is no manifest of a log")),
        }
        let mut number = |name: &str| -> Option<u32> { lines.next()?.strip_prefix(name)?.trim().parse().ok() };
        let manifest = number("base ").zip(number("first ")).map(|(base, first)| Manifest { base, first });
        manifest.filter(|_| lines.next() == Some("end")).map(Some).ok_or_else(|| wrong("it is damaged"))
    }

    /// Puts it in the place of the one before. What it names must have been kept.
    pub fn write(&self, disk: &dyn Disk, names: &Names) -> io::Result<()> {
        let text = format!("{TITLE}\nbase {}\nfirst {}\nend\n", self.base, self.first);
        let temporary = names.temporary(&names.manifest());
        let mut file = disk.create(&temporary)?;
        file.write_at(text.as_bytes(), 0)?;
        file.sync()?;
        disk.rename(&temporary, &names.manifest())?;
        disk.sync()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::persistence::disk::Directory;

    #[test]
    fn names_read_back() {
        let names = Names::new("appendonly.aof");
        assert_eq!(names.segment_number(&names.segment(12)), Some(12));
        assert_eq!(names.base_number(&names.base(7)), Some(7));
        for other in
            ["appendonly.aof.1.incr.aof", "appendonly.aof..segment", "appendonly.aof.-1.segment", "x.1.segment"]
        {
            assert_eq!(names.segment_number(other), None, "{other}");
        }
        // Redis's own, which lies in the same directory and is not ours to remove.
        assert_eq!(names.base_number("appendonly.aof.1.base.rdb"), None);
    }

    #[test]
    fn a_manifest_reads_back_and_what_is_none_is_refused() {
        let place = tempfile::tempdir().expect("a directory");
        let (disk, names) = (Directory::open(place.path()).expect("it is there"), Names::new("a"));
        assert_eq!(Manifest::read(&disk, &names).expect("none"), None);
        for manifest in [Manifest { base: 1, first: 1 }, Manifest { base: 7, first: 12 }] {
            manifest.write(&disk, &names).expect("written");
            assert_eq!(Manifest::read(&disk, &names).expect("read"), Some(manifest));
        }
        let check = |text: &[u8], expected: &str| {
            std::fs::write(place.path().join(names.manifest()), text).expect("written");
            let error = Manifest::read(&disk, &names).expect_err("refused").to_string();
            assert!(error.ends_with(expected), "{error}");
        };
        check(b"", "it is no manifest of a log");
        check(b"file appendonly.aof.1.base.rdb seq 1 type b\n", "it is no manifest of a log");
        check(b"\xff", "it is no manifest of a log");
        check(b"starling log 2\nbase 1\n", "it is of a later format than this build knows");
        check(b"starling log 1\nbase 1\nfirst 1\n", "it is damaged");
        check(b"starling log 1\nbase x\nfirst 1\nend\n", "it is damaged");
    }
}
