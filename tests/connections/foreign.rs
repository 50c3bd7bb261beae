//! Files that Redis and Valkey have written: a server here loads them, and answers about their keys as those do.
//! `redis-compat-tests/fixtures/files.py` makes the files, and says what is compared.

use crate::server::Server;
use crate::snapshots::until_loaded;
use serde_json::Value;
use starling::rdb::file::{Reader, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

/// Encodings that are others here: the beginnings of the file's name and the key's, what the writer says, what is said here.
const OTHER_ENCODINGS: &[(&str, &str, &str, &str)] = &[
    // Names of Redis 7.2 are used here.
    ("redis-7.0", "list", "quicklist", "listpack"),
    ("redis-7.0", "set:listpack", "hashtable", "listpack"),
    // Others keep the nodes of the file; here the size of a list alone decides.
    ("", "list:quicklist", "quicklist", "listpack"),
    ("", "list:compressed", "quicklist", "listpack"),
    // Others remember that fields have had deadlines.
    ("redis-8", "hash:no-more-deadlines", "listpackex", "listpack"),
    // Valkey keeps no deadlines in listpacks.
    ("valkey-9", "hash:deadlines:listpack", "hashtable", "listpackex"),
    ("valkey-9", "hash:all-deadlines:listpack", "hashtable", "listpackex"),
];

fn is_other_encoding(file: &str, key: &str, theirs: &str, ours: &str) -> bool {
    OTHER_ENCODINGS.iter().any(|&(file_begin, key_begin, their, our)| {
        file.starts_with(file_begin) && key.starts_with(key_begin) && (theirs, ours) == (their, our)
    })
}

/// Asks what a file's list has, and compares.
fn check(name: &str) {
    let fixture = |ending| fixtures().join(format!("{name}.{ending}"));
    let list = std::fs::read(fixture("json")).expect("what is expected");
    let list: Value = serde_json::from_slice(&list).expect("JSON");
    let directory = tempfile::tempdir().expect("a directory");
    std::fs::copy(fixture("rdb"), directory.path().join("dump.rdb")).expect("a copy");
    let place = directory.path().display().to_string();
    let directives =
        list["directives"].as_array().expect("directives").iter().map(|word| word.as_str().expect("a word"));
    let server = Server::start(&["--dir", &place].into_iter().chain(directives).collect::<Vec<_>>());
    until_loaded(&mut server.client());
    let mut client = Asking(TcpStream::connect(server.address).expect("a connection"));
    let questions = list["questions"].as_array().expect("questions");
    assert!(questions.len() > 10, "{name} is about something");
    let wrong: Vec<String> = questions.iter().filter_map(|question| client.wrong(name, question)).collect();
    assert!(wrong.is_empty(), "{name}:\n{}", wrong.join("\n"));
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/rdb")
}

/// A connection that gives replies as JSON values; bytes are the characters U+0000 to U+00FF.
struct Asking(TcpStream);

impl Asking {
    /// What is wrong with the answer to a question.
    fn wrong(&mut self, file: &str, question: &Value) -> Option<String> {
        let words = question["ask"].as_array().expect("words");
        let expected = &question["reply"];
        let found = self.ask(words);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        if words[0] == "OBJECT" && is_other_encoding(file, &text(&words[2]), &text(expected), &text(&found)) {
            return None;
        }
        let is_right = match question["compare"].as_str().expect("a way") {
            "equal" => *expected == found,
            "members" => in_order(expected, 1) == in_order(&found, 1),
            "pairs" => in_order(expected, 2) == in_order(&found, 2),
            "scores" => as_scores(expected) == as_scores(&found),
            "named" => agrees(expected, &found),
            "least" => found.as_i64() >= expected.as_i64(),
            other => panic!("{other} is no way to compare"),
        };
        (!is_right).then(|| format!("{}: {found}, not {expected}", question["ask"]))
    }

    fn ask(&mut self, words: &[Value]) -> Value {
        let mut request = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            let bytes: Vec<u8> = word.as_str().expect("a word").chars().map(|byte| byte as u8).collect();
            request.extend_from_slice(format!("${}\r\n", bytes.len()).as_bytes());
            request.extend_from_slice(&bytes);
            request.extend_from_slice(b"\r\n");
        }
        self.0.write_all(&request).expect("sent");
        self.reply()
    }

    fn reply(&mut self) -> Value {
        let line = self.line();
        let number = || line[1..].parse::<i64>().expect("a number");
        match line.as_bytes()[0] {
            b'+' | b'-' => Value::from(&line[usize::from(line.starts_with('+'))..]),
            b':' => Value::from(number()),
            b'$' | b'*' if number() < 0 => Value::Null,
            b'*' => (0..number()).map(|_| self.reply()).collect(),
            _ => {
                let mut bytes = vec![0; number() as usize + 2];
                self.0.read_exact(&mut bytes).expect("a reply");
                Value::from(bytes[..bytes.len() - 2].iter().map(|byte| char::from(*byte)).collect::<String>())
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            self.0.read_exact(&mut byte).expect("a reply");
            line.push(byte[0]);
        }
        String::from_utf8(line).expect("text").trim_end().to_owned()
    }
}

/// The elements in an order of their own, so many of them together.
fn in_order(list: &Value, together: usize) -> Vec<Vec<String>> {
    let list = list.as_array().cloned().unwrap_or_default();
    let mut groups: Vec<Vec<String>> =
        list.chunks(together).map(|group| group.iter().map(Value::to_string).collect()).collect();
    groups.sort();
    groups
}

/// Members and their scores: servers write numbers in more than one way.
fn as_scores(list: &Value) -> Vec<(String, Option<f64>)> {
    let list = list.as_array().cloned().unwrap_or_default();
    let score = |pair: &[Value]| pair.get(1)?.as_str()?.parse().ok();
    list.chunks(2).map(|pair| (pair[0].to_string(), score(pair))).collect()
}

/// Whether what is expected is there; of names and values, one behind the other, only what has a name that is expected.
fn agrees(expected: &Value, found: &Value) -> bool {
    let (Value::Array(expected), Value::Array(found)) = (expected, found) else { return expected == found };
    let is_each = expected.len() == found.len() && expected.iter().zip(found).all(|(one, other)| agrees(one, other));
    let value_of = |name: &Value| found.chunks_exact(2).find(|pair| pair[0] == *name).map(|pair| &pair[1]);
    let is_named = expected.len() % 2 == 0 && expected.first().is_some_and(Value::is_string);
    is_each
        || is_named && expected.chunks(2).all(|pair| value_of(&pair[0]).is_some_and(|found| agrees(&pair[1], found)))
}

/// The names of the files.
fn names() -> Vec<String> {
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
    let files = std::fs::read_dir(fixtures()).expect("files").filter_map(name);
    let mut names: Vec<String> = files.filter_map(|file| Some(file.strip_suffix(".rdb")?.to_owned())).collect();
    names.sort();
    names
}

#[test]
fn the_files_have_every_kind_of_value_that_such_servers_write() {
    let mut kinds = BTreeMap::new();
    for name in names() {
        let file = std::fs::File::open(fixtures().join(format!("{name}.rdb"))).expect("a file");
        let mut reader = Reader::new(file).expect("a header");
        while let Some(record) = reader.next_record().expect("a record") {
            if let Record::Key(key) = record {
                let writer = name.split('-').next().unwrap_or_default().to_owned();
                kinds.entry(writer).or_insert_with(BTreeSet::new).insert(key.kind);
            }
        }
    }
    // Redis 7.0 and 8.0 write streams and hashes with deadlines in other ways; Valkey's hash of 22 is of its own.
    let redis = [0, 2, 4, 5, 11, 16, 17, 18, 19, 20, 21, 24, 25];
    let valkey = [0, 2, 4, 5, 11, 16, 17, 18, 20, 21, 22];
    let expected = [("redis", &redis[..]), ("valkey", &valkey[..])];
    let expected = expected.map(|(writer, kinds)| (writer.to_owned(), kinds.iter().copied().collect()));
    assert_eq!(kinds, BTreeMap::from(expected));
}

#[test]
fn every_file_is_loaded_as_its_writer_loads_it() {
    names().iter().for_each(|name| check(name));
}
