//! What a call asks for when it is not decided here but upstream: the same arguments, the same reply, the same counts.

use smallvec::SmallVec;

use super::request::{self, Limit, Request};
use super::{MILLIS, SECONDS, fields, fields_of_several, policy_key};
use crate::commands::arguments::positive;
use crate::config::Algorithm;
use crate::protocol::{Args, Reply, ReplyError};
use crate::ratelimit::remote::{MAX_LOG_COST, Question};
use crate::ratelimit::{ActivePolicy, RateLimits, Verdict};
use crate::types::hasher::hash_bytes;

/// What is asked of limits.
pub struct Asked<'a> {
    /// What is to be done.
    pub what: What<'a>,
    /// The keys.
    pub keys: SmallVec<[Box<[u8]>; 1]>,
    unit_us: u64,
    policy: Option<ActivePolicy>,
    is_multi: bool,
}

/// What is to be done.
pub enum What<'a> {
    /// To decide.
    Decide(Question<'a>),
    /// To give permits back.
    Refund(u64),
    /// To forget.
    Reset,
}

/// What a command asks for; `None` if it concerns this host alone.
///
/// # Errors
/// As the command's.
pub fn asked<'a>(name: &str, args: Args<'a>, limits: &RateLimits) -> Result<Option<Asked<'a>>, ReplyError> {
    let key = |what, key: &[u8]| Asked {
        what,
        keys: SmallVec::from_iter([key.into()]),
        unit_us: MILLIS,
        policy: None,
        is_multi: false,
    };
    let question =
        |algorithm, limits, cost, id, takes| Question { algorithm, limits, cost, id, takes, hold_us: 0 };
    let asked = match name {
        "ratelimit.take" | "ratelimit.peek" => {
            let takes = name == "ratelimit.take";
            let Request { limit: Limit { algorithm, rule, cost }, id } = Request::parse(args, takes)?;
            let limits = SmallVec::from_iter([(0, rule)]);
            key(What::Decide(question(algorithm, limits, cost, id, takes)), args.at(1))
        }
        "ratelimit.multi" => {
            let (rules, cost) = request::multi(args)?;
            let mut keys: SmallVec<[Box<[u8]>; 1]> = SmallVec::new();
            let mut limits = SmallVec::new();
            for (key, rule) in rules {
                let place = keys.iter().position(|other| **other == *key).unwrap_or_else(|| {
                    keys.push(key.into());
                    keys.len() - 1
                });
                limits.push((place, rule));
            }
            let what = What::Decide(question(Algorithm::Log, limits, cost, None, true));
            Asked { what, keys, unit_us: MILLIS, policy: None, is_multi: true }
        }
        "ratelimit.check" => {
            let (cost, id) = request::cost_and_id(args, 3)?;
            let Some(active) = limits.with_policy(args.at(1), Clone::clone) else {
                return Err(request::unknown_policy(args.at(1)));
            };
            let rules = active.policy.rules.iter().map(|rule| (0, *rule)).collect();
            let question = question(active.policy.algorithm, rules, cost, id, true);
            Asked { policy: Some(active), ..key(What::Decide(question), &policy_key(args)) }
        }
        "cl.throttle" => {
            let (rule, cost) = request::throttle(args)?;
            let limits = SmallVec::from_iter([(0, rule)]);
            let question = question(Algorithm::Gcra, limits, cost, None, true);
            Asked { unit_us: SECONDS, ..key(What::Decide(question), args.at(1)) }
        }
        "ratelimit.refund" => key(What::Refund(positive(args.at(2))? as u64), args.at(1)),
        "ratelimit.reset" => key(What::Reset, args.at(1)),
        _ => return Ok(None),
    };
    if let What::Decide(question) = &asked.what
        && question.algorithm == Algorithm::Log
        && (MAX_LOG_COST + 1..=question.limits.iter().map(|(_, rule)| rule.limit).max().unwrap_or(0))
            .contains(&question.cost)
    {
        return Err(ReplyError::fixed(
            "ERR COST must be at most 10000 for the algorithm LOG if limits are shared: choose another",
        ));
    }
    Ok(Some(asked))
}

impl Asked<'_> {
    /// Whether several limits are asked for, of which the reply names the one that refused.
    pub fn is_multi(&self) -> bool {
        self.is_multi
    }

    /// Replies a verdict, which is that of the limit at this place, and counts it.
    pub fn reply(&self, verdict: &Verdict, limit: usize, limits: &RateLimits, reply: &mut Reply<'_>) {
        if let What::Decide(Question { takes: true, limits: rules, .. }) = &self.what {
            if let Some(policy) = &self.policy {
                policy.note(verdict.limited);
            }
            if verdict.limited {
                let key = &self.keys[rules[limit].0];
                limits.note_refusal(key, hash_bytes(key));
            }
        }
        if self.is_multi {
            reply.integer_array(&fields_of_several(verdict, limit));
        } else {
            reply.integer_array(&fields(verdict, self.unit_us));
        }
    }
}
