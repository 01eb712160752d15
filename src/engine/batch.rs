//! The requests that one client has sent upstream together, and where their replies belong.
//!
//! They go by one shared connection, so that upstream sees a client's requests in their order; what was answered here
//! between them has its place among the replies.

use std::sync::Arc;

pub(super) use super::merge::Merge;
use super::pending::Pending;
use super::tracked::Reads;
use crate::protocol::{Protocol, Reply, ReplyError};
use crate::tiers::upstream::{
    Again, Cluster, Expected, Failure, Gather, Link, Outcome, Redirection, Request, Target, Upstream,
    elements, encode, is_refused, now_ms, resend,
};

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
    /// The requests instead, if upstream is a cluster.
    units: Vec<Unit>,
}

/// A request to one node of a cluster.
pub(super) struct Unit {
    /// What is sent, if it is more than `again` says.
    pub requests: Option<Vec<u8>>,
    /// Nothing if another client's read is waited for.
    pub expected: Vec<Expected>,
    /// What is sent if the node did not run it.
    pub again: Again,
    /// The first of the places of its replies.
    pub first: usize,
}

impl Unit {
    fn outcomes<'o>(&self, outcomes: &'o [Outcome]) -> Vec<&'o Outcome> {
        outcomes[self.first..self.first + self.again.replies].iter().collect()
    }
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
    /// One made of several.
    Merged { places: Vec<usize>, merge: Merge, is_write: bool },
}

pub(super) enum Element {
    Here(Vec<u8>),
    Awaited(usize),
    /// The same; where it was sent again, it is the only element of what came.
    OfOne(usize),
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
            units: Vec::new(),
        }
    }

    /// Whether it is to be sent before more is added.
    pub fn is_full(&self) -> bool {
        self.places.len() >= MAX_REQUESTS || self.bytes >= MAX_BYTES
    }

    /// Sends it. What was written to `out` behind its first request comes with its replies.
    pub fn end(mut self, upstream: Arc<Upstream>, out: &mut Vec<u8>) -> Pending {
        if let Some(cluster) = &upstream.cluster {
            self.hand_out(&upstream, cluster);
        } else {
            self.hand_over(&upstream);
            self.link(&upstream).flush();
        }
        let first = self.places.first().map_or(out.len(), |place| place.at.min(out.len()));
        let tail = out.split_off(first);
        Pending::reply(Box::pin(async move {
            // In time or not: what is not there then has failed, and everything else is passed on.
            let deadline = tokio::time::Instant::now() + upstream.config.timeout;
            let waited = tokio::time::timeout_at(deadline, self.gather.complete()).await;
            if waited.is_err() {
                crate::tiers::upstream::count(&upstream.statistics.failures);
            }
            let mut outcomes = self.gather.take();
            if let Some(cluster) = &upstream.cluster {
                self.redirect(&upstream, cluster, &mut outcomes, deadline).await;
            }
            self.replies(&upstream, first, &tail, &outcomes)
        }))
    }

    /// Adds a request to a cluster.
    pub fn add_unit(&mut self, unit: Unit) {
        self.bytes += unit.again.bytes.len();
        self.units.push(unit);
    }

    /// Gives each node what it has to send. Who has which slot is looked at behind the leases that reads have taken.
    fn hand_out(&mut self, upstream: &Upstream, cluster: &Cluster) {
        let mut used: Vec<Arc<Link>> = Vec::new();
        let nodes = cluster.each_at(self.units.iter().map(|unit| &unit.again.target));
        for (unit, node) in self.units.iter_mut().zip(nodes) {
            let expected = std::mem::take(&mut unit.expected);
            let bytes = unit.requests.take();
            let bytes = bytes.as_deref().unwrap_or(&unit.again.bytes);
            if !expected.is_empty() {
                let Some(node) = &node else {
                    upstream.tracked.refuse(expected);
                    continue;
                };
                let link = node.link(self.is_plain);
                link.send(0, bytes, expected, now_ms());
                if !used.iter().any(|other| Arc::ptr_eq(other, link)) {
                    used.push(link.clone());
                }
            }
            unit.again.sent_to = node;
        }
        used.iter().for_each(|link| link.flush());
    }

    /// Sends again what no node has run, in order. What a later request of the same slot has overtaken, fails.
    async fn redirect(
        &self,
        upstream: &Arc<Upstream>,
        cluster: &Cluster,
        outcomes: &mut [Outcome],
        deadline: tokio::time::Instant,
    ) {
        if !self.units.iter().any(|unit| is_refused(&unit.outcomes(outcomes))) {
            return;
        }
        let mut ran = std::collections::HashSet::new();
        let mut refused = Vec::new();
        for unit in self.units.iter().rev() {
            let slot = if let Target::Slot(slot) = &unit.again.target { Some(*slot) } else { None };
            if !is_refused(&unit.outcomes(outcomes)) {
                ran.extend(slot);
            } else if !slot.is_some_and(|slot| ran.contains(&slot)) {
                refused.push(unit);
            }
        }
        for unit in refused.into_iter().rev() {
            let first = unit.outcomes(outcomes);
            let outcome = resend(upstream, cluster, &unit.again, self.is_plain, &first, deadline).await;
            outcomes[unit.first + unit.again.replies - 1] = outcome;
        }
        for outcome in outcomes {
            let left = outcome.as_ref().ok().and_then(|reply| Redirection::of(reply, ""));
            if matches!(left, Some(Redirection::Moved(..) | Redirection::Ask(_))) {
                // Where to, is no matter of clients.
                *outcome = Ok((&b"-TRYAGAIN the slot is on its way to another node\r\n"[..]).into());
            }
        }
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

    fn replies(self, upstream: &Upstream, first: usize, tail: &[u8], outcomes: &[Outcome]) -> Vec<u8> {
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
                        Element::Awaited(place) | Element::OfOne(place) => match &outcomes[*place] {
                            Err(failure) => Some(Err(*failure)),
                            Ok(reply) if reply.first() == Some(&b'-') => Some(Ok(reply)),
                            Ok(_) => None,
                        },
                        Element::Here(_) => None,
                    });
                    match failed {
                        None => write_elements(elements, outcomes, &mut out),
                        Some(Ok(reply)) => out.extend_from_slice(reply),
                        Some(Err(failure)) => fail(upstream, failure, false, &mut out),
                    }
                }
                Awaited::Merged { places, merge, is_write } => {
                    let all: Result<Vec<&[u8]>, Failure> = places
                        .iter()
                        .map(|place| outcomes[*place].as_ref().map(|reply| &**reply).map_err(|error| *error))
                        .collect();
                    match all {
                        Err(failure) => fail(upstream, failure, *is_write, &mut out),
                        Ok(all) => match all.iter().find(|reply| reply.first() == Some(&b'-')) {
                            Some(error) => out.extend_from_slice(error),
                            None => merge.write(&all, &mut out),
                        },
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
            Element::OfOne(place) => {
                if let Ok(reply) = &outcomes[*place] {
                    let only = elements_of(reply);
                    out.extend_from_slice(only.unwrap_or(reply));
                }
            }
        }
    }
}

/// The only element of an array; `MGET`'s elements are none themselves.
fn elements_of(reply: &[u8]) -> Option<&[u8]> {
    elements(reply)?.first().copied()
}

/// The error of a request that upstream did not answer.
pub(super) fn fail(upstream: &Upstream, failure: Failure, is_write: bool, out: &mut Vec<u8>) {
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
        Failure::Absent => "TRYAGAIN the key is not there at the moment".to_owned(),
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
