//! Redis's glob patterns: `*`, `?`, `[abc]`, `[^a-z]`, `\` escapes.
//!
//! Iterative: after a mismatch only the last `*` is tried again, so a pattern of many stars stays cheap.

/// Whether the whole text matches the pattern.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_folded(pattern, text, |byte| byte)
}

/// The same, regardless of case.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    matches_folded(pattern, text, |byte| byte.to_ascii_lowercase())
}

fn matches_folded(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one byte further in the text.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        if pattern.get(at) == Some(&b'*') {
            at += 1;
            retry = Some((at, position));
            continue;
        }
        if position == text.len() {
            return at == pattern.len();
        }
        let (accepted, len) = accepts(&pattern[at..], text[position], &fold);
        if accepted {
            at += len;
            position += 1;
        } else if let Some((behind_star, start)) = &mut retry {
            *start += 1;
            (at, position) = (*behind_star, *start);
        } else {
            return false;
        }
    }
}

/// Whether the pattern's first element, which is no star, accepts a byte; and that element's length.
fn accepts(pattern: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'[', class @ ..] => {
            let (accepted, len) = class_accepts(class, byte, fold);
            (accepted, len + 1)
        }
        [b'\\', escaped, ..] => (fold(*escaped) == fold(byte), 2),
        [literal, ..] => (fold(*literal) == fold(byte), 1),
        [] => (false, 0),
    }
}

/// The same for a class, behind its opening bracket; one that does not close ends with the pattern.
fn class_accepts(class: &[u8], byte: u8, fold: &impl Fn(u8) -> u8) -> (bool, usize) {
    let negated = class.first() == Some(&b'^');
    let mut at = usize::from(negated);
    let mut found = false;
    let byte = fold(byte);
    loop {
        match &class[at.min(class.len())..] {
            [] => return (found != negated, class.len()),
            [b']', ..] => return (found != negated, at + 1),
            [b'\\', escaped, ..] => {
                found |= fold(*escaped) == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (fold(*from), fold(*to));
                found |= (from.min(to)..=from.max(to)).contains(&byte);
                at += 3;
            }
            [literal, ..] => {
                found |= fold(*literal) == byte;
                at += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_redis() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
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
            (r"h\*llo", "h*llo", true),
            (r"h\*llo", "hello", false),
            (r"[\]]", "]", true),
            ("**a", "ba", true),
            ("a*", "abc", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
        assert!(matches_ignoring_case(b"MaxMem*", b"maxmemory"));
    }

    #[test]
    fn many_stars_stay_cheap() {
        let pattern = b"a*".repeat(5000);
        let text = [b"a".repeat(20_000), b"b".to_vec()].concat();
        assert!(!matches(&[&pattern[..], b"c"].concat(), &text));
    }
}
