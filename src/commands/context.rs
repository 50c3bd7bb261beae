//! What a control handler sees: its session, the node's services, and what shall happen next.

use super::session::{ReplyMode, Session};
use super::spec::PUSHES;
use super::table::Command;
use crate::resp::reply::ReplyWriter;
use crate::services::Services;
use std::pin::Pin;
use std::sync::Arc;

/// Something the connection has to wait for.
pub type Wait = Pin<Box<dyn Future<Output = ()>>>;
/// A reply that comes later.
pub type LaterReply = Pin<Box<dyn Future<Output = Vec<u8>>>>;

/// What happens after a command.
#[derive(Default)]
pub enum Flow {
    /// The next one.
    #[default]
    Continue,
    /// Nothing more: the connection closes when its replies are sent.
    Close,
    /// Nothing more, and replies that wait are not sent either.
    Abort,
    /// The next one when this is over.
    After(Wait),
    /// Its reply comes later; the connection goes on meanwhile, and keeps the order of replies.
    Later(LaterReply),
    /// Its reply comes later, and nothing more is executed before.
    Alone(LaterReply),
    /// The same command again when this is over: it was not executed.
    Retry(Wait),
}

impl std::fmt::Debug for Flow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Flow::Continue => "Continue",
            Flow::Close => "Close",
            Flow::Abort => "Abort",
            Flow::After(_) => "After",
            Flow::Later(_) => "Later",
            Flow::Alone(_) => "Alone",
            Flow::Retry(_) => "Retry",
        })
    }
}

/// The context of one control command.
pub struct Control<'a> {
    pub session: &'a mut Session,
    pub services: &'a Arc<Services>,
    /// The command that is executed; of a subcommand, the subcommand.
    pub command: &'static Command,
    /// Unix milliseconds.
    pub now_ms: u64,
    pub flow: Flow,
    /// Inside EXEC: replies are written in order, and nothing may wait.
    pub in_transaction: bool,
}

impl Control<'_> {
    /// Writes the messages that have come for this client, so that they stand before the reply that is written next, and
    /// before the reply of EXEC as a whole: between its elements there is no place for a message.
    pub fn deliver(&mut self, reply: &mut ReplyWriter<'_>) {
        if !self.in_transaction {
            let before = reply.len();
            self.deliver_before(before, reply);
        }
    }

    /// Writes them where the reply had this length.
    pub fn deliver_before(&mut self, mut at: usize, reply: &mut ReplyWriter<'_>) {
        // A silenced reply takes with it what stands before it; then the messages go by themselves.
        if self.session.reply_mode != ReplyMode::On && !self.command.spec.has(PUSHES) {
            return;
        }
        for message in self.session.client.inbox.take_pushes() {
            reply.insert(at, &message);
            at += message.len();
        }
    }
}
