//! The arithmetic of INCRBYFLOAT and HINCRBYFLOAT: numbers with a mantissa of 64 bits, printed with 17 decimals.
//!
//! Redis computes with the processor's 80-bit `long double`, which clients can see: 0.1 + 0.2 is 0.3, and
//! 123456789.123456789 is printed as 123456789.12345678899873747. Here the same 64-bit mantissa is computed with
//! integers, so that the digits agree on every processor. The range is that of a double: a result
//! from about 1.8e308 on counts as infinite, and inputs of more than 37 digits are first rounded to a double.

use super::parse_double;

/// Decimals that are printed, before trailing zeros are cut.
const DECIMALS: u32 = 17;

/// `mantissa * 2^exponent`, finite; the mantissa is zero or has its top bit set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LongDouble {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// A number as INCRBYFLOAT reads it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Parsed {
    Finite(LongDouble),
    Infinite,
}

impl LongDouble {
    /// Adds two texts as INCRBYFLOAT does. `None` if the sum is not finite ("increment would produce NaN or
    /// Infinity"), or one of the texts is no number.
    pub(super) fn add(current: &[u8], increment: &[u8]) -> Option<String> {
        match (parse(current)?, parse(increment)?) {
            (Parsed::Finite(left), Parsed::Finite(right)) => left.plus(right).map(LongDouble::format),
            _ => None,
        }
    }

    fn plus(self, other: LongDouble) -> Option<LongDouble> {
        if self.mantissa == 0 || other.mantissa == 0 {
            return Some(if self.mantissa == 0 { other } else { self });
        }
        let (large, small) = if (self.exponent, self.mantissa) >= (other.exponent, other.mantissa) {
            (self, other)
        } else {
            (other, self)
        };
        // 62 bits below the larger mantissa, and a sticky bit for what falls off, are enough to round once.
        let wide = u128::from(large.mantissa) << 62;
        let aligned = shift_right_sticky(u128::from(small.mantissa) << 62, (large.exponent - small.exponent) as u32);
        let sum = if large.negative == small.negative { wide + aligned } else { wide - aligned };
        let result = rounded(large.negative, sum, large.exponent - 62);
        result.to_f64().is_finite().then_some(result)
    }

    /// `%.17Lf` with trailing zeros cut; never `-0`.
    fn format(self) -> String {
        if self.exponent > 63 {
            // Beyond 2^127 the value is printed through a double, which is exact for what came from one.
            return format!("{:.0}", self.to_f64());
        }
        let scale = 10u128.pow(DECIMALS);
        let (integral, fraction) = if self.exponent >= 0 {
            (u128::from(self.mantissa) << self.exponent, 0)
        } else {
            let scaled = round_shift_right(u128::from(self.mantissa) * scale, self.exponent.unsigned_abs());
            (scaled / scale, scaled % scale)
        };
        let mut text = format!("{integral}.{fraction:017}");
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        if self.negative && (integral, fraction) != (0, 0) {
            text.insert(0, '-');
        }
        text
    }

    fn to_f64(self) -> f64 {
        // In two steps, because the power alone may leave the range.
        let half = self.exponent / 2;
        let magnitude = self.mantissa as f64 * 2f64.powi(half) * 2f64.powi(self.exponent - half);
        if self.negative { -magnitude } else { magnitude }
    }
}

fn parse(text: &[u8]) -> Option<Parsed> {
    if let Some(value) = parse_decimal(text) {
        return Some(Parsed::Finite(value));
    }
    let Some(value) = parse_double(text) else { return parse_tiny(text) };
    if value.is_infinite() {
        return Some(Parsed::Infinite);
    }
    let bits = value.to_bits();
    let (biased, fraction) = ((bits >> 52 & 0x7ff) as i32, bits & ((1 << 52) - 1));
    let (mantissa, exponent) = if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
    Some(Parsed::Finite(rounded(value.is_sign_negative(), u128::from(mantissa), exponent)))
}

/// What is too small for a double is none of Redis's errors: its long double reaches to 3.6e-4951. With the 17 decimals
/// that are printed, and beside any other number, it is zero.
fn parse_tiny(text: &[u8]) -> Option<Parsed> {
    /// Half of the smallest long double, 3.6e-4951: what is smaller is rounded to zero, which Redis refuses.
    const POWER_LEAST: f64 = -4950.74;
    let at = text.iter().position(|byte| byte.eq_ignore_ascii_case(&b'e'))?;
    let power: i32 = std::str::from_utf8(text.get(at + 1..)?).ok()?.parse().ok()?;
    // Its digits alone are a number: only the power makes it small.
    let digits = parse_double(&text[..at]).filter(|digits| digits.is_finite() && power < 0)?;
    let is_long_double = digits.abs().log10() + f64::from(power) > POWER_LEAST;
    if !is_long_double {
        return None;
    }
    Some(Parsed::Finite(LongDouble { negative: false, mantissa: 0, exponent: 0 }))
}

/// Whether INCRBYFLOAT takes a text for a number.
pub(super) fn is_number(text: &[u8]) -> bool {
    parse(text).is_some()
}

/// Plain and scientific decimals of up to 37 digits: converted exactly, then rounded once.
fn parse_decimal(text: &[u8]) -> Option<LongDouble> {
    const DIGITS_MAX: i32 = 37;
    let negative = text.first() == Some(&b'-');
    let unsigned = if negative || text.first() == Some(&b'+') { &text[1..] } else { text };
    let end = unsigned.iter().position(|byte| byte.eq_ignore_ascii_case(&b'e')).unwrap_or(unsigned.len());
    let mut power: i32 = match unsigned.get(end + 1..) {
        None => 0,
        Some(exponent) => std::str::from_utf8(exponent).ok()?.parse().ok()?,
    };
    let (mut digits, mut seen, mut behind_point) = (0u128, false, false);
    for &byte in &unsigned[..end] {
        match byte {
            b'.' if !behind_point => behind_point = true,
            b'0'..=b'9' if digits < 10u128.pow(36) => {
                seen = true;
                digits = digits * 10 + u128::from(byte - b'0');
                power = power.checked_sub(i32::from(behind_point))?;
            }
            _ => return None,
        }
    }
    if !seen {
        return None;
    }
    if digits == 0 {
        return Some(LongDouble { negative, mantissa: 0, exponent: 0 });
    }
    if power >= 0 {
        let factor = 10u128.checked_pow(power as u32)?;
        return Some(rounded(negative, digits.checked_mul(factor)?, 0));
    }
    if power < -DIGITS_MAX {
        return None;
    }
    let divisor = 10u128.pow(power.unsigned_abs());
    Some(divided(negative, digits, divisor))
}

/// `digits / divisor` with a mantissa of 64 bits, by long division; `divisor` is below 2^124.
fn divided(negative: bool, digits: u128, divisor: u128) -> LongDouble {
    let (mut quotient, mut remainder, mut exponent) = (digits / divisor, digits % divisor, 0);
    // 66 bits: the mantissa, one to round by, and one more that takes the sticky bit.
    while quotient >> 65 == 0 && remainder != 0 {
        remainder <<= 1;
        quotient = quotient << 1 | u128::from(remainder >= divisor);
        if remainder >= divisor {
            remainder -= divisor;
        }
        exponent -= 1;
    }
    if remainder != 0 {
        quotient = quotient << 1 | 1;
        exponent -= 1;
    }
    rounded(negative, quotient, exponent)
}

/// Rounds `value * 2^exponent` to a mantissa of 64 bits, half to even.
fn rounded(negative: bool, value: u128, exponent: i32) -> LongDouble {
    if value == 0 {
        return LongDouble { negative: false, mantissa: 0, exponent: 0 };
    }
    let excess = 64 - value.leading_zeros() as i32;
    if excess <= 0 {
        return LongDouble { negative, mantissa: (value as u64) << -excess, exponent: exponent + excess };
    }
    let mantissa = round_shift_right(value, excess as u32);
    match u64::try_from(mantissa) {
        Ok(mantissa) => LongDouble { negative, mantissa, exponent: exponent + excess },
        // All ones were rounded up to the next power of two.
        Err(_) => LongDouble { negative, mantissa: 1 << 63, exponent: exponent + excess + 1 },
    }
}

fn round_shift_right(value: u128, shift: u32) -> u128 {
    if shift == 0 {
        return value;
    }
    if shift >= 128 {
        return u128::from(shift == 128 && value > 1 << 127);
    }
    let (kept, lost, half) = (value >> shift, value & ((1 << shift) - 1), 1u128 << (shift - 1));
    kept + u128::from(lost > half || (lost == half && kept & 1 == 1))
}

fn shift_right_sticky(value: u128, shift: u32) -> u128 {
    match value.checked_shr(shift) {
        Some(kept) => kept | u128::from(kept << shift != value),
        None => u128::from(value != 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_those_of_redis_server() {
        // Recorded from redis-server 7.0.15 on x86-64.
        for (value, increment, sum) in [
            ("0.1", "0.2", "0.3"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "1e-17", "0.00000000000000001"),
            ("0", "5e-18", "0"),
            ("0", "1.23456789012345678901", "1.23456789012345679"),
            ("0", "123456789.123456789", "123456789.12345678899873747"),
            ("0", "12345678901234567890", "12345678901234567890"),
            ("1e25", "1", "10000000000000000000000000"),
            ("-0.0", "0", "0"),
            ("1", "-1", "0"),
            ("99999999999.99", "0.01", "100000000000"),
            ("1.1e18", "0.3", "1100000000000000000.3125"),
            ("0", "0x10", "16"),
            ("870.9", "-37293.730853", "-36422.83085300000000117"),
            ("4.298e2", "223480015013", "223480015442.79999999701976776"),
            ("-404772748281787836", "-237.52", "-404772748281788073.53125"),
            ("-6459559471108139", "6.19e-7", "-6459559471108139"),
        ] {
            let result = LongDouble::add(value.as_bytes(), increment.as_bytes());
            assert_eq!(result.as_deref(), Some(sum), "{value} + {increment}");
        }
        for text in ["inf", "-inf", "nan", "", " 1", "1 ", "1e", "--1", "1e400"] {
            assert_eq!(LongDouble::add(b"1", text.as_bytes()), None, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_upsets_the_sum(left in ".{0,40}", right in "[-+0-9.eExX]{0,60}") {
            LongDouble::add(left.as_bytes(), right.as_bytes());
            LongDouble::add(right.as_bytes(), b"0.1");
        }
    }
}
