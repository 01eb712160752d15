//! Rate limits that all hosts share: what is asked of upstream, and what its reply, or the want of one, means for the call.
//!
//! A handler never awaits, so such a call is no handler's: it is sent upstream as a script, its connection awaits the
//! decision, and then it is replied, or, if there is none, dealt with as the configuration says; `"local"` runs the
//! handler as without an upstream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::execute::Flow;
use super::forward::is_silenced;
use super::leases::Leasable;
use super::pending::{LocalFuture, Pending};
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::ratelimit::{Asked, What, asked};
use crate::commands::spec::Run;
use crate::commands::table::{COMMANDS, Command};
use crate::config::upstream::KeyTier;
use crate::config::{LimitScope, OnLimitFailure};
use crate::instance::Instance;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::ratelimit::Verdict;
use crate::ratelimit::leases::{Place, Terms};
use crate::ratelimit::remote::{self, Answer, Field, Question};
use crate::tiers::upstream::{self, Outcome, Script, Upstream, elements, integer, is_error, text};

static LOG: Script = Script::new(remote::LOG);
static STATE: Script = Script::new(remote::STATE);
static REFUND: Script = Script::new(remote::REFUND);
static RESET: Script = Script::new(remote::RESET);

/// What upstream says to a call.
pub enum Decision {
    /// A verdict.
    Answer(Answer),
    /// A number: how many permits were given back, or whether there was anything to forget.
    Number(i64),
    /// An error that is the call's own.
    Error(ReplyError),
    /// Nothing that decides.
    None,
}

impl Decision {
    /// Replies it to a call, or returns the error to reply; `None` if nothing was decided, which is counted.
    pub(super) fn reply(
        self,
        asked: &Asked<'_>,
        instance: &Instance,
        reply: &mut Reply<'_>,
    ) -> Option<CommandResult> {
        match self {
            Self::Answer(answer) => asked.reply(&answer.verdict, answer.limit, &instance.limits, reply),
            Self::Number(number) => reply.integer(number),
            Self::Error(error) => return Some(Err(error)),
            Self::None => {
                instance.limits.note_undecided();
                return None;
            }
        }
        Some(Ok(()))
    }
}

impl Worker {
    /// Has upstream decide on a call; `None` if it is decided here.
    pub(super) fn limit_upstream(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let scope = self.instance.config.sharing.scope(true);
        if !matches!(command.spec.run, Run::Limit(_)) || scope == LimitScope::Local {
            return None;
        }
        if let Err(error) = self.admit(session, command, args) {
            return Some(self.refused(session, args, &error, out));
        }
        let begin = self.ticks;
        let mut asked = match asked(command.spec.name, args, &self.instance.limits) {
            Ok(asked) => asked?,
            Err(error) => return Some(self.limit_failed(session, command, args, &error, out)),
        };
        match asked.keys.iter().filter(|key| upstream.tier_of(key) == Some(KeyTier::Local)).count() {
            0 => {}
            count if count == asked.keys.len() => return None,
            _ => {
                let text = "CROSSTIER the keys of a command must all be of the local tier, or none of them";
                return Some(self.limit_failed(session, command, args, &ReplyError::fixed(text), out));
            }
        }
        if self.instance.pause.is_set()
            && let Some(held) = self.hold(session, command, args)
        {
            return Some(Flow::held(held));
        }
        session.client.last_command.store(command.index, Relaxed);
        let leasable = (scope == LimitScope::Leased).then(|| Leasable::of(&asked, session.db)).flatten();
        if let Some(answer) = leasable.as_ref().and_then(|leasable| leasable.take(self.instance)) {
            let mark = out.len();
            let reply = &mut Reply::new(out, session.protocol);
            asked.reply(&answer.verdict, answer.limit, &self.instance.limits, reply);
            if is_silenced(session) {
                out.truncate(mark);
            }
            self.measure(&session.client, command, args, begin);
            return Some(Flow::Next);
        }
        if scope == LimitScope::Leased {
            share(&mut asked, session.db, self.instance);
        }
        let run = run_of(&asked, session.db);
        let (instance, upstream) = (self.instance, upstream.clone());
        // The question borrows the request's arguments, which the wait outlives.
        let what = match asked.what {
            What::Decide(question) => Some(Question { id: None, ..question }),
            What::Refund(_) | What::Reset => None,
        };
        let asking = run.run(upstream.clone());
        let apart = async move { decision(what.as_ref(), asking.await) };
        let deciding: LocalFuture<Decision> = match leasable {
            Some(leasable) if leasable.is_single() => Box::pin(leasable.decide(instance, upstream, apart)),
            _ => Box::pin(apart),
        };
        let mut pending = Pending::decision(deciding, args);
        if is_silenced(session) {
            pending.silence();
        }
        self.measure(&session.client, command, args, begin);
        Some(Flow::pending(pending))
    }

    fn limit_failed(
        &mut self,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        error: &ReplyError,
        out: &mut Vec<u8>,
    ) -> Flow {
        let begin = self.ticks;
        let mut encoded = Vec::new();
        self.failed(command, error, &mut Reply::new(&mut encoded, session.protocol));
        self.measure(&session.client, command, args, begin);
        if !is_silenced(session) {
            out.extend_from_slice(&encoded);
        }
        Flow::Next
    }

    /// Replies what upstream decided, or deals with a call that it did not decide on.
    pub(super) fn decided(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        decision: Decision,
        is_silent: bool,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mark = out.len();
        let flow = match COMMANDS.resolve(args) {
            Ok(command) => self.reply_decision(session, command, args, decision, out),
            Err(_) => Flow::Next,
        };
        if is_silent {
            out.truncate(mark);
        }
        flow
    }

    fn reply_decision(
        &mut self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        decision: Decision,
        out: &mut Vec<u8>,
    ) -> Flow {
        let instance = self.instance;
        // What the arguments were before, they are now; a policy may have gone meanwhile.
        let asked = match asked(command.spec.name, args, &instance.limits) {
            Ok(Some(asked)) => asked,
            Ok(None) => return Flow::Next,
            Err(error) => {
                self.failed(command, &error, &mut Reply::new(out, session.protocol));
                return Flow::Next;
            }
        };
        let reply = &mut Reply::new(out, session.protocol);
        match decision.reply(&asked, instance, reply) {
            Some(Ok(())) => {}
            Some(Err(error)) => self.failed(command, &error, reply),
            None => return self.undecided(session, command, args, &asked, out),
        }
        Flow::Next
    }

    #[cold]
    fn undecided(
        &mut self,
        session: &mut Session,
        command: &'static Command,
        args: Args<'_>,
        asked: &Asked<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let on_failure = self.instance.config.sharing.on_failure;
        if on_failure == OnLimitFailure::Local {
            return self.call(session, command, None, args, out);
        }
        let reply = &mut Reply::new(out, session.protocol);
        let What::Decide(question) = &asked.what else {
            let text = "UPSTREAMDOWN the limit is kept upstream, which cannot be reached";
            self.failed(command, &ReplyError::fixed(text), reply);
            return Flow::Next;
        };
        let timeout =
            self.instance.config.upstream.as_ref().map_or(0, |config| config.timeout.as_micros() as u64);
        let (limit, verdict) = blind(question, on_failure == OnLimitFailure::Deny, timeout);
        asked.reply(&verdict, limit, &self.instance.limits, reply);
        Flow::Next
    }
}

/// A verdict that nothing is known for.
fn blind(question: &Question<'_>, limited: bool, timeout_us: u64) -> (usize, Verdict) {
    let narrowest = question.limits.iter().enumerate().min_by_key(|(_, (_, rule))| rule.capacity);
    let (place, limit) = narrowest.map_or((0, 0), |(place, (_, rule))| (place, rule.capacity));
    let verdict = Verdict {
        limited,
        limit,
        remaining: if limited { 0 } else { limit.saturating_sub(question.cost) },
        // It is worth trying again when upstream may be there again.
        retry_after: limited.then_some(timeout_us),
        reset_after: if limited { timeout_us } else { 0 },
    };
    (place, verdict)
}

/// Has what is asked of limits that hosts may hold permits of count those as well.
pub(super) fn share(asked: &mut Asked<'_>, db: usize, instance: &Instance) {
    match &mut asked.what {
        What::Decide(question) => {
            let rules = question.limits.iter().map(|(_, rule)| *rule).collect();
            let terms = Terms { algorithm: question.algorithm, rules };
            for (_, rule) in &mut question.limits {
                *rule = terms.shared(rule);
            }
        }
        What::Reset => asked.keys.iter().for_each(|key| instance.leases.forget(&Place::new(db, key))),
        What::Refund(_) => {}
    }
}

/// The script that a question is for, and its arguments.
pub(super) fn script_of(question: &Question<'_>) -> (&'static Script, Vec<Vec<u8>>) {
    (if question.script() == remote::LOG { &LOG } else { &STATE }, question.arguments(None))
}

/// The script to run, and with what.
pub(super) fn run_of(asked: &Asked<'_>, db: usize) -> upstream::Run {
    let (script, arguments) = match &asked.what {
        What::Decide(question) => script_of(question),
        // A script counts exactly up to 2^53, and no limit comes near that.
        What::Refund(count) => {
            let count = (*count).min(1 << 53).to_string();
            (&REFUND, vec![Vec::new(), count.into_bytes()])
        }
        What::Reset => (&RESET, Vec::new()),
    };
    upstream::Run { script, db, keys: asked.keys.to_vec(), arguments }
}

/// What a script's reply, or the want of one, decides.
pub(super) fn decision(question: Option<&Question<'_>>, outcome: Outcome) -> Decision {
    let Ok(frame) = outcome else { return Decision::None };
    if is_error(&frame) {
        let said = String::from_utf8_lossy(&frame[1..]).trim_end().to_owned();
        return match said.split(' ').next() {
            Some("WRONGTYPE") => Decision::Error(ReplyError::WRONG_TYPE),
            Some("CROSSSLOT") => Decision::Error(ReplyError::new(said)),
            _ => {
                complain(&format!("upstream does not decide on a rate limit: {said}"));
                Decision::None
            }
        };
    }
    let decided = match question {
        None => integer(&frame).map(Decision::Number),
        Some(question) => fields(&frame).and_then(|fields| question.answer(&fields)).map(Decision::Answer),
    };
    decided.unwrap_or_else(|| {
        complain("upstream's reply to a rate limit makes no sense");
        Decision::None
    })
}

/// Logs, once a second at most: calls may be many.
fn complain(text: &str) {
    static LAST_MS: AtomicU64 = AtomicU64::new(0);
    let now_ms = upstream::now_ms();
    let last_ms = LAST_MS.load(Relaxed);
    let is_due = last_ms == 0 || now_ms.saturating_sub(last_ms) >= 1000;
    if is_due && LAST_MS.compare_exchange(last_ms, now_ms, Relaxed, Relaxed).is_ok() {
        tracing::warn!("{text}");
    }
}

fn fields(frame: &[u8]) -> Option<Vec<Field<'_>>> {
    let field = |part| match integer(part) {
        Some(number) => Some(Field::Integer(number)),
        None => text(part).map(Field::Bytes),
    };
    elements(frame)?.into_iter().map(field).collect()
}
