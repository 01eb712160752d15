//! Scripts of ours that upstream runs: by their digest, or with their text where upstream may not know it.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use sha1::Digest as _;
use smallvec::SmallVec;

use super::Upstream;
use super::connect::encode;
use super::expected::{Expected, Form};
use super::gather::{Failure, Gather, Outcome};
use super::link::now_ms;
use crate::types::hasher::hash_bytes;

/// A script.
#[derive(Debug)]
pub struct Script {
    text: &'static str,
    digest: OnceLock<String>,
    /// The epoch of the connection by which its text was sent last, and one.
    sent_in: AtomicU64,
}

/// What a script is to run with.
#[derive(Debug, Clone)]
pub struct Run {
    /// The script.
    pub script: &'static Script,
    /// The database.
    pub db: usize,
    /// Its keys, which it may change.
    pub keys: Vec<Box<[u8]>>,
    /// Its other arguments.
    pub arguments: Vec<Vec<u8>>,
}

impl Script {
    /// A script with this text.
    pub const fn new(text: &'static str) -> Self {
        Self { text, digest: OnceLock::new(), sent_in: AtomicU64::new(0) }
    }

    fn digest(&self) -> &str {
        self.digest.get_or_init(|| {
            sha1::Sha1::digest(self.text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
        })
    }
}

impl Run {
    /// Has upstream run it; returns the reply within the time that any request may take.
    pub async fn run(self, upstream: Arc<Upstream>) -> Outcome {
        let deadline = tokio::time::Instant::now() + upstream.config.timeout;
        let known_in = upstream.near.epoch() + 1;
        let is_known = self.script.sent_in.swap(known_in, Relaxed) == known_in;
        let outcome = self.send(&upstream, is_known, deadline).await;
        match outcome {
            // Nothing was run. Somebody made upstream forget its scripts.
            Ok(reply) if is_known && reply.starts_with(b"-NOSCRIPT") => {
                self.send(&upstream, false, deadline).await
            }
            outcome => outcome,
        }
    }

    /// The request, with the script's text unless that is known.
    pub fn encode(&self, is_known: bool, to: &mut Vec<u8>) {
        let (name, script) =
            if is_known { ("EVALSHA", self.script.digest()) } else { ("EVAL", self.script.text) };
        let count = self.keys.len().to_string();
        let mut words: Vec<&[u8]> = vec![name.as_bytes(), script.as_bytes(), count.as_bytes()];
        words.extend(self.keys.iter().map(|key| &**key));
        words.extend(self.arguments.iter().map(|argument| &**argument));
        encode(words.into_iter(), to);
    }

    async fn send(
        &self,
        upstream: &Arc<Upstream>,
        is_known: bool,
        deadline: tokio::time::Instant,
    ) -> Outcome {
        let mut bytes = Vec::new();
        self.encode(is_known, &mut bytes);
        let keys: SmallVec<_> = self.keys.iter().map(|key| (hash_bytes(key), key.clone())).collect();
        if let Some(cluster) = &upstream.cluster {
            super::count(&upstream.statistics.requests);
            return cluster.send(upstream, bytes, keys, deadline).await;
        }
        let gather = Arc::<Gather>::default();
        let (ticket, _) = gather.ticket();
        let expected = [Expected::Answer(ticket, Form::Raw, upstream.writing(keys))];
        upstream.tracked.send(self.db, &bytes, expected, now_ms());
        upstream.tracked.flush();
        super::count(&upstream.statistics.requests);
        let waited = tokio::time::timeout_at(deadline, gather.complete()).await;
        if waited.is_err() {
            super::count(&upstream.statistics.failures);
        }
        gather.take().pop().unwrap_or(Err(Failure::TimedOut))
    }
}
