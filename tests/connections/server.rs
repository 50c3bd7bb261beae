//! A server as a process of its own, and a client that speaks to it in raw bytes.

use starling::proxy::{encoding, reply};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// How long anything may take before a test fails.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A process that is ended with the test.
pub(crate) struct Server {
    process: Child,
    pub(crate) address: SocketAddr,
    /// Where it keeps its files, unless it is told otherwise.
    _directory: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A port that nobody listens on, and that no other test of this process was given: a server that finds its port taken ends,
/// and who came first would be taken for it.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port");
        if GIVEN.lock().expect("no test panics here").insert(address.port()) {
            return address.port();
        }
    }
}

impl Server {
    /// A standalone server of one worker with these directives.
    pub(crate) fn start(directives: &[&str]) -> Server {
        // Another process may take the port between the look and the server's start, hence some tries.
        (0..5).find_map(|_| Server::try_start(directives)).expect("the server starts")
    }

    fn try_start(directives: &[&str]) -> Option<Server> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let directory = tempfile::tempdir().expect("a directory");
        let process = Command::new(env!("CARGO_BIN_EXE_starling"))
            .current_dir(directory.path())
            .args(["--port", &address.port().to_string(), "--threads", "1", "--bind", "127.0.0.1"])
            .args(directives)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server's binary");
        let mut server = Server { process, address, _directory: directory };
        let started = Instant::now();
        while started.elapsed() < LIMIT && matches!(server.process.try_wait(), Ok(None)) {
            if TcpStream::connect(address).is_ok() {
                return Some(server);
            }
            std::thread::yield_now();
        }
        None
    }

    pub(crate) fn client(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_write_timeout(Some(LIMIT)).expect("a limit");
        stream.set_nodelay(true).expect("no delay");
        Client::new(stream)
    }

    /// A client of the Unix socket that this server has opened.
    pub(crate) fn local_client(&self, path: &Path) -> Client<UnixStream> {
        assert_eq!(self.client().ask("PING"), "+PONG", "it listens on the other socket too, then");
        let stream = UnixStream::connect(path).expect("a connection");
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        stream.set_write_timeout(Some(LIMIT)).expect("a limit");
        Client::new(stream)
    }

    /// The most memory that it has ever had.
    pub(crate) fn peak_memory_bytes(&self) -> usize {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("it runs");
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the peak");
        peak.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
    }

    /// Waits until it has ended by itself; its log.
    pub(crate) fn wait(&mut self) -> (ExitStatus, Vec<String>) {
        let log = BufReader::new(self.process.stdout.take().expect("piped"));
        let lines = log.lines().map_while(Result::ok).collect();
        (self.process.wait().expect("it ends"), lines)
    }
}

pub(crate) struct Client<S = TcpStream> {
    pub(crate) stream: S,
    framer: reply::Framer,
    received: Vec<u8>,
    /// `received` up to here was given out.
    taken: usize,
}

/// Requests as bytes; their words are separated by blanks.
pub(crate) fn encoded(requests: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for request in requests {
        let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
        encoding::encode(words.into_iter(), &mut bytes);
    }
    bytes
}

impl<S: Read + Write> Client<S> {
    pub(crate) fn new(stream: S) -> Client<S> {
        Client { stream, framer: reply::Framer::default(), received: Vec::new(), taken: 0 }
    }

    /// Sends requests in one write, without waiting for a reply.
    pub(crate) fn send(&mut self, requests: &[&str]) {
        self.send_bytes(&encoded(requests));
    }

    pub(crate) fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("sent");
    }

    /// The next reply or message, line ends as blanks. `None`: the server has closed.
    pub(crate) fn try_receive(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.framer.end(&self.received[self.taken..]).expect("a reply") {
                let reply = String::from_utf8_lossy(&self.received[self.taken..self.taken + end]).into_owned();
                self.taken += end;
                return Some(reply.trim_end().replace("\r\n", " "));
            }
            self.received.drain(..std::mem::take(&mut self.taken));
            let mut piece = vec![0; 65536];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.received.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply in time: {error}"),
            }
        }
    }

    /// Whether bytes came that are no whole reply.
    pub(crate) fn has_received_more(&self) -> bool {
        self.taken < self.received.len()
    }

    pub(crate) fn receive(&mut self) -> String {
        self.try_receive().expect("the connection is open")
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(&[request]);
        self.receive()
    }
}
