use super::*;
use crate::base::slot::Slot;
use crate::engine::Deadline;
use std::time::Duration;

fn set(engine: &Engine, key: &[u8], bytes: &[u8]) {
    engine.lock_slot(Slot::of_key(key), 0, 1).set_string(key, bytes, Deadline::Clear);
}

fn groups(chunks: &[Arc<Chunk>]) -> usize {
    chunks.iter().map(|chunk| chunk.groups().count()).sum()
}

#[test]
fn without_a_reader_nothing_is_written_and_a_reader_sees_what_comes_after_it() {
    let engine = Arc::new(Engine::new(1));
    set(&engine, b"key", b"1");
    assert_eq!(engine.log.end(), LogOffset(0));
    let mut reader = engine.read_log(Behind::Lost);
    assert_eq!(groups(&reader.take(usize::MAX).expect("its place")), 0);
    set(&engine, b"key", b"2");
    let mut later = engine.read_log(Behind::Wait(100));
    set(&engine, b"key", b"3");
    assert_eq!(groups(&reader.take(usize::MAX).expect("its place")), 2);
    assert_eq!(groups(&later.take(usize::MAX).expect("its place")), 1);
    drop((reader, later));
    set(&engine, b"key", b"4");
    assert_eq!(engine.log.kept_bytes(), 0);
    assert!(!engine.log.is_read());
}

#[test]
fn every_reader_sees_every_group_whole_and_in_order_however_much_it_takes() {
    let engine = Arc::new(Engine::new(1));
    let mut readers = [engine.read_log(Behind::Lost), engine.read_log(Behind::Wait(1 << 30))];
    let mut seen = [Vec::new(), Vec::new()];
    for number in 0..3000u32 {
        set(&engine, format!("key {number}").as_bytes(), &vec![b'x'; (number as usize * 37) % 2000]);
        for (index, reader) in readers.iter_mut().enumerate() {
            if number % (7 + 100 * index as u32) == 0 {
                seen[index].extend(reader.take(index * 100_000).expect("its place"));
            }
        }
    }
    for (reader, seen) in readers.iter_mut().zip(&mut seen) {
        loop {
            let taken = reader.take(1).expect("its place");
            if taken.is_empty() {
                break;
            }
            seen.extend(taken);
        }
        assert_eq!(groups(seen), 3000);
        assert!(seen.is_sorted_by(|before, after| before.end() == after.start()), "no gap");
        let ends: Vec<LogOffset> = seen.iter().flat_map(|chunk| chunk.groups().map(|(_, end)| end)).collect();
        assert!(ends.is_sorted_by(|before, after| before < after));
        assert_eq!(ends.last(), Some(&engine.log.end()));
    }
    drop(readers);
    assert_eq!(engine.log.kept_bytes(), 0);
}

/// What was changed in one go, also in several shards, is one group.
#[test]
fn what_is_changed_under_one_set_of_locks_is_one_group() {
    let engine = Arc::new(Engine::new(2));
    let mut reader = engine.read_log(Behind::Lost);
    {
        let mut keys = engine.lock_all(0, 1);
        for number in 0..100 {
            keys.select(number % 2);
            keys.set_string(format!("key {number}").as_bytes(), b"", Deadline::Clear);
        }
        assert_eq!(groups(&reader.take(usize::MAX).expect("its place")), 0, "not before it is over");
    }
    let chunks = reader.take(usize::MAX).expect("its place");
    assert_eq!(groups(&chunks), 1);
    let runs = chunks[0].groups().next().expect("a group").0.runs().count();
    assert_eq!(runs, 100);
    let end = chunks[0].end();
    for number in 0..100 {
        let slot = Slot::of_key(format!("key {number}").as_bytes());
        let (shard, at) = (engine.placement().shard(slot), engine.placement().slot_in_shard(slot));
        assert_eq!(engine.lock_slot(slot, 0, 0).locks.shard(shard).meta(at).last, end);
    }
}

#[test]
fn writers_wait_for_a_reader_that_must_have_everything() {
    let engine = Arc::new(Engine::new(1));
    let mut reader = engine.read_log(Behind::Wait(1_000_000));
    let mut written = 0;
    while !engine.log.is_full() {
        set(&engine, b"key", &[b'x'; 10_000]);
        written += 1;
    }
    assert!((95..=105).contains(&written), "full after {written} times 10,000 bytes");
    let slot = Slot::of_key(b"other");
    assert!(engine.lock_slot(slot, 0, 1).is_congested(&[slot]), "everybody's writers wait");
    let rooms = engine.log.rooms();
    let woken = engine.log.until_room(rooms);
    reader.take(1).expect("its place");
    assert!(engine.log.is_full(), "a little is not enough");
    reader.take(600_000).expect("its place");
    assert!(!engine.log.is_full());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    let woken = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), woken).await });
    assert_eq!(woken, Ok(()));
    // One that goes is waited for no more.
    while !engine.log.is_full() {
        set(&engine, b"key", &[b'x'; 10_000]);
    }
    drop(reader);
    assert!(!engine.log.is_full());
}

/// A group that is longer than the limit does not stop the log for ever.
#[test]
fn a_group_may_be_longer_than_the_limit() {
    let engine = Arc::new(Engine::new(1));
    let mut reader = engine.read_log(Behind::Wait(1000));
    set(&engine, b"key", &[b'x'; 100_000]);
    assert!(engine.log.is_full());
    assert_eq!(groups(&reader.take(1).expect("its place")), 1);
    assert!(!engine.log.is_full());
}

/// Threads that write the same and other keys: what stands in the log for a key stands there in the order in which it
/// happened.
#[test]
fn the_log_has_the_order_of_the_locks() {
    let engine = Arc::new(Engine::new(1));
    let mut reader = engine.read_log(Behind::Lost);
    std::thread::scope(|scope| {
        for thread in 0..4u8 {
            let engine = &engine;
            scope.spawn(move || {
                for number in 0..2000u32 {
                    set(engine, if number % 3 == 0 { b"shared" } else { b"own" }, &[thread]);
                }
            });
        }
    });
    let again = Engine::new(1);
    for chunk in reader.take(usize::MAX).expect("its place") {
        chunk.groups().for_each(|(group, _)| again.replay(group).expect("positions have no gap"));
    }
    let contents = |engine| crate::engine::changes::contents(engine, 0, Slot::all());
    assert_eq!(contents(&again), contents(&engine));
}

/// Writers go on in the memory of chunks that were given back, unless somebody else still reads them.
#[test]
fn what_is_given_back_is_written_again() {
    let engine = Arc::new(Engine::new(1));
    let (mut reader, mut other) = (engine.read_log(Behind::Wait(u64::MAX)), engine.read_log(Behind::Wait(u64::MAX)));
    let fill = |reader: &mut Reader| {
        (0..3).for_each(|number: u8| set(&engine, b"key", &vec![number; CHUNK_BYTES]));
        reader.take(usize::MAX).expect("its place")
    };
    let places = |chunks: &[Arc<Chunk>]| chunks.iter().map(|chunk| chunk.bytes().as_ptr() as usize).collect::<Vec<_>>();
    let first = fill(&mut reader);
    let held = other.take(usize::MAX).expect("its place");
    let bytes: Vec<u8> = held.iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
    reader.give_back(first);
    let second = fill(&mut reader);
    assert!(places(&second).iter().all(|place| !places(&held).contains(place)), "it is still read");
    assert!(held.iter().flat_map(|chunk| chunk.bytes()).eq(&bytes));
    drop((other, held));
    let before = places(&second);
    reader.give_back(second);
    assert!(places(&fill(&mut reader)).iter().any(|place| before.contains(place)));
}
