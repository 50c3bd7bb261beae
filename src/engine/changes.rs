//! Random changes of keys, for tests: what they make of an engine, and what is in it afterwards.

use super::effect::Side;
use super::entry::Entry;
use super::event;
use super::{Deadline, Engine, Increment, Keyspace, WrongKind};
use crate::base::identity::Position;
use crate::base::slot::Slot;
use crate::values::Value;
use crate::values::list::List;
use crate::values::sorted_set::SortedSet;
use crate::values::stream::{Edit, Fields, Id, Stream, put_bytes};
use proptest::prelude::*;
use std::collections::BTreeMap;

pub(super) const NOW_MS: u64 = 1_000_000;
pub(crate) const DATABASES: usize = 3;

/// What happens to one key; numbers name keys, and small values.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Set(u8, u8, Option<u16>),
    SetKeeping(u8, u8),
    Increment(u8, i8),
    Append(u8, u8),
    SetRange(u8, u8, u8),
    /// Writes a byte, or nothing, to a string that has at least so many bytes.
    Edit(u8, u8, Option<u8>),
    Delete(u8),
    Push(u8, Side, Vec<u8>),
    Pop(u8, Side, u8),
    Insert(u8, u8, u8),
    SetAt(u8, u8, u8),
    /// Every so many elements, from one on.
    RemoveAt(u8, u8, u8),
    Trim(u8, u8, u8),
    HashSet(u8, Vec<(u8, u8)>),
    HashSetKeeping(u8, Vec<(u8, u8)>),
    HashRemove(u8, Vec<u8>),
    HashDeadlines(u8, Vec<u8>, Option<u16>),
    SetAdd(u8, Vec<u8>),
    SetRemove(u8, Vec<u8>),
    SetPop(u8, u8),
    Put(u8, Vec<(u8, u8)>),
    Remove(u8, Vec<u8>),
    PopLowest(u8, u8),
    RemoveRanks(u8, u8, u8),
    /// Edits of a stream: what, and of which entry, group or consumer.
    Stream(u8, Vec<(u8, u8)>),
    Deadline(u8, Option<u16>),
    Rename(u8, u8),
    Copy(u8, u8, u8),
    Move(u8, u8),
    Flush(bool),
    Swap(u8, u8),
    /// Time passes, and what has expired is looked for.
    Expire(u16),
}

/// Keys of each kind have numbers of their own, mostly.
pub(crate) fn change() -> impl Strategy<Value = Change> {
    let few = || prop::collection::vec(0..12u8, 1..5);
    let pairs = || prop::collection::vec((0..12u8, any::<u8>()), 1..5);
    let side = || prop_oneof![Just(Side::Front), Just(Side::Back)];
    prop_oneof![
        6 => (0..60u8, any::<u8>(), prop::option::of(any::<u16>())).prop_map(|(k, v, d)| Change::Set(k, v, d)),
        1 => (0..30u8, any::<u8>()).prop_map(|(k, v)| Change::SetKeeping(k, v)),
        3 => (0..20u8, any::<i8>()).prop_map(|(k, v)| Change::Increment(k, v)),
        2 => (0..30u8, any::<u8>()).prop_map(|(k, v)| Change::Append(k, v)),
        1 => (0..30u8, 0..10u8, any::<u8>()).prop_map(|(k, o, v)| Change::SetRange(k, o, v)),
        1 => (0..30u8, 1..10u8, prop::option::of(any::<u8>())).prop_map(|(k, l, v)| Change::Edit(k, l, v)),
        3 => (0..120u8).prop_map(Change::Delete),
        3 => (40..60u8, side(), few()).prop_map(|(k, s, v)| Change::Push(k, s, v)),
        2 => (40..60u8, side(), 0..4u8).prop_map(|(k, s, c)| Change::Pop(k, s, c)),
        1 => (40..60u8, 0..6u8, any::<u8>()).prop_map(|(k, i, v)| Change::Insert(k, i, v)),
        1 => (40..60u8, 0..6u8, any::<u8>()).prop_map(|(k, i, v)| Change::SetAt(k, i, v)),
        1 => (40..60u8, 0..6u8, 1..4u8).prop_map(|(k, i, s)| Change::RemoveAt(k, i, s)),
        1 => (40..60u8, 0..4u8, 0..6u8).prop_map(|(k, i, c)| Change::Trim(k, i, c)),
        3 => (60..80u8, pairs()).prop_map(|(k, v)| Change::HashSet(k, v)),
        1 => (60..80u8, pairs()).prop_map(|(k, v)| Change::HashSetKeeping(k, v)),
        2 => (60..80u8, few()).prop_map(|(k, v)| Change::HashRemove(k, v)),
        3 => (60..80u8, few(), prop::option::weighted(0.8, any::<u16>())).prop_map(|(k, v, d)| Change::HashDeadlines(k, v, d)),
        3 => (80..100u8, few()).prop_map(|(k, v)| Change::SetAdd(k, v)),
        2 => (80..100u8, few()).prop_map(|(k, v)| Change::SetRemove(k, v)),
        1 => (80..100u8, 0..4u8).prop_map(|(k, c)| Change::SetPop(k, c)),
        3 => (100..120u8, pairs()).prop_map(|(k, v)| Change::Put(k, v)),
        2 => (100..120u8, few()).prop_map(|(k, v)| Change::Remove(k, v)),
        1 => (100..120u8, 0..4u8).prop_map(|(k, c)| Change::PopLowest(k, c)),
        1 => (100..120u8, 0..4u8, 0..4u8).prop_map(|(k, r, c)| Change::RemoveRanks(k, r, c)),
        4 => (32..40u8, stream_edits(5)).prop_map(|(k, v)| Change::Stream(k, v)),
        2 => (0..120u8, prop::option::of(any::<u16>())).prop_map(|(k, d)| Change::Deadline(k, d)),
        3 => (0..120u8, 0..120u8).prop_map(|(k, t)| Change::Rename(k, t)),
        2 => (0..120u8, 0..120u8, any::<u8>()).prop_map(|(k, t, d)| Change::Copy(k, t, d)),
        1 => (0..120u8, any::<u8>()).prop_map(|(k, d)| Change::Move(k, d)),
        1 => any::<bool>().prop_map(Change::Flush),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => any::<u16>().prop_map(Change::Expire),
    ]
}

/// Up to so many edits of a stream.
pub(crate) fn stream_edits(most: usize) -> impl Strategy<Value = Vec<(u8, u8)>> {
    prop::collection::vec((0..12u8, any::<u8>()), 1..most)
}

/// Makes edits of a stream, as a command would of what it finds.
fn edit_stream(keys: &mut Keyspace<'_>, key: &[u8], numbers: &[(u8, u8)]) -> Result<(), WrongKind> {
    for (what, number) in numbers {
        let last = keys.peek_collection::<Stream>(key)?.map_or(Id::MIN, Stream::last_id);
        let (group, consumer): (&[u8], &[u8]) = (&[b'g' + number % 3], &[b'c' + number / 3 % 5]);
        let (at, id) = (u64::from(*number), Id::new(u64::from(number % 40), 0));
        let mut items = Vec::new();
        [group, consumer].iter().for_each(|item| put_bytes(&mut items, item));
        let add = Fields::of_items(&items).map(|fields| Edit::Add { id: Id::new(last.ms + 1, at), fields });
        let edit = match (what, add) {
            (0..=4, Some(add)) => add,
            (5, _) => Edit::Delete { id },
            (6, _) => Edit::Trim { through: Id::new(u64::from(number % 20), 0) },
            (7, _) => Edit::Group { group, last, read: Some(at) },
            (8, _) => Edit::Consumer { group, consumer, seen: at, active: None },
            (9, _) => Edit::Pending { group, consumer, id, delivered: at, count: 1 },
            (10, _) => Edit::Acknowledge { group, id },
            _ if *number > 200 => Edit::DropGroup { group },
            _ => Edit::DropConsumer { group, consumer },
        };
        keys.stream_edit(key, &[edit], 1, event::STREAM_ADD)?;
    }
    Ok(())
}

/// Keys of a few slots, so that renames meet both cases.
pub(crate) fn key(number: u8) -> Vec<u8> {
    format!("{{{}}}{number}", number % 3).into_bytes()
}

/// Changes that are made under one set of locks, in one database.
pub(crate) fn group() -> impl Strategy<Value = (u8, Vec<Change>)> {
    (any::<u8>(), prop_oneof![4 => prop::collection::vec(change(), 1..2), 1 => prop::collection::vec(change(), 1..6)])
}

/// Makes the changes of a group.
pub(crate) fn perform(engine: &Engine, database: u8, changes: &[Change]) {
    let database = database as usize % DATABASES;
    let mut keys = engine.lock_all(database, NOW_MS);
    for change in changes {
        if let Change::Expire(after) = change {
            drop(keys);
            let later = NOW_MS + u64::from(*after);
            keys = engine.lock_all(database, later);
            for number in 0..120 {
                keys.exists(&key(number));
            }
            drop(keys);
            keys = engine.lock_all(database, NOW_MS);
        } else {
            make(&mut keys, change, &key);
        }
    }
}

/// Makes one change in the selected database of locked shards; `name` makes keys of numbers.
pub(crate) fn make(keys: &mut Keyspace<'_>, change: &Change, name: &dyn Fn(u8) -> Vec<u8>) {
    let at = |after: u16| NOW_MS + 1 + u64::from(after);
    let bytes: Vec<[u8; 1]> = (0..=255).map(|byte| [byte]).collect();
    let of = |values: &[u8]| values.iter().map(|value| &bytes[*value as usize][..]).collect::<Vec<_>>();
    let other = |number: u8| number as usize % keys.database_count();
    match change {
        Change::Set(k, v, after) => {
            let deadline = after.map_or(Deadline::Clear, |after| Deadline::At(at(after)));
            keys.set_string(&name(*k), &[*v], deadline);
        }
        Change::SetKeeping(k, v) => keys.set_string(&name(*k), &[*v], Deadline::Keep),
        Change::Increment(k, by) => {
            let _ = keys.update_integer(&name(*k), |string| {
                let before = string.map_or(0, |string| string.with_bytes(|bytes| bytes.len() as i64));
                Ok::<_, WrongKind>(Increment { change: i64::from(*by), result: before + i64::from(*by) })
            });
        }
        Change::Append(k, v) => drop(keys.append(&name(*k), &[*v])),
        Change::SetRange(k, offset, v) => drop(keys.set_range(&name(*k), *offset as usize, &[*v])),
        Change::Edit(k, least, written) => {
            let _ = keys.edit_string(&name(*k), *least as usize, event::SET_BIT, |bytes, edit| {
                if let (Some(byte), Some(first)) = (written, bytes.first_mut()) {
                    *first = *byte;
                    edit.wrote(0, &[*byte]);
                }
            });
        }
        Change::Delete(k) => drop(keys.delete(&name(*k))),
        Change::Push(k, side, values) => drop(keys.list_push(&name(*k), *side, of(values).into_iter())),
        Change::Pop(k, side, count) => drop(keys.list_pop(&name(*k), *side, *count as usize, |_| {})),
        Change::Insert(k, index, v) => drop(keys.list_insert(&name(*k), *index as usize, &[*v])),
        Change::SetAt(k, index, v) => drop(keys.list_set(&name(*k), *index as usize, &[*v])),
        Change::RemoveAt(k, first, stride) => {
            let length = keys.peek_collection::<List>(&name(*k)).ok().flatten().map_or(0, List::len);
            let indexes: Vec<usize> = (*first as usize..length).step_by(*stride as usize).collect();
            let _ = keys.list_remove(&name(*k), &indexes);
        }
        Change::Trim(k, start, count) => {
            let _ = keys.list_trim(&name(*k), |length| {
                let start = length.min(*start as usize);
                (start, (length - start).min(*count as usize))
            });
        }
        Change::HashSet(k, pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(f, v)| (&bytes[*f as usize][..], &bytes[*v as usize][..])).collect();
            let _ = keys.hash_set(&name(*k), pairs.into_iter());
        }
        Change::HashSetKeeping(k, pairs) => {
            let pairs: Vec<_> = pairs.iter().map(|(f, v)| (&bytes[*f as usize][..], &bytes[*v as usize][..])).collect();
            let _ = keys.hash_set_keeping(&name(*k), pairs.into_iter(), event::HASH_INCREMENT);
        }
        Change::HashDeadlines(k, fields, after) => {
            let fields = of(fields).into_iter().map(|field| (field, after.map(at)));
            let _ = keys.hash_set_deadlines(&name(*k), fields, 1, event::HASH_EXPIRE);
        }
        Change::HashRemove(k, fields) => drop(keys.hash_remove(&name(*k), of(fields).into_iter())),
        Change::SetAdd(k, members) => drop(keys.set_add(&name(*k), of(members).into_iter())),
        Change::SetRemove(k, members) => drop(keys.set_remove(&name(*k), of(members).into_iter())),
        Change::SetPop(k, count) => drop(keys.set_pop(&name(*k), *count as usize)),
        Change::Put(k, members) => {
            let members: Vec<_> = members.iter().map(|(m, s)| (&bytes[*m as usize][..], f64::from(*s))).collect();
            let _ = keys.sorted_set_put(&name(*k), &members, event::SORTED_SET_PUT);
        }
        Change::Remove(k, members) => drop(keys.sorted_set_remove(&name(*k), of(members).into_iter())),
        Change::PopLowest(k, count) => drop(keys.sorted_set_pop(&name(*k), Side::Front, *count as usize)),
        Change::RemoveRanks(k, rank, count) => {
            let start = *rank as usize;
            let select = |_: &SortedSet| start..start + *count as usize;
            let _ = keys.sorted_set_remove_range(&name(*k), select, event::SORTED_SET_REMOVE_RANKS);
        }
        Change::Stream(k, edits) => drop(edit_stream(keys, &name(*k), edits)),
        Change::Deadline(k, after) => drop(keys.set_deadline(&name(*k), after.map(at))),
        Change::Rename(k, to) if k != to => drop(keys.rename(&name(*k), &name(*to))),
        Change::Copy(k, to, database) if k != to => drop(keys.copy(&name(*k), &name(*to), other(*database))),
        Change::Move(k, database) => {
            let (here, there) = (keys.database(), other(*database));
            keys.select(there);
            let is_free = !keys.exists(&name(*k));
            keys.select(here);
            if is_free {
                keys.move_to(&name(*k), there);
            }
        }
        Change::Flush(all) => drop(keys.flush((!all).then_some(keys.database()))),
        Change::Swap(first, second) if other(*first) != other(*second) => {
            keys.swap_databases(other(*first), other(*second));
        }
        Change::Rename(..) | Change::Copy(..) | Change::Swap(..) | Change::Expire(_) => {}
    }
}

/// Every key of a database in some slots, with its deadline and its contents; unordered ones in a fixed order.
pub(crate) fn contents(
    engine: &Engine,
    database: usize,
    slots: impl Iterator<Item = Slot>,
) -> BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut found = BTreeMap::new();
    // At time 0 nothing has expired.
    let mut keys = engine.lock_all(database, 0);
    for slot in slots {
        keys.visit_slot(slot, |entry| _ = found.insert(entry.key().to_vec(), parts(entry)));
    }
    found
}

/// What is in one entry.
pub(crate) fn parts(entry: &Entry) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> = match entry.as_value() {
        Some(Value::Set(set)) => set.iter().map(|member| member.to_vec()).collect(),
        Some(Value::Hash(hash)) => {
            let part = |field: Vec<u8>, value| {
                let deadline = format!("{:?}", hash.deadline(&field)).into_bytes();
                [field, value, deadline].concat()
            };
            hash.iter().map(|(field, value)| part(field.to_vec(), value.to_vec())).collect()
        }
        _ => vec![super::export::encode_entry(entry)],
    };
    parts.sort();
    parts.push(format!("{:?} {:?}", entry.kind(), entry.deadline()).into_bytes());
    parts
}

/// Where the histories of all slots stand.
pub(crate) fn positions(engine: &Engine) -> Vec<Position> {
    let (placement, mut keys) = (engine.placement(), engine.lock_all(0, 0));
    let mut position =
        |slot: Slot| keys.locks.shard(placement.shard(slot)).meta(placement.slot_in_shard(slot)).position;
    Slot::all().map(&mut position).collect()
}
