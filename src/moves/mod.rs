//! Moves: slots change their node together with their keys, while clients read and write.
//!
//! ```text
//!   target                                            primary
//!     CopyJoin is agreed
//!     Begin, Next, Next ...        ---- pieces ----   entries in hash order, and what happens meanwhile
//!     everything is here: CopyInSync is agreed        goes on sending what happens
//!     HandOver is agreed                              the slots are frozen: requests wait
//!     Next ... Final               <---------------   nothing comes behind
//!     Handoff is agreed: serves                       answers MOVED, and follows as a copy
//!     its log has everything: Settled is agreed
//!                                                     CopyLeave is agreed, where no plan wants it: drops the keys
//! ```
//!
//! The same takes a copy in (its first lines), and changes roles between two that both stay (its middle). An election makes a
//! copy the primary without the former one: then nothing is frozen, and what has not come is lost.
//!
//! One task looks at every new version of the topology, says which slots this node serves, and keeps the copying tasks
//! that the topology asks for. It runs on a thread of its own, with the links of slots: freeing, copying and sending many
//! keys must not delay raft or heartbeats. Only committed changes start and stop anything; there is no timer that gives a slot back.

pub mod copies;
pub mod ownership;
mod source;

use crate::base::identity::{Epoch, Incarnation, NodeId};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{self, SlotMove, Stage};
use crate::cluster::topology::raft::Consensus;
use crate::cluster::topology::{Topology, TopologyChange};
use crate::engine::Engine;
use crate::engine::log::LogOffset;
use crate::engine::shard::SlotState;
use crate::transport::{Blob, Response, Sender, Transport};
use copies::CopyTable;
use copies::following::sleep_until;
use copies::lost::Former;
use ownership::{Action, Followed, Ownership};
use parking_lot::Mutex;
use source::Source;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Before the end of a hand-over is proposed again: doubled every time, up to the last.
const SETTLE_PAUSE_MIN: Duration = Duration::from_millis(200);
const SETTLE_PAUSE_MAX: Duration = Duration::from_secs(3);
/// How long keys that a former life has left are kept for the case that this one becomes a copy of their slots again: twice the
/// time after which others take the place of a member that is down.
const LEFT_LIMIT: Duration = Duration::from_secs(120);
/// Attempts of one task of a copy that are counted.
const ATTEMPT_BITS: u32 = 20;

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
    /// By slot, the epoch whose keys a former life of the node has left in the engine.
    pub held: Vec<Option<Epoch>>,
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
    copies: Mutex<CopyTable>,
    /// The life of this node as which its slots and copies have been set.
    life: Mutex<Option<Incarnation>>,
    /// A slot that is handed over to this node has come.
    finished: Notify,
    /// The newest topology that requests see. A target goes by it: when it proposes to take slots over, requests for them
    /// wait here already, and the source may send its clients.
    shown: watch::Sender<Arc<Topology>>,
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
        let source = Source::new(Arc::clone(&options.engine));
        let shared = Arc::new(Shared {
            node: options.node,
            engine: options.engine,
            consensus: options.consensus,
            transport: options.transport,
            nudge: options.nudge,
            source: Mutex::new(source),
            copies: Mutex::default(),
            life: Mutex::default(),
            finished: Notify::new(),
            shown: watch::Sender::new(Arc::default()),
        });
        let ownership = Ownership::new(options.node, options.held);
        shared.engine.set_slot_states(Slot::all().map(|slot| (slot, SlotState::Elsewhere)));
        let run = Follower {
            shared: Arc::clone(&shared),
            ownership,
            settling: HashMap::new(),
            following: BTreeMap::new(),
            former: Former::default(),
            give_up_at: None,
        };
        runtime.spawn(source::follow_log(Arc::clone(&shared)));
        runtime.spawn(copies::retiring::remove(Arc::clone(&shared)));
        runtime.spawn(copies::taking::take_over(Arc::clone(&shared), options.incarnation.clone()));
        runtime.spawn(run.run(options.incarnation, options.show));
        Moves { shared, runtime }
    }

    /// Answers another node's message about copies.
    pub async fn answer(&self, sender: &Sender, request: &Blob) -> Response {
        let (shared, sender, request) = (Arc::clone(&self.shared), *sender, request.clone());
        let answered = self.runtime.spawn(async move { copies::answer(&shared, &sender, &request).await }).await;
        answered.unwrap_or_else(|_| Response::Failed("the moves have stopped".into()))
    }
}

/// The task that follows the topology.
struct Follower {
    shared: Arc<Shared>,
    ownership: Ownership,
    /// The tasks that say that what has come here is kept, by the numbers of the hand-overs.
    settling: HashMap<u64, JoinHandle<()>>,
    /// The copies of this node that follow their primaries, and the slots of each.
    following: BTreeMap<(NodeId, u64), OwnCopy>,
    /// Whose slots are being elected.
    former: Former,
    /// When what a former life has left is dropped.
    give_up_at: Option<tokio::time::Instant>,
}

/// A copy of this node that follows its primary.
struct OwnCopy {
    /// They may become fewer while it follows.
    slots: Arc<Mutex<SlotRanges>>,
    task: JoinHandle<()>,
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
                () = sleep_until(self.give_up_at) => {
                    self.give_up_left();
                    continue;
                }
            };
            if changed.is_err() {
                self.settling.into_values().for_each(|task| task.abort());
                self.following.into_values().for_each(|copy| copy.task.abort());
                return;
            }
        }
    }

    /// What a former life has left and this one has had no use for is dropped.
    fn give_up_left(&mut self) {
        self.give_up_at = None;
        let left = self.shared.copies.lock().give_up_left();
        let dropped: usize = left.into_iter().map(|slot| self.shared.engine.clear_slot(slot)).sum();
        if dropped > 0 {
            tracing::info!(dropped, "keys of slots in which this node has no part any more are dropped");
        }
    }

    fn follow(&mut self, topology: &Arc<Topology>, incarnation: Option<Incarnation>, show: &Show) {
        let Followed { actions, dropped } =
            self.ownership.follow(topology, incarnation, &mut self.shared.copies.lock());
        // They run on this thread, so they stand still from here on.
        self.end_copies(topology, incarnation);
        // What slots are given to their copies by begins behind what has been read.
        let _ = self.shared.source.lock().exports.follow();
        let mut anew = None;
        for action in actions {
            self.perform(action, &mut anew, topology);
        }
        self.shared.engine.acknowledge_all(duties::acknowledge(topology));
        show(topology, incarnation);
        *self.shared.life.lock() = incarnation;
        let before = self.shared.shown.send_replace(Arc::clone(topology));
        self.former.follow(&before, topology);
        // Only now, when requests see the new owner, and the frozen slots are.
        self.shared.source.lock().follow(topology, self.shared.node, incarnation);
        for slot in dropped {
            self.shared.engine.clear_slot(slot);
        }
        if self.give_up_at.is_none() && self.shared.copies.lock().has_left() {
            self.give_up_at = Some(tokio::time::Instant::now() + LEFT_LIMIT);
        }
        self.begin_copies(topology, incarnation);
        self.keep_settling(duties::moves(topology));
    }

    /// Ends the tasks of copies that are none any more, or that have another primary or other slots.
    fn end_copies(&mut self, topology: &Topology, incarnation: Option<Incarnation>) {
        let wanted = copies::following(topology, self.shared.node, incarnation);
        self.following.retain(|key, copy| {
            let mut slots = copy.slots.lock();
            match wanted.get(key) {
                Some(wanted) if wanted.difference(&slots).is_empty() => {
                    slots.clone_from(wanted);
                    true
                }
                _ => {
                    copy.task.abort();
                    false
                }
            }
        });
    }

    fn begin_copies(&mut self, topology: &Topology, incarnation: Option<Incarnation>) {
        let Some(life) = incarnation else { return };
        for (key, slots) in copies::following(topology, self.shared.node, incarnation) {
            let (shared, (source, number)) = (Arc::clone(&self.shared), key);
            // Greater than of any stream of this number before.
            let attempt = topology.version << ATTEMPT_BITS;
            self.following.entry(key).or_insert_with(|| {
                let slots = Arc::new(Mutex::new(slots));
                let follow = copies::following::follow(shared, source, number, Arc::clone(&slots), life, attempt);
                OwnCopy { slots, task: tokio::spawn(follow) }
            });
        }
    }

    /// `anew`: the slot that the action before has emptied.
    fn perform(&self, action: Action, anew: &mut Option<Slot>, topology: &Topology) {
        match action {
            Action::BeginAnew(slot) => {
                *anew = Some(slot);
                let dropped = self.shared.engine.clear_slot(slot);
                if dropped > 0 {
                    tracing::warn!(%slot, dropped, "a slot begins anew, its keys are dropped");
                }
            }
            Action::Set { slot, state, epoch } => {
                let start = self.shared.engine.position(slot);
                // What is here of a slot that is somebody else's stands where it stood, in the epoch that it is of.
                let epoch = if state == SlotState::Elsewhere { start.epoch } else { epoch };
                if start.epoch != epoch && *anew != Some(slot) {
                    let mut source = self.shared.source.lock();
                    let source = &mut *source;
                    let former = self.former.of(slot, epoch);
                    source.feeds.begin_epoch(&mut source.exports, slot, (start, former), topology);
                }
                self.shared.engine.set_slot(slot, state, epoch);
            }
            Action::ShowCopy { slot, is_complete: true } => self.shared.engine.show_copy(slot),
            Action::ShowCopy { slot, is_complete: false } => self.shared.engine.hide_copy(slot),
        }
    }

    /// Starts the tasks that say of what has come here that it is kept, and ends those for which that is over.
    fn keep_settling(&mut self, moves: Vec<SlotMove>) {
        let node = self.shared.node;
        let has_come = |one: &SlotMove| one.stage == Stage::Settling && one.to == node;
        self.settling.retain(|begun, task| {
            let goes_on = moves.iter().any(|one| one.begun == *begun && has_come(one));
            if !goes_on {
                task.abort();
            }
            goes_on
        });
        for one in moves.into_iter().filter(has_come) {
            let shared = Arc::clone(&self.shared);
            // The slots have been set: the log says by now to which epoch they belong.
            let end = shared.engine.log.end();
            self.settling.entry(one.begun).or_insert_with(|| tokio::spawn(settle(shared, one, end)));
        }
    }
}

/// Says that what has come here is kept as far as this node keeps anything: from then on others need not have it. Aborted as
/// soon as the topology shows it: until then the outcome may be unknown, and proposed twice it does nothing.
async fn settle(shared: Arc<Shared>, one: SlotMove, end: LogOffset) {
    shared.engine.log.until_kept(end).await;
    let SlotMove { begun, from, slots, .. } = one;
    let change = TopologyChange::Settled { slots: slots.clone(), from, begun };
    let since = Instant::now();
    let mut pause = SETTLE_PAUSE_MIN;
    loop {
        match shared.consensus.propose(change.clone()).await {
            Ok(proposal) => (shared.nudge)(proposal.index),
            Err(error) => {
                let for_ms = since.elapsed().as_millis() as u64;
                tracing::info!(for_ms, begun, %slots, %from, %error, "the end of a hand-over has no outcome yet");
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(SETTLE_PAUSE_MAX);
    }
}

#[cfg(test)]
mod tests;
