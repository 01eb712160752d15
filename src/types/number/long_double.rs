//! The x87 extended double, in integers: 64 bits of significand, 15 of exponent.
//!
//! `INCRBYFLOAT` and `HINCRBYFLOAT` add in C's `long double`, and the eleven additional bits show in the
//! replies (`0.1 + 0.2` is `0.3`). So parsing, adding and printing are done here with the same
//! rounding (half to even) and the same range as the hardware's, without depending on it.
//! Every other float in the server is a plain `f64`.

use super::bignum::BigUint;
use super::float_parse::{is_infinity, parse_exponent, parse_hex, split_sign};
use super::rounding::round_half_even;

const PRECISION: u32 = 64;
/// The weight of the lowest bit of the smallest denormal number.
const MIN_EXPONENT: i32 = -16445;
/// The weight of the lowest bit of the largest number.
const MAX_EXPONENT: i32 = 16320;
/// Texts as long as Redis's own buffer, or longer, are no floats.
const TEXT_LIMIT: usize = 5 * 1024;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Magnitude {
    /// `significand · 2^exponent`; the highest bit is set unless the exponent is the lowest.
    Finite {
        significand: u64,
        exponent: i32,
    },
    Infinite,
    Nan,
}

/// A sum that is not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDoubleError;

/// An 80-bit extended precision number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    magnitude: Magnitude,
}

impl LongDouble {
    /// Zero.
    pub const ZERO: Self =
        Self { negative: false, magnitude: Magnitude::Finite { significand: 0, exponent: MIN_EXPONENT } };
    const NAN: Self = Self { negative: false, magnitude: Magnitude::Nan };

    /// Parses what Redis accepts as the increment or the old value of `INCRBYFLOAT`: as
    /// [`parse_f64`](super::parse_f64) but with this type's range, and shorter than 5120 bytes.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if let Some(integer) = super::parse_i64(text) {
            return Some(integer.into());
        }
        if text.len() >= TEXT_LIMIT {
            return None;
        }
        let (negative, body) = split_sign(text);
        let magnitude = match body {
            [b'i' | b'I', ..] => is_infinity(body).then_some(Magnitude::Infinite)?,
            [b'0', b'x' | b'X', hex @ ..] => {
                let hex = parse_hex(hex)?;
                parsed(hex.significand, hex.exponent)?
            }
            [b'0'..=b'9' | b'.', ..] => parse_decimal(body)?,
            _ => return None,
        };
        Some(Self { negative, magnitude })
    }

    /// Whether a text spells an infinity, which [`parse`](Self::parse) takes but no sum may be.
    pub fn is_infinity(text: &[u8]) -> bool {
        is_infinity(split_sign(text).1)
    }

    /// A double, exactly.
    pub fn from_f64(value: f64) -> Self {
        let negative = value.is_sign_negative();
        let bits = value.to_bits();
        let biased = ((bits >> 52) & 0x7ff) as i32;
        let fraction = bits & ((1 << 52) - 1);
        let magnitude = match biased {
            0 => rounded(u128::from(fraction), -1074),
            0x7ff if fraction == 0 => Magnitude::Infinite,
            0x7ff => Magnitude::Nan,
            _ => rounded(u128::from(fraction | 1 << 52), biased - 1075),
        };
        Self { negative, magnitude }
    }

    /// The sum, rounded.
    ///
    /// # Errors
    /// If it is an infinity or no number.
    pub fn plus(self, other: Self) -> Result<Self, LongDoubleError> {
        let sum = self.add(other);
        if matches!(sum.magnitude, Magnitude::Finite { .. }) { Ok(sum) } else { Err(LongDoubleError) }
    }

    /// The number without exponent, with at most 17 digits after the point and no trailing zeros: up to
    /// 4934 bytes.
    pub fn to_text(self) -> Vec<u8> {
        let mut text = Vec::with_capacity(24);
        self.write_text(&mut text);
        text
    }

    /// Appends what [`to_text`](Self::to_text) returns.
    pub fn write_text(self, out: &mut Vec<u8>) {
        let Magnitude::Finite { significand, exponent } = self.magnitude else {
            let text: &[u8] = match (self.magnitude, self.negative) {
                (Magnitude::Nan, _) => b"nan",
                (_, false) => b"inf",
                (_, true) => b"-inf",
            };
            out.extend_from_slice(text);
            return;
        };
        if exponent >= 0 {
            self.write_sign(out);
            write_shifted(significand, exponent as u32, out);
            return;
        }
        let (whole, fraction) = split_at_point(significand, exponent.unsigned_abs());
        if whole == 0 && fraction == 0 {
            // Also where a small negative number rounded to zero.
            out.push(b'0');
            return;
        }
        self.write_sign(out);
        let mut buffer = itoa::Buffer::new();
        out.extend_from_slice(buffer.format(whole).as_bytes());
        if fraction != 0 {
            let digits = buffer.format(fraction).as_bytes();
            out.push(b'.');
            out.extend_from_slice(&b"00000000000000000"[digits.len()..]);
            let kept = digits.iter().rposition(|b| *b != b'0').map_or(0, |last| last + 1);
            out.extend_from_slice(&digits[..kept]);
        }
    }

    fn add(self, other: Self) -> Self {
        use Magnitude::{Finite, Infinite, Nan};
        let (a, b) = match (self.magnitude, other.magnitude) {
            (Nan, _) | (_, Nan) => return Self::NAN,
            (Infinite, Infinite) if self.negative != other.negative => return Self::NAN,
            (Infinite, _) => return self,
            (_, Infinite) => return other,
            (Finite { significand: 0, .. }, Finite { significand: 0, .. }) => {
                return Self { negative: self.negative && other.negative, ..self };
            }
            (Finite { significand: 0, .. }, _) => return other,
            (_, Finite { significand: 0, .. }) => return self,
            (Finite { significand: a, exponent: ae }, Finite { significand: b, exponent: be }) => {
                ((self.negative, a, ae), (other.negative, b, be))
            }
        };
        // With equal exponents the order does not matter: the sum is exact before rounding.
        let (large, small) = if (a.2, a.1) >= (b.2, b.1) { (a, b) } else { (b, a) };
        // 62 bits below the larger number's last, of which the lowest collects what is shifted out.
        const GUARD: u32 = 62;
        let high = u128::from(large.1) << GUARD;
        let low = shift_right_sticky(u128::from(small.1) << GUARD, (large.2 - small.2).unsigned_abs());
        let sum = if large.0 == small.0 { high + low } else { high - low };
        if sum == 0 {
            return Self::ZERO;
        }
        Self { negative: large.0, magnitude: rounded(sum, large.2 - GUARD as i32) }
    }

    fn write_sign(self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
    }
}

impl From<i64> for LongDouble {
    fn from(value: i64) -> Self {
        Self { negative: value < 0, magnitude: rounded(u128::from(value.unsigned_abs()), 0) }
    }
}

fn shift_right_sticky(value: u128, bits: u32) -> u128 {
    match bits {
        0 => value,
        1..=127 => value >> bits | u128::from(value << (128 - bits) != 0),
        _ => u128::from(value != 0),
    }
}

/// Rounds to the format, normalises, and overflows to infinity.
fn rounded(significand: u128, exponent: i32) -> Magnitude {
    let (significand, exponent) = round_half_even(significand, exponent, PRECISION, MIN_EXPONENT);
    if significand == 0 {
        return Magnitude::Finite { significand: 0, exponent: MIN_EXPONENT };
    }
    let shift = (significand.leading_zeros() as i32).min(exponent - MIN_EXPONENT);
    let exponent = exponent - shift;
    if exponent > MAX_EXPONENT {
        return Magnitude::Infinite;
    }
    Magnitude::Finite { significand: significand << shift, exponent }
}

/// As [`rounded`] for a number read from text, where overflow and underflow to zero are refused.
fn parsed(significand: u128, exponent: i32) -> Option<Magnitude> {
    if significand == 0 {
        return Some(rounded(0, 0));
    }
    match rounded(significand, exponent) {
        Magnitude::Finite { significand: 0, .. } | Magnitude::Infinite => None,
        magnitude => Some(magnitude),
    }
}

/// The parts of a decimal text: significant digits (no leading zeros) and a power of ten.
struct Decimal<'a> {
    whole: &'a [u8],
    fraction: &'a [u8],
    power: i64,
}

impl<'a> Decimal<'a> {
    fn split(body: &'a [u8]) -> Option<Self> {
        let digits_end = |text: &[u8]| text.iter().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
        let (mut whole, mut rest) = body.split_at(digits_end(body));
        let mut fraction: &[u8] = &[];
        if let [b'.', after @ ..] = rest {
            (fraction, rest) = after.split_at(digits_end(after));
        }
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let explicit = match rest {
            [] => 0,
            [b'e' | b'E', exponent @ ..] => parse_exponent(exponent)?,
            _ => return None,
        };
        let power = explicit - fraction.len() as i64;
        let not_zero = |b: &u8| *b != b'0';
        whole = &whole[whole.iter().position(not_zero).unwrap_or(whole.len())..];
        if whole.is_empty() {
            fraction = &fraction[fraction.iter().position(not_zero).unwrap_or(fraction.len())..];
        }
        Some(Self { whole, fraction, power })
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.iter().chain(self.fraction).map(|b| b - b'0')
    }

    fn count(&self) -> usize {
        self.whole.len() + self.fraction.len()
    }
}

fn parse_decimal(body: &[u8]) -> Option<Magnitude> {
    let decimal = Decimal::split(body)?;
    let count = decimal.count() as i64;
    if count == 0 {
        return Some(rounded(0, 0));
    }
    // Before any big arithmetic: 2^16384 is near 10^4932, the smallest denormal near 10^-4951.
    let leading = count + decimal.power;
    if !(-4960..=4940).contains(&leading) {
        return None;
    }
    let power = decimal.power as i32;
    if count <= 19 {
        let digits = decimal.digits().fold(0u64, |n, d| n * 10 + u64::from(d));
        if (0..=19).contains(&power) {
            return parsed(u128::from(digits) * 10u128.pow(power.unsigned_abs()), 0);
        }
        if (-18..0).contains(&power) {
            // The divisor is below 2^60, so the quotient has at least 67 bits.
            let shift = 64 + digits.leading_zeros();
            let dividend = u128::from(digits) << shift;
            let divisor = 10u128.pow(power.unsigned_abs());
            let quotient = (dividend / divisor) | u128::from(dividend % divisor != 0);
            return parsed(quotient, -(shift as i32));
        }
    }
    parse_big_decimal(&decimal, power)
}

/// Divides exactly, as many bits as are needed.
fn parse_big_decimal(decimal: &Decimal<'_>, power: i32) -> Option<Magnitude> {
    let mut dividend = BigUint::from_u64(0);
    for digit in decimal.digits() {
        dividend.multiply_add(10, u32::from(digit));
    }
    let mut divisor = BigUint::from_u64(1);
    if power >= 0 { &mut dividend } else { &mut divisor }.multiply_by_power_of_ten(power.unsigned_abs());

    // Aligned so that 1/2 < dividend / divisor < 2; the value is that quotient times 2^scale.
    let scale = dividend.bit_len() as i32 - divisor.bit_len() as i32;
    if scale >= 0 { &mut divisor } else { &mut dividend }.shift_left(scale.unsigned_abs());
    const BITS: i32 = 68;
    let mut quotient: u128 = 0;
    for _ in 0..BITS {
        quotient <<= 1;
        if dividend >= divisor {
            dividend.subtract(&divisor);
            quotient |= 1;
        }
        dividend.shift_left(1);
    }
    quotient |= u128::from(!dividend.is_zero());
    parsed(quotient, scale - (BITS - 1))
}

/// Writes `significand · 2^shift`.
fn write_shifted(significand: u64, shift: u32, out: &mut Vec<u8>) {
    if shift <= 64 {
        let value = u128::from(significand) << shift;
        out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
        return;
    }
    let mut number = BigUint::from_u64(significand);
    number.shift_left(shift);
    number.write_decimal(out);
}

/// The integral part of `significand · 2^-shift`, and 17 decimal digits of the rest, rounded half to even.
fn split_at_point(significand: u64, shift: u32) -> (u64, u64) {
    const SCALE: u128 = 100_000_000_000_000_000;
    let whole = significand.checked_shr(shift).unwrap_or(0);
    let rest = if shift < 64 { significand & ((1 << shift) - 1) } else { significand };
    // Below 2^64 · 2^57.
    let product = u128::from(rest) * SCALE;
    if shift > 121 {
        return (whole, 0);
    }
    let half = 1u128 << (shift - 1);
    let fraction = product >> shift;
    let dropped = product & ((1 << shift) - 1);
    let up = dropped > half || (dropped == half && fraction & 1 == 1);
    let fraction = fraction + u128::from(up);
    if fraction == SCALE { (whole + 1, 0) } else { (whole, fraction as u64) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(number: LongDouble) -> String {
        String::from_utf8(number.to_text()).unwrap()
    }

    fn sum(a: &str, b: &str) -> Option<String> {
        let a = LongDouble::parse(a.as_bytes())?;
        let b = LongDouble::parse(b.as_bytes())?;
        Some(a.plus(b).map_or_else(|LongDoubleError| "not finite".to_owned(), text))
    }

    #[test]
    fn sums_print_as_in_redis() {
        // SET k A; INCRBYFLOAT k B on redis-server 7.2.
        let cases = [
            ("0.1", "0.2", "0.3"),
            ("3.0", "1.1", "4.1"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("1", "-1", "0"),
            ("-0", "-0", "0"),
            ("3.0", "1.000000000000000005", "4.00000000000000001"),
            ("9223372036854775807", "9223372036854775807", "18446744073709551614"),
            ("-9223372036854775808", "0.5", "-9223372036854775807.5"),
            ("1e17", "0.1", "100000000000000000.1015625"),
            ("1e18", "0.3", "1000000000000000000.3125"),
            ("4e-18", "0", "0"),
            ("-4e-18", "0", "0"),
            ("6e-18", "0", "0.00000000000000001"),
            ("0x1p-18", "0", "0.00000381469726562"),
            ("0x1p-19", "0", "0.00000190734863281"),
            ("0x10", "0x.8", "16.5"),
            ("1e-300", "1e-300", "0"),
            ("123456789012345678901234567890", "1", "123456789012345678899921813504"),
            ("1e40", "1e-40", "9999999999999999999783686092270256259072"),
            ("0.999999999999999995", "0", "1"),
            ("1e4932", "1e4932", "not finite"),
            ("inf", "1", "not finite"),
            ("inf", "-inf", "not finite"),
        ];
        for (a, b, want) in cases {
            assert_eq!(sum(a, b).as_deref(), Some(want), "{a} + {b}");
            assert_eq!(sum(b, a).as_deref(), Some(want), "{b} + {a}");
        }
    }

    #[test]
    fn refused_texts() {
        for t in ["", " 1", "1 ", "nan", "-nan", "1e", ".", "0x", "1e4933", "-1e4933", "1e-4951", "0x1p16384"]
        {
            assert_eq!(LongDouble::parse(t.as_bytes()), None, "{t}");
        }
        assert_eq!(LongDouble::parse(&[b'0'; 5119]), Some(LongDouble::ZERO));
        assert_eq!(LongDouble::parse(&[b'0'; 5120]), None);
    }

    #[test]
    fn the_largest_prints_in_full() {
        let max = text(LongDouble::parse(b"0xffffffffffffffffp16320").unwrap());
        assert_eq!(max.len(), 4933);
        assert!(max.starts_with("118973149535723176502126385303097"));
        assert_eq!(text(LongDouble::parse(max.as_bytes()).unwrap()), max);
    }

    #[test]
    fn coordinates_print_exactly_to_17_decimals() {
        // GEOPOS of redis-server 7.2 for Palermo and Catania.
        for (value, want) in [
            (13.361_389_338_970_184, "13.36138933897018433"),
            (38.115_556_395_496_3, "38.11555639549629859"),
            (15.087_267_458_438_873, "15.08726745843887329"),
        ] {
            assert_eq!(text(LongDouble::from_f64(value)), want);
        }
    }

    proptest! {
        #[test]
        fn doubles_add_exactly_where_they_fit(a in -1_000_000i64..1_000_000, b in -1_000_000i64..1_000_000) {
            let number = |v: i64| LongDouble::from_f64(v as f64 / 64.0);
            let want = (a + b) as f64 / 64.0;
            prop_assert_eq!(number(a).plus(number(b)), Ok(LongDouble::from_f64(want)));
            prop_assert_eq!(text(number(a)).parse::<f64>().unwrap(), a as f64 / 64.0);
        }

        #[test]
        fn both_ways_of_reading_decimals_agree(digits: u64, power in -17i32..19) {
            // Twenty more zeros take the text to the exact division.
            let short = LongDouble::parse(format!("{digits}e{power}").as_bytes());
            let long = LongDouble::parse(format!("{digits}{}e{}", "0".repeat(20), power - 20).as_bytes());
            prop_assert_eq!(short, long);
        }
    }
}
