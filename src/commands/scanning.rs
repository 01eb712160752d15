//! What the commands of the `SCAN` family share.

use super::arguments::{Options, integer};
use crate::protocol::{Args, Reply, ReplyError};
use crate::types::glob;
use crate::types::number::parse_cursor;

/// The options of a scan.
pub struct ScanOptions<'a> {
    /// How many elements one call should about visit.
    pub count: usize,
    pattern: Option<&'a [u8]>,
    type_name: Option<Vec<u8>>,
}

impl<'a> ScanOptions<'a> {
    /// Reads the options from argument `first` on.
    ///
    /// # Errors
    /// Those of Redis for counts and unknown options.
    pub fn parse(args: Args<'a>, first: usize, takes_type: bool) -> Result<Self, ReplyError> {
        let mut parsed = Self { count: 10, pattern: None, type_name: None };
        let mut options = Options::new(args, first);
        while !options.is_done() {
            if options.take_with("count", 1) {
                let count = integer(options.value()?)?;
                if count < 1 {
                    return Err(ReplyError::SYNTAX);
                }
                parsed.count = count as usize;
            } else if options.take_with("match", 1) {
                parsed.pattern = Some(options.value()?).filter(|pattern| *pattern != b"*");
            } else if takes_type && options.take_with("type", 1) {
                parsed.type_name = Some(options.value()?.to_ascii_lowercase());
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        Ok(parsed)
    }

    /// Whether an element's name is wanted.
    pub fn wants(&self, name: &[u8]) -> bool {
        self.pattern.is_none_or(|pattern| glob::matches(pattern, name))
    }

    /// Whether keys of a type are wanted.
    pub fn wants_type(&self, name: &str) -> bool {
        self.type_name.as_ref().is_none_or(|wanted| wanted == name.as_bytes())
    }
}

/// Reads a cursor.
///
/// # Errors
/// That it is none.
pub fn cursor(argument: &[u8]) -> Result<u64, ReplyError> {
    parse_cursor(argument).ok_or(ReplyError::fixed("ERR invalid cursor"))
}

/// Writes what comes before the elements of a scan's reply.
pub fn write_header(reply: &mut Reply<'_>, cursor: u64, elements: usize) {
    reply.array(2);
    reply.bulk(cursor.to_string().as_bytes());
    reply.array(elements);
}

/// Goes over a collection's table until about `count` elements were visited.
pub fn run(cursor: u64, count: usize, mut step: impl FnMut(u64) -> (u64, usize)) -> u64 {
    let (mut cursor, mut seen, mut steps) = (cursor, 0, 0);
    loop {
        let (next, visited) = step(cursor);
        cursor = next;
        seen += visited;
        steps += 1;
        if cursor == 0 || seen >= count || steps >= count.saturating_mul(10) {
            return cursor;
        }
    }
}
