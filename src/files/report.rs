//! What was found in a file, and how it is made whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is in it, for people.
    pub lines: Vec<String>,
    /// What is wrong; none: it is whole.
    pub faults: Vec<String>,
    /// What would make it whole; `None`: nothing that is known here.
    pub repair: Option<Repair>,
}

impl Report {
    pub fn is_whole(&self) -> bool {
        self.faults.is_empty()
    }

    pub(super) fn say(&mut self, line: impl Into<String>) {
        self.lines.push(line.into());
    }

    pub(super) fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    /// Takes over what was found in a part; what is wrong gets the part's name.
    pub(super) fn add(&mut self, name: &str, part: Report) {
        self.lines.push(format!("{name}:"));
        self.lines.extend(part.lines.into_iter().map(|line| format!("  {line}")));
        self.faults.extend(part.faults.into_iter().map(|fault| format!("{name}: {fault}")));
    }
}

/// The end of a file is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    pub file: PathBuf,
    /// What stays.
    pub keeps_bytes: u64,
    /// What goes, for people.
    pub loses: String,
}

impl Repair {
    /// The file, of so many bytes, ends at `at`.
    pub(super) fn cut(file: PathBuf, at: u64, bytes: u64) -> Repair {
        let behind = bytes.saturating_sub(at);
        let loses = format!("the last {behind} bytes, with all changes in them");
        Repair { file, keeps_bytes: at, loses }
    }

    /// Where the file is kept as it was.
    pub fn original(&self) -> PathBuf {
        let mut name = self.file.file_name().unwrap_or_default().to_owned();
        name.push(".before-fix");
        self.file.with_file_name(name)
    }

    /// Keeps the file as it is under another name, and cuts it.
    ///
    /// # Errors
    /// Also where an earlier repair has kept a file under that name: nothing is changed then.
    pub fn apply(&self) -> io::Result<()> {
        let original = self.original();
        let mut kept = OpenOptions::new().write(true).create_new(true).open(&original).map_err(|error| {
            io::Error::new(error.kind(), format!("the file cannot be kept as {}: {error}", original.display()))
        })?;
        io::copy(&mut File::open(&self.file)?, &mut kept)?;
        kept.sync_all()?;
        let above = self.file.parent().filter(|above| !above.as_os_str().is_empty());
        File::open(above.unwrap_or_else(|| Path::new(".")))?.sync_all()?;
        let file = OpenOptions::new().write(true).open(&self.file)?;
        file.set_len(self.keeps_bytes)?;
        file.sync_all()
    }
}
