//! Requests that a node did not run are sent again, to the node that it names.
//!
//! One client's go one after the other in their order. What was run, or may have been, is never sent again.

use std::sync::Arc;

use smallvec::SmallVec;

use super::super::Upstream;
use super::super::connect::{Backoff, encode};
use super::super::expected::{Expected, Form};
use super::super::gather::{Failure, Gather, Outcome};
use super::super::link::now_ms;
use super::{Cluster, Node, Redirection, Target, slot_of};

/// So many times a request follows a redirection.
const MOST: usize = 16;

/// What is to be known of a request to send it again.
#[derive(Debug)]
pub struct Again {
    /// Where it belongs.
    pub target: Target,
    /// Where it went.
    pub sent_to: Option<Arc<Node>>,
    /// All of it.
    pub bytes: Vec<u8>,
    /// How many replies come, of which the last is the answer; the others say `QUEUED`, or why not.
    pub replies: usize,
    /// How the answer is to look.
    pub form: Form,
    /// Its keys.
    pub keys: SmallVec<[(u64, Box<[u8]>); 1]>,
}

/// Whether a request with these replies was not run, and may be sent again.
pub fn is_refused(replies: &[&Outcome]) -> bool {
    replies.iter().any(|reply| match reply {
        Ok(reply) => Redirection::of(reply, "").is_some(),
        Err(failure) => *failure == Failure::Unavailable,
    })
}

/// Sends a request again until it is answered, or the time is over; then its last reply is the answer.
pub async fn resend(
    upstream: &Arc<Upstream>,
    cluster: &Cluster,
    again: &Again,
    is_plain: bool,
    first: &[&Outcome],
    deadline: tokio::time::Instant,
) -> Outcome {
    let mut replies: Vec<Outcome> = first.iter().map(|outcome| (*outcome).clone()).collect();
    let (mut backoff, mut node) = (Backoff::default(), again.sent_to.clone());
    for _ in 0..MOST {
        let host = node.as_ref().map_or("", |node| node.address.0.as_str());
        let said = replies.iter().find_map(|reply| match reply {
            Ok(reply) => Redirection::of(reply, host),
            Err(Failure::Unavailable) => Some(Redirection::Later),
            Err(_) => None,
        });
        let last = replies.pop().unwrap_or(Err(Failure::Unavailable));
        let Some(said) = said else { return last };
        let mut is_asking = false;
        node = match said {
            Redirection::Moved(slot, address) => Some(cluster.moved(slot, &address)),
            Redirection::Ask(address) => {
                is_asking = true;
                Some(cluster.node(&address))
            }
            Redirection::Later => {
                cluster.want_refresh();
                let wait = backoff.pause();
                if tokio::time::Instant::now() + wait >= deadline {
                    return last;
                }
                tokio::time::sleep(wait).await;
                cluster.at(&again.target)
            }
        };
        let Some(node) = &node else {
            replies = vec![last];
            continue;
        };
        replies = once(upstream, again, node, is_plain, is_asking, deadline).await;
    }
    replies.pop().unwrap_or(Err(Failure::Unavailable))
}

impl Cluster {
    /// Has a request with keys run by the node of their slot.
    pub async fn send(
        &self,
        upstream: &Arc<Upstream>,
        bytes: Vec<u8>,
        keys: SmallVec<[(u64, Box<[u8]>); 1]>,
        deadline: tokio::time::Instant,
    ) -> Outcome {
        let mut slots = keys.iter().map(|(_, key)| slot_of(key));
        let target = slots.next().map_or(Target::Any, Target::Slot);
        if let Target::Slot(slot) = target
            && slots.any(|other| other != slot)
        {
            return Ok((&b"-CROSSSLOT Keys in request don't hash to the same slot\r\n"[..]).into());
        }
        let sent_to = self.at(&target);
        let again = Again { target, sent_to, bytes, replies: 1, form: Form::Raw, keys };
        let first = match &again.sent_to {
            Some(node) => once(upstream, &again, node, false, false, deadline).await,
            None => vec![Err(Failure::Unavailable)],
        };
        let first: Vec<&Outcome> = first.iter().collect();
        resend(upstream, self, &again, false, &first, deadline).await
    }
}

async fn once(
    upstream: &Arc<Upstream>,
    again: &Again,
    node: &Node,
    is_plain: bool,
    is_asking: bool,
    deadline: tokio::time::Instant,
) -> Vec<Outcome> {
    let gather = Arc::new(Gather::default());
    let (mut bytes, mut expected) = (Vec::new(), Vec::new());
    if is_asking {
        encode([&b"ASKING"[..]].into_iter(), &mut bytes);
        expected.push(Expected::Ignored);
    }
    bytes.extend_from_slice(&again.bytes);
    for _ in 1..again.replies {
        expected.push(Expected::Answer(gather.ticket().0, Form::Raw, Default::default()));
    }
    // A read too: the node's word may be newer than what is kept, and nothing of it is kept.
    let writing = upstream.writing(again.keys.clone());
    expected.push(Expected::Answer(gather.ticket().0, again.form.clone(), writing));
    let link = node.link(is_plain);
    link.send(0, &bytes, expected, now_ms());
    link.flush();
    // What is not there in time, `take` says.
    drop(tokio::time::timeout_at(deadline, gather.complete()).await);
    gather.take().into_vec()
}
