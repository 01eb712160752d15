//! Requests by a connection of the client's own: one that blocks, or those of a client that watches keys.

use std::sync::Arc;

use tokio::sync::Mutex;

use super::Upstream;
use super::cluster::Redirection;
use super::connect::ConnectError;
use super::dedicated::{Dedicated, Pool};
use super::expected::{Form, Writing};

/// The connection of a client that watches keys; it stays the client's until its transaction ends.
#[derive(Debug, Clone, Default)]
pub struct Watched(Arc<Mutex<State>>);

#[derive(Debug, Default)]
enum State {
    #[default]
    New,
    Open(Dedicated, Arc<Pool>),
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
    /// How the last reply is to look.
    pub form: Form,
    /// What they may change.
    pub writing: Writing,
    /// Whether there is a bound to how long they take.
    pub is_bounded: bool,
    /// Whether upstream keeps nothing for the connection afterwards.
    pub is_last: bool,
    /// The slot of its keys, if upstream is a cluster.
    pub slot: Option<u16>,
}

/// So many times a request of a connection's own follows a redirection.
const MOST_REDIRECTIONS: usize = 16;
/// Between attempts, where a node says that it goes later.
const LATER: std::time::Duration = std::time::Duration::from_millis(25);

impl Watched {
    /// Sends requests and returns the last reply, or an error in its place.
    pub async fn call(self, upstream: Arc<Upstream>, call: Call) -> Vec<u8> {
        let mut state = self.0.lock().await;
        if let State::Lost = *state {
            return b"-UPSTREAMDOWN the connection that watched keys is lost: nothing was run\r\n".to_vec();
        }
        let (mut dedicated, mut pool, is_held) = match std::mem::replace(&mut *state, State::Lost) {
            State::Open(dedicated, pool) => (dedicated, pool, true),
            _ => match taken(upstream.pool(call.slot), &call).await {
                Ok((dedicated, pool)) => (dedicated, pool, false),
                Err(error) => return unreachable(&error),
            },
        };
        let (mut requests, mut replies) = (call.requests.clone(), call.replies);
        for _ in 0..MOST_REDIRECTIONS {
            if let Err(error) = dedicated.select(call.db).await {
                return unreachable(&error);
            }
            let asking = dedicated.call(&requests, replies);
            let answers = if call.is_bounded {
                tokio::time::timeout(upstream.config.timeout, asking)
                    .await
                    .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
            } else {
                asking.await
            };
            let mut answers = match answers {
                Ok(answers) => answers,
                Err(error) => {
                    // Before anybody hears of it.
                    drop(call.writing);
                    return lost(&error);
                }
            };
            let last = answers.pop().unwrap_or_default();
            let redirection = match &upstream.cluster {
                Some(cluster) => Redirection::of(&last, pool.host()).map(|said| (cluster, said)),
                None => None,
            };
            match redirection {
                // What is watched, is watched at one node.
                Some(_) if is_held => {
                    drop(call.writing);
                    *state = State::Open(dedicated, pool);
                    return b"-CROSSSLOT this key is not at the node of the keys that are watched\r\n"
                        .to_vec();
                }
                Some((cluster, said)) => {
                    pool.give_back(dedicated);
                    (requests, replies) = (call.requests.clone(), call.replies);
                    let next = match said {
                        Redirection::Moved(slot, address) => Ok(cluster.moved(slot, &address).pool.clone()),
                        Redirection::Ask(address) => {
                            requests = [b"*1\r\n$6\r\nASKING\r\n", &*call.requests].concat();
                            replies += 1;
                            Ok(cluster.node(&address).pool.clone())
                        }
                        Redirection::Later => {
                            cluster.want_refresh();
                            tokio::time::sleep(LATER).await;
                            upstream.pool(call.slot)
                        }
                    };
                    (dedicated, pool) = match taken(next, &call).await {
                        Ok(taken) => taken,
                        Err(error) => return unreachable(&error),
                    };
                }
                None => {
                    drop(call.writing);
                    if call.is_last {
                        pool.give_back(dedicated);
                        *state = State::New;
                    } else {
                        *state = State::Open(dedicated, pool);
                    }
                    return match call.form {
                        Form::Raw => last.into(),
                        form => form.of(&last).into(),
                    };
                }
            }
        }
        b"-TRYAGAIN the slot is on its way to another node\r\n".to_vec()
    }
}

impl Watched {
    /// Has somebody talk with upstream by the connection, which is clean afterwards; else an error to reply.
    pub async fn with(
        self,
        upstream: &Arc<Upstream>,
        db: usize,
        resp3: bool,
        talk: impl AsyncFnOnce(&mut Dedicated) -> std::io::Result<Vec<u8>>,
    ) -> Result<Vec<u8>, Vec<u8>> {
        let mut state = self.0.lock().await;
        let (mut dedicated, pool) = match std::mem::replace(&mut *state, State::Lost) {
            State::Open(dedicated, pool) => (dedicated, pool),
            State::Lost => {
                return Err(
                    b"-UPSTREAMDOWN the connection that watched keys is lost: nothing was run\r\n".to_vec()
                );
            }
            State::New => {
                let pool = upstream.pool(None).map_err(|error| unreachable(&error))?;
                (pool.take(resp3, db).await.map_err(|error| unreachable(&error))?, pool)
            }
        };
        dedicated.select(db).await.map_err(|error| unreachable(&error))?;
        let reply = talk(&mut dedicated).await.map_err(|error| lost(&error))?;
        pool.give_back(dedicated);
        *state = State::New;
        Ok(reply)
    }
}

async fn taken(
    pool: Result<Arc<Pool>, ConnectError>,
    call: &Call,
) -> Result<(Dedicated, Arc<Pool>), ConnectError> {
    let pool = pool?;
    Ok((pool.take(call.resp3, call.db).await?, pool))
}

fn lost(error: &std::io::Error) -> Vec<u8> {
    let text =
        format!("-OUTCOMEUNKNOWN upstream was lost, and what became of the command is not known: {error}");
    (text.replace(['\r', '\n'], " ") + "\r\n").into_bytes()
}

fn unreachable(error: &ConnectError) -> Vec<u8> {
    let text = format!("-UPSTREAMDOWN upstream cannot be reached: {error}");
    (text.replace(['\r', '\n'], " ") + "\r\n").into_bytes()
}
