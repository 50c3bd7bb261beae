//! Where a value ends: found without reading what it is, so that whoever reads it may do so elsewhere.

use super::source::Source;
use super::{Fault, ReadError};
use crate::rdb::kind;
use std::io::Read;

/// Passes the value that stands behind its kind.
pub(super) fn pass<R: Read>(kind: u8, by_valkey: bool, source: &mut Source<R>) -> Result<(), ReadError> {
    match kind {
        kind::STRING
        | kind::HASH_ZIPMAP
        | kind::LIST_ZIPLIST
        | kind::SET_INTSET
        | kind::SORTED_SET_ZIPLIST
        | kind::HASH_ZIPLIST
        | kind::HASH_LISTPACK
        | kind::SORTED_SET_LISTPACK
        | kind::SET_LISTPACK
        | kind::HASH_LISTPACK_DEADLINES_EARLY => source.pass_string(),
        kind::HASH_LISTPACK_DEADLINES => {
            source.pass(8)?;
            source.pass_string()
        }
        kind::LIST | kind::SET | kind::LIST_QUICKLIST => each(source, Source::pass_string),
        kind::HASH => each(source, |source| {
            source.pass_string()?;
            source.pass_string()
        }),
        kind::SORTED_SET => each(source, |source| {
            source.pass_string()?;
            source.pass(8)
        }),
        kind::SORTED_SET_TEXT => each(source, |source| {
            source.pass_string()?;
            match source.byte()? {
                253.. => Ok(()),
                length => source.pass(length.into()),
            }
        }),
        kind::LIST_QUICKLIST_2 => each(source, |source| {
            source.length()?;
            source.pass_string()
        }),
        kind::HASH_DEADLINES if by_valkey => each(source, |source| {
            source.pass_string()?;
            source.pass_string()?;
            source.pass(8)
        }),
        kind::HASH_DEADLINES | kind::HASH_DEADLINES_FROM => {
            source.pass(if kind == kind::HASH_DEADLINES { 0 } else { 8 })?;
            each(source, |source| {
                source.length()?;
                source.pass_string()?;
                source.pass_string()
            })
        }
        kind::STREAM_5 | kind::STREAM | kind::STREAM_7_2 => pass_stream(kind, source),
        // Numbers that stand for values of modules.
        6 | 7 => Err(source.error(Fault::Module)),
        _ => Err(source.error(Fault::Kind(kind))),
    }
}

/// Passes as many as a length in front says.
fn each<R: Read>(
    source: &mut Source<R>,
    mut pass: impl FnMut(&mut Source<R>) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    for _ in 0..source.length()? {
        pass(source)?;
    }
    Ok(())
}

/// Passes so many lengths.
fn lengths<R: Read>(source: &mut Source<R>, count: usize) -> Result<(), ReadError> {
    (0..count).try_for_each(|_| source.length().map(|_| ()))
}

/// See [`crate::rdb::value`] for what it is made of.
fn pass_stream<R: Read>(kind: u8, source: &mut Source<R>) -> Result<(), ReadError> {
    const ID: u64 = 16;
    const TIME: u64 = 8;
    each(source, |source| {
        source.pass_string()?;
        source.pass_string()
    })?;
    lengths(source, if kind == kind::STREAM_5 { 3 } else { 8 })?;
    each(source, |source| {
        source.pass_string()?;
        lengths(source, if kind == kind::STREAM_5 { 2 } else { 3 })?;
        each(source, |source| {
            source.pass(ID + TIME)?;
            lengths(source, 1)
        })?;
        each(source, |source| {
            source.pass_string()?;
            source.pass(if kind == kind::STREAM_7_2 { 2 * TIME } else { TIME })?;
            each(source, |source| source.pass(ID))
        })
    })
}
