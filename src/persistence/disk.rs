//! A directory of files, as far as persistence needs one: the file system's, or a test's, which loses what was not synced.
//!
//! Promises: what [`File::sync`] has covered, under a name that [`Disk::sync`] has covered, survives a crash. Nothing else
//! does, and any part of it may. After a failed sync nothing is known about what it should have covered, and a later one
//! that succeeds says nothing about it: the kernel forgets pages that it could not write.

use std::fmt::Debug;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// One directory, without those in it. Names are without a path.
pub trait Disk: Send + Sync + Debug {
    /// Makes an empty file, in place of one that has the name.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Opens a file that exists, for reading and writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    /// Gives a file another name, in place of one that has it: there is no moment without.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// The names of all files, in no order.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Makes what was created, renamed and removed survive a crash.
    fn sync(&self) -> io::Result<()>;
    /// Where it is, for messages.
    fn place(&self) -> String;
}

/// A file that is read and written at any place.
pub trait File: Send + Debug {
    /// Writes all of it.
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()>;
    /// Reads some bytes, none only at the end.
    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize>;
    /// Bytes in it.
    fn length(&self) -> io::Result<u64>;
    /// Makes what was written survive a crash.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system.
#[derive(Clone, Debug)]
pub struct Directory {
    path: PathBuf,
}

impl Directory {
    /// The directory at this path, which must exist.
    pub fn open(path: impl Into<PathBuf>) -> io::Result<Directory> {
        let path = path.into();
        match path.metadata()?.is_dir() {
            true => Ok(Directory { path }),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// The same, and makes it where there is none.
    pub fn provide(path: impl Into<PathBuf>) -> io::Result<Directory> {
        let path = path.into();
        match std::fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Err(_) => {}
            Ok(()) => sync_above(&path)?,
        }
        Directory::open(path)
    }

    /// Gives the directory itself another name beside its own, which must be free, and makes that survive a crash.
    pub fn move_to(&self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        sync_above(path)
    }
}

/// The name of a directory survives a crash only when the one above has been synced.
fn sync_above(path: &Path) -> io::Result<()> {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    std::fs::File::open(above.unwrap_or_else(|| ".".as_ref()))?.sync_all()
}

impl Disk for Directory {
    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut options = std::fs::OpenOptions::new();
        Ok(Box::new(options.read(true).write(true).create(true).truncate(true).open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(std::fs::OpenOptions::new().read(true).write(true).open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let entry = entry?;
            // What is not text is not ours.
            if entry.file_type()?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync(&self) -> io::Result<()> {
        std::fs::File::open(&self.path)?.sync_all()
    }

    fn place(&self) -> String {
        self.path.display().to_string()
    }
}

impl File for std::fs::File {
    fn write_at(&mut self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.write_all_at(bytes, at)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> io::Result<usize> {
        FileExt::read_at(self, bytes, at)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

/// A file from its beginning on, for whoever reads streams.
#[derive(Debug)]
pub struct Reading {
    file: Box<dyn File>,
    at: u64,
}

impl Reading {
    pub fn new(file: Box<dyn File>) -> Reading {
        Reading { file, at: 0 }
    }
}

impl io::Read for Reading {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(bytes, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

#[cfg(test)]
pub(crate) mod simulated;
