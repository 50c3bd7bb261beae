//! Numbers as Redis reads and writes them.

mod long_double;

use long_double::LongDouble;

/// A signed integer in its one decimal form (Redis's string2ll): no blanks, no plus, no leading zeros, within 64 bits.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    // The longest is "-9223372036854775808".
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] => {}
        _ => return None,
    }
    let mut value = 0u64;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    match negative {
        true if value <= 1 << 63 => Some((value as i64).wrapping_neg()),
        false => i64::try_from(value).ok(),
        true => None,
    }
}

/// A floating point number as Redis accepts it: what strtod does, without blanks around it, and not NaN.
pub fn parse_double(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value = match unsigned.get(..2) {
        Some("0x" | "0X") => {
            parse_hexadecimal(unsigned).map(|value| if text.starts_with('-') { -value } else { value })
        }
        _ => text.parse::<f64>().ok(),
    }?;
    let overflows = value.is_infinite() && !unsigned[..1].eq_ignore_ascii_case("i");
    // strtod reports what is too small for a double as out of range, and Redis refuses it.
    let nonzero_digit = |byte: u8| (b'1'..=b'9').contains(&byte);
    let underflows = value == 0.0
        && !unsigned.starts_with("0x")
        && !unsigned.starts_with("0X")
        && unsigned.bytes().take_while(|byte| !byte.eq_ignore_ascii_case(&b'e')).any(nonzero_digit);
    (!value.is_nan() && !overflows && !underflows).then_some(value)
}

/// An end of a range of scores: what strtod makes of a text of which it reads all. Unlike [`parse_double`] that is 0 where
/// there is no text, blanks in front are passed over, and what is too large or too small is infinite or 0. A text ends
/// before its first zero byte.
pub fn parse_bound(text: &[u8]) -> Option<f64> {
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t'..=b'\r');
    let start = text.iter().position(|byte| !blank(byte))?;
    let text = std::str::from_utf8(&text[start..]).ok()?;
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let value = match unsigned.get(..2) {
        Some("0x" | "0X") => {
            parse_hexadecimal(unsigned).map(|value| if text.starts_with('-') { -value } else { value })
        }
        _ => text.parse::<f64>().ok(),
    };
    value.filter(|value| !value.is_nan())
}

/// `0x` digits, optionally with a fraction and a binary exponent.
fn parse_hexadecimal(text: &str) -> Option<f64> {
    let digits = &text[2..];
    let (mantissa, exponent) = match digits.split_once(['p', 'P']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (digits, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0f64;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 16.0 + f64::from(digit.to_digit(16)?);
    }
    Some(value * 2f64.powi(exponent.clamp(-4000, 4000) - 4 * fraction.len().min(1000) as i32))
}

/// The shortest text that reads back as this number, in the layout of Redis 7.2 and later.
pub fn format_double(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
    }
    if value == 0.0 {
        return if value.is_sign_negative() { "-0" } else { "0" }.to_owned();
    }
    // Whole numbers that a double holds exactly.
    if value.abs() < 4_503_599_627_370_496.0 && value.fract() == 0.0 {
        return (value as i64).to_string();
    }
    let (digits, exponent) = shortest_digits(value.abs());
    let sign = if value < 0.0 { "-" } else { "" };
    let count = digits.len() as i32;
    let point = count + exponent;
    let magnitude = (point - 1).abs();
    if exponent >= 0 && magnitude < count + 7 {
        return format!("{sign}{digits}{}", "0".repeat(exponent as usize));
    }
    if exponent < 0 && (exponent > -7 || magnitude < 4) {
        return if point <= 0 {
            format!("{sign}0.{}{digits}", "0".repeat(-point as usize))
        } else {
            format!("{sign}{}.{}", &digits[..point as usize], &digits[point as usize..])
        };
    }
    let (first, rest) = digits.split_at(1);
    let dot = if rest.is_empty() { "" } else { "." };
    let exponent_sign = if point > 0 { '+' } else { '-' };
    format!("{sign}{first}{dot}{rest}e{exponent_sign}{magnitude}")
}

/// The shortest digits of a positive number, without zeros at the end, and the power of ten of the last one.
fn shortest_digits(value: f64) -> (String, i32) {
    let mut buffer = ryu::Buffer::new();
    let text = buffer.format_finite(value);
    let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let mut exponent: i32 = exponent.parse().unwrap_or(0);
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    exponent -= fraction.len() as i32;
    let all = format!("{whole}{fraction}");
    let kept = all.trim_start_matches('0');
    let trimmed = kept.trim_end_matches('0');
    exponent += (kept.len() - trimmed.len()) as i32;
    (trimmed.to_owned(), exponent)
}

/// Whether INCRBYFLOAT takes a text for a number: a long double goes further down than a double.
pub fn is_decimal(text: &[u8]) -> bool {
    long_double::is_number(text)
}

/// The sum that INCRBYFLOAT stores, with the digits of Redis's long double. `None`: one of the texts is no number, or the
/// result would be NaN or infinite.
pub fn add_decimal(value: &[u8], increment: &[u8]) -> Option<String> {
    LongDouble::add(value, increment)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_have_one_form() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("-0", None),
            ("01", None),
            ("+1", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("-", None),
            ("1a", None),
        ] {
            assert_eq!(parse_i64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn doubles_have_the_layout_of_redis() {
        for (value, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (3.5, "3.5"),
            (0.1, "0.1"),
            (0.001, "0.001"),
            (1e-7, "1e-7"),
            (1.5e-9, "1.5e-9"),
            (1e20, "1e+20"),
            (1e300, "1e+300"),
            (-12.25, "-12.25"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(format_double(value), text, "{value:?}");
        }
    }

    #[test]
    fn float_increments_are_exact_decimals() {
        let check = |a: &str, b: &str, sum: Option<&str>| {
            assert_eq!(add_decimal(a.as_bytes(), b.as_bytes()).as_deref(), sum, "{a} + {b}");
        };
        check("0.1", "0.2", Some("0.3"));
        check("10.50", "0.1", Some("10.6"));
        check("5.0e3", "2.0e2", Some("5200"));
        check("3", "-3", Some("0"));
        check("1.5", "-2", Some("-0.5"));
        check("inf", "1", None);
        // Smaller than any double: redis-server 7.0.15 adds it, and shows nothing of it.
        check("5200", "1e-400", Some("5200"));
        check("1e-400", "1", Some("1"));
        check("5200", "-.5E-4940", Some("5200"));
        check("5200", "0e-9999", Some("5200"));
        check("5200", "1e-4951", None);
        check("5200", "e-400", None);
    }

    #[test]
    fn ends_of_ranges_are_read_as_strtod_reads_them() {
        for (text, value) in [
            ("", Some(0.0)),
            (" 1", Some(1.0)),
            ("\t-.5", Some(-0.5)),
            ("1e400", Some(f64::INFINITY)),
            ("1e-400", Some(0.0)),
            ("-0x10", Some(-16.0)),
            ("1\0abc", Some(1.0)),
            ("+inf", Some(f64::INFINITY)),
            (" ", None),
            ("1 ", None),
            ("nan", None),
            ("abc", None),
            ("--1", None),
        ] {
            assert_eq!(parse_bound(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_double_is_refused() {
        for text in ["", " 1", "1 ", "nan", "1e400", "abc", "0x", "--1"] {
            assert_eq!(parse_double(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(parse_double(b"0x10"), Some(16.0));
        assert_eq!(parse_double(b"-inf"), Some(f64::NEG_INFINITY));
    }
}
