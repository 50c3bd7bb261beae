use super::*;
use crate::engine::changes::{self, Change, DATABASES, NOW_MS, change, group, perform};
use crate::engine::effect::Side;
use crate::engine::export::encode_entry;
use crate::engine::log::{Behind, Chunk};
use crate::engine::{Admission, Deadline, Keyspace};
use crate::values::hash::Stored;
use crate::values::list::End;
use crate::values::sorted_set::Placed;
use crate::values::stream::Edit;
use crate::values::{Limits, Value};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Collections leave their packed forms early: they are read in parts then.
const LITTLE_PACKED: Limits = Limits {
    hll_sparse_max_bytes: 0,
    hash_max_listpack_entries: 2,
    hash_max_listpack_value: 64,
    list_max_listpack_size: 2,
    list_lone_element_bytes: usize::MAX,
    set_max_intset_entries: 2,
    set_max_listpack_entries: 2,
    set_max_listpack_value: 64,
    zset_max_listpack_entries: 2,
    zset_max_listpack_value: 64,
    stream_node_max_bytes: 4096,
    stream_node_max_entries: 3,
};

/// Keys by database and name, with what is in them.
type Contents = BTreeMap<(usize, Vec<u8>), Vec<Vec<u8>>>;

fn contents(engine: &Engine) -> Contents {
    let of = |database| changes::contents(engine, database, Slot::all()).into_iter();
    let databases = 0..engine.database_count();
    databases.flat_map(|database| of(database).map(move |(key, parts)| ((database, key), parts))).collect()
}

/// What a snapshot has handed out.
#[derive(Debug, Default)]
struct Found {
    contents: Contents,
    /// The key of which the value comes in parts, what of it has come, and how much is to come.
    part: Option<(usize, Entry, usize)>,
    /// How many parts there were.
    parts: usize,
}

impl Found {
    fn note(&mut self, record: Record<'_>) {
        match record {
            Record::Entry { database, slot, entry } => {
                assert!(self.part.is_none(), "nothing comes between the parts of a value");
                self.put(database, slot, entry);
            }
            Record::Begin(Head { database, slot, key, kind, length, deadline, .. }) => {
                assert!(self.part.is_none(), "nothing comes between the parts of a value");
                assert_eq!(Slot::of_key(key), slot);
                let value = match kind {
                    Kind::String => None,
                    Kind::List => Some(Value::List(Default::default())),
                    Kind::Set => Some(Value::Set(Default::default())),
                    Kind::Hash => Some(Value::Hash(Default::default())),
                    Kind::SortedSet => Some(Value::SortedSet(Default::default())),
                    Kind::Stream => Some(Value::Stream(Default::default())),
                };
                let entry = match value {
                    Some(value) => Entry::value(key, value, deadline, 0),
                    None => Entry::buffer(key, Vec::new(), deadline, 0),
                };
                self.part = Some((database, entry, length));
            }
            Record::Part(elements) => {
                let (_, entry, _) = self.part.as_mut().expect("a value has begun");
                add_elements(entry, elements);
                self.parts += 1;
            }
            Record::End => {
                let (database, entry, length) = self.part.take().expect("a value has begun");
                let read = entry.as_value().map_or_else(|| entry.as_string().map_or(0, |it| it.len()), Value::len);
                assert_eq!(read, length, "it is as long as it was to be: {entry:?}");
                self.put(database, Slot::of_key(entry.key()), &entry);
            }
        }
    }

    fn put(&mut self, database: usize, slot: Slot, entry: &Entry) {
        let key = entry.key().to_vec();
        assert_eq!(Slot::of_key(&key), slot);
        let twice = self.contents.insert((database, key), changes::parts(entry));
        assert!(twice.is_none(), "a key comes once: {entry:?} in {database}");
    }
}

/// Adds a part to a value; each element is new.
fn add_elements(entry: &mut Entry, elements: &Elements) {
    let limits = Limits::default();
    let mut items = elements.iter();
    match entry.as_value_mut() {
        None => entry.as_buffer_mut().expect("a string").extend(items.flatten()),
        Some(Value::List(list)) => items.for_each(|element| list.push(End::Tail, element, &limits)),
        Some(Value::Set(set)) => items.for_each(|member| assert!(set.add(member, &limits))),
        Some(Value::Hash(hash)) => {
            let mut deadlines = elements.deadlines().iter();
            while let (Some(field), Some(value)) = (items.next(), items.next()) {
                assert_eq!(hash.set(field, value, &limits), Stored::Added);
                hash.set_deadline(field, deadlines.next().copied().flatten());
            }
        }
        Some(Value::Stream(stream)) => {
            items.for_each(|edit| _ = stream.apply(&Edit::decode(edit).expect("an edit"), &limits));
        }
        Some(Value::SortedSet(sorted)) => {
            for (member, score) in items.zip(elements.scores()) {
                assert_eq!(sorted.insert(member, *score, &limits), Placed::Added);
            }
        }
    }
}

/// Reads it to its end.
fn read(mut snapshot: Snapshot) -> Contents {
    let mut found = Found::default();
    while snapshot.step(|record| found.note(record)) {}
    found.contents
}

fn set(engine: &Engine, key: &str, value: &[u8]) {
    with(engine, key, |keys| keys.set_string(key.as_bytes(), value, Deadline::Clear));
}

fn with<R>(engine: &Engine, key: &str, act: impl FnOnce(&mut Keyspace<'_>) -> R) -> R {
    act(&mut engine.lock_slot(Slot::of_key(key.as_bytes()), 0, NOW_MS))
}

fn engine_with(keys: usize) -> Arc<Engine> {
    let engine = Arc::new(Engine::new(1));
    (0..keys).for_each(|number| set(&engine, &format!("key {number}"), b"before"));
    engine
}

proptest! {
    /// Whatever is done between the steps of a snapshot, and whatever snapshots were given up before it, it is what was
    /// there when it began, each key once.
    #[test]
    fn a_snapshot_is_its_moment(
        before in prop::collection::vec(group(), 0..120),
        given_up in prop::collection::vec(group(), 0..4),
        after in prop::collection::vec((group(), any::<bool>(), 0..9usize), 0..120),
    ) {
        let engine = Arc::new(Engine::new(DATABASES));
        engine.set_limits(LITTLE_PACKED);
        before.iter().for_each(|(database, changes)| perform(&engine, *database, changes));
        for (database, changes) in &given_up {
            let mut snapshot = engine.begin_snapshot().expect("no other runs");
            perform(&engine, *database, changes);
            snapshot.step(|_| {});
        }
        let mut snapshot = engine.begin_snapshot().expect("no other runs");
        let (then, mut found) = (contents(&engine), Found::default());
        let positions: Vec<Position> = Slot::all().map(|slot| snapshot.slot_position(slot)).collect();
        prop_assert_eq!(positions, changes::positions(&engine));
        for ((database, changes), waits, steps) in &after {
            if *waits {
                // As writers do who look before they execute: a slot is read ahead of its turn.
                let slot = Slot::of_key(&changes::key(*database));
                engine.lock_slot(slot, 0, NOW_MS).is_congested(&[slot]);
            }
            perform(&engine, *database, changes);
            // The keys are in the slots 5649, 9842 and 13907: the walk comes to them at different times.
            for _ in 0..*steps {
                snapshot.step(|record| found.note(record));
            }
        }
        while snapshot.step(|record| found.note(record)) {}
        prop_assert_eq!(found.contents, then);
        prop_assert_eq!(engine.saved_bytes(), 0);
    }
}

/// What was there is moved here by a flush, once; what comes afterwards is freed as always.
#[test]
fn a_flush_hands_over_what_is_owed_and_no_more() {
    let engine = engine_with(3000);
    let snapshot = engine.begin_snapshot().expect("no other runs");
    let then = contents(&engine);
    for _ in 0..3 {
        engine.lock_all(0, NOW_MS).flush(None);
        (0..3000).for_each(|number| set(&engine, &format!("key {number}"), b"after"));
    }
    let tables = engine.snapshots.state.lock().saved.len();
    assert!(tables <= SLOT_COUNT, "{tables} tables");
    assert_eq!(read(snapshot), then);
    assert_eq!(contents(&engine).len(), 3000);
}

/// Marks wrap: whatever was given up before, nothing is taken for new that is not.
#[test]
fn snapshots_that_are_given_up_hide_nothing() {
    let engine = engine_with(300);
    for round in 0..600usize {
        drop(engine.begin_snapshot().expect("no other runs"));
        // Keys of every mark.
        set(&engine, &format!("key {}", round % 300), b"then");
        let is_complete = round % 100 == 99;
        if is_complete || round % 251 == 0 {
            let snapshot = engine.begin_snapshot().expect("no other runs");
            let then = contents(&engine);
            set(&engine, "key 7", b"after");
            assert_eq!(read(snapshot), then, "round {round}");
        }
    }
}

/// As before, with none that is read to its end in between.
#[test]
fn after_255_given_up_all_marks_are_made_equal() {
    let engine = engine_with(300);
    for round in 0..520usize {
        set(&engine, &format!("key {}", round % 300), b"then");
        let mut snapshot = engine.begin_snapshot().expect("no other runs");
        snapshot.step(|_| {});
        set(&engine, "new", b"");
        drop(snapshot);
        with(&engine, "new", |keys| keys.delete(b"new"));
    }
    let complete = engine.snapshots.state.lock().complete;
    assert_ne!(complete, 0, "one was read to its end");
    let snapshot = engine.begin_snapshot().expect("no other runs");
    let then = contents(&engine);
    assert_eq!(read(snapshot), then);
}

/// Writers wait before they execute while too much waits for the snapshot, until it takes it or ends; so does expiry.
#[test]
fn writers_wait_while_too_much_is_saved() {
    let engine = engine_with(0);
    let slot = Slot::of_key(b"other");
    let is_congested = || engine.lock_slot(slot, 0, NOW_MS).is_congested(&[slot]);
    let large = vec![b'x'; 1_000_000];
    for ends in [false, true] {
        (0..100).for_each(|number| set(&engine, &format!("large {number}"), &large));
        let mut snapshot = engine.begin_snapshot().expect("no other runs");
        let mut overwritten = 0;
        while !is_congested() {
            set(&engine, &format!("large {overwritten}"), b"small");
            overwritten += 1;
        }
        assert!((60..=70).contains(&overwritten), "full after {overwritten} values of a megabyte");
        with(&engine, "other", |keys| keys.set_string(b"other", b"", Deadline::At(NOW_MS + 1)));
        let expire = || engine.expire_cycle(0, 1, &mut 0, NOW_MS + 1, 1_000_000).removed;
        assert_eq!(expire(), 0);
        let rooms = engine.log.rooms();
        if ends {
            drop(snapshot);
        } else {
            snapshot.step(|_| {});
        }
        assert!(!is_congested() && engine.log.rooms() > rooms, "they are told");
        assert_eq!(expire(), 1);
    }
}

/// There is one at a time; one that is given up leaves nothing, and nothing is saved when none runs.
#[test]
fn a_snapshot_that_is_given_up_leaves_nothing() {
    let engine = engine_with(1000);
    let snapshot = engine.begin_snapshot().expect("no other runs");
    assert_eq!(engine.begin_snapshot().err(), Some(SnapshotRuns));
    set(&engine, "key 1", b"after");
    with(&engine, "key 2", |keys| keys.delete(b"key 2"));
    assert!(engine.saved_bytes() > 0);
    drop(snapshot);
    assert_eq!(engine.saved_bytes(), 0);
    set(&engine, "key 3", b"after");
    assert_eq!(engine.saved_bytes(), 0);
    assert!(!engine.access.load().has_snapshot());
    let again = engine.begin_snapshot().expect("the other has ended");
    assert_eq!(read(again), contents(&engine));
}

/// The slots of a change's keys; `None`: it needs all.
fn slots_of(change: &Change) -> Option<[Slot; 2]> {
    use Change::{
        Append, Copy, Delete, Expire, Flush, HashDeadlines, HashRemove, HashSet, HashSetKeeping, Increment, Insert,
        Move, Pop, PopLowest, Push, Put, Remove, RemoveAt, RemoveRanks, Rename, Set, SetAdd, SetAt, SetKeeping, SetPop,
        SetRange, SetRemove, Swap, Trim,
    };
    let (key, to) = match change {
        Rename(key, to) | Copy(key, to, _) => (key, to),
        Set(key, ..) | SetKeeping(key, _) | Increment(key, _) | Append(key, _) | SetRange(key, ..) | Delete(key) => {
            (key, key)
        }
        Change::Edit(key, ..) | Insert(key, ..) | SetAt(key, ..) | RemoveAt(key, ..) | Trim(key, ..) => (key, key),
        Push(key, ..)
        | Pop(key, ..)
        | HashSet(key, _)
        | HashSetKeeping(key, _)
        | HashDeadlines(key, ..)
        | HashRemove(key, _)
        | SetAdd(key, _)
        | SetRemove(key, _) => (key, key),
        SetPop(key, _)
        | Put(key, _)
        | Remove(key, _)
        | PopLowest(key, _)
        | RemoveRanks(key, _, _)
        | Change::Stream(key, _)
        | Change::Deadline(key, _)
        | Move(key, _) => (key, key),
        Flush(_) | Swap(..) | Expire(_) => return None,
    };
    Some([key, to].map(|number| Slot::of_key(&name(*number))))
}

fn name(number: u8) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// Threads write while snapshots are read, one after the other: each is what the log makes of nothing up to its place, keys
/// and positions.
#[test]
fn a_snapshot_is_the_log_up_to_its_place() {
    const CHANGES: usize = 1000;
    let engine = Arc::new(Engine::new(DATABASES));
    engine.set_limits(LITTLE_PACKED);
    let mut reader = engine.read_log(Behind::Lost);
    let writing = AtomicUsize::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let (engine, writing) = (&engine, &writing);
            scope.spawn(move || {
                let mut runner = TestRunner::new_with_rng(
                    ProptestConfig::default(),
                    TestRng::from_seed(RngAlgorithm::ChaCha, &[thread; 32]),
                );
                let changes = prop::collection::vec((any::<u8>(), change()), CHANGES).new_tree(&mut runner);
                let changes = changes.expect("changes").current();
                for (database, change) in &changes {
                    let database = *database as usize % DATABASES;
                    let mut keys = match slots_of(change) {
                        Some(slots) => engine.lock_slots(slots.into_iter(), database, NOW_MS),
                        None => engine.lock_all(database, NOW_MS + u64::from(thread)),
                    };
                    changes::make(&mut keys, change, &name);
                }
                writing.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let (again, mut chunks) = (Engine::new(DATABASES), Vec::new());
        again.set_limits(LITTLE_PACKED);
        let mut replayed = LogOffset(0);
        let mut round = 0;
        while writing.load(Ordering::SeqCst) > 0 {
            round += 1;
            let snapshot = engine.begin_snapshot().expect("no other runs");
            let offset = snapshot.offset();
            let positions: Vec<Position> = Slot::all().map(|slot| snapshot.slot_position(slot)).collect();
            let found = read(snapshot);
            chunks.extend(reader.take(usize::MAX).expect("its place"));
            let (before, after): (Vec<Arc<Chunk>>, _) = chunks.into_iter().partition(|chunk| chunk.end() <= offset);
            for chunk in before {
                replayed = chunk.end();
                chunk.groups().for_each(|(group, _)| again.replay(group).expect("positions have no gap"));
            }
            chunks = after;
            assert_eq!(replayed, offset, "a chunk ends at the cut");
            assert_eq!(found, contents(&again), "snapshot {round}");
            assert_eq!(positions, changes::positions(&again), "snapshot {round}");
        }
    });
}

/// Writers of a slot wait until what is large in it has been read, which is done next; then they are told, change it, and
/// nothing is copied. Others, and readers, do not wait.
#[test]
fn writers_wait_until_what_is_large_is_read() {
    let engine = engine_with(2000);
    engine.set_limits(LITTLE_PACKED);
    let members: Vec<String> = (0..100).map(|number| format!("member {number}")).collect();
    let (large, small) = (Slot::of_key(b"large"), Slot::of_key(b"key 1"));
    let is_congested = |slot: Slot| engine.lock_slot(slot, 0, NOW_MS).is_congested(&[slot]);
    for ends in [false, true] {
        let add = || with(&engine, "large", |keys| keys.set_add(b"large", members.iter().map(String::as_bytes)));
        add().expect("a set");
        assert!(!is_congested(large), "no snapshot runs");
        let mut snapshot = engine.begin_snapshot().expect("no other runs");
        let (then, mut found) = (contents(&engine), Found::default());
        let admits = |slot, writes| engine.lock_slot(slot, 0, NOW_MS).admits(&[slot], writes);
        assert_eq!(admits(large, true), Admission::Full);
        assert_eq!([admits(large, false), admits(small, true)], [Admission::Executes; 2]);
        let rooms = engine.log.rooms();
        if ends {
            drop(snapshot);
            assert!(!is_congested(large) && engine.log.rooms() > rooms, "they are told");
        } else {
            let mut steps = 0;
            while engine.log.rooms() == rooms {
                assert!(snapshot.step(|record| found.note(record)), "they are told before it ends");
                steps += 1;
            }
            assert!(!is_congested(large), "they are told when they may go on");
            assert!(found.parts > 10 && found.contents.len() == 1 && steps <= found.parts + 4, "{steps} steps");
            with(&engine, "large", |keys| keys.set_remove(b"large", std::iter::once(&b"member 1"[..]))).expect("a set");
            add().expect("a set");
            assert!(!is_congested(large), "what is large later is not waited for");
            assert_eq!(engine.saved_bytes(), 0, "nothing was copied");
            while snapshot.step(|record| found.note(record)) {}
            assert_eq!(found.contents, then);
        }
    }
}

/// A measure, in an optimized build: `cargo test --release --lib -- --ignored --nocapture snapshot_takes`.
#[test]
#[ignore = "a measure, not a check"]
fn how_long_a_snapshot_takes() {
    const KEYS: usize = 1_000_000;
    // As a writer of a file does.
    let write = |record: Record<'_>, out: &mut Vec<u8>| match record {
        Record::Entry { entry, .. } => out.extend_from_slice(&encode_entry(entry)),
        Record::Begin(head) => out.extend_from_slice(head.key),
        Record::Part(elements) => elements.iter().for_each(|element| out.extend_from_slice(element)),
        Record::End => {}
    };
    let engine = engine_with(0);
    (0..KEYS).for_each(|number| set(&engine, &format!("key:{number}"), &[b'x'; 64]));
    let mut out = Vec::new();
    for round in 0..5 {
        let began = Instant::now();
        let mut snapshot = engine.begin_snapshot().expect("no other runs");
        let cut = began.elapsed();
        let (mut step_longest, mut bytes, began) = (Duration::ZERO, 0, Instant::now());
        loop {
            let step = Instant::now();
            out.clear();
            let has_more = snapshot.step(|record| write(record, &mut out));
            bytes += out.len();
            step_longest = step_longest.max(step.elapsed());
            if !has_more {
                break;
            }
        }
        let total = began.elapsed();
        println!("{round}: cut {cut:?}, {KEYS} keys, {bytes} bytes in {total:?}, longest step {step_longest:?}");
    }
    let per_set = |text: &str| {
        let began = Instant::now();
        (0..KEYS).for_each(|number| set(&engine, &format!("key:{number}"), &[b'x'; 64]));
        println!("SET, {text}: {:?} each", began.elapsed() / KEYS as u32);
    };
    per_set("no snapshot");
    per_set("no snapshot");
    let snapshot = engine.begin_snapshot().expect("no other runs");
    per_set("the first after a cut");
    per_set("the second after a cut");
    drop(snapshot);
    for elements in [1_000usize, 2_000, 4_000, 8_000, 1_000_000] {
        let members: Vec<String> = (0..elements).map(|number| format!("member:{number}")).collect();
        let members = || members.iter().map(String::as_bytes);
        with(&engine, "set", |keys| keys.set_add(b"set", members())).expect("a set");
        with(&engine, "hash", |keys| keys.hash_set(b"hash", members().map(|it| (it, &b"value"[..])))).expect("a hash");
        with(&engine, "list", |keys| keys.list_push(b"list", Side::Back, members())).expect("a list");
        let scored: Vec<(&[u8], f64)> = members().map(|it| (it, it.len() as f64)).collect();
        with(&engine, "sorted", |keys| keys.sorted_set_put(b"sorted", &scored, crate::engine::event::SORTED_SET_PUT))
            .expect("a sorted set");
        with(&engine, "string", |keys| keys.set_string(b"string", &vec![b'x'; elements * 50], Deadline::Clear));
        let mut snapshot = engine.begin_snapshot().expect("no other runs");
        for key in ["set", "hash", "list", "sorted", "string"] {
            let slot = Slot::of_key(key.as_bytes());
            let (began, mut longest, mut steps) = (Instant::now(), Duration::ZERO, 0);
            while engine.lock_slot(slot, 0, NOW_MS).is_congested(&[slot]) {
                out.clear();
                let step = Instant::now();
                snapshot.step(|record| write(record, &mut out));
                longest = longest.max(step.elapsed());
                steps += 1;
            }
            let waited = began.elapsed();
            let began = Instant::now();
            with(&engine, key, |keys| keys.set_deadline(key.as_bytes(), Some(NOW_MS + 1_000_000)));
            let changed = began.elapsed();
            println!(
                "{key} of {elements}: waits {waited:?} for {steps} steps, longest {longest:?}; change {changed:?}"
            );
        }
        drop(snapshot);
        for key in ["set", "hash", "list", "sorted"] {
            with(&engine, key, |keys| keys.delete(key.as_bytes()));
        }
    }
}
