//! Which kind of file it is.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A file, or a directory of files that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A snapshot; in files of old, with commands of Redis's log behind it.
    Rdb,
    /// A segment of our log.
    Segment,
    /// Our log as a whole: its directory, and the name that its files begin with.
    Log { directory: PathBuf, stem: String },
    /// Redis's log as a whole, by its manifest.
    RedisLog { manifest: PathBuf },
    /// Commands of Redis's log.
    Commands,
}

const OUR_MANIFEST: &str = ".segments";
const REDIS_MANIFEST: &str = ".manifest";

impl Kind {
    /// Looks at a path; `None`: it is something else.
    pub fn of(path: &Path) -> io::Result<Option<Kind>> {
        if path.is_dir() {
            return of_directory(path);
        }
        let mut first = Vec::new();
        File::open(path)?.take(16).read_to_end(&mut first)?;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_ours = first.starts_with(b"starling log ") || name.ends_with(OUR_MANIFEST);
        Ok(if first.starts_with(b"REDIS") || first.starts_with(b"VALKEY") {
            Some(Kind::Rdb)
        } else if first.starts_with(b"STARLOG\n") {
            Some(Kind::Segment)
        } else if let Some(stem) = name.strip_suffix(OUR_MANIFEST).filter(|_| is_ours) {
            Some(Kind::Log { directory: directory_of(path), stem: stem.to_owned() })
        } else if name.ends_with(REDIS_MANIFEST) || first.starts_with(b"file ") {
            Some(Kind::RedisLog { manifest: path.to_owned() })
        } else if name.ends_with(".rdb") {
            Some(Kind::Rdb)
        } else if name.ends_with(".segment") {
            Some(Kind::Segment)
        } else if name.ends_with(".aof") || first.starts_with(b"*") || first.starts_with(b"#TS:") {
            Some(Kind::Commands)
        } else {
            None
        })
    }
}

fn directory_of(path: &Path) -> PathBuf {
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    above.unwrap_or_else(|| Path::new(".")).to_owned()
}

/// By the manifest in it. Ours goes before Redis's: it was made of that.
fn of_directory(path: &Path) -> io::Result<Option<Kind>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string());
    }
    names.sort();
    let named = |ending: &str| names.iter().find(|name| name.ends_with(ending) && !name.starts_with("temp-"));
    Ok(if let Some(stem) = named(OUR_MANIFEST).and_then(|name| name.strip_suffix(OUR_MANIFEST)) {
        Some(Kind::Log { directory: path.to_owned(), stem: stem.to_owned() })
    } else {
        named(REDIS_MANIFEST).map(|name| Kind::RedisLog { manifest: path.join(name) })
    })
}
