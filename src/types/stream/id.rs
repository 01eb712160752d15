//! The ids of entries: a time and a number within it.

use std::fmt;

use crate::types::number::{parse_i64, parse_u64_lenient};

/// An entry's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StreamId {
    /// Milliseconds since the Unix epoch, mostly.
    pub ms: u64,
    /// Tells entries of the same millisecond apart.
    pub seq: u64,
}

/// The longest text that Redis reads an id from.
const MAX_TEXT: usize = 127;

impl StreamId {
    /// The least id, which no entry has.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    /// The greatest.
    pub const MAX: Self = Self { ms: u64::MAX, seq: u64::MAX };

    /// The id after this one, if there is one.
    pub fn next(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => self.ms.checked_add(1).map(|ms| Self { ms, seq: 0 }),
        }
    }

    /// The id before this one, if there is one.
    pub fn previous(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => self.ms.checked_sub(1).map(|ms| Self { ms, seq: u64::MAX }),
        }
    }

    /// The id that a text spells, as Redis reads it: `5-3`, or `5` with `seq` for what is missing.
    pub fn parse(text: &[u8], seq: u64) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        match text.iter().position(|byte| *byte == b'-') {
            None => Some(Self { ms: number(text)?, seq }),
            Some(dash) => Some(Self { ms: number(&text[..dash])?, seq: number(&text[dash + 1..])? }),
        }
    }

    /// The same, or `-` for the least and `+` for the greatest id.
    pub fn parse_bound(text: &[u8], seq: u64) -> Option<Self> {
        match text {
            b"-" => Some(Self::MIN),
            b"+" => Some(Self::MAX),
            _ => Self::parse(text, seq),
        }
    }

    /// The milliseconds of `5-*`, whose number is to be chosen.
    pub fn parse_open(text: &[u8]) -> Option<u64> {
        let ms = text.strip_suffix(b"-*")?;
        if text.len() > MAX_TEXT || ms.contains(&b'-') { None } else { number(ms) }
    }

    /// Its 16 bytes, in the order of ids.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The id of such bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        Self { ms: (both >> 64) as u64, seq: both as u64 }
    }
}

/// A part of an id.
fn number(text: &[u8]) -> Option<u64> {
    match parse_i64(text) {
        Some(value) => u64::try_from(value).ok(),
        None => parse_u64_lenient(text),
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.ms, self.seq)
    }
}
