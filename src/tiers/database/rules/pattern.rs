//! Patterns of keys: `user:{id}`, where `{name}` captures one or more bytes and all else is literal.
//!
//! A match is found without backtracking: a capture ends at the *first* place where the literal after it stands, and
//! the last literal is held against the key's end. So each key has at most one reading, and the key can be made
//! again from its captures.

use memchr::memmem;
use smallvec::SmallVec;

/// Captured bytes, in the pattern's order.
pub type Captures<'a> = SmallVec<[&'a [u8]; 4]>;

/// A compiled pattern.
#[derive(Debug, Clone)]
pub struct Pattern {
    text: String,
    prefix: Box<[u8]>,
    /// Each capture's name, and the literal after it; none is empty but the last.
    parts: Box<[(String, Box<[u8]>)]>,
    shortest: usize,
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn compile(text: &str) -> Result<Self, String> {
        let mut pieces = text.split('{');
        let prefix = pieces.next().unwrap_or_default();
        if prefix.contains('}') {
            return Err("'}' without '{'".to_owned());
        }
        let mut parts: Vec<(String, Box<[u8]>)> = Vec::new();
        for piece in pieces {
            let Some((name, literal)) = piece.split_once('}') else {
                return Err("'{' without '}'".to_owned());
            };
            if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-') {
                return Err(format!(
                    "'{{{name}}}' is no capture: its name must be of letters, digits, '_' and '-'"
                ));
            }
            if literal.contains('}') {
                return Err("'}' without '{'".to_owned());
            }
            if parts.iter().any(|(other, _)| other == name) {
                return Err(format!("'{{{name}}}' stands twice"));
            }
            if parts.last().is_some_and(|(_, before)| before.is_empty()) {
                return Err(format!("'{{{name}}}' follows another capture without anything between"));
            }
            parts.push((name.to_owned(), literal.as_bytes().into()));
        }
        let shortest = prefix.len() + parts.iter().map(|(_, literal)| 1 + literal.len()).sum::<usize>();
        if shortest == 0 {
            return Err("must not be empty".to_owned());
        }
        Ok(Self { text: text.to_owned(), prefix: prefix.as_bytes().into(), parts: parts.into(), shortest })
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What every key that matches begins with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The names of the captures, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().map(|(name, _)| &**name)
    }

    /// What the pattern captures of a key, unless it does not match.
    pub fn captures<'a>(&self, key: &'a [u8]) -> Option<Captures<'a>> {
        let mut captures = Captures::new();
        self.walk(key, |capture| captures.push(capture)).then_some(captures)
    }

    /// Whether a key matches.
    #[inline]
    pub fn matches(&self, key: &[u8]) -> bool {
        self.walk(key, |_| {})
    }

    #[inline]
    fn walk<'a>(&self, key: &'a [u8], mut capture: impl FnMut(&'a [u8])) -> bool {
        if key.len() < self.shortest || !key.starts_with(&self.prefix) {
            return false;
        }
        let mut rest = &key[self.prefix.len()..];
        let Some(((_, last), before)) = self.parts.split_last() else { return rest.is_empty() };
        for (_, literal) in before {
            // From 1, as a capture has a byte at least.
            let Some(end) = rest.get(1..).and_then(|from| memmem::find(from, literal)) else { return false };
            capture(&rest[..end + 1]);
            rest = &rest[end + 1 + literal.len()..];
        }
        let Some(captured) = rest.strip_suffix(&**last).filter(|captured| !captured.is_empty()) else {
            return false;
        };
        capture(captured);
        true
    }

    /// The key that captures make, in the pattern's order; `None` if it would be read otherwise.
    pub fn key(&self, captures: &[&[u8]]) -> Option<Box<[u8]>> {
        if captures.len() != self.parts.len() {
            return None;
        }
        let mut key = self.prefix.to_vec();
        for ((_, literal), captured) in self.parts.iter().zip(captures) {
            key.extend_from_slice(captured);
            key.extend_from_slice(literal);
        }
        let is_same = self.captures(&key).is_some_and(|read| read.as_slice() == captures);
        is_same.then(|| key.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(pattern: &str, key: &str) -> Option<Vec<String>> {
        let pattern = Pattern::compile(pattern).unwrap();
        assert_eq!(pattern.matches(key.as_bytes()), pattern.captures(key.as_bytes()).is_some());
        let captures = pattern.captures(key.as_bytes())?;
        assert_eq!(pattern.key(&captures).as_deref(), Some(key.as_bytes()), "{key}");
        Some(captures.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect())
    }

    #[test]
    fn keys_match_as_a_whole() {
        for (pattern, key, expected) in [
            ("user:{id}", "user:7", Some(vec!["7"])),
            ("user:{id}", "user:7:mail", Some(vec!["7:mail"])),
            ("user:{id}", "user:", None),
            ("user:{id}", "users:7", None),
            ("user:{id}", "", None),
            ("user:{id}:cart", "user:7:cart", Some(vec!["7"])),
            ("user:{id}:cart", "user:7:carts", None),
            ("user:{id}:cart", "user::cart", None),
            ("user:{id}:cart", "user:a:cart:cart", Some(vec!["a:cart"])),
            ("{tenant}:{id}", "a:b", Some(vec!["a", "b"])),
            ("{tenant}:{id}", "a:b:c", Some(vec!["a", "b:c"])),
            ("{tenant}:{id}", "::b", Some(vec![":", "b"])),
            ("{tenant}:{id}", ":b", None),
            ("{a}-{b}-{c}.x", "1-2-3.x", Some(vec!["1", "2", "3"])),
            ("all", "all", Some(vec![])),
            ("all", "all2", None),
            ("{any}", "x", Some(vec!["x"])),
        ] {
            let expected = expected.map(|list| list.into_iter().map(str::to_owned).collect::<Vec<_>>());
            assert_eq!(captured(pattern, key), expected, "{pattern} on {key}");
        }
    }

    #[test]
    fn a_key_has_one_reading() {
        let two = Pattern::compile("{a}:{b}").unwrap();
        assert!(two.key(&[b"x:y", b"z"]).is_none());
        assert!(two.key(&[b"x", b"y:z"]).is_some());
        assert!(two.key(&[b"x", b""]).is_none());
        assert!(two.key(&[b"x"]).is_none());
    }

    #[test]
    fn bad_patterns_say_why() {
        for (pattern, part) in [
            ("", "empty"),
            ("a{", "without '}'"),
            ("a}", "without '{'"),
            ("a{b}}", "without '{'"),
            ("a{}", "no capture"),
            ("a{b c}", "no capture"),
            ("{a}{b}", "without anything between"),
            ("{a}:{a}", "twice"),
        ] {
            let error = Pattern::compile(pattern).unwrap_err();
            assert!(error.contains(part), "{pattern}: {error}");
        }
    }

    proptest::proptest! {
        #[test]
        fn captures_make_the_key_again(key in "[ab:{}]{0,12}") {
            for text in ["{x}", "a{x}", "{x}:{y}", "a{x}b{y}:", "{x}::{y}:{z}"] {
                let pattern = Pattern::compile(text).unwrap();
                if let Some(captures) = pattern.captures(key.as_bytes()) {
                    let again = pattern.key(&captures);
                    proptest::prop_assert_eq!(again.as_deref(), Some(key.as_bytes()));
                }
            }
        }
    }
}
