//! Nodes on their way into a cluster, and those that it refuses.

use crate::client::Client;
use crate::cluster::{Member, await_balance};
use crate::nodes::{Node, free_port, member_port, until};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A node that never opens its client port, because no cluster takes it.
struct Stranger(Child);

impl Drop for Stranger {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Stranger {
    fn start(seed: &Member, folder: &Path, log: &str, more: &[&str]) -> Stranger {
        let process = Command::new(env!("CARGO_BIN_EXE_starling"))
            .args(["--port", &(member_port()).to_string()])
            .args(["--cluster-port", &free_port().to_string()])
            .args(["--bind", "127.0.0.1", "--threads", "1", "--dir"])
            .arg(folder)
            .args(["--logfile", log, "--join", &seed.node.peer.to_string()])
            .args(more)
            .stdout(Stdio::null())
            .spawn()
            .expect("the server's binary");
        Stranger(process)
    }
}

/// How many warnings of a log have these words.
fn warnings(log: &str, words: &str) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    text.lines().filter(|line| line.contains("WARN") && line.contains("no link") && line.contains(words)).count()
}

#[test]
fn another_secret_or_none_is_said_once_in_the_logs_of_both_nodes_and_counted() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let own_log = path("member.log");
    let member = Member::start_with(None, &["--cluster-secret", "right", "--logfile", &own_log]);
    let mut client = Client::connect(member.node.peer);
    let mut refused = || {
        let info = client.ask("CLUSTER INFO");
        let count = info.lines().find_map(|line| line.strip_prefix("starling_links_refused:")).expect("a count");
        count.trim().parse::<u64>().expect("a number")
    };
    assert_eq!(refused(), 0);
    let cases: [(&str, &[&str], &str); 2] = [
        ("other", &["--cluster-secret", "wrong"], "different values of cluster-secret"),
        ("none", &[], "only one of the two nodes has a cluster-secret"),
    ];
    for (name, more, words) in cases {
        let (directory, log) = (folder.path().join(name), path(&format!("{name}.log")));
        std::fs::create_dir(&directory).expect("a folder");
        let _stranger = Stranger::start(&member, &directory, &log, more);
        until("both say it", || warnings(&own_log, words) > 0 && warnings(&log, words) > 0);
        let before = refused();
        until("it tries again", || refused() > before + 1);
        let expected = "peer=127.0.0.1:";
        assert_eq!((warnings(&own_log, words), warnings(&log, words)), (1, 1));
        assert_eq!((warnings(&own_log, expected), warnings(&log, expected)), (if name == "other" { 1 } else { 2 }, 1));
    }
}

/// A port below those that outgoing connections take, which nobody listens on.
fn low_port() -> u16 {
    loop {
        let port = 3000 + free_port() % 7000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[test]
fn nodes_join_by_client_ports_whatever_their_cluster_ports_are() {
    let mut members: Vec<Member> = Vec::new();
    for _ in 0..3 {
        let cluster_port = low_port().to_string();
        let more = ["--cluster-port", cluster_port.as_str(), "--requirepass", "secret"];
        members.push(Member::start_with(members.last(), &more));
    }
    await_balance(&members);
}

#[test]
fn new_nodes_find_each_other_by_client_ports_that_none_has_opened() {
    let ports = [low_port(), low_port()];
    let join = ports.map(|port| format!("127.0.0.1:{port}")).join(",");
    let nodes = ports.map(|port| {
        let join = join.clone();
        std::thread::spawn(move || {
            let folder = tempfile::tempdir().expect("a folder");
            let (path, cluster_port) = (folder.path().display().to_string(), (port - 1000).to_string());
            let directives =
                ["--dir", &path, "--cluster-port", &cluster_port, "--join", &join, "--bootstrap-expect", "2"];
            (Node::try_start(port, &directives).expect("it finds the other"), folder)
        })
    });
    let nodes = nodes.map(|node| node.join().expect("it starts"));
    let mut client = Client::connect(nodes[0].0.peer);
    until("they are one cluster", || client.ask("CLUSTER INFO").contains("cluster_size:2\r\n"));
}

#[test]
fn a_cluster_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let ended = Command::new(env!("CARGO_BIN_EXE_starling"))
        .args(["--port", &low_port().to_string(), "--cluster-port", &port, "--bind", "127.0.0.1", "--cluster", "--dir"])
        .arg(folder.path())
        .output()
        .expect("the server's binary");
    assert_eq!(ended.status.code(), Some(1));
    let log = String::from_utf8_lossy(&ended.stdout).into_owned();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(lines[0].contains(&format!("'cluster-port' {port}")) && lines[0].contains("already in use"), "{log}");
}
