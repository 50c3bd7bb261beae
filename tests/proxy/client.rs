//! A client of the simplest kind: it knows no cluster.

use crate::nodes::LIMIT;
use starling::proxy::{encoding, reply};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

pub(crate) struct Client {
    stream: TcpStream,
    framer: reply::Framer,
    received: Vec<u8>,
    /// `received` up to here was given out.
    taken: usize,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Client::try_connect(address).expect("a connection")
    }

    pub(crate) fn try_connect(address: SocketAddr) -> Option<Client> {
        let stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(LIMIT)).expect("a limit");
        Some(Client { stream, framer: reply::Framer::default(), received: Vec::new(), taken: 0 })
    }

    /// Sends without waiting. Words are separated by blanks.
    pub(crate) fn send(&mut self, requests: &[String]) {
        let mut bytes = Vec::new();
        for request in requests {
            let words: Vec<&[u8]> = request.split(' ').map(str::as_bytes).collect();
            encoding::encode(words.into_iter(), &mut bytes);
        }
        self.stream.write_all(&bytes).expect("sent");
    }

    /// Says that nothing more will be sent.
    pub(crate) fn end(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("the connection is open");
    }

    pub(crate) fn receive(&mut self) -> String {
        loop {
            if let Some(end) = self.framer.end(&self.received[self.taken..]).expect("a reply") {
                let reply = self.received[self.taken..self.taken + end].to_vec();
                self.taken += end;
                return String::from_utf8(reply).expect("text");
            }
            self.received.drain(..std::mem::take(&mut self.taken));
            let mut piece = vec![0; 65536];
            let count = self.stream.read(&mut piece).expect("a reply in time");
            assert!(count > 0, "the connection is open");
            self.received.extend_from_slice(&piece[..count]);
        }
    }

    pub(crate) fn ask(&mut self, request: &str) -> String {
        self.send(&[request.to_owned()]);
        self.receive()
    }

    /// Line ends of the reply are blanks in `expected`.
    pub(crate) fn check(&mut self, request: &str, expected: &str) {
        let reply = self.ask(request);
        assert_eq!(reply.trim_end().replace("\r\n", " "), expected, "{request}");
    }

    /// Walks over all keys with SCAN. A step that is answered TRYAGAIN, or CLUSTERDOWN, was not taken: it is asked for again.
    pub(crate) fn scan(&mut self, count: usize) -> Vec<String> {
        let text = |bulk: &[u8]| String::from_utf8(reply::bulk(bulk).expect("a string").to_vec()).expect("text");
        let (mut cursor, mut seen) = ("0".to_owned(), Vec::new());
        let since = std::time::Instant::now();
        loop {
            let answer = self.ask(&format!("SCAN {cursor} COUNT {count}"));
            let is_refused = answer.starts_with("-TRYAGAIN") || answer.starts_with("-CLUSTERDOWN");
            if is_refused && since.elapsed() < crate::nodes::LIMIT {
                continue;
            }
            let parts = reply::elements(answer.as_bytes()).unwrap_or_else(|| panic!("an array: {answer}"));
            seen.extend(reply::elements(parts[1]).expect("an array").into_iter().map(text));
            cursor = text(parts[0]);
            if cursor == "0" {
                return seen;
            }
        }
    }
}
