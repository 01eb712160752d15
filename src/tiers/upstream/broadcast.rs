//! For clients of ours that want to hear of all keys with some prefix (`CLIENT TRACKING … BCAST`): one connection by which
//! upstream tells of every change, while there is such a client.
//!
//! What may have been missed, because the connection was not there, is told as a change of everything.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use super::connect::{Backoff, ConnectError, Connection, encode};
use super::frame::{self, Scanner};
use super::near::Near;
use super::socket::Dialer;
use super::statistics::Statistics;
use crate::clock;
use crate::config::upstream::UpstreamConfig;

/// The connection, and who wants it.
pub struct Broadcast {
    config: Arc<UpstreamConfig>,
    dialer: Dialer,
    near: Arc<Near>,
    statistics: Arc<Statistics>,
    wanted: Notify,
}

impl Broadcast {
    /// Not connected: nobody wants it yet.
    pub fn new(
        config: Arc<UpstreamConfig>,
        dialer: Dialer,
        near: Arc<Near>,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self { config, dialer, near, statistics, wanted: Notify::new() }
    }

    /// A client wants to hear of changes.
    pub fn want(&self) {
        self.wanted.notify_one();
    }

    /// Connects while somebody wants to hear.
    pub async fn run(self: Arc<Self>) {
        let mut backoff = Backoff::default();
        loop {
            if !self.near.has_broadcasts() {
                self.wanted.notified().await;
                continue;
            }
            match self.serve(&mut backoff).await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!("upstream does not tell of all changes: {error}");
                    self.near.tell_missed();
                    tokio::time::sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// Until nobody wants to hear any more.
    async fn serve(&self, backoff: &mut Backoff) -> Result<(), ConnectError> {
        let mut connection = Connection::open(&self.config, &self.dialer, true, &self.statistics).await?;
        let limit = self.config.timeout;
        let asked = tokio::time::timeout(limit, connection.ask(&["CLIENT", "TRACKING", "ON", "BCAST"]));
        let reply = asked.await.map_err(|_| ConnectError::TimedOut(limit))??;
        if frame::is_error(&reply) {
            return Err(ConnectError::Refused(String::from_utf8_lossy(&reply).trim().to_owned()));
        }
        backoff.reset();
        // Whatever was written before this moment was not heard of.
        self.near.tell_missed();
        let term = connection.term;
        let (mut stream, mut input, _counted) = connection.into_parts();
        let mut scanner = Scanner::default();
        let silence = self.config.timeout.max(self.config.heartbeat);
        let mut ticks = tokio::time::interval((self.config.heartbeat / 2).max(Duration::from_millis(5)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ping = Vec::new();
        encode([&b"PING"[..]].into_iter(), &mut ping);
        let mut heard = clock::monotonic();
        loop {
            let mut start = 0;
            while let Some(length) = scanner.next(&input[start..])? {
                self.heard(&input[start..start + length]);
                start += length;
            }
            input.drain(..start);
            tokio::select! {
                read = stream.read_buf(&mut input) => {
                    if read? == 0 {
                        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
                    }
                    heard = clock::monotonic();
                }
                () = self.dialer.master.end_of(term) => {
                    return Err(ConnectError::Refused("another server is the master".to_owned()));
                }
                _ = ticks.tick() => {
                    if !self.near.has_broadcasts() {
                        return Ok(());
                    }
                    if clock::monotonic() - heard >= silence {
                        return Err(ConnectError::TimedOut(silence));
                    }
                    stream.write_all(&ping).await?;
                    stream.flush().await?;
                }
            }
        }
    }

    fn heard(&self, frame: &[u8]) {
        let Some(invalidated) = frame::invalidated(frame) else { return };
        match invalidated {
            Some(keys) => keys.into_iter().for_each(|key| self.near.tell_broadcast(key)),
            None => self.near.tell_missed(),
        }
    }
}
