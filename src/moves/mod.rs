//! Moves: slots change their node together with their keys, while clients read and write.
//!
//! ```text
//!   target                                            source
//!     CopyAdd is agreed
//!     Begin, Next, Next ...        ---- pieces ----   entries in hash order, and the effects on them
//!     CopyReady, BeginHandoff      ---- agreed ---->  the slots are frozen: requests wait
//!     Next ... the last piece      <---------------   nothing will be added
//!     Handoff is agreed: serves                       answers MOVED, drops the keys, CopyRemove is agreed
//! ```
//!
//! One task looks at every new version of the topology, says which slots this node serves, and keeps the copying tasks
//! that the topology asks for. It runs on a thread of its own: freeing and copying many keys must not delay the links
//! or heartbeats. Only committed changes start and stop anything; there is no timer that gives a slot back.

mod messages;
mod ownership;
mod source;
mod target;

use crate::base::identity::{Incarnation, NodeId};
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{self, SlotMove, Stage};
use crate::cluster::topology::raft::Consensus;
use crate::cluster::topology::{Topology, TopologyChange};
use crate::engine::Engine;
use crate::transport::{Blob, Response, Sender, Transport};
use ownership::Ownership;
use parking_lot::Mutex;
use source::Source;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use target::Arrivals;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Makes a version of the topology visible to requests, after the slots of this node have been set accordingly.
pub type Show = Box<dyn Fn(&Arc<Topology>, Option<Incarnation>) + Send>;

/// What the moves of a node are made of.
pub struct MovesOptions {
    pub node: NodeId,
    pub engine: Arc<Engine>,
    pub consensus: Arc<dyn Consensus>,
    pub transport: Arc<dyn Transport>,
    /// This life of the node, once it has registered.
    pub incarnation: watch::Receiver<Option<Incarnation>>,
    /// Asks for a version of the topology at once.
    pub nudge: Arc<dyn Fn(u64) + Send + Sync>,
    pub show: Show,
}

/// What the tasks of the moves share.
struct Shared {
    node: NodeId,
    engine: Arc<Engine>,
    consensus: Arc<dyn Consensus>,
    transport: Arc<dyn Transport>,
    nudge: Arc<dyn Fn(u64) + Send + Sync>,
    source: Mutex<Source>,
    arrivals: Mutex<Arrivals>,
}

/// The way to the moves of this node, for the links.
#[derive(Clone)]
pub struct Moves {
    shared: Arc<Shared>,
    runtime: tokio::runtime::Handle,
}

impl Moves {
    /// Takes every slot out of service, and begins to follow the topology on this runtime.
    pub fn start(options: MovesOptions, runtime: tokio::runtime::Handle) -> Moves {
        let shared = Arc::new(Shared {
            node: options.node,
            engine: options.engine,
            consensus: options.consensus,
            transport: options.transport,
            nudge: options.nudge,
            source: Mutex::new(Source::default()),
            arrivals: Mutex::default(),
        });
        let ownership = Ownership::new(options.node, Arc::clone(&shared.engine));
        let run = Follower { shared: Arc::clone(&shared), ownership, copying: HashMap::new(), ended: HashSet::new() };
        runtime.spawn(run.run(options.incarnation, options.show));
        Moves { shared, runtime }
    }

    /// Answers another node's message about slots.
    pub async fn answer(&self, sender: &Sender, request: &Blob) -> Response {
        let (shared, sender, request) = (Arc::clone(&self.shared), *sender, request.clone());
        let answered = self.runtime.spawn(async move { source::answer(&shared, &sender, &request) }).await;
        answered.unwrap_or_else(|_| Response::Failed("the moves have stopped".into()))
    }
}

/// The task that follows the topology.
struct Follower {
    shared: Arc<Shared>,
    ownership: Ownership,
    /// The copying tasks and their slots, by the numbers of their moves.
    copying: HashMap<u64, (JoinHandle<()>, SlotRanges)>,
    /// The moves from here that are done, whose end has been proposed.
    ended: HashSet<u64>,
}

impl Follower {
    async fn run(mut self, mut incarnation: watch::Receiver<Option<Incarnation>>, show: Show) {
        let mut topologies = self.shared.consensus.subscribe();
        loop {
            let topology = Arc::clone(&topologies.borrow_and_update());
            let life = *incarnation.borrow_and_update();
            self.follow(&topology, life, &show);
            // An error means that the node ends.
            let changed = tokio::select! {
                changed = topologies.changed() => changed,
                changed = incarnation.changed() => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }

    fn follow(&mut self, topology: &Arc<Topology>, incarnation: Option<Incarnation>, show: &Show) {
        let released = {
            let mut arrivals = self.shared.arrivals.lock();
            self.ownership.follow(topology, incarnation, &mut arrivals)
        };
        show(topology, incarnation);
        // Only now, when requests see the new owner, and the frozen slots are.
        self.shared.source.lock().follow(topology, self.shared.node, &self.shared.engine);
        for slot in released {
            self.shared.engine.clear_slot(slot);
        }
        self.keep_tasks(topology, incarnation);
    }

    /// Starts the copying tasks that the topology asks for, and ends the others.
    fn keep_tasks(&mut self, topology: &Arc<Topology>, incarnation: Option<Incarnation>) {
        let moves = duties::moves(topology);
        let node = self.shared.node;
        let comes_here = |stage: Stage| stage != Stage::Releasing;
        let (ownership, engine) = (&self.ownership, &self.shared.engine);
        self.copying.retain(|begun, (task, slots)| {
            let wanted = moves.iter().any(|one| one.begun == *begun && one.to == node && comes_here(one.stage));
            if !wanted {
                // It runs on this thread, so it stands still; what it has copied of slots that did not come is dropped.
                task.abort();
                for slot in slots.slots().filter(|slot| !ownership.holds(*slot)) {
                    engine.clear_slot(slot);
                }
            }
            wanted
        });
        let is_released = |one: &SlotMove| one.stage == Stage::Releasing && one.from == node;
        self.ended.retain(|begun| moves.iter().any(|one| one.begun == *begun && is_released(one)));
        for one in moves {
            if is_released(&one) {
                if !self.ended.insert(one.begun) {
                    continue;
                }
                let change = TopologyChange::CopyRemove { slots: one.slots, node, begun: one.begun };
                propose_aside(&self.shared, change);
            } else if one.stage == Stage::Copying
                && one.to == node
                && let Some(incarnation) = incarnation
            {
                let shared = Arc::clone(&self.shared);
                let epochs = one.slots.slots().map(|slot| (slot, topology.slot(slot).epoch)).collect();
                self.copying.entry(one.begun).or_insert_with(|| {
                    let slots = one.slots.clone();
                    (tokio::spawn(target::copy(shared, one, epochs, incarnation)), slots)
                });
            }
        }
    }
}

/// Proposes without waiting, until it is agreed on or refused.
fn propose_aside(shared: &Arc<Shared>, change: TopologyChange) {
    let consensus = Arc::clone(&shared.consensus);
    tokio::spawn(async move {
        while let Err(error) = consensus.propose(change.clone()).await {
            tracing::warn!(%error, "the end of a move could not be agreed on");
        }
    });
}
