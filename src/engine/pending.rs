//! Requests that wait for another tier: for what they need before they can run, or for their replies.
//!
//! Handlers never await. A request that lacks something is given up before any lock is taken, its connection awaits a
//! *fill*, and the same request runs again from the start. A request that another tier answers awaits its *reply*.

use std::pin::Pin;
use std::sync::Arc;

use super::execute::Flow;
use super::limits::Decision;
use super::pipeline::Step;
use super::worker::Worker;
use crate::clients::{ReplyMode, Session};
use crate::protocol::{Args, OwnedArgs, ReplyError};
use crate::tiers::database::flights::Flight;

/// A future that stays on the thread of its connection.
pub type LocalFuture<T> = Pin<Box<dyn Future<Output = T>>>;

/// What was filled may be evicted before the request runs again; nobody waits for that for ever.
const MAX_REFILLS: u32 = 8;

/// What a request, or several consecutive ones, wait for.
pub struct Pending {
    wait: Wait,
    /// Whether it ends by itself, so that a server that stops lets it.
    is_bounded: bool,
    silent: bool,
    refills: u32,
    /// What was loaded.
    flights: Vec<Arc<Flight>>,
}

enum Wait {
    Fill(LocalFuture<Result<(), ReplyError>>, OwnedArgs),
    Reply(LocalFuture<Vec<u8>>),
    Decision(LocalFuture<Decision>, OwnedArgs),
}

/// How a wait ended.
pub enum Finished {
    /// What was missing is there, or this error is the reply.
    Filled(Result<(), ReplyError>),
    /// The encoded replies.
    Replied(Vec<u8>),
    /// What upstream says of a rate limit.
    Decided(Decision),
}

impl Pending {
    /// When `fill` resolves, the request runs again from the start; its error is the reply.
    pub fn fill(fill: LocalFuture<Result<(), ReplyError>>, args: Args<'_>) -> Self {
        Self::new(Wait::Fill(fill, args.to_owned()))
    }

    /// `reply` resolves to the encoded replies of one or several consecutive requests, in their order.
    pub fn reply(reply: LocalFuture<Vec<u8>>) -> Self {
        Self::new(Wait::Reply(reply))
    }

    /// `decision` resolves to what upstream says to a call of a rate limit, which replies then or runs here.
    pub(super) fn decision(decision: LocalFuture<Decision>, args: Args<'_>) -> Self {
        Self::new(Wait::Decision(decision, args.to_owned()))
    }

    fn new(wait: Wait) -> Self {
        Self { wait, is_bounded: true, silent: false, refills: 0, flights: Vec::new() }
    }

    /// These loads are part of it. They are good for as long as they are kept, so they are until the request has run.
    #[must_use]
    pub fn with(mut self, flights: Vec<Arc<Flight>>) -> Self {
        self.flights = flights;
        self
    }

    /// It may take for ever: a server that stops does not wait for it.
    #[must_use]
    pub fn unbounded(mut self) -> Self {
        self.is_bounded = false;
        self
    }

    /// Whether it ends by itself, in a time that somebody chose.
    pub fn is_bounded(&self) -> bool {
        self.is_bounded
    }

    /// Resolves when the wait has ended; may be dropped and called again before that.
    pub async fn finished(&mut self) -> Finished {
        match &mut self.wait {
            Wait::Fill(fill, _) => Finished::Filled(fill.await),
            Wait::Reply(reply) => Finished::Replied(reply.await),
            Wait::Decision(decision, _) => Finished::Decided(decision.await),
        }
    }

    /// Whether the request runs again, so that nothing of it is done yet.
    pub(super) fn runs_again(&self) -> bool {
        matches!(self.wait, Wait::Fill(..))
    }

    /// The client does not want the replies (`CLIENT REPLY`).
    pub(super) fn silence(&mut self) {
        self.silent = true;
    }
}

impl Worker {
    /// Goes on after a wait, appending replies to `out`.
    pub fn resume(
        &mut self,
        session: &mut Session,
        pending: &Pending,
        finished: Finished,
        out: &mut Vec<u8>,
    ) -> Step {
        self.read_clock();
        let result = match (finished, &pending.wait) {
            (Finished::Replied(replies), _) => {
                if !pending.silent {
                    out.extend_from_slice(&replies);
                }
                // With the replies, so that who changed a key himself hears of it with that.
                if session.client.pushes.is_waiting() {
                    out.extend_from_slice(&session.client.pushes.take());
                }
                return Step::Flush;
            }
            (Finished::Decided(decision), wait) => {
                let Wait::Decision(_, args) = wait else { return Step::Flush };
                let flow = self.decided(session, args.as_args(), decision, pending.silent, out);
                return self.step(flow, out);
            }
            (Finished::Filled(Ok(())), Wait::Fill(..)) if pending.refills >= MAX_REFILLS => {
                Err(ReplyError::fixed("TRYAGAIN what the command needs was evicted before it could run"))
            }
            (Finished::Filled(result), _) => result,
        };
        match (result, &pending.wait) {
            (Ok(()), Wait::Fill(_, args)) => {
                self.landed.clone_from(&pending.flights);
                let mut flow = self.execute(session, None, None, args.as_args(), out);
                self.landed.clear();
                if let Flow::Pending(again) = &mut flow {
                    // Who only waited for others to end was not overtaken by evictions.
                    again.refills = pending.refills + u32::from(!pending.flights.is_empty());
                    // What was found absent before stays known, or two such keys would be looked for in turns.
                    let known = pending.flights.iter().filter(|flight| flight.is_absent());
                    again.flights.extend(known.map(Arc::clone));
                }
                return self.step(flow, out);
            }
            (Ok(()), Wait::Reply(_) | Wait::Decision(..)) => {}
            (Err(error), Wait::Fill(..)) if session.transaction.is_some() => {
                // It was EXEC that lacked something: its transaction is over.
                self.discard_transaction(session);
                let text = [b"EXECABORT Transaction discarded because of: ", error.text()].concat();
                self.reply_error(session, &ReplyError::new(text), out);
            }
            (Err(error), _) => match session.reply_mode {
                ReplyMode::On => self.reply_error(session, &error, out),
                ReplyMode::SkipNext => session.reply_mode = ReplyMode::On,
                ReplyMode::Off | ReplyMode::SkipThis => self.count_error(&error),
            },
        }
        Step::Flush
    }
}

impl Worker {
    /// What comes after a request that ran by itself: its reply, if upstream has yet to give it, and the rest of the input.
    pub(super) fn step(&mut self, flow: Flow, out: &mut Vec<u8>) -> Step {
        if let Some(pending) = self.end_batch(out) {
            return Step::Pending(pending);
        }
        match flow {
            Flow::Next => Step::Flush,
            Flow::Close => Step::Close,
            Flow::Blocked(blocked) => Step::Blocked(*blocked),
            Flow::Held(held) => Step::Held(*held),
            Flow::Pending(pending) => Step::Pending(*pending),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clients::Origin;
    use crate::config::Config;
    use crate::config::arguments::Serve;
    use crate::instance::Instance;

    fn set_up() -> (Worker, Session) {
        let instance = Instance::start(Config::load(&Serve::default()).unwrap()).unwrap();
        let origin = Origin { address: String::new(), local_address: String::new(), fd: 0, is_unix: false };
        let client: Arc<_> = instance.clients.add(origin, 0, 1).unwrap();
        (Worker::new(instance), Session::own(client))
    }

    fn filled(args: &[&[u8]]) -> Pending {
        let args = OwnedArgs::from_slices(args.iter().copied());
        Pending::fill(Box::pin(std::future::ready(Ok(()))), args.as_args())
    }

    #[test]
    fn a_filled_request_runs_again() {
        let (mut worker, mut session) = set_up();
        let mut out = Vec::new();
        let pending = filled(&[b"echo", b"again"]);
        let step = worker.resume(&mut session, &pending, Finished::Filled(Ok(())), &mut out);
        assert!(matches!(step, Step::Flush));
        assert_eq!(out, b"$5\r\nagain\r\n");
    }

    #[test]
    fn the_error_of_a_fill_is_the_reply_and_respects_client_reply() {
        let (mut worker, mut session) = set_up();
        let pending = filled(&[b"get", b"k"]);
        for (mode, expected) in [
            (ReplyMode::On, &b"-ERR no\r\n"[..]),
            (ReplyMode::SkipNext, b""),
            (ReplyMode::On, b"-ERR no\r\n"),
        ] {
            session.reply_mode = mode;
            let mut out = Vec::new();
            let error = ReplyError::fixed("ERR no");
            worker.resume(&mut session, &pending, Finished::Filled(Err(error)), &mut out);
            assert_eq!(out, expected);
            assert_eq!(session.reply_mode, ReplyMode::On);
        }
    }

    #[test]
    fn refills_are_bounded() {
        let (mut worker, mut session) = set_up();
        let mut pending = filled(&[b"get", b"k"]);
        pending.refills = MAX_REFILLS;
        let mut out = Vec::new();
        worker.resume(&mut session, &pending, Finished::Filled(Ok(())), &mut out);
        assert!(out.starts_with(b"-TRYAGAIN "));
    }

    #[test]
    fn replies_are_passed_on_unless_they_are_not_wanted() {
        let (mut worker, mut session) = set_up();
        let mut pending = Pending::reply(Box::pin(std::future::ready(Vec::new())));
        let mut out = Vec::new();
        worker.resume(&mut session, &pending, Finished::Replied(b"+A\r\n+B\r\n".to_vec()), &mut out);
        assert_eq!(out, b"+A\r\n+B\r\n");
        pending.silence();
        worker.resume(&mut session, &pending, Finished::Replied(b"+C\r\n".to_vec()), &mut out);
        assert_eq!(out, b"+A\r\n+B\r\n");
    }
}
