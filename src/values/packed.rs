//! A sequence of byte strings and integers in one allocation: the small form of every collection.
//!
//! ```text
//!  00..7f                 integer 0..127            d0..ef + 1 byte     integer of 13 bits, signed
//!  80..bf + bytes         string of 0..63           f0..f6 + 2..8 bytes integer of as many bytes, little endian
//!  c0..cf + 1 byte + ...  string below 4096         f7 + 8 bytes        double
//!                                                   f8 + 4 bytes + ...  string of any length
//! ```
//! Each element has exactly one form, the shortest, so a search compares bytes. A sequence that must be
//! walked backwards too (`BACKWARD`, lists) has the length of each element behind it, in groups of seven
//! bits to be read from the right. A place in the sequence is the byte offset of an element: valid until
//! the sequence changes. Offsets come from this module; one from elsewhere may panic, never more.

use super::element::Element;

/// Beyond this many bytes no collection stays packed, whatever its limits (Redis uses the same bound).
pub(crate) const PACKED_BYTES_MAX: usize = 1 << 30;

const STRING_SHORT: u8 = 0x80;
const STRING_SHORT_MAX: usize = 0x3f;
const STRING_MEDIUM: u8 = 0xc0;
const STRING_MEDIUM_MAX: usize = 0xfff;
const INTEGER_13: u8 = 0xd0;
const INTEGER_BYTES: u8 = 0xf0;
const DOUBLE: u8 = 0xf7;
const STRING_LONG: u8 = 0xf8;

/// The packed sequence. `BACKWARD` costs a byte or more per element.
#[derive(Default, Clone)]
pub struct Packed<const BACKWARD: bool> {
    /// As large as the allocator's size class; the tail is unused.
    buffer: Box<[u8]>,
    used: u32,
    count: u32,
}

/// What a search looks for, in its stored form.
pub struct Needle<'a>(Encoded<'a>);

/// Some of 64 classes, by what is cheap to see of a stored form: its first and its last byte.
#[derive(Clone, Copy, Debug, Default)]
pub struct Classes(u64);

/// Elements from one place to the end.
#[derive(Clone, Default)]
pub struct Iter<'a, const BACKWARD: bool> {
    rest: &'a [u8],
}

impl<'a> Needle<'a> {
    /// The stored form of a byte string.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(Encoded::of_bytes(bytes))
    }

    /// The stored form of an element of another packed sequence.
    #[inline]
    pub fn of(element: Element<'a>) -> Self {
        Self(Encoded::of(element))
    }
}

impl Classes {
    /// Adds the class of an element.
    #[inline]
    pub fn add(&mut self, element: Element<'_>) {
        let encoded = Encoded::of(element);
        self.0 |= 1 << class(encoded.header[0], encoded.last());
    }
}

#[inline]
fn class(first: u8, last: u8) -> u32 {
    (u32::from(first).wrapping_mul(11) ^ u32::from(last)) & 63
}

impl<const BACKWARD: bool> Packed<BACKWARD> {
    /// An empty sequence, which owns no memory.
    pub fn new() -> Self {
        Self { buffer: Box::default(), used: 0, count: 0 }
    }

    /// Number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes in use.
    #[inline]
    pub fn used_bytes(&self) -> usize {
        self.used as usize
    }

    /// Bytes allocated.
    #[inline]
    pub fn allocation_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Whether `additional` bytes of strings keep the sequence far from its bound.
    #[inline]
    pub fn has_room(&self, additional: usize) -> bool {
        self.used_bytes().saturating_add(additional) <= PACKED_BYTES_MAX
    }

    /// Offset behind the last element, which is where `insert` appends.
    #[inline]
    pub fn end(&self) -> usize {
        self.used as usize
    }

    /// The element at an offset.
    #[inline]
    pub fn get(&self, offset: usize) -> Element<'_> {
        decode(&self.buffer[offset..]).0
    }

    /// The number at an offset, written by `insert_score`.
    #[inline]
    pub fn score(&self, offset: usize) -> f64 {
        if self.buffer[offset] == DOUBLE {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.buffer[offset + 1..offset + 9]);
            return f64::from_le_bytes(bytes);
        }
        self.get(offset).integer().unwrap_or_default() as f64
    }

    /// Offset of the next element, or `end`.
    #[inline]
    pub fn next(&self, offset: usize) -> usize {
        behind::<BACKWARD>(&self.buffer, offset)
    }

    /// The element at an offset, and the offset of the next one, or `end`.
    #[inline]
    pub fn read(&self, offset: usize) -> (Element<'_>, usize) {
        let (element, size) = decode(&self.buffer[offset..]);
        (element, offset + full_size::<BACKWARD>(size))
    }

    /// Offset of the element that stands `count` behind the one at `offset`, or `end`.
    #[inline]
    pub fn skip(&self, mut offset: usize, count: usize) -> usize {
        for _ in 0..count {
            if offset >= self.end() {
                break;
            }
            offset = self.next(offset);
        }
        offset
    }

    /// Elements from an offset to the end.
    #[inline]
    pub fn iter_from(&self, offset: usize) -> Iter<'_, BACKWARD> {
        Iter { rest: &self.buffer[offset..self.used as usize] }
    }

    /// All elements.
    #[inline]
    pub fn iter(&self) -> Iter<'_, BACKWARD> {
        self.iter_from(0)
    }

    /// Offset of the first element equal to `needle`, looking at every `stride`-th from `offset` on.
    #[inline]
    pub fn find(&self, mut offset: usize, needle: &Needle<'_>, stride: usize) -> Option<usize> {
        let stored = &self.buffer[..self.used as usize];
        let encoded = &needle.0;
        let (first, last) = (encoded.header[0], encoded.size() - 1);
        // Members of one collection often have the same length and beginning: the last byte tells most of them apart.
        let last_byte = Some(encoded.last());
        while let Some(&byte) = stored.get(offset) {
            if byte == first && stored.get(offset + last).copied() == last_byte && self.equals(offset, needle) {
                return Some(offset);
            }
            offset = behind::<BACKWARD>(stored, offset);
            for _ in 1..stride {
                if offset < stored.len() {
                    offset = behind::<BACKWARD>(stored, offset);
                }
            }
        }
        None
    }

    /// Whether the element at an offset is the one looked for.
    #[inline]
    pub fn equals(&self, offset: usize, needle: &Needle<'_>) -> bool {
        let stored = &self.buffer[offset..self.used as usize];
        let (header, payload) = (needle.0.header(), needle.0.payload);
        stored.len() >= header.len() + payload.len()
            && stored[..header.len()] == *header
            && stored[header.len()..header.len() + payload.len()] == *payload
    }

    /// Adds an element at the end.
    #[inline]
    pub fn push(&mut self, bytes: &[u8]) {
        self.insert(self.end(), bytes);
    }

    /// Inserts an element before the one at an offset and returns the offset behind it.
    #[inline]
    pub fn insert(&mut self, offset: usize, bytes: &[u8]) -> usize {
        self.count += 1;
        self.splice(offset, 0, &Encoded::of_bytes(bytes))
    }

    /// Inserts an element as it came from another packed sequence.
    pub fn insert_element(&mut self, offset: usize, element: Element<'_>) -> usize {
        self.count += 1;
        self.splice(offset, 0, &Encoded::of(element))
    }

    /// Inserts a number, as an integer where that is exact.
    pub fn insert_score(&mut self, offset: usize, score: f64) -> usize {
        self.count += 1;
        self.splice(offset, 0, &Encoded::of_score(score))
    }

    /// Puts another element in the place of the one at an offset; returns the offset behind it.
    pub fn replace(&mut self, offset: usize, bytes: &[u8]) -> usize {
        self.splice(offset, self.next(offset) - offset, &Encoded::of_bytes(bytes))
    }

    /// Removes the element at an offset and those behind it, `count` in all or as many as there are.
    pub fn remove(&mut self, offset: usize, count: usize) {
        let mut end = offset;
        let mut removed = 0;
        while removed < count && end < self.end() {
            end = self.next(end);
            removed += 1;
        }
        self.cut(offset, end, removed);
    }

    /// Removes all elements from an offset on.
    pub fn truncate(&mut self, offset: usize) {
        let removed = self.iter_from(offset).count();
        self.cut(offset, self.end(), removed);
    }

    /// Moves all elements from an offset on into a sequence of their own.
    pub fn split_off(&mut self, offset: usize) -> Self {
        let moved = &self.buffer[offset..self.used as usize];
        let count = self.iter_from(offset).count();
        let mut tail = Self { buffer: Box::default(), used: moved.len() as u32, count: count as u32 };
        tail.buffer = reallocate(Box::default(), moved.len());
        tail.buffer[..moved.len()].copy_from_slice(moved);
        self.cut(offset, self.end(), count);
        tail
    }

    /// Adds all elements of another sequence at the end.
    pub fn append(&mut self, other: &Self) {
        let start = self.end();
        self.open(start, 0, other.used_bytes());
        self.buffer[start..start + other.used_bytes()].copy_from_slice(&other.buffer[..other.used_bytes()]);
        self.count += other.count;
    }

    /// Overwrites `old` bytes at an offset with an element; returns the offset behind it.
    #[inline]
    fn splice(&mut self, offset: usize, old: usize, encoded: &Encoded<'_>) -> usize {
        let size = encoded.size();
        let full = full_size::<BACKWARD>(size);
        self.open(offset, old, full);
        let header = encoded.header();
        let place = &mut self.buffer[offset..offset + full];
        place[..header.len()].copy_from_slice(header);
        place[header.len()..size].copy_from_slice(encoded.payload);
        if BACKWARD {
            write_length(&mut place[size..], size);
        }
        offset + full
    }

    /// Makes `old` bytes at an offset into `new` bytes, whose content the caller writes.
    #[inline]
    fn open(&mut self, offset: usize, old: usize, new: usize) {
        let used = self.used as usize;
        let needed = used - old + new;
        // Invariant: callers keep a sequence below PACKED_BYTES_MAX plus one string of 512 MB.
        assert!(needed <= u32::MAX as usize, "a packed sequence is bounded by its collection");
        if needed > self.buffer.len() {
            self.buffer = reallocate(std::mem::take(&mut self.buffer), needed);
        }
        if new != old && offset + old < used {
            self.buffer.copy_within(offset + old..used, offset + new);
        }
        self.used = needed as u32;
        self.shrink();
    }

    fn cut(&mut self, from: usize, to: usize, removed: usize) {
        self.buffer.copy_within(to..self.used as usize, from);
        self.used -= (to - from) as u32;
        self.count -= removed as u32;
        self.shrink();
    }

    /// Gives memory back once less than half is used.
    #[inline]
    fn shrink(&mut self) {
        if self.used_bytes() * 2 < self.buffer.len() && size_class(self.used_bytes()) < self.buffer.len() {
            let mut bytes = std::mem::take(&mut self.buffer).into_vec();
            bytes.truncate(size_class(self.used as usize));
            self.buffer = bytes.into_boxed_slice();
        }
    }
}

impl Packed<false> {
    /// Visits the elements of these classes.
    #[inline]
    pub fn each_of(&self, classes: Classes, mut visit: impl FnMut(Element<'_>)) {
        let stored = &self.buffer[..self.used as usize];
        let mut offset = 0;
        while let Some(&first) = stored.get(offset) {
            let next = behind::<false>(stored, offset);
            if classes.0 >> class(first, stored[next - 1]) & 1 != 0 {
                visit(decode(&stored[offset..]).0);
            }
            offset = next;
        }
    }
}

impl Packed<true> {
    /// Offset of the element before an offset, which is not 0.
    #[inline]
    pub fn previous(&self, offset: usize) -> usize {
        let (size, length_bytes) = read_length(&self.buffer[..offset]);
        offset - size - length_bytes
    }

    /// Offset of the element with this number, from the nearer end; `end` if there is none.
    pub fn seek(&self, index: usize) -> usize {
        if index >= self.len() {
            return self.end();
        }
        if index <= self.len() / 2 {
            return self.skip(0, index);
        }
        (index..self.len()).fold(self.end(), |offset, _| self.previous(offset))
    }
}

impl<const BACKWARD: bool> std::fmt::Debug for Packed<BACKWARD> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter()).finish()
    }
}

impl<'a, const BACKWARD: bool> Iterator for Iter<'a, BACKWARD> {
    type Item = Element<'a>;

    #[inline]
    fn next(&mut self) -> Option<Element<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (element, size) = decode(self.rest);
        self.rest = &self.rest[full_size::<BACKWARD>(size)..];
        Some(element)
    }
}

/// The bytes an allocation of this size really takes: jemalloc's size classes, four to each doubling.
pub(crate) fn size_class(bytes: usize) -> usize {
    match bytes {
        0 => 0,
        1..=8 => 8,
        9..=128 => bytes.next_multiple_of(16),
        _ => bytes.next_multiple_of(1 << ((bytes - 1).ilog2() - 2)),
    }
}

/// The stored form of an element without the length behind it: `header` and then `payload`.
struct Encoded<'a> {
    header: [u8; 9],
    header_len: u8,
    payload: &'a [u8],
}

impl<'a> Encoded<'a> {
    #[inline]
    fn of_bytes(bytes: &'a [u8]) -> Self {
        Self::of(Element::parse(bytes))
    }

    #[inline]
    fn of(element: Element<'a>) -> Self {
        match element {
            Element::Integer(integer) => Self::of_integer(integer),
            Element::Bytes(payload) => Self::of_string(payload),
        }
    }

    #[inline]
    fn of_string(payload: &'a [u8]) -> Self {
        let mut header = [0; 9];
        let len = payload.len();
        let header_len = if len <= STRING_SHORT_MAX {
            header[0] = STRING_SHORT | len as u8;
            1
        } else if len <= STRING_MEDIUM_MAX {
            header[0] = STRING_MEDIUM | (len >> 8) as u8;
            header[1] = len as u8;
            2
        } else {
            header[0] = STRING_LONG;
            header[1..5].copy_from_slice(&(len as u32).to_le_bytes());
            5
        };
        Self { header, header_len, payload }
    }

    fn of_integer(integer: i64) -> Self {
        let mut header = [0; 9];
        let header_len = match integer {
            0..=127 => {
                header[0] = integer as u8;
                1
            }
            -4096..=4095 => {
                let bits = (integer as u16) & 0x1fff;
                header[0] = INTEGER_13 + (bits >> 8) as u8;
                header[1] = bits as u8;
                2
            }
            _ => {
                // Bits without the repeated sign, and one for it.
                let magnitude = if integer < 0 { !integer } else { integer };
                let bytes = (65 - magnitude.leading_zeros()).div_ceil(8).max(2) as usize;
                header[0] = INTEGER_BYTES + (bytes - 2) as u8;
                header[1..1 + bytes].copy_from_slice(&integer.to_le_bytes()[..bytes]);
                1 + bytes as u8
            }
        };
        Self { header, header_len, payload: &[] }
    }

    fn of_score(score: f64) -> Self {
        let integer = score as i64;
        if integer.unsigned_abs() < 1 << 53 && (integer as f64).to_bits() == score.to_bits() {
            return Self::of_integer(integer);
        }
        let mut header = [DOUBLE; 9];
        header[1..].copy_from_slice(&score.to_le_bytes());
        Self { header, header_len: 9, payload: &[] }
    }

    #[inline]
    fn header(&self) -> &[u8] {
        &self.header[..usize::from(self.header_len)]
    }

    /// The last byte.
    #[inline]
    fn last(&self) -> u8 {
        self.payload.last().copied().unwrap_or(self.header[usize::from(self.header_len) - 1])
    }

    #[inline]
    fn size(&self) -> usize {
        usize::from(self.header_len) + self.payload.len()
    }
}

/// Offset behind the element at an offset, and behind its length.
#[inline(always)]
fn behind<const BACKWARD: bool>(stored: &[u8], offset: usize) -> usize {
    let first = stored[offset];
    if first < STRING_MEDIUM {
        // One byte, and those of a short string: all of it in one, and so is the length behind it.
        return offset + 1 + usize::from(first.max(STRING_SHORT) - STRING_SHORT) + usize::from(BACKWARD);
    }
    offset + full_size::<BACKWARD>(size(&stored[offset..]))
}

/// Bytes of the element that starts here, without the length behind it.
#[inline]
fn size(stored: &[u8]) -> usize {
    let first = stored[0];
    match first {
        0..STRING_SHORT => 1,
        STRING_SHORT..STRING_MEDIUM => 1 + usize::from(first - STRING_SHORT),
        STRING_MEDIUM..INTEGER_13 => 2 + medium_len(stored),
        INTEGER_13..INTEGER_BYTES => 2,
        INTEGER_BYTES..DOUBLE => 3 + usize::from(first - INTEGER_BYTES),
        DOUBLE => 9,
        _ => 5 + long_len(stored),
    }
}

/// The element that starts here and its bytes, without the length behind it. A double shows as its bytes.
#[inline]
fn decode(stored: &[u8]) -> (Element<'_>, usize) {
    let first = stored[0];
    if first < STRING_SHORT {
        return (Element::Integer(i64::from(first)), 1);
    }
    if first < STRING_MEDIUM {
        let size = 1 + usize::from(first - STRING_SHORT);
        return (Element::Bytes(&stored[1..size]), size);
    }
    let size = size(stored);
    let element = match first {
        STRING_MEDIUM..INTEGER_13 => Element::Bytes(&stored[2..size]),
        INTEGER_13..INTEGER_BYTES => {
            let bits = u16::from(first - INTEGER_13) << 8 | u16::from(stored[1]);
            Element::Integer(i64::from((bits << 3) as i16 >> 3))
        }
        INTEGER_BYTES..DOUBLE => {
            let unused = 8 * (9 - size);
            // Eight bytes at once, unless the sequence ends before.
            let word = stored[1..].first_chunk().map_or_else(
                || {
                    let mut bytes = [0; 8];
                    bytes[..size - 1].copy_from_slice(&stored[1..size]);
                    u64::from_le_bytes(bytes)
                },
                |bytes| u64::from_le_bytes(*bytes),
            );
            Element::Integer((word << unused) as i64 >> unused)
        }
        DOUBLE => Element::Bytes(&stored[1..size]),
        _ => Element::Bytes(&stored[5..size]),
    };
    (element, size)
}

#[inline]
fn medium_len(stored: &[u8]) -> usize {
    usize::from(stored[0] - STRING_MEDIUM) << 8 | usize::from(stored[1])
}

#[inline]
fn long_len(stored: &[u8]) -> usize {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&stored[1..5]);
    u32::from_le_bytes(bytes) as usize
}

/// The size of an element with the length behind it.
#[inline]
fn full_size<const BACKWARD: bool>(size: usize) -> usize {
    if BACKWARD { size + length_bytes(size) } else { size }
}

#[inline]
fn length_bytes(size: usize) -> usize {
    match size {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        0x20_0000..0x1000_0000 => 4,
        _ => 5,
    }
}

/// Fills `place`, which has `length_bytes(size)` bytes, lowest group last; all but the first group read say "more".
fn write_length(place: &mut [u8], mut size: usize) {
    let leftmost = place.len() - 1;
    for (left, byte) in place.iter_mut().rev().enumerate() {
        *byte = (size & 0x7f) as u8 | if left < leftmost { 0x80 } else { 0 };
        size >>= 7;
    }
}

/// The length that ends `stored` and the bytes it takes itself.
#[inline]
fn read_length(stored: &[u8]) -> (usize, usize) {
    let mut size = 0;
    for (group, byte) in stored.iter().rev().enumerate() {
        size |= usize::from(byte & 0x7f) << (7 * group);
        if byte & 0x80 == 0 {
            return (size, group + 1);
        }
    }
    (size, 0)
}

/// The same bytes with room for `needed`, up to the allocator's next size class.
#[cold]
fn reallocate(buffer: Box<[u8]>, needed: usize) -> Box<[u8]> {
    let mut bytes = buffer.into_vec();
    let class = size_class(needed);
    bytes.reserve_exact(class - bytes.len());
    bytes.resize(class, 0);
    bytes.into_boxed_slice()
}

#[cfg(test)]
mod tests;
