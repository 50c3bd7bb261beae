//! What a copy has of the log, by what it has received of its stream.
//!
//! ```text
//!  log:     ....... read to R .......        when R is reached, so many records wait for the stream
//!  stream:  ... written ... [those records]  when they are written, the stream ends at S
//!  copy:    has received S: it has the log up to R
//! ```

use crate::engine::log::LogOffset;
use std::collections::VecDeque;

/// Places that are remembered. With more the latest is replaced: what a copy has is known later, never wrong.
const PLACES_MAX: usize = 64;

/// The progress of one stream, of which every slot is complete or has been read to the end.
#[derive(Debug, Default)]
pub struct Progress {
    /// Records of the stream, and their bytes.
    records: u64,
    bytes: u64,
    /// How many records the stream will have when the log up to a place is in it.
    queued: VecDeque<(u64, LogOffset)>,
    /// The same in bytes, of what is in it.
    written: VecDeque<(u64, LogOffset)>,
    has: LogOffset,
}

impl Progress {
    /// The log has been read so far, and so many records wait to be written.
    pub fn read(&mut self, to: LogOffset, waiting: usize) {
        if waiting == 0 {
            return remember(&mut self.written, (self.bytes, to));
        }
        remember(&mut self.queued, (self.records + waiting as u64, to));
    }

    /// A record of so many bytes was written.
    pub fn written(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes as u64;
        while let Some((_, to)) = self.queued.pop_front_if(|(records, _)| *records <= self.records) {
            remember(&mut self.written, (self.bytes, to));
        }
    }

    /// The copy has so many bytes. Gives how far it has the log.
    pub fn received(&mut self, bytes: u64) -> LogOffset {
        while let Some((_, to)) = self.written.pop_front_if(|(written, _)| *written <= bytes) {
            self.has = self.has.max(to);
        }
        self.has
    }
}

fn remember(places: &mut VecDeque<(u64, LogOffset)>, place: (u64, LogOffset)) {
    let is_full = places.len() >= PLACES_MAX;
    match places.back_mut() {
        // At the same place of the stream the farther one says more.
        Some(last) if last.0 == place.0 || is_full => *last = place,
        _ => places.push_back(place),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_has_the_log_as_far_as_what_was_read_when_its_bytes_were_written() {
        let mut progress = Progress::default();
        let at = LogOffset;
        assert_eq!(progress.received(0), at(0));
        progress.read(at(5), 0);
        assert_eq!(progress.received(0), at(5), "nothing of it was for this copy");
        progress.read(at(100), 2);
        progress.written(10);
        assert_eq!(progress.received(10), at(5), "one more is to come");
        progress.read(at(120), 3);
        progress.written(10);
        assert_eq!(progress.received(19), at(5));
        assert_eq!(progress.received(20), at(100));
        progress.written(1);
        progress.written(1);
        assert_eq!(progress.received(22), at(120));
        for number in 0..1000 {
            progress.read(at(200 + number), 1);
            progress.written(1);
        }
        assert!(progress.written.len() <= PLACES_MAX);
        assert_eq!(progress.received(1022), at(1199), "the latest is known");
    }
}
