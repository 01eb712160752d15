//! Replies: the vocabulary of RESP3, and the only place that knows how RESP2 says it.

use super::ReplyError;

/// The protocol version a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// RESP2, what every connection starts with.
    #[default]
    Resp2,
    /// RESP3, after `HELLO 3`.
    Resp3,
}

/// The mark and the digits of integers below 1000, in the lower bytes of a word whose highest byte says how many they are.
static SHORT_INTEGERS: [u64; 1000] = {
    let mut words = [0; 1000];
    let mut number = 0;
    while number < words.len() {
        let digits = 1 + (number > 9) as u64 + (number > 99) as u64;
        let padded = THREE_DIGITS[number] as u64 & 0xff_ffff;
        words[number] = b':' as u64 | (padded >> (8 * (3 - digits))) << 8 | (digits + 1) << 56;
        number += 1;
    }
    words
};

/// Three digits, zeros before them.
static THREE_DIGITS: [u32; 1000] = {
    let mut words = [0; 1000];
    let mut number = 0;
    while number < words.len() {
        let (hundreds, tens, ones) = (number / 100, number / 10 % 10, number % 10);
        words[number] = 0x30_3030 | (hundreds | tens << 8 | ones << 16) as u32;
        number += 1;
    }
    words
};

/// Writes replies of one connection's protocol to its output buffer.
///
/// Handlers write into it and never see a socket; what they wrote is taken back when they return an error.
pub struct Reply<'a> {
    out: &'a mut Vec<u8>,
    protocol: Protocol,
}

/// The place of an aggregate's header whose length is known only at the end.
#[must_use]
pub struct Deferred {
    at: usize,
}

impl<'a> Reply<'a> {
    /// A writer that appends to `out`.
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, protocol: Protocol) -> Self {
        Self { out, protocol }
    }

    /// The protocol this reply is encoded in.
    pub fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Changes the protocol from here on (`HELLO`).
    pub fn set_protocol(&mut self, protocol: Protocol) {
        self.protocol = protocol;
    }

    /// Whether the connection speaks RESP3.
    pub fn is_resp3(&self) -> bool {
        self.protocol == Protocol::Resp3
    }

    /// A mark to come back to with [`Reply::truncate`].
    pub fn position(&self) -> usize {
        self.out.len()
    }

    /// Takes back all that was written after the mark.
    pub fn truncate(&mut self, position: usize) {
        self.out.truncate(position);
    }

    /// What was written after the mark.
    pub fn written(&self, position: usize) -> &[u8] {
        &self.out[position..]
    }

    /// Appends an already encoded reply.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }

    /// `+OK`.
    #[inline]
    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// A simple string; must hold no line break.
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    /// An error; line breaks in its text become spaces.
    pub fn error(&mut self, error: &ReplyError) {
        self.out.push(b'-');
        self.out
            .extend(error.text().iter().map(|&byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer.
    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            _ => self.header(b':', value),
        }
    }

    /// An array of integers, less than ten of them.
    ///
    /// Measured in `benches/ratelimit`, each of whose replies is one.
    #[inline(always)]
    pub fn integer_array<const N: usize>(&mut self, values: &[i64; N]) {
        // Whole words are written where there is room, and what is not of them is overwritten or taken back: that takes
        // no call, and reads nothing that was just written.
        const LONGEST: usize = b":999999999\r\n".len();
        const MILLION: usize = 1_000_000;
        const { assert!(N < 10) };
        if !values.iter().all(|value| (-1..1_000_000_000).contains(value)) {
            return self.long_integers(values);
        }
        let begin = self.out.len();
        self.out.resize(begin + 4 + N * LONGEST + 8, 0);
        let room = &mut self.out[begin..];
        room[..4].copy_from_slice(&[b'*', b'0' + N as u8, b'\r', b'\n']);
        let mut at = 4;
        for &value in values {
            if value < 0 {
                room[at..at + 3].copy_from_slice(b":-1");
                at += 3;
            } else {
                let value = value as usize;
                let (thousands, rest) = (value / 1000, value % 1000);
                let first = match value {
                    ..1000 => rest,
                    1000..MILLION => thousands,
                    MILLION.. => value / MILLION,
                };
                let word = SHORT_INTEGERS[first];
                room[at..at + 8].copy_from_slice(&word.to_le_bytes());
                at += (word >> 56) as usize;
                if value >= MILLION {
                    room[at..at + 4].copy_from_slice(&THREE_DIGITS[thousands % 1000].to_le_bytes());
                    at += 3;
                }
                if value >= 1000 {
                    room[at..at + 4].copy_from_slice(&THREE_DIGITS[rest].to_le_bytes());
                    at += 3;
                }
            }
            room[at..at + 2].copy_from_slice(b"\r\n");
            at += 2;
        }
        self.out.truncate(begin + at);
    }

    #[cold]
    fn long_integers(&mut self, values: &[i64]) {
        self.array(values.len());
        values.iter().for_each(|value| self.integer(*value));
    }

    /// A length or count as an integer.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.integer(value as i64);
    }

    /// A bulk string.
    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len() as i64);
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A bulk string or null.
    pub fn bulk_or_null(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => self.bulk(bytes),
            None => self.null(),
        }
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A text with a format of three letters (`txt`, `mkd`): RESP3's verbatim string.
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        if !self.is_resp3() {
            return self.bulk(text);
        }
        self.header(b'=', text.len() as i64 + 4);
        self.out.extend_from_slice(format.as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A double: a bulk string in RESP2.
    pub fn double(&mut self, value: f64) {
        let mut buffer = crate::types::number::FloatBuf::new();
        let text = crate::types::number::format_f64(value, &mut buffer);
        if self.is_resp3() {
            self.out.push(b',');
            self.out.extend_from_slice(text);
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.header(b'$', text.len() as i64);
            self.out.extend_from_slice(text);
            self.out.extend_from_slice(b"\r\n");
        }
    }

    /// A number of any length, as its digits: a bulk string in RESP2.
    pub fn big_number(&mut self, digits: &[u8]) {
        if !self.is_resp3() {
            return self.bulk(digits);
        }
        self.out.push(b'(');
        self.out.extend_from_slice(digits);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A boolean: `:1` or `:0` in RESP2.
    pub fn boolean(&mut self, value: bool) {
        let text: &[u8] = match (self.protocol, value) {
            (Protocol::Resp2, true) => b":1\r\n",
            (Protocol::Resp2, false) => b":0\r\n",
            (Protocol::Resp3, true) => b"#t\r\n",
            (Protocol::Resp3, false) => b"#f\r\n",
        };
        self.out.extend_from_slice(text);
    }

    /// Null where a single value would stand: `$-1` in RESP2.
    #[inline]
    pub fn null(&mut self) {
        let text: &[u8] = if self.is_resp3() { b"_\r\n" } else { b"$-1\r\n" };
        self.out.extend_from_slice(text);
    }

    /// Null where an array would stand: `*-1` in RESP2.
    pub fn null_array(&mut self) {
        let text: &[u8] = if self.is_resp3() { b"_\r\n" } else { b"*-1\r\n" };
        self.out.extend_from_slice(text);
    }

    /// The header of an array of `len` replies, which follow.
    #[inline]
    pub fn array(&mut self, len: usize) {
        self.header(b'*', len as i64);
    }

    /// The header of a map of `pairs` key-value pairs, which follow; a flat array in RESP2.
    pub fn map(&mut self, pairs: usize) {
        if self.is_resp3() {
            self.header(b'%', pairs as i64);
        } else {
            self.header(b'*', pairs as i64 * 2);
        }
    }

    /// The header of a set; an array in RESP2.
    pub fn set(&mut self, len: usize) {
        self.header(if self.is_resp3() { b'~' } else { b'*' }, len as i64);
    }

    /// The header of an out-of-band message; an array in RESP2.
    pub fn push(&mut self, len: usize) {
        self.header(if self.is_resp3() { b'>' } else { b'*' }, len as i64);
    }

    /// Begins an aggregate whose length is not known yet.
    pub fn deferred(&mut self) -> Deferred {
        Deferred { at: self.out.len() }
    }

    /// Puts an array's header before what was written since.
    pub fn end_array(&mut self, deferred: Deferred, len: usize) {
        self.insert_header(deferred, b'*', len);
    }

    /// Puts a set's header before what was written since.
    pub fn end_set(&mut self, deferred: Deferred, len: usize) {
        let mark = if self.is_resp3() { b'~' } else { b'*' };
        self.insert_header(deferred, mark, len);
    }

    /// Puts a map's header before the pairs written since.
    pub fn end_map(&mut self, deferred: Deferred, pairs: usize) {
        if self.is_resp3() {
            self.insert_header(deferred, b'%', pairs);
        } else {
            self.insert_header(deferred, b'*', pairs * 2);
        }
    }

    fn insert_header(&mut self, deferred: Deferred, mark: u8, len: usize) {
        let body_end = self.out.len();
        self.header(mark, len as i64);
        let header_len = self.out.len() - body_end;
        self.out[deferred.at..].rotate_right(header_len);
    }

    #[inline]
    fn header(&mut self, mark: u8, value: i64) {
        match value {
            0..10 => self.out.extend_from_slice(&[mark, b'0' + value as u8, b'\r', b'\n']),
            10..100 => {
                let (tens, ones) = (b'0' + (value / 10) as u8, b'0' + (value % 10) as u8);
                self.out.extend_from_slice(&[mark, tens, ones, b'\r', b'\n']);
            }
            _ => {
                self.out.push(mark);
                self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
                self.out.extend_from_slice(b"\r\n");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_of_integers_is_what_is_written_one_by_one() {
        let edges = [
            9,
            10,
            99,
            100,
            999,
            1000,
            1001,
            99_999,
            100_000,
            999_999,
            1_000_000,
            1_000_001,
            86_400_000,
            999_999_999,
            1_000_000_000,
            i64::MAX,
            i64::MIN,
        ];
        let edges = edges.into_iter().flat_map(|edge| [edge, edge.wrapping_neg()]);
        for value in (-2..2000).chain(edges) {
            for values in [[value; 7], [0, value, 5, value, -1, 10, value]] {
                let (mut together, mut apart) = (Vec::new(), Vec::new());
                Reply::new(&mut together, Protocol::Resp2).integer_array(&values);
                let mut reply = Reply::new(&mut apart, Protocol::Resp2);
                reply.array(values.len());
                values.iter().for_each(|value| reply.integer(*value));
                assert_eq!(together, apart);
            }
        }
    }
}
