//! Parsing and printing numbers exactly as Redis does.

mod long_double;

pub use long_double::{LongDouble, LongDoubleError};

/// Parses a decimal integer in its one canonical form: no spaces, no `+`, no leading zeros, no `-0`.
#[inline]
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &digit in digits {
        let digit = digit.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        // 19 digits fit into 64 bits.
        value = value * 10 + u64::from(digit);
    }
    if negative {
        (value <= i64::MIN.unsigned_abs()).then(|| (value as i64).wrapping_neg())
    } else {
        i64::try_from(value).ok()
    }
}

/// Parses an unsigned decimal integer, as a cursor is given; leading zeros are allowed, a sign is not.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    text.iter().try_fold(0u64, |value, digit| value.checked_mul(10)?.checked_add(u64::from(digit - b'0')))
}

/// Parses a double as `strtod` reads it, all of the text: decimal, hexadecimal, `inf` and `nan` in any case.
///
/// Spaces are refused, and so is what is too large for a double.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let (sign, unsigned) = match text {
        [b'-', rest @ ..] => (-1.0, rest),
        [b'+', rest @ ..] => (1.0, rest),
        rest => (1.0, rest),
    };
    let magnitude = match unsigned {
        [b'0', b'x' | b'X', digits @ ..] => parse_hexadecimal(digits)?,
        [b'0'..=b'9' | b'.', ..] => {
            let value: f64 = std::str::from_utf8(unsigned).ok()?.parse().ok()?;
            if value.is_infinite() {
                return None;
            }
            value
        }
        word if word.eq_ignore_ascii_case(b"inf") || word.eq_ignore_ascii_case(b"infinity") => f64::INFINITY,
        word if word.eq_ignore_ascii_case(b"nan") => f64::NAN,
        _ => return None,
    };
    Some(sign * magnitude)
}

fn parse_hexadecimal(text: &[u8]) -> Option<f64> {
    let (digits, exponent) = match text.iter().position(|byte| matches!(byte, b'p' | b'P')) {
        Some(at) => {
            let exponent = std::str::from_utf8(&text[at + 1..]).ok()?;
            (&text[..at], exponent.parse::<i32>().ok()?)
        }
        None => (text, 0),
    };
    let (mut value, mut scale, mut seen, mut after_point) = (0.0f64, exponent, false, false);
    for &byte in digits {
        if byte == b'.' && !after_point {
            after_point = true;
            continue;
        }
        value = value * 16.0 + f64::from(char::from(byte).to_digit(16)?);
        scale -= if after_point { 4 } else { 0 };
        seen = true;
    }
    let value = value * 2f64.powi(scale);
    (seen && value.is_finite()).then_some(value)
}

/// Room for the text of a double.
pub struct FloatBuf {
    bytes: [u8; 40],
    len: usize,
}

impl FloatBuf {
    /// An empty buffer.
    pub const fn new() -> Self {
        Self { bytes: [0; 40], len: 0 }
    }

    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn zeros(&mut self, count: usize) {
        for _ in 0..count {
            self.push(b"0");
        }
    }
}

impl Default for FloatBuf {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Write for FloatBuf {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        if self.len + text.len() > self.bytes.len() {
            return Err(std::fmt::Error);
        }
        self.push(text.as_bytes());
        Ok(())
    }
}

/// Integers up to here are printed digit by digit.
const EXACT: f64 = (1u64 << 62) as f64;

/// The text of a double as Redis 7.2 replies it: the fewest digits that read back as the same double.
pub fn format_f64(value: f64, buffer: &mut FloatBuf) -> &[u8] {
    buffer.len = 0;
    if value.is_nan() {
        buffer.push(b"nan");
    } else if value.is_infinite() {
        buffer.push(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == 0.0 {
        buffer.push(if value.is_sign_negative() { b"-0" } else { b"0" });
    } else if value.abs() <= EXACT && value.fract() == 0.0 {
        buffer.push(itoa::Buffer::new().format(value as i64).as_bytes());
    } else {
        format_shortest(value, buffer);
    }
    &buffer.bytes[..buffer.len]
}

/// Lays out the shortest digits: plain where that is short, with an exponent otherwise.
fn format_shortest(value: f64, buffer: &mut FloatBuf) {
    use std::fmt::Write;
    let mut scientific = FloatBuf::new();
    if write!(scientific, "{:e}", value.abs()).is_err() {
        unreachable!("17 digits and an exponent fit into 40 bytes");
    }
    let text = &scientific.bytes[..scientific.len];
    let split = text.iter().position(|byte| *byte == b'e').unwrap_or(text.len());
    let exponent: i32 =
        std::str::from_utf8(&text[split + 1..]).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
    let mut digits = [0; 20];
    let mut count = 0;
    for byte in text[..split].iter().filter(|byte| **byte != b'.') {
        digits[count] = *byte;
        count += 1;
    }
    let digits = &digits[..count];
    // The value is `digits` times ten to the `power`.
    let power = exponent - (count as i32 - 1);
    if value < 0.0 {
        buffer.push(b"-");
    }
    if power >= 0 && exponent.abs() < count as i32 + 7 {
        buffer.push(digits);
        buffer.zeros(power as usize);
    } else if power < 0 && (power > -7 || exponent.abs() < 4) {
        let point = count as i32 + power;
        if point <= 0 {
            buffer.push(b"0.");
            buffer.zeros(-point as usize);
            buffer.push(digits);
        } else {
            buffer.push(&digits[..point as usize]);
            buffer.push(b".");
            buffer.push(&digits[point as usize..]);
        }
    } else {
        buffer.push(&digits[..1]);
        if count > 1 {
            buffer.push(b".");
            buffer.push(&digits[1..]);
        }
        buffer.push(if exponent < 0 { b"e-" } else { b"e+" });
        buffer.push(itoa::Buffer::new().format(exponent.abs()).as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        String::from_utf8_lossy(format_f64(value, &mut FloatBuf::new())).into_owned()
    }

    #[test]
    fn integers_have_one_form() {
        for (text, value) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
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
    fn doubles_are_read_as_strtod_reads_them() {
        for (text, value) in [
            ("1.5", Some(1.5)),
            ("-.5", Some(-0.5)),
            ("1e3", Some(1000.0)),
            ("0x10", Some(16.0)),
            ("0x1.8p1", Some(3.0)),
            ("+INF", Some(f64::INFINITY)),
            ("-infinity", Some(f64::NEG_INFINITY)),
            ("1e400", None),
            (" 1", None),
            ("1 ", None),
            ("", None),
            ("abc", None),
            ("--1", None),
            ("0x", None),
        ] {
            assert_eq!(parse_f64(text.as_bytes()), value, "{text:?}");
        }
    }

    #[test]
    fn doubles_are_printed_as_redis_prints_them() {
        for (value, expected) in [
            (0.1, "0.1"),
            (-0.0, "-0"),
            (3.0, "3"),
            (1e15, "1000000000000000"),
            (1e17, "100000000000000000"),
            (1.5e300, "1.5e+300"),
            (1e21, "1e+21"),
            (12_345_678_901_234_567_890.0, "12345678901234567000"),
            (0.00001234, "1.234e-5"),
            (1e-10, "1e-10"),
            (0.001, "0.001"),
            (1.0 / 3.0, "0.3333333333333333"),
            (123_456.789, "123456.789"),
        ] {
            assert_eq!(text(value), expected);
        }
    }
}
