use super::*;
use crate::rdb::length::Compression;
use crate::rdb::{Content, checksum, kind, length, value};
use crate::values::list::End;
use crate::values::{Limits, List, Value};
use proptest::prelude::*;
use std::io::Read;

/// A reader that gives a few bytes at a time.
struct Slowly<'a>(&'a [u8], usize);

impl Read for Slowly<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.1.min(into.len());
        self.0.read(&mut into[..count])
    }
}

/// What a file tells, a line for each record.
fn told_by(input: impl Read) -> Result<Vec<String>, String> {
    let mut reader = Reader::new(input).map_err(|error| error.to_string())?;
    let mut lines = Vec::new();
    while let Some(record) = reader.next_record().map_err(|error| error.to_string())? {
        let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
        lines.push(match record {
            Record::Auxiliary { name, value } => format!("{}: {}", show(&name), show(&value)),
            Record::Database(number) => format!("database {number}"),
            Record::Sizes { keys, volatile } => format!("sizes {keys} {volatile}"),
            Record::Function(code) => format!("function {}", show(&code)),
            Record::Key(record) => {
                let content = record.read(&Limits::default(), 1000).map_err(|error| error.to_string())?;
                let content = match content {
                    None => "nothing".to_owned(),
                    Some(Content::String(bytes)) => show(&bytes),
                    Some(Content::Collection(value)) => format!("{} of {}", value.type_name(), value.len()),
                };
                format!("{} {:?} {:?} {content}", show(&record.key), record.deadline, record.access)
            }
        });
    }
    Ok(lines)
}

fn told(file: &[u8]) -> Result<Vec<String>, String> {
    let whole = told_by(file);
    assert_eq!(told_by(Slowly(file, 3)), whole);
    whole
}

/// A file of these records.
fn file(version: u16, records: &[u8]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new(), true).expect("memory");
    writer.put(records).expect("good");
    let (mut bytes, header) = writer.finish(version).expect("good");
    bytes[..header.len()].copy_from_slice(&header);
    bytes
}

/// A record of a string.
fn string(out: &mut Vec<u8>, key: &[u8], bytes: &[u8]) {
    writer::key(out, kind::STRING, key, None, None, Compression::default());
    length::write_string(out, bytes);
}

#[test]
fn what_is_written_reads_back() {
    let mut records = Vec::new();
    writer::auxiliary(&mut records, "redis-ver", b"7.0.15", Compression::default());
    writer::auxiliary(&mut records, "ctime", b"1700000000", Compression::default());
    writer::function(&mut records, b"#!lua name=x", Compression::default());
    writer::database(&mut records, 3);
    writer::sizes(&mut records, 70_000, 1);
    string(&mut records, b"a", b"value");
    writer::key(&mut records, kind::STRING, b"-12", Some(5000), Some(Access::IdleSeconds(77)), Compression::default());
    length::write_string(&mut records, b"123456");
    let mut list = List::new();
    (0..300).for_each(|_| list.push(End::Tail, &[b'x'; 4000], &Limits::default()));
    let list = Value::List(list);
    writer::key(
        &mut records,
        value::write::kind_of(&list),
        b"list",
        Some(1),
        Some(Access::Frequency(9)),
        Compression::default(),
    );
    value::write::write(&mut records, &list);
    for version in [VERSION, VERSION_FIELD_DEADLINES] {
        let file = file(version, &records);
        assert_eq!(Reader::new(&*file).expect("good").version(), u32::from(version));
        assert_eq!(
            told(&file).expect("good"),
            [
                "redis-ver: 7.0.15",
                "ctime: 1700000000",
                "function #!lua name=x",
                "database 3",
                "sizes 70000 1",
                "a None None value",
                "-12 Some(5000) Some(IdleSeconds(77)) 123456",
                "list Some(1) Some(Frequency(9)) list of 300",
            ]
        );
    }
}

#[test]
fn values_are_found_whatever_their_kind() {
    let check = |kind: u8, image: &[u8], expected: &str| {
        let mut records = Vec::new();
        writer::key(&mut records, kind, b"k", None, None, Compression::default());
        records.extend_from_slice(image);
        string(&mut records, b"behind", b"it");
        let expected = [format!("k None None {expected}"), "behind None None it".to_owned()];
        assert_eq!(told(&file(VERSION, &records)).as_deref(), Ok(&expected[..]), "kind {kind}");
    };
    check(kind::STRING, b"\xc3\x05\x05\x01ab\x20\x01", "ababa");
    check(kind::STRING, b"\xc0\xff", "-1");
    check(kind::STRING, b"\xc1\x00\x01", "256");
    check(kind::STRING, b"\xc2\x00\x00\x01\x00", "65536");
    check(kind::LIST, b"\x02\x01a\xc0\x05", "list of 2");
    check(kind::LIST, b"\x00", "nothing");
    check(kind::SET, b"\x02\x01a\x01b", "set of 2");
    check(kind::SET_INTSET, b"\x0a\x02\0\0\0\x01\0\0\0\x07\0", "set of 1");
    check(kind::HASH, b"\x01\x01f\x01v", "hash of 1");
    check(kind::SORTED_SET, b"\x01\x01m\0\0\0\0\0\0\xf0\x3f", "zset of 1");
    check(kind::SORTED_SET_TEXT, b"\x03\x01m\x031.5\x01n\xfe\x01o\xff", "zset of 3");
    check(kind::LIST_QUICKLIST_2, b"\x01\x01\x01a", "list of 1");
    check(kind::HASH_DEADLINES_FROM, b"\xd0\x07\0\0\0\0\0\0\x02\x01\x01f\x01v\x00\x01g\x01v", "hash of 2");
    // Its deadline, 500, has passed.
    check(kind::HASH_DEADLINES_FROM, b"\xf4\x01\0\0\0\0\0\0\x01\x01\x01f\x01v", "nothing");
    check(kind::STREAM, b"\0\0\0\0\0\0\0\0\0\0", "stream of 0");
}

#[test]
fn what_is_no_file_is_refused() {
    let check = |file: &[u8], expected: &str| {
        assert_eq!(told(file).expect_err("refused"), expected, "{}", file.escape_ascii());
    };
    check(b"", "it is no RDB file, at byte 0");
    check(b"REDIS00", "it is no RDB file, at byte 0");
    check(b"redis0010\xff", "it is no RDB file, at byte 0");
    check(b"REDIS+010\xff", "it is no RDB file, at byte 0");
    check(b"REDIS0000\xff", "version 0 of the format is not known to this server, at byte 0");
    check(b"REDIS0099\xff", "version 99 of the format is not known to this server, at byte 0");
    check(b"VALKEY012\xff", "version 12 of the format is not known to this server, at byte 0");
    check(b"REDIS0010", "it ends in the middle, at byte 9");
    check(b"REDIS0010\xff\0\0", "it ends in the middle, at byte 10");
    check(b"REDIS0010\xff\x01\0\0\0\0\0\0\0", "its checksum is wrong (CRC error), at byte 18");
    check(b"REDIS0010\xf7\x01\x02", "it holds data of a module, and this server has no modules, at byte 9");
    check(b"REDIS0010\x07\x01k\x02", "it holds data of a module, and this server has no modules, at byte 12");
    check(b"REDIS0014\xf3\x01", "it holds data of a module, and this server has no modules, at byte 9");
    check(b"VALKEY080\xf3\x01", "it was written while a slot was being imported, at byte 9");
    check(b"REDIS0010\x63\x01k\x01", "kind 99 of values is not known to this server, at byte 12");
    check(b"REDIS0010\xf9\x05\xfe\x00", "it is damaged, at byte 9");
    // A length that is more than there is costs nothing.
    check(b"REDIS0010\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xffk", "it ends in the middle, at byte 19");
    check(b"REDIS0010\x01\x01k\x81\xff\xff\xff\xff\xff\xff\xff\xff\x01a", "it ends in the middle, at byte 23");
}

#[test]
fn no_checksum_is_none() {
    for file in [&b"REDIS0010\xff\0\0\0\0\0\0\0\0"[..], b"REDIS0004\xff", b"VALKEY080\xff\0\0\0\0\0\0\0\0"] {
        assert_eq!(told(file), Ok(vec![]));
    }
    let mut writer = Writer::new(Vec::new(), false).expect("memory");
    writer.put(b"\xfe\x01").expect("good");
    assert_eq!(writer.finish(VERSION).expect("good").0, b"REDIS0010\xfe\x01\xff\0\0\0\0\0\0\0\0");
}

#[test]
fn hints_and_old_deadlines_are_understood() {
    let mut records = Vec::new();
    // Sizes of slots, so many that none may cost a place on the stack.
    (0..100_000).for_each(|_| records.extend_from_slice(b"\xf4\x01\x02\x00"));
    records.extend_from_slice(b"\xfd\x02\0\0\0\x00\x01k\x01v");
    records.extend_from_slice(b"\xfc\xff\xff\xff\xff\xff\xff\xff\xff\x00\x01l\x01v");
    records.extend_from_slice(b"\xfc\xfe\xff\xff\xff\xff\xff\xff\xff\x00\x01m\x01v");
    let expected = ["k Some(2000) None v", "l None None v", "m Some(0) None v"];
    assert_eq!(told(&file(12, &records)).expect("good"), expected);
}

/// Every byte of a file counts.
#[test]
fn damage_is_noticed() {
    let mut records = Vec::new();
    writer::database(&mut records, 0);
    string(&mut records, b"key", b"some value");
    let good = file(VERSION, &records);
    assert_eq!(checksum::of(&good[..good.len() - 8]).to_le_bytes(), good[good.len() - 8..]);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert!(told(&bad).is_err(), "byte {at}");
        assert!(told(&good[..at]).is_err(), "cut at {at}");
    }
}

proptest! {
    #[test]
    fn any_bytes_do_no_harm(kind in 0u8..30, image in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut records = Vec::new();
        writer::key(&mut records, kind, b"k", None, None, Compression::default());
        records.extend_from_slice(&image);
        let _ = told(&[&header_of(&records)[..], &records].concat());
    }
}

fn header_of(records: &[u8]) -> [u8; 9] {
    if records.len().is_multiple_of(2) { writer::header(VERSION) } else { *b"VALKEY080" }
}
