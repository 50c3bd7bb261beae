use super::*;

const BEGUN: u64 = 7;

fn learned(version: u64, stage: Stage) -> Event {
    Event::Learned { version, stage: Some(stage) }
}

fn piece(is_copied: bool, is_stopped: bool) -> Event {
    Event::Piece { is_empty: is_copied, is_copied, is_stopped }
}

/// A move and its time.
struct Target {
    coming: Coming,
    now_us: u64,
}

impl Target {
    fn new() -> Target {
        let mut target = Target { coming: Coming::new(BEGUN), now_us: 0 };
        let actions = target.on(learned(BEGUN, Stage::Copying));
        assert_eq!(actions, [Action::Clear, Action::Ask { is_begin: true, attempt: 1, version: BEGUN }]);
        target
    }

    fn on(&mut self, event: Event) -> Vec<Action> {
        self.coming.on(event, self.now_us)
    }

    /// Waits until it wants to do something, and does it.
    fn wake(&mut self) -> Vec<Action> {
        self.now_us = self.coming.wake_at_us().expect("it waits for a time");
        self.on(Event::Tick)
    }

    /// Everything has come, and Handoff has been proposed.
    fn with_everything() -> Target {
        let mut target = Target::new();
        assert_eq!(target.on(piece(true, false)), [Action::Propose(Step::CopyReady)]);
        let begin = target.on(Event::Proposed(Step::CopyReady, Outcome::Done { version: 8 }));
        assert_eq!(begin, [Action::Propose(Step::BeginHandoff)]);
        target.on(Event::Proposed(Step::BeginHandoff, Outcome::Done { version: 9 }));
        assert_eq!(target.wake(), [Action::Ask { is_begin: false, attempt: 1, version: 9 }]);
        assert_eq!(target.on(piece(true, true)), [Action::Complete]);
        assert_eq!(target.on(learned(9, Stage::HandingOff)), [], "not before the log has everything");
        assert_eq!(target.coming.wake_at_us(), None);
        assert_eq!(target.on(Event::Kept), [Action::Propose(Step::Handoff)]);
        target
    }
}

/// A source that stands still, and a proposal that was agreed, tell that the hand-off begins; but requests do not wait here before
/// the topology has shown it, and would be sent back to the source.
#[test]
fn a_hand_off_is_proposed_only_where_its_beginning_was_learned() {
    let mut target = Target::new();
    target.on(piece(true, false));
    target.on(Event::Proposed(Step::CopyReady, Outcome::Done { version: 8 }));
    target.on(Event::Proposed(Step::BeginHandoff, Outcome::Done { version: 9 }));
    target.wake();
    assert_eq!(target.on(piece(true, true)), [Action::Complete]);
    assert_eq!(target.on(Event::Kept), []);
    assert_eq!(target.on(learned(8, Stage::Ready)), []);
    assert_eq!(target.coming.wake_at_us(), None);
    assert_eq!(target.on(learned(9, Stage::HandingOff)), [Action::Propose(Step::Handoff)]);
}

#[test]
fn once_a_hand_off_was_proposed_nothing_that_arrived_is_touched() {
    let mut target = Target::with_everything();
    let events = [
        Event::Proposed(Step::Handoff, Outcome::Unknown),
        Event::PullFailed(PullFailure::Broken),
        Event::PullFailed(PullFailure::Lost),
        piece(false, false),
        learned(9, Stage::HandingOff),
        Event::Proposed(Step::BeginHandoff, Outcome::Refused { version: 9 }),
        Event::Proposed(Step::CopyReady, Outcome::Unknown),
        Event::Tick,
    ];
    for round in 0..1000 {
        target.now_us += 777_777;
        for action in target.on(events[(round * 5 + round / 7) % events.len()]) {
            assert_eq!(action, Action::Propose(Step::Handoff), "the same again, and nothing else");
        }
    }
    // It was committed all the time.
    assert_eq!(target.on(learned(10, Stage::Releasing)), [Action::Tell { version: 10 }, Action::End]);
}

#[test]
fn a_hand_off_that_was_refused_is_decided_by_the_version_that_refused_it() {
    let mut target = Target::with_everything();
    assert_eq!(target.on(Event::Proposed(Step::Handoff, Outcome::Refused { version: 20 })), []);
    target.now_us += 10 * RETRY_MAX_US;
    assert_eq!(target.on(learned(19, Stage::HandingOff)), [], "not before that version is known");
    assert_eq!(target.coming.wake_at_us(), None);
    assert_eq!(target.on(Event::Learned { version: 20, stage: None }), [Action::End]);
    assert_eq!(target.on(Event::Proposed(Step::Handoff, Outcome::Done { version: 21 })), [], "it is over");
}

#[test]
fn while_a_step_is_unknown_the_stream_goes_on() {
    for step in [Step::CopyReady, Step::BeginHandoff] {
        let mut target = Target::new();
        target.on(piece(true, false));
        if step == Step::BeginHandoff {
            target.on(Event::Proposed(Step::CopyReady, Outcome::Done { version: 8 }));
        }
        target.on(Event::Proposed(step, Outcome::Unknown));
        let (mut asked, mut proposed) = (0, 0);
        for _ in 0..500 {
            for action in target.wake() {
                match action {
                    Action::Ask { is_begin: false, attempt: 1, .. } => {
                        asked += 1;
                        target.on(piece(true, false));
                    }
                    Action::Propose(again) if again == step => {
                        proposed += 1;
                        target.on(Event::Proposed(step, Outcome::Unknown));
                    }
                    other => panic!("{step:?} is unknown, and it does {other:?}"),
                }
            }
        }
        assert!(asked > 100 && proposed > 3, "{asked} questions, {proposed} proposals");
        let next = if step == Step::CopyReady { Stage::Ready } else { Stage::HandingOff };
        target.now_us += RETRY_MAX_US;
        let actions = target.on(learned(50, next));
        assert!(!actions.contains(&Action::Propose(step)), "the topology shows that it was done");
    }
}

#[test]
fn a_question_without_an_answer_is_asked_again_and_a_broken_stream_begins_again() {
    let mut target = Target::new();
    target.on(piece(false, false));
    target.on(Event::PullFailed(PullFailure::Lost));
    assert_eq!(target.wake(), [Action::Ask { is_begin: false, attempt: 1, version: BEGUN }]);
    assert_eq!(target.on(Event::PullFailed(PullFailure::Broken)), [Action::Clear]);
    assert_eq!(target.wake(), [Action::Ask { is_begin: true, attempt: 2, version: BEGUN }]);
    target.on(Event::PullFailed(PullFailure::NotYet));
    assert_eq!(target.wake(), [Action::Ask { is_begin: true, attempt: 2, version: BEGUN }]);
    // A copy that begins again counts from nothing.
    target.on(learned(30, Stage::Ready));
    assert_eq!(target.on(piece(false, false)).len(), 1, "it goes on asking: it does not have everything");
}

#[test]
fn pauses_grow_and_are_bounded() {
    let mut target = Target::new();
    let mut pauses = Vec::new();
    for _ in 0..30 {
        target.on(Event::PullFailed(PullFailure::Lost));
        let before_us = target.now_us;
        target.wake();
        pauses.push(target.now_us - before_us);
    }
    assert_eq!(pauses[..3], [RETRY_MIN_US, 2 * RETRY_MIN_US, 4 * RETRY_MIN_US]);
    assert_eq!(pauses[29], RETRY_MAX_US);
}
