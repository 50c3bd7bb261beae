//! A copy of this node: asks its primary for what it lacks, applies it, and says when it has everything. [`Following`] decides.

use super::messages::{CopyAnswer, CopyRequest, Left, encode, read_record};
use super::table::Step;
use crate::base::identity::{Incarnation, NodeId, Position};
use crate::base::slot::Slot;
use crate::base::slot_ranges::SlotRanges;
use crate::cluster::topology::raft::{Proposal, ProposeError};
use crate::cluster::topology::{Applied, Topology, TopologyChange};
use crate::engine::export::RecordKind;
use crate::engine::log::LogOffset;
use crate::moves::Shared;
use crate::transport::{Blob, Purpose, Request, Response};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Before trying again what failed: doubled with every failure in a row, up to the last.
const RETRY_MIN_US: u64 = 20_000;
const RETRY_MAX_US: u64 = 500_000;
/// How long the primary may take to answer; it answers after a tenth of that where there is nothing.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);

/// A disk that takes longer is not waited for: what is on it is said with a later question.
const KEPT_LIMIT: Duration = Duration::from_millis(500);

/// Why a question has brought no piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// The primary does not know the copy yet.
    NotYet,
    /// No answer: the same question is answered by the same piece.
    Lost,
    /// The stream cannot go on.
    Broken,
}

/// What a copy has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The topology of this version is known here, and whether it says that the copy is ready in all its slots.
    Learned { version: u64, is_ready: bool },
    /// A piece came, and was applied. Whether all slots are complete.
    Piece { is_complete: bool },
    /// The question brought no piece.
    Failed(PullFailure),
    /// The proposal of CopyInSync has ended, whatever it came to.
    Proposed,
    /// Time has passed.
    Tick,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Ask for a stream that begins with what is here.
    Begin { attempt: u64, version: u64 },
    /// Ask for what comes next in it.
    Next { attempt: u64, version: u64 },
    /// Everything is here: propose CopyInSync.
    Propose,
}

/// The decisions of one copy.
#[derive(Clone, Debug, Default)]
pub struct Following {
    attempt: u64,
    version: u64,
    is_begun: bool,
    is_asking: bool,
    at_us: u64,
    failures: u32,
    is_complete: bool,
    is_ready: bool,
    is_proposing: bool,
    propose_at_us: u64,
}

impl Following {
    /// A stream that begins with this attempt: a greater one than of any stream of its number before.
    pub fn new(attempt: u64) -> Following {
        Following { attempt, ..Following::default() }
    }

    /// What follows from an event at this time.
    pub fn on(&mut self, event: Event, now_us: u64) -> Vec<Action> {
        match event {
            Event::Learned { version, is_ready } if version >= self.version => {
                (self.version, self.is_ready) = (version, is_ready);
            }
            Event::Piece { is_complete } if self.is_asking => {
                (self.is_asking, self.is_begun, self.failures) = (false, true, 0);
                (self.is_complete, self.at_us) = (is_complete, now_us);
            }
            Event::Failed(failure) if self.is_asking => {
                self.is_asking = false;
                self.at_us = now_us + (RETRY_MIN_US << self.failures.min(10)).min(RETRY_MAX_US);
                self.failures += 1;
                if failure == PullFailure::Broken {
                    (self.attempt, self.is_begun, self.is_complete) = (self.attempt + 1, false, false);
                }
            }
            Event::Proposed => (self.is_proposing, self.propose_at_us) = (false, now_us + RETRY_MAX_US),
            _ => {}
        }
        let mut actions = Vec::new();
        if !self.is_asking && now_us >= self.at_us {
            self.is_asking = true;
            let (attempt, version) = (self.attempt, self.version);
            actions.push(match self.is_begun {
                true => Action::Next { attempt, version },
                false => Action::Begin { attempt, version },
            });
        }
        if self.wants_to_propose() && now_us >= self.propose_at_us {
            self.is_proposing = true;
            actions.push(Action::Propose);
        }
        actions
    }

    /// When it wants to be told the time, if nothing else happens.
    pub fn wake_at_us(&self) -> Option<u64> {
        let ask = (!self.is_asking).then_some(self.at_us);
        let propose = self.wants_to_propose().then_some(self.propose_at_us);
        ask.into_iter().chain(propose).min()
    }

    fn wants_to_propose(&self) -> bool {
        self.is_complete && !self.is_ready && !self.is_proposing
    }
}

/// Follows a primary until it is aborted: when the topology has the copy no more, or with other slots or another primary.
pub(in crate::moves) async fn follow(
    shared: Arc<Shared>,
    source: NodeId,
    number: u64,
    slots: Arc<Mutex<SlotRanges>>,
    incarnation: Incarnation,
    attempt: u64,
) {
    let core = Following::new(attempt);
    let (tasks, left, began) = (JoinSet::new(), Arc::default(), Instant::now());
    let copy = Follow {
        shared,
        source,
        number,
        slots,
        incarnation,
        core,
        received: 0,
        partial: Vec::new(),
        left,
        applied: None,
        tasks,
        began,
    };
    copy.run().await;
}

struct Follow {
    shared: Arc<Shared>,
    source: NodeId,
    number: u64,
    /// They may become fewer while it follows.
    slots: Arc<Mutex<SlotRanges>>,
    incarnation: Incarnation,
    core: Following,
    /// Bytes of the stream.
    received: u64,
    /// The beginning of a record of which the rest comes in the next piece.
    partial: Vec<u8>,
    left: Arc<Mutex<LeftSlots>>,
    /// Where the log stood when the last piece had been applied, if that is to be on the disk before more is asked for.
    applied: Option<LogOffset>,
    tasks: JoinSet<Finished>,
    began: Instant,
}

enum Finished {
    Answer(Result<Vec<u8>, String>),
    Proposal(Result<Proposal, ProposeError>),
}

impl Follow {
    async fn run(mut self) {
        let mut topologies = self.shared.shown.subscribe();
        let mut event = self.learned(&topologies.borrow_and_update());
        loop {
            let now_us = self.began.elapsed().as_micros() as u64;
            for action in self.core.on(event, now_us) {
                self.perform(action);
            }
            let wake_at = self.core.wake_at_us().map(|at_us| self.began + Duration::from_micros(at_us));
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
        let is_ready = |slot: Slot| topology.slot(slot).copies.on(self.shared.node).is_some_and(|copy| copy.ready);
        Event::Learned { version: topology.version, is_ready: self.slots.lock().slots().all(is_ready) }
    }

    fn perform(&mut self, action: Action) {
        let (number, slots, received) = (self.number, self.slots.lock().clone(), self.received);
        let (shared, source) = (Arc::clone(&self.shared), self.source);
        match action {
            Action::Begin { attempt, version } => {
                (self.received, self.partial) = (0, Vec::new());
                let left = Arc::clone(&self.left);
                let ask = async move { begin(&shared, source, (number, attempt, version), slots, left).await };
                self.tasks.spawn(async { Finished::Answer(ask.await) });
            }
            Action::Next { attempt, version } => {
                let applied = self.applied;
                let ask = async move {
                    let is_kept = is_kept(&shared, applied).await;
                    ask(&shared, source, &CopyRequest::Next { number, attempt, received, is_kept, version }).await
                };
                self.tasks.spawn(async { Finished::Answer(ask.await) });
            }
            Action::Propose => {
                let (node, incarnation) = (shared.node, self.incarnation);
                let change = TopologyChange::CopyInSync { slots, node, incarnation, number };
                self.tasks.spawn(async move { Finished::Proposal(shared.consensus.propose(change).await) });
            }
        }
    }

    fn take(&mut self, finished: Finished) -> Event {
        match finished {
            Finished::Proposal(Ok(Proposal { index, applied })) => {
                (self.shared.nudge)(index);
                if applied == Applied::Done {
                    tracing::debug!(number = self.number, slots = %self.slots.lock(), of = %self.source, "a copy is in sync");
                }
                Event::Proposed
            }
            Finished::Proposal(Err(_)) => Event::Proposed,
            Finished::Answer(Err(reason)) => {
                tracing::debug!(number = self.number, reason, "no piece of a copy, asking again");
                Event::Failed(PullFailure::Lost)
            }
            Finished::Answer(Ok(encoded)) => match postcard::from_bytes(&encoded) {
                Ok(CopyAnswer::Piece { bytes, keep }) => match self.apply(bytes) {
                    Ok(()) => {
                        self.applied = keep.then(|| self.shared.engine.log.end());
                        Event::Piece { is_complete: self.is_complete() }
                    }
                    Err(reason) => {
                        tracing::info!(number = self.number, of = %self.source, reason, "a copy begins again");
                        Event::Failed(PullFailure::Broken)
                    }
                },
                Ok(CopyAnswer::NotYet) => Event::Failed(PullFailure::NotYet),
                _ => Event::Failed(PullFailure::Broken),
            },
        }
    }

    fn is_complete(&self) -> bool {
        // The topology shows that it is ready mostly: then nobody asks.
        let table = self.shared.copies.lock();
        self.slots.lock().slots().all(|slot| table.is_complete(slot, self.number))
    }

    /// Applies the complete records of the stream so far.
    fn apply(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.received += bytes.len() as u64;
        let mut partial = std::mem::take(&mut self.partial);
        let stream = if partial.is_empty() {
            bytes
        } else {
            partial.extend_from_slice(bytes);
            &partial
        };
        let applied = self.apply_records(stream)?;
        match applied {
            // A long record: its beginning is not copied again with each of its pieces.
            0 if !partial.is_empty() => self.partial = partial,
            applied => self.partial = stream[applied..].to_vec(),
        }
        Ok(())
    }

    fn apply_records(&self, stream: &[u8]) -> Result<usize, String> {
        let (mut at, mut has_finished) = (0, false);
        let slots = self.slots.lock().clone();
        while let Some((record, length)) = read_record(&stream[at..]).map_err(|_| "a malformed record")? {
            let (slot, engine) = (record.slot, &self.shared.engine);
            at += length;
            if !slots.contains(slot) {
                // It has gone elsewhere meanwhile.
                continue;
            }
            // Held while it is applied: who answers an election is given nothing of an earlier epoch afterwards.
            let mut table = self.shared.copies.lock();
            let step = table.take(slot, self.number, (record.kind, record.position), engine.position(slot));
            let applied = match step.map_err(|unfit| unfit.to_string())? {
                step @ (Step::Apply | Step::Replace) => {
                    if step == Step::Replace {
                        engine.hide_copy(slot);
                    }
                    // None where the effects were of another database: they count all the same.
                    let effects = Some(record.effects).filter(|effects| !effects.is_empty());
                    // The log shows which slots are complete: only those stand at a position.
                    let is_piece = record.kind == RecordKind::Piece;
                    let position = if is_piece { Position::default() } else { record.position };
                    engine.apply(slot, effects.into_iter(), position)
                }
                Step::Stand => {
                    engine.set_position(slot, record.position);
                    engine.show_copy(slot);
                    Ok(())
                }
                Step::Compare { digest } => {
                    let (_, own) = engine.digest(slot);
                    engine.compared.slots.fetch_add(1, Ordering::Relaxed);
                    if own.is_some_and(|own| own != digest) {
                        engine.compared.different.fetch_add(1, Ordering::Relaxed);
                        table.broken(slot);
                        engine.hide_copy(slot);
                        engine.set_position(slot, Position::default());
                        tracing::error!(%slot, of = %self.source, "a copy differs from its primary, it is sent anew");
                        return Err(format!("slot {slot} differs"));
                    }
                    Ok(())
                }
                Step::Nothing => Ok(()),
                Step::Finished => {
                    has_finished = true;
                    Ok(())
                }
            };
            if let Err(error) = applied {
                table.broken(slot);
                engine.set_position(slot, Position::default());
                return Err(format!("an effect on slot {slot} could not be applied: {error}"));
            }
        }
        if has_finished {
            self.shared.finished.notify_one();
        }
        Ok(at)
    }
}

/// Waits until then; `None`: for ever.
pub(in crate::moves) async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// What a former life has left, as far as it is known: nothing changes it until it is sent anew.
type LeftSlots = BTreeMap<Slot, Left>;

/// Asks for a stream that begins with what is here.
async fn begin(
    shared: &Arc<Shared>,
    source: NodeId,
    (number, attempt, version): (u64, u64, u64),
    slots: SlotRanges,
    known: Arc<Mutex<LeftSlots>>,
) -> Result<Vec<u8>, String> {
    let (reader, asked) = (Arc::clone(shared), slots.clone());
    // All keys are read for it: not on the thread of the links.
    let read = tokio::task::spawn_blocking(move || what_is_here(&reader, number, &asked, &mut known.lock())).await;
    let (held, left) = read.map_err(|_| "the digests could not be read")?;
    ask(shared, source, &CopyRequest::Begin { number, attempt, slots, held, left, version }).await
}

/// Where each of the slots stands here, as far as it is complete; and what a former life has left of it.
fn what_is_here(
    shared: &Shared,
    number: u64,
    slots: &SlotRanges,
    known: &mut LeftSlots,
) -> (Vec<Option<Position>>, Vec<Option<Left>>) {
    let one = |slot: Slot| {
        let (is_complete, is_left) = {
            let table = shared.copies.lock();
            (table.is_complete(slot, number), table.is_left(slot, number))
        };
        let left = || {
            *known.entry(slot).or_insert_with(|| {
                let (position, digest) = shared.engine.digest(slot);
                Left { position, digest }
            })
        };
        (is_complete.then(|| shared.engine.position(slot)), is_left.then(left))
    };
    slots.slots().map(one).unzip()
}

/// Waits until the log is on this node's disk as far as here, for so long as makes sense. Whether it is; `None`: nobody asks.
async fn is_kept(shared: &Shared, applied: Option<LogOffset>) -> bool {
    let (log, Some(applied)) = (&shared.engine.log, applied) else { return false };
    log.is_on_disk() && tokio::time::timeout(KEPT_LIMIT, log.until_kept(applied)).await.is_ok()
}

/// Asks the primary of a copy once.
async fn ask(shared: &Shared, source: NodeId, request: &CopyRequest) -> Result<Vec<u8>, String> {
    let topology = Arc::clone(&shared.shown.borrow());
    let node = topology.nodes.get(&source).ok_or("the primary is unknown")?;
    let peer =
        crate::transport::Peer { node: Some(source), address: std::net::SocketAddr::new(node.ip, node.cluster_port) };
    let request = Request::Copy(Blob(encode(request)));
    match shared.transport.request(peer, Purpose::Copies, request, ANSWER_LIMIT).await {
        Ok(Response::Copy(Blob(bytes))) => Ok(bytes),
        Ok(Response::Failed(reason)) => Err(reason),
        Ok(_) => Err("not an answer about copies".into()),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_one_thing_at_a_time_and_begins_again_where_the_stream_broke() {
        let mut core = Following::default();
        let begin = |attempt| vec![Action::Begin { attempt, version: 3 }];
        let next = |attempt| vec![Action::Next { attempt, version: 3 }];
        assert_eq!(core.on(Event::Learned { version: 3, is_ready: false }, 0), begin(0));
        assert_eq!(core.on(Event::Tick, 1), []);
        assert_eq!(core.on(Event::Failed(PullFailure::Lost), 1), []);
        assert_eq!(core.wake_at_us(), Some(1 + RETRY_MIN_US));
        assert_eq!(core.on(Event::Tick, 1 + RETRY_MIN_US), begin(0), "the same is the same question");
        assert_eq!(core.on(Event::Piece { is_complete: false }, 30_000), next(0));
        assert_eq!(core.on(Event::Failed(PullFailure::Broken), 40_000), []);
        assert_eq!(core.on(Event::Tick, 90_000), begin(1));
        let mut actions = next(1);
        actions.push(Action::Propose);
        assert_eq!(core.on(Event::Piece { is_complete: true }, 90_001), actions);
        assert_eq!(core.on(Event::Learned { version: 2, is_ready: true }, 90_002), [], "it is older");
        assert_eq!(core.on(Event::Proposed, 90_003), []);
        assert_eq!(core.on(Event::Tick, 90_003 + RETRY_MAX_US), [Action::Propose], "until the topology shows it");
        core.on(Event::Learned { version: 4, is_ready: true }, 700_000);
        assert_eq!(core.on(Event::Proposed, 700_001), []);
        assert_eq!(core.wake_at_us(), None, "it waits for the answer");
    }
}
