//! The requests that one client has sent upstream together, and where their replies belong.
//!
//! They go by one shared connection, so that upstream sees a client's requests in their order; what was answered here
//! between them has its place among the replies.

use std::sync::Arc;

use super::pending::Pending;
use super::tracked::Reads;
use crate::protocol::{Protocol, Reply, ReplyError};
use crate::tiers::upstream::{Expected, Failure, Gather, Link, Outcome, Request, Upstream, encode, now_ms};

/// A batch is sent when it has so many requests,
const MAX_REQUESTS: usize = 1024;
/// or so many bytes.
const MAX_BYTES: usize = 256 * 1024;

/// Requests of one client that are sent and not answered.
pub(super) struct Batch {
    pub gather: Arc<Gather>,
    pub places: Vec<Place>,
    pub is_plain: bool,
    /// Requests that are not handed over yet, to one database, and what is to be done with their replies.
    requests: Vec<u8>,
    expected: Vec<Expected>,
    db: usize,
    /// Bytes of all requests.
    bytes: usize,
}

/// Where in the output a reply belongs.
pub(super) struct Place {
    pub at: usize,
    pub what: Awaited,
    pub is_silent: bool,
    /// What is read, for a client that is told when it changes.
    pub reads: Option<Box<Reads>>,
}

pub(super) enum Awaited {
    /// A reply.
    One { place: usize, is_write: bool },
    /// The elements of one.
    Elements(Vec<Element>),
}

pub(super) enum Element {
    Here(Vec<u8>),
    Awaited(usize),
}

impl Batch {
    /// An empty batch; `is_plain` if it goes by the connection that speaks RESP2.
    pub fn new(is_plain: bool) -> Self {
        Self {
            gather: Arc::default(),
            places: Vec::new(),
            is_plain,
            requests: Vec::new(),
            expected: Vec::new(),
            db: 0,
            bytes: 0,
        }
    }

    /// Whether it is to be sent before more is added.
    pub fn is_full(&self) -> bool {
        self.places.len() >= MAX_REQUESTS || self.bytes >= MAX_BYTES
    }

    /// Sends it. What was written to `out` behind its first request comes with its replies.
    pub fn end(mut self, upstream: Arc<Upstream>, out: &mut Vec<u8>) -> Pending {
        self.hand_over(&upstream);
        self.link(&upstream).flush();
        let first = self.places.first().map_or(out.len(), |place| place.at.min(out.len()));
        let tail = out.split_off(first);
        Pending::reply(Box::pin(async move {
            // In time or not: what is not there then has failed, and everything else is passed on.
            let waited = tokio::time::timeout(upstream.config.timeout, self.gather.complete()).await;
            if waited.is_err() {
                crate::tiers::upstream::count(&upstream.statistics.failures);
            }
            self.replies(&upstream, first, &tail)
        }))
    }

    fn link<'u>(&self, upstream: &'u Upstream) -> &'u Link {
        if self.is_plain { &upstream.plain } else { &upstream.tracked }
    }

    /// Adds requests to a database, which `write` writes.
    pub fn add(
        &mut self,
        upstream: &Upstream,
        db: usize,
        expected: impl IntoIterator<Item = Expected>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if self.db != db {
            self.hand_over(upstream);
            self.db = db;
        }
        let before = self.requests.len();
        write(&mut self.requests);
        self.bytes += self.requests.len() - before;
        self.expected.extend(expected);
    }

    /// Gives the connection what it has to send; nothing of it may be left out or come between.
    fn hand_over(&mut self, upstream: &Upstream) {
        if !self.expected.is_empty() {
            let expected = std::mem::take(&mut self.expected);
            self.link(upstream).send(self.db, &self.requests, expected, now_ms());
            self.requests.clear();
        }
    }

    fn replies(self, upstream: &Upstream, first: usize, tail: &[u8]) -> Vec<u8> {
        let outcomes = self.gather.take();
        let mut out = Vec::with_capacity(
            tail.len()
                + outcomes.iter().map(|reply| reply.as_ref().map_or(128, |reply| reply.len())).sum::<usize>(),
        );
        let mut done = 0;
        for Place { at, what, is_silent, reads } in &self.places {
            if let Some(reads) = reads {
                reads.note();
            }
            out.extend_from_slice(&tail[done..at - first]);
            done = at - first;
            if *is_silent {
                continue;
            }
            match what {
                Awaited::One { place, is_write } => match &outcomes[*place] {
                    Ok(reply) => out.extend_from_slice(reply),
                    Err(failure) => fail(upstream, *failure, *is_write, &mut out),
                },
                Awaited::Elements(elements) => {
                    let failed = elements.iter().find_map(|element| match element {
                        Element::Awaited(place) => match &outcomes[*place] {
                            Err(failure) => Some(Err(*failure)),
                            Ok(reply) if reply.first() == Some(&b'-') => Some(Ok(reply)),
                            Ok(_) => None,
                        },
                        Element::Here(_) => None,
                    });
                    match failed {
                        None => write_elements(elements, &outcomes, &mut out),
                        Some(Ok(reply)) => out.extend_from_slice(reply),
                        Some(Err(failure)) => fail(upstream, failure, false, &mut out),
                    }
                }
            }
        }
        out.extend_from_slice(&tail[done..]);
        out
    }
}

pub(super) fn write_elements(elements: &[Element], outcomes: &[Outcome], out: &mut Vec<u8>) {
    Reply::new(out, Protocol::Resp2).array(elements.len());
    for element in elements {
        match element {
            Element::Here(reply) => out.extend_from_slice(reply),
            Element::Awaited(place) => {
                if let Ok(reply) = &outcomes[*place] {
                    out.extend_from_slice(reply);
                }
            }
        }
    }
}

/// The error of a request that upstream did not answer.
fn fail(upstream: &Upstream, failure: Failure, is_write: bool, out: &mut Vec<u8>) {
    let text = match failure {
        Failure::Unavailable => {
            let fault = upstream.about().fault.unwrap_or_else(|| "it took too long to connect".to_owned());
            format!("UPSTREAMDOWN upstream cannot be reached: {fault}")
        }
        Failure::Lost if is_write => {
            "OUTCOMEUNKNOWN the connection to upstream was lost, and what became of the command is not known"
                .to_owned()
        }
        Failure::TimedOut if is_write => format!(
            "OUTCOMEUNKNOWN upstream did not answer within {:?}, and what became of the command is not known",
            upstream.config.timeout
        ),
        Failure::Lost => "UPSTREAMDOWN the connection to upstream was lost".to_owned(),
        Failure::TimedOut => {
            format!("UPSTREAMDOWN upstream did not answer within {:?}", upstream.config.timeout)
        }
    };
    Reply::new(out, Protocol::Resp2).error(&ReplyError::new(text));
}

/// Writes a read, and before it the question how long its key lives: all of it goes in one piece.
pub(super) fn encode_fill(request: &Request<'_>, to: &mut Vec<u8>) {
    encode([&b"PTTL"[..], request.args.at(request.key_at)].into_iter(), to);
    encode(request.args.iter(), to);
}
