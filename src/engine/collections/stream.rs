//! Streams in the keyspace.

use crate::engine::effect::encode;
use crate::engine::event::Event;
use crate::engine::keyspace::{Keyspace, WrongKind};
use crate::engine::shard::add;
use crate::values::stream::{Edit, Stream};

impl Keyspace<'_> {
    /// Makes changes of the key's stream, or of a new one, one after the other; `count` is how many they are to Redis.
    pub fn stream_edit(&mut self, key: &[u8], edits: &[Edit<'_>], count: usize, event: Event) -> Result<(), WrongKind> {
        self.stream_apply(key, edits)?;
        let place = self.place(key);
        if !edits.is_empty() {
            let encoded = Encoded(edits);
            self.changed_by(count, place, key, event, |out| encoded.write(out, key));
        }
        Ok(())
    }

    /// The same where nothing has changed that a client waits for or watches: who reads, and when it was last seen.
    pub fn stream_note(&mut self, key: &[u8], edits: &[Edit<'_>], count: usize) -> Result<(), WrongKind> {
        if edits.is_empty() {
            return Ok(());
        }
        self.stream_apply(key, edits)?;
        let place = self.place(key);
        add(&self.shard(place).counters.changes, count as i64);
        self.publish(place, |out| Encoded(edits).write(out, key));
        Ok(())
    }

    fn stream_apply(&mut self, key: &[u8], edits: &[Edit<'_>]) -> Result<(), WrongKind> {
        self.edit_or_create::<Stream, _>(key, |stream, limits| {
            edits.iter().for_each(|edit| _ = stream.apply(edit, limits));
        })
    }
}

/// Edits that are encoded only where somebody reads the log.
struct Encoded<'a>(&'a [Edit<'a>]);

impl Encoded<'_> {
    fn write(&self, out: &mut Vec<u8>, key: &[u8]) {
        let edits: Vec<Vec<u8>> = self.0.iter().map(Edit::to_bytes).collect();
        encode::stream_edit(out, key, edits.iter().map(Vec::as_slice));
    }
}
