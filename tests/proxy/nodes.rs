//! What the proxy is tested against: nodes that are Starling's own binary, nodes that answer what a test says, and a
//! home whose table of slots a test makes.

use rustix::process::Signal;
use starling::base::slot::Slot;
use starling::proxy::{Credentials, Home, Peer, Place, Proxy};
use starling::resp::arguments::{Arguments, OwnedArguments};
use starling::resp::reply::Protocol;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// Between looks: who is looked at all the time has no time for what is waited for.
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// A process that is ended with the test.
pub(crate) struct Node {
    process: Child,
    pub(crate) peer: Peer,
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Node {
    /// A standalone server with these directives: it owns whatever it is asked for.
    pub(crate) fn start(directives: &[&str]) -> Node {
        for _ in 0..5 {
            if let Some(node) = Node::try_start(free_port(), directives) {
                return node;
            }
        }
        panic!("a node does not start");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let process = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(process, signal).expect("it runs");
    }

    /// Its exit code, once it has ended.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let status = self.process.try_wait().expect("a child")?;
        Some(status.code().unwrap_or(-1))
    }

    /// Asks it to end, and waits until it has. Its exit code.
    pub(crate) fn terminate(&mut self) -> i32 {
        self.signal(Signal::TERM);
        self.until_ended()
    }

    pub(crate) fn until_ended(&mut self) -> i32 {
        let asked = Instant::now();
        loop {
            if let Some(code) = self.exit_code() {
                return code;
            }
            assert!(asked.elapsed() < 2 * LIMIT, "it ends when it is asked to");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// One that is not expected to start: its exit code and what it said.
    pub(crate) fn refused(port: u16, directives: &[&str]) -> (Option<i32>, String) {
        let output = Node::command(port, directives).output().expect("the server's binary");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn command(port: u16, directives: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_starling"));
        command.args(["--port", &port.to_string(), "--threads", "1", "--bind", "127.0.0.1"]).args(directives);
        command
    }

    /// `None`: it has ended, most likely because the port is taken.
    pub(crate) fn try_start(port: u16, directives: &[&str]) -> Option<Node> {
        // Whoever listens there already would be taken for the node that ends because of it.
        if TcpListener::bind(("127.0.0.1", port)).is_err() {
            return None;
        }
        let process = Node::command(port, directives)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server's binary");
        let mut node = Node { process, peer: SocketAddr::from(([127, 0, 0, 1], port)) };
        let started = Instant::now();
        while started.elapsed() < LIMIT && matches!(node.process.try_wait(), Ok(None)) {
            if TcpStream::connect(node.peer).is_ok() {
                return Some(node);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        None
    }
}

/// Looks again until it is so, for as long as anything may take.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < LIMIT, "{what}");
        std::thread::sleep(LOOK_PAUSE);
    }
}

/// Ports that tests of this process were given: none is given twice, or who came first would be taken for the other.
static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

/// A port for a member of a cluster: nobody listens there, nor 10,000 above, where its cluster port will be; below the
/// ports that the kernel hands out.
pub(crate) fn member_port() -> u16 {
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    loop {
        let port = 10_000 + free_port() % 10_000;
        if is_free(port) && is_free(port + 10_000) && GIVEN.lock().expect("no test panics here").insert(port) {
            return port;
        }
    }
}

pub(crate) fn free_port() -> u16 {
    loop {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        if GIVEN.lock().expect("no test panics here").insert(address.port()) {
            return address.port();
        }
    }
}

/// What a made-up node does with a request.
pub(crate) enum Act {
    Reply(String),
    /// It closes the connection.
    Close,
    /// It never answers.
    Silence,
}

/// A node that does with each request what a test says. Requests of a link's greeting are answered with OK.
pub(crate) fn made_up(mut act: impl FnMut(&[String]) -> Act + Send + 'static) -> Peer {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let peer = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            serve(stream, &mut act);
        }
    });
    peer
}

/// Serves one connection at a time, to its end.
fn serve(mut stream: TcpStream, act: &mut dyn FnMut(&[String]) -> Act) {
    let Ok(copy) = stream.try_clone() else { return };
    let mut reader = BufReader::new(copy);
    while let Some(request) = read_request(&mut reader) {
        let is_greeting = matches!(request[0].as_str(), "HELLO" | "AUTH" | "CLIENT");
        let act = if is_greeting { Act::Reply("+OK\r\n".into()) } else { act(&request) };
        match act {
            Act::Reply(reply) => {
                if stream.write_all(reply.as_bytes()).is_err() {
                    return;
                }
            }
            Act::Close => return,
            Act::Silence => {}
        }
    }
}

fn read_request(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let count = read_length(reader)?;
    (0..count).map(|_| read_bulk(reader)).collect()
}

fn read_bulk(reader: &mut impl BufRead) -> Option<String> {
    let mut bytes = vec![0; read_length(reader)? + 2];
    reader.read_exact(&mut bytes).ok()?;
    bytes.truncate(bytes.len() - 2);
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn read_length(reader: &mut impl BufRead) -> Option<usize> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    line.trim_end().get(1..)?.parse().ok()
}

/// A home that owns no slot: the slots are dealt out to peers in equal runs.
pub(crate) struct Table {
    pub(crate) peers: RefCell<Vec<Peer>>,
    pub(crate) version: Cell<u64>,
    pub(crate) credentials: Rc<Credentials>,
    pub(crate) patience: Duration,
}

impl Table {
    pub(crate) fn new(peers: Vec<Peer>) -> Table {
        Table {
            peers: RefCell::new(peers),
            version: Cell::new(1),
            credentials: Rc::default(),
            patience: Duration::from_secs(10),
        }
    }

    /// Another table, of a newer version.
    pub(crate) fn change(&self, peers: Vec<Peer>) {
        *self.peers.borrow_mut() = peers;
        self.version.set(self.version.get() + 1);
    }

    fn owner(&self, slot: Slot) -> usize {
        slot.index() * self.peers.borrow().len() / 16384
    }
}

impl Home for Table {
    fn version(&self) -> u64 {
        self.version.get()
    }

    fn place(&self, slot: Slot, _: bool) -> Place {
        match self.peers.borrow().get(self.owner(slot)) {
            Some(peer) => Place::At(*peer),
            None => Place::Nowhere("CLUSTERDOWN Hash slot not served"),
        }
    }

    fn run_end(&self, slot: Slot) -> Slot {
        Slot::all().skip(slot.index()).take_while(|other| self.owner(*other) == self.owner(slot)).last().unwrap_or(slot)
    }

    fn unserved(&self, writes: bool) -> Option<&'static str> {
        match self.place(Slot::of_key(b""), writes) {
            Place::Nowhere(text) => Some(text),
            _ => None,
        }
    }

    fn peers(&self) -> Vec<Peer> {
        self.peers.borrow().clone()
    }

    fn own_address(&self) -> Option<Peer> {
        None
    }

    fn peer_named(&self, endpoint: &str) -> Option<Peer> {
        endpoint.parse().ok()
    }

    fn until_newer(&self, _: u64, at_most: Duration) -> Pin<Box<dyn Future<Output = ()>>> {
        Box::pin(tokio::time::sleep(at_most))
    }

    fn execute(&self, request: Arguments<'_>, _: Protocol) -> Option<Vec<u8>> {
        // What all nodes execute, this one does on no keys.
        Some(match request.at(0) {
            b"DBSIZE" => b":0\r\n".to_vec(),
            b"KEYS" => b"*0\r\n".to_vec(),
            _ => b"+OK\r\n".to_vec(),
        })
    }

    fn credentials(&self) -> Rc<Credentials> {
        Rc::clone(&self.credentials)
    }

    fn patience(&self) -> Duration {
        self.patience
    }
}

/// Runs a test with a proxy in one thread, as a worker does.
pub(crate) fn with_proxy<F: Future<Output = ()>>(table: Table, test: impl FnOnce(Rc<Proxy>, Rc<Table>) -> F) {
    let table = Rc::new(table);
    let proxy = Proxy::new(Rc::clone(&table) as Rc<dyn Home>);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        tokio::time::timeout(LIMIT, test(proxy, table)).await.expect("the test ends in time");
    });
}

pub(crate) fn request(words: &[&str]) -> OwnedArguments {
    words.iter().map(|word| word.as_bytes()).collect()
}
