//! A connection's wait: for keys, for a command that runs apart, for the end of a pause, for another tier.

use std::io;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::stream::Stream;
use crate::clients::Client;
use crate::config::Id;
use crate::engine::{Blocked, Finished, Pending, WaitEnd};
use crate::instance::Instance;

/// What a blocked client may send ahead before nothing more is read of it.
const MAX_PENDING_WHILE_BLOCKED: usize = 1024 * 1024;
/// The least room for a read into a connection's own buffer.
const READ_AHEAD: usize = 16 * 1024;

/// What `read` reads, unless the connection is to end before: then 0.
pub(super) async fn unless_ended(
    read: impl Future<Output = io::Result<usize>>,
    client: &Client,
    instance: &Instance,
) -> io::Result<usize> {
    tokio::pin!(read);
    loop {
        if client.is_killed() || instance.is_stopping() {
            return Ok(0);
        }
        let idle = instance.settings.int(Id::Timeout);
        // Who listens may have nothing to say.
        if idle <= 0 || client.is_subscribed() {
            tokio::select! {
                biased;
                read = &mut read => return read,
                () = client.woken() => {}
            }
        } else {
            tokio::select! {
                biased;
                read = &mut read => return read,
                () = client.woken() => {}
                () = tokio::time::sleep(Duration::from_secs(idle as u64)) => return Ok(0),
            }
        }
    }
}

/// What ends a blocked client's wait.
pub(super) async fn wait_end(
    stream: &mut Stream,
    input: &mut Vec<u8>,
    instance: &Instance,
    client: &Client,
    blocked: &Blocked,
) -> WaitEnd {
    let end = async {
        let timeout = async {
            match blocked.timeout_ms {
                Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = blocked.waiter.finished() => WaitEnd::Finished,
            () = timeout => WaitEnd::TimedOut,
        }
    };
    unless_gone(stream, input, client, true, || instance.is_stopping(), end).await.unwrap_or(WaitEnd::Gone)
}

/// How a wait for another tier ends; `None` if the client is gone before.
pub(super) async fn pending_end(
    stream: &mut Stream,
    input: &mut Vec<u8>,
    instance: &Instance,
    client: &Client,
    pending: &mut Pending,
) -> Option<Finished> {
    let is_bounded = pending.is_bounded();
    let gives_up = || instance.is_stopping() && !is_bounded;
    // Messages wait for the replies.
    unless_gone(stream, input, client, false, gives_up, pending.finished()).await
}

/// The end of `wait`, unless the client is gone before. Requests that come meanwhile are kept, up to a bound.
async fn unless_gone<T>(
    stream: &mut Stream,
    input: &mut Vec<u8>,
    client: &Client,
    is_told: bool,
    gives_up: impl Fn() -> bool,
    wait: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(wait);
    loop {
        tokio::select! {
            biased;
            end = &mut wait => return Some(end),
            () = client.woken() => {
                if client.is_killed() || gives_up() {
                    return None;
                }
                if is_told && client.pushes.is_waiting() && send_all(stream, &client.pushes.take()).await.is_err() {
                    return None;
                }
            }
            read = read_ahead(stream, input), if input.len() < MAX_PENDING_WHILE_BLOCKED => {
                if !matches!(read, Ok(1..)) {
                    return None;
                }
            }
        }
    }
}

/// Sends messages to a client that waits, and so has all its replies.
async fn send_all(stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while sent < bytes.len() {
        stream.writable().await?;
        match stream.try_write(&bytes[sent..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => sent += written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Reads what a waiting client sends ahead.
async fn read_ahead(stream: &mut Stream, input: &mut Vec<u8>) -> io::Result<usize> {
    input.reserve(READ_AHEAD);
    stream.read_buf(input).await
}
