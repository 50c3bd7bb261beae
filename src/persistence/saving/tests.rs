use super::*;
use crate::engine::changes::{Change, DATABASES, contents, group, perform, positions};
use crate::engine::entry::Entry;
use crate::engine::{Deadline, event};
use crate::persistence::disk::Directory;
use crate::persistence::loading::{self, LoadError, Loaded, load};
use crate::rdb::payload;
use crate::values::Value;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

const NAME: &str = "dump.rdb";

/// A directory that goes with its guard.
fn directory() -> (tempfile::TempDir, Directory) {
    let guard = tempfile::tempdir().expect("a directory");
    let directory = Directory::open(guard.path()).expect("it is there");
    (guard, directory)
}

fn saved(engine: &Arc<Engine>, disk: &dyn Disk, options: &Options) -> io::Result<Saved> {
    let mut snapshot = engine.begin_snapshot().expect("no other runs");
    save(engine, &mut snapshot, disk, NAME, options, &Progress::default())
}

fn bytes(directory: &tempfile::TempDir) -> Vec<u8> {
    std::fs::read(directory.path().join(NAME)).expect("a file")
}

fn loaded(engine: &Engine, file: &[u8], options: loading::Options) -> Result<Loaded, String> {
    load(engine, file, options, &loading::Progress::default()).map_err(|error| error.to_string())
}

/// A log's base: nothing is left out.
const ALL: loading::Options =
    loading::Options { keeps_expired: true, sets_positions: true, replaces: false, now_ms: 0, threads: 2 };

fn engine_of(groups: &[(u8, Vec<Change>)]) -> Arc<Engine> {
    let engine = Arc::new(Engine::new(DATABASES));
    groups.iter().for_each(|(database, changes)| perform(&engine, *database, changes));
    engine
}

/// All keys of a database. Streams are what Redis 7.0 knows of them: not when a consumer was given something last.
fn comparable(engine: &Engine, database: usize) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut contents = contents(engine, database, Slot::all());
    for (key, parts) in &mut contents {
        let mut keyspace = engine.lock_slot(Slot::of_key(key), database, 0);
        if let Some(value @ Value::Stream(_)) = keyspace.peek(key).and_then(Entry::as_value) {
            parts[0] = payload::of_value(value);
        }
    }
    contents
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// In tests every value but the smallest comes in parts.
    #[test]
    fn what_was_saved_is_loaded(groups in prop::collection::vec(group(), 1..40), with_checksum: bool) {
        let engine = engine_of(&groups);
        let (guard, disk) = directory();
        let options = Options { with_checksum, with_idle: true, syncs_often: true, ..Options::default() };
        let saved = saved(&engine, &disk, &options).expect("it is saved");
        let file = bytes(&guard);
        prop_assert_eq!(saved.bytes, file.len() as u64);
        let version = file.get(5..9).map(|digits| String::from_utf8_lossy(digits).into_owned());
        prop_assert_eq!(version, Some(format!("{:04}", saved.version)));
        let other = Engine::new(DATABASES);
        let loaded = loaded(&other, &file, ALL).expect("it is loaded");
        prop_assert_eq!(loaded.keys, saved.keys);
        for database in 0..DATABASES {
            let [here, there] = [&*engine, &other].map(|engine| comparable(engine, database));
            prop_assert_eq!(here, there);
        }
        prop_assert_eq!(positions(&engine), positions(&other));
    }
}

/// An engine with a key, another that has expired, and a hash of which all fields have.
fn small() -> Arc<Engine> {
    let engine = Arc::new(Engine::new(16));
    let set = |database, key: &[u8], deadline| {
        let mut keyspace = engine.lock_slot(Slot::of_key(key), database, 0);
        keyspace.set_string(key, b"value", deadline);
    };
    set(0, b"stays", Deadline::Clear);
    set(9, b"goes", Deadline::At(1000));
    engine
}

#[test]
fn what_has_expired_is_left_out_unless_a_log_follows() {
    let (guard, disk) = directory();
    let engine = small();
    let mut keyspace = engine.lock_slot(Slot::of_key(b"hash"), 1, 0);
    let fields = [(&b"field"[..], &b"value"[..])];
    keyspace.hash_set(b"hash", fields.into_iter()).expect("a hash");
    keyspace.hash_set_deadlines(b"hash", [(&b"field"[..], Some(1000))].into_iter(), 0, event::HASH_EXPIRE).expect("it");
    drop(keyspace);
    let saved = saved(&engine, &disk, &Options::default()).expect("it is saved");
    assert_eq!((saved.keys, saved.version), (3, 12));
    let at = |now_ms| loading::Options { now_ms, threads: 1, ..Default::default() };
    for (options, counts) in [(at(999), (3, 0, 0)), (at(1000), (1, 1, 1)), (ALL, (3, 0, 0))] {
        let other = Engine::new(16);
        let loaded = loaded(&other, &bytes(&guard), options).expect("it is loaded");
        assert_eq!((loaded.keys, loaded.expired, loaded.empty), counts, "{options:?}");
        assert_eq!(positions(&other) == positions(&engine), options.sets_positions);
    }
}

#[test]
fn what_is_said_of_a_file_is_read() {
    let (guard, disk) = directory();
    let fields = vec![("starling-node", "17".to_owned())];
    let options = Options { redis_version: "7.0.15", is_base: true, used_memory: 5, fields, ..Options::default() };
    assert_eq!(saved(&small(), &disk, &options).expect("it is saved").version, 10);
    let loaded = loaded(&Engine::new(16), &bytes(&guard), ALL).expect("it is loaded");
    let field = |name: &str| {
        let found = loaded.fields.iter().find(|(field, _)| field == name.as_bytes());
        found.map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    for (name, value) in [("redis-ver", "7.0.15"), ("aof-base", "1"), ("used-mem", "5"), ("starling-node", "17")] {
        assert_eq!(field(name).as_deref(), Some(value), "{name}");
    }
    assert!(field("ctime").is_some() && field(POSITIONS).is_none());
}

#[test]
fn a_key_is_there_once() {
    let (guard, disk) = directory();
    let engine = small();
    saved(&engine, &disk, &Options::default()).expect("it is saved");
    let error = loaded(&engine, &bytes(&guard), ALL).expect_err("its keys are there");
    assert!(error.contains("is there already, at byte "), "{error}");
    let replaced = loaded(&engine, &bytes(&guard), loading::Options { replaces: true, ..ALL });
    assert_eq!(replaced.map(|loaded| loaded.keys), Ok(2));
    let error = loaded(&Engine::new(9), &bytes(&guard), ALL).expect_err("there is no database 9");
    assert_eq!(error, "it has keys of database 9, and this server has not so many databases");
}

#[test]
fn a_damaged_file_is_refused_wherever_it_is_damaged() {
    let (guard, disk) = directory();
    saved(&small(), &disk, &Options { with_checksum: true, ..Options::default() }).expect("it is saved");
    let file = bytes(&guard);
    for at in 0..file.len() {
        assert!(loaded(&Engine::new(16), &file[..at], ALL).is_err(), "cut at {at}");
        let mut bad = file.clone();
        bad[at] ^= 0x20;
        assert!(loaded(&Engine::new(16), &bad, ALL).is_err(), "byte {at}");
    }
}

/// The file that was there stays, and nothing else is left.
#[test]
fn who_gives_up_changes_nothing() {
    let (guard, disk) = directory();
    let engine = small();
    saved(&engine, &disk, &Options::default()).expect("it is saved");
    let before = bytes(&guard);
    let progress = Progress::default();
    progress.is_given_up.store(true, Ordering::Relaxed);
    let mut snapshot = engine.begin_snapshot().expect("no other runs");
    save(&engine, &mut snapshot, &disk, NAME, &Options::default(), &progress).expect_err("given up");
    drop(snapshot);
    assert_eq!(disk.names().expect("names"), [NAME]);
    assert_eq!(bytes(&guard), before);
    let progress = loading::Progress::default();
    progress.is_given_up.store(true, Ordering::Relaxed);
    let result = load(&Engine::new(16), &*before, ALL, &progress);
    assert!(matches!(result, Err(LoadError::GivenUp)), "{result:?}");
}

/// How often keys are accessed is kept where that counts, and how long they were idle where that does.
#[test]
fn accesses_are_kept() {
    let (guard, disk) = directory();
    let check = |counts: bool| {
        let engine = small();
        engine.set_frequency(counts, 10, 1, 5_000_000);
        let mut keyspace = engine.lock_slot(Slot::of_key(b"stays"), 0, 0);
        keyspace.set_frequency(b"stays", 77);
        keyspace.set_idle_seconds(b"stays", 4000);
        drop(keyspace);
        saved(&engine, &disk, &Options { with_idle: true, ..Options::default() }).expect("it is saved");
        let other = Engine::new(16);
        other.set_frequency(counts, 10, 1, 6_000_000);
        loaded(&other, &bytes(&guard), ALL).expect("it is loaded");
        let mut keyspace = other.lock_slot(Slot::of_key(b"stays"), 0, 0);
        let access = keyspace.peek(b"stays").map(|entry| entry.access()).expect("the key");
        (other.idle_seconds(access), other.frequency(access))
    };
    assert_eq!(check(true), (None, Some(77)));
    assert_eq!(check(false), (Some(4000), None));
}
