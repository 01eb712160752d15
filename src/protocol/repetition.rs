//! A request that says what the one before it said, of another key.
//!
//! Pipelines are mostly made of such requests. What lies before and behind the key is compared as a whole, rather than
//! read argument by argument: measured in `benches/ratelimit` and `benches/compare`.

use super::Span;
use crate::types::equality::same_bytes;

/// The request before.
#[derive(Debug, Clone, Copy)]
pub struct Previous<'a> {
    /// Where it begins in the buffer.
    pub start: usize,
    /// Where it ends.
    pub end: usize,
    /// Where its arguments lie.
    pub spans: &'a [Span],
    /// Which of them is the key; not the first.
    pub key: usize,
}

/// Where the request at a place is the one before but for its key.
#[derive(Debug, Clone, Copy)]
pub struct Repetition {
    /// Where it ends.
    pub end: usize,
    /// Where its key lies.
    pub key: Span,
    /// How far behind those of the one before the arguments before its key lie.
    shift: u32,
    /// The same of the arguments behind the key.
    shift_behind: u32,
}

impl Repetition {
    /// Looks for one at `at`, behind the previous request; `None` if it is another or not there as a whole, or if its key
    /// is longer than 99 bytes.
    #[inline]
    pub fn find(buffer: &[u8], at: usize, previous: Previous<'_>) -> Option<Self> {
        let Previous { start, end, spans, key } = previous;
        let before = spans.get(key.checked_sub(1)?)?;
        let old = spans.get(key)?;
        // Up to the mark of the key's header, with the line end of the argument before.
        let ahead = ((before.start + before.len) as usize + 2).checked_sub(start)?;
        let rest = buffer.get(at..)?;
        if !same_bytes(rest.get(..ahead)?, &buffer[start..start + ahead]) {
            return None;
        }
        let digit = |byte: u8| Some(usize::from(byte.wrapping_sub(b'0'))).filter(|digit| *digit < 10);
        let (len, header) = match *rest.get(ahead..)?.first_chunk()? {
            [b'$', units, b'\r', b'\n', _] => (digit(units)?, 4),
            [b'$', tens @ b'1'..=b'9', units, b'\r', b'\n'] => (digit(tens)? * 10 + digit(units)?, 5),
            _ => return None,
        };
        let behind = &buffer[(old.start + old.len) as usize..end];
        let place = ahead + header;
        if !same_bytes(rest.get(place + len..)?.get(..behind.len())?, behind) {
            return None;
        }
        let key = Span { start: (at + place) as u32, len: len as u32 };
        let shift_behind = (key.start + key.len) - (old.start + old.len);
        Some(Self { end: at + place + len + behind.len(), key, shift: (at - start) as u32, shift_behind })
    }

    /// Appends where its arguments lie, by where those of the one before do: from place `first` on, the key at place `key`
    /// of them.
    #[inline]
    pub fn append(self, spans: &mut Vec<Span>, first: usize, key: usize) {
        let count = spans.len() - first;
        for index in 0..count {
            let Span { start, len } = spans[first + index];
            spans.push(match index {
                _ if index < key => Span { start: start + self.shift, len },
                _ if index == key => self.key,
                _ => Span { start: start + self.shift_behind, len },
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Limits, RequestParser};
    use super::*;

    fn encode(words: &[String]) -> Vec<u8> {
        let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
        }
        bytes
    }

    fn word() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c\r\n$*]{0,3}", "[a-z]{8,12}", "[ab]{99,101}"]
    }

    proptest! {
        /// Whatever is found is what the parser finds; and what differs in nothing but a short key is found.
        #[test]
        fn it_is_what_the_parser_reads(
            one in prop::collection::vec(word(), 2..6),
            other in prop::collection::vec(word(), 2..6),
            key in 1usize..6,
            name in word(),
            same in any::<bool>(),
            cut in prop::option::of(0usize..100),
        ) {
            let key = key.min(one.len() - 1);
            let mut other = if same { one.clone() } else { other };
            if same {
                other[key] = name;
            }
            let mut buffer = encode(&one);
            let at = buffer.len();
            buffer.extend(encode(&other));
            if let Some(cut) = cut {
                buffer.truncate(at.max(buffer.len().saturating_sub(cut)));
            }
            let limits = Limits { max_bulk: 1 << 20, authenticated: true };
            let mut parser = RequestParser::default();
            let mut spans = Vec::new();
            prop_assert_eq!(parser.parse(&mut buffer, 0, limits, &mut spans).unwrap(), Some(at));
            let previous = Previous { start: 0, end: at, spans: &spans, key };
            let found = Repetition::find(&buffer, at, previous);
            let mut parsed = spans.clone();
            let end = parser.parse(&mut buffer, at, limits, &mut parsed).unwrap();
            if let Some(found) = found {
                prop_assert_eq!(Some(found.end), end);
                found.append(&mut spans, 0, key);
                prop_assert_eq!(spans, parsed);
            } else {
                prop_assert!(!same || end.is_none() || other[key].len() > 99);
            }
        }
    }
}
