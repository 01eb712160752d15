//! Redis's glob patterns: `*`, `?`, `[abc]`, `[^a-z]`, `\` escapes.
//!
//! Iterative: after a mismatch only the last `*` is tried again, which is enough because everything
//! between stars takes exactly one byte of text. So the work is at most the product of the two
//! lengths, however many stars there are, and the stack does not grow.
//!
//! Patterns are bytes; nothing is known of UTF-8.

use std::borrow::Cow;

/// More stars than this (runs of them, not at the end) match nothing, as in Redis.
const MAX_STARS: usize = 1000;

/// Whether the whole text matches the pattern.
///
/// The pattern `*` matches everything. Any other pattern that is not empty needs at least one byte of
/// text, even `**`: so does Redis, whose commands treat the single star apart. (Except when a message
/// is published to a channel without a name, which Redis delivers to no pattern.)
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    pattern == b"*" || run::<false>(pattern, text)
}

/// The same, regardless of the case of ASCII letters; an escaped letter in a class keeps its case.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    pattern == b"*" || run::<true>(pattern, text)
}

/// The bytes that every match begins with.
pub fn literal_prefix(pattern: &[u8]) -> Cow<'_, [u8]> {
    split_literal(pattern).0
}

/// The one text that matches, if the pattern has no wildcards.
pub fn as_literal(pattern: &[u8]) -> Option<Cow<'_, [u8]>> {
    let (prefix, rest) = split_literal(pattern);
    rest.is_empty().then_some(prefix)
}

/// The literal bytes at the start, without escapes, and what follows them.
fn split_literal(pattern: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let plain = pattern.iter().position(|b| is_special(*b)).unwrap_or(pattern.len());
    let (prefix, mut rest) = pattern.split_at(plain);
    let mut prefix = Cow::Borrowed(prefix);
    loop {
        let (byte, len) = match rest {
            [] | [b'*' | b'?' | b'[', ..] => return (prefix, rest),
            [b'\\', escaped, ..] => (*escaped, 2),
            [byte, ..] => (*byte, 1),
        };
        prefix.to_mut().push(byte);
        rest = &rest[len..];
    }
}

fn is_special(byte: u8) -> bool {
    matches!(byte, b'*' | b'?' | b'[' | b'\\')
}

fn run<const FOLD: bool>(pattern: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return pattern.is_empty();
    }
    let (mut at, mut position) = (0, 0);
    // What follows the last star, and where in the text it was tried.
    let mut retry: Option<(usize, usize)> = None;
    let mut stars = 0;
    while position < text.len() {
        let tail = &pattern[at..];
        if tail.first() == Some(&b'*') {
            at += run_of_stars(tail);
            stars += 1;
            if at == pattern.len() {
                return true;
            }
            if stars > MAX_STARS {
                return false;
            }
        } else {
            let (accepted, len) = accepts::<FOLD>(tail, text[position]);
            if accepted {
                at += len;
                position += 1;
                continue;
            }
            match retry {
                Some((behind, start)) => (at, position) = (behind, start + 1),
                None => return false,
            }
        }
        // Behind a star: nothing before the next byte that it can begin with needs a try.
        match skip_ahead::<FOLD>(pattern[at], &text[position..]) {
            Some(skipped) => position += skipped,
            None => return false,
        }
        retry = Some((at, position));
    }
    at + run_of_stars(&pattern[at..]) == pattern.len()
}

fn run_of_stars(pattern: &[u8]) -> usize {
    pattern.iter().take_while(|b| **b == b'*').count()
}

/// How far the first byte lies that this element of a pattern may accept.
fn skip_ahead<const FOLD: bool>(element: u8, text: &[u8]) -> Option<usize> {
    if is_special(element) {
        Some(0)
    } else if FOLD {
        memchr::memchr2(element.to_ascii_lowercase(), element.to_ascii_uppercase(), text)
    } else {
        memchr::memchr(element, text)
    }
}

/// Whether the pattern's first element, which is no star, accepts a byte; and that element's length.
fn accepts<const FOLD: bool>(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'[', class @ ..] => {
            let (accepted, len) = class_accepts::<FOLD>(class, byte);
            (accepted, len + 1)
        }
        [b'\\', escaped, ..] => (equal::<FOLD>(*escaped, byte), 2),
        [literal, ..] => (equal::<FOLD>(*literal, byte), 1),
        [] => (false, 0),
    }
}

/// The same for a class, behind its opening bracket; one that does not close ends with the pattern.
fn class_accepts<const FOLD: bool>(class: &[u8], byte: u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    loop {
        match &class[at..] {
            [] => return (found != negated, at),
            [b'\\', escaped, ..] => {
                found |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => return (found != negated, at + 1),
            [from, b'-', to, ..] => {
                found |= in_range::<FOLD>(*from, *to, byte);
                at += 3;
            }
            [literal, ..] => {
                found |= equal::<FOLD>(*literal, byte);
                at += 1;
            }
        }
    }
}

fn equal<const FOLD: bool>(a: u8, b: u8) -> bool {
    a == b || FOLD && a.eq_ignore_ascii_case(&b)
}

/// Whether a byte lies between two others, in whichever order they are given.
///
/// Bytes count as signed, as C's `char` does on the machines Redis is mostly run on, so a range from
/// ASCII to beyond it goes the other way round. Without case, C's `tolower` comes after the ends were
/// put in order, and takes all but the last of the negative ones to their unsigned values.
fn in_range<const FOLD: bool>(from: u8, to: u8, byte: u8) -> bool {
    let signed = |b: u8| i16::from(b as i8);
    let (low, high) = (signed(from).min(signed(to)), signed(from).max(signed(to)));
    if !FOLD {
        return (low..=high).contains(&signed(byte));
    }
    let lower = |c: i16| match c {
        -128..=-2 => c + 256,
        -1 => c,
        _ => i16::from((c as u8).to_ascii_lowercase()),
    };
    (lower(low)..=lower(high)).contains(&lower(signed(byte)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn follows_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("**", "", false),
            ("", "", true),
            ("", "a", false),
            ("?", "", false),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--b--", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[ae]llo", "hallo", true),
            ("h[^e]llo", "hello", false),
            ("h[^e]llo", "hbllo", true),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("h[a", "ha", true),
            ("h[", "ha", false),
            ("h[^", "ha", true),
            ("[a-]", "b", false),
            ("[a-]", "^", true),
            ("[]a]", "a", false),
            ("[]a]", "a]", false),
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"[\]]", "]", true),
            (r"[\-a]", "-", true),
            (r"a\", r"a\", true),
            (r"*\", r"b\", true),
            ("**a", "ba", true),
            ("a*", "abc", true),
            ("a**", "a", true),
            ("*a*?", "xa", false),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn case_is_ignored_as_in_redis() {
        for (pattern, text, expected) in [
            ("MaxMem*", "maxmemory", true),
            ("*MEMORY", "maxmemory", true),
            ("[A-C]x", "BX", true),
            (r"[\A]", "a", false),
            (r"\A", "a", true),
            // The ends are put in order first: 'Z' to 'a' is empty once both are lower case.
            ("[Z-a]", "z", false),
        ] {
            assert_eq!(matches_ignoring_case(pattern.as_bytes(), text.as_bytes()), expected, "{pattern}");
        }
    }

    #[test]
    fn bytes_are_signed() {
        // KEYS on redis-server 7.2.
        assert!(matches(b"[\x80-a]", b"\xff"));
        assert!(matches(b"[\x80-a]", b"A"));
        assert!(!matches(b"[b-\xff]", b"c"));
        assert!(matches(b"[b-\xff]", b"a"));
    }

    #[test]
    fn literals() {
        for (pattern, prefix, literal) in [
            ("", "", true),
            ("user:", "user:", true),
            ("user:*", "user:", false),
            (r"a\*b\?c", "a*b?c", true),
            (r"a\*b?c", "a*b", false),
            (r"a\", r"a\", true),
            ("[a]", "", false),
        ] {
            assert_eq!(&*literal_prefix(pattern.as_bytes()), prefix.as_bytes(), "{pattern}");
            let want = literal.then(|| prefix.as_bytes().to_vec());
            assert_eq!(as_literal(pattern.as_bytes()).map(Cow::into_owned), want, "{pattern}");
        }
    }

    #[test]
    fn many_stars_stay_cheap() {
        let text = [b"a".repeat(20_000), b"b".to_vec()].concat();
        for unit in ["a*", "?*", "[^x]*", "*aaaaaaaa"] {
            let pattern = [unit.repeat(900).as_bytes(), b"c"].concat();
            assert!(!matches(&pattern, &text));
            assert!(!matches_ignoring_case(&pattern, &text));
        }
    }

    #[test]
    fn too_many_stars_match_nothing() {
        let text = b"a".repeat(2000);
        assert!(matches(&[b"*a".repeat(1000), b"*".to_vec()].concat(), &text));
        assert!(!matches(&b"*a".repeat(1001), &text));
    }

    /// The definition, by recursion over single elements.
    fn naive(pattern: &[u8], text: &[u8], fold: bool) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                naive(rest, text, fold) || !text.is_empty() && naive(pattern, &text[1..], fold)
            }
            (_, [byte, after @ ..]) => {
                let (accepted, len) =
                    if fold { accepts::<true>(pattern, *byte) } else { accepts::<false>(pattern, *byte) };
                accepted && naive(&pattern[len..], after, fold)
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in r"[ab*?\[\]^\\-]{0,10}", text in r"[abAB\]-]{1,10}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            prop_assert_eq!(matches(pattern, text), naive(pattern, text, false));
            prop_assert_eq!(matches_ignoring_case(pattern, text), naive(pattern, text, true));
        }

        #[test]
        fn every_match_begins_with_the_prefix(pattern in r"[ab*?\[\]\\]{0,8}", text in r"[ab*?\\]{1,8}") {
            let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
            if matches(pattern, text) {
                prop_assert!(text.starts_with(&literal_prefix(pattern)));
            }
            if let Some(only) = as_literal(pattern) {
                prop_assert_eq!(matches(pattern, text), &*only == text);
            }
        }
    }
}
