//! Rate limits: `RATELIMIT.*`, and redis-cell's `CL.THROTTLE`.
//!
//! A refused call changes nothing at its key. What is refused is counted, for `RATELIMIT.TOP`; for a policy, what is
//! admitted too.

mod apply;
mod asked;
mod last;
mod request;

pub use asked::{Asked, What, asked};
pub use last::LastLimit;

use std::slice::from_ref;

use apply::{peek, refund, reset, take, take_all};
use request::{Limit, Request};

use super::arguments::{integer_in, positive};
use super::keys::{Begin, DerivedKey, Find, KeySpec, access::*, key_at};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Limiter};
use crate::config::{Algorithm, Rule, Rules};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::ratelimit::{Call, Verdict};
use crate::tiers::local::View;

const CHANGE: &[KeySpec] = &[key_at(1, RW | ACCESS | UPDATE)];

/// The rows.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::limit("ratelimit.take", AtLeast(4), ratelimit_take)
        .write()
        .fast()
        .keys(CHANGE)
        .reads_log()
        .doc(
            "Takes permits of a limit, or is refused.",
            "7.2.0",
            "O(1); with ID and the algorithm counter or gcra, O(N) in the identifiers of the window",
            "key limit:integer window-ms:integer [COST cost:integer] \
            [ALGORITHM algorithm<LOG | COUNTER | GCRA>] [BURST burst:integer] [ID id]",
        ),
    CommandSpec::limit("ratelimit.multi", AtLeast(5), ratelimit_multi)
        .write()
        .fast()
        .keys(&[KeySpec {
            begin: Begin::Index(1),
            find: Find::Count { at: 0, first: 1, step: 3 },
            flags: RW | ACCESS | UPDATE,
        }])
        .doc(
            "Takes permits of several limits, of all or of none.",
            "7.2.0",
            "O(N) in the number of limits",
            "numkeys:integer data(key limit:integer window-ms:integer)... [COST cost:integer]",
        ),
    CommandSpec::limit("ratelimit.check", AtLeast(3), ratelimit_check)
        .write()
        .fast()
        .derived_key(policy_key)
        .doc(
            "Takes permits of what a policy allows to a subject, or is refused.",
            "7.2.0",
            "O(N) in the policy's windows",
            "policy subject [COST cost:integer] [ID id]",
        ),
    CommandSpec::limit("ratelimit.peek", AtLeast(4), ratelimit_peek)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO | ACCESS)])
        .doc(
            "Looks at a limit without taking permits.",
            "7.2.0",
            "O(1)",
            "key limit:integer window-ms:integer [COST cost:integer] \
                [ALGORITHM algorithm<LOG | COUNTER | GCRA>] [BURST burst:integer]",
        ),
    CommandSpec::limit("ratelimit.refund", Exactly(3), ratelimit_refund).shrink().fast().keys(CHANGE).doc(
        "Gives permits back; returns how many there were to give.",
        "7.2.0",
        "O(N) in the number of permits",
        "key count:integer",
    ),
    CommandSpec::limit("ratelimit.reset", Exactly(2), ratelimit_reset)
        .shrink()
        .fast()
        .keys(&[key_at(1, RM | DELETE)])
        .doc("Forgets what was taken of a limit.", "7.2.0", "O(1)", "key"),
    CommandSpec::limit("ratelimit.top", AtLeast(1), ratelimit_top).readonly().doc(
        "Returns the keys refused most, with how often.",
        "7.2.0",
        "O(1)",
        "[count:integer]",
    ),
    CommandSpec::limit("cl.throttle", AtLeast(5), cl_throttle).write().fast().keys(CHANGE).doc(
        "Takes permits that come back at a steady rate; times are seconds.",
        "7.2.0",
        "O(1)",
        "key max-burst:integer count:integer period:integer [quantity:integer]",
    ),
];

/// The key of a policy's subject.
fn policy_key(args: Args<'_>) -> DerivedKey {
    let mut key = DerivedKey::from_slice(b"rate_limit:");
    key.extend_from_slice(args.at(1));
    key.push(b':');
    key.extend_from_slice(args.at(2));
    key
}

/// The five fields that all of these commands reply.
#[inline(always)]
fn fields(verdict: &Verdict, unit_us: u64) -> [i64; 5] {
    [
        i64::from(verdict.limited),
        verdict.limit as i64,
        verdict.remaining as i64,
        verdict.retry_after.map_or(-1, |wait| wait.div_ceil(unit_us) as i64),
        verdict.reset_after.div_ceil(unit_us) as i64,
    ]
}

/// The same with the place of the limit that refused.
fn fields_of_several(verdict: &Verdict, limit: usize) -> [i64; 6] {
    let [limited, most, remaining, retry_after, reset_after] = fields(verdict, MILLIS);
    let refusing = if verdict.limited { limit as i64 } else { -1 };
    [limited, most, remaining, retry_after, reset_after, refusing]
}

const MILLIS: u64 = 1000;
const SECONDS: u64 = 1_000_000;

fn ratelimit_take(
    view: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let mut last = limiter.last.borrow_mut();
    let (limit, id) = last.read(args)?;
    let call = Call { now: limiter.now_us, cost: limit.cost, id };
    let (key, hash) = (args.at(1), view.hash(args.at(1)));
    take(view, key, limit.algorithm, from_ref(&limit.rule), &call, |verdict| {
        if verdict.limited {
            limiter.limits.note_refusal(key, hash);
        }
        reply.integer_array(&fields(verdict, MILLIS));
    })
}

fn ratelimit_multi(
    view: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let (limits, cost) = request::multi(args)?;
    let (refusing, verdict) = take_all(view, &limits, limiter.now_us, cost)?;
    if verdict.limited {
        let (key, _) = limits[refusing];
        limiter.limits.note_refusal(key, view.hash(key));
    }
    reply.integer_array(&fields_of_several(&verdict, refusing));
    Ok(())
}

fn ratelimit_check(
    view: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let (cost, id) = request::cost_and_id(args, 3)?;
    let call = Call { now: limiter.now_us, cost, id };
    let key = policy_key(args);
    let hash = view.hash(&key);
    let checked = limiter.limits.with_policy(args.at(1), |active| {
        take(view, &key, active.policy.algorithm, &active.policy.rules, &call, |verdict| {
            active.note(verdict.limited);
            if verdict.limited {
                limiter.limits.note_refusal(&key, hash);
            }
            reply.integer_array(&fields(verdict, MILLIS));
        })
    });
    checked.ok_or_else(|| request::unknown_policy(args.at(1)))?
}

fn ratelimit_peek(
    view: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let request = Request::parse(args, false)?;
    let Limit { algorithm, rule, .. } = request.limit;
    let verdict = peek(view, args.at(1), algorithm, &[rule], &request.call(limiter))?;
    reply.integer_array(&fields(&verdict, MILLIS));
    Ok(())
}

fn ratelimit_refund(
    view: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let count = positive(args.at(2))?;
    reply.integer(refund(view, args.at(1), limiter.now_us, count as u64)? as i64);
    Ok(())
}

fn ratelimit_reset(
    view: &mut View<'_>,
    _: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.integer(i64::from(reset(view, args.at(1))?));
    Ok(())
}

fn ratelimit_top(
    _: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    if args.len() > 2 {
        return Err(ReplyError::wrong_arity("ratelimit.top"));
    }
    let count = args.get(1).map_or(Ok(10), positive)?;
    let top = limiter.limits.most_refused(count as usize);
    reply.array(top.len());
    for (key, refusals) in top {
        reply.array(2);
        reply.bulk(&key);
        reply.integer(refusals as i64);
    }
    Ok(())
}

fn cl_throttle(
    view: &mut View<'_>,
    limiter: &Limiter<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let (rule, cost) = request::throttle(args)?;
    let call = Call { now: limiter.now_us, cost, id: None };
    let (key, hash) = (args.at(1), view.hash(args.at(1)));
    take(view, key, Algorithm::Gcra, from_ref(&rule), &call, |verdict| {
        if verdict.limited {
            limiter.limits.note_refusal(key, hash);
        }
        reply.integer_array(&fields(verdict, SECONDS));
    })
}
