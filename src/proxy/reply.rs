//! Replies of other nodes: where each ends in the stream, and what it says.
//!
//! redis-protocol decodes and checks every element. It would start each half-received reply from the beginning again and
//! recurse into nested ones, so the walk over arrays, maps and sets is made here: resumable, with a limit on depth. The
//! bytes are kept as they came, for most replies are only passed on.

use crate::resp::reply::Protocol;
use redis_protocol::{resp2, resp3};
use std::fmt;

/// A reply may not be larger.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// Replies may not be nested deeper.
const DEPTH_MAX: usize = 128;
/// A line of a reply that is no bulk string may not be longer.
const LINE_BYTES_MAX: usize = 1024 * 1024;

/// The stream holds what is no reply: the link is of no more use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidReply;

impl fmt::Display for InvalidReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it sent what is no reply")
    }
}

impl std::error::Error for InvalidReply {}

/// Finds the end of the reply that begins a buffer, going on where it stopped when more has arrived.
#[derive(Debug, Default)]
pub struct Framer {
    /// The bytes before are elements that were checked.
    at: usize,
    /// Elements that are still missing, of each aggregate around.
    missing: Vec<u64>,
}

impl Framer {
    /// The length of the reply; `None`: it is not complete. `bytes` begins with the same bytes as in the last call,
    /// unless that one returned a length.
    ///
    /// # Errors
    /// [`InvalidReply`]: also where it is too large or nested too deeply.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, InvalidReply> {
        loop {
            if self.at > REPLY_BYTES_MAX {
                return Err(InvalidReply);
            }
            let Some(step) = step(&bytes[self.at.min(bytes.len())..])? else {
                return if bytes.len() > REPLY_BYTES_MAX { Err(InvalidReply) } else { Ok(None) };
            };
            self.at += step.length;
            if step.elements > 0 {
                if self.missing.len() >= DEPTH_MAX {
                    return Err(InvalidReply);
                }
                self.missing.push(step.elements);
                continue;
            }
            // An element is complete, and with it every aggregate of which it was the last.
            while let Some(missing) = self.missing.last_mut() {
                *missing -= 1;
                if *missing > 0 {
                    break;
                }
                self.missing.pop();
            }
            if self.missing.is_empty() {
                return Ok(Some(std::mem::take(&mut self.at)));
            }
        }
    }
}

/// An element without what it consists of, and how many elements that is.
struct Step {
    length: usize,
    elements: u64,
}

fn step(bytes: &[u8]) -> Result<Option<Step>, InvalidReply> {
    let Some(kind) = bytes.first() else { return Ok(None) };
    let length = match kind {
        b'*' | b'%' | b'~' | b'>' | b'|' => return aggregate(bytes),
        // Null of RESP2, whatever was agreed on; the decoder knows the rest of the kinds that both versions have.
        b'+' | b'-' | b':' | b'$' => resp2::decode::decode_range(bytes).map(|found| found.map(|(_, length)| length)),
        _ => resp3::decode::complete::decode_range(bytes).map(|found| found.map(|(_, length)| length)),
    };
    match length.map_err(|_| InvalidReply)? {
        // The decoder takes any two bytes for the end of a string.
        Some(length) if bytes[..length].ends_with(b"\r\n") => Ok(Some(Step { length, elements: 0 })),
        Some(_) => Err(InvalidReply),
        None if matches!(kind, b'$' | b'=' | b'!') || bytes.len() <= LINE_BYTES_MAX => Ok(None),
        None => Err(InvalidReply),
    }
}

/// The first line of an array, map, set, push or attribute.
fn aggregate(bytes: &[u8]) -> Result<Option<Step>, InvalidReply> {
    const DIGITS_MAX: usize = 20;
    let Some(end) = memchr::memchr(b'\r', &bytes[..bytes.len().min(DIGITS_MAX + 1)]) else {
        return if bytes.len() > DIGITS_MAX { Err(InvalidReply) } else { Ok(None) };
    };
    match bytes.get(end + 1) {
        None => return Ok(None),
        Some(b'\n') => {}
        Some(_) => return Err(InvalidReply),
    }
    let count = crate::base::number::parse_i64(&bytes[1..end]).ok_or(InvalidReply)?;
    let elements = match (bytes[0], u64::try_from(count)) {
        (b'*', Err(_)) if count == -1 => 0,
        (_, Err(_)) => return Err(InvalidReply),
        (b'%', Ok(count)) => count.checked_mul(2).ok_or(InvalidReply)?,
        // An attribute belongs to the element behind it.
        (b'|', Ok(count)) => count.checked_mul(2).and_then(|count| count.checked_add(1)).ok_or(InvalidReply)?,
        (_, Ok(count)) => count,
    };
    Ok(Some(Step { length: end + 2, elements }))
}

/// Whether the reply that begins so answers no request.
pub fn is_push(bytes: &[u8]) -> bool {
    bytes.first() == Some(&b'>')
}

/// The text of an error reply, its code in front; `None`: it is none.
pub fn error_text(reply: &[u8]) -> Option<&[u8]> {
    match reply.first()? {
        b'-' => reply[1..].strip_suffix(b"\r\n"),
        b'!' => {
            let line = memchr::memchr(b'\n', reply)?;
            reply[line + 1..].strip_suffix(b"\r\n")
        }
        _ => None,
    }
}

/// What an integer reply says.
pub fn integer(reply: &[u8]) -> Option<i64> {
    match resp2::decode::decode_range(reply) {
        Ok(Some((resp2::types::RangeFrame::Integer(value), _))) => Some(value),
        _ => None,
    }
}

/// What a bulk string says.
pub fn bulk(reply: &[u8]) -> Option<&[u8]> {
    match resp2::decode::decode_range(reply) {
        Ok(Some((resp2::types::RangeFrame::BulkString((start, end)), _))) => reply.get(start..end),
        _ => None,
    }
}

/// The elements of an array, as they came; `None`: it is none.
pub fn elements(reply: &[u8]) -> Option<Vec<&[u8]>> {
    let Ok(Some(head)) = step(reply) else { return None };
    if reply[0] != b'*' || reply.starts_with(b"*-") {
        return None;
    }
    split(&reply[head.length..]).filter(|found| found.len() as u64 == head.elements)
}

/// Replies that lie behind each other.
pub fn split(replies: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = replies;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let length = Framer::default().end(rest).ok()??;
        found.push(&rest[..length]);
        rest = &rest[length..];
    }
    Some(found)
}

/// The request was not executed, and should be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elsewhere<'a> {
    /// To whom it says, `host:port`.
    Moved(&'a str),
    /// Later.
    TryAgain,
}

/// Whether a reply asks for another try.
pub fn elsewhere(reply: &[u8]) -> Option<Elsewhere<'_>> {
    let text = reply.strip_prefix(b"-")?;
    if let Some(rest) = text.strip_prefix(b"MOVED ") {
        let rest = std::str::from_utf8(rest).ok()?.trim_end();
        return rest.split_once(' ').map(|(_, endpoint)| Elsewhere::Moved(endpoint));
    }
    text.starts_with(b"TRYAGAIN").then_some(Elsewhere::TryAgain)
}

/// The protocol version as HELLO names it.
pub fn version(protocol: Protocol) -> &'static [u8] {
    match protocol {
        Protocol::Resp2 => b"2",
        Protocol::Resp3 => b"3",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REPLIES: &[&str] = &[
        "+OK\r\n",
        "-ERR no\r\n",
        ":-12\r\n",
        "$3\r\na\r\n\r\n",
        "$-1\r\n",
        "*-1\r\n",
        "*0\r\n",
        "*2\r\n:1\r\n*2\r\n$1\r\na\r\n*0\r\n",
        "%1\r\n+a\r\n%0\r\n",
        "~2\r\n:1\r\n_\r\n",
        ",1.5\r\n",
        ",inf\r\n",
        ",-inf\r\n",
        "#t\r\n",
        "(123456789012345678901234567890\r\n",
        "=6\r\ntxt:hi\r\n",
        "|1\r\n+ttl\r\n:1\r\n$1\r\nx\r\n",
        ">2\r\n+message\r\n+hi\r\n",
        "!5\r\nERR x\r\n",
    ];

    #[test]
    fn the_end_is_found_however_the_bytes_arrive() {
        for reply in REPLIES {
            let with_more = [reply.as_bytes(), b"+next\r\n"].concat();
            assert_eq!(Framer::default().end(&with_more), Ok(Some(reply.len())), "{reply:?}");
            let mut framer = Framer::default();
            for length in 0..reply.len() {
                assert_eq!(framer.end(&reply.as_bytes()[..length]), Ok(None), "{length} bytes of {reply:?}");
            }
            assert_eq!(framer.end(reply.as_bytes()), Ok(Some(reply.len())), "{reply:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let deep = "*1\r\n".repeat(50_000);
        let long = format!("+{}", "x".repeat(2 * LINE_BYTES_MAX));
        for bad in
            ["GET\r\n", "*x\r\n", "*-2\r\n", "$3\r\nabcde\r\n", "*1\rx", "*11111111111111111111111", &deep, &long]
        {
            assert_eq!(Framer::default().end(bad.as_bytes()), Err(InvalidReply), "{:?}", &bad[..bad.len().min(20)]);
        }
    }

    #[test]
    fn replies_are_understood() {
        assert_eq!(error_text(b"-ERR no\r\n"), Some(b"ERR no".as_slice()));
        assert_eq!(error_text(b"!5\r\nERR x\r\n"), Some(b"ERR x".as_slice()));
        assert_eq!(error_text(b"+OK\r\n"), None);
        assert_eq!(integer(b":42\r\n"), Some(42));
        assert_eq!(integer(b"+OK\r\n"), None);
        assert_eq!(bulk(b"$2\r\nhi\r\n"), Some(b"hi".as_slice()));
        assert_eq!(elements(b"*2\r\n$1\r\na\r\n_\r\n"), Some(vec![b"$1\r\na\r\n".as_slice(), b"_\r\n"]));
        assert_eq!(elements(b"*-1\r\n"), None);
        assert_eq!(elements(b"*2\r\n:1\r\n"), None);
        assert_eq!(elsewhere(b"-MOVED 12 10.0.0.1:6379\r\n"), Some(Elsewhere::Moved("10.0.0.1:6379")));
        assert_eq!(elsewhere(b"-TRYAGAIN later\r\n"), Some(Elsewhere::TryAgain));
        assert_eq!(elsewhere(b"$8\r\n-MOVED 1\r\n"), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(prop_oneof![
            prop::sample::select(b"*%~>|+-:$,#(=_!\r\n0123456789".to_vec()), any::<u8>()
        ], 0..200)) {
            let mut framer = Framer::default();
            for length in 0..=bytes.len() {
                match framer.end(&bytes[..length]) {
                    Ok(None) => {}
                    Ok(Some(end)) => { prop_assert!(end <= length); break; }
                    Err(InvalidReply) => break,
                }
            }
        }
    }
}
