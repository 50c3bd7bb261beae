//! Snapshots on disk, and what a server does with them at its start and at its end.

use crate::server::{Client, LIMIT, Server};
use starling::rdb::file::{Reader, Record};
use std::fs;
use std::path::Path;
use std::time::Instant;

/// A server in a directory of the test's.
fn start(directory: &Path, directives: &[&str]) -> Server {
    let directory = directory.display().to_string();
    Server::start(&[&["--dir", &directory], directives].concat())
}

/// A field of INFO persistence.
fn field(client: &mut Client, name: &str) -> String {
    let info = client.ask("INFO persistence");
    let found = info.split(' ').find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    found.unwrap_or_else(|| panic!("{name} in {info}")).to_owned()
}

/// Waits until a field of INFO persistence is this.
fn until(client: &mut Client, name: &str, value: &str) {
    let started = Instant::now();
    while field(client, name) != value {
        assert!(started.elapsed() < LIMIT, "{name} is not {value} but {}", field(client, name));
        std::thread::yield_now();
    }
}

/// Waits until it has loaded its file.
pub(crate) fn until_loaded(client: &mut Client) {
    until(client, "loading", "0");
}

#[test]
fn what_was_saved_is_there_after_a_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = start(directory.path(), &[]);
    let mut client = server.client();
    for request in ["SET a 1", "SET b text PX 100000000", "RPUSH l 1 2 3", "ZADD z 1 x 2 y", "XADD s 5-1 f v"] {
        client.ask(request);
    }
    client.ask("SELECT 3");
    client.ask("HSET h f v g w");
    client.ask("HPEXPIRE h 100000000 FIELDS 1 f");
    assert_eq!(field(&mut client, "rdb_changes_since_last_save"), "11");
    assert_eq!(client.ask("SAVE"), "+OK");
    assert_eq!(field(&mut client, "rdb_changes_since_last_save"), "0");
    client.ask("SET lost 1");
    client.send(&["SHUTDOWN NOSAVE"]);
    assert!(server.wait().0.success());
    let server = start(directory.path(), &[]);
    let mut client = server.client();
    until_loaded(&mut client);
    let cases = [
        ("GET a", "$1 1"),
        ("GET b", "$4 text"),
        ("LRANGE l 0 -1", "*3 $1 1 $1 2 $1 3"),
        ("ZRANGE z 0 -1 WITHSCORES", "*4 $1 x $1 1 $1 y $1 2"),
        ("XLEN s", ":1"),
        ("EXISTS lost", ":0"),
        ("SELECT 3", "+OK"),
        ("HMGET h f g", "*2 $1 v $1 w"),
    ];
    for (request, reply) in cases {
        assert_eq!(client.ask(request), reply, "{request}");
    }
    let left = client.ask("HPTTL h FIELDS 2 f g");
    assert!(left.starts_with("*2 :9999") && left.ends_with(":-1"), "{left}");
    assert_eq!(field(&mut client, "rdb_last_load_keys_loaded"), "6");
    assert_eq!(field(&mut client, "rdb_changes_since_last_save"), "0");
}

#[test]
fn one_snapshot_is_taken_at_a_time_and_nobody_waits_for_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), &["--save", ""]);
    let mut client = server.client();
    (0..10).for_each(|number| drop(client.ask(&format!("SET key:{number} value"))));
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 10000000"), "+OK");
    assert_eq!(client.ask("BGSAVE"), "+Background saving started");
    assert_eq!(field(&mut client, "rdb_bgsave_in_progress"), "1");
    for request in ["BGSAVE", "BGSAVE SCHEDULE", "SAVE"] {
        assert_eq!(client.ask(request), "-ERR Background save already in progress", "{request}");
    }
    assert_eq!(client.ask("BGSAVE NOW"), "-ERR syntax error");
    assert_eq!(client.ask("SET key:1 other"), "+OK");
    until(&mut client, "current_save_keys_total", "10");
    assert_eq!(client.ask("CONFIG SET rdb-key-save-delay 0"), "+OK");
    // A reload takes the place of the snapshot under way, and has all keys as they are.
    assert_eq!(client.ask("DEBUG RELOAD"), "+OK");
    assert_eq!(client.ask("GET key:1"), "$5 other");
    assert_eq!(client.ask("DBSIZE"), ":10");
    assert_eq!(field(&mut client, "rdb_bgsave_in_progress"), "0");
    assert_eq!(field(&mut client, "rdb_last_bgsave_status"), "ok");
    assert_eq!(client.ask("BGSAVE"), "+Background saving started");
    until(&mut client, "rdb_saves", "2");
    client.ask("MULTI");
    client.ask("SET key:11 value");
    client.ask("BGSAVE");
    assert_eq!(client.ask("EXEC"), "*2 +OK +Background saving scheduled");
    until(&mut client, "rdb_saves", "3");
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 1, "nothing is left behind");
}

#[test]
fn a_reload_may_keep_what_is_there() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), &[]);
    let mut client = server.client();
    client.ask("SET a 1");
    assert_eq!(client.ask("SAVE"), "+OK");
    client.ask("SET a 2");
    client.ask("SET b 1");
    assert!(client.ask("DEBUG RELOAD NOSAVE NOFLUSH").starts_with("-ERR Error trying to load the RDB dump"));
    assert_eq!(client.ask("GET a"), "$1 2");
    assert_eq!(client.ask("DEBUG RELOAD NOSAVE NOFLUSH MERGE"), "+OK");
    assert_eq!(client.ask("MGET a b"), "*2 $1 1 $1 1");
    assert_eq!(client.ask("DEBUG RELOAD NOSAVE"), "+OK");
    assert_eq!(client.ask("MGET a b"), "*2 $1 1 $-1");
    assert!(client.ask("DEBUG RELOAD ALL").starts_with("-ERR DEBUG RELOAD only supports"));
}

#[test]
fn writes_stop_when_snapshots_fail_and_go_on_when_they_succeed() {
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let mut server = start(directory, &["--save", "3600 1"]);
    let mut client = server.client();
    assert_eq!(client.ask("SET a 1"), "+OK");
    let in_the_way = directory.join("dump.rdb");
    fs::create_dir(&in_the_way).expect("a folder");
    assert_eq!(client.ask("SAVE"), "-ERR");
    assert_eq!(client.ask("SET a 1"), "+OK", "who asked for it knows: nobody else needs to");
    assert_eq!(client.ask("BGSAVE"), "+Background saving started");
    until(&mut client, "rdb_last_bgsave_status", "err");
    let text = "-MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk. ";
    for request in ["SET a 2", "PING", "FLUSHALL"] {
        assert!(client.ask(request).starts_with(text), "{request}");
    }
    assert_eq!(client.ask("GET a"), "$1 1");
    client.ask("MULTI");
    assert!(client.ask("SET a 2").starts_with("-MISCONF"));
    assert!(client.ask("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.ask("CONFIG SET stop-writes-on-bgsave-error no"), "+OK");
    assert_eq!(client.ask("SET a 3"), "+OK");
    assert_eq!(client.ask("CONFIG SET stop-writes-on-bgsave-error yes"), "+OK");
    assert!(client.ask("SET a 4").starts_with("-MISCONF"));
    // Nobody can end it without losing what it has, but by force.
    assert_eq!(client.ask("SHUTDOWN"), "-ERR Errors trying to SHUTDOWN. Check logs.");
    fs::remove_dir(&in_the_way).expect("it goes");
    assert_eq!(client.ask("BGSAVE"), "+Background saving started");
    until(&mut client, "rdb_last_bgsave_status", "ok");
    assert_eq!(client.ask("SET a 4"), "+OK");
    client.send(&["SHUTDOWN"]);
    assert!(server.wait().0.success());
    let server = start(directory, &[]);
    let mut client = server.client();
    until_loaded(&mut client);
    assert_eq!(client.ask("GET a"), "$1 4", "rules say that the last snapshot is taken at the end");
}

#[test]
fn rules_ask_for_snapshots() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), &["--save", "1 3"]);
    let mut client = server.client();
    (0..3).for_each(|number| drop(client.ask(&format!("SET key:{number} value"))));
    until(&mut client, "rdb_saves", "1");
    until(&mut client, "rdb_bgsave_in_progress", "0");
    assert!(directory.path().join("dump.rdb").exists());
    let saved: u64 = client.ask("LASTSAVE")[1..].parse().expect("a number");
    assert!(saved > 1_700_000_000);
    assert_eq!(client.ask("CONFIG SET save "), "+OK");
    assert_eq!(client.ask("CONFIG GET save"), "*2 $4 save $0");
}

#[test]
fn a_damaged_file_stops_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("dump.rdb");
    let check = |contents: &[u8], expected: &str| {
        fs::write(&path, contents).expect("a file");
        let mut server = start(directory.path(), &[]);
        let (status, log) = server.wait();
        assert!(!status.success(), "{expected}");
        assert!(log.iter().any(|line| line.contains("dump.rdb") && line.contains(expected)), "{expected}: {log:?}");
    };
    check(b"REDIS0010", "it ends in the middle, at byte 9");
    check(b"nonsense!", "it is no RDB file, at byte 0");
    check(b"REDIS0077\xff\0\0\0\0\0\0\0\0", "version 77 of the format is not known to this server");
}

/// A directory that is said from where the server was started.
#[test]
fn a_relative_directory_is_one_of_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let here = std::env::current_dir().expect("a directory");
    let ups = "../".repeat(here.components().count() + 8);
    let relative = format!("{ups}{}", directory.path().display().to_string().trim_start_matches('/'));
    let server = Server::start(&["--dir", &relative]);
    assert_eq!(server.client().ask("SAVE"), "+OK");
    assert!(directory.path().join("dump.rdb").exists());
}

/// What `rdbcompression` says of strings, keys and collections: their bytes are in the file, or are not.
#[test]
fn strings_are_compressed_unless_the_configuration_says_no() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = start(directory.path(), &["--save", ""]);
    let mut client = server.client();
    let long = |letter: &str| letter.repeat(100);
    let values = [long("k"), long("s"), long("l"), long("h"), long("m")];
    let [key, string, element, field, member] = &values;
    for request in [
        format!("SET {key} {string}"),
        format!("RPUSH list {element}"),
        format!("HSET hash {field} v"),
        format!("SADD set {member}"),
        format!("XADD stream 1-1 f {string}"),
    ] {
        client.ask(&request);
    }
    for (compression, is_found) in [("yes", false), ("no", true), ("yes", false)] {
        assert_eq!(client.ask(&format!("CONFIG SET rdbcompression {compression}")), "+OK");
        assert_eq!(client.ask("SAVE"), "+OK");
        let file = fs::read(directory.path().join("dump.rdb")).expect("a file");
        for value in &values {
            let found = file.windows(value.len()).any(|window| window == value.as_bytes());
            assert_eq!(found, is_found, "{compression} {value}");
        }
        assert_eq!(client.ask("DEBUG RELOAD NOSAVE"), "+OK");
        assert_eq!(client.ask(&format!("GET {key}")), format!("$100 {string}"));
    }
}

/// The libraries of functions in a file.
fn functions(file: &Path) -> Vec<Vec<u8>> {
    let bytes = fs::read(file).expect("a file");
    let mut reader = Reader::new(&*bytes).expect("a snapshot");
    let mut functions = Vec::new();
    while let Some(record) = reader.next_record().expect("it is whole") {
        if let Record::Function(code) = record {
            functions.push(code.into_owned());
        }
    }
    functions
}

/// A server that runs no functions loses none: what was loaded is in what is saved, and in what the log begins with.
#[test]
fn functions_pass_through_a_server_that_runs_none() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb/redis-7.0.rdb");
    let expected = functions(&fixture);
    assert_eq!(expected.len(), 1);
    // The same library and nothing else: it alone makes a log begin with a snapshot.
    let mut only = b"REDIS0010\xf5".to_vec();
    starling::rdb::length::write_string(&mut only, &expected[0]);
    only.extend_from_slice(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0]);
    for file in [fs::read(&fixture).expect("a file"), only] {
        for appendonly in ["no", "yes"] {
            let directory = tempfile::tempdir().expect("a directory");
            let dump = directory.path().join("dump.rdb");
            fs::write(&dump, &file).expect("a file");
            let directives = ["--appendonly", appendonly, "--save", ""];
            for _ in 0..2 {
                let mut server = start(directory.path(), &directives);
                let mut client = server.client();
                until_loaded(&mut client);
                client.ask("SET key value");
                assert_eq!(client.ask("SAVE"), "+OK");
                assert_eq!(functions(&dump), expected, "appendonly {appendonly}");
                if appendonly == "yes" {
                    fs::remove_file(&dump).expect("it was saved");
                } else {
                    assert_eq!(client.ask("DEBUG RELOAD"), "+OK");
                    assert_eq!(functions(&dump), expected, "reloaded");
                }
                client.send(&["SHUTDOWN NOSAVE"]);
                assert!(server.wait().0.success());
            }
        }
    }
}
