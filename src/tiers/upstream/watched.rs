//! Requests by a connection of the client's own: one that blocks, or those of a client that watches keys.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::Upstream;
use super::connect::ConnectError;
use super::dedicated::Dedicated;
use super::expected::Writing;

/// The connection of a client that watches keys; it stays the client's until its transaction ends.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Open(Dedicated),
    Lost,
}

/// Requests to send, and what becomes of the connection.
pub struct Call {
    /// The database.
    pub db: usize,
    /// Whether replies are to be RESP3.
    pub resp3: bool,
    /// The requests.
    pub requests: Vec<u8>,
    /// How many replies come; all but the last are of no interest.
    pub replies: usize,
    /// What they may change.
    pub writing: Writing,
    /// Whether there is a bound to how long they take.
    pub is_bounded: bool,
    /// Whether upstream keeps nothing for the connection afterwards.
    pub is_last: bool,
}

impl Watched {
    /// Sends requests and returns the last reply, or an error in its place.
    pub async fn call(self, upstream: Arc<Upstream>, call: Call) -> Vec<u8> {
        let mut state = self.0.lock().await;
        if let State::Lost = *state {
            return b"-UPSTREAMDOWN the connection that watched keys is lost: nothing was run\r\n".to_vec();
        }
        let mut dedicated = match std::mem::replace(&mut *state, State::Lost) {
            State::Open(dedicated) => dedicated,
            _ => match upstream.pool.take(call.resp3, call.db).await {
                Ok(dedicated) => dedicated,
                Err(error) => return unreachable(&error),
            },
        };
        if let Err(error) = dedicated.select(call.db).await {
            return unreachable(&error);
        }
        let timeout = upstream.config.timeout;
        let asking = dedicated.call(&call.requests, call.replies);
        let replies = if call.is_bounded {
            tokio::time::timeout(timeout, asking)
                .await
                .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        } else {
            asking.await
        };
        // Before anybody hears of it.
        drop(call.writing);
        match replies {
            Ok(mut replies) => {
                if call.is_last {
                    upstream.pool.give_back(dedicated);
                    *state = State::New;
                } else {
                    *state = State::Open(dedicated);
                }
                replies.pop().map_or_else(Vec::new, Vec::from)
            }
            Err(error) => {
                let text = format!(
                    "-OUTCOMEUNKNOWN upstream was lost, and what became of the command is not known: {error}"
                );
                (text.replace(['\r', '\n'], " ") + "\r\n").into_bytes()
            }
        }
    }
}

fn unreachable(error: &ConnectError) -> Vec<u8> {
    let text = format!("-UPSTREAMDOWN upstream cannot be reached: {error}");
    (text.replace(['\r', '\n'], " ") + "\r\n").into_bytes()
}
