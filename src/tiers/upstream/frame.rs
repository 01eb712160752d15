//! Where a reply ends: replies of RESP2 and RESP3 are passed on as bytes, so their ends are all that must be known.
//!
//! Resumable and without recursion: what a nested reply needs is a count of elements to come, not a stack.

use std::borrow::Cow;

use memchr::memchr;

use crate::types::number::parse_i64;

/// The longest header line. Simple strings and errors may be as long.
const MAX_LINE: usize = 64 * 1024;

/// Bytes that are no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upstream sent what is no reply")]
pub struct BadFrame;

/// How far the frame at the start of a buffer is known.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Bytes known to belong to it.
    done: usize,
    /// Bytes behind `done` that hold no line end.
    searched: usize,
    /// Elements to come; 0 before it has begun.
    missing: u64,
}

impl Scanner {
    /// The length of the frame that `bytes` begin with; `None` if it is not complete: then the same bytes, with more
    /// behind them, are to be given again.
    ///
    /// # Errors
    /// If they are no frame.
    #[inline]
    pub fn scan(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
        if self.missing == 0 {
            self.missing = 1;
        }
        while self.missing > 0 {
            if bytes.len() <= self.done {
                return Ok(None);
            }
            let rest = &bytes[self.done..];
            let Some(at) = memchr(b'\n', &rest[self.searched.min(rest.len())..]) else {
                if rest.len() > MAX_LINE {
                    return Err(BadFrame);
                }
                self.searched = rest.len();
                return Ok(None);
            };
            let line_end = self.searched + at + 1;
            self.searched = 0;
            match rest[0] {
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => {}
                b'$' | b'=' | b'!' => {
                    let length = length_of(rest, line_end)?;
                    if length >= 0 {
                        self.done += length as usize + 2;
                    }
                }
                b'*' | b'~' | b'>' => self.missing = add(self.missing, length_of(rest, line_end)?.max(0))?,
                b'%' => self.missing = add(self.missing, length_of(rest, line_end)?.max(0) * 2)?,
                // An attribute stands before its element rather than being one.
                b'|' => self.missing = add(self.missing, length_of(rest, line_end)?.max(0) * 2 + 1)?,
                _ => return Err(BadFrame),
            }
            self.done += line_end;
            self.missing -= 1;
        }
        if bytes.len() < self.done {
            // All that is missing is the rest of the last bulk string.
            self.missing = 1;
            return self.wait_for_bulk(bytes);
        }
        let end = self.done;
        *self = Self::default();
        Ok(Some(end))
    }

    /// A bulk string's end lies behind the buffer: the frame is complete when the buffer reaches it.
    fn wait_for_bulk(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
        debug_assert!(bytes.len() < self.done);
        self.missing = u64::MAX;
        Ok(None)
    }

    /// Whether only the rest of a last bulk string is missing.
    fn waits_for_bulk(&self) -> bool {
        self.missing == u64::MAX
    }

    /// Bytes that the frame is known to have at least.
    pub fn wanted(&self) -> usize {
        self.done
    }

    /// As [`Scanner::scan`], for a buffer that may end within the last bulk string.
    ///
    /// # Errors
    /// If they are no frame.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadFrame> {
        if self.waits_for_bulk() {
            if bytes.len() < self.done {
                return Ok(None);
            }
            let end = self.done;
            *self = Self::default();
            return Ok(Some(end));
        }
        self.scan(bytes)
    }
}

fn add(missing: u64, more: i64) -> Result<u64, BadFrame> {
    missing.checked_add(more as u64).filter(|sum| *sum < 1 << 40).ok_or(BadFrame)
}

/// The number in a header line.
#[inline]
fn length_of(line: &[u8], end: usize) -> Result<i64, BadFrame> {
    let text = line[..end].strip_suffix(b"\r\n").ok_or(BadFrame)?;
    parse_i64(&text[1..]).filter(|length| (-1..1 << 39).contains(length)).ok_or(BadFrame)
}

/// The elements of an array or a push, as bytes; `None` if the frame is neither.
pub fn elements(frame: &[u8]) -> Option<Vec<&[u8]>> {
    if !matches!(frame.first(), Some(b'*' | b'>')) {
        return None;
    }
    let head = memchr(b'\n', frame)? + 1;
    let count = length_of(frame, head).ok()?;
    let mut rest = &frame[head..];
    let mut elements = Vec::with_capacity(count.clamp(0, 1 << 16) as usize);
    for _ in 0..count {
        let end = Scanner::default().next(rest).ok()??;
        let (element, behind) = rest.split_at(end);
        elements.push(element);
        rest = behind;
    }
    Some(elements)
}

/// The integer that a frame is.
pub fn integer(frame: &[u8]) -> Option<i64> {
    parse_i64(frame.strip_prefix(b":")?.strip_suffix(b"\r\n")?)
}

/// The content of a bulk or simple string.
pub fn text(frame: &[u8]) -> Option<&[u8]> {
    let head = memchr(b'\n', frame)? + 1;
    match frame[0] {
        b'+' => frame[1..head].strip_suffix(b"\r\n"),
        b'$' if length_of(frame, head).ok()? >= 0 => frame[head..].strip_suffix(b"\r\n"),
        _ => None,
    }
}

/// The reply that a script of ours passes on: what it returned from that place on, which is nothing for a null, as a script's
/// array ends there, and for a number that Lua cannot hold exactly, that and its digits.
pub fn scripted<'r>(returned: &[&'r [u8]]) -> Cow<'r, [u8]> {
    match returned {
        [] => Cow::Borrowed(b"_\r\n"),
        [_, digits] if let Some(digits) = text(digits) => Cow::Owned([b":", digits, b"\r\n"].concat()),
        [reply, ..] => Cow::Borrowed(reply),
    }
}

/// Whether a frame is an error.
pub fn is_error(frame: &[u8]) -> bool {
    matches!(frame.first(), Some(b'-' | b'!'))
}

/// The keys that a message says are not what they were; `None` within for all keys, nothing if it says something else.
pub fn invalidated(frame: &[u8]) -> Option<Option<Vec<&[u8]>>> {
    if frame.first() != Some(&b'>') {
        return None;
    }
    let parts = elements(frame)?;
    let [kind, keys] = parts[..] else { return None };
    if text(kind) != Some(b"invalidate") {
        return None;
    }
    // Null: FLUSHALL, FLUSHDB.
    Some(elements(keys).map(|keys| keys.into_iter().filter_map(text).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMES: &[&[u8]] = &[
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":42\r\n",
        b"_\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"$0\r\n\r\n",
        b"$5\r\na\nb\rc\r\n",
        b"*0\r\n",
        b"*2\r\n$1\r\na\r\n*2\r\n:1\r\n*1\r\n$2\r\nxy\r\n",
        b"%1\r\n+k\r\n~2\r\n,1.5\r\n#t\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$1\r\nv\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        b"=6\r\ntxt:hi\r\n",
        b"(12345678901234567890\r\n",
    ];

    #[test]
    fn ends_are_found_however_the_bytes_come() {
        let all = FRAMES.concat();
        for chunk in 1..all.len() {
            let (mut scanner, mut start, mut have, mut found) = (Scanner::default(), 0, 0, Vec::new());
            while have < all.len() {
                have = (have + chunk).min(all.len());
                while let Some(end) = scanner.next(&all[start..have]).unwrap() {
                    found.push(&all[start..start + end]);
                    start += end;
                }
            }
            assert_eq!(found, FRAMES, "{chunk}");
        }
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_depth_costs_nothing() {
        for bad in [&b"hello\r\n"[..], b"$x\r\n", b"*9999999999999\r\n", b"$5\n"] {
            assert_eq!(Scanner::default().next(bad), Err(BadFrame), "{bad:?}");
        }
        let deep = [b"*1\r\n".repeat(200_000), b":1\r\n".to_vec()].concat();
        assert_eq!(Scanner::default().next(&deep), Ok(Some(deep.len())));
    }

    #[test]
    fn frames_are_read() {
        let array = b"*2\r\n$1\r\na\r\n:7\r\n";
        let elements = elements(array).unwrap();
        assert_eq!((text(elements[0]), integer(elements[1])), (Some(&b"a"[..]), Some(7)));
        assert_eq!(
            (text(b"+OK\r\n"), text(b"$-1\r\n"), text(b"$0\r\n\r\n")),
            (Some(&b"OK"[..]), None, Some(&b""[..]))
        );
        assert!(super::elements(b"+OK\r\n").is_none() && is_error(b"-ERR\r\n"));
    }
}
