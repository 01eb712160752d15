//! A connection to upstream: reached, logged in, and speaking the wanted protocol.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::frame::{self, BadFrame, Scanner};
use super::socket::{Dialer, Socket};
use super::statistics::{Counted, Statistics};
use crate::config::upstream::UpstreamConfig;

/// Room for a read.
const READ: usize = 16 * 1024;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It cannot be reached, or broke off.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It took too long.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Upstream does not let us in, or cannot do what is needed.
    #[error("{0}")]
    Refused(String),
    /// It is no Redis.
    #[error("{0}")]
    Protocol(#[from] BadFrame),
}

/// A connection that is set up.
#[derive(Debug)]
pub struct Connection {
    /// The socket.
    pub stream: Socket,
    /// What was read and is not a whole frame.
    pub input: Vec<u8>,
    scanner: Scanner,
    /// The term of the master that it leads to.
    pub term: u64,
    _counted: Counted,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// What went wrong.
    pub async fn open(
        config: &UpstreamConfig,
        dialer: &Dialer,
        resp3: bool,
        statistics: &Arc<Statistics>,
    ) -> Result<Self, ConnectError> {
        let opening = Self::try_open(config, dialer, resp3, statistics);
        tokio::time::timeout(config.timeout, opening)
            .await
            .map_err(|_| ConnectError::TimedOut(config.timeout))?
    }

    async fn try_open(
        config: &UpstreamConfig,
        dialer: &Dialer,
        resp3: bool,
        statistics: &Arc<Statistics>,
    ) -> Result<Self, ConnectError> {
        let ((stream, address), endpoint) = (dialer.dial(config).await?, &config.endpoint);
        let (input, scanner, counted) = (Vec::new(), Scanner::default(), Counted::new(statistics));
        let mut connection = Self { stream, input, scanner, term: 0, _counted: counted };
        let mut hello = vec!["HELLO", if resp3 { "3" } else { "2" }];
        if let Some(password) = &endpoint.password {
            hello.extend(["AUTH", endpoint.user.as_deref().unwrap_or("default"), password]);
        }
        hello.extend(["SETNAME", "anteroom"]);
        let reply = connection.ask(&hello).await?;
        if frame::is_error(&reply) {
            let said = String::from_utf8_lossy(&reply).trim_start_matches('-').trim().to_owned();
            if said.starts_with("ERR unknown command") {
                let text = "upstream has no HELLO: Redis 6 or later is needed";
                return Err(ConnectError::Refused(text.to_owned()));
            }
            return Err(ConnectError::Refused(format!("upstream refuses to log us in: {said}")));
        }
        if endpoint.sentinels.is_some() && memchr::memmem::find(&reply, b"role\r\n$6\r\nmaster").is_none() {
            return Err(ConnectError::Refused("what the Sentinels name is no master".to_owned()));
        }
        if endpoint.sentinels.is_some() {
            connection.term = dialer.master.found(address);
        }
        Ok(connection)
    }

    /// Sends one request and reads its reply, whatever that is.
    ///
    /// # Errors
    /// If the connection broke off.
    pub async fn ask(&mut self, words: &[&str]) -> Result<Box<[u8]>, ConnectError> {
        let mut request = Vec::new();
        encode(words.iter().map(|word| word.as_bytes()), &mut request);
        self.stream.write_all(&request).await?;
        self.stream.flush().await?;
        Ok(self.read().await?)
    }

    /// Reads one frame.
    ///
    /// # Errors
    /// If the connection broke off.
    pub async fn read(&mut self) -> std::io::Result<Box<[u8]>> {
        loop {
            let scanned = self.scanner.next(&self.input).map_err(std::io::Error::other)?;
            if let Some(end) = scanned {
                let frame = self.input[..end].into();
                self.input.drain(..end);
                return Ok(frame);
            }
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// A connection that was set up before, and is between two frames.
    pub fn from_parts(stream: Socket, counted: Counted) -> Self {
        Self { stream, input: Vec::new(), scanner: Scanner::default(), term: 0, _counted: counted }
    }

    /// Takes a connection apart that is between two frames of its own asking.
    pub fn into_parts(self) -> (Socket, Vec<u8>, Counted) {
        (self.stream, self.input, self._counted)
    }
}

/// Appends a request.
pub fn encode<'a>(words: impl ExactSizeIterator<Item = &'a [u8]>, to: &mut Vec<u8>) {
    let mut number = itoa::Buffer::new();
    let mut header = |mark: u8, count: usize, to: &mut Vec<u8>| {
        to.push(mark);
        to.extend_from_slice(number.format(count).as_bytes());
        to.extend_from_slice(b"\r\n");
    };
    header(b'*', words.len(), to);
    for word in words {
        header(b'$', word.len(), to);
        to.extend_from_slice(word);
        to.extend_from_slice(b"\r\n");
    }
}

/// Waits between attempts: longer each time, up to a second, and never the same on two hosts.
#[derive(Debug, Default)]
pub struct Backoff(u32);

impl Backoff {
    /// The next wait.
    pub fn pause(&mut self) -> Duration {
        let most = (50_u64 << self.0.min(5)).min(1000);
        self.0 += 1;
        Duration::from_millis(most / 2 + fastrand::u64(0..=most / 2))
    }

    /// It works again.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}
