//! The target's part of one move, decided without a network, a clock or the keys.
//!
//! ```text
//!   known stage   of the stream     proposes
//!   Copying       copied            CopyReady
//!   Ready         copied            BeginHandoff
//!   HandingOff    stopped           (it is complete: nothing that arrived is touched from here on)
//!   HandingOff    complete, kept    Handoff (learned, not only heard)
//!   Releasing                       (it is done: tell the source)
//!   none          whatever          (it is off, or was done: whoever follows the topology drops what did not come)
//! ```
//!
//! The stage that is known is the farthest one that was learned, that a proposal came to, or that the source told by
//! ending its stream. Handoff is proposed only where HandingOff was learned: requests wait here from then on, so that the source,
//! which answers MOVED as soon as it learns the hand-off, sends no client to a node that would send it back. A proposal whose outcome is unknown may be committed at any later time, so it means nothing: the
//! same is proposed again, each step is refused where it was done already, and meanwhile the stream goes on, because the
//! source's writers wait while nobody takes their effects. Only the topology ends a move. A node with a log proposes Handoff
//! when that has everything: where it ends before it learns of the outcome it comes back with what is its own.

use crate::cluster::duties::Stage;

/// Before asking again where there was nothing new: while the slots stand still, and before.
const IDLE_FROZEN_US: u64 = 1_000;
const IDLE_US: u64 = 3_000;
/// Before trying again what failed: doubled with every failure in a row, up to the last.
const RETRY_MIN_US: u64 = 20_000;
const RETRY_MAX_US: u64 = 1_000_000;

/// What the target has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The topology of this version is known here, and where it has the move; `None`: nowhere any more.
    Learned { version: u64, stage: Option<Stage> },
    /// A piece came, and was applied.
    Piece { is_empty: bool, is_copied: bool, is_stopped: bool },
    /// The question brought no piece.
    PullFailed(PullFailure),
    /// This node's log has everything, where it keeps one.
    Kept,
    /// What a proposal came to.
    Proposed(Step, Outcome),
    /// Time has passed.
    Tick,
}

/// Why there was no piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullFailure {
    /// The source does not know the move yet.
    NotYet,
    /// No answer: the same question is answered by the same piece.
    Lost,
    /// The stream cannot go on.
    Broken,
}

/// What the target of a move proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    CopyReady,
    BeginHandoff,
    Handoff,
}

/// What a proposal came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is in the topology of this version.
    Done { version: u64 },
    /// It did nothing there: that version shows why.
    Refused { version: u64 },
    /// It may have been committed, or be committed later, or never.
    Unknown,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Drop what is here of the slots, and of the stream.
    Clear,
    /// Ask for the first piece of an attempt, or for the next one. The source must have seen this version.
    Ask {
        is_begin: bool,
        attempt: u64,
        version: u64,
    },
    /// Everything is here: the slots may be served as soon as the topology says so. To be kept, and told so, before that is
    /// proposed: the source drops its own then.
    Complete,
    Propose(Step),
    /// The source should look at this version at once.
    Tell {
        version: u64,
    },
    /// The move is over.
    End,
}

/// The target's part of one move.
#[derive(Clone, Debug)]
pub struct Coming {
    stage: Stage,
    /// The farthest stage that the topology has shown here, and its newest version.
    shown: Stage,
    learned: u64,
    /// Nothing is proposed before this version is known here: it shows what became of a step.
    awaited: u64,
    /// What the source must have seen.
    version: u64,
    pull: Pull,
    proposing: Option<Step>,
    propose_at_us: u64,
    /// Proposals without effect, in a row.
    failures: u32,
    /// Everything is here.
    is_complete: bool,
    /// It is in the log too: Handoff may be proposed.
    is_kept: bool,
    is_told: bool,
    is_over: bool,
}

/// The stream, as far as it has come.
#[derive(Clone, Copy, Debug, Default)]
struct Pull {
    /// Counted from 1; 0: nothing has begun.
    attempt: u64,
    is_begun: bool,
    is_asking: bool,
    is_copied: bool,
    is_stopped: bool,
    at_us: u64,
    /// Questions without a piece, in a row.
    failures: u32,
}

impl Coming {
    /// The move of this number, of which nothing is known but that it has begun.
    pub fn new(begun: u64) -> Coming {
        Coming {
            stage: Stage::Copying,
            shown: Stage::Copying,
            learned: 0,
            awaited: 0,
            version: begun,
            pull: Pull::default(),
            proposing: None,
            propose_at_us: 0,
            failures: 0,
            is_complete: false,
            is_kept: false,
            is_told: false,
            is_over: false,
        }
    }

    /// What follows from an event at this time, in this order.
    pub fn on(&mut self, event: Event, now_us: u64) -> Vec<Action> {
        let mut actions = Vec::new();
        if self.is_over {
            return actions;
        }
        match event {
            Event::Learned { version, stage } => self.learn(version, stage, &mut actions),
            Event::Piece { is_empty, is_copied, is_stopped } if self.pull.is_asking => {
                let pull = &mut self.pull;
                pull.is_asking = false;
                pull.is_begun = true;
                pull.failures = 0;
                pull.is_copied |= is_copied;
                pull.is_stopped = is_stopped;
                if is_stopped {
                    self.stage = self.stage.max(Stage::HandingOff);
                }
                let idle_us = if self.stage == Stage::HandingOff { IDLE_FROZEN_US } else { IDLE_US };
                pull.at_us = if is_empty { now_us + idle_us } else { now_us };
            }
            Event::PullFailed(failure) if self.pull.is_asking => self.pull_failed(failure, now_us, &mut actions),
            Event::Kept => self.is_kept = self.is_complete,
            Event::Proposed(step, outcome) => self.proposed(step, outcome, now_us, &mut actions),
            Event::Piece { .. } | Event::PullFailed(_) | Event::Tick => {}
        }
        if !self.is_over {
            self.go_on(now_us, &mut actions);
        }
        actions
    }

    /// When it wants to be told the time, if nothing else happens.
    pub fn wake_at_us(&self) -> Option<u64> {
        let ask = self.may_ask().then_some(self.pull.at_us);
        let propose = self.step().map(|_| self.propose_at_us);
        ask.into_iter().chain(propose).min().filter(|_| !self.is_over)
    }

    fn learn(&mut self, version: u64, stage: Option<Stage>, actions: &mut Vec<Action>) {
        if version < self.learned {
            return;
        }
        self.learned = version;
        match stage {
            Some(Stage::Releasing) => {
                self.tell(version, actions);
                self.end(actions);
            }
            Some(stage) => {
                self.stage = self.stage.max(stage);
                self.shown = self.shown.max(stage);
            }
            None => self.end(actions),
        }
    }

    fn end(&mut self, actions: &mut Vec<Action>) {
        self.is_over = true;
        actions.push(Action::End);
    }

    /// The source answers MOVED as soon as it knows; by itself it would know a little later.
    fn tell(&mut self, version: u64, actions: &mut Vec<Action>) {
        if !std::mem::replace(&mut self.is_told, true) {
            actions.push(Action::Tell { version });
        }
    }

    fn pull_failed(&mut self, failure: PullFailure, now_us: u64, actions: &mut Vec<Action>) {
        self.pull.is_asking = false;
        self.pull.at_us = now_us + pause_us(self.pull.failures);
        self.pull.failures += 1;
        if failure == PullFailure::Broken {
            // Only before it is complete: nothing is asked afterwards.
            self.begin_attempt(actions);
        }
    }

    fn begin_attempt(&mut self, actions: &mut Vec<Action>) {
        let Pull { attempt, at_us, failures, .. } = self.pull;
        self.pull = Pull { attempt: attempt + 1, at_us, failures, ..Pull::default() };
        actions.push(Action::Clear);
    }

    fn proposed(&mut self, step: Step, outcome: Outcome, now_us: u64, actions: &mut Vec<Action>) {
        let is_under_way = self.proposing == Some(step);
        if is_under_way {
            self.proposing = None;
        }
        match outcome {
            Outcome::Done { version } => {
                self.failures = 0;
                self.propose_at_us = now_us;
                self.version = self.version.max(version);
                match step {
                    Step::CopyReady => self.stage = self.stage.max(Stage::Ready),
                    Step::BeginHandoff => self.stage = self.stage.max(Stage::HandingOff),
                    Step::Handoff => {
                        self.awaited = self.awaited.max(version);
                        self.tell(version, actions);
                    }
                }
            }
            // Mostly because it was done already, by a proposal that was given up; or the move is off.
            Outcome::Refused { version } => {
                self.awaited = self.awaited.max(version);
                self.pause(now_us);
            }
            // CopyReady, BeginHandoff: the stream goes on. Handoff: everything stays as it is. The same again, until the
            // topology shows what became of it; the raft leader calls a hand-off off that takes too long.
            Outcome::Unknown if is_under_way => self.pause(now_us),
            // The topology has shown it meanwhile.
            Outcome::Unknown => {}
        }
    }

    fn pause(&mut self, now_us: u64) {
        self.propose_at_us = now_us + pause_us(self.failures);
        self.failures += 1;
    }

    /// Asks and proposes what is due.
    fn go_on(&mut self, now_us: u64, actions: &mut Vec<Action>) {
        if self.pull.attempt == 0 {
            // What an earlier move of these slots may have left.
            self.begin_attempt(actions);
        }
        if self.stage == Stage::HandingOff && self.pull.is_stopped && !std::mem::replace(&mut self.is_complete, true) {
            actions.push(Action::Complete);
        }
        if let Some(step) = self.step().filter(|_| now_us >= self.propose_at_us) {
            self.proposing = Some(step);
            actions.push(Action::Propose(step));
        }
        if self.may_ask() && now_us >= self.pull.at_us {
            self.pull.is_asking = true;
            let Pull { attempt, is_begun, .. } = self.pull;
            actions.push(Action::Ask { is_begin: !is_begun, attempt, version: self.version });
        }
    }

    fn may_ask(&self) -> bool {
        !self.pull.is_asking && !self.pull.is_stopped && !self.is_complete
    }

    /// What is to be proposed next, where it is not under way already.
    fn step(&self) -> Option<Step> {
        let is_copied = self.pull.is_copied;
        let step = match self.stage {
            Stage::Copying if is_copied => Step::CopyReady,
            Stage::Ready if is_copied => Step::BeginHandoff,
            Stage::HandingOff if self.is_kept && self.shown == Stage::HandingOff => Step::Handoff,
            _ => return None,
        };
        (self.learned >= self.awaited && self.proposing != Some(step)).then_some(step)
    }
}

/// How long to wait after so many failures before this one.
fn pause_us(failures: u32) -> u64 {
    (RETRY_MIN_US << failures.min(10)).min(RETRY_MAX_US)
}

#[cfg(test)]
mod tests;
