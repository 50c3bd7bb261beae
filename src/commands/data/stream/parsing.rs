//! Ids, bounds, and the options of XADD and XTRIM.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::resp::arguments::Arguments;
use crate::values::Limits;
use crate::values::stream::id::number;
use crate::values::stream::{Id, Keep, Precision, References};

const INVALID_ID: CommandError = CommandError::text("ERR Invalid stream ID specified as stream command argument");
const TOO_SMALL: CommandError =
    CommandError::text("ERR The ID specified in XADD is equal or smaller than the target stream top item");

const LIMIT_WITHOUT_ABOUT: CommandError =
    CommandError::text("ERR syntax error, LIMIT cannot be used without the special ~ option");

/// An id that is no `-` or `+`; the sequence number may be missing.
pub(super) fn strict_id(text: &[u8], missing_seq: u64) -> Result<Id, CommandError> {
    Id::parse(text, missing_seq).ok_or(INVALID_ID)
}

/// The same, or `-` for the least id and `+` for the greatest.
pub(super) fn id(text: &[u8], missing_seq: u64) -> Result<Id, CommandError> {
    match text {
        b"-" => Ok(Id::MIN),
        b"+" => Ok(Id::MAX),
        _ => strict_id(text, missing_seq),
    }
}

/// Where an interval begins; `(` in front excludes the id.
pub(super) fn bound_below(text: &[u8]) -> Result<Id, CommandError> {
    match text.strip_prefix(b"(").filter(|id| !id.is_empty()) {
        None => id(text, 0),
        Some(text) => strict_id(text, 0)?.next().ok_or(CommandError::text("ERR invalid start ID for the interval")),
    }
}

/// Where an interval ends.
pub(super) fn bound_above(text: &[u8]) -> Result<Id, CommandError> {
    match text.strip_prefix(b"(").filter(|id| !id.is_empty()) {
        None => id(text, u64::MAX),
        Some(text) => {
            strict_id(text, u64::MAX)?.previous().ok_or(CommandError::text("ERR invalid end ID for the interval"))
        }
    }
}

/// How XADD says the id of a new entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NewId {
    /// `*`
    Automatic,
    /// `ms-*`
    OfMillisecond(u64),
    Given(Id),
}

impl NewId {
    fn parse(text: &[u8]) -> Result<NewId, CommandError> {
        match text.strip_suffix(b"-*").filter(|ms| !ms.contains(&b'-')) {
            Some(ms) => number(ms).map(NewId::OfMillisecond).ok_or(INVALID_ID),
            None => strict_id(text, 0).map(NewId::Given),
        }
    }

    /// The id behind the last one of a stream.
    pub(super) fn after(self, last: Id, now_ms: u64) -> Result<Id, CommandError> {
        if last == Id::MAX {
            return Err(CommandError::text(
                "ERR The stream has exhausted the last possible ID, unable to add more items",
            ));
        }
        let next = match self {
            NewId::Automatic if now_ms > last.ms => Some(Id::new(now_ms, 0)),
            NewId::Automatic => last.next(),
            NewId::OfMillisecond(ms) if ms == last.ms => last.seq.checked_add(1).map(|seq| Id::new(ms, seq)),
            NewId::OfMillisecond(ms) => Some(Id::new(ms, 0)),
            NewId::Given(id) => Some(id),
        };
        next.filter(|id| *id > last).ok_or(TOO_SMALL)
    }
}

/// How a stream is trimmed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trimming {
    pub(super) keep: Keep,
    pub(super) precision: Precision,
    pub(super) references: References,
}

/// What XADD is asked for.
#[derive(Debug)]
pub(super) struct Adding {
    pub(super) id: NewId,
    pub(super) makes_stream: bool,
    pub(super) trimming: Option<Trimming>,
    /// Where the fields begin.
    pub(super) fields_at: usize,
}

/// The options that XADD and XTRIM share, as far as they have been read.
#[derive(Debug, Default)]
struct Options {
    keep: Option<Keep>,
    is_about: bool,
    limit: Option<u64>,
    references: Option<References>,
}

/// KEEPREF, DELREF or ACKED.
pub(super) fn references(word: &[u8]) -> Option<References> {
    let words = [("keepref", References::Kept), ("delref", References::Dropped), ("acked", References::Respected)];
    words.into_iter().find(|(name, _)| is(word, name)).map(|(_, references)| references)
}

impl Options {
    /// Reads the option at `index`, if it is one of them. Returns where the next one is.
    fn read(&mut self, arguments: Arguments<'_>, index: usize) -> Result<Option<usize>, CommandError> {
        let (word, more) = (arguments.at(index), arguments.len() - index - 1);
        if let Some(references) = references(word).filter(|_| self.references.is_none()) {
            self.references = Some(references);
            return Ok(Some(index + 1));
        }
        if more == 0 {
            return Ok(None);
        }
        if is(word, "limit") {
            let limit = u64::try_from(parse::integer(arguments.at(index + 1))?);
            self.limit = Some(limit.map_err(|_| CommandError::text("ERR The LIMIT argument must be >= 0."))?);
            return Ok(Some(index + 2));
        }
        let is_length = is(word, "maxlen");
        if !is_length && !is(word, "minid") {
            return Ok(None);
        }
        if self.keep.is_some() {
            return Err(CommandError::text(
                "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
            ));
        }
        let mut at = index + 1;
        self.is_about = false;
        if more >= 2 && matches!(arguments.at(at), b"~" | b"=") {
            self.is_about = arguments.at(at) == b"~";
            at += 1;
        }
        self.keep = Some(match is_length {
            true => {
                let length = u64::try_from(parse::integer(arguments.at(at))?);
                Keep::Newest(length.map_err(|_| CommandError::text("ERR The MAXLEN argument must be >= 0."))?)
            }
            false => Keep::From(strict_id(arguments.at(at), 0)?),
        });
        Ok(Some(at + 1))
    }

    fn finish(self, is_adding: bool, limits: &Limits) -> Result<Option<Trimming>, CommandError> {
        let Some(keep) = self.keep else {
            return match self.limit {
                Some(1..) => Err(CommandError::text(
                    "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy",
                )),
                Some(0) if is_adding => Err(LIMIT_WITHOUT_ABOUT),
                _ => Ok(None),
            };
        };
        if self.limit.is_some() && !self.is_about {
            return Err(LIMIT_WITHOUT_ABOUT);
        }
        // Some nodes' worth, if nobody says: trimming must not take long.
        let usual = match limits.stream_node_max_entries as u64 {
            0 => 10_000,
            entries => entries.saturating_mul(100).min(1_000_000),
        };
        let most = self.limit.unwrap_or(usual);
        let precision = if self.is_about { Precision::Nodes((most > 0).then_some(most)) } else { Precision::Exact };
        Ok(Some(Trimming { keep, precision, references: self.references.unwrap_or_default() }))
    }
}

/// Reads the arguments of XADD up to the id.
pub(super) fn adding(arguments: Arguments<'_>, limits: &Limits) -> Result<Adding, CommandError> {
    let (mut options, mut makes_stream, mut index) = (Options::default(), true, 2);
    let mut id = NewId::Given(Id::MIN);
    while index < arguments.len() {
        let word = arguments.at(index);
        if word == b"*" {
            id = NewId::Automatic;
            break;
        }
        match options.read(arguments, index)? {
            Some(next) => index = next,
            None if is(word, "nomkstream") => {
                makes_stream = false;
                index += 1;
            }
            None => {
                id = NewId::parse(word)?;
                break;
            }
        }
    }
    Ok(Adding {
        id,
        makes_stream,
        trimming: options.finish(true, limits)?,
        fields_at: (index + 1).min(arguments.len()),
    })
}

/// Reads the arguments of XTRIM.
pub(super) fn trimming(arguments: Arguments<'_>, limits: &Limits) -> Result<Trimming, CommandError> {
    let (mut options, mut index) = (Options::default(), 2);
    while index < arguments.len() {
        index = options.read(arguments, index)?.ok_or(CommandError::Syntax)?;
    }
    let trimming = options.finish(false, limits)?;
    trimming.ok_or(CommandError::text("ERR syntax error, XTRIM must be called with a trimming strategy"))
}
