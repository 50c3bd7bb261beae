//! Keys on their way between a file and servers: each as the payload that DUMP gives and RESTORE takes.

use crate::rdb::file::reader::{Reader, Record};
use crate::rdb::file::{VERSION, VERSION_FIELD_DEADLINES, Writer, writer};
use crate::rdb::length::Compression;
pub use crate::rdb::payload::Form;
use crate::rdb::{Content, kind, payload};
use crate::values::Limits;
use std::collections::HashSet;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, BufWriter};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of version and checksum behind a payload's value.
const FOOTER_BYTES: usize = 10;

/// A key that is read from a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub database: u64,
    pub key: Vec<u8>,
    /// For RESTORE.
    pub payload: Vec<u8>,
    /// Unix milliseconds.
    pub deadline: Option<u64>,
}

/// Keys that were not given to anybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    pub expired: u64,
    /// They held nothing.
    pub empty: u64,
    /// Libraries of functions.
    pub functions: u64,
}

fn damaged(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

/// Gives all keys of a snapshot that have not expired at this moment (Unix milliseconds) to `visit`, in the order of the file,
/// in a form that their server reads. The second is how far the file is read, in bytes.
///
/// # Errors
/// Where the file is damaged, and those of `visit`.
pub fn read(
    path: &Path,
    now_ms: u64,
    form: Form,
    mut visit: impl FnMut(Entry, u64) -> io::Result<()>,
) -> io::Result<LeftOut> {
    let mut reader = Reader::new(File::open(path)?).map_err(damaged)?;
    let limits = Limits::default();
    let mut left_out = LeftOut::default();
    let mut database = 0;
    loop {
        let at = reader.offset();
        let Some(record) = reader.next_record().map_err(damaged)? else { return Ok(left_out) };
        match record {
            Record::Auxiliary { .. } | Record::Sizes { .. } => {}
            Record::Database(number) => database = number,
            Record::Function(_) => left_out.functions += 1,
            Record::Key(record) if record.deadline.is_some_and(|deadline| deadline <= now_ms) => left_out.expired += 1,
            Record::Key(record) => {
                let named = |error| damaged(format!("the key {}: {error}", super::words::shown(&record.key)));
                match record.read(&limits, now_ms).map_err(named)? {
                    None => left_out.empty += 1,
                    Some(content) => {
                        let (key, deadline) = (record.key.to_vec(), record.deadline);
                        visit(Entry { database, key, payload: payload_of(&content, form), deadline }, at)?;
                    }
                }
            }
        }
    }
}

fn payload_of(content: &Content, form: Form) -> Vec<u8> {
    match content {
        Content::String(bytes) => payload::of_string(bytes),
        Content::Collection(value) => payload::of_value_as(value, form),
    }
}

/// A snapshot that is made of keys which servers have given. It has its name only when it is whole.
#[derive(Debug)]
pub struct Export {
    writer: Writer<BufWriter<File>>,
    path: PathBuf,
    database: Option<u64>,
    version: u16,
    /// What is written already: SCAN may give a key twice, and a file may not have it twice. Two hashes stand for a key.
    seen: HashSet<(u64, u64)>,
    hashers: (RandomState, RandomState),
    records: Vec<u8>,
    pub keys: u64,
}

impl Export {
    /// Begins a file.
    pub fn begin(path: &Path) -> io::Result<Export> {
        let mut writer = Writer::new(BufWriter::new(File::create(part_of(path))?), true)?;
        let mut records = Vec::new();
        writer::auxiliary(
            &mut records,
            "starling-export",
            env!("CARGO_PKG_VERSION").as_bytes(),
            Compression::default(),
        );
        writer.put(&records)?;
        let (seen, hashers) = (HashSet::new(), (RandomState::new(), RandomState::new()));
        let (path, version) = (path.to_owned(), VERSION);
        Ok(Export { writer, path, database: None, version, seen, hashers, records, keys: 0 })
    }

    /// Adds a key, as DUMP gives it.
    ///
    /// # Errors
    /// Also where the payload is none that is known here.
    pub fn add(&mut self, database: u64, key: &[u8], payload: &[u8], deadline: Option<u64>) -> io::Result<()> {
        let named = (database, key);
        if !self.seen.insert((self.hashers.0.hash_one(named), self.hashers.1.hash_one(named))) {
            return Ok(());
        }
        let content = payload::read(payload, &Limits::default(), 0).map_err(|refusal| {
            damaged(format!("the payload of the key {} is not known here: {refusal:?}", super::words::shown(key)))
        })?;
        // As it is written here, whoever has given it.
        let payload = payload_of(&content, Form::Redis);
        let Some((&kind, image)) = payload[..payload.len() - FOOTER_BYTES].split_first() else { return Ok(()) };
        if matches!(kind, kind::HASH_DEADLINES_FROM | kind::HASH_LISTPACK_DEADLINES) {
            self.version = VERSION_FIELD_DEADLINES;
        }
        self.records.clear();
        if self.database != Some(database) {
            writer::database(&mut self.records, usize::try_from(database).unwrap_or_default());
            self.database = Some(database);
        }
        writer::key(&mut self.records, kind, key, deadline, None, Compression::default());
        self.records.extend_from_slice(image);
        self.keys += 1;
        self.writer.put(&self.records)
    }

    /// Ends the file, and gives it its name. Returns its bytes.
    pub fn finish(self) -> io::Result<u64> {
        let (out, header) = self.writer.finish(self.version)?;
        let file = out.into_inner()?;
        file.write_all_at(&header, 0)?;
        file.sync_all()?;
        std::fs::rename(part_of(&self.path), &self.path)?;
        Ok(file.metadata()?.len())
    }

    /// Ends it without a file.
    pub fn give_up(self) {
        // What cannot be removed is of no use to anybody, and has a name that says so.
        let _ = std::fs::remove_file(part_of(&self.path));
    }
}

/// What it is called until it is whole.
fn part_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::list::End;
    use crate::values::{List, Value};

    #[test]
    fn what_is_exported_is_read_again() {
        let place = tempfile::tempdir().expect("a directory");
        let path = place.path().join("a.rdb");
        let mut list = List::new();
        list.push(End::Tail, b"one", &Limits::default());
        let list = payload::of_value(&Value::List(list));
        let text = payload::of_string(b"text");
        let mut export = Export::begin(&path).expect("a file");
        for (database, key, payload, deadline) in [
            (0, &b"a"[..], &text, Some(5000)),
            (0, b"a", &text, None),
            (2, b"a", &list, None),
            (2, b"b", &text, Some(99)),
        ] {
            export.add(database, key, payload, deadline).expect("added");
        }
        assert!(export.add(2, b"c", b"nonsense", None).is_err());
        assert!(!path.exists());
        assert_eq!((export.keys, export.finish().expect("whole") > 50), (3, true));
        let mut found = Vec::new();
        let left_out = read(&path, 100, Form::Redis, |entry, _| {
            found.push(entry);
            Ok(())
        });
        assert_eq!(left_out.expect("whole"), LeftOut { expired: 1, ..LeftOut::default() });
        let entry = |database, payload: &[u8], deadline| Entry {
            database,
            key: b"a".to_vec(),
            payload: payload.to_vec(),
            deadline,
        };
        assert_eq!(found, [entry(0, &text, Some(5000)), entry(2, &list, None)]);
    }
}
