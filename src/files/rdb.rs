//! A snapshot: what is in it, and up to where it can be read.

use super::words::shown;
use super::{Report, moment};
use crate::rdb::Content;
use crate::rdb::file::{Fault, ReadError, Reader, Record};
use crate::values::Limits;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;

/// Bytes of a field about the file that are shown.
const FIELD_BYTES_SHOWN: usize = 100;
const BYTES_BEHIND: &str = "commands follow behind the snapshot";

/// What the keys of a database are.
#[derive(Debug, Default)]
struct Keys {
    by_type: BTreeMap<&'static str, u64>,
    expiring: u64,
    first_deadline: Option<u64>,
    last_deadline: Option<u64>,
}

/// Explains a file. The second: where it ends, if it is whole as far as that.
pub(super) fn look(path: &Path) -> io::Result<(Report, Option<u64>)> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let mut report = Report::default();
    let mut reader = match Reader::new(file) {
        Ok(reader) => reader,
        Err(error) => {
            report.fault(format!("{error}; nothing of it can be read"));
            return Ok((report, None));
        }
    };
    report.say(format!("RDB file, version {}, {bytes} bytes", reader.version()));
    let limits = Limits::default();
    let mut databases: BTreeMap<u64, Keys> = BTreeMap::new();
    let (mut database, mut keys, mut damaged) = (0, 0u64, 0u64);
    let (mut functions, mut last) = (0, "its header".to_owned());
    let ended: Result<u64, ReadError> = loop {
        let record = match reader.next_record() {
            Err(error) => break Err(error),
            Ok(None) => break Ok(reader.offset()),
            Ok(Some(record)) => record,
        };
        match record {
            Record::Auxiliary { name, value } => {
                let is_text = value.len() <= FIELD_BYTES_SHOWN && value.iter().all(|byte| matches!(byte, b' '..=b'~'));
                let value = if is_text { shown(&value) } else { format!("{} bytes", value.len()) };
                report.say(format!("{}: {value}", String::from_utf8_lossy(&name)));
                last = format!("the field {}", shown(&name));
            }
            Record::Database(number) => {
                database = number;
                last = format!("the beginning of database {number}");
            }
            Record::Sizes { .. } => {}
            Record::Function(_) => {
                functions += 1;
                last = "a library of functions".to_owned();
            }
            Record::Key(key) => {
                keys += 1;
                last = format!("the key {} of database {database}", shown(&key.key));
                let entry = databases.entry(database).or_default();
                if let Some(deadline) = key.deadline {
                    entry.expiring += 1;
                    entry.first_deadline = Some(entry.first_deadline.map_or(deadline, |first| first.min(deadline)));
                    entry.last_deadline = entry.last_deadline.max(Some(deadline));
                }
                let kind = match key.read(&limits, 0) {
                    Ok(Some(Content::String(_))) => "string",
                    Ok(Some(Content::Collection(value))) => value.type_name(),
                    Ok(None) => "empty",
                    Err(error) => {
                        damaged += 1;
                        if damaged == 1 {
                            report.fault(format!("the value of kind {} of {last}: {error}", key.kind));
                        }
                        "damaged"
                    }
                };
                *entry.by_type.entry(kind).or_default() += 1;
            }
        }
    };
    for (number, found) in &databases {
        let types: Vec<String> = found.by_type.iter().map(|(name, count)| format!("{count} {name}")).collect();
        let all: u64 = found.by_type.values().sum();
        report.say(format!("database {number}: {all} keys ({})", types.join(", ")));
        if let (Some(first), Some(until)) = (found.first_deadline, found.last_deadline) {
            let (first, until) = (moment::shown(first), moment::shown(until));
            report.say(format!("database {number}: {} keys expire, from {first} to {until}", found.expiring));
        }
    }
    if databases.is_empty() {
        report.say("no keys");
    }
    if functions > 0 {
        report.say(format!("{functions} libraries of functions"));
    }
    if damaged > 1 {
        report.fault(format!("{} values more are damaged", damaged - 1));
    }
    let end = match ended {
        Ok(end) if end < bytes => {
            report.say(format!("{BYTES_BEHIND}, from byte {end}"));
            Some(end)
        }
        Ok(end) => Some(end),
        Err(ReadError { offset, fault: Fault::Checksum }) => {
            report.fault(format!(
                "its checksum is wrong, at byte {offset}: something in it has changed since it was written"
            ));
            None
        }
        Err(error) => {
            report.fault(format!("{error}, behind {last}"));
            None
        }
    };
    if !report.is_whole() {
        let readable = keys - damaged;
        report.say(format!(
            "a snapshot cannot be repaired: {readable} keys of it can be read, and printed by starling dump"
        ));
    }
    let is_whole = report.is_whole();
    Ok((report, end.filter(|_| is_whole)))
}
