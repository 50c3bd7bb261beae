//! The demo's nodes: processes of this executable, each with a port of its own, in a temporary directory.

use super::failover::Failover;
use crate::base::slot::SLOT_COUNT;
use crate::base::slot_ranges::SlotRanges;
use crate::cli::observer::ClusterReport;
use crate::config::CLUSTER_PORT_OFFSET;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a node may take to end by itself when the demo is over.
const END_LIMIT: Duration = Duration::from_secs(2);
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// Nodes that a new one is told of.
const SEEDS_MAX: usize = 3;
/// Client ports. Cluster ports are 10000 above, and below those that the system gives to outgoing connections: one of them
/// could take a node's port before the node does.
const PORTS: Range<u16> = 10_000..20_000;

/// One process, or the place of one that was ended.
struct DemoNode {
    port: u16,
    process: Option<Child>,
    /// It was told to hand over its slots and end.
    is_draining: bool,
}

/// All of them. Dropping this ends them and removes their files.
pub(super) struct DemoNodes {
    executable: PathBuf,
    directory: PathBuf,
    nodes: Vec<DemoNode>,
    /// The slots of nodes that were killed.
    lost: SlotRanges,
    failover: Failover,
    events: Vec<String>,
    began: Instant,
}

impl DemoNodes {
    /// Starts the first node, then the others, which join it.
    pub(super) fn start(count: u16) -> io::Result<DemoNodes> {
        let directory = std::env::temp_dir().join(format!("starling-demo-{}", std::process::id()));
        fs::create_dir_all(&directory)?;
        let executable = std::env::current_exe()?;
        let mut nodes = DemoNodes {
            executable,
            directory,
            nodes: Vec::new(),
            lost: SlotRanges::new(),
            failover: Failover::default(),
            events: Vec::new(),
            began: Instant::now(),
        };
        for _ in 0..count {
            nodes.add()?;
        }
        Ok(nodes)
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the living nodes are.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.living().map(address).collect()
    }

    /// The node that came last and stays.
    pub(super) fn last(&self) -> Option<u16> {
        self.living().filter(|node| !node.is_draining).last().map(|node| node.port)
    }

    fn living(&self) -> impl Iterator<Item = &DemoNode> {
        self.nodes.iter().filter(|node| node.process.is_some())
    }

    /// Slots of which acknowledged writes may be lost: a node was killed that may have been the only one that had them.
    pub(super) fn lost_slots(&self) -> SlotRanges {
        self.lost.clone()
    }

    /// What became of the slots of the node that was killed last.
    pub(super) fn failover(&self) -> &Failover {
        &self.failover
    }

    /// What happened, the latest last.
    pub(super) fn events(&self) -> &[String] {
        &self.events
    }

    pub(super) fn note(&mut self, event: String) {
        const EVENTS_MAX: usize = 200;
        if self.events.len() >= EVENTS_MAX {
            self.events.remove(0);
        }
        self.events.push(format!("{:>5.1} s  {event}", self.began.elapsed().as_secs_f64()));
    }

    /// Another node. The first one creates the cluster.
    pub(super) fn add(&mut self) -> io::Result<SocketAddr> {
        let port = free_port(&self.nodes)?;
        self.nodes.push(DemoNode { port, process: None, is_draining: false });
        self.spawn(self.nodes.len() - 1)?;
        self.note(format!("127.0.0.1:{port} starts"));
        Ok((Ipv4Addr::LOCALHOST, port).into())
    }

    fn spawn(&mut self, index: usize) -> io::Result<()> {
        let port = self.nodes[index].port;
        let log = File::options().create(true).append(true).open(self.directory.join(format!("{port}.log")))?;
        // A few are enough to be found by, and a hundred nodes that ask a hundred others are not.
        let seeds: Vec<String> = self.living().take(SEEDS_MAX).map(|node| address(node).to_string()).collect();
        let mut command = Command::new(&self.executable);
        command.args(["server", "--port", &port.to_string(), "--bind", "127.0.0.1", "--threads", "1"]);
        command.arg("--dir").arg(&self.directory);
        if seeds.is_empty() {
            command.arg("--cluster")
        } else {
            command.args(["--join", &seeds.join(",")])
        };
        // A group of its own: Ctrl-C ends the demo, and the demo ends its nodes.
        let process = command.process_group(0).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        self.nodes[index].process = Some(process);
        self.nodes[index].is_draining = false;
        Ok(())
    }

    /// Ends a node at once. What it has not sent to a copy yet is lost.
    pub(super) fn kill(&mut self, port: u16) -> io::Result<()> {
        let held = ClusterReport::look(&self.addresses())?;
        let slots = held.nodes.iter().find(|node| node.address.port() == port).map(|node| node.slots.clone());
        let slots = slots.unwrap_or_default();
        self.lost = self.lost.union(&slots);
        if let Some(mut process) = self.node(port).and_then(|node| node.process.take()) {
            let at = Instant::now();
            process.kill()?;
            process.wait()?;
            if !slots.is_empty() {
                self.failover.watch((Ipv4Addr::LOCALHOST, port).into(), at, self.addresses());
            }
            self.note(format!("127.0.0.1:{port} was killed"));
        }
        Ok(())
    }

    /// Starts a node again that was ended.
    pub(super) fn restart(&mut self, port: u16) -> io::Result<()> {
        let Some(index) = self.nodes.iter().position(|node| node.port == port && node.process.is_none()) else {
            return Ok(());
        };
        self.spawn(index)?;
        self.note(format!("127.0.0.1:{port} starts again"));
        Ok(())
    }

    /// Tells a node to hand over its slots and end.
    pub(super) fn drain(&mut self, port: u16) -> io::Result<()> {
        let Some(node) = self.node(port) else { return Ok(()) };
        // A node that is told again ends at once, with the slots that it still has.
        if let Some(process) = node.process.as_ref().filter(|_| !node.is_draining) {
            terminate(process);
            node.is_draining = true;
            self.note(format!("127.0.0.1:{port} hands over its slots"));
        }
        Ok(())
    }

    fn node(&mut self, port: u16) -> Option<&mut DemoNode> {
        self.nodes.iter_mut().find(|node| node.port == port)
    }

    /// The nodes that were ended and not started again.
    pub(super) fn ended(&self) -> Vec<u16> {
        self.nodes.iter().filter(|node| node.process.is_none()).map(|node| node.port).collect()
    }

    /// Notices nodes that have ended by themselves. Whether one was not told to.
    pub(super) fn reap(&mut self) -> bool {
        let mut gone = Vec::new();
        for node in &mut self.nodes {
            if let Some(process) = &mut node.process
                && let Ok(Some(status)) = process.try_wait()
            {
                node.process = None;
                gone.push((node.port, node.is_draining, status));
            }
        }
        let mut unexpected = false;
        for (port, was_draining, status) in gone {
            unexpected |= !was_draining || !status.success();
            self.note(format!("127.0.0.1:{port} has ended ({status})"));
        }
        unexpected
    }

    pub(super) fn is_draining(&self) -> bool {
        self.nodes.iter().any(|node| node.is_draining && node.process.is_some())
    }

    /// Waits until all nodes know each other, every slot that is not lost is served, and shares are equal.
    pub(super) fn until_whole(&mut self, limit: Duration, stop: &AtomicBool) -> io::Result<()> {
        let until = Instant::now() + limit;
        loop {
            if self.reap() {
                return Err(io::Error::other(format!("a node has ended: see {}", self.directory.display())));
            }
            let living = self.living().count();
            let addresses = self.addresses();
            let agrees = |address: &SocketAddr| {
                ClusterReport::seen_by(*address).is_ok_and(|report| is_whole(&report, living, self.ended().is_empty()))
            };
            if !self.is_draining() && addresses.iter().all(agrees) {
                return Ok(());
            }
            if stop.load(Ordering::Acquire) || Instant::now() > until {
                let what = ClusterReport::look(&addresses).map_or_else(|error| error.to_string(), |r| r.health().1);
                return Err(io::Error::other(format!("the cluster is not whole: {what}")));
            }
            std::thread::sleep(LOOK_PAUSE);
        }
    }
}

/// Whether this many nodes serve equal shares of all slots.
fn is_whole(report: &ClusterReport, living: usize, all_live: bool) -> bool {
    let served: Vec<usize> =
        report.nodes.iter().filter(|node| !node.flags.contains("fail")).map(|node| node.slots.len()).collect();
    let shares_equal = served.iter().max().unwrap_or(&0) - served.iter().min().unwrap_or(&0) <= 1;
    served.len() == living && (!all_live || (report.served() == SLOT_COUNT && shares_equal))
}

impl Drop for DemoNodes {
    fn drop(&mut self) {
        // They need not hand over: the whole cluster ends.
        self.nodes.iter().filter_map(|node| node.process.as_ref()).for_each(terminate);
        let until = Instant::now() + END_LIMIT;
        for process in self.nodes.iter_mut().filter_map(|node| node.process.as_mut()) {
            while Instant::now() < until && matches!(process.try_wait(), Ok(None)) {
                std::thread::sleep(LOOK_PAUSE);
            }
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn address(node: &DemoNode) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, node.port).into()
}

fn terminate(process: &Child) {
    if let Ok(id) = i32::try_from(process.id())
        && let Some(pid) = Pid::from_raw(id)
    {
        let _ = kill_process(pid, Signal::TERM);
    }
}

/// A port that is free, that no other node of the demo has, and whose cluster port is free.
fn free_port(nodes: &[DemoNode]) -> io::Result<u16> {
    let count = PORTS.end - PORTS.start;
    // Demos that run at the same time begin at different places.
    let first = (std::process::id() % u32::from(count / 100)) as u16 * 100;
    let is_free = |port: u16| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && UdpSocket::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
    };
    (0..count)
        .map(|step| PORTS.start + (first + step) % count)
        .filter(|port| nodes.iter().all(|node| node.port != *port))
        .find(|port| is_free(*port) && is_free(port + CLUSTER_PORT_OFFSET))
        .ok_or_else(|| io::Error::new(io::ErrorKind::AddrInUse, "no free ports were found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_demo_are_not_those_of_outgoing_connections() {
        // Linux gives the ports from here on to outgoing connections.
        const OUTGOING_PORTS: u16 = 32768;
        let mut nodes: Vec<DemoNode> = Vec::new();
        for _ in 0..100 {
            let port = free_port(&nodes).expect("a port");
            assert!(port > 1024 && port + CLUSTER_PORT_OFFSET < OUTGOING_PORTS, "{port}");
            assert!(nodes.iter().all(|node| node.port != port), "{port} comes twice");
            nodes.push(DemoNode { port, process: None, is_draining: false });
        }
    }

    #[test]
    fn a_node_that_drains_is_not_told_again() {
        let process = || Command::new("sleep").arg("60").spawn().ok();
        let node = |port| DemoNode { port, process: process(), is_draining: false };
        let mut nodes = DemoNodes {
            executable: PathBuf::new(),
            directory: std::env::temp_dir().join(format!("starling-demo-test-{}", std::process::id())),
            nodes: vec![node(1), node(2)],
            lost: SlotRanges::new(),
            failover: Failover::default(),
            events: Vec::new(),
            began: Instant::now(),
        };
        assert_eq!(nodes.last(), Some(2));
        nodes.drain(2).expect("told");
        assert_eq!(nodes.last(), Some(1), "the next to go");
        nodes.drain(2).expect("nothing");
        assert_eq!(nodes.events().len(), 1, "{:?}", nodes.events());
    }
}
