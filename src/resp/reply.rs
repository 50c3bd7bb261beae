//! Replies: one method per shape, appended to a buffer in the connection's protocol.
//!
//! Shapes that RESP2 does not have are written the way Redis writes them to a RESP2 client: maps and sets as arrays,
//! doubles and big numbers as bulk strings, booleans as integers, null as a null bulk string.

/// The protocol version a connection has chosen with HELLO.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Appends replies to a buffer.
#[derive(Debug)]
pub struct ReplyWriter<'a> {
    buffer: &'a mut Vec<u8>,
    protocol: Protocol,
}

/// Where an aggregate of yet unknown length begins.
#[derive(Clone, Copy, Debug)]
#[must_use = "an aggregate that was begun must be ended"]
pub struct Deferred(usize);

impl<'a> ReplyWriter<'a> {
    pub fn new(buffer: &'a mut Vec<u8>, protocol: Protocol) -> ReplyWriter<'a> {
        ReplyWriter { buffer, protocol }
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// From here on, replies are of this protocol (HELLO).
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Bytes in the buffer: a mark for [`ReplyWriter::truncate`].
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Takes back everything written since the buffer had this length.
    pub fn truncate(&mut self, length: usize) {
        self.buffer.truncate(length);
    }

    /// Puts bytes that are RESP already where the buffer had this length.
    pub fn insert(&mut self, at: usize, bytes: &[u8]) {
        self.buffer.splice(at..at, bytes.iter().copied());
    }

    /// Bytes that are RESP already.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    pub fn ok(&mut self) {
        self.buffer.extend_from_slice(b"+OK\r\n");
    }

    /// A status: text without line ends.
    pub fn simple(&mut self, text: &str) {
        self.buffer.push(b'+');
        self.buffer.extend_from_slice(text.as_bytes());
        self.line_end();
    }

    /// An error: its code, a blank and the message. Line ends in it become blanks, as Redis does.
    pub fn error(&mut self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        let length = text.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
        self.buffer.push(b'-');
        self.buffer.extend(text[..length].iter().map(|byte| match byte {
            b'\r' | b'\n' => b' ',
            other => *other,
        }));
        self.line_end();
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.buffer.extend_from_slice(b":0\r\n"),
            1 => self.buffer.extend_from_slice(b":1\r\n"),
            _ => self.header(b':', value),
        }
    }

    /// A count of things in memory.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.integer(value as i64);
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        // Room for the line end is made with that for a large string: it would double the buffer by itself.
        const LARGE_BYTES: usize = 4096;
        self.header(b'$', bytes.len() as i64);
        if bytes.len() >= LARGE_BYTES {
            self.buffer.reserve(bytes.len() + 2);
        }
        self.buffer.extend_from_slice(bytes);
        self.line_end();
    }

    /// A bulk string with the decimal form of an integer.
    pub fn bulk_integer(&mut self, value: i64) {
        let mut digits = itoa::Buffer::new();
        self.bulk(digits.format(value).as_bytes());
    }

    /// The null of a missing value.
    pub fn null(&mut self) {
        self.buffer.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// The null of a missing array.
    pub fn null_array(&mut self) {
        self.buffer.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n".as_slice(),
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// `length` replies follow.
    #[inline]
    pub fn array(&mut self, length: usize) {
        self.header(b'*', length as i64);
    }

    /// `pairs` pairs of replies follow.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.header(b'*', pairs as i64 * 2),
            Protocol::Resp3 => self.header(b'%', pairs as i64),
        }
    }

    /// `length` replies follow, unordered.
    pub fn set(&mut self, length: usize) {
        self.header(if self.protocol == Protocol::Resp3 { b'~' } else { b'*' }, length as i64);
    }

    /// `length` replies follow, which answer no request.
    pub fn push(&mut self, length: usize) {
        self.header(if self.protocol == Protocol::Resp3 { b'>' } else { b'*' }, length as i64);
    }

    /// An array whose length is known only when it is ended.
    pub fn begin(&mut self) -> Deferred {
        Deferred(self.buffer.len())
    }

    /// Ends an array that was begun: `length` replies have been written since.
    pub fn end_array(&mut self, begun: Deferred, length: usize) {
        self.end(begun, b'*', length);
    }

    /// Ends a set that was begun.
    pub fn end_set(&mut self, begun: Deferred, length: usize) {
        self.end(begun, if self.protocol == Protocol::Resp3 { b'~' } else { b'*' }, length);
    }

    /// Ends a map that was begun: `pairs` pairs have been written since.
    pub fn end_map(&mut self, begun: Deferred, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.end(begun, b'*', pairs * 2),
            Protocol::Resp3 => self.end(begun, b'%', pairs),
        }
    }

    pub fn double(&mut self, value: f64) {
        self.double_text(&crate::base::number::format_double(value));
    }

    /// A double that is a text already.
    pub fn double_text(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.buffer.push(b',');
                self.buffer.extend_from_slice(text.as_bytes());
                self.line_end();
            }
        }
    }

    pub fn boolean(&mut self, value: bool) {
        match self.protocol {
            Protocol::Resp2 => self.integer(i64::from(value)),
            Protocol::Resp3 => self.buffer.extend_from_slice(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// Text with a format of three letters (`txt`, `mkd`).
    pub fn verbatim(&mut self, format: &str, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.header(b'=', text.len() as i64 + 4);
                self.buffer.extend_from_slice(format.as_bytes());
                self.buffer.push(b':');
                self.buffer.extend_from_slice(text.as_bytes());
                self.line_end();
            }
        }
    }

    fn end(&mut self, begun: Deferred, kind: u8, length: usize) {
        let mut digits = itoa::Buffer::new();
        let digits = digits.format(length).as_bytes();
        let header = std::iter::once(kind).chain(digits.iter().copied()).chain(*b"\r\n");
        self.buffer.splice(begun.0..begun.0, header);
    }

    #[inline]
    fn header(&mut self, kind: u8, value: i64) {
        if let 0..=9 = value {
            self.buffer.extend_from_slice(&[kind, b'0' + value as u8, b'\r', b'\n']);
            return;
        }
        let mut digits = itoa::Buffer::new();
        self.buffer.push(kind);
        self.buffer.extend_from_slice(digits.format(value).as_bytes());
        self.line_end();
    }

    #[inline]
    fn line_end(&mut self) {
        self.buffer.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(write: impl Fn(&mut ReplyWriter<'_>), resp2: &str, resp3: &str) {
        for (protocol, expected) in [(Protocol::Resp2, resp2), (Protocol::Resp3, resp3)] {
            let mut buffer = Vec::new();
            write(&mut ReplyWriter::new(&mut buffer, protocol));
            assert_eq!(String::from_utf8_lossy(&buffer), expected, "{protocol:?}");
        }
    }

    #[test]
    fn shapes_of_both_protocols() {
        check(|r| r.ok(), "+OK\r\n", "+OK\r\n");
        check(|r| r.error("ERR a\nb\r\n"), "-ERR a b\r\n", "-ERR a b\r\n");
        check(|r| r.integer(-12), ":-12\r\n", ":-12\r\n");
        check(|r| r.bulk(b"0123456789"), "$10\r\n0123456789\r\n", "$10\r\n0123456789\r\n");
        check(|r| r.bulk_integer(7), "$1\r\n7\r\n", "$1\r\n7\r\n");
        check(|r| r.null(), "$-1\r\n", "_\r\n");
        check(|r| r.null_array(), "*-1\r\n", "_\r\n");
        check(|r| r.map(2), "*4\r\n", "%2\r\n");
        check(|r| r.set(2), "*2\r\n", "~2\r\n");
        check(|r| r.push(12), "*12\r\n", ">12\r\n");
        check(|r| r.double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n");
        check(|r| r.boolean(true), ":1\r\n", "#t\r\n");
        check(|r| r.verbatim("txt", "hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n");
    }

    #[test]
    fn an_aggregate_may_learn_its_length_last() {
        check(
            |r| {
                let begun = r.begin();
                r.integer(1);
                r.integer(2);
                r.end_map(begun, 1);
            },
            "*2\r\n:1\r\n:2\r\n",
            "%1\r\n:1\r\n:2\r\n",
        );
    }
}
