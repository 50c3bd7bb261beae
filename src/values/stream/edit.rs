//! Edits: everything that happens to a stream, one small change each.
//!
//! A command makes edits of what it finds; who applies the same edits in the same order has the same stream. An image is the
//! edits that make the stream of an empty one. An encoded edit is a tag and its fields. Tags are stable.

use super::codec::{put_bytes, put_id, put_integer, put_optional};
use super::codec::{take_byte, take_bytes, take_id, take_integer, take_optional};
use super::id::Id;
use super::node::Fields;

/// One change of a stream. Times are Unix milliseconds.
#[derive(Clone, Copy, Debug)]
pub enum Edit<'a> {
    /// An entry, above all that were there.
    Add {
        id: Id,
        fields: Fields<'a>,
    },
    /// The greatest id that was given, the greatest that was deleted, and how many entries were ever added.
    Counters {
        last: Id,
        max_deleted: Id,
        added: u64,
    },
    /// The entry with this id goes.
    Delete {
        id: Id,
    },
    /// All entries up to this id go.
    Trim {
        through: Id,
    },
    /// A group, new or as it was: the last id that was delivered, and how many entries were read, if that is known.
    Group {
        group: &'a [u8],
        last: Id,
        read: Option<u64>,
    },
    DropGroup {
        group: &'a [u8],
    },
    /// A consumer, new or as it was: when it was seen, and when it last was given something.
    Consumer {
        group: &'a [u8],
        consumer: &'a [u8],
        seen: u64,
        active: Option<u64>,
    },
    /// With all that is pending for it.
    DropConsumer {
        group: &'a [u8],
        consumer: &'a [u8],
    },
    /// An entry is pending for a consumer, and for no other: when it was delivered, and how often.
    Pending {
        group: &'a [u8],
        consumer: &'a [u8],
        id: Id,
        delivered: u64,
        count: u64,
    },
    /// An entry is not pending any more.
    Acknowledge {
        group: &'a [u8],
        id: Id,
    },
}

mod tags {
    pub(super) const ADD: u8 = 1;
    pub(super) const COUNTERS: u8 = 2;
    pub(super) const DELETE: u8 = 3;
    pub(super) const TRIM: u8 = 4;
    pub(super) const GROUP: u8 = 5;
    pub(super) const DROP_GROUP: u8 = 6;
    pub(super) const CONSUMER: u8 = 7;
    pub(super) const DROP_CONSUMER: u8 = 8;
    pub(super) const PENDING: u8 = 9;
    pub(super) const ACKNOWLEDGE: u8 = 10;
}

impl<'a> Edit<'a> {
    /// Appends the encoded form.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match *self {
            Edit::Add { id, fields } => {
                out.push(tags::ADD);
                put_id(out, id);
                fields.put_items(out);
            }
            Edit::Counters { last, max_deleted, added } => {
                out.push(tags::COUNTERS);
                put_id(out, last);
                put_id(out, max_deleted);
                put_integer(out, added);
            }
            Edit::Delete { id } => {
                out.push(tags::DELETE);
                put_id(out, id);
            }
            Edit::Trim { through } => {
                out.push(tags::TRIM);
                put_id(out, through);
            }
            Edit::Group { group, last, read } => {
                out.push(tags::GROUP);
                put_bytes(out, group);
                put_id(out, last);
                put_optional(out, read);
            }
            Edit::DropGroup { group } => {
                out.push(tags::DROP_GROUP);
                put_bytes(out, group);
            }
            Edit::Consumer { group, consumer, seen, active } => {
                out.push(tags::CONSUMER);
                put_bytes(out, group);
                put_bytes(out, consumer);
                put_integer(out, seen);
                put_optional(out, active);
            }
            Edit::DropConsumer { group, consumer } => {
                out.push(tags::DROP_CONSUMER);
                put_bytes(out, group);
                put_bytes(out, consumer);
            }
            Edit::Pending { group, consumer, id, delivered, count } => {
                out.push(tags::PENDING);
                put_bytes(out, group);
                put_bytes(out, consumer);
                put_id(out, id);
                put_integer(out, delivered);
                put_integer(out, count);
            }
            Edit::Acknowledge { group, id } => {
                out.push(tags::ACKNOWLEDGE);
                put_bytes(out, group);
                put_id(out, id);
            }
        }
    }

    /// The encoded form.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode(&mut out);
        out
    }

    /// Reads one edit, which all of the bytes are; `None` where they are not one.
    pub fn decode(mut bytes: &'a [u8]) -> Option<Edit<'a>> {
        let from = &mut bytes;
        let edit = match take_byte(from)? {
            tags::ADD => {
                let id = take_id(from)?;
                let fields = Fields::of_items(std::mem::take(from))?;
                Edit::Add { id, fields }
            }
            tags::COUNTERS => {
                Edit::Counters { last: take_id(from)?, max_deleted: take_id(from)?, added: take_integer(from)? }
            }
            tags::DELETE => Edit::Delete { id: take_id(from)? },
            tags::TRIM => Edit::Trim { through: take_id(from)? },
            tags::GROUP => Edit::Group { group: take_bytes(from)?, last: take_id(from)?, read: take_optional(from)? },
            tags::DROP_GROUP => Edit::DropGroup { group: take_bytes(from)? },
            tags::CONSUMER => Edit::Consumer {
                group: take_bytes(from)?,
                consumer: take_bytes(from)?,
                seen: take_integer(from)?,
                active: take_optional(from)?,
            },
            tags::DROP_CONSUMER => Edit::DropConsumer { group: take_bytes(from)?, consumer: take_bytes(from)? },
            tags::PENDING => Edit::Pending {
                group: take_bytes(from)?,
                consumer: take_bytes(from)?,
                id: take_id(from)?,
                delivered: take_integer(from)?,
                count: take_integer(from)?,
            },
            tags::ACKNOWLEDGE => Edit::Acknowledge { group: take_bytes(from)?, id: take_id(from)? },
            _ => return None,
        };
        bytes.is_empty().then_some(edit)
    }

    /// The group that it is about, if it is about one.
    pub fn group(&self) -> Option<&'a [u8]> {
        match *self {
            Edit::Group { group, .. }
            | Edit::DropGroup { group }
            | Edit::Consumer { group, .. }
            | Edit::DropConsumer { group, .. }
            | Edit::Pending { group, .. }
            | Edit::Acknowledge { group, .. } => Some(group),
            Edit::Add { .. } | Edit::Counters { .. } | Edit::Delete { .. } | Edit::Trim { .. } => None,
        }
    }
}
