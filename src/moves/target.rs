//! The target of moves: asks for pieces, applies them, and proposes what [`Coming`] decides.

use super::Shared;
use super::coming::{Action, Coming, Event, Outcome, PullFailure, Step};
use super::messages::{Malformed, SlotAnswer, SlotRequest, encode, read_record};
use crate::base::identity::{Epoch, Incarnation, NodeId, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::{self, SlotMove};
use crate::cluster::topology::raft::{Proposal, ProposeError};
use crate::cluster::topology::{Applied, Topology, TopologyChange};
use crate::engine::Engine;
use crate::engine::log::LogOffset;
use crate::transport::{Blob, Peer, Purpose, Request, Response};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// How long the source may take for a piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);

/// Copies the slots of one move and takes them over, until the topology says that the move is over. May be aborted then.
pub(super) async fn copy(shared: Arc<Shared>, one: SlotMove, epochs: Vec<(Slot, Epoch)>, incarnation: Incarnation) {
    let coming = Coming::new(one.begun);
    let target = Target {
        shared,
        one,
        epochs,
        incarnation,
        coming,
        received: 0,
        partial: Vec::new(),
        tasks: JoinSet::new(),
        began: Instant::now(),
        proposed: None,
    };
    target.run().await;
}

/// What the core's decisions act on.
struct Target {
    shared: Arc<Shared>,
    one: SlotMove,
    epochs: Vec<(Slot, Epoch)>,
    incarnation: Incarnation,
    coming: Coming,
    /// Bytes of the stream.
    received: u64,
    /// The beginning of a record of which the rest comes in the next piece.
    partial: Vec<u8>,
    /// A question and proposals that are under way; they end with this.
    tasks: JoinSet<Finished>,
    began: Instant,
    /// The step that was proposed last, and when for the first time.
    proposed: Option<(Step, Instant)>,
}

/// What has come to an end.
enum Finished {
    /// The source's answer, encoded.
    Pull(Result<Vec<u8>, String>),
    Proposal(Step, Result<Proposal, ProposeError>),
    /// The log has everything.
    Keeping,
}

impl Target {
    async fn run(mut self) {
        let mut topologies = self.shared.shown.subscribe();
        let mut event = self.learned(&topologies.borrow_and_update());
        loop {
            let now_us = self.began.elapsed().as_micros() as u64;
            for action in self.coming.on(event, now_us) {
                if self.perform(action) {
                    return;
                }
            }
            let wake_at = self.coming.wake_at_us().map(|at_us| self.began + Duration::from_micros(at_us));
            event = tokio::select! {
                Some(finished) = self.tasks.join_next() => match finished {
                    Ok(finished) => self.take(finished),
                    // A task that panicked ends the process.
                    Err(_) => return,
                },
                changed = topologies.changed() => match changed {
                    Ok(()) => self.learned(&topologies.borrow_and_update()),
                    // The node ends.
                    Err(_) => return,
                },
                () = sleep_until(wake_at) => Event::Tick,
            };
        }
    }

    fn learned(&self, topology: &Topology) -> Event {
        Event::Learned { version: topology.version, stage: duties::stage_of(topology, &self.one) }
    }

    /// Whether that was the end.
    fn perform(&mut self, action: Action) -> bool {
        match action {
            Action::Clear => {
                (self.received, self.partial) = (0, Vec::new());
                for slot in self.one.slots.slots() {
                    self.shared.engine.clear_slot(slot);
                }
            }
            Action::Ask { is_begin, attempt, version } => {
                let (begun, received) = (self.one.begun, self.received);
                let asked = match is_begin {
                    true => SlotRequest::Begin { begun, attempt, slots: self.one.slots.clone(), version },
                    false => SlotRequest::Next { begun, attempt, received, version },
                };
                let (shared, source) = (Arc::clone(&self.shared), self.one.from);
                self.tasks.spawn(async move { Finished::Pull(request(&shared, source, asked).await) });
            }
            Action::Complete => {
                let (engine, end) = (Arc::clone(&self.shared.engine), self.say_epochs());
                self.shared.arrivals.lock().add(self.one.begun, &self.epochs);
                self.tasks.spawn(async move {
                    engine.log.until_kept(end).await;
                    Finished::Keeping
                });
            }
            Action::Propose(step) => {
                let (consensus, change) = (Arc::clone(&self.shared.consensus), self.change(step));
                if self.proposed.is_none_or(|(before, _)| before != step) {
                    self.proposed = Some((step, Instant::now()));
                }
                self.tasks.spawn(async move { Finished::Proposal(step, consensus.propose(change).await) });
            }
            Action::Tell { version } => self.tell(version),
            Action::End => return true,
        }
        false
    }

    /// What has arrived is this node's as soon as the hand-off is agreed, also where the node ends before it learns that: its
    /// log says in advance to which epoch the keys belong. Gives where it has to be kept to before anything is proposed.
    fn say_epochs(&self) -> LogOffset {
        for (slot, before) in &self.epochs {
            let epoch = Epoch(before.0.saturating_add(1));
            self.shared.engine.set_position(*slot, Position { epoch, seq: 0 });
        }
        self.shared.engine.log.end()
    }

    fn change(&self, step: Step) -> TopologyChange {
        let SlotMove { begun, to, ref slots, .. } = self.one;
        let (slots, incarnation) = (slots.clone(), self.incarnation);
        match step {
            Step::CopyReady => TopologyChange::CopyReady { slots, to, incarnation, begun },
            Step::BeginHandoff => TopologyChange::BeginHandoff { slots, to, begun },
            Step::Handoff => TopologyChange::Handoff { slots, to, incarnation, begun },
        }
    }

    /// Once, and it may outlive this: without it the source only learns a little later.
    fn tell(&self, version: u64) {
        (self.shared.nudge)(version);
        let (shared, source) = (Arc::clone(&self.shared), self.one.from);
        tokio::spawn(async move {
            let _ = request(&shared, source, SlotRequest::Look { version }).await;
        });
        let (begun, slots, took) = (self.one.begun, &self.one.slots, self.began.elapsed());
        tracing::debug!(begun, %slots, bytes = self.received, took_us = took.as_micros() as u64, "slots have moved here");
    }

    fn take(&mut self, finished: Finished) -> Event {
        match finished {
            Finished::Proposal(step, outcome) => Event::Proposed(step, self.outcome(step, outcome)),
            Finished::Keeping => Event::Kept,
            Finished::Pull(Ok(encoded)) => match postcard::from_bytes(&encoded) {
                Ok(answer) => self.take_answer(answer),
                Err(_) => self.lost("a malformed answer"),
            },
            Finished::Pull(Err(reason)) => self.lost(&reason),
        }
    }

    fn take_answer(&mut self, answer: SlotAnswer<'_>) -> Event {
        match answer {
            SlotAnswer::Piece { bytes, is_copied, is_stopped } => {
                self.received += bytes.len() as u64;
                match self.apply(bytes) {
                    Ok(()) if is_stopped && !self.partial.is_empty() => {
                        self.broken("the stream ended in the middle of a record")
                    }
                    Ok(()) => Event::Piece { is_empty: bytes.is_empty(), is_copied, is_stopped },
                    Err(reason) => self.broken(&reason),
                }
            }
            SlotAnswer::NotYet => Event::PullFailed(PullFailure::NotYet),
            SlotAnswer::Again | SlotAnswer::Seen => self.broken("the source has begun again"),
        }
    }

    fn lost(&self, reason: &str) -> Event {
        tracing::debug!(begun = self.one.begun, slots = %self.one.slots, reason, "no piece, asking again");
        Event::PullFailed(PullFailure::Lost)
    }

    fn broken(&self, reason: &str) -> Event {
        tracing::info!(begun = self.one.begun, slots = %self.one.slots, reason, "copying slots begins again");
        Event::PullFailed(PullFailure::Broken)
    }

    fn outcome(&self, step: Step, outcome: Result<Proposal, ProposeError>) -> Outcome {
        match outcome {
            Ok(Proposal { index: version, applied }) => {
                (self.shared.nudge)(version);
                match applied {
                    Applied::Done | Applied::Registered(_) => Outcome::Done { version },
                    Applied::Refused(_) => Outcome::Refused { version },
                }
            }
            // Without a raft leader it was not proposed, as far as this node knows: no reason to believe more.
            Err(error) => {
                let SlotMove { begun, from, ref slots, .. } = self.one;
                let since = self.proposed.filter(|(proposed, _)| *proposed == step).map(|(_, since)| since);
                // Since it was proposed for the first time.
                let for_ms = since.map_or(0, |since| since.elapsed().as_millis() as u64);
                tracing::debug!(?step, for_ms, begun, %slots, %from, %error, "a step has no outcome yet");
                Outcome::Unknown
            }
        }
    }

    /// Applies the complete records of the stream so far.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut partial = std::mem::take(&mut self.partial);
        let stream = if partial.is_empty() {
            bytes
        } else {
            partial.extend_from_slice(bytes);
            &partial
        };
        match apply_stream(&self.shared.engine, &self.one.slots, stream)? {
            // A long record: its beginning is not copied again with each of its pieces.
            0 if !partial.is_empty() => self.partial = partial,
            applied => self.partial.extend_from_slice(&stream[applied..]),
        }
        Ok(())
    }
}

pub(super) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Asks the source of a move once. Gives its answer, encoded.
async fn request(shared: &Shared, source: NodeId, request: SlotRequest) -> Result<Vec<u8>, String> {
    let topology = Arc::clone(&shared.consensus.subscribe().borrow());
    let node = topology.nodes.get(&source).ok_or("the source is unknown")?;
    let peer = Peer { node: Some(source), address: SocketAddr::new(node.ip, node.cluster_port) };
    let request = Request::Slot(encode(&request));
    match shared.transport.request(peer, Purpose::Slots, request, PIECE_TIMEOUT).await {
        Ok(Response::Slot(Blob(bytes))) => Ok(bytes),
        Ok(Response::Failed(reason)) => Err(reason),
        Ok(_) => Err("not an answer about slots".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Applies the complete records at the front of a stream; gives how many bytes they are, or why they do not fit.
fn apply_stream(engine: &Engine, slots: &SlotRanges, stream: &[u8]) -> Result<usize, String> {
    let mut at = 0;
    let mut batch: Vec<&[u8]> = Vec::new();
    let mut of: Option<(Slot, Position)> = None;
    let malformed = |_: Malformed| String::from("a malformed record");
    let apply = |of: Option<(Slot, Position)>, batch: &mut Vec<&[u8]>| match of {
        Some((slot, position)) => engine
            .apply(slot, batch.drain(..), position)
            .map_err(|error| format!("an effect on slot {slot} could not be applied: {error}")),
        None => Ok(()),
    };
    /// Effects applied under one lock, and their bytes, if there are several: 350 short members, about.
    const BATCH_MAX: usize = 64;
    const BATCH_BYTES_MAX: usize = 4 * 1024;
    let mut batch_bytes = 0;
    while let Some((record, length)) = read_record(&stream[at..]).map_err(malformed)? {
        if !slots.contains(record.slot) {
            return Err(format!("a record of slot {}, which does not move", record.slot));
        }
        batch_bytes += length;
        let is_full = batch.len() >= BATCH_MAX || batch_bytes > BATCH_BYTES_MAX;
        if of.is_some_and(|(slot, _)| slot != record.slot || is_full) {
            apply(of, &mut batch)?;
            batch_bytes = length;
        }
        of = Some((record.slot, record.position));
        batch.push(record.effect);
        at += length;
    }
    apply(of, &mut batch)?;
    Ok(at)
}
