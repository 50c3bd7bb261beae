use super::*;
use crate::engine::Engine;
use crate::engine::changes::{DATABASES, group, perform};
use crate::persistence::directory::LogDirectory;
use crate::persistence::keeper::{Fsync, Growth, Settings};
use crate::persistence::segment::Owner;
use crate::rdb::file::{Writer, writer};
use crate::rdb::kind;
use crate::rdb::length::Compression;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const COMMANDS: &[u8] = b"#TS:1700000000\r\n*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n\
                          *1\r\n$5\r\nMULTI\r\n*2\r\n$3\r\nDEL\r\n$1\r\nk\r\n*1\r\n$4\r\nEXEC\r\n";
/// Where the MULTI stands.
const MULTI_AT: usize = 66;
/// Where the SET stands.
const SET_AT: usize = 39;

fn snapshot() -> Vec<u8> {
    let mut records = Vec::new();
    writer::auxiliary(&mut records, "redis-ver", b"7.0.15", Compression::default());
    writer::database(&mut records, 3);
    writer::key(&mut records, kind::STRING, b"text", Some(2_000_000_000_000), None, Compression::default());
    crate::rdb::length::write_string(&mut records, b"two words");
    writer::key(&mut records, kind::LIST, b"list", None, None, Compression::default());
    crate::rdb::length::write(&mut records, 2);
    crate::rdb::length::write_string(&mut records, b"a");
    crate::rdb::length::write_string(&mut records, b"b");
    let mut writer = Writer::new(Vec::new(), true).expect("memory");
    writer.put(&records).expect("memory");
    writer.finish(crate::rdb::file::VERSION).expect("memory").0
}

fn put(place: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = place.join(name);
    std::fs::write(&path, bytes).expect("a writable file");
    path
}

fn look(path: &Path) -> Report {
    let kind = Kind::of(path).expect("readable").expect("a file of data");
    check::look(path, &kind).expect("readable")
}

fn printed(path: &Path) -> (String, bool) {
    let kind = Kind::of(path).expect("readable").expect("a file of data");
    let mut out = Vec::new();
    let is_whole = print::print(path, &kind, &mut out).is_ok();
    (String::from_utf8(out).expect("text"), is_whole)
}

/// A log of a few changes in a directory: returns it, and its last segment.
fn log(place: &Path) -> (PathBuf, PathBuf) {
    let path = place.join("appendonlydir");
    let engine = Arc::new(Engine::new(DATABASES));
    let directory = LogDirectory::open(&path, "appendonly.aof", Owner::default()).expect("nobody else has it");
    let (saving, broken) = (Box::new(Default::default), Box::new(|_: Option<&str>| {}));
    let settings = Settings { fsync: Fsync::Always, growth: Growth::default(), saving, broken };
    let keeper = directory.follow(&engine).keep(None, settings).expect("it is kept");
    let mut runner = TestRunner::deterministic();
    for _ in 0..20 {
        let (database, changes) = group().new_tree(&mut runner).expect("changes").current();
        perform(&engine, database, &changes);
    }
    drop(keeper);
    let segment = path.join("appendonly.aof.1.segment");
    // What was written ahead would take a test long to look at.
    let bytes = std::fs::read(&segment).expect("a segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("a segment") + 65;
    std::fs::write(&segment, &bytes[..end.min(bytes.len())]).expect("writable");
    (path, segment)
}

#[test]
fn a_snapshot_is_explained_and_printed() {
    let place = tempfile::tempdir().expect("a directory");
    let path = put(place.path(), "dump.rdb", &snapshot());
    let report = look(&path);
    assert!(report.is_whole(), "{report:?}");
    assert_eq!(
        report.lines[1..],
        [
            "redis-ver: 7.0.15",
            "database 3: 2 keys (1 list, 1 string)",
            "database 3: 1 keys expire, from 2033-05-18T03:33:20.000Z to 2033-05-18T03:33:20.000Z"
        ]
    );
    let expected = "SELECT 3\nSET text \"two words\"\nPEXPIREAT text 2000000000000\nRPUSH list a b\n";
    assert_eq!(printed(&path), (expected.to_owned(), true));
    // Of one that is cut, what is there is printed.
    let path = put(place.path(), "cut.rdb", &snapshot()[..60]);
    let report = look(&path);
    assert!(report.faults[0].contains("it ends in the middle, at byte"), "{report:?}");
    assert!(report.faults[0].ends_with("behind the key text of database 3"), "{report:?}");
    assert_eq!(report.repair, None);
    assert!(printed(&path).0.starts_with("SELECT 3\nSET text"));
}

#[test]
fn a_log_of_redis_is_explained_and_cut_where_a_command_is_not_whole() {
    let place = tempfile::tempdir().expect("a directory");
    let check = |bytes: &[u8], keeps: Option<usize>| {
        let path = put(place.path(), "a.incr.aof", bytes);
        let report = look(&path);
        assert_eq!(report.is_whole(), keeps.is_none(), "{report:?}");
        assert_eq!(report.repair.as_ref().map(|repair| repair.keeps_bytes), keeps.map(|keeps| keeps as u64));
        if let Some(repair) = report.repair {
            repair.apply().expect("repaired");
            assert_eq!(std::fs::read(repair.original()).expect("kept"), bytes);
            assert!(look(&path).is_whole());
            assert!(repair.apply().is_err(), "what was kept is not written over");
            std::fs::remove_file(repair.original()).expect("it was there");
        }
    };
    check(COMMANDS, None);
    check(&COMMANDS[..MULTI_AT], None);
    check(&COMMANDS[..MULTI_AT - 1], Some(SET_AT));
    check(&COMMANDS[..COMMANDS.len() - 1], Some(MULTI_AT));
    check(&COMMANDS[..COMMANDS.len() - 14], Some(MULTI_AT));
    check(&[COMMANDS, b"junk"].concat(), Some(COMMANDS.len()));
    // As Redis wrote it before 7.0.
    check(&[&snapshot()[..], COMMANDS].concat(), None);
    check(&[&snapshot()[..], &COMMANDS[..MULTI_AT - 1]].concat(), Some(snapshot().len() + SET_AT));
}

#[test]
fn the_files_of_a_manifest_are_explained_and_only_the_last_is_cut() {
    let place = tempfile::tempdir().expect("a directory");
    let manifest = b"file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\nfile a.2.incr.aof seq 2 type i\n";
    put(place.path(), "a.manifest", manifest);
    put(place.path(), "a.1.base.rdb", &snapshot());
    put(place.path(), "a.1.incr.aof", COMMANDS);
    let last = put(place.path(), "a.2.incr.aof", &COMMANDS[..40]);
    let report = look(place.path());
    assert_eq!(report.faults, ["a.2.incr.aof: it ends in the middle of a command, at byte 39"]);
    assert_eq!(report.repair.map(|repair| repair.file), Some(last.clone()));
    std::fs::write(&last, COMMANDS).expect("writable");
    assert!(look(place.path()).is_whole());
    let (text, is_whole) = printed(place.path());
    assert!(is_whole && text.ends_with("SELECT 0\nSET k v\nMULTI\nDEL k\nEXEC\n"), "{text}");
    put(place.path(), "a.1.incr.aof", &COMMANDS[..40]);
    let report = look(place.path());
    assert!(!report.is_whole() && report.repair.is_none());
}

#[test]
fn a_log_is_explained_and_its_torn_tail_is_cut() {
    let place = tempfile::tempdir().expect("a directory");
    let (directory, segment) = log(place.path());
    let report = look(&directory);
    assert!(report.is_whole(), "{report:?}");
    assert!(report.lines.iter().any(|line| line.contains(" groups of ")), "{report:?}");
    let (text, is_whole) = printed(&directory);
    assert!(is_whole && text.contains(" client: "), "{text}");
    // The last bytes are torn off.
    let bytes = std::fs::read(&segment).expect("a segment");
    std::fs::write(&segment, &bytes[..bytes.len() - 70]).expect("writable");
    let report = look(&directory);
    assert!(report.faults[0].contains("a crash has left"), "{report:?}");
    assert_eq!(look(&segment).repair, report.repair);
    report.repair.expect("it can be cut").apply().expect("cut");
    assert!(look(&directory).is_whole() && look(&segment).is_whole());
    // Without its manifest it is nothing.
    std::fs::remove_file(directory.join("appendonly.aof.segments")).expect("it was there");
    assert_eq!(Kind::of(&directory).expect("readable"), None);
}

/// Whichever byte is changed, and wherever it is cut: it is said, or does not matter, and nothing panics.
#[test]
fn damage_is_explained_wherever_it_is() {
    let place = tempfile::tempdir().expect("a directory");
    let (_, segment) = log(place.path());
    let segment = std::fs::read(segment).expect("a segment");
    // Most of a segment's header is empty.
    let of_segment = (0..80).chain(4090..segment.len()).collect::<Vec<_>>();
    let all = |bytes: &[u8]| (0..bytes.len()).collect::<Vec<_>>();
    let snapshot = snapshot();
    for (name, bytes, places) in [
        ("x.rdb", &snapshot[..], all(&snapshot)),
        ("x.aof", COMMANDS, all(COMMANDS)),
        ("x.1.segment", &segment[..], of_segment),
    ] {
        for at in places {
            for change in [Some(1 << (at % 8)), None] {
                let mut damaged = bytes.to_vec();
                match change {
                    Some(bits) => damaged[at] ^= bits,
                    None => damaged.truncate(at),
                }
                let path = put(place.path(), name, &damaged);
                let kind = Kind::of(&path).expect("readable").expect("its name says what it is");
                let report = check::look(&path, &kind).expect("readable");
                if name == "x.rdb" {
                    assert!(!report.is_whole() && report.repair.is_none(), "{name} at {at}");
                }
                let _ = print::print(&path, &kind, &mut std::io::sink());
            }
        }
    }
}
