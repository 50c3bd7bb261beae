//! Nodes that come back: without their raft log, at other addresses.

use crate::client::Client;
use crate::nodes::{Node, member_port, until};
use rustix::process::Signal;
use std::path::PathBuf;

const KEYS: usize = 3000;

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

    /// Starts it where it was.
    fn start_again(&mut self, way: &[&str]) {
        let directives = self.directives(way);
        self.node = Node::try_start(self.port, &directives.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(self.node.is_some(), "it starts again");
    }

    /// Asks it to end. Its exit code comes from [`Mover::until_ended`].
    fn ask_to_end(&self) {
        self.node.as_ref().expect("it runs").signal(Signal::TERM);
    }

    fn until_ended(&mut self) -> i32 {
        self.node.take().expect("it runs").until_ended()
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

const WITH_LOG: [&str; 4] = ["--appendonly", "yes", "--routing", "proxy"];

/// The ways into a cluster of nodes with logs, for the first and for the others.
fn ways(first: &Mover) -> [Vec<String>; 2] {
    let with_log = |way: &[String]| way.iter().cloned().chain(WITH_LOG.map(str::to_owned)).collect();
    [with_log(&["--cluster".to_owned()]), with_log(&first.join())]
}

fn words(way: &[String]) -> Vec<&str> {
    way.iter().map(String::as_str).collect()
}

fn keys(mover: &Mover) -> String {
    mover.client().ask("DBSIZE")
}

#[test]
fn a_cluster_of_nodes_with_logs_that_all_end_comes_back_with_all_keys() {
    let mut first = Mover::new(&["--cluster", "--appendonly", "yes", "--routing", "proxy"]);
    let [creates, joins] = ways(&first);
    let mut others = [Mover::new(&words(&joins)), Mover::new(&words(&joins))];
    let share_of = |mover: &Mover| crate::cluster::shares_at(&mut mover.client());
    let is_balanced = |mover: &Mover| {
        let shares = share_of(mover);
        shares.len() == 3 && shares.iter().all(|share| share.abs_diff(16384 / 3) <= 164)
    };
    until("all have slots", || is_balanced(&first) && others.iter().all(is_balanced));
    let requests: Vec<String> = (0..KEYS).map(|number| format!("SET key:{number} v")).collect();
    let mut client = first.client();
    client.send(&requests);
    requests.iter().for_each(|_| assert_eq!(client.receive(), "+OK\r\n"));
    first.ask_to_end();
    others.iter().for_each(Mover::ask_to_end);
    assert_eq!(first.until_ended(), 0, "nothing is lost");
    others.iter_mut().for_each(|other| assert_eq!(other.until_ended(), 0, "nothing is lost"));
    // A node waits for the others before it opens its port.
    std::thread::scope(|scope| {
        scope.spawn(|| first.start_again(&words(&creates)));
        for other in &mut others {
            scope.spawn(|| other.start_again(&words(&joins)));
        }
    });
    until("all slots are served", || {
        others.iter().all(|other| other.sees(&first) && other.knows("cluster_slots_ok:16384"))
    });
    until("all keys are there", || keys(&first) == format!(":{KEYS}\r\n"));
    // One alone still gives away what it has.
    let [leaving, stays] = &mut others;
    leaving.ask_to_end();
    assert_eq!(leaving.until_ended(), 0);
    until("the others have its slots", || share_of(stays).len() == 2 && stays.knows("cluster_slots_ok:16384"));
    assert_eq!(keys(stays), format!(":{KEYS}\r\n"));
}

#[test]
fn the_last_node_keeps_its_keys_where_it_has_a_log() {
    let way = ["--cluster", "--appendonly", "yes"];
    let mut node = Mover::new(&way);
    until("it serves all slots", || node.knows("cluster_slots_ok:16384"));
    node.client().check("SET key value", "+OK");
    let refused = node.client().ask("CONFIG SET appendonly no");
    assert!(refused.ends_with("a node of a cluster begins and ends its log at its start only\r\n"), "{refused}");
    node.ask_to_end();
    assert_eq!(node.until_ended(), 0);
    node.start_again(&way);
    until("its key is there", || node.client().ask("GET key") == "$5\r\nvalue\r\n");
}

/// The names in a folder that begin with this.
fn names(folder: &std::path::Path, beginning: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder").flatten();
    let mut names: Vec<_> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.retain(|name| name.starts_with(beginning));
    names.sort();
    names
}

/// What happens without the log is not in it: it must not count when the node keeps one again.
#[test]
fn a_node_that_starts_without_its_log_sets_it_aside() {
    let with_log = ["--cluster", "--appendonly", "yes"];
    let mut node = Mover::new(&with_log);
    let is_served = |node: &Mover| until("it serves all slots", || node.knows("cluster_slots_ok:16384"));
    is_served(&node);
    node.client().check("SET key old", "+OK");
    node.ask_to_end();
    assert_eq!(node.until_ended(), 0);
    let folder = node.folder.path().to_owned();
    assert_eq!(names(&folder, "appendonlydir"), ["appendonlydir"]);
    for _ in 0..2 {
        node.start_again(&["--cluster"]);
        is_served(&node);
        assert_eq!(node.client().ask("GET key"), "$-1\r\n");
        node.kill();
        assert_eq!(names(&folder, "appendonlydir"), ["appendonlydir.set-aside-1"]);
    }
    let aside = folder.join("appendonlydir.set-aside-1");
    assert_eq!(names(&aside, "appendonly.aof.segments"), ["appendonly.aof.segments"], "it is all there");
    node.start_again(&with_log);
    is_served(&node);
    assert_eq!(node.client().ask("GET key"), "$-1\r\n");
    node.client().check("SET key new", "+OK");
    node.kill();
    node.start_again(&["--cluster"]);
    assert_eq!(names(&folder, "appendonlydir"), ["appendonlydir.set-aside-1", "appendonlydir.set-aside-2"]);
}

/// Slots of which only a node that is down has the keys begin empty at an operator's word. What that node brings back is over.
#[test]
fn slots_that_were_given_up_stay_as_they_began_when_their_node_is_back() {
    let first = Mover::new(&["--cluster", "--appendonly", "yes", "--routing", "proxy", "--replicas", "0"]);
    let [_, joins] = ways(&first);
    let [second, mut third] = [Mover::new(&words(&joins)), Mover::new(&words(&joins))];
    let is_balanced = |mover: &Mover| {
        let shares = crate::cluster::shares_at(&mut mover.client());
        shares.len() == 3 && shares.iter().all(|share| share.abs_diff(16384 / 3) <= 164)
    };
    until("all have slots", || [&first, &second, &third].into_iter().all(is_balanced));
    let write = |mover: &Mover, value: &str, step: usize| {
        let requests: Vec<String> = (0..KEYS).step_by(step).map(|number| format!("SET key:{number} {value}")).collect();
        let mut client = mover.client();
        client.send(&requests);
        requests.iter().for_each(|_| assert_eq!(client.receive(), "+OK\r\n"));
    };
    write(&first, "old", 1);
    let mut client = second.client();
    client.check("CLUSTER REVIVE ALL", "*0");
    third.kill();
    until("its slots wait for it", || client.ask("CLUSTER REVIVE ALL").starts_with("*1"));
    let found = client.ask("CLUSTER REVIVE all");
    assert!(found.contains(&format!("127.0.0.1:{}, which is down: if it comes back", third.port)), "{found}");
    for request in ["CLUSTER REVIVE ALL NOW", "CLUSTER REVIVE ALL CONFIRM CONFIRM"] {
        client.check(request, "-ERR syntax error");
    }
    client.check("CLUSTER REVIVE 16384", "-ERR Invalid slot");
    let (waits, reason): (Vec<String>, Vec<String>) =
        (0..200).map(|slot| client.ask(&format!("CLUSTER REVIVE {slot}"))).partition(|answer| answer.starts_with("*1"));
    assert!(
        waits
            .iter()
            .chain(&reason)
            .all(|answer| answer.contains("1 slots: ") || answer.contains("not agreed to be down"))
    );
    client.check("MULTI", "+OK");
    client.check("CLUSTER REVIVE ALL CONFIRM", "+QUEUED");
    client.check("EXEC", "*1 -ERR CLUSTER REVIVE is not allowed in transactions");
    assert!(!second.knows("cluster_slots_ok:16384"), "nothing has changed");
    let begun = client.ask("CLUSTER REVIVE ALL CONFIRM");
    assert!(begun.starts_with("*1") && begun.contains(": empty, on nodes that are up"), "{begun}");
    assert!(second.knows("cluster_slots_ok:16384"), "they are served when the answer comes");
    until("all know", || first.knows("cluster_slots_ok:16384"));
    write(&first, "new", 2);
    let kept = keys(&first);
    assert_ne!(kept, format!(":{KEYS}\r\n"), "what only it had is gone");
    third.start_again(&words(&joins));
    until("it has its share", || [&first, &second, &third].into_iter().all(is_balanced));
    until("all is well", || first.sees(&third) && third.knows("cluster_slots_ok:16384"));
    for mover in [&first, &second, &third] {
        assert_eq!(keys(mover), kept);
        let mut client = mover.client();
        (0..KEYS).step_by(2).for_each(|number| client.check(&format!("GET key:{number}"), "$3 new"));
    }
}
