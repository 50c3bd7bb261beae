//! Strings in the keyspace: each change is made, counted and published by one function, with one look for the key.

use super::effect::encode;
use super::entry::{Entry, StringRef};
use super::event::{self, Event};
use super::keyspace::{Deadline, Keyspace, WrongKind};
use smallvec::SmallVec;
use std::cell::Cell;
use std::convert::Infallible;

/// The longest string, in bytes, as in Redis (`proto-max-bulk-len`).
pub const STRING_BYTES_MAX: usize = 512 * 1024 * 1024;

/// A number that a key is changed by, and what comes of it.
#[derive(Clone, Copy, Debug)]
pub struct Increment {
    pub change: i64,
    pub result: i64,
}

/// What an edit has done to a string.
#[derive(Debug, Default)]
pub struct StringEdit {
    /// Zeros were appended before.
    pub has_grown: bool,
    /// Where bytes were written, which, and how many changes that is.
    changes: Vec<(usize, SmallVec<[u8; 16]>, usize)>,
}

impl StringEdit {
    /// Notes that these bytes were written there; each note is one change, as Redis counts them.
    pub fn wrote(&mut self, offset: usize, bytes: &[u8]) {
        self.changes.push((offset, SmallVec::from_slice(bytes), 1));
    }

    /// The same for bytes that belong to changes noted before.
    pub fn also_wrote(&mut self, offset: usize, bytes: &[u8]) {
        self.changes.push((offset, SmallVec::from_slice(bytes), 0));
    }
}

impl Keyspace<'_> {
    /// The key's string, for a command that reads it.
    #[inline]
    pub fn read_string(&mut self, key: &[u8]) -> Result<Option<StringRef<'_>>, WrongKind> {
        match self.read(key) {
            None => Ok(None),
            Some(entry) => entry.as_string().map(Some).ok_or(WrongKind),
        }
    }

    /// The key's string, for a command that will write it.
    pub fn peek_string(&mut self, key: &[u8]) -> Result<Option<StringRef<'_>>, WrongKind> {
        match self.peek(key) {
            None => Ok(None),
            Some(entry) => entry.as_string().map(Some).ok_or(WrongKind),
        }
    }

    /// Makes the key this string, whatever it was.
    #[inline]
    pub fn set_string(&mut self, key: &[u8], bytes: &[u8], deadline: Deadline) {
        self.set_string_as(key, bytes, deadline, event::SET);
    }

    /// The same for a command whose event is another one.
    #[inline]
    pub fn set_string_as(&mut self, key: &[u8], bytes: &[u8], deadline: Deadline, event: Event) {
        let Ok(_) = self.set_string_if(key, bytes, deadline, event, |_| Ok::<_, Infallible>(true));
    }

    /// Makes the key this string, whatever it was, where `is_wanted` says so of the entry that is there. Gives what it
    /// said.
    #[inline]
    pub fn set_string_if<E>(
        &mut self,
        key: &[u8],
        bytes: &[u8],
        deadline: Deadline,
        event: Event,
        is_wanted: impl FnOnce(Option<&Entry>) -> Result<bool, E>,
    ) -> Result<bool, E> {
        let place = self.place(key);
        let mut found = self.lookup(place, key);
        let before = found.entry();
        if !is_wanted(before)? {
            return Ok(false);
        }
        let deadline = match deadline {
            Deadline::Keep => before.and_then(Entry::deadline),
            Deadline::Clear => None,
            Deadline::At(at) => Some(at),
        };
        found.set(|clock| Entry::string(key, bytes, deadline, clock), |entry| entry.set_string(bytes, deadline));
        self.changed(place, key, event, |out| encode::set_string(out, key, bytes, deadline));
        Ok(true)
    }

    /// Makes the key the integer that `update` makes of its string, by a change that it gives too; a deadline it has stays.
    /// Gives the integer.
    pub fn update_integer<E: From<WrongKind>>(
        &mut self,
        key: &[u8],
        update: impl FnOnce(Option<StringRef<'_>>) -> Result<Increment, E>,
    ) -> Result<i64, E> {
        let place = self.place(key);
        let mut found = self.lookup(place, key);
        let string = found.entry().map(|entry| entry.as_string().ok_or(WrongKind)).transpose()?;
        let Increment { change, result: value } = update(string)?;
        let deadline = found.entry().and_then(Entry::deadline);
        found.set(|clock| Entry::integer(key, value, deadline, clock), |entry| entry.set_integer(value));
        self.changed(place, key, event::INCREMENT, |out| encode::increment(out, key, change, value));
        Ok(value)
    }

    /// Appends to the key's string, or creates it. Returns its length.
    pub fn append(&mut self, key: &[u8], bytes: &[u8]) -> Result<usize, WrongKind> {
        let length = self.modify_buffer(key, |buffer| {
            buffer.extend_from_slice(bytes);
            buffer.len()
        })?;
        let place = self.place(key);
        self.changed(place, key, event::APPEND, |out| encode::append(out, key, bytes));
        Ok(length)
    }

    /// Overwrites the key's string from `offset` on, filling a gap with zeros. Returns its length.
    pub fn set_range(&mut self, key: &[u8], offset: usize, bytes: &[u8]) -> Result<usize, WrongKind> {
        self.set_range_as(key, offset, bytes, event::SET_RANGE)
    }

    /// The same for a command whose event is another one.
    pub fn set_range_as(&mut self, key: &[u8], offset: usize, bytes: &[u8], event: Event) -> Result<usize, WrongKind> {
        let length = self.modify_buffer(key, |buffer| {
            if buffer.len() < offset + bytes.len() {
                buffer.resize(offset + bytes.len(), 0);
            }
            buffer[offset..offset + bytes.len()].copy_from_slice(bytes);
            buffer.len()
        })?;
        let place = self.place(key);
        self.changed(place, key, event, |out| encode::set_range(out, key, offset as u64, bytes));
        Ok(length)
    }

    /// Makes the key this string, which is held as a buffer and not as a number, whatever it was.
    pub fn set_buffer(&mut self, key: &[u8], bytes: Vec<u8>, deadline: Deadline, event: Event) {
        self.set_buffer_by(1, key, bytes, deadline, event);
    }

    /// The same for so many changes, as Redis counts them.
    pub fn set_buffer_by(&mut self, count: usize, key: &[u8], bytes: Vec<u8>, deadline: Deadline, event: Event) {
        let place = self.place(key);
        let mut encoded = Vec::new();
        let is_read = self.engine.log.is_read();
        let mut found = self.lookup(place, key);
        let deadline = match deadline {
            Deadline::Keep => found.entry().and_then(Entry::deadline),
            Deadline::Clear => None,
            Deadline::At(at) => Some(at),
        };
        if is_read {
            encode::set_string(&mut encoded, key, &bytes, deadline);
        }
        // One of the two is called.
        let bytes = Cell::new(bytes);
        found.set(
            |access| Entry::buffer(key, bytes.take(), deadline, access),
            |entry| *entry = Entry::buffer(key, bytes.take(), deadline, entry.access()),
        );
        self.changed_by(count, place, key, event, |out| out.extend_from_slice(&encoded));
    }

    /// Edits the key's string in place, where it has been filled up with zeros to `least` bytes; a missing key is made.
    /// The event is told once, where `edit` has noted a change.
    ///
    /// A string that only grows is no change to Redis; it is none to clients here, and goes to the log.
    pub fn edit_string(
        &mut self,
        key: &[u8],
        least: usize,
        event: Event,
        edit: impl FnOnce(&mut [u8], &mut StringEdit),
    ) -> Result<(), WrongKind> {
        let mut edited = StringEdit::default();
        self.modify_buffer(key, |buffer| {
            if buffer.len() < least {
                buffer.resize(least, 0);
                edited.has_grown = true;
            }
            edit(buffer, &mut edited);
            buffer.len()
        })?;
        let place = self.place(key);
        if edited.has_grown {
            // Before the others, and told with the first of them.
            let put = |out: &mut Vec<u8>| encode::set_range(out, key, least as u64 - 1, &[0]);
            match edited.changes.is_empty() {
                true => self.changed_by(0, place, key, event::SILENT, put),
                false => self.publish(place, put),
            }
        }
        let mut event = event;
        for (offset, bytes, count) in &edited.changes {
            self.changed_by(*count, place, key, event, |out| encode::set_range(out, key, *offset as u64, bytes));
            event = event::SILENT;
        }
        Ok(())
    }

    /// Holds the key's string as a buffer, as a command that modifies strings in place leaves it; its bytes stay.
    pub fn hold_as_buffer(&mut self, key: &[u8]) -> Result<(), WrongKind> {
        self.modify_buffer(key, |buffer| buffer.len()).map(|_| ())
    }

    fn modify_buffer(&mut self, key: &[u8], modify: impl FnOnce(&mut Vec<u8>) -> usize) -> Result<usize, WrongKind> {
        let place = self.place(key);
        let mut found = self.lookup(place, key);
        if found.at.is_none() {
            let mut buffer = Vec::new();
            let length = modify(&mut buffer);
            found.insert(Entry::buffer(key, buffer, None, found.moment.word()));
            return Ok(length);
        }
        let modified = found.change(|entry| entry.as_buffer_mut().map(modify));
        modified.flatten().ok_or(WrongKind)
    }
}
