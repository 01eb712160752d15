//! What is to be done with the replies that a shared connection owes, in their order.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use smallvec::SmallVec;

use super::frame;
use super::gather::{Failure, Outcome, Ticket};
use super::near::{Filling, Near};
use super::resp2::{Rewrite, rewrite};
use super::statistics::{Statistics, count};
use crate::config::upstream::UpstreamConfig;

/// Makes one reply of another.
#[derive(Clone)]
pub struct Maker(Arc<Making>);

type Making = dyn Fn(&[u8]) -> Box<[u8]> + Send + Sync;

impl Maker {
    /// One that does it so.
    pub fn new(making: impl Fn(&[u8]) -> Box<[u8]> + Send + Sync + 'static) -> Self {
        Self(Arc::new(making))
    }
}

impl std::fmt::Debug for Maker {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Maker")
    }
}

/// How a reply is to look.
#[derive(Debug, Clone)]
pub enum Form {
    /// As it came.
    Raw,
    /// In RESP2.
    Resp2(Rewrite),
    /// A transaction's, each element in RESP2 in its own way.
    Block(Vec<Rewrite>),
    /// As somebody else makes it.
    Made(Maker),
    /// Of a script that wrote the journal: the third of its parts, of which the second is the journal's size if that
    /// has changed.
    Journaled(Arc<AtomicI64>, Box<Form>),
}

/// One reply that is to come.
#[derive(Debug)]
pub enum Expected {
    /// Of no interest: `MULTI`, and `QUEUED`.
    Ignored,
    /// `SELECT`, which must not fail.
    Selected,
    /// A heartbeat.
    Pong,
    /// A client's.
    Answer(Ticket, Form, Writing),
    /// The elements of a reply, each of them somebody's.
    Elements(Vec<Ticket>, Form),
    /// How long the key of the next fill lives.
    Ttl,
    /// A read whose reply may be kept.
    Fill(Box<Filling>, Form),
    /// A transaction of `PTTL` and a read whose reply may be kept; a key that is not there is a row to be loaded.
    RowFill(Box<Filling>, Form),
    /// A read of several keys, each reply kept by itself as the answer to the command at this place.
    Fills(Vec<Filling>, Form, usize),
}

/// Keys that a request of ours may change, for as long as it is under way: nothing of them is kept meanwhile.
#[derive(Debug, Default)]
pub struct Writing {
    near: Option<Arc<Near>>,
    keys: SmallVec<[(u64, Box<[u8]>); 1]>,
    all: bool,
}

impl Writing {
    /// These keys, with their hashes.
    pub fn to(near: &Arc<Near>, keys: SmallVec<[(u64, Box<[u8]>); 1]>) -> Self {
        for (hash, key) in &keys {
            near.begin_write(*hash, key);
        }
        Self { near: Some(near.clone()), keys, all: false }
    }

    /// Any key.
    pub fn to_all(near: &Arc<Near>) -> Self {
        near.begin_write_to_all();
        Self { near: Some(near.clone()), keys: SmallVec::new(), all: true }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let Some(near) = &self.near else { return };
        for (hash, key) in &self.keys {
            near.end_write(*hash, key);
        }
        if self.all {
            near.end_write_to_all();
        }
    }
}

impl Form {
    /// A reply in this form.
    pub fn of(&self, frame: &[u8]) -> Box<[u8]> {
        match self {
            Self::Journaled(size, form) => match frame::elements(frame).as_deref() {
                Some([_, bytes, reply @ ..]) => {
                    if let Some(bytes) = frame::integer(bytes).filter(|bytes| *bytes > 0) {
                        size.store(bytes, Relaxed);
                    }
                    form.of(&frame::scripted(reply))
                }
                // In the words of Redis, which do not speak of the script.
                _ => {
                    let end = memchr::memmem::find(frame, b" script: ").unwrap_or(frame.len());
                    [frame[..end].trim_ascii_end(), b"\r\n"].concat().into()
                }
            },
            Self::Raw => frame.into(),
            Self::Made(maker) => (maker.0)(frame),
            Self::Resp2(how) => rewrite(frame, *how).into(),
            Self::Block(hows) => match frame::elements(frame) {
                Some(replies) => {
                    let mut out = format!("*{}\r\n", replies.len()).into_bytes();
                    for (reply, how) in replies.iter().zip(hows) {
                        out.extend_from_slice(&rewrite(reply, *how));
                    }
                    out.into()
                }
                // Aborted, or refused as a whole.
                None => rewrite(frame, Rewrite::NullArray).into(),
            },
        }
    }
}

/// What replies are settled with.
pub struct Settling<'a> {
    /// Where replies are kept.
    pub near: &'a Near,
    /// For how long.
    pub config: &'a UpstreamConfig,
    /// What is counted.
    pub statistics: &'a Statistics,
    /// The times to live that came before their fills.
    pub ttls: Vec<i64>,
}

impl Settling<'_> {
    /// The reply has come.
    ///
    /// # Errors
    /// If it shows that the connection cannot be used any more.
    pub fn reply(&mut self, expected: Expected, frame: &[u8], sent_ms: u64) -> Result<(), &'static str> {
        match expected {
            Expected::Ignored | Expected::Pong => {}
            Expected::Selected => {
                if frame::is_error(frame) {
                    return Err("upstream has no such database");
                }
            }
            Expected::Ttl => self.ttls.push(frame::integer(frame).unwrap_or(i64::MIN)),
            Expected::Answer(ticket, form, writing) => {
                // Before anybody hears of it: whoever reads after this must not find what was before.
                drop(writing);
                ticket.fulfil(Ok(form.of(frame)));
                if self.config.endpoint.sentinels.is_some() && frame.starts_with(b"-READONLY") {
                    return Err("upstream is the master no longer");
                }
            }
            Expected::Elements(tickets, form) => {
                let replies = frame::elements(frame).filter(|replies| replies.len() == tickets.len());
                for (index, ticket) in tickets.into_iter().enumerate() {
                    let reply = replies.as_ref().map_or(frame, |replies| replies[index]);
                    ticket.fulfil(Ok(form.of(reply)));
                }
            }
            Expected::Fill(filling, form) => {
                let ttl = self.ttls.pop().unwrap_or(i64::MIN);
                let keep_until = (!frame::is_error(frame)).then(|| self.keep_until(ttl, sent_ms)).flatten();
                self.near.settle(*filling, &Ok(form.of(frame)), keep_until, None);
            }
            Expected::RowFill(filling, form) => {
                let (outcome, keep_until) = match frame::elements(frame).as_deref() {
                    Some([ttl, reply]) => match frame::integer(ttl).unwrap_or(i64::MIN) {
                        -2 => (Err(Failure::Absent), None),
                        ttl => (
                            Ok(form.of(reply)),
                            self.keep_until(ttl, sent_ms).filter(|_| !frame::is_error(reply)),
                        ),
                    },
                    _ => (Ok(frame.into()), None),
                };
                self.near.settle(*filling, &outcome, keep_until, None);
            }
            Expected::Fills(fillings, form, command) => {
                let ttls = std::mem::take(&mut self.ttls);
                let replies = frame::elements(frame).filter(|replies| replies.len() == fillings.len());
                for (index, filling) in fillings.into_iter().enumerate() {
                    let reply = replies.as_ref().map_or(frame, |replies| replies[index]);
                    let ttl = ttls.get(index).copied().unwrap_or(i64::MIN);
                    // No string and a key all the same: a value of another type, for which GET has an error.
                    let is_value = reply.first() == Some(&b'$') || ttl == -2;
                    let keep_until = is_value.then(|| self.keep_until(ttl, sent_ms)).flatten();
                    self.near.settle(filling, &Ok(form.of(reply)), keep_until, Some(command));
                }
            }
        }
        Ok(())
    }

    /// Until when a reply is kept that was asked for at `sent_ms`, by what `PTTL` said right before.
    fn keep_until(&self, ttl: i64, sent_ms: u64) -> Option<u64> {
        let near_ms = self.config.near_cache_ttl.as_millis() as u64;
        let millis = match ttl {
            -2 => near_ms.min(self.config.negative_ttl.as_millis() as u64),
            -1 => near_ms,
            0.. => near_ms.min(ttl as u64),
            _ => 0,
        };
        (millis > 0).then_some(sent_ms + millis)
    }

    /// The reply will not come.
    pub fn failure(&self, expected: Expected, failure: Failure) {
        let outcome: Outcome = Err(failure);
        match expected {
            Expected::Ignored | Expected::Selected | Expected::Pong | Expected::Ttl => return,
            Expected::Answer(ticket, _, writing) => {
                drop(writing);
                ticket.fulfil(outcome);
            }
            Expected::Elements(tickets, _) => {
                tickets.into_iter().for_each(|ticket| ticket.fulfil(outcome.clone()));
            }
            Expected::Fill(filling, _) | Expected::RowFill(filling, _) => {
                self.near.settle(*filling, &outcome, None, None)
            }
            Expected::Fills(fillings, ..) => {
                for filling in fillings {
                    self.near.settle(filling, &outcome, None, None);
                }
            }
        }
        count(&self.statistics.failures);
    }
}
