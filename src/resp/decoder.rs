//! Requests: bytes in, arguments out.
//!
//! A request is a flat array of bulk strings, or one inline line. The decoder is resumable: it remembers how far it got
//! in an incomplete request and never looks at a byte twice. It copies nothing: arguments are spans of the caller's
//! buffer (inline requests with quotes are the exception: they are unescaped into a scratch buffer of the decoder).
//!
//! It has a limit for everything and allocates by what has arrived, never by what was announced. Errors have the words
//! of Redis (networking.c, `processMultibulkBuffer` and `processInlineBuffer`); after one the connection must be closed.

use super::arguments::{Arguments, Span};

/// Longest inline request, and longest line that announces a count or a length.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;
/// Most arguments of one request, as in Redis. What bounds a request's memory is the limit on the bytes that a connection
/// may hold of it, the decoder's own among them.
pub const ARGUMENTS_MAX: i64 = i32::MAX as i64;
/// Most arguments of one request before authentication.
const ARGUMENTS_MAX_UNAUTHENTICATED: i64 = 10;
/// Longest argument before authentication.
const BULK_BYTES_MAX_UNAUTHENTICATED: i64 = 16384;
/// Where a span could no longer be held in 32 bits.
const REQUEST_BYTES_MAX: usize = u32::MAX as usize - INLINE_BYTES_MAX;

/// What this connection may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument, in bytes (`proto-max-bulk-len`).
    pub bulk_bytes_max: i64,
    /// Whether the client still has to authenticate: then the small limits hold.
    pub unauthenticated: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { bulk_bytes_max: 512 * 1024 * 1024, unauthenticated: false }
    }
}

/// Bytes that are not a request. Nothing was executed; the connection cannot go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProtocolError {
    InlineTooBig,
    UnbalancedQuotes,
    CountLineTooBig,
    InvalidCount,
    CountUnauthenticated,
    BulkLineTooBig,
    ExpectedBulk(u8),
    InvalidBulkLength,
    BulkUnauthenticated,
}

impl ProtocolError {
    /// The text that follows `-ERR Protocol error: `. Bytes, for Redis puts the client's own byte into one of them.
    pub fn text(self) -> Vec<u8> {
        let text: &[u8] = match self {
            ProtocolError::InlineTooBig => b"too big inline request",
            ProtocolError::UnbalancedQuotes => b"unbalanced quotes in request",
            ProtocolError::CountLineTooBig => b"too big mbulk count string",
            ProtocolError::InvalidCount => b"invalid multibulk length",
            ProtocolError::CountUnauthenticated => b"unauthenticated multibulk length",
            ProtocolError::BulkLineTooBig => b"too big bulk count string",
            ProtocolError::ExpectedBulk(got) => return [b"expected '$', got '", [got].as_slice(), b"'"].concat(),
            ProtocolError::InvalidBulkLength => b"invalid bulk length",
            ProtocolError::BulkUnauthenticated => b"unauthenticated bulk length",
        };
        text.to_vec()
    }
}

/// Where the decoder stands in the request it is reading.
#[derive(Clone, Copy, Debug)]
enum Stage {
    /// At its first byte.
    Start,
    /// In an inline line; this much of it is known to hold no line end.
    Inline { searched: usize },
    /// Before the `$` of an argument, this many arguments to go.
    BulkLength { remaining: usize },
    /// In an argument of this length, this many to go, this one among them.
    BulkBody { remaining: usize, length: usize },
}

/// Where a decoder keeps the arguments of a request.
#[derive(Clone, Copy, Debug)]
pub struct Decoded {
    first: usize,
    last: usize,
    inline: bool,
}

impl Decoded {
    /// Whether it came as a line: then it must be executed before the next one is decoded.
    pub fn is_inline(self) -> bool {
        self.inline
    }
}

/// The state of one connection's request stream.
#[derive(Debug)]
pub struct Decoder {
    stage: Stage,
    /// Bytes of the current request that are behind us.
    offset: usize,
    spans: Vec<Span>,
    /// Where the current request's spans begin.
    first_span: usize,
    /// Unescaped arguments of an inline request; empty for the array form.
    scratch: Vec<u8>,
    inline: bool,
    /// The last call wanted more bytes, and none have come since.
    starved: bool,
}

impl Default for Decoder {
    fn default() -> Decoder {
        Decoder {
            stage: Stage::Start,
            offset: 0,
            spans: Vec::new(),
            first_span: 0,
            scratch: Vec::new(),
            inline: false,
            starved: true,
        }
    }
}

impl Decoder {
    /// Reads on in the request that begins at `buffer[0]`: the same bytes as at the last call, and what has arrived since.
    ///
    /// `Ok(Some(n))`: the request is complete in the first `n` bytes, and the next call must begin behind them. It may be
    /// empty (`*0`, a blank line): nothing to do.
    /// `Ok(None)`: more bytes are needed.
    pub fn decode(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        self.starved = true;
        if let Stage::Start = self.stage {
            self.first_span = self.spans.len();
            self.offset = 0;
            match buffer.first() {
                None => return Ok(None),
                Some(b'*') => {
                    self.inline = false;
                    if !self.decode_count(buffer, limits)? {
                        return Ok(None);
                    }
                }
                Some(_) => self.stage = Stage::Inline { searched: 0 },
            }
        }
        let complete = match self.stage {
            Stage::Inline { searched } => self.decode_inline(buffer, searched)?,
            _ => self.decode_bulks(buffer, limits)?,
        };
        if !complete {
            return Ok(None);
        }
        self.stage = Stage::Start;
        self.starved = false;
        Ok(Some(self.offset))
    }

    /// Says that more bytes have arrived.
    pub fn more(&mut self) {
        self.starved = false;
    }

    /// Whether there is no use in calling [`Decoder::decode`] before more bytes arrive.
    pub fn is_starved(&self) -> bool {
        self.starved
    }

    /// Where the arguments of the request that [`Decoder::decode`] has just completed are kept, until
    /// [`Decoder::forget`]. Several array requests can be decoded ahead; an inline one must be the last of them.
    #[inline]
    pub fn decoded(&self) -> Decoded {
        Decoded { first: self.first_span, last: self.spans.len(), inline: self.inline }
    }

    /// The arguments of a decoded request; `buffer` begins where it was decoded.
    #[inline]
    pub fn arguments<'a>(&'a self, decoded: Decoded, buffer: &'a [u8]) -> Arguments<'a> {
        let spans = self.spans.get(decoded.first..decoded.last).unwrap_or_default();
        Arguments::new(if decoded.inline { &self.scratch } else { buffer }, spans)
    }

    /// Forgets the requests that were decoded; the one that is not complete yet stays.
    pub fn forget(&mut self) {
        self.spans.drain(..if matches!(self.stage, Stage::Start) { self.spans.len() } else { self.first_span });
        self.first_span = 0;
    }

    /// Forgets everything: the next call begins a request.
    pub fn restart(&mut self) {
        self.stage = Stage::Start;
        self.spans.clear();
        self.first_span = 0;
        self.starved = false;
    }

    /// Bytes that are certainly still missing of the current request: how much room the next read wants.
    pub fn missing_bytes(&self, buffered: usize) -> usize {
        match self.stage {
            Stage::BulkBody { length, .. } => (self.offset + length + 2).saturating_sub(buffered),
            _ => 0,
        }
    }

    /// Bytes of the decoder's own buffers.
    pub fn memory_bytes(&self) -> usize {
        self.spans.capacity() * size_of::<Span>() + self.scratch.capacity()
    }

    /// Gives back what an unusually large request has made the buffers grow to, once it is forgotten.
    pub fn shrink(&mut self) {
        if !self.spans.is_empty() {
            return;
        }
        if self.spans.capacity() > 1024 {
            self.spans = Vec::new();
        }
        if self.scratch.capacity() > 4096 {
            self.scratch = Vec::new();
        }
    }

    /// `*<count>\r\n`. False: incomplete.
    fn decode_count(&mut self, buffer: &[u8], limits: &Limits) -> Result<bool, ProtocolError> {
        let Some((count, next)) = read_line(buffer, 1, ProtocolError::CountLineTooBig, ProtocolError::InvalidCount)?
        else {
            return Ok(false);
        };
        if count > ARGUMENTS_MAX {
            return Err(ProtocolError::InvalidCount);
        }
        if count > ARGUMENTS_MAX_UNAUTHENTICATED && limits.unauthenticated {
            return Err(ProtocolError::CountUnauthenticated);
        }
        self.offset = next;
        self.stage = Stage::BulkLength { remaining: count.max(0) as usize };
        Ok(true)
    }

    /// The arguments of the array form. False: incomplete.
    fn decode_bulks(&mut self, buffer: &[u8], limits: &Limits) -> Result<bool, ProtocolError> {
        loop {
            match self.stage {
                Stage::BulkLength { remaining: 0 } => return Ok(true),
                Stage::BulkLength { remaining } => {
                    match buffer.get(self.offset) {
                        None => return Ok(false),
                        Some(b'$') => {}
                        Some(&other) => {
                            // Redis looks at the first byte only when the line is complete.
                            if find_end(b'\r', &buffer[self.offset..]).is_none() {
                                return if buffer.len() - self.offset > INLINE_BYTES_MAX {
                                    Err(ProtocolError::BulkLineTooBig)
                                } else {
                                    Ok(false)
                                };
                            }
                            return Err(ProtocolError::ExpectedBulk(other));
                        }
                    }
                    let line = read_line(
                        buffer,
                        self.offset + 1,
                        ProtocolError::BulkLineTooBig,
                        ProtocolError::InvalidBulkLength,
                    )?;
                    let Some((length, next)) = line else { return Ok(false) };
                    if length < 0 || length > limits.bulk_bytes_max || next + length as usize > REQUEST_BYTES_MAX {
                        return Err(ProtocolError::InvalidBulkLength);
                    }
                    if length > BULK_BYTES_MAX_UNAUTHENTICATED && limits.unauthenticated {
                        return Err(ProtocolError::BulkUnauthenticated);
                    }
                    self.offset = next;
                    self.stage = Stage::BulkBody { remaining, length: length as usize };
                }
                Stage::BulkBody { remaining, length } => {
                    let end = self.offset + length;
                    // The two bytes behind an argument are skipped unread, as Redis does.
                    if buffer.len() < end + 2 {
                        return Ok(false);
                    }
                    self.spans.push(Span { start: self.offset as u32, end: end as u32 });
                    self.offset = end + 2;
                    self.stage = Stage::BulkLength { remaining: remaining - 1 };
                }
                Stage::Start | Stage::Inline { .. } => return Ok(true),
            }
        }
    }

    /// One line of arguments separated by blanks. False: incomplete.
    fn decode_inline(&mut self, buffer: &[u8], searched: usize) -> Result<bool, ProtocolError> {
        let Some(end) = find_end(b'\n', &buffer[searched..]).map(|at| searched + at) else {
            // Behind a zero nothing is found, so the search must stay before it.
            let searched = memchr::memchr(0, &buffer[searched..]).map_or(buffer.len(), |zero| searched + zero);
            self.stage = Stage::Inline { searched };
            return if buffer.len() > INLINE_BYTES_MAX { Err(ProtocolError::InlineTooBig) } else { Ok(false) };
        };
        let line = &buffer[..end];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.inline = true;
        self.scratch.clear();
        self.offset = end + 1;
        split_quoted(line, &mut self.scratch, &mut self.spans).ok_or(ProtocolError::UnbalancedQuotes)?;
        Ok(true)
    }
}

/// Reads the integer of a line from `start` to its `\r\n`. Returns it and where the next line starts.
#[inline]
fn read_line(
    buffer: &[u8],
    start: usize,
    too_big: ProtocolError,
    invalid: ProtocolError,
) -> Result<Option<(i64, usize)>, ProtocolError> {
    let rest = &buffer[start..];
    // Most lines are one or two digits: find their end without a call.
    let end = match rest {
        [1..=255, b'\r', ..] => 1,
        [1..=255, 1..=255, b'\r', ..] => 2,
        _ => match find_end(b'\r', &rest[..rest.len().min(INLINE_BYTES_MAX + 1)]) {
            Some(end) => end,
            None if rest.len() >= INLINE_BYTES_MAX => return Err(too_big),
            None => return Ok(None),
        },
    };
    if rest.len() < end + 2 {
        return Ok(None);
    }
    match parse_length(&rest[..end]) {
        Some(value) => Ok(Some((value, start + end + 2))),
        None => Err(invalid),
    }
}

/// Where a line ends. Redis looks for it as in a C string, so behind a zero byte there is none, and the connection waits
/// until the line is too long.
#[inline]
fn find_end(end: u8, bytes: &[u8]) -> Option<usize> {
    memchr::memchr2(end, 0, bytes).filter(|&at| bytes[at] == end)
}

/// An integer as Redis reads it in the protocol: an optional minus, no leading zeros, no blanks.
#[inline]
fn parse_length(digits: &[u8]) -> Option<i64> {
    if let [digit @ b'0'..=b'9'] = digits {
        return Some(i64::from(digit - b'0'));
    }
    crate::base::number::parse_i64(digits)
}

/// Splits a line into arguments as Redis's inline protocol does (sds.c, `sdssplitargs`): separated by blanks;
/// `"..."` with the escapes `\n \r \t \b \a \xHH`, `'...'` with `\'` only. `None`: quotes that do not close, or
/// something other than a blank behind a closing one.
pub fn split_quoted(line: &[u8], bytes: &mut Vec<u8>, spans: &mut Vec<Span>) -> Option<()> {
    let mut rest = line;
    loop {
        while let [first, tail @ ..] = rest {
            if !is_blank(*first) {
                break;
            }
            rest = tail;
        }
        if rest.is_empty() {
            return Some(());
        }
        let start = bytes.len() as u32;
        rest = split_argument(rest, bytes)?;
        spans.push(Span { start, end: bytes.len() as u32 });
    }
}

/// Takes one argument off the front of `rest`, appends it to `bytes`, and returns what is behind it.
fn split_argument<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [] => return Some(rest),
            [b'"', tail @ ..] => return closed(unescape_double(tail, bytes)?),
            [b'\'', tail @ ..] => return closed(unescape_single(tail, bytes)?),
            [b' ' | b'\t' | b'\n' | b'\r', tail @ ..] => return Some(tail),
            // A NUL ends a C string, and with it the argument.
            [0, ..] => return Some(&[]),
            [first, tail @ ..] => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
}

/// A closing quote must end the argument.
fn closed(rest: &[u8]) -> Option<&[u8]> {
    match rest.first() {
        Some(&next) if !is_blank(next) && next != 0 => None,
        _ => Some(rest),
    }
}

fn unescape_double<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                bytes.push(hex_digit(*high) << 4 | hex_digit(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                bytes.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [b'"', tail @ ..] => return Some(tail),
            [first, tail @ ..] => {
                bytes.push(*first);
                tail
            }
        }
    }
}

fn unescape_single<'a>(mut rest: &'a [u8], bytes: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [] => return None,
            [b'\\', b'\'', tail @ ..] => {
                bytes.push(b'\'');
                tail
            }
            [b'\'', tail @ ..] => return Some(tail),
            [first, tail @ ..] => {
                bytes.push(*first);
                tail
            }
        }
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 11 | 12)
}

fn hex_digit(digit: u8) -> u8 {
    char::from(digit).to_digit(16).unwrap_or(0) as u8
}

#[cfg(test)]
mod tests;
