use super::*;
use crate::base::slot::Slot;
use crate::engine::Deadline;
use crate::engine::changes::{DATABASES, contents, group, perform, positions};
use crate::engine::log::Behind;
use crate::engine::log::gate::{self, Gate, Needed};
use crate::persistence::directory::{LogDirectory, set_aside};
use crate::persistence::disk::simulated::SimulatedDisk;
use crate::persistence::journal::Place;
use crate::persistence::segment::Owner;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use std::path::Path;

/// Anything that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(30);

fn eventually(what: &str, condition: impl Fn() -> bool) {
    let since = Instant::now();
    while !condition() {
        assert!(since.elapsed() < LIMIT, "{what} did not come true");
        std::thread::yield_now();
    }
}

fn settings(fsync: Fsync) -> Settings {
    Settings { fsync, growth: Growth::default(), saving: Box::new(Default::default), broken: Box::new(|_| {}) }
}

fn open(path: &Path) -> LogDirectory {
    LogDirectory::open(&path.join("appendonlydir"), "appendonly.aof", Owner::default()).expect("nobody else has it")
}

/// An engine with what is in the directory.
fn recovered(path: &Path) -> Arc<Engine> {
    let engine = Arc::new(Engine::new(DATABASES));
    open(path).recover(&engine, true, Default::default(), &Default::default()).expect("a log");
    engine
}

fn same(one: &Engine, other: &Engine) {
    assert_eq!(positions(one), positions(other));
    for database in 0..DATABASES {
        assert_eq!(contents(one, database, Slot::all()), contents(other, database, Slot::all()));
    }
}

fn set(engine: &Engine, key: &[u8], value: &[u8]) {
    engine.lock_slots([Slot::of_key(key)].into_iter(), 0, 0).set_string(key, value, Deadline::Clear);
}

/// Threads change keys while the log is made shorter, several times and in several lives: every life begins with what the
/// one before has left.
#[test]
fn a_node_comes_back_with_its_keys() {
    let place = tempfile::tempdir().expect("a directory");
    let mut before = Arc::new(Engine::new(DATABASES));
    for life in 0..3 {
        let engine = Arc::new(Engine::new(DATABASES));
        let directory = open(place.path());
        let found = directory.recover(&engine, true, Default::default(), &Default::default()).expect("a log");
        same(&engine, &before);
        let fsync = [Fsync::EverySecond, Fsync::Always, Fsync::No][life];
        let keeper =
            directory.follow(&engine).keep(found.as_ref().map(|it| &it.found), settings(fsync)).expect("it is kept");
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let mut runner = TestRunner::deterministic();
                    for _ in 0..150 {
                        let (database, changes) = group().new_tree(&mut runner).expect("changes").current();
                        perform(&engine, database, &changes);
                    }
                });
            }
            for _ in 0..2 {
                keeper.rewrite().blocking_recv().expect("an answer").expect("no other snapshot runs");
                let rewritings = keeper.figures().rewritings;
                eventually("the log is shorter", || keeper.figures().rewritings > rewritings);
            }
        });
        drop(keeper);
        before = engine;
    }
    same(&recovered(place.path()), &before);
    let names: Vec<_> = std::fs::read_dir(place.path().join("appendonlydir")).expect("a directory").flatten().collect();
    assert!(names.len() <= 5, "what is superfluous has been removed: {names:?}");
}

/// What is written when the log has ended for the last time is not in it, and nobody is told of it.
#[test]
fn replies_of_what_comes_after_the_end_never_leave() {
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        let place = tempfile::tempdir().expect("a directory");
        let engine = Arc::new(Engine::new(DATABASES));
        let keeper = open(place.path()).follow(&engine).keep(None, settings(fsync)).expect("it is kept");
        set(&engine, b"a", b"1");
        assert!(keeper.finish(), "all that was told of is in it");
        gate::take_shown();
        set(&engine, b"b", b"2");
        let shown = gate::take_shown();
        assert!(shown.wrote);
        assert_eq!(engine.log.look(Needed { shown, copies_until: None, on_disk: false }), Gate::Closed);
        let kept: Vec<_> = contents(&recovered(place.path()), 0, Slot::all()).into_keys().collect();
        assert_eq!(kept, [b"a".to_vec()]);
    }
}

/// A log that is begun when there are keys already, or have been, begins with these.
#[test]
fn a_log_begins_with_the_keys_that_are_there() {
    let place = tempfile::tempdir().expect("a directory");
    let engine = Arc::new(Engine::new(DATABASES));
    set(&engine, b"before", b"1");
    set(&engine, b"gone", b"1");
    engine.lock_slots([Slot::of_key(b"gone")].into_iter(), 0, 0).delete(b"gone");
    let keeper = open(place.path()).follow(&engine).keep(None, settings(Fsync::Always)).expect("it is kept");
    set(&engine, b"after", b"2");
    eventually("it is a log", || keeper.figures().rewritings == 1);
    drop(keeper);
    same(&recovered(place.path()), &engine);
}

#[test]
fn two_servers_do_not_share_a_directory() {
    let place = tempfile::tempdir().expect("a directory");
    let first = open(place.path());
    let path = place.path().join("appendonlydir");
    let second = LogDirectory::open(&path, "appendonly.aof", Owner::default()).expect_err("it is taken");
    assert!(second.to_string().ends_with("another server keeps its log in this directory"), "{second}");
    drop(first);
    open(place.path());
}

/// A keeper of an empty engine's log on a simulated disk.
fn keep(engine: &Arc<Engine>, disk: &SimulatedDisk, settings: Settings) -> Keeper {
    let names = Names::new("appendonly.aof");
    let reader = engine.read_log(Behind::Wait(u64::MAX));
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let journal = Journal::new(Arc::clone(&shared), names.clone(), Owner::default(), Place::default(), reader.begin());
    let lock = tempfile::tempfile().expect("a file");
    let manifest = Manifest { base: 0, first: 1 };
    let keeper = Keeper::start(engine, shared, names, journal, reader, manifest, settings, true, lock);
    keeper.expect("a thread")
}

/// No room for the snapshot, while the log itself is kept: the log is as good as before, INFO says that it failed, and it is
/// made shorter when there is room, though it has not grown.
#[test]
fn a_rewriting_that_failed_is_tried_again() {
    let disk = SimulatedDisk::new(1);
    let engine = Arc::new(Engine::new(DATABASES));
    let keeper = keep(&engine, &disk, settings(Fsync::Always));
    set(&engine, b"a", b"1");
    disk.refuse(Some("temp-"));
    keeper.rewrite().blocking_recv().expect("an answer").expect("it begins");
    eventually("it is tried again", || keeper.figures().failed_in_a_row >= 2);
    let figures = keeper.figures();
    assert!(figures.last_rewriting_failed && figures.failure.is_none(), "{figures:?}");
    set(&engine, b"b", b"2");
    eventually("changes are kept", || *keeper.kept().borrow() == engine.log.end());
    disk.refuse(None);
    eventually("it is shorter", || keeper.figures().rewritings == 1);
    let figures = keeper.figures();
    assert_eq!((figures.last_rewriting_failed, figures.failed_in_a_row), (false, 0));
}

/// A disk that fails for a while: changes are refused meanwhile, and all that were made before are kept in the end.
#[test]
fn a_disk_that_fails_for_a_while_loses_nothing() {
    let disk = SimulatedDisk::new(1);
    let engine = Arc::new(Engine::new(DATABASES));
    let refused = Arc::new(Mutex::new(None));
    let told = Arc::clone(&refused);
    let broken = Box::new(move |error: Option<&str>| *told.lock() = error.map(str::to_owned));
    let keeper = keep(&engine, &disk, Settings { broken, ..settings(Fsync::Always) });
    set(&engine, b"a", b"1");
    eventually("it is kept", || *keeper.kept().borrow() == engine.log.end());
    disk.fail_one_in(1);
    set(&engine, b"b", b"2");
    eventually("changes are refused", || refused.lock().is_some());
    assert_eq!(keeper.figures().failure, Some("Input/output error (os error 5)".to_owned()));
    assert_ne!(*keeper.kept().borrow(), engine.log.end());
    assert_eq!(keeper.rewrite().blocking_recv().expect("an answer"), Err(NotRewritten::Failed));
    disk.fail_one_in(0);
    eventually("changes are made again", || refused.lock().is_none());
    eventually("it is kept", || *keeper.kept().borrow() == engine.log.end());
    disk.crash();
    let again = Engine::new(DATABASES);
    let replay = |group: crate::engine::Group<'_>, _: &str, _| again.replay(group).map_err(|error| error.to_string());
    let names = Names::new("appendonly.aof");
    crate::persistence::recovery::read(&disk, &names, Owner::default(), 1, replay).expect("a log");
    same(&again, &engine);
    disk.fail_one_in(1);
    set(&engine, b"c", b"3");
    assert!(!keeper.finish(), "it says that not all could be kept");
}

/// Only the log of the owner is set aside, and only where nobody keeps it.
#[test]
fn a_log_is_set_aside_for_its_owner_only() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("appendonlydir");
    let set_aside = |owner| set_aside(&path, "appendonly.aof", owner).expect("it can be renamed");
    assert_eq!(set_aside(Owner::default()), None, "there is none");
    let engine = Arc::new(Engine::new(DATABASES));
    let keeper = open(place.path()).follow(&engine).keep(None, settings(Fsync::Always)).expect("it is kept");
    set(&engine, b"a", b"1");
    assert_eq!(set_aside(Owner::default()), None, "somebody keeps it");
    drop(keeper);
    assert_eq!(set_aside(Owner { cluster: 1, node: 2 }), None, "it is another's");
    let aside = set_aside(Owner::default()).expect("it is the owner's");
    assert_eq!((aside.exists(), path.exists()), (true, false));
    assert_eq!(set_aside(Owner::default()), None, "there is none any more");
    assert_eq!(positions(&recovered(place.path())), positions(&Engine::new(DATABASES)), "it does not count");
    let again = LogDirectory::open(&aside, "appendonly.aof", Owner::default()).expect("it is as it was");
    let found = again.recover(&Engine::new(DATABASES), true, Default::default(), &Default::default()).expect("a log");
    assert_eq!(found.map(|recovered| recovered.found.groups), Some(1));
}
