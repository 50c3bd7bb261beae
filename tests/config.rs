//! The table of parameters against an installed redis-server (every name that it shows is known here, with the same
//! default, except the few listed with a reason), and what other servers' configurations and words do to a start.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use starling::config::Config;

/// Differences, each with its reason.
const DIFFERENT: &[(&str, &str)] = &[
    ("bind", "the default of redis.conf, which does not open the server to other machines"),
    ("dir", "filled in at the start"),
    ("port", "chosen by this test"),
    ("enable-debug-command", "clients' tests use DEBUG on this machine"),
    ("syslog-ident", "the name of this server"),
    ("cluster-require-full-coverage", "a node that is down takes only its own slots out of service"),
    ("jemalloc-bg-thread", "depends on how redis-server was built"),
];

/// What the default configuration files of other servers set.
const DEFAULT_FILES: &str = include_str!("data/default_files.tsv");

#[test]
fn the_default_files_of_redis_and_valkey_are_read_unchanged() {
    for file in ["r7", "r8", "v9"] {
        let mut text = String::new();
        for line in DEFAULT_FILES.lines().filter(|line| !line.starts_with('#')) {
            let columns: Vec<&str> = line.split('\t').collect();
            if columns[0].split(' ').any(|mark| mark == file) {
                text.push_str(&format!("{} {}\n", columns[1], columns[2]));
            }
        }
        assert!(text.lines().count() > 60, "{file}");
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("default.conf");
        std::fs::write(&path, text).expect("a file");
        let (code, output) = starling(&["check", &path.display().to_string()], &[]);
        assert_eq!(code, 0, "{file}: {output}");
        assert!(output.contains("the configuration is good: port 6379"), "{file}: {output}");
    }
}

#[test]
fn variables_of_a_service_do_not_stop_a_start() {
    let variables = [("STARLING_PORT", "tcp://10.0.0.1:6379"), ("STARLING_SERVICE_PORT", "6379"), ("STARLING_X", "1")];
    let (code, output) = starling(&["check"], &variables);
    assert_eq!(code, 0, "{output}");
    assert!(output.contains("STARLING_X: names no directive"), "{output}");
    assert!(!output.contains("SERVICE"), "{output}");
}

#[test]
fn help_is_help_and_a_mistyped_word_is_named() {
    for words in [&["--help"][..], &["check", "--help"], &["server", "-h"], &["help"]] {
        let (code, output) = starling(words, &[]);
        assert_eq!(code, 0, "{words:?}: {output}");
        assert!(output.contains("Usage: starling"), "{words:?}: {output}");
    }
    for words in [&["serverx"][..], &["check", "serverx"], &["-x"]] {
        let (code, output) = starling(words, &[]);
        assert_eq!(code, 1, "{words:?}: {output}");
        assert!(output.contains("no such subcommand or file"), "{words:?}: {output}");
    }
}

/// Runs the program to its end, with no variables but these: its code, and all it said.
fn starling(words: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(words)
        .env_clear()
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .output()
        .expect("the program");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

struct RedisServer(Child);

impl Drop for RedisServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_parameter_of_redis_server_is_known_with_its_default() {
    let (_server, connection) = start();
    let theirs = config_get_all(connection);
    assert!(theirs.len() > 150, "only {} parameters", theirs.len());
    let ours: BTreeMap<Vec<u8>, Vec<u8>> =
        Config::default().get(&[b"*"]).into_iter().map(|(name, text)| (name.into(), text.into())).collect();
    let mut wrong = Vec::new();
    for (name, value) in &theirs {
        let shown = String::from_utf8_lossy(name);
        if DIFFERENT.iter().any(|(different, _)| *different == shown) {
            continue;
        }
        if ours.get(name) != Some(value) {
            let ours = ours.get(name).map(|value| String::from_utf8_lossy(value));
            wrong.push(format!("{shown}: redis-server {:?}, here {ours:?}", String::from_utf8_lossy(value)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Starts redis-server with its defaults on a free port; it is ready when its log says so.
fn start() -> (RedisServer, TcpStream) {
    // Another process may take the port between our look and redis-server's, hence some tries.
    for _ in 0..5 {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port").port();
        let mut child = Command::new("redis-server")
            .args(["--port", &port.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("redis-server is installed");
        let log = BufReader::new(child.stdout.take().expect("piped"));
        let server = RedisServer(child);
        let ready = log.lines().map_while(Result::ok).any(|line| line.contains("Ready to accept connections"));
        if ready && let Ok(connection) = TcpStream::connect(("127.0.0.1", port)) {
            return (server, connection);
        }
    }
    panic!("redis-server does not start");
}

fn config_get_all(mut connection: TcpStream) -> BTreeMap<Vec<u8>, Vec<u8>> {
    connection.write_all(b"*3\r\n$6\r\nCONFIG\r\n$3\r\nGET\r\n$1\r\n*\r\n").expect("sent");
    let mut reader = BufReader::new(connection);
    let count = length(&mut reader, '*');
    let mut texts = Vec::with_capacity(count);
    for _ in 0..count {
        let mut text = vec![0; length(&mut reader, '$') + 2];
        reader.read_exact(&mut text).expect("a bulk string");
        text.truncate(text.len() - 2);
        texts.push(text);
    }
    texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect()
}

fn length(reader: &mut impl BufRead, kind: char) -> usize {
    let mut line = String::new();
    reader.read_line(&mut line).expect("a line");
    line.trim_end().strip_prefix(kind).and_then(|count| count.parse().ok()).expect("a length")
}
