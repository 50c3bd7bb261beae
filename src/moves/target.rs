//! The target of moves: asks for pieces, applies them, and takes the move from step to step.

use super::Shared;
use super::messages::{Malformed, SlotAnswer, SlotRequest, encode, read_record};
use crate::base::clock;
use crate::base::identity::{Epoch, Incarnation, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::duties::SlotMove;
use crate::cluster::topology::{Applied, TopologyChange};
use crate::engine::Engine;
use crate::transport::{Blob, Peer, Purpose, Request, Response};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long the source may take for a piece.
const PIECE_TIMEOUT: Duration = Duration::from_secs(5);
/// Before asking again, where there is nothing new.
const IDLE_PAUSE: Duration = Duration::from_millis(1);
/// Before asking again, where something is wrong.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// The slots whose keys are here, complete, for a hand-off that has been proposed.
#[derive(Default)]
pub(super) struct Arrivals {
    /// The number of the move, and the epoch that the hand-off ends.
    complete: HashMap<Slot, (u64, Epoch)>,
}

impl Arrivals {
    fn add(&mut self, begun: u64, epochs: &[(Slot, Epoch)]) {
        self.complete.extend(epochs.iter().map(|(slot, epoch)| (*slot, (begun, *epoch))));
    }

    /// The move is off, or copied from the beginning again.
    fn remove(&mut self, begun: u64) {
        self.complete.retain(|_, (of, _)| *of != begun);
    }

    /// Whether the keys of this epoch of the slot have arrived; they are this node's from now on.
    pub(super) fn take(&mut self, slot: Slot, epoch: Epoch) -> bool {
        self.complete.remove(&slot).is_some_and(|(_, before)| before.0.checked_add(1) == Some(epoch.0))
    }
}

/// Why a copy begins again.
#[derive(Debug)]
enum Failure {
    /// The source does not know the move yet.
    NotYet,
    Lost(String),
}

/// Copies the slots of one move and takes them over. Aborted when the move is over, whichever way.
pub(super) async fn copy(shared: Arc<Shared>, one: SlotMove, epochs: Vec<(Slot, Epoch)>, incarnation: Incarnation) {
    loop {
        // What an earlier attempt left.
        shared.arrivals.lock().remove(one.begun);
        for slot in one.slots.slots() {
            shared.engine.clear_slot(slot);
        }
        let attempt =
            Attempt { shared: &shared, one: &one, incarnation, received: 0, partial: Vec::new(), version: one.begun };
        match attempt.run(&epochs).await {
            Ok(()) => return,
            Err(Failure::NotYet) => {}
            Err(Failure::Lost(reason)) => {
                tracing::info!(begun = one.begun, slots = %one.slots, reason, "copying slots begins again");
            }
        }
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

/// One try.
struct Attempt<'a> {
    shared: &'a Arc<Shared>,
    one: &'a SlotMove,
    incarnation: Incarnation,
    /// Bytes of the stream.
    received: u64,
    /// The beginning of a record of which the rest comes in the next piece.
    partial: Vec<u8>,
    /// The version of the topology that the source must have seen.
    version: u64,
}

/// What a piece said besides its records.
struct Progress {
    is_empty: bool,
    is_copied: bool,
    is_stopped: bool,
}

impl Attempt<'_> {
    async fn run(mut self, epochs: &[(Slot, Epoch)]) -> Result<(), Failure> {
        let SlotMove { begun, to, ref slots, .. } = *self.one;
        let began_us = clock::boot_us();
        let begin = SlotRequest::Begin { begun, slots: slots.clone(), version: self.version };
        let mut progress = self.ask(begin).await?;
        while !progress.is_copied {
            progress = self.next().await?;
        }
        let copied_us = clock::boot_us();
        let incarnation = self.incarnation;
        self.propose(TopologyChange::CopyReady { slots: slots.clone(), to, incarnation, begun }).await?;
        self.version = self.propose(TopologyChange::BeginHandoff { slots: slots.clone(), to, begun }).await?;
        let begun_us = clock::boot_us();
        while !progress.is_stopped {
            if progress.is_empty {
                tokio::time::sleep(IDLE_PAUSE).await;
            }
            progress = self.next().await?;
        }
        if !self.partial.is_empty() {
            return Err(Failure::Lost("the stream ended in the middle of a record".into()));
        }
        let stopped_us = clock::boot_us();
        self.shared.arrivals.lock().add(begun, epochs);
        let handoff = TopologyChange::Handoff { slots: slots.clone(), to, incarnation, begun };
        self.version = self.propose(handoff).await?;
        (self.shared.nudge)(self.version);
        // The source answers MOVED as soon as it knows; without this it would know a little later.
        let _ = self.request(SlotRequest::Look { version: self.version }).await;
        tracing::debug!(
            begun,
            %slots,
            bytes = self.received,
            copied_in_us = copied_us - began_us,
            agreed_in_us = begun_us - copied_us,
            stopped_in_us = stopped_us - begun_us,
            handed_over_in_us = clock::boot_us() - stopped_us,
            "slots have moved here"
        );
        Ok(())
    }

    async fn next(&mut self) -> Result<Progress, Failure> {
        self.ask(SlotRequest::Next { begun: self.one.begun, received: self.received, version: self.version }).await
    }

    async fn ask(&mut self, request: SlotRequest) -> Result<Progress, Failure> {
        match self.request(request).await? {
            SlotAnswer::Piece { bytes: Blob(bytes), is_copied, is_stopped } => {
                self.received += bytes.len() as u64;
                self.apply(&bytes)?;
                Ok(Progress { is_empty: bytes.is_empty(), is_copied, is_stopped })
            }
            SlotAnswer::NotYet => Err(Failure::NotYet),
            SlotAnswer::Again | SlotAnswer::Seen => Err(Failure::Lost("the source has begun again".into())),
        }
    }

    async fn request(&self, request: SlotRequest) -> Result<SlotAnswer, Failure> {
        let source = self.one.from;
        let topology = Arc::clone(&self.shared.consensus.subscribe().borrow());
        let node = topology.nodes.get(&source).ok_or_else(|| Failure::Lost("the source is unknown".into()))?;
        let peer = Peer { node: Some(source), address: SocketAddr::new(node.ip, node.cluster_port) };
        let request = Request::Slot(encode(&request));
        match self.shared.transport.request(peer, Purpose::Slots, request, PIECE_TIMEOUT).await {
            Ok(Response::Slot(Blob(bytes))) => {
                postcard::from_bytes(&bytes).map_err(|_| Failure::Lost("a malformed answer".into()))
            }
            Ok(Response::Failed(reason)) => Err(Failure::Lost(reason)),
            Ok(_) => Err(Failure::Lost("not an answer about slots".into())),
            Err(error) => Err(Failure::Lost(error.to_string())),
        }
    }

    /// Applies the complete records of the stream so far.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.partial.extend_from_slice(bytes);
        let partial = std::mem::take(&mut self.partial);
        let applied = apply_stream(&self.shared.engine, &self.one.slots, &partial)?;
        self.partial.extend_from_slice(&partial[applied..]);
        Ok(())
    }

    /// Proposes a step and gives the version in which it is done.
    async fn propose(&self, change: TopologyChange) -> Result<u64, Failure> {
        match self.shared.consensus.propose(change).await {
            Ok(proposal) => match proposal.applied {
                Applied::Done | Applied::Registered(_) => Ok(proposal.index),
                // Proposals may be repeated until one is known to be committed: the first may have been.
                Applied::Refused(reason) => self.is_beyond(proposal.index, reason).await,
            },
            Err(error) => Err(Failure::Lost(error.to_string())),
        }
    }

    /// A refused step is fine where the move is further already.
    async fn is_beyond(&self, version: u64, reason: crate::cluster::topology::Refused) -> Result<u64, Failure> {
        (self.shared.nudge)(version);
        let mut topologies = self.shared.consensus.subscribe();
        let seen = topologies.wait_for(|topology| topology.version >= version).await;
        let topology = seen.map_err(|_| Failure::Lost("the node ends".into()))?.clone();
        let goes_on = |slot: Slot| topology.slot(slot).phase.begun() == Some(self.one.begun);
        if self.one.slots.slots().all(goes_on) {
            Ok(version)
        } else {
            Err(Failure::Lost(format!("a step was refused: {reason:?}")))
        }
    }
}

/// Applies the complete records at the front of a stream; gives how many bytes they are.
fn apply_stream(engine: &Engine, slots: &SlotRanges, stream: &[u8]) -> Result<usize, Failure> {
    let mut at = 0;
    let mut batch: Vec<&[u8]> = Vec::new();
    let mut of: Option<(Slot, Position)> = None;
    let malformed = |_: Malformed| Failure::Lost("a malformed record".into());
    let apply = |of: Option<(Slot, Position)>, batch: &mut Vec<&[u8]>| match of {
        Some((slot, position)) => engine
            .apply(slot, batch.drain(..), position)
            .map_err(|error| Failure::Lost(format!("an effect on slot {slot} could not be applied: {error}"))),
        None => Ok(()),
    };
    /// Effects applied under one lock.
    const BATCH_MAX: usize = 64;
    while let Some((record, length)) = read_record(&stream[at..]).map_err(malformed)? {
        if !slots.contains(record.slot) {
            return Err(Failure::Lost(format!("a record of slot {}, which does not move", record.slot)));
        }
        if of.is_some_and(|(slot, _)| slot != record.slot) || batch.len() >= BATCH_MAX {
            apply(of, &mut batch)?;
        }
        of = Some((record.slot, record.position));
        batch.push(record.effect);
        at += length;
    }
    apply(of, &mut batch)?;
    Ok(at)
}
