//! The image of a collection: bytes from which another node or process builds the same value.
//!
//! ```text
//!  1 list         element ...        an element, field, value, member: length (LEB128), bytes
//!  2 hash         field value ...
//!  3 set          member ...
//!  4 sorted set   member score ...   a score: double, little endian; lowest first
//!  5 stream       edit ...           what makes it of an empty one (`stream/edit`), each with its length in front
//!  9 hash         field value deadline ...   of which fields have deadlines: LEB128, one more than it, or 0 for none
//! ```
//! The encoding of the value is not part of the image: the reader's own limits choose it. Tags are stable.
//! Reading trusts nothing: damaged bytes give `None`, and never more memory than they have themselves.

use super::element::{Digits, Element};
use super::list::End;
use super::stream::{self, Cursor, Edit};
use super::{Hash, Limits, List, Set, SortedSet, Stream, Value};

const LIST: u8 = 1;
const HASH: u8 = 2;
const SET: u8 = 3;
const SORTED_SET: u8 = 4;
const STREAM: u8 = 5;
const TIMED_HASH: u8 = 9;

impl Value {
    /// Appends the image of the value.
    pub fn write_image(&self, out: &mut Vec<u8>) {
        match self {
            Self::List(list) => {
                out.push(LIST);
                list.iter().for_each(|element| put(out, element));
            }
            Self::Hash(hash) => {
                let is_timed = hash.first_deadline().is_some();
                out.push(if is_timed { TIMED_HASH } else { HASH });
                for (field, value, deadline) in hash.iter_timed() {
                    put(out, field);
                    put(out, value);
                    if is_timed {
                        put_number(out, deadline.map_or(0, |deadline| deadline.saturating_add(1)));
                    }
                }
            }
            Self::Set(set) => {
                out.push(SET);
                set.iter().for_each(|member| put(out, member));
            }
            Self::SortedSet(sorted_set) => {
                out.push(SORTED_SET);
                for (member, score) in sorted_set.iter() {
                    put(out, member);
                    out.extend_from_slice(&score.to_le_bytes());
                }
            }
            Self::Stream(stream) => {
                out.push(STREAM);
                let all =
                    stream.read(&Cursor::default(), usize::MAX, usize::MAX, &mut |edit| stream::put_bytes(out, edit));
                debug_assert_eq!(all, None);
            }
        }
    }

    /// The value of an image; `None` if the bytes are not one of a collection that holds something.
    pub fn from_image(image: &[u8], limits: &Limits) -> Option<Self> {
        let (&tag, mut rest) = image.split_first()?;
        let bytes = &mut rest;
        let value = match tag {
            LIST => {
                let mut list = List::new();
                while !bytes.is_empty() {
                    list.push(End::Tail, take(bytes)?, limits);
                }
                Self::List(list)
            }
            HASH => {
                let mut hash = Hash::new();
                while !bytes.is_empty() {
                    hash.set(take(bytes)?, take(bytes)?, limits);
                }
                Self::Hash(hash)
            }
            TIMED_HASH => {
                let mut hash = Hash::new();
                while !bytes.is_empty() {
                    let (field, value) = (take(bytes)?, take(bytes)?);
                    hash.set(field, value, limits);
                    hash.set_deadline(field, take_number(bytes)?.checked_sub(1));
                }
                Self::Hash(hash)
            }
            SET => {
                let mut set = Set::new();
                while !bytes.is_empty() {
                    set.add(take(bytes)?, limits);
                }
                Self::Set(set)
            }
            SORTED_SET => {
                let mut sorted_set = SortedSet::new();
                while !bytes.is_empty() {
                    let member = take(bytes)?;
                    let (score, behind) = bytes.split_first_chunk()?;
                    *bytes = behind;
                    let score = Some(f64::from_le_bytes(*score)).filter(|score| !score.is_nan())?;
                    sorted_set.insert(member, score, limits);
                }
                Self::SortedSet(sorted_set)
            }
            STREAM => {
                let mut stream = Stream::new();
                while !bytes.is_empty() {
                    stream.apply(&Edit::decode(take(bytes)?)?, limits);
                }
                Self::Stream(Box::new(stream))
            }
            _ => return None,
        };
        (!value.is_empty()).then_some(value)
    }
}

fn put(out: &mut Vec<u8>, element: Element<'_>) {
    let mut digits = Digits::new();
    let bytes = element.bytes(&mut digits);
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn take_number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, behind) = bytes.split_first()?;
        *bytes = behind;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

fn take<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let mut len = 0usize;
    // Five groups of seven bits hold the length of any string there may be.
    for group in 0..5 {
        let (&byte, behind) = bytes.split_first()?;
        *bytes = behind;
        len |= usize::from(byte & 0x7f) << (7 * group);
        if byte < 0x80 {
            let (taken, behind) = bytes.split_at_checked(len)?;
            *bytes = behind;
            return Some(taken);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn image(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.write_image(&mut out);
        out
    }

    fn values(members: &[Vec<u8>], limits: &Limits) -> [Value; 4] {
        let (mut list, mut hash, mut set, mut sorted_set) = (List::new(), Hash::new(), Set::new(), SortedSet::new());
        for (number, member) in members.iter().enumerate() {
            list.push(End::Tail, member, limits);
            hash.set(member, number.to_string().as_bytes(), limits);
            set.add(member, limits);
            sorted_set.insert(member, number as f64 / 3.0, limits);
        }
        [Value::List(list), Value::Hash(hash), Value::Set(set), Value::SortedSet(sorted_set)]
    }

    fn sorted(value: &Value) -> Vec<u8> {
        let mut bytes = image(value);
        bytes.sort_unstable();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_value_comes_back_from_its_image_and_from_a_clone(
            members in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..200),
                any::<i64>().prop_map(|it| it.to_string().into_bytes()),
            ], 1..400),
        ) {
            let limits = Limits::default();
            for value in values(&members, &limits) {
                let back = Value::from_image(&image(&value), &limits).expect("a whole image");
                prop_assert_eq!(back.type_name(), value.type_name());
                prop_assert_eq!(back.encoding(), value.encoding());
                prop_assert_eq!(back.len(), value.len());
                prop_assert_eq!(sorted(&back), sorted(&value));
                let mut copy = value.clone();
                prop_assert_eq!(image(&copy), image(&value));
                if let (Value::SortedSet(copy), Some(member)) = (&mut copy, members.first()) {
                    copy.remove(member);
                    copy.insert(member, 1e9, &limits);
                    prop_assert_eq!(copy.rank(member).map(|(rank, _)| rank + 1), Some(copy.len()));
                }
            }
        }

        #[test]
        fn damaged_images_are_refused_or_read_without_harm(
            mut bytes in prop::collection::vec(any::<u8>(), 0..60),
            tag in 0u8..11,
        ) {
            bytes.insert(0, tag);
            if let Some(value) = Value::from_image(&bytes, &Limits::default()) {
                prop_assert!(!value.is_empty());
            }
        }
    }

    #[test]
    fn what_holds_nothing_has_no_image() {
        for bytes in [b"".as_slice(), b"\x01", b"\x02", b"\x03", b"\x04", b"\x05\x01a", b"\x02\x01a", b"\x01\x05a"] {
            assert!(Value::from_image(bytes, &Limits::default()).is_none(), "{bytes:?}");
        }
        let mut not_a_number = b"\x04\x01a".to_vec();
        not_a_number.extend_from_slice(&f64::NAN.to_le_bytes());
        assert!(Value::from_image(&not_a_number, &Limits::default()).is_none());
    }

    #[test]
    fn deadlines_of_fields_are_in_the_image() {
        let limits = Limits::default();
        for count in [3, 600] {
            let mut hash = Hash::new();
            for number in 0..count {
                let field = number.to_string();
                hash.set(field.as_bytes(), b"value", &limits);
                hash.set_deadline(field.as_bytes(), (number % 3 > 0).then_some(number << 40));
            }
            let value = Value::Hash(hash.clone());
            let Some(Value::Hash(back)) = Value::from_image(&image(&value), &limits) else { panic!("a hash") };
            assert_eq!((back.len(), back.encoding()), (hash.len(), hash.encoding()));
            for number in 0..count {
                let field = number.to_string();
                assert_eq!(back.deadline(field.as_bytes()), hash.deadline(field.as_bytes()), "{number} of {count}");
            }
            let cut = image(&value);
            assert!(Value::from_image(&cut[..cut.len() - 1], &limits).is_none());
        }
    }
}
