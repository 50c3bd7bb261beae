//! The order of one client's requests.
//!
//! Requests for one slot go to one node over one link, so they are executed in the order in which they were sent, as
//! long as nothing changes. When something does (a newer view, a redirection, a broken link), the requests under way may
//! have to be sent again: until the last of them is answered, the client's next ones wait.

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

/// What one client has under way.
pub struct Lane {
    under_way: Cell<usize>,
    /// Of the view by which the requests under way were sent.
    version: Cell<u64>,
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
            version: Cell::new(0),
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
    /// Whether the next request must wait for those under way, when it would go by the view of this version.
    pub fn must_wait(&self, version: u64) -> bool {
        let under_way = self.under_way.get();
        under_way > 0
            && (self.disturbed.get()
                || self.closed.get()
                || self.version.get() != version
                || under_way >= self.window())
    }

    /// Whether anything is under way.
    pub fn is_busy(&self) -> bool {
        self.under_way.get() > 0
    }

    /// Ends when nothing is under way.
    pub fn until_idle(self: &Rc<Lane>) -> impl Future<Output = ()> + 'static {
        // No view has this version.
        self.until_free(u64::MAX)
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

    /// Enters a request that is sent by the view of this version.
    pub fn enter(self: &Rc<Lane>, version: u64) -> Ticket {
        self.under_way.set(self.under_way.get() + 1);
        self.version.set(version);
        self.submitted.set(self.submitted.get() + 1);
        Ticket { lane: Rc::clone(self), number: self.submitted.get() }
    }

    /// Ends when fewer requests are under way than now may be; where their order matters, when none is.
    pub fn until_free(self: &Rc<Lane>, version: u64) -> impl Future<Output = ()> + 'static {
        let lane = Rc::clone(self);
        poll_fn(move |context| {
            if !lane.must_wait(version) {
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

    #[test]
    fn requests_of_one_view_need_not_wait_for_each_other() {
        let lane = Rc::new(Lane::default());
        assert!(!lane.must_wait(1));
        let first = lane.enter(1);
        assert!(!lane.must_wait(1), "the same view");
        assert!(lane.must_wait(2), "a newer view may send it elsewhere");
        let second = lane.enter(1);
        assert!(second.is_last() && !first.is_last());
        assert!(second.another().is_last());
        drop(first);
        assert!(lane.must_wait(2));
        drop(second);
        assert!(!lane.must_wait(2), "nothing is under way any more");
    }

    #[test]
    fn a_disturbed_or_closed_lane_is_emptied_first() {
        let lane = Rc::new(Lane::default());
        for trouble in [Lane::disturb as fn(&Lane), Lane::close] {
            let ticket = lane.enter(1);
            trouble(&lane);
            assert!(lane.must_wait(1));
            drop(ticket);
            assert!(!lane.must_wait(1));
        }
    }

    #[test]
    fn large_replies_narrow_the_window() {
        let lane = Rc::new(Lane::default());
        let mut tickets: Vec<Ticket> = (0..REPLY_BYTES_MAX / REPLY_BYTES_FIRST).map(|_| lane.enter(1)).collect();
        assert!(lane.must_wait(1), "nothing is known of its replies");
        (0..100).for_each(|_| lane.note_reply(10));
        tickets.extend((tickets.len()..WINDOW_MAX - 1).map(|_| lane.enter(1)));
        assert!(!lane.must_wait(1));
        tickets.push(lane.enter(1));
        assert!(lane.must_wait(1));
        tickets.truncate(10);
        lane.note_reply(1024 * 1024);
        assert!(!lane.must_wait(1));
        tickets.extend((0..6).map(|_| lane.enter(1)));
        assert!(lane.must_wait(1), "16 replies of 1 MiB may be under way");
    }
}
