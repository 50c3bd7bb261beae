//! A client for the command line: blocking, one request at a time, and one that follows a cluster's redirects.

use crate::base::slot::{SLOT_COUNT, Slot};
use redis_protocol::resp2::decode::decode;
use redis_protocol::resp2::types::OwnedFrame;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// For connecting, and for each answer.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Redirects of one request that are followed.
const REDIRECTS_MAX: usize = 8;

/// One connection to one node.
pub(super) struct Connection {
    stream: TcpStream,
    input: Vec<u8>,
}

impl Connection {
    pub(super) fn open(address: SocketAddr) -> io::Result<Connection> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Connection { stream, input: Vec::new() })
    }

    /// Answers may take so long from here on.
    pub(super) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.stream.set_read_timeout(Some(patience))?;
        self.stream.set_write_timeout(Some(patience))
    }

    /// Sends requests, as [`append_request`] writes them, and waits for their answers. Who does not read while the other side
    /// writes waits forever: what is sent at once should fit in the buffers of both sides, or have short answers.
    pub(super) fn pipeline(&mut self, requests: &[u8], count: usize) -> io::Result<Vec<OwnedFrame>> {
        self.stream.write_all(requests)?;
        let mut answers = Vec::with_capacity(count);
        let mut at = 0;
        let mut piece = vec![0; 256 * 1024];
        while answers.len() < count {
            match decode(&self.input[at..]).map_err(|error| io::Error::other(error.to_string()))? {
                Some((frame, length)) => {
                    answers.push(frame);
                    at += length;
                }
                None => {
                    self.input.drain(..at);
                    at = 0;
                    match self.stream.read(&mut piece)? {
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        count => self.input.extend_from_slice(&piece[..count]),
                    }
                }
            }
        }
        self.input.drain(..at);
        Ok(answers)
    }

    /// Sends a request and waits for its answer.
    pub(super) fn call(&mut self, arguments: &[&[u8]]) -> io::Result<OwnedFrame> {
        let mut request = Vec::new();
        append_request(&mut request, arguments);
        self.stream.write_all(&request)?;
        loop {
            let decoded = decode(&self.input).map_err(|error| io::Error::other(error.to_string()))?;
            if let Some((frame, length)) = decoded {
                self.input.drain(..length);
                return Ok(frame);
            }
            let mut piece = [0; 16 * 1024];
            match self.stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&piece[..count]),
            }
        }
    }

    /// The answer as text: of INFO, CLUSTER NODES and the like.
    pub(super) fn text(&mut self, words: &[&str]) -> io::Result<String> {
        let arguments: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        match self.call(&arguments)? {
            OwnedFrame::BulkString(bytes) | OwnedFrame::SimpleString(bytes) => {
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            OwnedFrame::Integer(number) => Ok(number.to_string()),
            OwnedFrame::Error(text) => Err(io::Error::other(text)),
            OwnedFrame::Null | OwnedFrame::Array(_) => Ok(String::new()),
        }
    }
}

/// Appends a request.
pub(super) fn append_request(requests: &mut Vec<u8>, arguments: &[&[u8]]) {
    requests.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        requests.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        requests.extend_from_slice(argument);
        requests.extend_from_slice(b"\r\n");
    }
}

/// Why a request has no answer.
#[derive(Debug)]
pub(super) enum Failure {
    /// It was not executed.
    Refused(String),
    /// The connection broke behind the request: it may have been executed.
    Unknown(io::Error),
    /// The node had closed a connection that was open before the request, or did so then: it may have been executed.
    Closed(io::Error),
}

fn is_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Refused(text) => f.write_str(text),
            Failure::Unknown(error) | Failure::Closed(error) => write!(f, "no answer: {error}"),
        }
    }
}

/// Sends each request to the node that owns its key.
pub(super) struct ClusterClient {
    seeds: Vec<SocketAddr>,
    connections: HashMap<SocketAddr, Connection>,
    owners: Vec<Option<SocketAddr>>,
    /// Redirects followed so far.
    pub(super) redirects: u64,
}

impl ClusterClient {
    /// A client that learns the cluster from these nodes, when it is first used.
    pub(super) fn new(seeds: Vec<SocketAddr>) -> ClusterClient {
        ClusterClient { seeds, connections: HashMap::new(), owners: vec![None; SLOT_COUNT], redirects: 0 }
    }

    /// Sends a request about a key. It may be executed twice, and must have the same outcome then: a node that has given
    /// away its slots closes its connections when it ends, and what it was asked in that moment is asked again.
    pub(super) fn call(&mut self, key: &[u8], arguments: &[&[u8]]) -> Result<OwnedFrame, Failure> {
        let slot = Slot::of_key(key);
        match self.follow(slot, arguments) {
            Err(Failure::Closed(closed)) => {
                let again = self.follow(slot, arguments);
                // Refused the second time: still unknown of the first.
                again.map_err(|failure| Failure::Unknown(io::Error::new(closed.kind(), failure.to_string())))
            }
            answered => answered,
        }
    }

    /// Sends a request to the owner of a slot, wherever that is.
    fn follow(&mut self, slot: Slot, arguments: &[&[u8]]) -> Result<OwnedFrame, Failure> {
        let mut target = match self.owners[slot.index()] {
            Some(owner) => owner,
            None => self.learn(slot)?,
        };
        for _ in 0..=REDIRECTS_MAX {
            let answer = match self.ask(target, arguments) {
                Ok(answer) => answer,
                Err(failure) => {
                    self.owners.fill(None);
                    return Err(failure);
                }
            };
            let OwnedFrame::Error(text) = answer else { return Ok(answer) };
            let Some(owner) = moved_to(&text) else { return Err(Failure::Refused(text)) };
            self.redirects += 1;
            // The others have most likely moved too, but asking for all of them each time would be a storm.
            self.owners[slot.index()] = Some(owner);
            target = owner;
        }
        Err(Failure::Refused("too many redirects".into()))
    }

    fn ask(&mut self, target: SocketAddr, arguments: &[&[u8]]) -> Result<OwnedFrame, Failure> {
        let (connection, was_open) = match self.connections.entry(target) {
            Entry::Occupied(open) => (open.into_mut(), true),
            Entry::Vacant(vacant) => {
                let open = Connection::open(target).map_err(|error| Failure::Refused(error.to_string()))?;
                (vacant.insert(open), false)
            }
        };
        connection.call(arguments).map_err(|error| {
            self.connections.remove(&target);
            if was_open && is_closed(&error) { Failure::Closed(error) } else { Failure::Unknown(error) }
        })
    }

    /// Asks any node for the whole table; gives the owner of one slot.
    fn learn(&mut self, slot: Slot) -> Result<SocketAddr, Failure> {
        for seed in self.seeds.clone() {
            let Ok(OwnedFrame::Array(ranges)) = self.ask(seed, &[b"CLUSTER", b"SLOTS"]) else { continue };
            self.owners.fill(None);
            for range in &ranges {
                let Some((first, last, owner)) = range_of(range) else { continue };
                self.owners[first..=last.min(SLOT_COUNT - 1)].fill(Some(owner));
            }
            if let Some(owner) = self.owners[slot.index()] {
                return Ok(owner);
            }
        }
        Err(Failure::Refused(format!("nobody serves slot {slot}")))
    }
}

/// `MOVED 3999 127.0.0.1:6381`.
pub(super) fn moved_to(text: &str) -> Option<SocketAddr> {
    text.strip_prefix("MOVED ")?.split(' ').nth(1)?.parse().ok()
}

/// First and last slot and the owner's address of one entry of CLUSTER SLOTS.
pub(super) fn range_of(range: &OwnedFrame) -> Option<(usize, usize, SocketAddr)> {
    let OwnedFrame::Array(fields) = range else { return None };
    let [OwnedFrame::Integer(first), OwnedFrame::Integer(last), OwnedFrame::Array(node), ..] = &fields[..] else {
        return None;
    };
    let [OwnedFrame::BulkString(host), OwnedFrame::Integer(port), ..] = &node[..] else { return None };
    let ip = std::str::from_utf8(host).ok()?.parse().ok()?;
    let address = SocketAddr::new(ip, u16::try_from(*port).ok()?);
    Some((usize::try_from(*first).ok()?, usize::try_from(*last).ok()?, address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::net::TcpListener;

    /// Serves connections one after the other: each answers so many requests, and is closed at the next.
    fn node(answers: Vec<usize>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for answers in answers {
                let Ok((mut stream, _)) = listener.accept() else { return };
                let mut lines = BufReader::new(stream.try_clone().expect("a copy")).lines();
                for answer in 0..=answers {
                    let Some(Ok(count)) = lines.next() else { break };
                    let words: usize = count[1..].parse().expect("an array");
                    let words: Vec<String> = lines.by_ref().take(2 * words).map_while(Result::ok).collect();
                    if answer == answers {
                        break;
                    }
                    let reply = match words[1].as_str() {
                        "CLUSTER" => {
                            let port = address.port();
                            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:{port}\r\n")
                        }
                        _ => "+OK\r\n".to_owned(),
                    };
                    stream.write_all(reply.as_bytes()).expect("sent");
                }
            }
        });
        address
    }

    #[test]
    fn what_a_node_was_asked_that_closes_its_connection_is_asked_again() {
        // The table and one request; the next finds it closed and comes again, with the table before it.
        let mut client = ClusterClient::new(vec![node(vec![2, 3])]);
        for _ in 0..3 {
            let answer = client.call(b"key", &[b"SET", b"key", b"value"]);
            assert!(matches!(answer, Ok(OwnedFrame::SimpleString(_))), "{answer:?}");
        }
    }

    #[test]
    fn what_is_refused_behind_a_closed_connection_may_have_been_executed() {
        let mut client = ClusterClient::new(vec![node(vec![2])]);
        assert!(client.call(b"key", &[b"SET", b"key", b"value"]).is_ok());
        let answer = client.call(b"key", &[b"SET", b"key", b"value"]);
        assert!(matches!(answer, Err(Failure::Unknown(_))), "{answer:?}");
    }
}
