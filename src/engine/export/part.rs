//! A value that goes in pieces: how much of it the target has, and what of later effects concerns that.
//!
//! ```text
//!   hash, set, sorted set:  |sent, by hash position|         not sent         |
//!                                                  ^ below
//!   list:                   |sent, from the front  |         not sent         |
//!                            <------- sent ------->                           ^ length
//!   string:                 |sent, from the first  |         not sent         |
//!   stream:                 |sent, by id; then by group and id or name |     ^ the cursor
//! ```
//! An effect on what is sent goes on at once; what it does to the rest will be seen when that is read. The first piece
//! comes behind the deletion of the key, so it replaces what the target may have, and the last is followed by the deadline.
//! A key that the target loses in between, with all elements that were sent, comes again with the next piece.
//!
//! What grows faster than it is read would never end. A value of which much more was read than it had at first is
//! *outgrown*: the writers of its slot wait then until it is sent.

use crate::engine::effect::{Effect, Side, encode};
use crate::engine::entry::{Entry, Kind};
use crate::engine::portion::{Elements, Portion, Resume};
use crate::values::hashing::table_hash;
use crate::values::segments::hash_position;
use crate::values::stream::{Cursor, Edit};
use std::ops::Range;

/// A member takes longer to find its place in a sorted set, among others of its score, than another element by this.
const SORTED_WEIGHT: usize = 4;

/// A value is outgrown when so many times the bytes have been read of it that it took in memory at first. Short elements
/// may take three times their bytes there when they are written as effects.
const OUTGROWN: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) key: Box<[u8]>,
    sent: Sent,
    /// Bytes that may still be read before it is outgrown.
    expected: usize,
}

#[derive(Clone, Debug)]
enum Sent {
    /// Elements of a hash, a set or a sorted set with hash positions below this.
    Below(Kind, u32),
    /// So many elements of a list at its front, and how many it has.
    Front { sent: u64, length: u64 },
    /// So many bytes of a string.
    Bytes(u64),
    /// What is before this in a stream.
    Before(Cursor),
}

/// How an effect on the key goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Passage {
    /// As this effect.
    Cut(Vec<u8>),
    /// Not at all: it concerns only what is not sent.
    Nothing,
    /// As it is: what it makes of the key needs nothing that was there.
    Replaces,
    /// Not at all, and nothing that was sent counts any more.
    Again,
}

impl Part {
    /// Of a value of which nothing is sent; the deletion of its key comes first.
    pub(super) fn new(entry: &Entry) -> Part {
        let sent = match entry.kind() {
            Kind::List => Sent::Front { sent: 0, length: 0 },
            Kind::String => Sent::Bytes(0),
            Kind::Stream => Sent::Before(Cursor::default()),
            kind => Sent::Below(kind, 0),
        };
        Part { key: entry.key().into(), sent, expected: OUTGROWN * entry.memory_bytes() }
    }

    /// Whether so much has been read that it must have grown meanwhile.
    pub(super) fn is_outgrown(&self) -> bool {
        self.expected == 0
    }

    /// Reads the next piece, as effects, from the entry as it is behind the last effect that came by. Whether it is the
    /// last one; `None` where the entry is not what those effects say.
    pub(super) fn read(&mut self, entry: &Entry, portion: Portion, effects: &mut Vec<Vec<u8>>) -> Option<bool> {
        let from = match &self.sent {
            Sent::Front { sent, .. } if entry.kind() == Kind::List => Resume::At(*sent),
            Sent::Bytes(sent) if entry.kind() == Kind::String => Resume::At(*sent),
            Sent::Below(kind, below) if entry.kind() == *kind => Resume::At(u64::from(*below)),
            Sent::Before(cursor) if entry.kind() == Kind::Stream => Resume::Stream(cursor.clone()),
            _ => return None,
        };
        let mut elements = Elements::default();
        let next = portion.read(entry, Some(&from), &mut elements);
        let is_last = next.is_none();
        let bytes: usize = elements.iter().map(<[u8]>::len).sum();
        self.expected = self.expected.saturating_sub(bytes);
        match &mut self.sent {
            Sent::Front { sent, length } => {
                *length = entry.as_value()?.len() as u64;
                *sent += elements.len() as u64;
            }
            Sent::Bytes(sent) => *sent += bytes as u64,
            // Behind the last one nothing more is asked.
            Sent::Below(_, below) => {
                if let Some(Resume::At(next)) = next {
                    *below = u32::try_from(next).unwrap_or(*below);
                }
            }
            Sent::Before(cursor) => {
                if let Some(Resume::Stream(next)) = next {
                    *cursor = next;
                }
            }
        }
        let (read, at_once) = (elements.len(), self.applied_at_once(portion));
        for from in (0..read).step_by(at_once) {
            effects.push(self.encode(&elements, from..read.min(from.saturating_add(at_once))));
        }
        let fields = elements.iter().step_by(2).zip(elements.deadlines().iter().copied());
        let mut timed = fields.filter(|(_, deadline)| deadline.is_some()).peekable();
        if timed.peek().is_some() {
            let mut encoded = Vec::new();
            encode::hash_deadlines(&mut encoded, &self.key, timed);
            effects.push(encoded);
        }
        if is_last && entry.deadline().is_some() {
            let mut encoded = Vec::new();
            encode::set_deadline(&mut encoded, &self.key, entry.deadline());
            effects.push(encoded);
        }
        Some(is_last)
    }

    /// The effect that adds elements behind those that are sent.
    fn encode(&self, elements: &Elements, some: Range<usize>) -> Vec<u8> {
        let (mut out, key, scores) = (Vec::new(), &*self.key, elements.scores());
        let mut items = elements.some(some.clone());
        match self.sent {
            Sent::Front { .. } => encode::list_push(&mut out, key, Side::Back, items),
            Sent::Bytes(_) => encode::append(&mut out, key, items.next().unwrap_or_default()),
            Sent::Below(Kind::Hash, _) => {
                let pairs = std::iter::from_fn(|| Some((items.next()?, items.next()?)));
                encode::hash_set(&mut out, key, pairs);
            }
            Sent::Below(Kind::SortedSet, _) => {
                encode::sorted_set_put(&mut out, key, items.zip(scores[some].iter().copied()));
            }
            Sent::Below(..) => encode::set_add(&mut out, key, items),
            Sent::Before(_) => encode::stream_edit(&mut out, key, items),
        }
        out
    }

    /// So many of the elements of a portion are one effect, which is applied under one lock.
    fn applied_at_once(&self, portion: Portion) -> usize {
        match self.sent {
            Sent::Below(Kind::SortedSet, _) => (portion.elements / SORTED_WEIGHT).max(1),
            _ => usize::MAX,
        }
    }

    /// What of an effect on the key is to be sent. Effects on two keys are for the caller to judge.
    pub(super) fn pass(&mut self, effect: &Effect<'_>) -> Passage {
        match (effect, &mut self.sent) {
            (Effect::Delete { .. } | Effect::SetString { .. } | Effect::PutValue { .. }, _) => Passage::Replaces,
            // It follows on the last piece.
            (Effect::SetDeadline { .. }, _) => Passage::Nothing,
            (Effect::ListPush { side, elements, .. }, Sent::Front { sent, length }) => {
                *length += elements.len() as u64;
                match side {
                    Side::Back => Passage::Nothing,
                    Side::Front => {
                        *sent += elements.len() as u64;
                        self.cut(|out, key| encode::list_push(out, key, Side::Front, elements.iter()))
                    }
                }
            }
            (Effect::ListPop { side, count, .. }, Sent::Front { sent, length }) => {
                let popped = match side {
                    Side::Front => (*sent).min(*count),
                    Side::Back => count.saturating_sub(*length - *sent).min(*sent),
                };
                *sent -= popped;
                *length = length.saturating_sub(*count);
                match popped {
                    0 => Passage::Nothing,
                    _ => self.cut(|out, key| encode::list_pop(out, key, *side, popped)),
                }
            }
            (Effect::ListInsert { index, element, .. }, Sent::Front { sent, length }) => {
                *length += 1;
                if *index >= *sent {
                    return Passage::Nothing;
                }
                *sent += 1;
                self.cut(|out, key| encode::list_insert(out, key, *index, element))
            }
            (Effect::ListSet { index, element, .. }, Sent::Front { sent, .. }) => match *index < *sent {
                true => self.cut(|out, key| encode::list_set(out, key, *index, element)),
                false => Passage::Nothing,
            },
            (Effect::ListRemove { indexes, .. }, Sent::Front { sent, length }) => {
                let there = *sent;
                let removed = indexes.iter().take_while(|index| *index < there);
                *sent -= removed.clone().count() as u64;
                *length -= indexes.len() as u64;
                match *sent < there {
                    true => self.cut(|out, key| encode::list_remove(out, key, removed)),
                    false => Passage::Nothing,
                }
            }
            // It comes with what is behind.
            (Effect::Append { .. }, Sent::Bytes(_)) => Passage::Nothing,
            (Effect::SetRange { offset, bytes, .. }, Sent::Bytes(sent)) => match sent.saturating_sub(*offset) {
                0 => Passage::Nothing,
                before => {
                    let before = usize::try_from(before).unwrap_or(usize::MAX).min(bytes.len());
                    self.cut(|out, key| encode::set_range(out, key, *offset, &bytes[..before]))
                }
            },
            (Effect::HashSet { pairs, .. }, Sent::Below(Kind::Hash, below)) => {
                let below = *below;
                self.cut_items(pairs.pairs().filter(|(field, _)| is_below(field, below)), encode::hash_set)
            }
            (Effect::HashRemove { fields, .. }, Sent::Below(Kind::Hash, below)) => {
                let below = *below;
                self.cut_items(fields.iter().filter(|field| is_below(field, below)), encode::hash_remove)
            }
            (Effect::HashDeadlines { fields, .. }, Sent::Below(Kind::Hash, below)) => {
                let below = *below;
                self.cut_items(fields.iter().filter(|(field, _)| is_below(field, below)), encode::hash_deadlines)
            }
            (Effect::SetAdd { members, .. }, Sent::Below(Kind::Set, below)) => {
                let below = *below;
                self.cut_items(members.iter().filter(|member| is_below(member, below)), encode::set_add)
            }
            (Effect::SetRemove { members, .. }, Sent::Below(Kind::Set, below)) => {
                let below = *below;
                self.cut_items(members.iter().filter(|member| is_below(member, below)), encode::set_remove)
            }
            (Effect::SortedSetPut { members, .. }, Sent::Below(Kind::SortedSet, below)) => {
                let below = *below;
                self.cut_items(members.iter().filter(|(member, _)| is_below(member, below)), encode::sorted_set_put)
            }
            (Effect::SortedSetRemove { members, .. }, Sent::Below(Kind::SortedSet, below)) => {
                let below = *below;
                self.cut_items(members.iter().filter(|member| is_below(member, below)), encode::sorted_set_remove)
            }
            (Effect::StreamEdit { edits, .. }, Sent::Before(cursor)) => {
                let cursor = cursor.clone();
                let is_sent = |edit: &&[u8]| Edit::decode(edit).is_some_and(|edit| cursor.is_behind(&edit));
                self.cut_items(edits.iter().filter(is_sent), encode::stream_edit)
            }
            // The value is gone, and the key holds something else by now.
            _ => Passage::Again,
        }
    }

    fn cut(&self, write: impl FnOnce(&mut Vec<u8>, &[u8])) -> Passage {
        let mut out = Vec::new();
        write(&mut out, &self.key);
        Passage::Cut(out)
    }

    fn cut_items<I: Iterator>(
        &self,
        items: I,
        write: impl FnOnce(&mut Vec<u8>, &[u8], std::iter::Peekable<I>),
    ) -> Passage {
        let mut items = items.peekable();
        match items.peek().is_some() {
            true => self.cut(|out, key| write(out, key, items)),
            false => Passage::Nothing,
        }
    }
}

fn is_below(element: &[u8], below: u32) -> bool {
    hash_position(table_hash(element)) < below
}
