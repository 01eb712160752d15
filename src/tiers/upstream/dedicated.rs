//! Connections of one client's own, for as long as upstream keeps state for it: a watched key, a blocked command.
//!
//! They are given back only when upstream keeps nothing for them any more; what is in doubt is closed.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;

use super::connect::{ConnectError, Connection};
use super::frame;
use super::near::Near;
use super::socket::{Dialer, Socket};
use super::statistics::Statistics;
use crate::config::upstream::UpstreamConfig;

/// A connection of one client's own.
#[derive(Debug)]
pub struct Dedicated {
    connection: Connection,
    resp3: bool,
    db: usize,
    epoch: u64,
}

/// Connections that wait for their next client.
#[derive(Debug)]
pub struct Pool {
    idle: Mutex<Vec<Idle>>,
    most: usize,
    dialer: Dialer,
    near: Arc<Near>,
    config: Arc<UpstreamConfig>,
    statistics: Arc<Statistics>,
}

/// Not registered with any thread's runtime: the next client may be another thread's.
#[derive(Debug)]
struct Idle {
    stream: std::net::TcpStream,
    counted: super::statistics::Counted,
    resp3: bool,
    db: usize,
    /// A connection of an earlier epoch may lead to what was the master then.
    epoch: u64,
}

impl Pool {
    /// An empty pool that keeps so many.
    pub fn new(
        most: usize,
        dialer: Dialer,
        near: Arc<Near>,
        config: Arc<UpstreamConfig>,
        statistics: Arc<Statistics>,
    ) -> Self {
        Self { idle: Mutex::new(Vec::new()), most, dialer, near, config, statistics }
    }

    /// The host that its connections lead to.
    pub fn host(&self) -> &str {
        &self.config.endpoint.host
    }

    /// A clean connection in a database.
    ///
    /// # Errors
    /// If there is none and none can be made.
    pub async fn take(&self, resp3: bool, db: usize) -> Result<Dedicated, ConnectError> {
        let mut dedicated = loop {
            let idle = {
                let mut idle = self.idle.lock();
                idle.iter().rposition(|idle| idle.resp3 == resp3).map(|at| idle.swap_remove(at))
            };
            match idle {
                Some(idle) => {
                    if idle.epoch == self.near.epoch()
                        && let Some(dedicated) = idle.wake()
                    {
                        break dedicated;
                    }
                }
                None => {
                    let epoch = self.near.epoch();
                    let connection =
                        Connection::open(&self.config, &self.dialer, resp3, &self.statistics).await?;
                    break Dedicated { connection, resp3, db: 0, epoch };
                }
            }
        };
        dedicated.select(db).await?;
        Ok(dedicated)
    }

    /// Takes a connection back that upstream keeps nothing for. One that is encrypted is closed: it cannot leave its
    /// thread.
    pub fn give_back(&self, dedicated: Dedicated) {
        let Dedicated { connection, resp3, db, epoch } = dedicated;
        let (stream, input, counted) = connection.into_parts();
        let mut idle = self.idle.lock();
        if input.is_empty()
            && idle.len() < self.most
            && let Socket::Plain(stream) = stream
            && let Ok(stream) = stream.into_std()
        {
            idle.push(Idle { stream, counted, resp3, db, epoch });
        }
    }
}

impl Idle {
    /// The connection, if upstream has not closed it meanwhile.
    fn wake(self) -> Option<Dedicated> {
        let mut byte = [0];
        // It is silent if all is well: an end, an error or bytes nobody asked for all mean that it is of no use.
        let is_silent = matches!(
            std::io::Read::read(&mut &self.stream, &mut byte),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock
        );
        if !is_silent {
            return None;
        }
        let stream = tokio::net::TcpStream::from_std(self.stream).ok()?;
        let connection = Connection::from_parts(Socket::Plain(stream), self.counted);
        Some(Dedicated { connection, resp3: self.resp3, db: self.db, epoch: self.epoch })
    }
}

impl Dedicated {
    /// Sends requests and reads the frames of so many replies.
    ///
    /// # Errors
    /// If the connection broke off.
    pub async fn call(&mut self, requests: &[u8], replies: usize) -> std::io::Result<Vec<Box<[u8]>>> {
        self.connection.stream.write_all(requests).await?;
        self.connection.stream.flush().await?;
        let mut frames = Vec::with_capacity(replies);
        while frames.len() < replies {
            let frame = self.connection.read().await?;
            if frame[0] != b'>' {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    /// Goes to a database.
    ///
    /// # Errors
    /// If the connection broke off, or there is no such database.
    pub async fn select(&mut self, db: usize) -> Result<(), ConnectError> {
        if self.db != db {
            let reply = self.connection.ask(&["SELECT", itoa::Buffer::new().format(db)]).await?;
            if frame::is_error(&reply) {
                return Err(ConnectError::Refused(String::from_utf8_lossy(&reply).trim().to_owned()));
            }
            self.db = db;
        }
        Ok(())
    }

    /// Its connection, for what goes on for ever.
    pub fn into_connection(self) -> Connection {
        self.connection
    }
}
