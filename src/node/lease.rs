//! The loops around leases: this node's own, and those that it supports. What is decided, [`Lease`] and [`Support`] decide.

use crate::base::clock;
use crate::base::identity::{Incarnation, NodeId};
use crate::cluster::lease::{BEAT_US, Beat, BeatAnswer, LEASE_US, Lease};
use crate::cluster::support::Support;
use crate::cluster::topology::raft::{Consensus, RaftTopology};
use crate::cluster::topology::{Applied, Topology};
use crate::services::cluster::Cluster;
use crate::transport::{Blob, Peer, Purpose, Request, Response, Sender, Transport};
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

/// Between looks at whom nobody has heard.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// After promises could not be written.
const WRITE_PAUSE: Duration = Duration::from_secs(1);

/// A node's part in leases. Everything runs on the control thread.
pub(super) struct Leases {
    node: NodeId,
    raft: RaftTopology,
    transport: Arc<dyn Transport>,
    incarnation: watch::Receiver<Option<Incarnation>>,
    lease: Mutex<Lease>,
    support: Mutex<Support>,
    /// What requests see.
    cluster: Arc<Cluster>,
}

impl Leases {
    pub(super) fn new(
        node: NodeId,
        raft: RaftTopology,
        transport: Arc<dyn Transport>,
        incarnation: watch::Receiver<Option<Incarnation>>,
        cluster: Arc<Cluster>,
    ) -> Arc<Leases> {
        let lease = Mutex::new(Lease::new(node));
        let support = Mutex::new(Support::new(node, raft.promises().clone(), clock::boot_us()));
        Arc::new(Leases { node, raft, transport, incarnation, lease, support, cluster })
    }

    /// Asks for support, for as long as the node runs, and says until when there is a lease.
    pub(super) async fn hold(self: Arc<Leases>) {
        let mut topologies = self.raft.subscribe();
        let mut incarnations = self.incarnation.clone();
        let mut beats = tokio::time::interval(Duration::from_micros(BEAT_US));
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked: Option<Beat> = None;
        loop {
            let is_turn = tokio::select! {
                _ = beats.tick() => true,
                // An error means that the node ends.
                changed = topologies.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
                changed = incarnations.changed() => match changed {
                    Ok(()) => false,
                    Err(_) => return,
                },
            };
            let topology = self.raft.published().current();
            let incarnation = *self.incarnation.borrow();
            let beat = self.lease.lock().beat(&topology, incarnation, clock::boot_us());
            let is_new = beat.map(|beat| Beat { sent_us: 0, ..beat }) != asked;
            asked = beat.map(|beat| Beat { sent_us: 0, ..beat });
            if let Some(beat) = beat.filter(|_| is_turn || is_new) {
                self.ask(&beat, &topology);
            }
            self.settle();
        }
    }

    /// Asks every voter once. Several questions may be under way: one that hangs delays no other.
    fn ask(self: &Arc<Leases>, beat: &Beat, topology: &Topology) {
        let voters: BTreeSet<NodeId> = topology.lease_voters.votes.iter().copied().collect();
        let bytes = postcard::to_stdvec(beat).expect("plain values are encoded");
        for voter in voters.into_iter().filter(|voter| *voter != self.node) {
            let Some(address) = self.raft.published().address(voter) else { continue };
            let (leases, request) = (Arc::clone(self), Request::Beat(Blob(bytes.clone())));
            tokio::spawn(async move {
                let peer = Peer { node: Some(voter), address };
                let limit = Duration::from_micros(LEASE_US);
                let answer = leases.transport.request(peer, Purpose::Control, request, limit).await;
                if let Ok(Response::Beat(Blob(bytes))) = answer
                    && let Ok(answer) = postcard::from_bytes::<BeatAnswer>(&bytes)
                {
                    leases.lease.lock().answered(voter, answer);
                    leases.settle();
                }
            });
        }
    }

    /// Says until when there is a lease by what is known now, and has the support raised where that is due.
    fn settle(self: &Arc<Leases>) {
        let topology = self.raft.published().current();
        let incarnation = *self.incarnation.borrow();
        let mut lease = self.lease.lock();
        let support = topology.nodes.get(&self.node).map_or(0, |node| node.support);
        // The slots are set by another thread, by the same topology a little later.
        let shown = Arc::clone(&self.cluster.view().topology);
        self.cluster.lease().set(lease.until_as_shown_us(&topology, &shown, incarnation), support);
        if lease.raise(&topology, incarnation, clock::boot_us()) {
            let (leases, change) = (Arc::clone(self), topology.raise_of(self.node));
            tokio::spawn(async move {
                let Some(change) = change else { return };
                // Whatever becomes of it: the next look finds the support raised, or asks again.
                match leases.raft.propose(change).await {
                    Ok(proposal) if proposal.applied == Applied::Done => {
                        tracing::info!(
                            support = proposal.index,
                            "the others had not heard this node for a while: its support is raised"
                        );
                    }
                    Ok(_) => {}
                    Err(error) => tracing::info!(%error, "the support of this node was not raised yet"),
                }
            });
        }
    }

    /// Answers another node that asks for support.
    pub(super) fn answer(&self, sender: &Sender, request: &Blob) -> Response {
        match postcard::from_bytes::<Beat>(&request.0) {
            Ok(beat) if beat.node == sender.node => {
                let topology = self.raft.published().current();
                let answer = self.support.lock().on_beat(&beat, &topology, clock::boot_us());
                Response::Beat(Blob(postcard::to_stdvec(&answer).expect("plain values are encoded")))
            }
            _ => Response::Failed("a malformed beat".into()),
        }
    }

    /// Withdraws what nobody has asked for, for as long as the node runs: to the disk first, then to the raft leader.
    pub(super) async fn vote(self: Arc<Leases>) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut is_failing = false;
        loop {
            looks.tick().await;
            let topology = self.raft.published().current();
            let due = self.support.lock().look(&topology, clock::boot_us());
            if let Some(promises) = due {
                match self.raft.keep_promises(&promises).await {
                    Ok(()) => {
                        is_failing = false;
                        self.support.lock().kept(promises);
                    }
                    Err(error) => {
                        // Said once: after a write has failed none succeeds before a restart.
                        if !std::mem::replace(&mut is_failing, true) {
                            tracing::warn!(%error, "this node cannot write what it promises as a lease voter, and promises nothing");
                        }
                        tokio::time::sleep(WRITE_PAUSE).await;
                    }
                }
            }
            self.raft.set_report(self.support.lock().report(&topology));
        }
    }
}
