//! Nodes that come back: without their raft log, at other addresses.

use crate::client::Client;
use crate::nodes::{Node, member_port, until};
use std::path::PathBuf;

/// A node that may be ended, moved and started again with what it has on its disk.
struct Mover {
    folder: tempfile::TempDir,
    port: u16,
    node: Option<Node>,
}

impl Mover {
    /// A new one. `way`: `--cluster`, or `--join` and whom.
    fn new(way: &[&str]) -> Mover {
        let mut mover = Mover { folder: tempfile::tempdir().expect("a folder"), port: 0, node: None };
        mover.start_elsewhere(way);
        mover
    }

    /// Starts it at a port where it was not before.
    fn start_elsewhere(&mut self, way: &[&str]) {
        for _ in 0..10 {
            let former = self.directory();
            self.port = member_port();
            if former.exists() {
                std::fs::rename(former, self.directory()).expect("renamed");
            }
            self.node =
                Node::try_start(self.port, &self.directives(way).iter().map(String::as_str).collect::<Vec<_>>());
            if self.node.is_some() {
                return;
            }
        }
        panic!("a node does not start");
    }

    fn directives(&self, way: &[&str]) -> Vec<String> {
        let folder = self.folder.path().display().to_string();
        ["--dir", &folder].iter().chain(way).map(|word| (*word).to_owned()).collect()
    }

    /// Ends it in the middle of whatever it does.
    fn kill(&mut self) {
        self.node = None;
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join(format!("node-{}", self.port))
    }

    fn client(&self) -> Client {
        Client::connect(self.node.as_ref().expect("it runs").peer)
    }

    fn join(&self) -> [String; 2] {
        ["--join".to_owned(), format!("127.0.0.1:{}", self.port)]
    }

    /// Whether it knows that another one is where it is, and that all is well.
    fn sees(&self, other: &Mover) -> bool {
        let nodes = self.client().ask("CLUSTER NODES");
        let is_there = |line: &str| line.contains(&format!(":{}@", other.port)) && !line.contains("fail");
        nodes.lines().any(is_there) && self.knows("cluster_state:ok")
    }

    fn knows(&self, what: &str) -> bool {
        self.client().ask("CLUSTER INFO").lines().any(|line| line == what)
    }
}

#[test]
fn a_node_whose_raft_log_is_gone_does_not_start_and_says_what_to_do() {
    let mut node = Mover::new(&["--cluster"]);
    until("it serves all slots", || node.knows("cluster_slots_ok:16384"));
    node.kill();
    let log = node.directory().join("raft.redb");
    std::fs::remove_file(&log).expect("there is a raft log");
    for way in [&["--cluster"][..], &["--join", "127.0.0.1:1"]] {
        let directives = node.directives(way);
        let directives: Vec<&str> = directives.iter().map(String::as_str).collect();
        let (code, words) = Node::refused(node.port, &directives);
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains("Restore the file; or remove"), "{words}");
        assert!(!log.exists(), "nothing is made in its place");
    }
    std::fs::remove_dir_all(node.directory()).expect("removed");
    node.start_elsewhere(&["--cluster"]);
    until("it is a new node", || node.knows("cluster_slots_ok:16384"));
}

fn join(seed: &Mover) -> Mover {
    let way = seed.join();
    Mover::new(&[&way[0], &way[1]])
}

fn come_back_elsewhere(mover: &mut Mover, seed: &Mover) {
    let way = seed.join();
    mover.start_elsewhere(&[&way[0], &way[1]]);
}

#[test]
fn nodes_that_all_come_back_at_other_addresses_find_each_other() {
    let mut first = Mover::new(&["--cluster"]);
    let mut others = [join(&first), join(&first), join(&first)];
    until("three vote and all have slots", || others.iter().all(|other| other.sees(&first) && first.sees(other)));
    others.iter_mut().for_each(Mover::kill);
    first.kill();
    first.start_elsewhere(&["--cluster"]);
    for other in &mut others {
        come_back_elsewhere(other, &first);
    }
    until("all know where all are", || others.iter().all(|other| other.sees(&first) && first.sees(other)));
}

#[test]
fn the_only_voter_is_found_where_it_moved_to() {
    let mut voter = Mover::new(&["--cluster"]);
    let mut other = join(&voter);
    until("they are a cluster", || other.sees(&voter) && voter.sees(&other));
    // The other one runs on: gossip tells it.
    voter.kill();
    voter.start_elsewhere(&["--cluster"]);
    until("it is found", || other.sees(&voter) && voter.sees(&other));
    // The other one knew an address that is wrong by now, and is told the right one.
    other.kill();
    voter.kill();
    voter.start_elsewhere(&["--cluster"]);
    come_back_elsewhere(&mut other, &voter);
    until("it is found", || other.sees(&voter) && voter.sees(&other));
}
