//! The order of one client's requests.
//!
//! Requests for one slot go to one node over one link, so they are executed in the order in which they were sent, as
//! long as nothing changes. When something does (a newer view, another protocol, a redirection, a broken link), the
//! requests under way may have to be sent again, or the next would go by another link: until the last of them is
//! answered, the client's next ones wait.

use crate::resp::reply::Protocol;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

/// Requests that one client may have under way.
const WINDOW_MAX: usize = 512;
/// Requests that it may have under way, however large their replies are.
const WINDOW_MIN: usize = 8;
/// Bytes of replies that may be on their way to one client, judged by those before.
const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a reply is taken for before one has come.
const REPLY_BYTES_FIRST: usize = 128 * 1024;

/// All that decides by which link a request for a slot goes. Requests of the same way for the same slot keep their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Of the view.
    pub version: u64,
    /// There are links for each.
    pub protocol: Protocol,
    /// How often links were replaced while they were in use.
    pub links: u64,
}

/// What one client has under way.
pub struct Lane {
    under_way: Cell<usize>,
    /// That of the requests under way.
    way: Cell<Option<Way>>,
    /// One of them may have to be sent again.
    disturbed: Cell<bool>,
    /// The next request needs the answer to all before it.
    closed: Cell<bool>,
    /// One of them may never be answered.
    blocks: Cell<bool>,
    submitted: Cell<u64>,
    /// How large the next reply may be: it follows large ones at once and small ones slowly.
    expected_reply: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

impl Default for Lane {
    fn default() -> Lane {
        Lane {
            under_way: Cell::new(0),
            way: Cell::new(None),
            disturbed: Cell::new(false),
            closed: Cell::new(false),
            blocks: Cell::new(false),
            submitted: Cell::new(0),
            expected_reply: Cell::new(REPLY_BYTES_FIRST),
            waiting: RefCell::new(None),
        }
    }
}

impl Lane {
    /// Whether the next request must wait for those under way, when it would go this way.
    pub fn must_wait(&self, way: Way) -> bool {
        let under_way = self.under_way.get();
        under_way > 0
            && (self.disturbed.get() || self.closed.get() || self.way.get() != Some(way) || under_way >= self.window())
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.get() > 0
    }

    /// Ends when nothing is under way.
    pub fn until_idle(self: &Rc<Lane>) -> impl Future<Output = ()> + 'static {
        self.until(|lane| !lane.is_busy())
    }

    /// Says that a request under way may have to be sent again.
    pub fn disturb(&self) {
        if self.under_way.get() > 0 {
            self.disturbed.set(true);
        }
    }

    /// Makes the next request wait for everything under way.
    pub fn close(&self) {
        self.closed.set(true);
    }

    /// Says that what is under way may never be answered, and makes the next request wait for it.
    pub fn block(&self) {
        self.blocks.set(true);
        self.close();
    }

    /// Whether something is under way and will be answered soon.
    pub fn is_answering(&self) -> bool {
        self.is_busy() && !self.blocks.get()
    }

    /// Notes the size of a reply: with large ones, fewer requests may be under way.
    pub fn note_reply(&self, bytes: usize) {
        let expected = self.expected_reply.get();
        self.expected_reply.set(bytes.max(expected - expected / 8));
    }

    /// Enters a request that goes this way.
    pub fn enter(self: &Rc<Lane>, way: Way) -> Ticket {
        self.under_way.set(self.under_way.get() + 1);
        self.way.set(Some(way));
        self.submitted.set(self.submitted.get() + 1);
        Ticket { lane: Rc::clone(self), number: self.submitted.get() }
    }

    /// Ends when fewer requests are under way than now may be; where their order matters, when none is.
    pub fn until_free(self: &Rc<Lane>, way: Way) -> impl Future<Output = ()> + 'static {
        self.until(move |lane| !lane.must_wait(way))
    }

    /// Ends when this is so.
    fn until(self: &Rc<Lane>, is_so: impl Fn(&Lane) -> bool + 'static) -> impl Future<Output = ()> + 'static {
        let lane = Rc::clone(self);
        poll_fn(move |context| {
            if is_so(&lane) {
                return Poll::Ready(());
            }
            *lane.waiting.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
    }

    fn window(&self) -> usize {
        (REPLY_BYTES_MAX / self.expected_reply.get().max(1)).clamp(WINDOW_MIN, WINDOW_MAX)
    }
}

/// A request under way; it is over when this is dropped.
pub struct Ticket {
    lane: Rc<Lane>,
    number: u64,
}

impl Ticket {
    pub fn lane(&self) -> &Rc<Lane> {
        &self.lane
    }

    /// For another part of the same request.
    pub fn another(&self) -> Ticket {
        self.lane.under_way.set(self.lane.under_way.get() + 1);
        Ticket { lane: Rc::clone(&self.lane), number: self.number }
    }

    /// Whether nothing was sent behind it: only then may it be sent again without losing its place.
    pub fn is_last(&self) -> bool {
        self.lane.submitted.get() == self.number
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let left = self.lane.under_way.get() - 1;
        self.lane.under_way.set(left);
        if left == 0 {
            self.lane.disturbed.set(false);
            self.lane.closed.set(false);
            self.lane.blocks.set(false);
        }
        if let Some(waker) = self.lane.waiting.borrow_mut().take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(version: u64) -> Way {
        Way { version, protocol: Protocol::Resp2, links: 0 }
    }

    #[test]
    fn requests_of_one_view_need_not_wait_for_each_other() {
        let lane = Rc::new(Lane::default());
        assert!(!lane.must_wait(by(1)));
        let first = lane.enter(by(1));
        assert!(!lane.must_wait(by(1)), "the same view");
        assert!(lane.must_wait(by(2)), "a newer view may send it elsewhere");
        for other in [Way { protocol: Protocol::Resp3, ..by(1) }, Way { links: 1, ..by(1) }] {
            assert!(lane.must_wait(other), "it would go by another link");
        }
        let second = lane.enter(by(1));
        assert!(second.is_last() && !first.is_last());
        assert!(second.another().is_last());
        drop(first);
        assert!(lane.must_wait(by(2)));
        drop(second);
        assert!(!lane.must_wait(by(2)), "nothing is under way any more");
    }

    #[test]
    fn a_disturbed_or_closed_lane_is_emptied_first() {
        let lane = Rc::new(Lane::default());
        for trouble in [Lane::disturb as fn(&Lane), Lane::close] {
            let ticket = lane.enter(by(1));
            trouble(&lane);
            assert!(lane.must_wait(by(1)));
            drop(ticket);
            assert!(!lane.must_wait(by(1)));
        }
    }

    #[test]
    fn large_replies_narrow_the_window() {
        let lane = Rc::new(Lane::default());
        let mut tickets: Vec<Ticket> = (0..REPLY_BYTES_MAX / REPLY_BYTES_FIRST).map(|_| lane.enter(by(1))).collect();
        assert!(lane.must_wait(by(1)), "nothing is known of its replies");
        (0..100).for_each(|_| lane.note_reply(10));
        tickets.extend((tickets.len()..WINDOW_MAX - 1).map(|_| lane.enter(by(1))));
        assert!(!lane.must_wait(by(1)));
        tickets.push(lane.enter(by(1)));
        assert!(lane.must_wait(by(1)));
        tickets.truncate(10);
        lane.note_reply(1024 * 1024);
        assert!(!lane.must_wait(by(1)));
        tickets.extend((0..6).map(|_| lane.enter(by(1))));
        assert!(lane.must_wait(by(1)), "16 replies of 1 MiB may be under way");
    }
}
