//! Frames: a length (u32, big-endian), then that many bytes of postcard.
//!
//! Pure: bytes in, frames out. A frame that is too long, that cannot be read or that has bytes left over ends the link.

use super::messages::Frame;
use bytes::{Buf, BytesMut};
use std::fmt;

/// The longest frame, without its length: 16 MiB, more than any slot message or raft entry should be.
pub const FRAME_BYTES_MAX: usize = 16 << 20;
/// The longest frame before both ends have proved who they are: enough for a hello.
pub const GREETING_BYTES_MAX: usize = 1024;

const LENGTH_BYTES: usize = 4;

/// Why bytes are no frame. The link must be closed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    TooLong(usize),
    Malformed,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong(length) => write!(f, "a frame of {length} bytes"),
            FrameError::Malformed => f.write_str("a malformed frame"),
        }
    }
}

impl std::error::Error for FrameError {}

/// The bytes of a frame, its length first.
pub fn encode(frame: &Frame) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(frame, vec![0; LENGTH_BYTES]).map_err(|_| FrameError::Malformed)?;
    let length = bytes.len() - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        return Err(FrameError::TooLong(length));
    }
    bytes[..LENGTH_BYTES].copy_from_slice(&(length as u32).to_be_bytes());
    Ok(bytes)
}

/// Takes the next frame from the front of a buffer; `None`: more bytes are needed.
pub fn decode(buffer: &mut BytesMut, length_max: usize) -> Result<Option<Frame>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    if length > length_max {
        return Err(FrameError::TooLong(length));
    }
    let Some(body) = buffer.get(LENGTH_BYTES..LENGTH_BYTES + length) else { return Ok(None) };
    let (frame, rest) = postcard::take_from_bytes(body).map_err(|_| FrameError::Malformed)?;
    if !rest.is_empty() {
        return Err(FrameError::Malformed);
    }
    buffer.advance(LENGTH_BYTES + length);
    Ok(Some(frame))
}

#[cfg(test)]
mod tests {
    use super::super::messages::{Blob, GroupView, Heartbeat, Request, Response, Voter};
    use super::*;
    use crate::base::identity::NodeId;
    use proptest::prelude::*;

    fn frames() -> Vec<Frame> {
        let voter = Voter { node: NodeId(7), address: ([127, 0, 0, 1], 17000).into() };
        let group = GroupView { term: 3, voters_index: 9, leader: Some(NodeId(7)), voters: vec![voter] };
        let ping = Heartbeat { topology_version: 12, group: group.clone(), ..Heartbeat::default() };
        vec![
            Frame::Open,
            Frame::Request { id: 1, request: Request::Ping(ping.clone()) },
            Frame::Request { id: u64::MAX, request: Request::Copy(Blob(vec![1; 3000])) },
            Frame::Response { id: 1, response: Response::Pong(ping) },
            Frame::Response { id: 2, response: Response::NotLeader(group) },
            Frame::Response { id: 3, response: Response::Failed("no".into()) },
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_pieces() {
        let stream: Vec<u8> = frames().iter().flat_map(|frame| encode(frame).expect("short")).collect();
        for piece in [1, 2, 3, 7, 1000, stream.len()] {
            let (mut buffer, mut found) = (BytesMut::new(), Vec::new());
            for bytes in stream.chunks(piece) {
                buffer.extend_from_slice(bytes);
                while let Some(frame) = decode(&mut buffer, FRAME_BYTES_MAX).expect("well formed") {
                    found.push(frame);
                }
            }
            assert_eq!(found, frames(), "pieces of {piece}");
        }
    }

    #[test]
    fn what_is_too_long_is_refused_before_it_arrives() {
        let mut buffer = BytesMut::from(&(GREETING_BYTES_MAX as u32 + 1).to_be_bytes()[..]);
        assert_eq!(decode(&mut buffer, GREETING_BYTES_MAX), Err(FrameError::TooLong(GREETING_BYTES_MAX + 1)));
        let long = Frame::Request { id: 0, request: Request::Copy(Blob(vec![0; FRAME_BYTES_MAX])) };
        assert!(matches!(encode(&long), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn bytes_left_over_are_malformed() {
        let mut bytes = encode(&Frame::Open).expect("short");
        bytes.push(0);
        bytes[3] += 1;
        assert_eq!(decode(&mut BytesMut::from(&bytes[..]), 100), Err(FrameError::Malformed));
    }

    proptest! {
        /// Damage gives a frame, an error or a wish for more; never a panic, never more memory than was sent.
        #[test]
        fn damaged_frames_are_survived(which in 0usize..6, at in 0usize..64, with: u8, cut in 0usize..80) {
            let mut bytes = encode(&frames()[which]).expect("short");
            let at = at % bytes.len();
            bytes[at] = with;
            bytes.truncate(bytes.len().saturating_sub(cut).max(1));
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer, FRAME_BYTES_MAX) {}
        }

        #[test]
        fn noise_is_survived(noise in prop::collection::vec(any::<u8>(), 0..200)) {
            let mut framed = (noise.len() as u32).to_be_bytes().to_vec();
            framed.extend(&noise);
            let mut buffer = BytesMut::from(&framed[..]);
            while let Ok(Some(_)) = decode(&mut buffer, FRAME_BYTES_MAX) {}
        }
    }
}
