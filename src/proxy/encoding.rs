//! Requests as they go over a link: arrays of bulk strings.

use crate::resp::arguments::Arguments;
use crate::resp::reply::{Protocol, ReplyWriter};

/// Appends a request.
pub fn encode<'a>(arguments: impl ExactSizeIterator<Item = &'a [u8]>, to: &mut Vec<u8>) {
    // Requests look the same in both versions.
    let mut writer = ReplyWriter::new(to, Protocol::Resp2);
    writer.array(arguments.len());
    arguments.for_each(|argument| writer.bulk(argument));
}

/// How many bytes a request takes at most.
pub fn encoded_bytes(arguments: Arguments<'_>) -> usize {
    // A length of 9 digits with its signs, per argument.
    const FRAME_BYTES: usize = 16;
    arguments.total_bytes() + (arguments.len() + 1) * FRAME_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::arguments::OwnedArguments;

    #[test]
    fn a_request_is_an_array_of_bulk_strings() {
        let request: OwnedArguments = [b"SET".as_slice(), b"k", b"\r\n"].into_iter().collect();
        let mut bytes = Vec::new();
        encode(request.borrow().from(0), &mut bytes);
        assert_eq!(bytes, b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2\r\n\r\n\r\n");
        assert!(encoded_bytes(request.borrow()) >= bytes.len());
    }
}
