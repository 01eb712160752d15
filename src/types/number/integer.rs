//! Integers from text: the strict form that may be stored as an integer, and the lenient one of C.
//!
//! The strict parsers accept exactly the canonical spelling of a number, so that printing the
//! result gives the input back. That is what lets a string value be kept as an integer.

/// Parses the canonical decimal spelling of an `i64`.
///
/// Refused are spaces, `+`, leading zeros, `-0`, the empty string and anything out of range.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'1'..=b'9', ..] => {}
        b"0" if !negative => return Some(0),
        _ => return None,
    }
    // Most are short.
    if digits.len() <= 8 && !negative {
        return parse_short(digits).map(|value| value as i64);
    }
    // 19 digits always fit an u64; 20 are always beyond an i64.
    if digits.len() > 19 {
        return None;
    }
    let magnitude = parse_digits(digits)?;
    if negative {
        (magnitude <= i64::MIN.unsigned_abs()).then(|| (magnitude as i64).wrapping_neg())
    } else {
        i64::try_from(magnitude).ok()
    }
}

/// Parses up to eight digits, at least one: few one by one, more at once, with zeros before them.
///
/// The arguments of a rate limit are such numbers; measured in `benches/ratelimit`.
#[inline]
fn parse_short(digits: &[u8]) -> Option<u64> {
    let len = digits.len();
    if len <= 4 {
        return digits.iter().try_fold(0, |sum, digit| {
            let digit = digit.wrapping_sub(b'0');
            (digit <= 9).then_some(sum * 10 + u64::from(digit))
        });
    }
    if len == 8 {
        return parse_eight(*digits.first_chunk()?);
    }
    // They end at the highest byte; two reads that overlap cover each length.
    let first = u32::from_le_bytes(*digits.first_chunk()?);
    let last = u32::from_le_bytes(*digits.last_chunk()?);
    let word = u64::from(first) << (8 * (8 - len)) | u64::from(last) << 32;
    parse_eight((word | 0x3030_3030_3030_3030 >> (8 * len)).to_le_bytes())
}

/// Parses an unsigned decimal integer; leading zeros are allowed, spaces and signs are not.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if !text.first()?.is_ascii_digit() {
        return None;
    }
    let digits = &text[text.iter().position(|b| *b != b'0').unwrap_or(text.len())..];
    if digits.len() <= 19 {
        return parse_digits(digits);
    }
    let last = digits.get(19..).filter(|rest| rest.len() == 1 && rest[0].is_ascii_digit())?[0];
    parse_digits(&digits[..19])?.checked_mul(10)?.checked_add(u64::from(last - b'0'))
}

/// Parses a `u64` the way C's `strtoull` in base 10 does: leading white space, a sign and leading
/// zeros are accepted, and a negative number wraps around. The whole text must be used.
///
/// Redis reads the parts of a stream id so. As in C, the text ends at the first NUL byte.
pub fn parse_u64_lenient(text: &[u8]) -> Option<u64> {
    let text = text.split(|&b| b == 0).next().unwrap_or_default();
    let start = text.iter().position(|b| !is_c_space(*b))?;
    let (negative, digits) = match &text[start..] {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    if digits.is_empty() {
        return None;
    }
    let mut value: u64 = 0;
    for &b in digits {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(if negative { value.wrapping_neg() } else { value })
}

/// Parses a scan cursor: as [`parse_u64_lenient`], but leading white space is refused, and a text
/// without anything is the cursor 0.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    match text.first() {
        None | Some(0) => Some(0),
        Some(b) if is_c_space(*b) => None,
        Some(_) => parse_u64_lenient(text),
    }
}

/// What C's `isspace` accepts in the "C" locale.
pub(super) fn is_c_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// The value of at most 19 digits, or `None` if a byte is no digit.
fn parse_digits(digits: &[u8]) -> Option<u64> {
    debug_assert!(digits.len() <= 19);
    let (words, rest) = digits.as_chunks::<8>();
    let mut value: u64 = 0;
    for word in words {
        value = value * 100_000_000 + parse_eight(*word)?;
    }
    for &b in rest {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + u64::from(digit);
    }
    Some(value)
}

/// Eight digits at once: pairs, then fours, then all eight, each step one multiplication.
fn parse_eight(bytes: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(bytes);
    const HIGH: u64 = 0xf0f0_f0f0_f0f0_f0f0;
    let above_nine = word.wrapping_add(0x0606_0606_0606_0606);
    if (word & HIGH) | ((above_nine & HIGH) >> 4) != 0x3333_3333_3333_3333 {
        return None;
    }
    let ones = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (ones.wrapping_mul(10 << 8 | 1) >> 8) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs.wrapping_mul(100 << 16 | 1) >> 16) & 0x0000_ffff_0000_ffff;
    Some(fours.wrapping_mul(10_000 << 32 | 1) >> 32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn canonical_integers() {
        for v in [0, 1, -1, 9, 10, -10, 12_345_678, 123_456_789, i64::MAX, i64::MIN, i64::MIN + 1] {
            assert_eq!(parse_i64(v.to_string().as_bytes()), Some(v), "{v}");
        }
        assert_eq!(parse_u64(b"000000000000000000000000012"), Some(12));
        for v in [0, 1, 10, 99_999_999, 9_999_999_999_999_999_999, 10_000_000_000_000_000_000, u64::MAX] {
            assert_eq!(parse_u64(v.to_string().as_bytes()), Some(v), "{v}");
        }
    }

    #[test]
    fn other_spellings_are_refused() {
        for t in [
            "",
            "-",
            "+1",
            " 1",
            "1 ",
            "01",
            "-0",
            "-01",
            "00",
            "0x1",
            "1.0",
            "1a345678",
            "12345678a",
            "--1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999",
            "1\0",
            "1234567:",
            "1234567/",
            "12345678901234567890123456789",
        ] {
            assert_eq!(parse_i64(t.as_bytes()), None, "{t:?}");
        }
        for t in [
            "",
            "-1",
            "+1",
            " 1",
            "0x",
            "18446744073709551616",
            "20000000000000000000",
            "184467440737095516150",
        ] {
            assert_eq!(parse_u64(t.as_bytes()), None, "{t:?}");
        }
    }

    #[test]
    fn lenient_is_strtoull() {
        let cases: [(&str, Option<u64>); 10] = [
            ("007", Some(7)),
            (" \t+5", Some(5)),
            ("-1", Some(u64::MAX)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("-", None),
            (" ", None),
            ("5 ", None),
            ("12\0junk", Some(12)),
        ];
        for (text, want) in cases {
            assert_eq!(parse_u64_lenient(text.as_bytes()), want, "{text:?}");
        }
    }

    #[test]
    fn cursors() {
        for (text, want) in
            [("", Some(0)), ("-1", Some(u64::MAX)), ("+07", Some(7)), (" 1", None), ("a", None)]
        {
            assert_eq!(parse_cursor(text.as_bytes()), want, "{text:?}");
        }
    }

    proptest! {
        /// What is read is what is written back, and nothing that only looks like it.
        #[test]
        fn only_what_is_written_back_is_read(text in "[0-9/:a\u{0}~-]{0,10}|[1-9][0-9]{0,8}") {
            let expected = text.parse::<i64>().ok().filter(|value| value.to_string() == text);
            prop_assert_eq!(parse_i64(text.as_bytes()), expected, "{:?}", text);
        }
    }

    proptest! {
        #[test]
        fn integers_round_trip(v: i64, shift in 0u32..64) {
            let v = v >> shift;
            prop_assert_eq!(parse_i64(v.to_string().as_bytes()), Some(v));
            let u = v as u64;
            prop_assert_eq!(parse_u64(u.to_string().as_bytes()), Some(u));
            prop_assert_eq!(parse_u64_lenient(u.to_string().as_bytes()), Some(u));
        }

        #[test]
        fn what_parses_is_canonical(text in "[-+ 0-9:/]{0,22}") {
            if let Some(v) = parse_i64(text.as_bytes()) {
                prop_assert_eq!(v.to_string(), text);
            } else if let Ok(v) = text.parse::<i64>() {
                prop_assert_ne!(v.to_string(), text);
            }
        }
    }
}
