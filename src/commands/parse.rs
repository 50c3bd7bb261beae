//! Arguments into numbers and options, with Redis's errors.

use super::error::CommandError;
use crate::base::number;
use crate::resp::arguments::Arguments;

/// A signed integer.
pub fn integer(argument: &[u8]) -> Result<i64, CommandError> {
    number::parse_i64(argument).ok_or(CommandError::NotAnInteger)
}

/// A signed integer within bounds.
pub fn integer_between(argument: &[u8], least: i64, greatest: i64) -> Result<i64, CommandError> {
    integer(argument)
        .and_then(|value| if (least..=greatest).contains(&value) { Ok(value) } else { Err(CommandError::NotAnInteger) })
}

/// A count that must not be negative; `name` is how Redis's message calls it.
pub fn positive(argument: &[u8]) -> Result<usize, CommandError> {
    match number::parse_i64(argument) {
        Some(value) if value >= 0 => Ok(value as usize),
        Some(_) => Err(CommandError::text("ERR value is out of range, must be positive")),
        None => Err(CommandError::text("ERR value is out of range, must be positive")),
    }
}

/// A count of keys, which follow it (LMPOP, ZMPOP, SINTERCARD): the indexes of the keys.
///
/// # Errors
/// Redis's own for a count that is not positive, or greater than what is left.
pub fn counted_keys(arguments: Arguments<'_>, index: usize) -> Result<std::ops::Range<usize>, CommandError> {
    let count = number::parse_i64(arguments.get(index).unwrap_or_default()).filter(|count| *count > 0);
    let count = count.ok_or(CommandError::text("ERR numkeys should be greater than 0"))?;
    let first = index + 1;
    match usize::try_from(count).ok().and_then(|count| first.checked_add(count)) {
        Some(end) if end <= arguments.len() => Ok(first..end),
        _ => Err(CommandError::text("ERR Number of keys can't be greater than number of args")),
    }
}

/// A floating point number.
pub fn float(argument: &[u8]) -> Result<f64, CommandError> {
    number::parse_double(argument).ok_or(CommandError::NotAFloat)
}

/// Whether an argument is this word, in any case.
#[inline]
pub fn is(argument: &[u8], word: &str) -> bool {
    argument.eq_ignore_ascii_case(word.as_bytes())
}

/// A database number.
pub fn database(argument: &[u8], count: usize) -> Result<usize, CommandError> {
    let value = integer(argument)?;
    if i32::try_from(value).is_err() {
        return Err(CommandError::text("ERR value is out of range, value must between -2147483648 and 2147483647"));
    }
    usize::try_from(value)
        .ok()
        .filter(|database| *database < count)
        .ok_or(CommandError::text("ERR DB index is out of range"))
}

/// The time-out of a blocking command, in seconds, as the Unix milliseconds at which it is over; `None`: never.
///
/// # Errors
/// Redis's own (getTimeoutFromObjectOrReply).
pub fn timeout(argument: &[u8], now_ms: u64) -> Result<Option<u64>, CommandError> {
    let seconds =
        number::parse_double(argument).ok_or(CommandError::text("ERR timeout is not a float or out of range"))?;
    let ms = (seconds * 1000.0).ceil();
    if ms > i64::MAX as f64 {
        return Err(CommandError::text("ERR timeout is out of range"));
    }
    if ms < 0.0 {
        return Err(CommandError::text("ERR timeout is negative"));
    }
    let until = (ms as u64).checked_add(now_ms).filter(|until| i64::try_from(*until).is_ok());
    match ms as u64 {
        0 => Ok(None),
        _ => until.map(Some).ok_or(CommandError::text("ERR timeout is out of range")),
    }
}
