//! The request parser: RESP arrays of bulk strings, and inline commands.
//!
//! Resumable (nothing is scanned twice however small the pieces arrive in), without recursion, and it
//! allocates nothing from a declared length. It does not execute, and it never closes the connection itself.

use memchr::memchr;

use super::{ProtocolError, Span};
use crate::types::number::parse_i64;

/// The longest header or inline request, in bytes.
const MAX_LINE: usize = 64 * 1024;

/// What a request may claim.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The longest argument in bytes (`proto-max-bulk-len`).
    pub max_bulk: i64,
    /// Whether the client has authenticated; until then 10 arguments of 16 KiB are all it gets.
    pub authenticated: bool,
}

/// The state of a connection's request that is not complete yet.
///
/// Offsets are relative to the start of that request, so that its bytes may move to another buffer.
#[derive(Debug, Default)]
pub struct RequestParser {
    /// Bytes of the request that are parsed.
    done: usize,
    /// Bytes that are known to hold no line end, behind `done`.
    searched: usize,
    /// Arguments still to come; 0 before the header is read.
    missing: u32,
    /// The length of the argument that is being read, if its header is parsed.
    bulk: Option<u32>,
    /// The arguments so far.
    partial: Vec<Span>,
}

impl RequestParser {
    /// Parses the request that begins at `start`, appending its arguments to `spans` as offsets into `buffer`.
    ///
    /// Returns the offset behind the request, or `None` when it is not complete: then the same bytes, with
    /// more behind them, are to be given again. An empty request (`*0`, a blank line) has no arguments.
    pub fn parse(
        &mut self,
        buffer: &mut [u8],
        start: usize,
        limits: Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Option<usize>, ProtocolError> {
        if self.done == 0 && self.missing == 0 {
            match buffer.get(start) {
                None => return Ok(None),
                Some(b'*') => {}
                Some(_) => return self.inline(buffer, start, spans),
            }
            let (count, next) = match buffer[start + 1..] {
                // The common case, without the general machinery.
                [digit @ b'1'..=b'9', b'\r', b'\n', ..] => (i64::from(digit - b'0'), 4),
                _ => {
                    let Some((line, next)) =
                        self.line(&buffer[start..], ProtocolError::MultibulkHeaderTooBig)?
                    else {
                        return Ok(None);
                    };
                    let count = parse_i64(&buffer[start + 1..start + line]);
                    (count.ok_or(ProtocolError::MultibulkLength)?, next)
                }
            };
            self.searched = 0;
            if count > i64::from(i32::MAX) {
                return Err(ProtocolError::MultibulkLength);
            }
            if count > 10 && !limits.authenticated {
                return Err(ProtocolError::UnauthenticatedMultibulk);
            }
            if count <= 0 {
                self.reset();
                return Ok(Some(start + next));
            }
            self.missing = count as u32;
            self.done = next;
        }
        self.bulks(buffer, start, limits, spans)
    }

    /// Whether a request has begun that is not complete.
    pub fn is_partial(&self) -> bool {
        self.done != 0 || self.searched != 0
    }

    /// The bytes the request is known to need, counted from its start; 0 when nothing is known.
    pub fn wanted(&self) -> usize {
        self.bulk.map_or(0, |len| self.done + len as usize + 2)
    }

    fn bulks(
        &mut self,
        buffer: &[u8],
        start: usize,
        limits: Limits,
        spans: &mut Vec<Span>,
    ) -> Result<Option<usize>, ProtocolError> {
        let request = &buffer[start..];
        let resumed = !self.partial.is_empty();
        let first = spans.len();
        if self.bulk.is_none() {
            self.short_bulks(request, start, spans);
        }
        while self.missing > 0 {
            let len = match self.bulk {
                Some(len) => len,
                None => {
                    let Some(len) = self.bulk_header(request, limits)? else {
                        self.keep(spans, first, start);
                        return Ok(None);
                    };
                    len
                }
            };
            if request.len() < self.done + len as usize + 2 {
                self.bulk = Some(len);
                self.keep(spans, first, start);
                return Ok(None);
            }
            spans.push(Span { start: (start + self.done) as u32, len });
            self.done += len as usize + 2;
            self.bulk = None;
            self.missing -= 1;
        }
        if resumed {
            let shifted =
                self.partial.drain(..).map(|span| Span { start: span.start + start as u32, ..span });
            spans.splice(first..first, shifted);
        }
        let end = start + self.done;
        self.reset();
        Ok(Some(end))
    }

    /// Takes the arguments that are there as a whole and shorter than 100 bytes, up to the first that is not.
    ///
    /// Most requests have no others. What is known of the request is written once: measured in `benches/ratelimit`, whose
    /// requests have six arguments.
    #[inline]
    fn short_bulks(&mut self, request: &[u8], start: usize, spans: &mut Vec<Span>) {
        const fn word(bytes: [u8; 4]) -> u32 {
            u32::from_le_bytes(bytes)
        }
        let (mut done, mut missing) = (self.done, self.missing);
        while missing > 0 {
            // The shortest argument, an empty one, takes six bytes.
            let Some(rest) = request.get(done..) else { break };
            let Some(&[mark, tens, units, line, end, _]) = rest.first_chunk() else { break };
            let head = word([mark, tens, units, line]);
            let digit = |byte: u8| usize::from(byte.wrapping_sub(b'0'));
            let (len, header) = if head & word([255, 0, 255, 255]) == word([b'$', 0, b'\r', b'\n']) {
                if digit(tens) > 9 {
                    break;
                }
                (digit(tens), 4)
            } else if head & word([255, 0, 0, 255]) == word([b'$', 0, 0, b'\r']) && end == b'\n' {
                if !(1..=9).contains(&digit(tens)) || digit(units) > 9 {
                    break;
                }
                (digit(tens) * 10 + digit(units), 5)
            } else {
                break;
            };
            if rest.len() < header + len + 2 {
                break;
            }
            spans.push(Span { start: (start + done + header) as u32, len: len as u32 });
            done += header + len + 2;
            missing -= 1;
        }
        if missing < self.missing {
            (self.done, self.missing, self.searched) = (done, missing, 0);
        }
    }

    #[inline]
    fn bulk_header(&mut self, request: &[u8], limits: Limits) -> Result<Option<u32>, ProtocolError> {
        let rest = &request[self.done..];
        let Some((line, next)) = self.line(rest, ProtocolError::BulkHeaderTooBig)? else {
            return Ok(None);
        };
        if rest[0] != b'$' {
            return Err(ProtocolError::ExpectedBulk(rest[0]));
        }
        let len = parse_i64(&rest[1..line]).ok_or(ProtocolError::BulkLength)?;
        if len < 0 || len > limits.max_bulk || len > i64::from(u32::MAX / 2) {
            return Err(ProtocolError::BulkLength);
        }
        if len > 16 * 1024 && !limits.authenticated {
            return Err(ProtocolError::UnauthenticatedBulk);
        }
        self.done += next;
        Ok(Some(len as u32))
    }

    /// Finds the line that `bytes` begins with: its length without the line end, and with it.
    fn line(
        &mut self,
        bytes: &[u8],
        too_big: ProtocolError,
    ) -> Result<Option<(usize, usize)>, ProtocolError> {
        match memchr(b'\r', &bytes[self.searched.min(bytes.len())..]) {
            Some(at) if self.searched + at + 1 < bytes.len() => {
                let line = self.searched + at;
                self.searched = 0;
                Ok(Some((line, line + 2)))
            }
            Some(at) => {
                self.searched += at;
                Ok(None)
            }
            None if bytes.len() > MAX_LINE => Err(too_big),
            None => {
                self.searched = bytes.len();
                Ok(None)
            }
        }
    }

    fn inline(
        &mut self,
        buffer: &mut [u8],
        start: usize,
        spans: &mut Vec<Span>,
    ) -> Result<Option<usize>, ProtocolError> {
        let request = &mut buffer[start..];
        let Some(at) = memchr(b'\n', &request[self.searched.min(request.len())..]) else {
            if request.len() > MAX_LINE {
                return Err(ProtocolError::InlineTooBig);
            }
            self.searched = request.len();
            return Ok(None);
        };
        let newline = self.searched + at;
        self.reset();
        let line = if newline > 0 && request[newline - 1] == b'\r' { newline - 1 } else { newline };
        // Redis reads the line as a C string, which ends at a zero.
        let line = memchr(0, &request[..line]).unwrap_or(line);
        split_inline(&mut request[..line], start, spans)?;
        Ok(Some(start + newline + 1))
    }

    /// Moves what was parsed of an incomplete request out of `spans`.
    fn keep(&mut self, spans: &mut Vec<Span>, first: usize, start: usize) {
        self.partial
            .extend(spans.drain(first..).map(|span| Span { start: span.start - start as u32, ..span }));
    }

    /// Forgets what is known of an incomplete request.
    pub fn reset(&mut self) {
        self.done = 0;
        self.searched = 0;
        self.missing = 0;
        self.bulk = None;
        if self.partial.capacity() > 1024 {
            self.partial = Vec::new();
        } else {
            self.partial.clear();
        }
    }
}

/// Splits an inline request into words, with the quoting rules of `redis-cli`, unescaping in place.
fn split_inline(line: &mut [u8], offset: usize, spans: &mut Vec<Span>) -> Result<(), ProtocolError> {
    let (mut read, mut write) = (0, 0);
    loop {
        while line.get(read).is_some_and(|&byte| is_space(byte)) {
            read += 1;
        }
        if read >= line.len() {
            return Ok(());
        }
        write = write.min(read);
        let word = write;
        while let Some(&byte) = line.get(read) {
            match byte {
                b' ' | b'\n' | b'\r' | b'\t' => break,
                b'"' => {
                    read += 1;
                    (read, write) = unquote_double(line, read, write)?;
                    break;
                }
                b'\'' => {
                    read += 1;
                    (read, write) = unquote_single(line, read, write)?;
                    break;
                }
                other => {
                    line[write] = other;
                    write += 1;
                    read += 1;
                }
            }
        }
        spans.push(Span { start: (offset + word) as u32, len: (write - word) as u32 });
    }
}

fn unquote_double(
    line: &mut [u8],
    mut read: usize,
    mut write: usize,
) -> Result<(usize, usize), ProtocolError> {
    let hex = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    loop {
        let byte = match *line.get(read).ok_or(ProtocolError::UnbalancedQuotes)? {
            b'"' => break,
            b'\\' if read + 1 < line.len() => {
                if let [b'x', high, low, ..] = line[read + 1..]
                    && let (Some(high), Some(low)) = (hex(high), hex(low))
                {
                    read += 4;
                    high * 16 + low
                } else {
                    read += 2;
                    match line[read - 1] {
                        b'n' => b'\n',
                        b'r' => b'\r',
                        b't' => b'\t',
                        b'b' => 8,
                        b'a' => 7,
                        other => other,
                    }
                }
            }
            other => {
                read += 1;
                other
            }
        };
        line[write] = byte;
        write += 1;
    }
    closing(line, read + 1).map(|read| (read, write))
}

fn unquote_single(
    line: &mut [u8],
    mut read: usize,
    mut write: usize,
) -> Result<(usize, usize), ProtocolError> {
    loop {
        let byte = match *line.get(read).ok_or(ProtocolError::UnbalancedQuotes)? {
            b'\'' => break,
            b'\\' if line.get(read + 1) == Some(&b'\'') => {
                read += 2;
                b'\''
            }
            other => {
                read += 1;
                other
            }
        };
        line[write] = byte;
        write += 1;
    }
    closing(line, read + 1).map(|read| (read, write))
}

/// A closing quote must be followed by a space or nothing.
fn closing(line: &[u8], next: usize) -> Result<usize, ProtocolError> {
    match line.get(next) {
        Some(&byte) if !is_space(byte) => Err(ProtocolError::UnbalancedQuotes),
        _ => Ok(next),
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 11 | 12)
}
