//! A cluster as its nodes describe it: what `status` and the demo show.

use super::client::Connection;
use crate::base::slot::{SLOT_COUNT, Slot};
use crate::base::slot_ranges::SlotRanges;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;

/// One node, by the cluster's description and its own.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NodeReport {
    pub(super) id: String,
    pub(super) address: SocketAddr,
    /// As CLUSTER NODES flags it: `master`, `master,fail?`, ...
    pub(super) flags: String,
    pub(super) slots: SlotRanges,
    /// `None`: it did not answer.
    pub(super) own: Option<OwnReport>,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnReport {
    pub(super) keys: u64,
    pub(super) operations_per_second: u64,
    pub(super) used_memory: u64,
    pub(super) uptime_seconds: u64,
    pub(super) is_ok: bool,
    /// It votes, and never has slots.
    pub(super) is_arbiter: bool,
    /// Copies of slots in the whole cluster, as this node knows it: those that have everything, and those that are still asked for.
    pub(super) copies_ready: u64,
    pub(super) copies_missing: u64,
    /// The ids of the nodes that it hears over TCP and not over UDP.
    pub(super) without_udp: Vec<String>,
}

/// The cluster at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ClusterReport {
    pub(super) nodes: Vec<NodeReport>,
}

impl ClusterReport {
    /// Asks the first of these nodes that answers for the others, and each for itself.
    pub(super) fn look(seeds: &[SocketAddr]) -> io::Result<ClusterReport> {
        let mut last = io::Error::new(io::ErrorKind::AddrNotAvailable, "there is no node to ask");
        for &seed in seeds {
            match ClusterReport::seen_by(seed) {
                Ok(mut report) => {
                    for node in report.nodes.iter_mut().filter(|node| !node.is_failed()) {
                        node.own = own_report(node.address, &node.id).ok();
                    }
                    return Ok(report);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The cluster as this node describes it, in one request; the others are not asked.
    pub(super) fn seen_by(node: SocketAddr) -> io::Result<ClusterReport> {
        let text = Connection::open(node)?.text(&["CLUSTER", "NODES"])?;
        let mut nodes: Vec<NodeReport> = text.lines().filter_map(node_of).collect();
        nodes.sort_by_key(|node| node.address);
        Ok(ClusterReport { nodes })
    }

    /// How many slots somebody serves.
    pub(super) fn served(&self) -> usize {
        // A node that is down is shown with what it served at last.
        self.nodes.iter().filter(|node| !node.is_failed()).map(|node| node.slots.len()).sum()
    }

    pub(super) fn keys(&self) -> u64 {
        self.nodes.iter().filter_map(|node| node.own.as_ref()).map(|own| own.keys).sum()
    }

    /// Copies of slots that have everything, and those that are asked for and are not there: by the first node that says so.
    pub(super) fn copies(&self) -> (u64, u64) {
        let own = self.nodes.iter().find_map(|node| node.own.as_ref());
        own.map_or((0, 0), |own| (own.copies_ready, own.copies_missing))
    }

    pub(super) fn owner(&self, slot: Slot) -> Option<&NodeReport> {
        self.nodes.iter().find(|node| !node.is_failed() && node.slots.contains(slot))
    }

    /// One word, and why.
    pub(super) fn health(&self) -> (&'static str, String) {
        let silent: Vec<String> =
            self.nodes.iter().filter(|node| node.own.is_none()).map(|node| node.address.to_string()).collect();
        let without_udp: BTreeSet<&str> = self
            .nodes
            .iter()
            .filter_map(|node| node.own.as_ref())
            .flat_map(|own| &own.without_udp)
            .map(String::as_str)
            .collect();
        let unserved = SLOT_COUNT - self.served().min(SLOT_COUNT);
        match (unserved, silent.is_empty()) {
            (0, true) if !without_udp.is_empty() => {
                let address = |id: &str| match self.nodes.iter().find(|node| node.id == id) {
                    Some(node) => node.address.to_string(),
                    None => id.to_owned(),
                };
                let named: Vec<String> = without_udp.into_iter().map(address).collect();
                ("degraded", format!("no gossip from {}: is the UDP port blocked?", named.join(", ")))
            }
            (0, true) => ("ok", "all slots are served".to_owned()),
            (0, false) => ("degraded", format!("no answer from {}", silent.join(", "))),
            (_, true) => ("critical", format!("{unserved} slots are not served")),
            (_, false) => {
                ("critical", format!("{unserved} slots are not served; no answer from {}", silent.join(", ")))
            }
        }
    }

    /// The nodes as a table of lines.
    pub(super) fn table(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<21} {:<9} {:<14} {:>6} {:>7} {:>9} {:>8} {:>9}  {}",
            "node", "id", "state", "slots", "share", "keys", "ops/s", "memory", "ranges"
        )];
        for node in &self.nodes {
            let own = node.own.clone().unwrap_or_default();
            let share = node.slots.len() as f64 * 100.0 / SLOT_COUNT as f64;
            let mut ranges = node.slots.to_string();
            if ranges.len() > 40 {
                ranges = format!("{} ranges", node.slots.ranges().len());
            }
            lines.push(format!(
                "{:<21} {:<9} {:<14} {:>6} {:>6.2}% {:>9} {:>8} {:>8}K  {ranges}",
                node.address.to_string(),
                &node.id[..node.id.len().min(8)],
                node.state(),
                node.slots.len(),
                share,
                own.keys,
                own.operations_per_second,
                own.used_memory / 1024,
            ));
        }
        lines
    }
}

impl NodeReport {
    pub(super) fn is_failed(&self) -> bool {
        self.flags.split(',').any(|flag| flag == "fail")
    }

    /// One word for people.
    pub(super) fn state(&self) -> &'static str {
        match &self.own {
            _ if self.is_failed() => "down",
            None => "silent",
            Some(_) if self.flags.contains("fail?") => "suspected",
            Some(own) if !own.is_ok => "not serving",
            Some(own) if own.is_arbiter => "arbiter",
            Some(_) => "ok",
        }
    }
}

/// A line of CLUSTER NODES.
fn node_of(line: &str) -> Option<NodeReport> {
    let mut words = line.split(' ');
    let id = words.next()?.to_owned();
    let address = words.next()?.split(['@', ',']).next()?.parse().ok()?;
    let flags = words.next()?.to_owned();
    let slots = words.skip(5).filter_map(range_of).fold(SlotRanges::new(), |all, range| all.union(&range));
    Some(NodeReport { id, address, flags, slots, own: None })
}

/// `0-5460`, or `7000`.
fn range_of(word: &str) -> Option<SlotRanges> {
    let (first, last) = word.split_once('-').unwrap_or((word, word));
    Some(SlotRanges::between(Slot::new(first.parse().ok()?)?, Slot::new(last.parse().ok()?)?))
}

fn own_report(address: SocketAddr, id: &str) -> io::Result<OwnReport> {
    let mut connection = Connection::open(address)?;
    let keys = connection.text(&["DBSIZE"])?.parse().unwrap_or(0);
    let info = connection.text(&["INFO", "server", "memory", "stats"])?;
    let cluster = connection.text(&["CLUSTER", "INFO"])?;
    let number = |name: &str| number(&info, name);
    Ok(OwnReport {
        keys,
        operations_per_second: number("instantaneous_ops_per_sec"),
        used_memory: number("used_memory"),
        uptime_seconds: number("uptime_in_seconds"),
        is_ok: cluster.contains("cluster_state:ok"),
        is_arbiter: named(&cluster, "starling_arbiters:").iter().any(|arbiter| arbiter == id),
        copies_ready: self::number(&cluster, "starling_copies_ready"),
        copies_missing: self::number(&cluster, "starling_copies_missing"),
        without_udp: named(&cluster, "starling_nodes_without_udp:"),
    })
}

/// A field of INFO or CLUSTER INFO; 0: it has no such number.
fn number(info: &str, name: &str) -> u64 {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

/// The ids that a line of CLUSTER INFO names.
fn named(cluster_info: &str, field: &str) -> Vec<String> {
    let line = cluster_info.lines().find_map(|line| line.trim_end().strip_prefix(field));
    line.unwrap_or_default().split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_udp_port_is_named() {
        let info = "cluster_state:ok\r\nstarling_arbiters:\r\nstarling_nodes_without_udp:a,b\r\n";
        assert_eq!(named(info, "starling_arbiters:"), [""; 0]);
        let without_udp = named(info, "starling_nodes_without_udp:");
        let own = OwnReport { is_ok: true, without_udp, ..OwnReport::default() };
        let slots = Slot::all().collect();
        let address = ([127, 0, 0, 1], 7000).into();
        let node = NodeReport { id: "a".into(), address, flags: "master".into(), slots, own: Some(own) };
        let (word, reason) = ClusterReport { nodes: vec![node] }.health();
        assert_eq!(word, "degraded");
        assert_eq!(reason, "no gossip from 127.0.0.1:7000, b: is the UDP port blocked?");
    }

    #[test]
    fn a_line_of_cluster_nodes_is_read() {
        let line = "07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004,host master,fail? - 0 1426238317239 4 \
                    connected 0-2 100 16383-16383";
        let node = node_of(line).expect("a node");
        assert_eq!((node.address.port(), node.slots.to_string().as_str()), (30004, "0-2 100 16383"));
        assert!(!node.is_failed() && node.state() == "silent");
        assert_eq!(node_of("nonsense"), None);
    }
}
