//! Doubles to text, in each of the forms Redis replies use.
//!
//! [`format_f64`] is the form of scores and of every double reply; the others serve single commands.
//! Nothing here allocates: the text lives in the caller's [`FloatBuf`].

use std::io::{Cursor, Write};

use super::grisu::{Digits, shortest_digits};

/// Room on the stack for one printed double.
pub struct FloatBuf {
    integer: itoa::Buffer,
    text: [u8; 64],
}

impl FloatBuf {
    /// An empty buffer; it may be used any number of times.
    pub fn new() -> Self {
        Self { integer: itoa::Buffer::new(), text: [0; 64] }
    }
}

impl Default for FloatBuf {
    fn default() -> Self {
        Self::new()
    }
}

/// The text Redis replies for a double: integers up to 2^62 as integers, `-0`, `inf`, `-inf`, `nan`, and
/// everything else as [`format_shortest`].
pub fn format_f64(value: f64, buf: &mut FloatBuf) -> &[u8] {
    const SAFE: f64 = (1i64 << 62) as f64;
    if (-SAFE..=SAFE).contains(&value) && value != 0.0 {
        let integer = value as i64;
        if integer as f64 == value {
            return buf.integer.format(integer).as_bytes();
        }
    }
    if value.is_nan() {
        // Never "-nan", whatever the sign bit says.
        return b"nan";
    }
    format_shortest(value, buf)
}

/// Few digits that read back as the same double: plain notation while the exponent is small,
/// `1.5e+300` beyond. Scripts turn their numbers into arguments in this form.
pub fn format_shortest(value: f64, buf: &mut FloatBuf) -> &[u8] {
    let negative = value.is_sign_negative();
    if value == 0.0 {
        return if negative { b"-0" } else { b"0" };
    }
    if value.is_nan() {
        return if negative { b"-nan" } else { b"nan" };
    }
    if value.is_infinite() {
        return if negative { b"-inf" } else { b"inf" };
    }
    let mut out = Writer { text: &mut buf.text, len: 0 };
    if negative {
        out.push(b'-');
    }
    lay_out(&shortest_digits(value.abs()), &mut out);
    let len = out.len;
    &buf.text[..len]
}

/// Chooses between plain and exponent notation by the two exponents, and writes it.
fn lay_out(decimal: &Digits, out: &mut Writer) {
    let digits = decimal.as_bytes();
    let count = digits.len() as i32;
    let last = decimal.exponent;
    let first = last + count - 1;
    if last >= 0 && first < count + 7 {
        out.extend(digits);
        out.repeat(b'0', last as usize);
    } else if last < 0 && (last > -7 || first.abs() < 4) {
        let whole = count + last;
        if whole <= 0 {
            out.extend(b"0.");
            out.repeat(b'0', whole.unsigned_abs() as usize);
            out.extend(digits);
        } else {
            let (whole, fraction) = digits.split_at(whole as usize);
            out.extend(whole);
            out.push(b'.');
            out.extend(fraction);
        }
    } else {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend(&digits[1..]);
        }
        out.extend(if first < 0 { b"e-" } else { b"e+" });
        out.extend(itoa::Buffer::new().format(first.unsigned_abs()).as_bytes());
    }
}

/// A fixed number of digits after the point, as distances are replied (four of them).
///
/// The value is scaled and rounded as a double, half to even, so `value · 10^digits` must stay below
/// 2^63; zero prints without a sign.
pub fn format_fixed(value: f64, digits: usize, buf: &mut FloatBuf) -> &[u8] {
    debug_assert!((1..=17).contains(&digits));
    let scaled = (value * 10f64.powi(digits as i32)).round_ties_even() as i64;
    let mut out = Writer { text: &mut buf.text, len: 0 };
    if scaled < 0 {
        out.push(b'-');
    }
    let text = buf.integer.format(scaled.unsigned_abs()).as_bytes();
    let (whole, fraction) = text.split_at(text.len().saturating_sub(digits));
    out.extend(if whole.is_empty() { b"0" } else { whole });
    out.push(b'.');
    out.repeat(b'0', digits - fraction.len());
    out.extend(fraction);
    let len = out.len;
    &buf.text[..len]
}

/// C's `%.{precision}g`, for precisions from 1 to 17. Lua prints numbers with 14.
pub fn format_general(value: f64, precision: usize, buf: &mut FloatBuf) -> &[u8] {
    debug_assert!((1..=17).contains(&precision));
    let negative = value.is_sign_negative();
    if value.is_nan() {
        return if negative { b"-nan" } else { b"nan" };
    }
    if value.is_infinite() {
        return if negative { b"-inf" } else { b"inf" };
    }
    let mut scratch = [0u8; 32];
    let mut cursor = Cursor::new(&mut scratch[..]);
    // The buffer holds 1 + 1 + 16 + 1 + 4 bytes at most, so writing cannot fail.
    let _ = write!(cursor, "{:.*e}", precision - 1, value.abs());
    let written = cursor.position() as usize;
    let text = &scratch[..written];
    let mut parts = text.split(|&b| b == b'e');
    let mantissa = parts.next().unwrap_or_default();
    let exponent = parts.next().and_then(super::parse_i64).unwrap_or(0) as i32;

    let mut digits = [b'0'; 17];
    let mut count = 0;
    for &b in mantissa.iter().filter(|b| **b != b'.') {
        digits[count] = b;
        count += 1;
    }
    while count > 1 && digits[count - 1] == b'0' {
        count -= 1;
    }
    let mut out = Writer { text: &mut buf.text, len: 0 };
    if negative {
        out.push(b'-');
    }
    lay_out_general(&digits, count, exponent, precision as i32, &mut out);
    let len = out.len;
    &buf.text[..len]
}

/// The notation of `%g`: `count` significant digits (zeros follow), the first worth `10^exponent`.
fn lay_out_general(digits: &[u8; 17], count: usize, exponent: i32, precision: i32, out: &mut Writer) {
    if exponent < -4 || exponent >= precision {
        out.push(digits[0]);
        if count > 1 {
            out.push(b'.');
            out.extend(&digits[1..count]);
        }
        out.extend(if exponent < 0 { b"e-" } else { b"e+" });
        if exponent.abs() < 10 {
            out.push(b'0');
        }
        out.extend(itoa::Buffer::new().format(exponent.unsigned_abs()).as_bytes());
    } else if exponent < 0 {
        out.extend(b"0.");
        out.repeat(b'0', (-1 - exponent) as usize);
        out.extend(&digits[..count]);
    } else {
        let whole = exponent as usize + 1;
        out.extend(&digits[..whole]);
        if count > whole {
            out.push(b'.');
            out.extend(&digits[whole..count]);
        }
    }
}

/// Appends to a buffer known to be large enough.
struct Writer<'a> {
    text: &'a mut [u8; 64],
    len: usize,
}

impl Writer<'_> {
    fn push(&mut self, byte: u8) {
        self.text[self.len] = byte;
        self.len += 1;
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.text[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn repeat(&mut self, byte: u8, times: usize) {
        self.text[self.len..self.len + times].fill(byte);
        self.len += times;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::number::parse_f64;
    use proptest::prelude::*;

    fn text(format: impl FnOnce(&mut FloatBuf) -> &[u8]) -> String {
        String::from_utf8_lossy(format(&mut FloatBuf::new())).into_owned()
    }

    #[test]
    fn replies() {
        // ZADD and ZSCORE of redis-server 7.2.
        let cases = [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.0, "3"),
            (-17.5, "-17.5"),
            (0.1, "0.1"),
            (1e15, "1000000000000000"),
            (1e17, "100000000000000000"),
            (4_611_686_018_427_387_904.0, "4611686018427387904"),
            (4_611_686_018_427_388_928.0, "4611686018427389000"),
            (9_223_372_036_854_775_808.0, "9223372036854776000"),
            (12_345_678_901_234_567_890.0, "12345678901234567000"),
            (1e19, "1e+19"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (f64::MIN_POSITIVE, "2.2250738585072014e-308"),
            (5e-324, "5e-324"),
            (1e-5, "0.00001"),
            (1e-6, "0.000001"),
            (1e-7, "1e-7"),
            (0.00001234, "1.234e-5"),
            (0.001234567890123456, "0.001234567890123456"),
            (1.0 / 3.0, "0.3333333333333333"),
            (123_456.789, "123456.789"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
            (-f64::NAN, "nan"),
        ];
        for (value, want) in cases {
            assert_eq!(text(|b| format_f64(value, b)), want);
        }
    }

    #[test]
    fn not_always_the_shortest() {
        // Where the algorithm gives a digit more than needed, or not the nearest: so does redis-server 7.2.
        assert_eq!(text(|b| format_f64(-2.200522771423306e-203, b)), "-2.2005227714233059e-203");
        assert_eq!(text(|b| format_f64(1.9959186750038206e-110, b)), "1.9959186750038207e-110");
    }

    #[test]
    fn fixed_digits() {
        let cases = [
            (0.0, "0.0000"),
            (-0.0, "0.0000"),
            (0.00004, "0.0000"),
            (0.00005, "0.0000"),
            (0.00025, "0.0002"),
            (0.00075, "0.0008"),
            (-0.12345, "-0.1234"),
            (166_274.151_56, "166274.1516"),
            (0.775, "0.7750"),
            (9.99999, "10.0000"),
        ];
        for (value, want) in cases {
            assert_eq!(text(|b| format_fixed(value, 4, b)), want, "{value}");
        }
    }

    #[test]
    fn general_is_printf_g() {
        let cases = [
            (0.0, 14, "0"),
            (-0.0, 14, "-0"),
            (0.1, 17, "0.10000000000000001"),
            (0.1, 14, "0.1"),
            (100.0, 2, "1e+02"),
            (100.0, 3, "100"),
            (99.96, 3, "100"),
            (9.996e-5, 3, "0.0001"),
            (9.996e-6, 3, "1e-05"),
            (0.0001, 14, "0.0001"),
            (2.0 / 3.0, 14, "0.66666666666667"),
            (1e14, 14, "1e+14"),
            (12_345_678_901_234.0, 14, "12345678901234"),
            (-1.5e300, 17, "-1.5000000000000001e+300"),
            (f64::NEG_INFINITY, 14, "-inf"),
            (-f64::NAN, 14, "-nan"),
        ];
        for (value, precision, want) in cases {
            assert_eq!(text(|b| format_general(value, precision, b)), want);
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(!value.is_nan());
            let printed = text(|b| format_f64(value, b));
            prop_assert_eq!(parse_f64(printed.as_bytes()).map(f64::to_bits), Some(bits), "{}", printed);
            prop_assert_eq!(text(|b| format_general(value, 17, b)).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
