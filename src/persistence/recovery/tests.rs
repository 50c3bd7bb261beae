use super::*;
use crate::base::slot::Slot;
use crate::engine::Engine;
use crate::engine::changes::{Change, DATABASES, contents, group, perform, positions};
use crate::engine::log::{Behind, Chunk, Reader};
use crate::persistence::disk::simulated::SimulatedDisk;
use crate::persistence::journal::Journal;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::sync::Arc;

/// A node with a log on a simulated disk, through several lives.
struct Node {
    disk: SimulatedDisk,
    names: Names,
    random: SmallRng,
    runner: TestRunner,
    engine: Arc<Engine>,
    journal: Journal,
    reader: Reader,
    /// Reads what the journal reads.
    witness: Reader,
    /// What has happened in this life.
    seen: Vec<Arc<Chunk>>,
    /// What the log has had when this life began.
    before: Vec<Vec<u8>>,
}

impl Node {
    fn new(seed: u64) -> Node {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let disk = SimulatedDisk::new(seed);
        let names = Names::new("appendonly.aof");
        let engine = Arc::new(Engine::new(DATABASES));
        let (reader, witness) = (engine.read_log(Behind::Wait(u64::MAX)), engine.read_log(Behind::Lost));
        let mut journal = journal(&disk, &names, Place::default(), &engine);
        journal.begin_segment().expect("nothing fails yet");
        Node {
            disk,
            names,
            random: SmallRng::seed_from_u64(seed),
            runner: TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)),
            engine,
            journal,
            reader,
            witness,
            seen: Vec::new(),
            before: Vec::new(),
        }
    }

    fn change(&mut self) {
        let tree = group().new_tree(&mut self.runner).expect("changes");
        let (database, changes): (u8, Vec<Change>) = tree.current();
        perform(&self.engine, database, &changes);
    }

    /// One step of who drives the journal.
    fn step(&mut self) {
        let outcome = match self.random.random_range(0..20) {
            0..12 => {
                self.change();
                Ok(())
            }
            12..15 => {
                self.journal.take(&self.reader.take(usize::MAX).expect("its place"));
                self.journal.write()
            }
            15..18 => self.journal.sync().map(drop),
            18 => self.journal.begin_segment().map(drop),
            _ => {
                self.journal.prepare();
                Ok(())
            }
        };
        if outcome.is_err() {
            assert!(
                self.journal.write().is_err() && self.journal.sync().is_err(),
                "it does not go on as if nothing were"
            );
            // The disk may be broken for longer; what comes meanwhile is kept in memory.
            while self.journal.resume().is_err() {
                self.change();
            }
        }
    }

    /// Every group that this node's log should have, in order; and how many of them are kept.
    fn groups(&mut self) -> (Vec<Vec<u8>>, usize) {
        self.seen.extend(self.witness.take(usize::MAX).expect("its place"));
        let mut groups = self.before.clone();
        let mut kept = groups.len();
        for chunk in &self.seen {
            let mut start = chunk.start();
            for (_, end) in chunk.groups() {
                let at = (start.0 - chunk.start().0) as usize..(end.0 - chunk.start().0) as usize;
                groups.push(chunk.bytes()[at].to_vec());
                start = end;
                if end <= self.journal.kept() {
                    kept = groups.len();
                }
            }
        }
        (groups, kept)
    }

    /// The process ends, and another one begins with what is on the disk. `crashes`: the machine does, too.
    fn restart(&mut self, crashes: bool) {
        let (groups, kept) = self.groups();
        if crashes {
            self.disk.crash();
        }
        let engine = Arc::new(Engine::new(DATABASES));
        let found = read(&self.disk, &self.names, Owner::default(), 1, |group, _, _| {
            engine.replay(group).map_err(|error| error.to_string())
        });
        let found = found.expect("what a crash leaves is a log");
        let count = found.groups as usize;
        assert!(
            (kept..=groups.len()).contains(&count),
            "{count} groups of {} came back, {kept} were kept",
            groups.len()
        );
        let expected = replayed(&groups[..count]);
        assert_eq!(positions(&engine), positions(&expected));
        for database in 0..DATABASES {
            assert_eq!(contents(&engine, database, Slot::all()), contents(&expected, database, Slot::all()));
        }
        settle(&self.disk, &self.names, &found).expect("the disk does not fail now");
        engine.log.go_on_after(found.stamp);
        self.before = groups[..count].to_vec();
        self.seen.clear();
        self.journal = journal(&self.disk, &self.names, found.place, &engine);
        (self.reader, self.witness) = (engine.read_log(Behind::Wait(u64::MAX)), engine.read_log(Behind::Lost));
        self.engine = engine;
    }
}

fn journal(disk: &SimulatedDisk, names: &Names, place: Place, engine: &Engine) -> Journal {
    Journal::new(Arc::new(disk.clone()), names.clone(), Owner::default(), place, engine.log.end())
}

fn replayed(groups: &[Vec<u8>]) -> Engine {
    let engine = Engine::new(DATABASES);
    for group in groups {
        let group = Group::read(&mut &group[..]).expect("a group");
        engine.replay(group).expect("it follows");
    }
    engine
}

/// Lives that end in crashes, on a disk of which one in so many operations fails. A seed replays a failure.
fn check(seeds: std::ops::Range<u64>, fails_one_in: u32) {
    for seed in seeds {
        let context = SeedOnPanic(seed);
        let mut node = Node::new(seed);
        for _ in 0..4 {
            node.disk.fail_one_in(fails_one_in);
            for _ in 0..node.random.random_range(0..60) {
                node.step();
            }
            node.disk.fail_one_in(0);
            let crashes = node.random.random_bool(0.7);
            node.restart(crashes);
        }
        std::mem::forget(context);
    }
}

struct SeedOnPanic(u64);

impl Drop for SeedOnPanic {
    fn drop(&mut self) {
        eprintln!("seed {}", self.0);
    }
}

#[test]
fn what_was_kept_comes_back_after_every_crash() {
    check(0..30, 0);
}

#[test]
fn what_was_kept_comes_back_from_a_disk_that_fails() {
    check(1000..1030, 12);
}

#[test]
#[ignore = "long: make crashes-long"]
fn what_was_kept_comes_back_many_times() {
    let start = std::env::var("STARLING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(10_000);
    check(start..start + 5000, 0);
    check(start..start + 5000, 12);
}

/// A log of five blocks in two segments, all kept.
fn small() -> (SimulatedDisk, Names) {
    let mut node = Node::new(1);
    for _ in 0..2 {
        for number in 0..3u8 {
            let mut keys = node.engine.lock_slots([Slot::of_key(b"key")].into_iter(), 0, 0);
            keys.set_string(b"key", &[number; 100], crate::engine::Deadline::Clear);
            drop(keys);
            node.journal.take(&node.reader.take(usize::MAX).expect("its place"));
            node.journal.write().and_then(|()| node.journal.sync()).expect("a good disk");
        }
        node.journal.begin_segment().expect("a good disk");
    }
    (node.disk, node.names)
}

fn error_of(disk: &SimulatedDisk, names: &Names, owner: Owner) -> String {
    read(disk, names, owner, 1, |_, _, _| Ok(())).expect_err("it is broken").to_string()
}

#[test]
fn damage_is_told_with_file_and_place() {
    let check = |name: &str, at: usize, expected: &str| {
        let (disk, names) = small();
        disk.damage(name, at);
        assert_eq!(error_of(&disk, &names, Owner::default()), expected);
    };
    check(
        "appendonly.aof.1.segment",
        4200,
        "appendonly.aof.1.segment: damaged at byte 4096: what stood there had been kept, and more behind it",
    );
    check("appendonly.aof.1.segment", 3, "appendonly.aof.1.segment: it is no segment of a log");
    check("appendonly.aof.2.segment", 20, "appendonly.aof.2.segment: its header is damaged");
    let (disk, names) = small();
    let owner = Owner { cluster: 1, node: 2 };
    let expected = "appendonly.aof.1.segment: it is the log of node 00000000000000000000000000000000 of cluster 00000000000000000000000000000000";
    assert_eq!(error_of(&disk, &names, owner), expected);
    disk.remove("appendonly.aof.2.segment").expect("it is there");
    assert_eq!(
        error_of(&disk, &names, Owner::default()),
        "appendonly.aof.2.segment: this segment of the log is missing"
    );
    disk.rename("appendonly.aof.3.segment", "appendonly.aof.2.segment").expect("it is there");
    assert_eq!(
        error_of(&disk, &names, Owner::default()),
        "appendonly.aof.2.segment: it is segment 3 of its log, under another name"
    );
}

#[test]
fn a_full_disk_loses_nothing_that_was_kept() {
    let mut node = Node::new(7);
    node.disk.fill_up(20_000);
    while node.journal.write().is_ok() {
        node.change();
        node.journal.take(&node.reader.take(usize::MAX).expect("its place"));
    }
    assert!(node.journal.resume().is_err(), "it is still full");
    node.disk.fill_up(u64::MAX);
    node.journal.resume().expect("there is room again");
    assert_eq!(node.journal.pending_bytes(), 0);
    let (groups, kept) = node.groups();
    assert_eq!(kept, groups.len());
    node.restart(true);
}

/// Zeros that were written ahead are no part of the log and no torn tail; where there is no room for them, it goes on.
#[test]
fn zeros_written_ahead_do_not_count() {
    let mut node = Node::new(3);
    for room in [u64::MAX, 10] {
        node.disk.fill_up(room);
        node.journal.prepare();
        node.disk.fill_up(u64::MAX);
        node.change();
        node.journal.take(&node.reader.take(usize::MAX).expect("its place"));
        node.journal.write().and_then(|()| node.journal.sync()).expect("a good disk");
        let file = node.disk.open(&node.names.segment(node.journal.segment_number())).expect("it is there");
        let is_longer = file.length().expect("a length") > node.journal.bytes();
        assert_eq!(is_longer, room > 10);
        let found = read(&node.disk, &node.names, Owner::default(), 1, |_, _, _| Ok(())).expect("a log");
        assert_eq!((found.torn, found.groups), (None, node.groups().0.len() as u64));
        node.restart(true);
        node.journal.begin_segment().expect("a good disk");
    }
}
