//! The table of parameters against an installed redis-server (every name that it shows is known here, with the same
//! default, except the few listed with a reason), and what other servers' configurations and words do to a start.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use starling::config::Config;
use starling::config::parameters::{Change, Effect, PARAMETERS, Parameter};
use starling::config::value::Kind;

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

/// Parameters that CONFIG SET changes, and the source that reads each while the node runs: its file, and how.
const ACTING: &[(&str, &str, &str)] = &[
    ("acknowledge", "src/commands/control/config/agreed.rs", "ACKNOWLEDGE"),
    ("active-expire-effort", "src/server/worker.rs", "config.active_expire_effort"),
    ("aof-load-truncated", "src/services/append_log.rs", "config.aof_load_truncated"),
    ("aof-rewrite-incremental-fsync", "src/services/append_log.rs", "config.aof_rewrite_incremental_fsync"),
    ("appendfsync", "src/services/append_log.rs", "config.appendfsync"),
    ("appendonly", "src/services/append_log.rs", "config.appendonly"),
    ("auto-aof-rewrite-min-size", "src/services/append_log.rs", "config.auto_aof_rewrite_min_size"),
    ("auto-aof-rewrite-percentage", "src/services/append_log.rs", "config.auto_aof_rewrite_percentage"),
    ("bind", "src/commands/control/config.rs", "config.bind != before.bind"),
    ("client-output-buffer-limit", "src/services/settings.rs", "config.output_limit_normal"),
    ("client-query-buffer-limit", "src/server/connection.rs", ".client_query_buffer_limit"),
    ("cluster-allow-reads-when-down", "src/services/cluster.rs", "own.allow_reads_when_down"),
    ("cluster-move-rate", "src/commands/control/config.rs", "config.cluster_move_rate"),
    ("cluster-preferred-endpoint-type", "src/services/cluster.rs", "own.preferred_endpoint_type"),
    ("cluster-require-full-coverage", "src/services/cluster.rs", "own.require_full_coverage"),
    ("hash-max-listpack-entries", "src/commands/control/config.rs", "limits.hash_max_listpack_entries"),
    ("hash-max-listpack-value", "src/commands/control/config.rs", "limits.hash_max_listpack_value"),
    ("hll-sparse-max-bytes", "src/commands/control/config.rs", "limits.hll_sparse_max_bytes"),
    ("hz", "src/server/worker.rs", "config.hz"),
    ("latency-monitor-threshold", "src/commands/control/config.rs", "config.latency_monitor_threshold"),
    ("latency-tracking", "src/commands/control/config.rs", "config.latency_tracking"),
    ("latency-tracking-info-percentiles", "src/commands/control/info.rs", "\"latency-tracking-info-percentiles\""),
    ("lfu-decay-time", "src/services/eviction.rs", "config.lfu_decay_time"),
    ("lfu-log-factor", "src/services/eviction.rs", "config.lfu_log_factor"),
    ("list-max-listpack-size", "src/commands/control/config.rs", "limits.list_max_listpack_size"),
    ("loglevel", "src/commands/control/config.rs", "set_level(&config.loglevel)"),
    ("masterauth", "src/server/forwarding.rs", "\"masterauth\""),
    ("masteruser", "src/server/forwarding.rs", "\"masteruser\""),
    ("maxclients", "src/server/listener.rs", "config.maxclients"),
    ("maxmemory", "src/services/eviction.rs", "config.maxmemory"),
    ("maxmemory-eviction-tenacity", "src/services/eviction.rs", "config.maxmemory_eviction_tenacity"),
    ("maxmemory-policy", "src/services/eviction.rs", "config.maxmemory_policy"),
    ("maxmemory-samples", "src/services/eviction.rs", "config.maxmemory_samples"),
    ("min-replicas-max-lag", "src/services/condition.rs", ".min_replicas_max_lag"),
    ("min-replicas-to-write", "src/services/condition.rs", ".min_replicas_to_write"),
    ("notify-keyspace-events", "src/commands/control/config.rs", "config.notify_keyspace_events"),
    ("port", "src/commands/control/config.rs", "config.port != before.port"),
    ("probation", "src/commands/control/config/agreed.rs", "PROBATION"),
    ("protected-mode", "src/server/listener.rs", "config.protected_mode"),
    ("proto-max-bulk-len", "src/server/connection.rs", "config.proto_max_bulk_len"),
    ("rdb-key-save-delay", "src/services/snapshots.rs", "config.rdb_key_save_delay"),
    ("rdb-save-incremental-fsync", "src/services/snapshots.rs", "config.rdb_save_incremental_fsync"),
    ("rdbcompression", "src/services/snapshots.rs", "config.rdbcompression"),
    ("replicas", "src/commands/control/config/agreed.rs", "REPLICAS"),
    ("requirepass", "src/server/worker.rs", ".requirepass"),
    ("save", "src/services/snapshots.rs", "config.save"),
    ("set-max-intset-entries", "src/commands/control/config.rs", "limits.set_max_intset_entries"),
    ("set-max-listpack-entries", "src/commands/control/config.rs", "limits.set_max_listpack_entries"),
    ("set-max-listpack-value", "src/commands/control/config.rs", "limits.set_max_listpack_value"),
    ("shutdown-on-sigint", "src/node/ending.rs", "config.shutdown_on_sigint"),
    ("shutdown-on-sigterm", "src/node/ending.rs", "config.shutdown_on_sigterm"),
    ("shutdown-timeout", "src/node.rs", "settings.load().cluster.shutdown_timeout"),
    ("slowlog-log-slower-than", "src/commands/control/config.rs", "config.slowlog_log_slower_than"),
    ("slowlog-max-len", "src/commands/control/config.rs", "config.slowlog_max_len"),
    ("stop-writes-on-bgsave-error", "src/services/snapshots.rs", "config.stop_writes_on_bgsave_error"),
    ("stream-node-max-bytes", "src/commands/control/config.rs", "limits.stream_node_max_bytes"),
    ("stream-node-max-entries", "src/commands/control/config.rs", "limits.stream_node_max_entries"),
    ("tcp-keepalive", "src/server/listener.rs", "config.tcp_keepalive"),
    ("timeout", "src/services/timer.rs", ".timeout"),
    ("zset-max-listpack-entries", "src/commands/control/config.rs", "limits.zset_max_listpack_entries"),
    ("zset-max-listpack-value", "src/commands/control/config.rs", "limits.zset_max_listpack_value"),
];

/// Another value that a parameter may have.
fn another(parameter: &Parameter) -> String {
    match parameter.kind {
        Kind::Bool => if parameter.default == "yes" { "no" } else { "yes" }.to_owned(),
        Kind::Integer { least, greatest } | Kind::Memory { least, greatest } => {
            let other = |value: &i64| value.to_string() != parameter.default;
            [least, least + 1, greatest].into_iter().find(other).expect("two values").to_string()
        }
        Kind::Choice(choices) => choices.iter().find(|choice| **choice != parameter.default).expect("two").to_string(),
        Kind::Text | Kind::FileName | Kind::Words => "other".to_owned(),
        Kind::Mode => "700".to_owned(),
        Kind::Percentiles => "1 2".to_owned(),
        Kind::SavePoints => "10 20".to_owned(),
        Kind::OutputLimits => "normal 1 2 3".to_owned(),
        Kind::EventClasses => "KEA".to_owned(),
    }
}

#[test]
fn config_set_changes_what_acts_and_refuses_the_rest_in_words() {
    let config = Config::default();
    let acting: Vec<&str> = ACTING.iter().map(|(name, ..)| *name).collect();
    let mut found = Vec::new();
    for parameter in PARAMETERS {
        let (name, value) = (parameter.name, another(parameter));
        let set = |value: &str| config.changed(&[(name.as_bytes(), value.as_bytes())]);
        let refusal = |reason: &str| format!("CONFIG SET failed (possibly related to argument '{name}') - {reason}");
        let refused = set(&value).map(|_| ()).map_err(|error| error.to_string());
        match (parameter.change, parameter.effect) {
            (Change::Never, _) => assert_eq!(refused, Err(refusal("can't set immutable config"))),
            (Change::Protected, _) => assert_eq!(refused, Err(refusal("can't set protected config"))),
            (Change::AtStart, Effect::Acts) => {
                assert_eq!(refused, Err(refusal("this server takes it at its start only")));
                assert!(set(parameter.default).is_ok(), "{name}");
            }
            (Change::AtStart, other) => panic!("{name}: {other:?} at the start"),
            (Change::Anytime, Effect::Missing(reason)) => {
                assert_eq!(refused, Err(refusal(reason)));
                assert!(set(parameter.default).is_ok(), "{name}");
            }
            (Change::Anytime, effect) => {
                let changed = set(&value).unwrap_or_else(|error| panic!("{name} {value}: {error}"));
                assert_ne!(changed.text(name), parameter.default, "{name}");
                let advice = changed.advisory(&config, &[(name.as_bytes(), value.as_bytes())]);
                if effect == Effect::Acts {
                    assert!(advice.is_empty(), "{name}");
                    found.push(name);
                } else {
                    assert_eq!(advice, [name]);
                }
            }
        }
    }
    assert_eq!(found, acting);
    for (name, file, reading) in ACTING {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert!(std::fs::read_to_string(path).expect("a source").contains(reading), "{name}: {file} lacks '{reading}'");
    }
}

#[test]
fn what_already_holds_may_be_set() {
    let config = Config::default();
    let config = config.changed(&[(b"rdb-del-sync-files", b"no"), (b"save", b"")]).expect("nothing changes");
    assert!(config.changed(&[(b"rdb-del-sync-files", b"yes")]).is_err(), "nothing would be removed");
    assert!(config.changed(&[(b"key-load-delay", b"0")]).is_ok());
    assert!(config.changed(&[(b"key-load-delay", b"5")]).is_err());
    let config = config.changed(&[(b"commandlog-slow-execution-max-len", b"7")]).expect("a second name");
    let asked: [&[u8]; 2] = [b"Commandlog-Slow-Execution-Max-Len", b"key-load-delay"];
    assert_eq!(config.get(&asked), [("commandlog-slow-execution-max-len", "7"), ("key-load-delay", "0")]);
    assert_eq!(config.get(&[b"key-load*"]), []);
}

#[test]
fn listeners_move_with_port_and_bind_or_stay() {
    let mut node = Starling::start(&["--bind", "127.0.0.1"]);
    let (first, second) = (node.port, free_port());
    let mut connection = node.connect("127.0.0.1", first);
    let mut set = |words: &[&str]| ask(&mut connection, &[&["CONFIG", "SET"], words].concat());
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken_port = taken.local_addr().expect("an address").port();
    let refused = set(&["port", &taken_port.to_string()]);
    assert!(refused.contains("'port') - Unable to listen on this port. Check server logs."), "{refused}");
    let refused = set(&["bind", "192.0.2.1"]);
    assert!(refused.contains("'bind') - Failed to bind to specified addresses."), "{refused}");
    // Nothing has changed: neither what is listened on, nor what is shown.
    assert_eq!(ask(&mut node.connect("127.0.0.1", first), &["PING"]), "+PONG");
    assert_eq!(set(&["port", &second.to_string()]), "+OK");
    assert_eq!(ask(&mut node.connect("127.0.0.1", second), &["PING"]), "+PONG");
    assert!(TcpStream::connect(("127.0.0.1", first)).is_err(), "the old port is closed");
    // All addresses contain the one that is listened on; on to the next, and back.
    assert_eq!(set(&["bind", "*"]), "+OK");
    assert_eq!(ask(&mut node.connect("127.0.0.2", second), &["PING"]), "+PONG");
    assert_eq!(set(&["bind", "127.0.0.1 127.0.0.3"]), "+OK");
    assert_eq!(ask(&mut node.connect("127.0.0.3", second), &["PING"]), "+PONG");
    assert!(TcpStream::connect(("127.0.0.2", second)).is_err(), "this address is closed");
    // Where the way back is needed: `*` is taken by somebody on the last of these addresses.
    let blocking = TcpListener::bind(("127.0.0.9", second)).expect("an address");
    assert!(set(&["bind", "*"]).starts_with("-ERR CONFIG SET failed"));
    drop(blocking);
    assert_eq!(ask(&mut node.connect("127.0.0.1", second), &["PING"]), "+PONG");
    assert_eq!(ask(&mut node.connect("127.0.0.3", second), &["PING"]), "+PONG");
    assert_eq!(node.end(), Some(0));
}

#[test]
fn the_log_and_what_is_timed_follow_their_parameters() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    let node = Starling::start(&["--logfile", &log.display().to_string()]);
    let mut connection = node.connect("127.0.0.1", node.port);
    let said =
        |name: &str| std::fs::read_to_string(&log).expect("a log").contains(&format!("CONFIG SET {name}: accepted"));
    let mut ask = |words: &[&str]| ask(&mut connection, words);
    assert_eq!(ask(&["CONFIG", "SET", "lazyfree-lazy-user-del", "yes"]), "+OK");
    assert!(said("lazyfree-lazy-user-del"));
    assert_eq!(ask(&["CONFIG", "SET", "loglevel", "warning"]), "+OK");
    assert_eq!(ask(&["CONFIG", "SET", "list-compress-depth", "1"]), "+OK");
    assert!(!said("list-compress-depth"));
    assert_eq!(ask(&["CONFIG", "SET", "loglevel", "notice"]), "+OK");
    assert_eq!(ask(&["CONFIG", "SET", "list-compress-depth", "2"]), "+OK");
    assert!(said("list-compress-depth"));
    assert_eq!(ask(&["CONFIG", "SET", "latency-tracking-info-percentiles", "12.5 100"]), "+OK");
    let line = "latency_percentiles_usec_config|set:p12.5=";
    let text = ask(&["INFO", "latencystats"]);
    assert!(text.contains(line) && text.contains(",p100="), "{text}");
    assert_eq!(ask(&["CONFIG", "SET", "latency-tracking", "no"]), "+OK");
    assert!(!ask(&["INFO", "latencystats"]).contains(line));
    assert_eq!(ask(&["CONFIG", "RESETSTAT"]), "+OK");
    assert_eq!(ask(&["LATENCY", "HISTOGRAM", "config|resetstat"]), "*0", "what was not timed is not shown");
}

#[test]
fn replicas_are_a_matter_of_clusters() {
    let node = Starling::start(&["--replicas", "2"]);
    let mut connection = node.connect("127.0.0.1", node.port);
    let refused = ask(&mut connection, &["CONFIG", "SET", "replicas", "3"]);
    assert!(refused.contains("'replicas') - this server is no node of a cluster"), "{refused}");
    assert_eq!(ask(&mut connection, &["CONFIG", "SET", "replicas", "2"]), "+OK", "what it says already");
    let refused = ask(&mut connection, &["CONFIG", "SET", "acknowledge", "quorum"]);
    assert!(refused.contains("'acknowledge') - this server is no node of a cluster"), "{refused}");
    // One place in a slot's record is for the copy that takes another's place.
    let too_many = starling::cluster::topology::COPIES_MAX.to_string();
    let (code, output) = starling(&["check", "--replicas", &too_many], &[]);
    assert!(code != 0 && output.contains("between 0 and 4"), "{output}");
}

#[test]
fn the_pidfile_is_there_while_its_server_runs() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("starling.pid");
    let name = file.display().to_string();
    let mut node = Starling::start(&["--pidfile", &name]);
    assert_eq!(ask(&mut node.connect("127.0.0.1", node.port), &["PING"]), "+PONG");
    let written = || std::fs::read_to_string(&file).ok();
    let own = Some(format!("{}\n", node.child.id()));
    assert_eq!(written(), own);
    // Another one on the same port ends, and leaves the file of the first alone.
    let (code, output) = starling(&["--port", &node.port.to_string(), "--pidfile", &name], &[]);
    assert_eq!(code, 1, "{output}");
    assert_eq!(written(), own);
    assert_eq!(node.end(), Some(0));
    assert_eq!(written(), None);
}

#[test]
fn a_relative_dir_is_shown_as_where_it_is_and_saved_to() {
    let directory = tempfile::tempdir().expect("a directory");
    let kept = directory.path().canonicalize().expect("a path").join("kept");
    std::fs::create_dir(&kept).expect("a directory");
    let before = format!("cd {}", directory.path().display());
    let mut node = Starling::start_by(&before, &["--dir", "kept", "--save", "900 1"], &[]);
    let mut connection = node.connect("127.0.0.1", node.port);
    assert_eq!(ask(&mut connection, &["CONFIG", "GET", "dir"]), "*2");
    let shown: Vec<String> = connection.by_ref().lines().take(4).map(|line| line.expect("a line")).collect();
    assert_eq!(shown[3], kept.display().to_string());
    assert_eq!(ask(&mut connection, &["SAVE"]), "+OK");
    assert!(kept.join("dump.rdb").exists());
    std::fs::remove_file(kept.join("dump.rdb")).expect("a file");
    assert_eq!(node.end(), Some(0));
    assert!(kept.join("dump.rdb").exists());
}

#[test]
fn systemd_hears_when_the_server_is_ready_and_when_it_ends() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(std::time::Duration::from_secs(60))).expect("a limit");
    let heard = || {
        let mut text = [0; 256];
        let length = socket.recv(&mut text).expect("a word within a minute");
        String::from_utf8_lossy(&text[..length]).into_owned()
    };
    let path = path.display().to_string();
    for supervised in ["systemd", "auto"] {
        let mut node = Starling::start_with(&["--supervised", supervised], &[("NOTIFY_SOCKET", &path)]);
        assert!(heard().contains("READY=1\n"));
        let info = ask(&mut node.connect("127.0.0.1", node.port), &["INFO", "server"]);
        assert!(info.contains("process_supervised:systemd"), "{info}");
        assert_eq!(node.end(), Some(0));
        assert_eq!(heard(), "STOPPING=1\n");
    }
}

/// Fields of INFO that redis-server 7.0.15 shows.
const INFO: &str = include_str!("fixtures/info.txt");

#[test]
fn info_has_every_field_of_redis_server() {
    let node = Starling::start(&[]);
    let mut connection = node.connect("127.0.0.1", node.port);
    let mut info = || ask(&mut connection, &["INFO", "everything"]);
    let text = info();
    let shown: Vec<&str> = text.lines().filter_map(|line| line.split(':').next()).collect();
    // What is there only after a command or a key.
    let comes_later = ["cmdstat_", "errorstat_", "latency_percentiles_usec_", "db0"];
    let names =
        INFO.lines().skip(1).filter(|name| *name != "txt" && !comes_later.iter().any(|begin| name.starts_with(begin)));
    let absent: Vec<&str> = names.clone().filter(|name| !shown.contains(name)).collect();
    assert!(names.count() > 150 && absent.is_empty(), "{absent:?}");
    let count = |text: &str, name: &str| -> u64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':').map(str::to_owned));
        line.and_then(|count| count.trim_end().parse().ok()).expect("a number")
    };
    let later = info();
    for name in ["total_reads_processed", "total_writes_processed"] {
        assert_eq!(count(&later, name), count(&text, name) + 1, "{name}");
    }
}

#[test]
fn a_low_limit_of_files_lowers_maxclients_and_says_so() {
    let directory = tempfile::tempdir().expect("a directory");
    let log = directory.path().join("log");
    // More than any kernel gives, so that it is refused to the superuser as well.
    let words = ["--maxclients", "4294967294", "--logfile", &log.display().to_string()];
    let node = Starling::start_by("ulimit -n 256", &words, &[]);
    let mut connection = node.connect("127.0.0.1", node.port);
    let maxclients = "220";
    let info = ask(&mut connection, &["INFO", "clients"]);
    assert!(info.contains(&format!("maxclients:{maxclients}\r\n")), "{info}");
    let log = std::fs::read_to_string(&log).expect("a log");
    let said = format!("maxclients has been reduced to {maxclients} to compensate for low ulimit");
    assert!(
        log.contains("You requested maxclients of 4294967294 requiring at least 4294967330 max file descriptors"),
        "{log}"
    );
    assert!(log.contains(&said), "{log}");
    let refused = ask(&mut connection, &["CONFIG", "SET", "maxclients", "4294967294"]);
    assert!(refused.ends_with("is not able to handle the specified number of clients, try with 220"), "{refused}");
    assert_eq!(ask(&mut connection, &["CONFIG", "SET", "maxclients", "100"]), "+OK");
}

/// A node of the program, on a port of 127.0.0.1 that was free.
struct Starling {
    child: Child,
    port: u16,
    _directory: tempfile::TempDir,
}

impl Drop for Starling {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Starling {
    fn start(words: &[&str]) -> Starling {
        Starling::start_with(words, &[])
    }

    fn start_with(words: &[&str], variables: &[(&str, &str)]) -> Starling {
        Starling::start_by("true", words, variables)
    }

    /// Behind a command of the shell, which may set limits.
    fn start_by(command: &str, words: &[&str], variables: &[(&str, &str)]) -> Starling {
        // Another process may take the port between our look and the start, hence some tries.
        for _ in 0..5 {
            let (port, directory) = (free_port(), tempfile::tempdir().expect("a directory"));
            let program = env!("CARGO_BIN_EXE_starling");
            let mut child = Command::new("/bin/sh")
                .args(["-c", &format!("{command} && exec \"$0\" \"$@\""), program])
                .args(["--port", &port.to_string(), "--threads", "1", "--dir", &directory.path().display().to_string()])
                .args(words)
                .env_clear()
                .envs(variables.iter().copied())
                .stdout(Stdio::null())
                .spawn()
                .expect("the program");
            for _ in 0..1000 {
                if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                    return Starling { child, port, _directory: directory };
                }
                if child.try_wait().expect("a child").is_some() {
                    break;
                }
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
            let _ = child.kill();
            let _ = child.wait();
        }
        panic!("the server does not start");
    }

    fn connect(&self, address: &str, port: u16) -> BufReader<TcpStream> {
        BufReader::new(TcpStream::connect((address, port)).expect("a connection"))
    }

    /// Tells it to end; how it did.
    fn end(&mut self) -> Option<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        self.child.wait().expect("its end").code()
    }
}

/// A port that nobody listens on, and that no other test of this process was given.
fn free_port() -> u16 {
    static GIVEN: std::sync::Mutex<std::collections::BTreeSet<u16>> =
        std::sync::Mutex::new(std::collections::BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        if GIVEN.lock().expect("no test panics here").insert(address.port()) {
            return address.port();
        }
    }
}

/// Sends a command; its answer: a line, or the text of a bulk string, or all lines of an array of flat elements.
fn ask(connection: &mut BufReader<TcpStream>, words: &[&str]) -> String {
    let mut request = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| request.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    connection.get_mut().write_all(request.as_bytes()).expect("sent");
    let mut line = String::new();
    connection.read_line(&mut line).expect("an answer");
    match line.trim_end() {
        bulk if bulk.starts_with('$') => {
            let mut text = vec![0; bulk[1..].parse::<usize>().expect("a length") + 2];
            connection.read_exact(&mut text).expect("a bulk string");
            String::from_utf8_lossy(&text).trim_end().to_owned()
        }
        line => line.to_owned(),
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
