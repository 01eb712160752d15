//! A minimal RESP2 client: one command at a time, and counting the replies of a pipeline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

/// No single reply may take longer, or the measurement is given up.
const REPLY_LIMIT: Duration = Duration::from_secs(30);

/// Where a server listens.
#[derive(Clone)]
pub enum Endpoint {
    Tcp(u16),
    Unix(PathBuf),
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A blocking connection.
pub struct Client {
    stream: Stream,
    input: Vec<u8>,
    filled: usize,
}

impl Client {
    pub fn connect(endpoint: &Endpoint) -> io::Result<Self> {
        let stream = match endpoint {
            Endpoint::Tcp(port) => {
                let stream = TcpStream::connect(("127.0.0.1", *port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(REPLY_LIMIT))?;
                Stream::Tcp(stream)
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(REPLY_LIMIT))?;
                Stream::Unix(stream)
            }
        };
        Ok(Client { stream, input: vec![0; 64 * 1024], filled: 0 })
    }

    /// Sends one command and discards its reply; an error reply is an error.
    pub fn command<S: AsRef<[u8]>>(&mut self, arguments: &[S]) -> io::Result<()> {
        let mut request = Vec::new();
        encode(&mut request, arguments);
        self.send(&request)?;
        self.skip_replies(1)
    }

    /// Sends one command whose reply is an integer.
    pub fn integer<S: AsRef<[u8]>>(&mut self, arguments: &[S]) -> io::Result<usize> {
        let mut request = Vec::new();
        encode(&mut request, arguments);
        self.send(&request)?;
        let mut reply = Vec::new();
        while reply.last() != Some(&b'\n') {
            let mut byte = [0];
            match &mut self.stream {
                Stream::Tcp(stream) => stream.read_exact(&mut byte)?,
                Stream::Unix(stream) => stream.read_exact(&mut byte)?,
            }
            reply.push(byte[0]);
        }
        let text = String::from_utf8_lossy(&reply);
        let number = text.trim_end().strip_prefix(':').and_then(|digits| digits.parse().ok());
        number.ok_or_else(|| io::Error::other(text.trim_end().to_string()))
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
        }
    }

    /// Reads until `count` complete replies have come. There must be no more than those under way.
    pub fn skip_replies(&mut self, count: usize) -> io::Result<()> {
        self.read_replies(count, |_| {})
    }

    /// The same, and tells of each bulk string whether it was there (or nil).
    pub fn read_replies(&mut self, count: usize, mut bulk: impl FnMut(bool)) -> io::Result<()> {
        let mut counter = ReplyCounter { elements: count, skip: 0 };
        while counter.elements > 0 || counter.skip > 0 {
            if self.filled == self.input.len() {
                self.input.resize(self.input.len() * 2, 0);
            }
            let free = &mut self.input[self.filled..];
            let got = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(free)?,
                Stream::Unix(stream) => stream.read(free)?,
            };
            if got == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = self.filled + got;
            let used = counter.feed(&self.input[..end], &mut bulk)?;
            self.input.copy_within(used..end, 0);
            self.filled = end - used;
        }
        Ok(())
    }
}

/// Follows a stream of RESP2 replies without building them.
struct ReplyCounter {
    /// Elements still to come, on all levels of nesting together.
    elements: usize,
    /// Bytes of the current bulk string (with its line end) still to come.
    skip: usize,
}

impl ReplyCounter {
    /// Consumes what it can; returns how many bytes that were.
    fn feed(&mut self, bytes: &[u8], bulk: &mut impl FnMut(bool)) -> io::Result<usize> {
        let mut at = 0;
        loop {
            let skipped = self.skip.min(bytes.len() - at);
            at += skipped;
            self.skip -= skipped;
            if self.skip > 0 || self.elements == 0 {
                return Ok(at);
            }
            let Some(length) = memchr::memchr(b'\n', &bytes[at..]) else { return Ok(at) };
            let line = &bytes[at..at + length];
            at += length + 1;
            self.elements -= 1;
            match line.first() {
                Some(b'+' | b':') => {}
                Some(b'$') => {
                    let size = size(line)?;
                    bulk(size.is_some());
                    self.skip = size.map_or(0, |size| size + 2);
                }
                Some(b'*') => self.elements += size(line)?.unwrap_or(0),
                _ => return Err(io::Error::other(String::from_utf8_lossy(line).trim_end().to_string())),
            }
        }
    }
}

/// The number in a `$` or `*` line; `None` for the nil forms.
fn size(line: &[u8]) -> io::Result<Option<usize>> {
    let digits = line[1..].strip_suffix(b"\r").unwrap_or(&line[1..]);
    if digits == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(digits).map_err(io::Error::other)?;
    Ok(Some(text.parse().map_err(io::Error::other)?))
}

/// Appends a command in RESP form.
pub fn encode<S: AsRef<[u8]>>(out: &mut Vec<u8>, arguments: &[S]) {
    out.extend_from_slice(format!("*{}\r\n", arguments.len()).as_bytes());
    for argument in arguments {
        let argument = argument.as_ref();
        out.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        out.extend_from_slice(argument);
        out.extend_from_slice(b"\r\n");
    }
}
