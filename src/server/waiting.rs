//! A connection's wait: for keys, for a command that runs apart, for the end of a pause.

use std::io;
use std::time::Duration;

use super::stream::Stream;
use crate::clients::Client;
use crate::engine::{Blocked, WaitEnd};
use crate::instance::Instance;

/// What a blocked client may send ahead before nothing more is read of it.
const MAX_PENDING_WHILE_BLOCKED: usize = 1024 * 1024;
/// The least room for a read into a connection's own buffer.
const READ_AHEAD: usize = 16 * 1024;

/// What ends a blocked client's wait. Requests that come meanwhile are kept, up to a bound.
pub(super) async fn wait_end(
    stream: &Stream,
    pending: &mut Vec<u8>,
    instance: &Instance,
    client: &Client,
    blocked: &Blocked,
) -> WaitEnd {
    let timeout = async {
        match blocked.timeout_ms {
            Some(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(timeout);
    loop {
        tokio::select! {
            biased;
            () = blocked.waiter.finished() => return WaitEnd::Finished,
            () = &mut timeout => return WaitEnd::TimedOut,
            () = client.woken() => {
                if client.is_killed() || instance.is_stopping() {
                    return WaitEnd::Gone;
                }
            }
            ready = stream.readable(), if pending.len() < MAX_PENDING_WHILE_BLOCKED => {
                if ready.is_err() {
                    return WaitEnd::Gone;
                }
                pending.reserve(READ_AHEAD);
                match stream.try_read_buf(pending) {
                    Ok(0) => return WaitEnd::Gone,
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return WaitEnd::Gone,
                }
            }
        }
    }
}
