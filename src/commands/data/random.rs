//! Random elements of collections (HRANDFIELD, SRANDMEMBER): how many are asked for, and what that may cost.

use crate::commands::error::CommandError;
use crate::commands::parse;
use crate::commands::spec::CommandResult;
use crate::engine::Keyspace;
use crate::resp::reply::ReplyWriter;
use crate::values::hashing::mix;

/// Redis's answer to a count that it cannot double, and ours to one that nobody can want.
pub const TOO_MANY: CommandError = CommandError::text("ERR value is out of range");

/// Draws with repetition of one command, at most: they are made under a lock, and their reply is built in memory. Redis
/// goes on until the client's output has reached its limit.
const DRAWS_MAX: u64 = 1 << 24;
/// Bytes of their reply, at most: as many as one string may have.
const REPLY_BYTES_MAX: usize = 512 * 1024 * 1024;
/// A packed collection is read once for so many draws.
const DRAWS_AT_ONCE: u64 = 1 << 16;

/// How many elements are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Different ones, or all.
    Different(usize),
    /// Each drawn from all: a negative count.
    Repeated(u64),
}

impl Wish {
    /// Reads the count of a command.
    ///
    /// # Errors
    /// Redis's own for what is no number, and for the one that has no opposite.
    pub fn parse(argument: &[u8]) -> Result<Wish, CommandError> {
        match parse::integer(argument)? {
            i64::MIN => Err(CommandError::text(
                "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
            )),
            count @ ..0 => Ok(Wish::Repeated(count.unsigned_abs())),
            count => Ok(Wish::Different(usize::try_from(count).unwrap_or(usize::MAX))),
        }
    }

    /// The count without its sign.
    pub fn count(self) -> u64 {
        match self {
            Wish::Different(count) => count as u64,
            Wish::Repeated(count) => count,
        }
    }
}

/// Random numbers for one command, which borrow nothing.
pub fn numbers(keyspace: &mut Keyspace<'_>) -> impl FnMut() -> u64 + use<> {
    let mut seed = keyspace.random();
    move || {
        seed = seed.wrapping_add(1);
        mix(seed)
    }
}

/// A reply to draws with repetition, which takes no more when it is full.
pub struct Drawn<'r, 'b> {
    reply: &'r mut ReplyWriter<'b>,
    end: usize,
}

impl Drawn<'_, '_> {
    /// Writes one element, while there is room.
    pub fn write(&mut self, write: impl FnOnce(&mut ReplyWriter<'_>)) {
        if self.reply.len() < self.end {
            write(self.reply);
        }
    }
}

/// Has so many elements drawn and written behind the header of the reply. `draw` is told how many at a time.
///
/// # Errors
/// Where they are too many, or too large together: nothing that was written is sent then.
pub fn draw_repeated(
    count: u64,
    reply: &mut ReplyWriter<'_>,
    mut draw: impl FnMut(usize, &mut Drawn<'_, '_>),
) -> CommandResult {
    if count > DRAWS_MAX {
        return Err(TOO_MANY);
    }
    let end = reply.len().saturating_add(REPLY_BYTES_MAX);
    let mut drawn = Drawn { reply, end };
    let mut left = count;
    while left > 0 {
        let now = left.min(DRAWS_AT_ONCE);
        left -= now;
        draw(now as usize, &mut drawn);
        if drawn.reply.len() >= end {
            return Err(TOO_MANY);
        }
    }
    Ok(())
}
