//! Commands that wait until a key has what they ask for: the first of their keys that has it serves them, now or when
//! it changes.

use crate::base::slot::Slot;
use crate::commands::error::CommandError;
use crate::commands::spec::CommandResult;
use crate::engine::entry::Kind;
use crate::engine::waiters::Waiter;
use crate::engine::{Keyspace, Wanted};
use crate::resp::reply::{Protocol, ReplyWriter};

/// How a command waits.
#[derive(Clone, Copy)]
pub struct Patience {
    /// When it gives up, in Unix milliseconds; `None`: never.
    pub until_ms: Option<u64>,
    /// When it looks again by itself, in Unix milliseconds.
    pub again_ms: Option<u64>,
    /// What a key must hold to serve it, once it waits; `None`: `serve` looks for itself.
    pub kind: Option<Kind>,
    /// A slot that serving it needs besides that of the key.
    pub also: Option<Slot>,
    /// Its reply when it gives up.
    pub given_up: fn(&mut ReplyWriter<'_>),
    /// Its reply at once in a transaction, where nothing waits.
    pub without_waiting: fn(&mut ReplyWriter<'_>),
}

impl Patience {
    /// Until then, for a key of this kind, and a null array if nothing comes.
    pub fn until(until_ms: Option<u64>, kind: Kind) -> Patience {
        let nothing: fn(&mut ReplyWriter<'_>) = |reply| reply.null_array();
        let (kind, again_ms, also) = (Some(kind), None, None);
        Patience { until_ms, again_ms, kind, also, given_up: nothing, without_waiting: nothing }
    }
}

/// Serves a command by the first of its keys that has what it wants, or lets it wait. `serve` writes the reply and
/// returns true, or has found nothing, and has written and changed nothing.
///
/// # Errors
/// What `serve` says of the keys as they are now. While the command waits a key of another kind is passed over, and an
/// error is its reply.
pub fn serve_or_wait<'a>(
    keyspace: &mut Keyspace<'_>,
    keys: impl Iterator<Item = &'a [u8]> + Clone,
    patience: Patience,
    reply: &mut ReplyWriter<'_>,
    serve: impl Fn(&mut Keyspace<'_>, &[u8], &mut ReplyWriter<'_>) -> Result<bool, CommandError> + Send + Sync + 'static,
) -> CommandResult {
    for key in keys.clone() {
        if serve(keyspace, key, reply)? {
            return Ok(());
        }
    }
    let protocol = reply.protocol();
    let serve = move |keyspace: &mut Keyspace<'_>, key: &[u8]| {
        let kind = keyspace.peek(key).map(|entry| entry.kind());
        if patience.kind.is_some() && patience.kind != kind {
            return None;
        }
        let mut bytes = Vec::new();
        let mut reply = ReplyWriter::new(&mut bytes, protocol);
        match serve(keyspace, key, &mut reply) {
            Ok(true) => {}
            Ok(false) => return None,
            Err(error) => {
                reply.truncate(0);
                error.write(&mut reply);
            }
        }
        Some(bytes)
    };
    let waiter = Waiter::new(keyspace.database(), keys, patience.also, Box::new(serve));
    let given_up = reply_of(protocol, patience.given_up);
    let without_waiting = reply_of(protocol, patience.without_waiting);
    let Patience { until_ms, again_ms, .. } = patience;
    keyspace.want(Wanted { waiter, until_ms, again_ms, given_up, without_waiting });
    Ok(())
}

fn reply_of(protocol: Protocol, write: fn(&mut ReplyWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut ReplyWriter::new(&mut bytes, protocol));
    bytes
}
