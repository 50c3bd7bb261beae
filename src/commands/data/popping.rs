//! What LMPOP, ZMPOP and their kin that wait name: keys behind their number, which end, how many.

use crate::commands::error::CommandError;
use crate::commands::parse::{self, is};
use crate::engine::effect::Side;
use crate::resp::arguments::Arguments;
use std::ops::Range;

/// What such a command takes, and from where.
pub(super) struct PopMany {
    /// The indexes of the keys.
    pub(super) keys: Range<usize>,
    pub(super) side: Side,
    pub(super) count: usize,
}

impl PopMany {
    /// `at`: the index of the number of keys; `side` reads the word for an end.
    ///
    /// # Errors
    /// Redis's own.
    pub(super) fn parse(
        arguments: Arguments<'_>,
        at: usize,
        side: fn(&[u8]) -> Result<Side, CommandError>,
    ) -> Result<PopMany, CommandError> {
        let positive = |argument: &[u8], error: &'static str| {
            let number = parse::integer(argument).ok().filter(|number| *number > 0);
            number.map(|number| usize::try_from(number).unwrap_or(usize::MAX)).ok_or(CommandError::text(error))
        };
        let number = positive(arguments.at(at), "ERR numkeys should be greater than 0")?;
        let first = at + 1;
        let end = first.checked_add(number).filter(|end| *end < arguments.len()).ok_or(CommandError::Syntax)?;
        let side = side(arguments.at(end))?;
        let (mut count, mut index) = (None, end + 1);
        while let Some(word) = arguments.get(index) {
            let given = arguments.get(index + 1).filter(|_| is(word, "count") && count.is_none());
            let given = given.ok_or(CommandError::Syntax)?;
            count = Some(positive(given, "ERR count should be greater than 0")?);
            index += 2;
        }
        Ok(PopMany { keys: first..end, side, count: count.unwrap_or(1) })
    }
}
