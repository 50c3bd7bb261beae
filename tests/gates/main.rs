//! Replies that wait until what they show is kept: a node in this process, real sockets, and a reader of the log in the
//! place of a disk, which keeps what it has read when it likes, or breaks.

#[path = "../connections/server.rs"]
#[allow(dead_code)]
mod server;

use server::{Client, LIMIT};
use starling::config::load::load;
use starling::engine::Engine;
use starling::engine::effect::Effect;
use starling::engine::log::{Behind, LogOffset};
use starling::node::Node;
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the disk does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// It keeps what it has read, one piece after the other.
    Keeping,
    /// It reads, and keeps nothing yet.
    Standing,
    Broken,
    Over,
}

/// A reader of the log that remembers what the strings were when it said that they are kept.
struct Disk {
    engine: Arc<Engine>,
    mode: Mutex<Mode>,
    kept: Mutex<HashMap<Vec<u8>, Vec<u8>>>,
    syncs: AtomicUsize,
}

impl Disk {
    fn start(engine: &Arc<Engine>) -> Arc<Disk> {
        let disk = Arc::new(Disk {
            engine: Arc::clone(engine),
            mode: Mutex::new(Mode::Keeping),
            kept: Mutex::default(),
            syncs: AtomicUsize::new(0),
        });
        let (writer, mut reader) = (Arc::clone(&disk), engine.read_log(Behind::Wait(64 << 20)));
        engine.set_gated(true);
        std::thread::spawn(move || {
            let bell = writer.engine.log.listen();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
            let mut pending = Vec::new();
            let mut end = LogOffset(0);
            loop {
                let _ =
                    runtime.block_on(async { tokio::time::timeout(Duration::from_millis(5), bell.notified()).await });
                let mode = *writer.mode.lock().expect("a mode");
                if mode == Mode::Over {
                    return;
                }
                for chunk in reader.take(usize::MAX).expect("its place") {
                    end = chunk.end();
                    pending.extend(chunk.groups().flat_map(|(group, _)| strings_of(&group)));
                }
                match mode {
                    Mode::Keeping => {
                        writer.kept.lock().expect("strings").extend(pending.drain(..));
                        writer.syncs.fetch_add(1, Ordering::Relaxed);
                        writer.engine.log.gates.pass(end);
                    }
                    Mode::Broken => writer.engine.log.gates.fail("the disk is broken"),
                    Mode::Standing | Mode::Over => {}
                }
            }
        });
        disk
    }

    fn set(&self, mode: Mode) {
        *self.mode.lock().expect("a mode") = mode;
        if mode == Mode::Keeping {
            self.engine.log.gates.recover();
        }
        self.engine.log.ask();
    }

    /// The number that is kept under a key; 0: none is.
    fn number(&self, key: &str) -> u64 {
        let kept = self.kept.lock().expect("strings");
        kept.get(key.as_bytes()).map_or(0, |bytes| String::from_utf8_lossy(bytes).parse().expect("a number"))
    }
}

/// The strings that a group sets.
fn strings_of(group: &starling::engine::Group<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut strings = Vec::new();
    for run in group.runs() {
        let mut effects = run.expect("a run").effects;
        while !effects.is_empty() {
            match Effect::decode(&mut effects).expect("an effect") {
                Effect::SetString { key, bytes, .. } => strings.push((key.to_vec(), bytes.to_vec())),
                Effect::Increment { key, result, .. } => strings.push((key.to_vec(), result.to_string().into_bytes())),
                _ => {}
            }
        }
    }
    strings
}

/// A node of a cluster of its own, with a proxy listener.
struct Served {
    disk: Arc<Disk>,
    address: SocketAddr,
    proxy: SocketAddr,
    _directory: tempfile::TempDir,
}

impl Served {
    fn start() -> Served {
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        let directory = tempfile::tempdir().expect("a directory");
        let (address, proxy, cluster) = (free(), free(), free());
        let ports = [address, proxy, cluster].map(|address| address.port().to_string());
        // What the command line does with `dir`.
        std::env::set_current_dir(directory.path()).expect("a directory");
        let arguments =
            ["--bind", "127.0.0.1", "--port", &ports[0], "--proxy-port", &ports[1], "--cluster-port", &ports[2]];
        let more = ["--cluster-enabled", "yes", "--threads", "2"];
        let arguments: Vec<String> = arguments.iter().chain(&more).map(|word| String::from(*word)).collect();
        let config = load(&arguments, std::iter::empty()).expect("settings").config;
        let (sender, engine) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            runtime.expect("a runtime").block_on(async move {
                let node = Node::start(config).await.expect("the node starts");
                sender.send(Arc::clone(&node.services().engine)).expect("somebody waits");
                node.run().await.expect("it serves");
            });
        });
        let engine = engine.recv_timeout(LIMIT).expect("the node starts");
        let disk = Disk::start(&engine);
        let served = Served { disk, address, proxy, _directory: directory };
        let started = Instant::now();
        while !matches!(served.client().ask("SET ready 1").as_str(), "+OK") {
            assert!(started.elapsed() < LIMIT, "it serves its slots");
            std::thread::yield_now();
        }
        served
    }

    fn client(&self) -> Client {
        connect(self.address)
    }

    fn proxied(&self) -> Client {
        connect(self.proxy)
    }
}

fn connect(address: SocketAddr) -> Client {
    let started = Instant::now();
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT)).expect("a limit");
                stream.set_nodelay(true).expect("no delay");
                return Client::new(stream);
            }
            Err(error) => assert!(started.elapsed() < LIMIT, "no connection: {error}"),
        }
    }
}

/// The number in a bulk reply; a null is 0.
fn number(reply: &str) -> u64 {
    let text = reply.rsplit(' ').next().unwrap_or_default();
    text.parse().unwrap_or(0)
}

/// Says so when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Clients that write numbers, each under its own key, and read each other's: no reply shows a number that is not kept.
fn check_that_nothing_unkept_is_shown(served: &Served, connect: &(dyn Fn() -> Client + Sync)) {
    const CLIENTS: usize = 8;
    let (disk, is_over) = (&served.disk, AtomicBool::new(false));
    let before = disk.syncs.load(Ordering::Relaxed);
    // Its requests touch no key, so they never wait: the time that they take is the disk's turn.
    let mut beside = served.client();
    std::thread::scope(|scope| {
        for own in 0..CLIENTS {
            let is_over = &is_over;
            scope.spawn(move || {
                // Also when it fails.
                let _over = Over(is_over);
                let mut client = connect();
                for round in 1..=300u64 {
                    let (key, other) = (format!("key:{own}"), format!("key:{}", (own + round as usize) % CLIENTS));
                    let requests = match round % 3 {
                        0 => vec![format!("INCR {key}"), format!("GET {other}"), format!("MGET {other}")],
                        1 => vec!["MULTI".into(), format!("INCR {key}"), "EXEC".into(), format!("GET {other}")],
                        _ => vec![format!("GET {other}"), format!("INCR {key}"), format!("STRLEN {other}")],
                    };
                    client.send(&requests.iter().map(String::as_str).collect::<Vec<_>>());
                    for request in &requests {
                        let (reply, words) = (client.receive(), request.split(' ').collect::<Vec<_>>());
                        let shown = number(&reply);
                        match words[..] {
                            ["INCR", key] if reply != "+QUEUED" => {
                                assert!(disk.number(key) >= shown, "{request}: {reply}")
                            }
                            ["GET" | "MGET", key] => assert!(disk.number(key) >= shown, "{request}: {reply}"),
                            ["EXEC"] => assert!(disk.number(&key) >= shown, "{request}: {reply}"),
                            _ => {}
                        }
                    }
                }
            });
        }
        // The disk stands still from time to time.
        while !is_over.load(Ordering::Relaxed) {
            disk.set(Mode::Standing);
            (0..20).for_each(|_| drop(beside.ask("PING")));
            disk.set(Mode::Keeping);
            (0..20).for_each(|_| drop(beside.ask("PING")));
        }
    });
    assert!(disk.syncs.load(Ordering::Relaxed) - before > 10, "the disk was asked");
    let kept: u64 = (0..CLIENTS).map(|own| disk.number(&format!("key:{own}"))).sum();
    assert!(kept.is_multiple_of(300), "every write was kept: {kept}");
}

/// Whether something arrives within a moment in which much could.
fn is_silent(client: &mut Client) -> bool {
    client.stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a limit");
    let mut byte = [0];
    let peeked = client.stream.peek(&mut byte);
    client.stream.set_read_timeout(Some(LIMIT)).expect("a limit");
    !client.has_received_more() && peeked.is_err()
}

fn check_that_reads_of_what_is_kept_do_not_wait(served: &Served) {
    let mut client = served.client();
    assert_eq!(client.ask("SET kept 1"), "+OK");
    served.disk.set(Mode::Standing);
    let mut writer = served.client();
    writer.send(&["SET unkept 1"]);
    assert!(is_silent(&mut writer));
    assert_eq!(client.ask("GET kept"), "$1 1");
    assert_eq!(client.ask("PING"), "+PONG");
    client.send(&["GET unkept"]);
    assert!(is_silent(&mut client), "it would show what may be lost");
    served.disk.set(Mode::Keeping);
    assert_eq!((writer.receive(), client.receive()), ("+OK".into(), "$1 1".into()));
}

fn check_that_a_client_that_sends_no_more_gets_its_replies(served: &Served, mut client: Client) {
    served.disk.set(Mode::Standing);
    client.send(&["SET half 1", "INCR half", "GET half"]);
    client.stream.shutdown(Shutdown::Write).expect("half closed");
    assert!(is_silent(&mut client));
    served.disk.set(Mode::Keeping);
    let replies: Vec<String> = std::iter::from_fn(|| client.try_receive()).collect();
    assert_eq!(replies, ["+OK", ":2", "$1 2"]);
}

/// A message of a channel does not overtake the replies before it.
fn check_that_messages_keep_their_place(served: &Served) {
    let (mut client, mut publisher) = (served.client(), served.client());
    assert!(client.ask("HELLO 3").contains("redis"));
    assert!(client.ask("SUBSCRIBE news").starts_with(">3"));
    served.disk.set(Mode::Standing);
    client.send(&["SET messages 1"]);
    assert!(is_silent(&mut client));
    assert_eq!(publisher.ask("PUBLISH news one"), ":1", "nobody else waits");
    assert!(is_silent(&mut client));
    served.disk.set(Mode::Keeping);
    assert_eq!(client.receive(), "+OK");
    assert!(client.receive().ends_with("one"));
}

/// After a flush that has failed every reply that waits is an error, which says whether the command was executed.
fn check_that_a_broken_disk_is_told(served: &Served) {
    served.disk.set(Mode::Standing);
    let mut clients: Vec<Client> = (0..8).map(|_| served.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        let pairs = [format!("SET broken:{index} 1"), "PING".into(), format!("GET broken:{index}"), "GET ready".into()];
        client.send(&pairs.each_ref().map(String::as_str));
    }
    assert!(clients.iter_mut().all(is_silent));
    served.disk.set(Mode::Broken);
    for client in &mut clients {
        let replies: Vec<String> = (0..4).map(|_| client.receive()).collect();
        assert!(replies[0].starts_with("-INDOUBT The command was executed"), "{replies:?}");
        assert!(replies[2].starts_with("-UNKEPT Nothing was written"), "{replies:?}");
        assert!(replies[0].ends_with("the disk is broken"), "{replies:?}");
        assert_eq!((replies[1].as_str(), replies[3].as_str()), ("+PONG", "$1 1"), "{replies:?}");
    }
    served.disk.set(Mode::Keeping);
    assert_eq!(clients[0].ask("GET broken:0"), "$1 1", "it works again");
}

fn check_that_nothing_waits_when_nobody_asks(served: &Served) {
    served.disk.set(Mode::Standing);
    let mut waiting = served.client();
    waiting.send(&["SET off 1"]);
    assert!(is_silent(&mut waiting));
    served.disk.engine.set_gated(false);
    assert_eq!(waiting.receive(), "+OK");
    assert_eq!(served.client().ask("SET off 2"), "+OK");
    served.disk.set(Mode::Over);
}

/// One node for all: the hash key is the process's.
#[test]
fn replies_wait_until_what_they_show_is_kept() {
    let served = Served::start();
    check_that_nothing_unkept_is_shown(&served, &|| served.client());
    check_that_nothing_unkept_is_shown(&served, &|| served.proxied());
    check_that_reads_of_what_is_kept_do_not_wait(&served);
    check_that_a_client_that_sends_no_more_gets_its_replies(&served, served.client());
    check_that_a_client_that_sends_no_more_gets_its_replies(&served, served.proxied());
    check_that_messages_keep_their_place(&served);
    check_that_a_broken_disk_is_told(&served);
    check_that_nothing_waits_when_nobody_asks(&served);
}
