//! What a client did wrong, or ran into, in Redis's words.

use crate::engine::WrongKind;
use crate::resp::reply::ReplyWriter;
use std::borrow::Cow;
use std::fmt;

/// An error reply. Nothing was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The key holds another kind of value.
    WrongType,
    Syntax,
    NotAnInteger,
    NotAFloat,
    OutOfRange,
    NoSuchKey,
    WrongArity(Cow<'static, str>),
    /// The whole text, its code in front.
    Text(Cow<'static, str>),
    /// The same, with bytes of the client's in it.
    Bytes(Vec<u8>),
}

impl CommandError {
    /// An error of which the text, with its code, is known when it is compiled.
    pub const fn text(text: &'static str) -> CommandError {
        CommandError::Text(Cow::Borrowed(text))
    }

    /// Writes the error reply.
    pub fn write(&self, reply: &mut ReplyWriter<'_>) {
        match self {
            CommandError::Bytes(bytes) => reply.error(bytes),
            other => reply.error(other.to_string()),
        }
    }
}

impl fmt::Display for CommandError {
    /// The reply, its code in front.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CommandError::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            CommandError::Syntax => "ERR syntax error",
            CommandError::NotAnInteger => "ERR value is not an integer or out of range",
            CommandError::NotAFloat => "ERR value is not a valid float",
            CommandError::OutOfRange => "ERR index out of range",
            CommandError::NoSuchKey => "ERR no such key",
            CommandError::WrongArity(name) => {
                return write!(f, "ERR wrong number of arguments for '{name}' command");
            }
            CommandError::Text(text) => text,
            CommandError::Bytes(bytes) => return f.write_str(&String::from_utf8_lossy(bytes)),
        })
    }
}

impl From<WrongKind> for CommandError {
    fn from(_: WrongKind) -> CommandError {
        CommandError::WrongType
    }
}
