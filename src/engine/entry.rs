//! An entry: one key with its value, in one allocation behind a thin pointer.
//!
//! ```text
//!  header (16 bytes)                        deadline   body                    key      bytes
//! +---------+-----------+--------+------+-------+----+----------+-----------------------+--------+--------+
//! | key_len | value_len | access | mark | form  | .. | u64, if  | Integer i64           | ...    | if the |
//! |   u32   |    u32    | 24 bit | u8   | flags |    | it has   | Buffer  Vec<u8>       |        | form is|
//! |         |           |        |      |       |    | one      | Value   values::Value |        | Inline |
//! +---------+-----------+--------+------+-------+----+----------+-----------------------+--------+--------+
//! ```
//!
//! A string that is small, or has never been modified in place, lies inline behind the key; one that grows (APPEND,
//! SETRANGE) has a buffer; one that is the decimal form of an integer is kept as the integer. Blocks are sized in the
//! allocator's classes, so that a value of about the same length is overwritten in place.
//!
//! This is one of the few files with `unsafe`: it computes the places of the parts in the block.
//! Invariant: `layout()` of the header's fields is the layout the block was allocated with, and the body is initialized
//! with the type that `form` names. Every function that changes one of these fields either keeps the layout or builds a
//! new block. The tests run under valgrind too: `make memcheck`.

#![allow(unsafe_code)]

mod timing;

pub(super) use timing::{Life, Timing};

use crate::base::number;
use crate::values::Value;
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::borrow::Cow;
use std::ptr::NonNull;

/// Strings up to this length lie inline when they are set whole.
const INLINE_BYTES_MAX: usize = 16 * 1024;

/// What Redis's TYPE names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    String,
    List,
    Set,
    SortedSet,
    Hash,
    Stream,
}

/// How the value is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Form {
    Integer,
    Inline,
    Buffer,
    Value,
}

/// A string value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StringRef<'a> {
    /// The decimal form of this integer.
    Integer(i64),
    Bytes(&'a [u8]),
}

impl<'a> StringRef<'a> {
    /// The bytes where they lie, or the digits.
    pub fn to_bytes(&self) -> Cow<'a, [u8]> {
        match self {
            StringRef::Integer(value) => Cow::Owned(itoa::Buffer::new().format(*value).as_bytes().to_vec()),
            StringRef::Bytes(bytes) => Cow::Borrowed(bytes),
        }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        match self {
            StringRef::Integer(value) => itoa::Buffer::new().format(*value).len(),
            StringRef::Bytes(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Calls `read` with the bytes.
    pub fn with_bytes<R>(&self, read: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            StringRef::Integer(value) => read(itoa::Buffer::new().format(*value).as_bytes()),
            StringRef::Bytes(bytes) => read(bytes),
        }
    }

    /// A copy of the bytes.
    pub fn to_vec(&self) -> Vec<u8> {
        self.with_bytes(<[u8]>::to_vec)
    }
}

const HAS_DEADLINE: u8 = 1;
/// Only for OBJECT ENCODING: the string was modified in place at some time.
const MODIFIED: u8 = 2;

#[repr(C)]
#[derive(Clone, Copy)]
struct Header {
    key_length: u32,
    /// Length of an inline string, else 0.
    value_length: u32,
    /// The low 24 bits: LRU clock or LFU counter. The high 8: the snapshot's mark (`engine/snapshot`).
    access: u32,
    form: Form,
    flags: u8,
    _reserved: u16,
}

/// The body of a new block.
enum Body<'a> {
    Integer(i64),
    Inline(&'a [u8]),
    Buffer(Vec<u8>),
    Value(Value),
}

/// Owns the block.
pub struct Entry(NonNull<Header>);

// SAFETY: an entry owns its block alone, and everything in it is Send.
unsafe impl Send for Entry {}
// SAFETY: nothing in it changes behind a shared reference.
unsafe impl Sync for Entry {}

impl Entry {
    /// A string. `deadline` is in Unix milliseconds; `access` is the LRU clock or LFU counter in the low 24 bits, and the
    /// mark above them.
    pub fn string(key: &[u8], bytes: &[u8], deadline: Option<u64>, access: u32) -> Entry {
        match number::parse_i64(bytes) {
            Some(value) => Entry::build(key, Body::Integer(value), deadline, access),
            None if bytes.len() <= INLINE_BYTES_MAX => Entry::build(key, Body::Inline(bytes), deadline, access),
            None => Entry::build(key, Body::Buffer(bytes.to_vec()), deadline, access),
        }
    }

    /// A string that is the decimal form of `value`.
    pub fn integer(key: &[u8], value: i64, deadline: Option<u64>, access: u32) -> Entry {
        Entry::build(key, Body::Integer(value), deadline, access)
    }

    /// A string that will be modified in place.
    pub fn buffer(key: &[u8], bytes: Vec<u8>, deadline: Option<u64>, access: u32) -> Entry {
        let mut entry = Entry::build(key, Body::Buffer(bytes), deadline, access);
        entry.header_mut().flags |= MODIFIED;
        entry
    }

    /// A collection.
    pub fn value(key: &[u8], value: Value, deadline: Option<u64>, access: u32) -> Entry {
        Entry::build(key, Body::Value(value), deadline, access)
    }

    #[inline]
    pub fn key(&self) -> &[u8] {
        let header = self.header();
        // SAFETY: by the invariant, key_length initialized bytes lie there.
        unsafe { std::slice::from_raw_parts(self.place(key_offset(header)), header.key_length as usize) }
    }

    /// When the key expires, in Unix milliseconds.
    #[inline]
    pub fn deadline(&self) -> Option<u64> {
        if self.header().flags & HAS_DEADLINE == 0 {
            return None;
        }
        // SAFETY: the flag says that a u64 lies behind the header, which is a multiple of 8 bytes long.
        Some(unsafe { self.place(size_of::<Header>()).cast::<u64>().read() })
    }

    /// Whether the key has expired at this moment.
    #[inline]
    pub fn is_expired(&self, now_ms: u64) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now_ms)
    }

    #[inline]
    pub fn kind(&self) -> Kind {
        match self.as_value() {
            None => Kind::String,
            Some(Value::List(_)) => Kind::List,
            Some(Value::Set(_)) => Kind::Set,
            Some(Value::SortedSet(_)) => Kind::SortedSet,
            Some(Value::Hash(_)) => Kind::Hash,
            Some(Value::Stream(_)) => Kind::Stream,
        }
    }

    /// The value, where it is a string.
    #[inline]
    pub fn as_string(&self) -> Option<StringRef<'_>> {
        let header = self.header();
        match header.form {
            // SAFETY: the form names the type of the body.
            Form::Integer => Some(StringRef::Integer(unsafe { *self.body::<i64>() })),
            Form::Inline => {
                let offset = key_offset(header) + header.key_length as usize;
                // SAFETY: an inline string of value_length initialized bytes lies behind the key.
                let bytes = unsafe { std::slice::from_raw_parts(self.place(offset), header.value_length as usize) };
                Some(StringRef::Bytes(bytes))
            }
            // SAFETY: the form names the type of the body.
            Form::Buffer => Some(StringRef::Bytes(unsafe { &*self.body::<Vec<u8>>() })),
            Form::Value => None,
        }
    }

    /// The value, where it is a collection.
    #[inline]
    pub fn as_value(&self) -> Option<&Value> {
        // SAFETY: the form names the type of the body.
        (self.header().form == Form::Value).then(|| unsafe { &*self.body::<Value>() })
    }

    /// The value, where it is a collection.
    pub fn as_value_mut(&mut self) -> Option<&mut Value> {
        // SAFETY: the form names the type of the body, and we hold the entry exclusively.
        (self.header().form == Form::Value).then(|| unsafe { &mut *self.body::<Value>() })
    }

    /// The string as a buffer to modify in place; `None` where the value is a collection.
    pub fn as_buffer_mut(&mut self) -> Option<&mut Vec<u8>> {
        let header = self.header();
        let bytes = match header.form {
            Form::Value => return None,
            Form::Buffer => None,
            _ => self.as_string().map(|string| string.to_vec()),
        };
        if let Some(bytes) = bytes {
            *self = Entry::buffer(self.key(), bytes, self.deadline(), header.access);
        }
        self.header_mut().flags |= MODIFIED;
        // SAFETY: the form is Buffer now, and we hold the entry exclusively.
        Some(unsafe { &mut *self.body::<Vec<u8>>() })
    }

    /// Makes the value this string; key and access clock stay.
    pub fn set_string(&mut self, bytes: &[u8], deadline: Option<u64>) {
        let header = *self.header();
        let replacement = number::parse_i64(bytes);
        if header.flags & HAS_DEADLINE == u8::from(deadline.is_some()) * HAS_DEADLINE {
            match (header.form, replacement) {
                (Form::Integer, Some(value)) => {
                    // SAFETY: the body is an i64 and stays one.
                    unsafe { *self.body::<i64>() = value };
                    self.write_deadline(deadline);
                    return;
                }
                (Form::Inline, None) if bytes.len() <= INLINE_BYTES_MAX => {
                    let resized = Header { value_length: bytes.len() as u32, ..header };
                    if layout(&resized) == layout(&header) {
                        let offset = key_offset(&header) + header.key_length as usize;
                        // SAFETY: the layout is the same, so the block has room for the new bytes behind the key;
                        // `bytes` cannot lie in the block, which is borrowed exclusively.
                        unsafe { self.place(offset).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
                        self.header_mut().value_length = resized.value_length;
                        self.header_mut().flags &= !MODIFIED;
                        self.write_deadline(deadline);
                        return;
                    }
                }
                _ => {}
            }
        }
        *self = Entry::string(self.key(), bytes, deadline, header.access);
    }

    /// Makes the value the decimal form of this integer; key, deadline and access clock stay.
    pub fn set_integer(&mut self, value: i64) {
        if self.header().form == Form::Integer {
            // SAFETY: the body is an i64.
            unsafe { *self.body::<i64>() = value };
        } else {
            *self = Entry::integer(self.key(), value, self.deadline(), self.header().access);
        }
    }

    /// Sets or clears the deadline, in Unix milliseconds.
    pub fn set_deadline(&mut self, deadline: Option<u64>) {
        let header = *self.header();
        if header.flags & HAS_DEADLINE == u8::from(deadline.is_some()) * HAS_DEADLINE {
            self.write_deadline(deadline);
            return;
        }
        let mut moved = header;
        moved.flags ^= HAS_DEADLINE;
        let block = allocate(&moved);
        let (from, to) = (body_offset(&header), body_offset(&moved));
        let length = block_length(&header) - from;
        // SAFETY: both blocks are as long as their headers say, and from the body on they are equal. The old block is
        // freed without dropping its body, which has moved.
        unsafe {
            block.cast::<u8>().as_ptr().add(to).copy_from_nonoverlapping(self.place(from), length);
            dealloc(self.0.as_ptr().cast(), layout(&header));
        }
        self.0 = block;
        self.write_deadline(deadline);
    }

    /// Where the block begins, for fetching it into the cache.
    #[inline]
    pub(super) fn address(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// LRU clock or LFU counter: 24 bits.
    #[inline]
    pub fn access(&self) -> u32 {
        self.header().access & 0x00ff_ffff
    }

    #[inline]
    pub fn set_access(&mut self, access: u32) {
        let header = self.header_mut();
        header.access = header.access & 0xff00_0000 | access & 0x00ff_ffff;
    }

    /// Sets clock and mark together.
    #[inline]
    pub(super) fn set_access_word(&mut self, word: u32) {
        self.header_mut().access = word;
    }

    /// The number of the last snapshot that this entry is not part of, or is no more.
    #[inline]
    pub(super) fn mark(&self) -> u8 {
        (self.header().access >> 24) as u8
    }

    #[inline]
    pub(super) fn set_mark(&mut self, mark: u8) {
        let header = self.header_mut();
        header.access = header.access & 0x00ff_ffff | u32::from(mark) << 24;
    }

    /// Bytes of memory: the block, and what hangs on it.
    #[inline]
    pub fn memory_bytes(&self) -> usize {
        let header = self.header();
        let outside = match header.form {
            Form::Integer | Form::Inline => 0,
            // SAFETY: the form names the type of the body.
            Form::Buffer => size_class(unsafe { &*self.body::<Vec<u8>>() }.capacity()),
            Form::Value => self.as_value().map_or(0, Value::memory_bytes),
        };
        layout(header).size() + outside
    }

    /// Allocations to free when it goes, about: what is better dropped on another thread has many.
    pub fn allocation_count(&self) -> usize {
        1 + self.as_value().map_or(0, Value::allocation_count)
    }

    /// What OBJECT ENCODING calls it (Redis 7.2).
    pub fn encoding(&self) -> &'static str {
        let header = self.header();
        match header.form {
            Form::Integer => "int",
            Form::Value => self.as_value().map_or("raw", Value::encoding),
            // 44 is Redis's longest embedded string.
            _ if header.flags & MODIFIED != 0 => "raw",
            Form::Inline if header.value_length <= 44 => "embstr",
            _ => "raw",
        }
    }

    /// The same value and deadline under another key.
    pub fn renamed(self, key: &[u8]) -> Entry {
        let (deadline, access, modified) = (self.deadline(), self.header().access, self.header().flags & MODIFIED);
        let mut entry = match self.header().form {
            // SAFETY: the form names the type of the body.
            Form::Integer => Entry::build(key, Body::Integer(unsafe { *self.body::<i64>() }), deadline, access),
            Form::Inline => match self.as_string() {
                Some(StringRef::Bytes(bytes)) => Entry::build(key, Body::Inline(bytes), deadline, access),
                _ => Entry::build(key, Body::Inline(b""), deadline, access),
            },
            Form::Buffer => {
                // SAFETY: the form names the type of the body.
                let buffer = std::mem::take(unsafe { &mut *self.body::<Vec<u8>>() });
                Entry::build(key, Body::Buffer(buffer), deadline, access)
            }
            Form::Value => {
                let header = *self.header();
                // SAFETY: the body is a Value and moves out once; its block is freed with the layout it has, and the
                // entry is forgotten, so that neither is dropped again.
                let value = unsafe {
                    let value = self.body::<Value>().read();
                    dealloc(self.0.as_ptr().cast(), layout(&header));
                    value
                };
                std::mem::forget(self);
                return Entry::build(key, Body::Value(value), deadline, access);
            }
        };
        entry.header_mut().flags |= modified;
        entry
    }

    /// A copy under another key.
    pub fn copied(&self, key: &[u8]) -> Entry {
        let (deadline, access, modified) = (self.deadline(), self.header().access, self.header().flags & MODIFIED);
        let mut entry = match (self.as_value(), self.as_string()) {
            (Some(value), _) => Entry::build(key, Body::Value(value.clone()), deadline, access),
            (None, Some(StringRef::Integer(value))) => Entry::build(key, Body::Integer(value), deadline, access),
            (None, Some(StringRef::Bytes(bytes))) if bytes.len() <= INLINE_BYTES_MAX => {
                Entry::build(key, Body::Inline(bytes), deadline, access)
            }
            (None, Some(StringRef::Bytes(bytes))) => Entry::build(key, Body::Buffer(bytes.to_vec()), deadline, access),
            (None, None) => Entry::build(key, Body::Inline(b""), deadline, access),
        };
        entry.header_mut().flags |= modified;
        entry
    }

    fn build(key: &[u8], body: Body<'_>, deadline: Option<u64>, access: u32) -> Entry {
        let (form, inline) = match &body {
            Body::Integer(_) => (Form::Integer, b"".as_slice()),
            Body::Inline(bytes) => (Form::Inline, *bytes),
            Body::Buffer(_) => (Form::Buffer, b"".as_slice()),
            Body::Value(_) => (Form::Value, b"".as_slice()),
        };
        let header = Header {
            key_length: u32::try_from(key.len()).expect("the request parser limits keys to 512 MB"),
            value_length: inline.len() as u32,
            access,
            form,
            flags: if deadline.is_some() { HAS_DEADLINE } else { 0 },
            _reserved: 0,
        };
        let mut entry = Entry(allocate(&header));
        let key_at = key_offset(&header);
        // SAFETY: the block has the header's layout: the body at its offset (a multiple of 8), the key and the inline
        // bytes behind it. Nothing was initialized before, so nothing is dropped.
        unsafe {
            let body_at = entry.place(body_offset(&header));
            match body {
                Body::Integer(value) => body_at.cast::<i64>().write(value),
                Body::Inline(_) => {}
                Body::Buffer(buffer) => body_at.cast::<Vec<u8>>().write(buffer),
                Body::Value(value) => body_at.cast::<Value>().write(value),
            }
            entry.place(key_at).copy_from_nonoverlapping(key.as_ptr(), key.len());
            entry.place(key_at + key.len()).copy_from_nonoverlapping(inline.as_ptr(), inline.len());
        }
        entry.write_deadline(deadline);
        entry
    }

    /// Writes the deadline; the flag must say already that there is one.
    fn write_deadline(&mut self, deadline: Option<u64>) {
        if let Some(deadline) = deadline {
            debug_assert!(self.header().flags & HAS_DEADLINE != 0);
            // SAFETY: the flag says that a u64 lies behind the header.
            unsafe { self.place(size_of::<Header>()).cast::<u64>().write(deadline) };
        }
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the block begins with an initialized header.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn header_mut(&mut self) -> &mut Header {
        // SAFETY: the block begins with an initialized header, and we hold it exclusively.
        unsafe { self.0.as_mut() }
    }

    /// The address `offset` bytes into the block; must be at most the block's length.
    #[inline]
    fn place(&self, offset: usize) -> *mut u8 {
        // SAFETY: callers stay inside the block.
        unsafe { self.0.as_ptr().cast::<u8>().add(offset) }
    }

    /// The body, which must be a T.
    #[inline]
    fn body<T>(&self) -> *mut T {
        self.place(body_offset(self.header())).cast()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let header = *self.header();
        // SAFETY: the form names the type of the body, which is dropped once; the block has the header's layout.
        unsafe {
            match header.form {
                Form::Integer | Form::Inline => {}
                Form::Buffer => self.body::<Vec<u8>>().drop_in_place(),
                Form::Value => self.body::<Value>().drop_in_place(),
            }
            dealloc(self.0.as_ptr().cast(), layout(&header));
        }
    }
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?}, {})", String::from_utf8_lossy(self.key()), self.kind(), self.encoding())
    }
}

#[inline]
fn body_offset(header: &Header) -> usize {
    size_of::<Header>() + if header.flags & HAS_DEADLINE != 0 { size_of::<u64>() } else { 0 }
}

#[inline]
fn key_offset(header: &Header) -> usize {
    body_offset(header)
        + match header.form {
            Form::Integer => size_of::<i64>(),
            Form::Inline => 0,
            Form::Buffer => size_of::<Vec<u8>>(),
            Form::Value => size_of::<Value>(),
        }
}

#[inline]
fn block_length(header: &Header) -> usize {
    key_offset(header) + header.key_length as usize + header.value_length as usize
}

/// The layout of the block: its length rounded up to the allocator's size class.
#[inline]
fn layout(header: &Header) -> Layout {
    const { assert!(align_of::<Value>() <= 8 && align_of::<Vec<u8>>() <= 8) };
    Layout::from_size_align(size_class(block_length(header)), 8).expect("a block is far below isize::MAX")
}

/// jemalloc's size classes: multiples of 16 to 128, then four to every doubling.
#[inline]
pub fn size_class(length: usize) -> usize {
    if length <= 128 {
        return length.max(1).next_multiple_of(16);
    }
    let step = length.next_power_of_two() / 8;
    length.next_multiple_of(step)
}

fn allocate(header: &Header) -> NonNull<Header> {
    let layout = layout(header);
    // SAFETY: the layout is not empty.
    let block = unsafe { alloc(layout) }.cast::<Header>();
    let Some(block) = NonNull::new(block) else { handle_alloc_error(layout) };
    // SAFETY: the block is large and aligned enough for a header.
    unsafe { block.as_ptr().write(*header) };
    block
}

#[cfg(test)]
mod tests;
