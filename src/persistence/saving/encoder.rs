//! Records of a snapshot to records of a file.

use crate::engine::entry::{Entry, Kind};
use crate::engine::snapshot::{Head, Record};
use crate::engine::{Elements, Engine};
use crate::persistence::saving::Options;
use crate::rdb::file::{Access, VERSION, VERSION_FIELD_DEADLINES, writer};
use crate::rdb::length::Compression;
use crate::rdb::{kind, length, value};
use crate::values::stream::Edit;
use crate::values::{Hash, Limits, Stream, Value};

pub(super) struct Encoder<'a> {
    engine: &'a Engine,
    limits: Limits,
    with_idle: bool,
    compression: Compression,
    /// What has been encoded and not been taken.
    pub(super) out: Vec<u8>,
    /// The database of the keys that were written last.
    database: Option<usize>,
    /// By database: keys, and keys with deadlines; `None`: it has been said.
    sizes: Vec<Option<(u64, u64)>>,
    /// A value that comes in parts.
    begun: Option<Begun>,
    pub(super) keys: u64,
    /// The version of the format that holds what was written.
    pub(super) version: u16,
}

/// How a value that comes in parts is written.
enum Begun {
    /// Its elements follow.
    Streamed(Kind),
    /// The next elements say whether it has fields with deadlines.
    Hash(Key, usize),
    /// Its elements are put together first.
    Whole(Key, Box<Value>),
}

/// A key of which the value is not known yet.
struct Key {
    key: Box<[u8]>,
    deadline: Option<u64>,
    access: Option<Access>,
}

impl Key {
    fn write(&self, kind: u8, out: &mut Vec<u8>, compression: Compression) {
        writer::key(out, kind, &self.key, self.deadline, self.access, compression);
    }
}

impl<'a> Encoder<'a> {
    pub(super) fn new(engine: &'a Engine, sizes: Vec<(u64, u64)>, options: &Options) -> Encoder<'a> {
        Encoder {
            engine,
            limits: engine.limits(),
            with_idle: options.with_idle,
            compression: options.compression,
            out: Vec::new(),
            database: None,
            sizes: sizes.into_iter().map(Some).collect(),
            begun: None,
            keys: 0,
            version: VERSION,
        }
    }

    pub(super) fn put(&mut self, record: Record<'_>) {
        match record {
            Record::Entry { database, entry, .. } => self.put_entry(database, entry),
            Record::Begin(head) => self.begin(head),
            Record::Part(elements) => self.part(elements),
            Record::End => self.end(),
        }
    }

    /// The keys that follow are of this database.
    fn select(&mut self, database: usize) {
        self.keys += 1;
        if self.database != Some(database) {
            self.database = Some(database);
            writer::database(&mut self.out, database);
            if let Some((keys, volatile)) = self.sizes.get_mut(database).and_then(Option::take) {
                writer::sizes(&mut self.out, keys, volatile);
            }
        }
    }

    fn access(&self, bits: u32) -> Option<Access> {
        match self.engine.frequency(bits) {
            Some(counter) => Some(Access::Frequency(counter)),
            None if self.with_idle => {
                self.engine.idle_seconds(bits).map(|seconds| Access::IdleSeconds(u64::from(seconds)))
            }
            None => None,
        }
    }

    fn put_entry(&mut self, database: usize, entry: &Entry) {
        self.select(database);
        let access = self.access(entry.access());
        let (out, compression) = (&mut self.out, self.compression);
        if let Some(value) = entry.as_value() {
            let kind = value::write::kind_of(value);
            writer::key(out, kind, entry.key(), entry.deadline(), access, compression);
            value::write::write_as(out, value, compression);
            self.needs(kind);
        } else if let Some(string) = entry.as_string() {
            writer::key(out, kind::STRING, entry.key(), entry.deadline(), access, compression);
            string.with_bytes(|bytes| length::write_string_as(out, bytes, compression));
        }
    }

    /// What this kind needs of the format.
    fn needs(&mut self, kind: u8) {
        if kind == kind::HASH_DEADLINES_FROM {
            self.version = VERSION_FIELD_DEADLINES;
        }
    }

    fn begin(&mut self, head: Head<'_>) {
        self.select(head.database);
        let key = Key { key: head.key.into(), deadline: head.deadline, access: self.access(head.access) };
        let kind = match head.kind {
            Kind::String => kind::STRING,
            Kind::List => kind::LIST,
            Kind::Set => kind::SET,
            Kind::SortedSet => kind::SORTED_SET,
            Kind::Hash => return self.begun = Some(Begun::Hash(key, head.length)),
            Kind::Stream => {
                return self.begun = Some(Begun::Whole(key, Box::new(Value::Stream(Box::new(Stream::new())))));
            }
        };
        key.write(kind, &mut self.out, self.compression);
        length::write(&mut self.out, head.length as u64);
        self.begun = Some(Begun::Streamed(head.kind));
    }

    fn part(&mut self, elements: &Elements) {
        let (out, compression) = (&mut self.out, self.compression);
        let begun = match self.begun.take() {
            Some(Begun::Hash(key, _)) if !elements.deadlines().is_empty() => {
                Some(Begun::Whole(key, Box::new(Value::Hash(Hash::new()))))
            }
            Some(Begun::Hash(key, count)) => {
                key.write(kind::HASH, out, compression);
                length::write(out, count as u64);
                Some(Begun::Streamed(Kind::Hash))
            }
            begun => begun,
        };
        self.begun = begun;
        match &mut self.begun {
            Some(Begun::Streamed(Kind::String)) => elements.iter().for_each(|bytes| out.extend_from_slice(bytes)),
            Some(Begun::Streamed(Kind::SortedSet)) => {
                for (member, score) in elements.iter().zip(elements.scores()) {
                    length::write_string_as(out, member, compression);
                    out.extend_from_slice(&score.to_le_bytes());
                }
            }
            Some(Begun::Streamed(_)) => {
                elements.iter().for_each(|element| length::write_string_as(out, element, compression))
            }
            Some(Begun::Whole(_, value)) => add(value, elements, &self.limits),
            Some(Begun::Hash(..)) | None => debug_assert!(false, "parts are of a value that has begun"),
        }
    }

    fn end(&mut self) {
        if let Some(Begun::Whole(key, value)) = self.begun.take() {
            let kind = value::write::kind_of(&value);
            key.write(kind, &mut self.out, self.compression);
            value::write::write_as(&mut self.out, &value, self.compression);
            self.needs(kind);
        }
    }
}

/// Adds the elements of a part to a value that is put together.
fn add(value: &mut Value, elements: &Elements, limits: &Limits) {
    match value {
        Value::Hash(hash) => {
            let mut words = elements.iter();
            for deadline in elements.deadlines() {
                let (Some(field), Some(value)) = (words.next(), words.next()) else { return };
                hash.set(field, value, limits);
                if deadline.is_some() {
                    hash.set_deadline(field, *deadline);
                }
            }
        }
        Value::Stream(stream) => {
            for edit in elements.iter().filter_map(Edit::decode) {
                stream.apply(&edit, limits);
            }
        }
        Value::List(_) | Value::Set(_) | Value::SortedSet(_) => debug_assert!(false, "it is written as it comes"),
    }
}
