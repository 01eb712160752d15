//! Doubles from text, with what C's `strtod` accepts and what Redis refuses of it.
//!
//! Decimal text goes to the standard library, which rounds correctly as glibc does. Hexadecimal
//! floats and the special names are read here.

use super::integer::{is_c_space, parse_i64};
use super::rounding::round_half_even;

/// Parses a double as Redis reads a score or a float argument.
///
/// Accepted: an optional sign and then decimal with optional exponent, hexadecimal (`0x1.8p3`), or
/// `inf`/`infinity` in any case. Refused: white space, NaN, an incomplete number, a finite text
/// that overflows, and a non-zero text that underflows to zero.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    if let Some(integer) = parse_i64(text) {
        return Some(integer as f64);
    }
    let parsed = parse_float(text)?;
    (!parsed.out_of_range).then_some(parsed.value)
}

/// Parses a double as C's `strtod` alone does: leading white space is skipped, a number that is too
/// large is infinite, one too small is zero, and a text without anything is zero.
///
/// Redis reads the bounds of score ranges so. NaN and trailing bytes are refused, and as in C the
/// text ends at the first NUL byte.
pub fn parse_f64_lenient(text: &[u8]) -> Option<f64> {
    let text = text.split(|b| *b == 0).next().unwrap_or_default();
    if text.is_empty() {
        return Some(0.0);
    }
    let start = text.iter().position(|b| !is_c_space(*b))?;
    Some(parse_float(&text[start..])?.value)
}

/// A number read, and whether it left the range of doubles (`ERANGE` in C).
struct Parsed {
    value: f64,
    out_of_range: bool,
}

fn parse_float(text: &[u8]) -> Option<Parsed> {
    let (negative, body) = split_sign(text);
    let mut parsed = match body {
        [b'i' | b'I', ..] if is_infinity(body) => Parsed { value: f64::INFINITY, out_of_range: false },
        [b'0', b'x' | b'X', hex @ ..] => hex_to_f64(&parse_hex(hex)?),
        [b'0'..=b'9' | b'.', ..] => decimal_to_f64(body)?,
        _ => return None,
    };
    if negative {
        parsed.value = -parsed.value;
    }
    Some(parsed)
}

/// Splits off one leading `+` or `-`; true means minus.
pub(super) fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

/// Whether an unsigned text names infinity.
pub(super) fn is_infinity(body: &[u8]) -> bool {
    body.eq_ignore_ascii_case(b"inf") || body.eq_ignore_ascii_case(b"infinity")
}

fn decimal_to_f64(body: &[u8]) -> Option<Parsed> {
    let value: f64 = std::str::from_utf8(body).ok()?.parse().ok()?;
    let significant = |b: &u8| matches!(b, b'1'..=b'9');
    let out_of_range = value.is_infinite()
        || value == 0.0 && body.iter().take_while(|b| !matches!(b, b'e' | b'E')).any(significant);
    Some(Parsed { value, out_of_range })
}

/// A hexadecimal float before rounding: `significand · 2^exponent`.
pub(super) struct HexFloat {
    /// Up to 124 leading bits; the lowest is set if any later bit was.
    pub(super) significand: u128,
    pub(super) exponent: i32,
}

/// Reads what follows `0x`: digits with an optional point, at least one of them, then optionally
/// `p` and a decimal exponent of two.
pub(super) fn parse_hex(text: &[u8]) -> Option<HexFloat> {
    let mut significand: u128 = 0;
    let mut exponent: i64 = 0;
    let mut seen_digit = false;
    let mut seen_point = false;
    let mut at = 0;
    while let Some(&b) = text.get(at) {
        if b == b'.' && !seen_point {
            seen_point = true;
        } else if let Some(digit) = (b as char).to_digit(16) {
            seen_digit = true;
            if significand >> 120 == 0 {
                significand = significand << 4 | u128::from(digit);
                exponent -= 4 * i64::from(seen_point);
            } else {
                significand |= u128::from(digit != 0);
                exponent += 4 * i64::from(!seen_point);
            }
        } else {
            break;
        }
        at += 1;
    }
    if !seen_digit {
        return None;
    }
    match &text[at..] {
        [] => {}
        [b'p' | b'P', power @ ..] => exponent = exponent.saturating_add(parse_exponent(power)?),
        _ => return None,
    }
    Some(HexFloat { significand, exponent: exponent.clamp(-1 << 30, 1 << 30) as i32 })
}

/// A signed decimal exponent, saturating far beyond what any format can hold.
pub(super) fn parse_exponent(text: &[u8]) -> Option<i64> {
    let (negative, digits) = split_sign(text);
    if digits.is_empty() {
        return None;
    }
    let mut value: i64 = 0;
    for &b in digits {
        if !b.is_ascii_digit() {
            return None;
        }
        value = (value * 10 + i64::from(b - b'0')).min(1 << 40);
    }
    Some(if negative { -value } else { value })
}

fn hex_to_f64(hex: &HexFloat) -> Parsed {
    const MIN_EXPONENT: i32 = -1074;
    let (mut significand, mut exponent) = round_half_even(hex.significand, hex.exponent, 53, MIN_EXPONENT);
    if significand == 0 {
        return Parsed { value: 0.0, out_of_range: hex.significand != 0 };
    }
    while significand >> 52 == 0 && exponent > MIN_EXPONENT {
        significand <<= 1;
        exponent -= 1;
    }
    let biased = i64::from(exponent) - i64::from(MIN_EXPONENT) + 1;
    if biased >= 2047 {
        return Parsed { value: f64::INFINITY, out_of_range: true };
    }
    let fraction = significand & ((1 << 52) - 1);
    let bits = if significand >> 52 == 0 { fraction } else { (biased as u64) << 52 | fraction };
    Parsed { value: f64::from_bits(bits), out_of_range: false }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn p(text: &str) -> Option<f64> {
        parse_f64(text.as_bytes())
    }

    #[test]
    fn accepted_forms() {
        let cases: [(&str, f64); 22] = [
            ("0", 0.0),
            ("-0", -0.0),
            ("+1", 1.0),
            ("007", 7.0),
            (".5", 0.5),
            ("5.", 5.0),
            ("-1.5e3", -1500.0),
            ("5.e-1", 0.5),
            ("1E+2", 100.0),
            ("9223372036854775807", 9_223_372_036_854_775_807.0),
            ("1e-400000000000000000000000", f64::NAN),
            ("0e999999999999999999999", 0.0),
            ("5e-324", 5e-324),
            ("inf", f64::INFINITY),
            ("-InFiNiTy", f64::NEG_INFINITY),
            ("0x10", 16.0),
            ("-0X1.8p1", -3.0),
            ("0x.8", 0.5),
            ("0x1p-1074", 5e-324),
            ("0x1.fffffffffffffp1023", f64::MAX),
            ("0x1.00000000000008p0", 1.0),
            ("0x1.000000000000080000000000000000000000001p0", 1.0000000000000002),
        ];
        for (text, want) in cases {
            if want.is_nan() {
                assert_eq!(p(text), None, "{text}");
            } else {
                assert_eq!(p(text).map(f64::to_bits), Some(want.to_bits()), "{text}");
            }
        }
    }

    #[test]
    fn refused_forms() {
        for t in [
            "",
            " 1",
            "1 ",
            "\t1",
            "nan",
            "NaN",
            "-nan",
            "nan(1)",
            ".",
            "-",
            "+",
            "1e",
            "1e+",
            "e5",
            ".e5",
            "1.2.3",
            "0x",
            "0x.",
            "0xg",
            "0x1p",
            "0x1p+",
            "infin",
            "infinityy",
            "1e309",
            "-1e400",
            "1e-400",
            "-1e-400",
            "2e-324",
            "0x1p1024",
            "0x1.fffffffffffff8p1023",
            "0x1p-1075",
            "--1",
            "+-1",
            "1\0",
            "1_0",
            "\u{661}",
        ] {
            assert_eq!(p(t), None, "{t:?}");
        }
    }

    #[test]
    fn lenient_is_strtod() {
        let cases = [
            ("", Some(0.0)),
            (" ", None),
            (" \t1.5", Some(1.5)),
            ("1e400", Some(f64::INFINITY)),
            ("-0x1p1024", Some(f64::NEG_INFINITY)),
            ("1e-400", Some(0.0)),
            ("0x1p-2000", Some(0.0)),
            ("1\0junk", Some(1.0)),
            ("1 ", None),
            ("nan", None),
            ("x", None),
        ];
        for (text, want) in cases {
            assert_eq!(parse_f64_lenient(text.as_bytes()), want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn shortest_text_round_trips(bits: u64) {
            let v = f64::from_bits(bits);
            prop_assume!(v.is_finite());
            prop_assert_eq!(p(&format!("{v:e}")).map(f64::to_bits), Some(bits));
        }

        #[test]
        fn hex_text_is_exact(significand in 1u64..1 << 53, exponent in -1074i32..970) {
            let text = format!("0x{significand:x}p{exponent}");
            let want = significand as f64 * 2f64.powi(exponent / 2) * 2f64.powi(exponent - exponent / 2);
            prop_assert_eq!(p(&text), Some(want));
        }
    }
}
