//! Reads a file, record by record. Values are left as they are written: see [`KeyRecord::read`].

use super::source::Source;
use super::{Access, Fault, ReadError, extent, opcode};
use crate::rdb::payload::{REDIS_MAX, VALKEY};
use crate::rdb::value::read;
use crate::rdb::{Content, Damaged, Reading};
use crate::values::Limits;
use std::borrow::Cow;
use std::io::Read;

/// A checksum stands at the end of versions from this one on.
const CHECKSUM_SINCE: u32 = 5;

/// What a file tells next.
#[derive(Debug)]
pub enum Record<'a> {
    /// Something about the file, or the server that wrote it.
    Auxiliary {
        name: Cow<'a, [u8]>,
        value: Cow<'a, [u8]>,
    },
    /// The keys that follow are of this database.
    Database(u64),
    /// How many keys of the database follow, and how many of them have a deadline: a hint.
    Sizes {
        keys: u64,
        volatile: u64,
    },
    /// The code of a library of functions.
    Function(Cow<'a, [u8]>),
    Key(KeyRecord<'a>),
}

/// A key, and its value as it is written.
#[derive(Clone, Debug)]
pub struct KeyRecord<'a> {
    /// Where it begins, in the file.
    pub offset: u64,
    pub key: Cow<'a, [u8]>,
    /// In Unix milliseconds.
    pub deadline: Option<u64>,
    pub access: Option<Access>,
    pub kind: u8,
    /// The value, behind its kind.
    pub image: &'a [u8],
    pub by_valkey: bool,
}

/// A record that was passed, and lies in the window.
#[derive(Clone, Copy, Debug)]
struct Passed {
    offset: u64,
    kind: u8,
    numbers: (u64, u64),
    deadline: Option<u64>,
    access: Option<Access>,
    /// Places in the window: of the first string, of what stands behind it, and of the end.
    first: usize,
    second: usize,
    end: usize,
}

/// A file that is being read.
#[derive(Debug)]
pub struct Reader<R> {
    source: Source<R>,
    version: u32,
    by_valkey: bool,
    has_ended: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Where it is not one of a version that is read here.
    pub fn new(input: R) -> Result<Reader<R>, ReadError> {
        let mut source = Source::new(input);
        let header: [u8; 9] = source.array().map_err(|error| match error.fault {
            Fault::Ended => ReadError { fault: Fault::Foreign, ..error },
            _ => error,
        })?;
        let (by_valkey, digits) = match (header.strip_prefix(b"REDIS"), header.strip_prefix(b"VALKEY")) {
            (Some(digits), _) => (false, digits),
            (_, Some(digits)) => (true, digits),
            _ => return Err(ReadError { offset: 0, fault: Fault::Foreign }),
        };
        let digits =
            std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
        let version = digits.and_then(|digits| digits.parse().ok());
        let version: u32 = version.ok_or(ReadError { offset: 0, fault: Fault::Foreign })?;
        let of_redis = 1..=u32::from(REDIS_MAX);
        let is_known = if by_valkey { VALKEY.contains(&(version as u16)) } else { of_redis.contains(&version) };
        if !is_known {
            return Err(ReadError { offset: 0, fault: Fault::Version(version) });
        }
        Ok(Reader { source, version, by_valkey, has_ended: false })
    }

    pub fn version(&self) -> u32 {
        self.version
    }

    /// Bytes that have been read.
    pub fn offset(&self) -> u64 {
        self.source.offset()
    }

    /// The next record; `None` at the end, the checksum of which was right.
    ///
    /// # Errors
    /// Where there is something else.
    pub fn next_record(&mut self) -> Result<Option<Record<'_>>, ReadError> {
        if self.has_ended {
            return Ok(None);
        }
        let passed = loop {
            self.source.forget();
            let passed = self.pass_record()?;
            match passed.kind {
                opcode::EOF => return Ok(None),
                // Hints that nobody here takes.
                opcode::SLOT_SIZES => {}
                _ => break passed,
            }
        };
        let Passed { offset, kind, first, second, end, .. } = passed;
        let between = |from, to| self.source.between(from, to);
        let string = |from, to| {
            let read = crate::rdb::Reader::new(between(from, to)).string();
            read.map_err(|Damaged| ReadError { offset, fault: Fault::Damaged })
        };
        Ok(Some(match kind {
            opcode::DATABASE => Record::Database(passed.numbers.0),
            opcode::SIZES => Record::Sizes { keys: passed.numbers.0, volatile: passed.numbers.1 },
            opcode::AUXILIARY => Record::Auxiliary { name: string(first, second)?, value: string(second, end)? },
            opcode::FUNCTION => Record::Function(string(first, end)?),
            _ => Record::Key(KeyRecord {
                offset,
                key: string(first, second)?,
                deadline: passed.deadline,
                access: passed.access,
                kind,
                image: between(second, end),
                by_valkey: self.by_valkey,
            }),
        }))
    }

    /// Passes a record, and the checksum behind the last.
    fn pass_record(&mut self) -> Result<Passed, ReadError> {
        let source = &mut self.source;
        let offset = source.offset();
        let (mut deadline, mut access) = (None, None);
        let begin = source.place();
        let kind = loop {
            let place = source.place();
            match source.byte()? {
                opcode::DEADLINE_MS => deadline = deadline_of(i64::from_le_bytes(source.array()?)),
                opcode::DEADLINE_SECONDS => {
                    deadline = deadline_of(i64::from(i32::from_le_bytes(source.array()?)).saturating_mul(1000));
                }
                opcode::IDLE => access = Some(Access::IdleSeconds(source.length()?)),
                opcode::FREQUENCY => access = Some(Access::Frequency(source.byte()?)),
                // They belong to a key.
                kind if place > begin && kind >= opcode::SLOT_IMPORT_OR_KEY_NOTE => {
                    return Err(ReadError { offset, fault: Fault::Damaged });
                }
                kind => break kind,
            }
        };
        let refused = |fault| Err(ReadError { offset, fault });
        let first = source.place();
        let (mut numbers, mut second) = ((0, 0), first);
        match kind {
            opcode::EOF => self.finish()?,
            opcode::DATABASE => numbers.0 = source.length()?,
            opcode::SIZES => numbers = (source.length()?, source.length()?),
            opcode::SLOT_SIZES => drop((source.length()?, source.length()?, source.length()?)),
            opcode::AUXILIARY => {
                source.pass_string()?;
                second = source.place();
                source.pass_string()?;
            }
            opcode::FUNCTION => source.pass_string()?,
            opcode::FUNCTION_EARLY => return refused(Fault::EarlyFunction),
            opcode::SLOT_IMPORT_OR_KEY_NOTE if self.by_valkey => return refused(Fault::SlotImport),
            opcode::MODULE | opcode::SLOT_IMPORT_OR_KEY_NOTE => return refused(Fault::Module),
            _ => {
                source.pass_string()?;
                second = source.place();
                extent::pass(kind, self.by_valkey, source)?;
            }
        }
        Ok(Passed { offset, kind, numbers, deadline, access, first, second, end: self.source.place() })
    }

    /// Reads the checksum.
    fn finish(&mut self) -> Result<(), ReadError> {
        self.has_ended = true;
        if self.version < CHECKSUM_SINCE && !self.by_valkey {
            return Ok(());
        }
        let checksum = self.source.checksum();
        let said = u64::from_le_bytes(self.source.array()?);
        if said == 0 || said == checksum { Ok(()) } else { Err(self.source.error(Fault::Checksum)) }
    }
}

/// A deadline, as it is written: -1 is none, and what is before 1970 has passed anyway.
fn deadline_of(milliseconds: i64) -> Option<u64> {
    (milliseconds != -1).then(|| u64::try_from(milliseconds).unwrap_or(0))
}

impl KeyRecord<'_> {
    /// What the key holds; `None`: a hash of which all fields have expired. `now_ms` are Unix milliseconds.
    ///
    /// # Errors
    /// Where the value is damaged.
    pub fn read(&self, limits: &Limits, now_ms: u64) -> Result<Option<Content>, ReadError> {
        let reading = Reading { limits, now_ms, by_valkey: self.by_valkey };
        let mut reader = crate::rdb::Reader::new(self.image);
        let damaged = |Damaged| ReadError { offset: self.offset, fault: Fault::Damaged };
        let content = read::read_present(self.kind, &mut reader, &reading).map_err(damaged)?;
        if reader.is_empty() { Ok(content) } else { Err(damaged(Damaged)) }
    }
}
