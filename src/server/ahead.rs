//! Looking ahead in a pipeline.
//!
//! Most of what a small request costs is waiting for memory: its key's segment, bucket and entry are rarely in the
//! processor's cache. The requests of a pipeline are known before their turn, so the places of their keys are fetched
//! for several of them at once, and the waits overlap.

use super::dispatch::{self, Prepared};
use crate::base::slot::Slot;
use crate::engine::Engine;
use crate::resp::decoder::{Decoded, Decoder, Limits, ProtocolError};

/// Requests that are looked at together: about as many waits for memory as a core can have at once, twice.
const REQUESTS_MAX: usize = 32;

/// A request that was decoded and waits for its turn.
#[derive(Debug)]
pub struct Request {
    /// Where it lies in the bytes that were received.
    pub start: usize,
    pub end: usize,
    pub decoded: Decoded,
    pub prepared: Option<Prepared>,
}

/// The next requests of one connection.
#[derive(Debug, Default)]
pub struct Ahead {
    requests: Vec<Request>,
    keys: Vec<(Slot, u64)>,
}

impl Ahead {
    /// Decodes the next requests, which begin at `start` of `bytes`. An error belongs behind them.
    pub fn fill(
        &mut self,
        decoder: &mut Decoder,
        bytes: &[u8],
        start: usize,
        limits: &Limits,
    ) -> Option<ProtocolError> {
        self.requests.clear();
        // Who has not authenticated is given larger limits by the request that does it.
        let most = if limits.unauthenticated { 1 } else { REQUESTS_MAX };
        let mut start = start;
        while self.requests.len() < most {
            let rest = &bytes[start..];
            let length = match decoder.decode(rest, limits) {
                Ok(Some(length)) => length,
                Ok(None) => break,
                Err(error) => return Some(error),
            };
            let decoded = decoder.decoded();
            let prepared = dispatch::prepare(decoder.arguments(decoded, rest));
            self.requests.push(Request { start, end: start + length, decoded, prepared });
            start += length;
            if decoded.is_inline() {
                break;
            }
        }
        None
    }

    /// Fetches the places of the requests' keys into the cache.
    pub fn fetch(&mut self, engine: &Engine, database: usize) {
        if self.requests.len() < 2 {
            return;
        }
        self.keys.clear();
        self.keys.extend(self.requests.iter().filter_map(|request| request.prepared.as_ref()?.key()));
        engine.prefetch(&self.keys, database);
    }

    pub fn len(&self) -> usize {
        self.requests.len()
    }

    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The requests, in order.
    pub fn drain(&mut self) -> impl Iterator<Item = Request> + '_ {
        self.requests.drain(..)
    }
}
