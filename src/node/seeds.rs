//! Where the nodes that `join` names hear other nodes: it names client ports, and links need cluster ports.
//!
//! A node is asked at its client port: its own line of CLUSTER NODES has both. One that is still looking for its cluster
//! has not opened that port, and one with another password does not answer: then its cluster port is guessed, as far from
//! the client port as usual (10000), and as far as this node's own.

use crate::config::{CLUSTER_PORT_OFFSET, Config};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// How long a node may take to say where it hears others.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// What the answer may have: far more than the lines of the largest cluster.
const ANSWER_BYTES_MAX: usize = 4 << 20;
const LINE_BYTES_MAX: u64 = 1024;

/// The nodes of `join`.
#[derive(Clone)]
pub(super) struct Seeds {
    names: Vec<String>,
    /// From client ports to cluster ports, the likelier first.
    offsets: Vec<i32>,
    /// AUTH and CLUSTER NODES, ready to be sent.
    request: Vec<u8>,
    /// How many replies it has.
    replies: usize,
}

impl Seeds {
    pub(super) fn new(config: &Config) -> Seeds {
        let own = i32::from(config.cluster.port) - i32::from(config.port);
        let mut offsets = vec![i32::from(CLUSTER_PORT_OFFSET), own];
        offsets.dedup();
        // As for the proxy: this node's own password is that of all nodes, unless `masterauth` says otherwise.
        let (user, password) = match config.text("masterauth") {
            "" => ("", String::from_utf8_lossy(&config.requirepass).into_owned()),
            password => (config.text("masteruser"), password.to_owned()),
        };
        let mut requests = vec![vec!["CLUSTER", "NODES"]];
        if !password.is_empty() {
            let words = ["AUTH", user, &password];
            requests.insert(0, words.into_iter().filter(|word| !word.is_empty()).collect());
        }
        let request = requests.iter().flat_map(|words| encoded(words)).collect();
        Seeds { names: config.cluster.join.clone(), offsets, request, replies: requests.len() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Cluster addresses at which they may be. Names may resolve to others later.
    pub(super) async fn addresses(&self) -> Vec<SocketAddr> {
        let mut questions = tokio::task::JoinSet::new();
        for name in &self.names {
            match tokio::net::lookup_host(name.as_str()).await {
                Ok(found) => found.for_each(|address| {
                    let seeds = self.clone();
                    questions.spawn(async move { seeds.behind(address).await });
                }),
                Err(error) => tracing::warn!(seed = name, %error, "an address in 'join' is not found"),
            }
        }
        let mut addresses = questions.join_all().await.concat();
        addresses.sort_unstable();
        addresses.dedup();
        addresses
    }

    /// The cluster addresses behind a client address: the one that the node tells, or guesses.
    async fn behind(&self, client: SocketAddr) -> Vec<SocketAddr> {
        let at = |port: u16| SocketAddr::new(client.ip(), port);
        match tokio::time::timeout(ANSWER_TIMEOUT, self.ask(client)).await {
            Ok(Ok(port)) => vec![at(port)],
            no_answer => {
                tracing::debug!(%client, ?no_answer, "a node of 'join' does not tell its cluster port");
                let guess = |offset: &i32| {
                    u16::try_from(i32::from(client.port()) + offset).ok().filter(|port| *port != 0).map(at)
                };
                self.offsets.iter().filter_map(guess).collect()
            }
        }
    }

    async fn ask(&self, client: SocketAddr) -> std::io::Result<u16> {
        let mut stream = BufReader::new(TcpStream::connect(client).await?);
        stream.write_all(&self.request).await?;
        let mut reply = String::new();
        for _ in 0..self.replies {
            reply = next_reply(&mut stream).await?;
        }
        cluster_port(&reply).ok_or_else(|| std::io::Error::other(reply))
    }
}

fn encoded(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len());
    words.iter().for_each(|word| bytes.push_str(&format!("${}\r\n{word}\r\n", word.len())));
    bytes.into_bytes()
}

/// A reply of one line, or the text of a bulk string.
async fn next_reply(stream: &mut BufReader<TcpStream>) -> std::io::Result<String> {
    let mut line = String::new();
    (&mut *stream).take(LINE_BYTES_MAX).read_line(&mut line).await?;
    let Some(length) = line.strip_prefix('$') else { return Ok(line) };
    let length = length.trim_end().parse::<usize>().ok().filter(|length| *length <= ANSWER_BYTES_MAX);
    let mut text = vec![0; length.ok_or_else(|| std::io::Error::other("not a text"))? + b"\r\n".len()];
    stream.read_exact(&mut text).await?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The cluster port in the answering node's own line of CLUSTER NODES: `<id> <ip>:<port>@<cluster port>[,<name>] myself,...`.
fn cluster_port(nodes: &str) -> Option<u16> {
    let own = nodes.lines().find(|line| line.split(' ').nth(2).is_some_and(|flags| flags.contains("myself")))?;
    let (_, behind) = own.split(' ').nth(1)?.rsplit_once('@')?;
    behind.split(',').next()?.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_line_of_cluster_nodes_has_the_cluster_port() {
        let check = |text: &str, expected| assert_eq!(cluster_port(text), expected, "{text}");
        let others = "aa 10.0.0.1:6379@16379 master - 0 0 1 connected 0-1\n";
        check(&format!("{others}bb 10.0.0.2:6379@7946 myself,master - 0 0 2 connected\n"), Some(7946));
        check("bb ::1:6379@7946,node.example myself,master - 0 0 2 connected", Some(7946));
        check(others, None);
        check("bb 10.0.0.2:6379 myself,master", None);
        check("-NOAUTH Authentication required.", None);
    }

    #[tokio::test]
    async fn a_node_that_does_not_answer_is_looked_for_where_it_may_be() {
        // Nothing listens there: the port was free a moment ago.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
        let own = ["--port", "7000", "--cluster-port", "6999", "--join", &silent.to_string()].map(str::to_owned);
        let config = crate::config::load::load(&own, std::iter::empty()).expect("good").config;
        let found = Seeds::new(&config).addresses().await;
        let below = SocketAddr::new(silent.ip(), silent.port() - 1);
        assert!(found.contains(&below), "{found:?}");
        let usual = silent.port().checked_add(CLUSTER_PORT_OFFSET).map(|port| SocketAddr::new(silent.ip(), port));
        assert_eq!(found.len(), 1 + usize::from(usual.is_some()));
        assert!(usual.is_none_or(|usual| found.contains(&usual)), "{found:?}");
    }
}
