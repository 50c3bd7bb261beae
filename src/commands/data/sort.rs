//! SORT and SORT_RO: the elements of a list, set or sorted set, in another order, or what other keys hold for them.
//!
//! Patterns name keys by elements. A standalone server takes the locks of all keys for them; in a cluster they must
//! stay in the slot of the key that is sorted, which their hash tag shows, as in Redis 8.

mod pattern;

use crate::base::number::parse_double;
use crate::base::slot::Slot;
use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::commands::spec::{
    Access, Arity::*, Begin, CommandResult, CommandSpec, DANGEROUS, DENYOOM, Find, KeySpec, LIST, MOVABLE_KEYS,
    READONLY, SET, SORTED_SET, WRITE, data, keys,
};
use crate::engine::{Keyspace, event};
use crate::resp::arguments::Arguments;
use crate::resp::reply::ReplyWriter;
use crate::values::list::End;
use crate::values::{Digits, Element, List, Value};
use pattern::Pattern;
use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use super::list::write_element;

const NO_NUMBER: CommandError = CommandError::text("ERR One or more scores can't be converted into double");
/// Of more elements than these the wanted ones are found before they are sorted.
const SELECTED_FROM: usize = 256;

const SORTED: u32 = LIST | SET | SORTED_SET | DANGEROUS;

const NAMED_BY_ELEMENTS: KeySpec = KeySpec {
    access: Access::ReadOnly,
    effects: "access",
    begin: Begin::Unknown,
    find: Find::Unknown,
    notes: "keys that the patterns of BY and GET name by the elements that are sorted",
};
const STORED: KeySpec = KeySpec {
    access: Access::Overwrite,
    effects: "update",
    begin: Begin::Function(store_index),
    find: Find::Unknown,
    notes: "the key behind the last STORE",
};
const READ: &[KeySpec] = &[keys::one(1, Access::ReadOnly, "access"), NAMED_BY_ELEMENTS];
const READ_AND_STORED: &[KeySpec] = &[keys::one(1, Access::ReadOnly, "access"), NAMED_BY_ELEMENTS, STORED];

pub const COMMANDS: &[CommandSpec] = &[
    data("sort", AtLeast(2), WRITE | DENYOOM | MOVABLE_KEYS, SORTED, READ_AND_STORED, sort).spanning(names_keys),
    data("sort_ro", AtLeast(2), READONLY | MOVABLE_KEYS, SORTED, READ, sort_ro).spanning(names_keys),
];

/// The options, by their words; with the indexes of what follows them.
fn options<'a>(arguments: Arguments<'a>) -> impl Iterator<Item = (&'a [u8], usize)> {
    let mut index = 2;
    std::iter::from_fn(move || {
        let word = arguments.get(index)?;
        let behind = index + 1;
        index = behind
            + match word {
                _ if is(word, "limit") => 2,
                _ if is(word, "by") || is(word, "get") || is(word, "store") => 1,
                _ => 0,
            };
        Some((word, behind))
    })
}

/// Where the key is that the result is stored in.
fn store_index(arguments: Arguments<'_>) -> Option<usize> {
    let stores = options(arguments).filter(|(word, behind)| is(word, "store") && *behind < arguments.len());
    stores.last().map(|(_, index)| index)
}

/// Whether a request touches keys that it names by a pattern only.
fn names_keys(arguments: Arguments<'_>) -> bool {
    options(arguments).any(|(word, behind)| {
        (is(word, "by") || is(word, "get")) && arguments.get(behind).is_some_and(|text| Pattern::new(text).names_keys())
    })
}

/// What elements are ordered by.
#[derive(Clone, Copy, Debug)]
enum By<'a> {
    Itself,
    /// They stay as they come.
    Nothing,
    Key(Pattern<'a>),
}

/// A request, read.
#[derive(Debug)]
struct Sort<'a> {
    by: By<'a>,
    gets: Vec<Pattern<'a>>,
    is_descending: bool,
    is_alphabetic: bool,
    offset: i64,
    /// Negative: all.
    count: i64,
    store: Option<&'a [u8]>,
}

impl<'a> Sort<'a> {
    fn parse(arguments: Arguments<'a>, may_store: bool) -> Result<Sort<'a>, CommandError> {
        let mut sort = Sort {
            by: By::Itself,
            gets: Vec::new(),
            is_descending: false,
            is_alphabetic: false,
            offset: 0,
            count: -1,
            store: None,
        };
        for (word, behind) in options(arguments) {
            let argument = |index: usize| arguments.get(index).ok_or(CommandError::Syntax);
            if is(word, "asc") {
                sort.is_descending = false;
            } else if is(word, "desc") {
                sort.is_descending = true;
            } else if is(word, "alpha") {
                sort.is_alphabetic = true;
            } else if is(word, "limit") {
                let (offset, count) = (argument(behind)?, argument(behind + 1)?);
                (sort.offset, sort.count) = (parse::integer(offset)?, parse::integer(count)?);
            } else if is(word, "store") && may_store {
                sort.store = Some(argument(behind)?);
            } else if is(word, "by") {
                let pattern = Pattern::new(argument(behind)?);
                sort.by = if pattern.names_keys() { By::Key(pattern) } else { By::Nothing };
            } else if is(word, "get") {
                sort.gets.push(Pattern::new(argument(behind)?));
            } else {
                return Err(CommandError::Syntax);
            }
        }
        Ok(sort)
    }

    /// In a cluster, a node has only the slot of the key for sure.
    fn check_slots(&self, slot: Slot) -> CommandResult {
        let strays = |pattern: &Pattern<'_>| pattern.names_keys() && pattern.slot() != Some(slot);
        let option = match self.by {
            By::Key(pattern) if strays(&pattern) => "BY",
            _ if self.gets.iter().any(strays) => "GET",
            _ => return Ok(()),
        };
        Err(CommandError::Text(
            format!(
                "ERR {option} option of SORT denied in cluster mode when keys formed by the pattern may be in different \
                 slots."
            )
            .into(),
        ))
    }

    /// The indexes of what is wanted, of so many elements.
    fn range(&self, len: usize) -> Range<usize> {
        let start = usize::try_from(self.offset.max(0)).unwrap_or(len).min(len);
        let count = usize::try_from(self.count).unwrap_or(len);
        start..start.saturating_add(count).min(len)
    }

    /// Whether the reply is elements of the key, in an order for which no other key is looked at.
    fn is_of_one_key(&self) -> bool {
        self.gets.is_empty() && self.store.is_none() && !matches!(self.by, By::Key(_))
    }

    /// The elements that are wanted, in their order.
    fn elements(&self, keyspace: &mut Keyspace<'_>, key: &[u8]) -> Result<Vec<Vec<u8>>, CommandError> {
        let Some(value) = read(keyspace, key)? else { return Ok(Vec::new()) };
        let By::Key(pattern) = self.by else {
            return Ok(self.arranged(value)?.iter().map(Element::to_vec).collect());
        };
        let elements: Vec<_> = all(value)?.map(|element| element.to_vec()).collect();
        let range = self.range(elements.len());
        let weighed = elements.into_iter().map(|element| (pattern.value(keyspace, &element), element)).collect();
        let mut elements = self.sort_by_weight(weighed)?;
        elements.truncate(range.end);
        Ok(elements.split_off(range.start))
    }

    /// The elements that are wanted, in their order, where no other key is looked at for that.
    fn arranged<'v>(&self, value: &'v Value) -> Result<Vec<Element<'v>>, CommandError> {
        let range = self.range(value.len());
        // A stored set must be the same wherever the command is executed again.
        let is_set_to_store = matches!(value, Value::Set(_)) && self.store.is_some();
        if let By::Nothing = self.by
            && !is_set_to_store
        {
            return match value {
                Value::List(list) if self.is_descending => Ok(list.range_reverse(range.start, range.len()).collect()),
                Value::List(list) => Ok(list.range(range.start, range.len()).collect()),
                Value::SortedSet(set) if self.is_descending => {
                    Ok(set.range_reverse(range.start, range.len()).map(|(member, _)| member).collect())
                }
                Value::SortedSet(set) => Ok(set.range(range.start, range.len()).map(|(member, _)| member).collect()),
                _ => Ok(all(value)?.skip(range.start).take(range.len()).collect()),
            };
        }
        if matches!(self.by, By::Itself) && !self.is_alphabetic {
            let weighed = all(value)?.map(|element| Some((weight_of(element)?, element)));
            let weighed = weighed.collect::<Option<Vec<_>>>().ok_or(NO_NUMBER)?;
            return Ok(self.cut(weighed, range, |left, right| {
                let order = left.0.partial_cmp(&right.0).unwrap_or(Ordering::Equal);
                order.then_with(|| left.1.compare(right.1.bytes(&mut Digits::new())))
            }));
        }
        let text = |element| match element {
            Element::Bytes(bytes) => Cow::Borrowed(bytes),
            Element::Integer(_) => Cow::Owned(element.to_vec()),
        };
        let texts = all(value)?.map(|element| (text(element), element)).collect();
        Ok(self.cut(texts, range, |left, right| left.0.cmp(&right.0)))
    }

    /// The elements in this range of the order of their keys. Which of those that are equal comes first nobody can see.
    fn cut<'v, K>(
        &self,
        mut keyed: Vec<(K, Element<'v>)>,
        range: Range<usize>,
        compare: impl Fn(&(K, Element<'v>), &(K, Element<'v>)) -> Ordering,
    ) -> Vec<Element<'v>> {
        let compare = |left: &_, right: &_| self.directed(compare(left, right));
        if keyed.len() > SELECTED_FROM && range.end < keyed.len() {
            keyed.select_nth_unstable_by(range.end, compare);
            keyed.truncate(range.end);
        }
        keyed.sort_unstable_by(compare);
        keyed[range].iter().map(|(_, element)| *element).collect()
    }

    /// Sorts elements by what belongs to them; what has nothing comes first, or counts as 0.
    fn sort_by_weight(&self, mut weighed: Vec<(Option<Vec<u8>>, Vec<u8>)>) -> Result<Vec<Vec<u8>>, CommandError> {
        if self.is_alphabetic {
            weighed.sort_by(|left, right| self.directed(left.0.cmp(&right.0)));
            return Ok(weighed.into_iter().map(|(_, element)| element).collect());
        }
        let number = |text: Option<Vec<u8>>| text.map_or(Some(0.0), |text| weight(&text)).ok_or(NO_NUMBER);
        let weighed = weighed.into_iter().map(|(text, element)| Ok((number(text)?, element)));
        let mut weighed = weighed.collect::<Result<Vec<(f64, Vec<u8>)>, CommandError>>()?;
        weighed.sort_by(|left, right| {
            let order = left.0.partial_cmp(&right.0).unwrap_or(Ordering::Equal);
            self.directed(order.then_with(|| left.1.cmp(&right.1)))
        });
        Ok(weighed.into_iter().map(|(_, element)| element).collect())
    }

    fn directed(&self, order: Ordering) -> Ordering {
        if self.is_descending { order.reverse() } else { order }
    }
}

/// What a key holds, if it is there.
fn read<'k>(keyspace: &'k mut Keyspace<'_>, key: &[u8]) -> Result<Option<&'k Value>, CommandError> {
    match keyspace.read(key) {
        None => Ok(None),
        Some(entry) => entry.as_value().map(Some).ok_or(CommandError::WrongType),
    }
}

/// All elements of a value, as they come.
fn all<'v>(value: &'v Value) -> Result<Box<dyn Iterator<Item = Element<'v>> + 'v>, CommandError> {
    match value {
        Value::List(list) => Ok(Box::new(list.iter())),
        Value::Set(set) => Ok(Box::new(set.iter())),
        Value::SortedSet(set) => Ok(Box::new(set.iter().map(|(member, _)| member))),
        _ => Err(CommandError::WrongType),
    }
}

fn weight_of(element: Element<'_>) -> Option<f64> {
    match element {
        Element::Integer(integer) => Some(integer as f64),
        Element::Bytes(bytes) => weight(bytes),
    }
}

/// The number that an element is sorted by: what strtod makes of a text of which it reads all. Nothing is 0.
fn weight(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    match text.iter().position(|byte| !is_blank(byte)) {
        Some(start) => parse_double(&text[start..]),
        None => text.is_empty().then_some(0.0),
    }
}

fn sort(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    execute(keyspace, arguments, reply, true)
}

fn sort_ro(keyspace: &mut Keyspace<'_>, arguments: Arguments<'_>, reply: &mut ReplyWriter<'_>) -> CommandResult {
    execute(keyspace, arguments, reply, false)
}

fn execute(
    keyspace: &mut Keyspace<'_>,
    arguments: Arguments<'_>,
    reply: &mut ReplyWriter<'_>,
    may_store: bool,
) -> CommandResult {
    let (key, sort) = (arguments.at(1), Sort::parse(arguments, may_store)?);
    if !keyspace.spans_slots() {
        sort.check_slots(Slot::of_key(key))?;
    }
    if sort.is_of_one_key() {
        let elements = read(keyspace, key)?.map_or_else(|| Ok(Vec::new()), |value| sort.arranged(value))?;
        reply.array(elements.len());
        elements.into_iter().for_each(|element| write_element(reply, element));
        return Ok(());
    }
    let elements = sort.elements(keyspace, key)?;
    let Some(to) = sort.store else {
        reply.array(elements.len() * sort.gets.len().max(1));
        for element in &elements {
            if sort.gets.is_empty() {
                reply.bulk(element);
            }
            for pattern in &sort.gets {
                match pattern.value(keyspace, element) {
                    Some(value) => reply.bulk(&value),
                    None => reply.null(),
                }
            }
        }
        return Ok(());
    };
    let (mut list, limits) = (List::new(), keyspace.limits());
    for element in &elements {
        if sort.gets.is_empty() {
            list.push(End::Tail, element, &limits);
        }
        for pattern in &sort.gets {
            let value = pattern.value(keyspace, element).unwrap_or_default();
            list.push(End::Tail, &value, &limits);
        }
    }
    reply.count(keyspace.store(to, Value::List(list), event::SORT_STORE));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::weight;

    #[test]
    fn weights_are_what_strtod_reads() {
        for (text, expected) in [
            ("", Some(0.0)),
            ("1.5", Some(1.5)),
            (" 2", Some(2.0)),
            ("3\u{0}x", Some(3.0)),
            ("-inf", Some(f64::NEG_INFINITY)),
            ("0x10", Some(16.0)),
            ("1e400", None),
            ("nan", None),
            (" ", None),
            ("2 ", None),
            ("two", None),
        ] {
            assert_eq!(weight(text.as_bytes()), expected, "{text:?}");
        }
    }
}
