//! What a call asks for: the arguments that these commands share.

use super::super::arguments::{Options, positive};
use super::{Algorithm, Args, Limiter, ReplyError, Rule, integer_in};
use crate::config::RuleError;
use crate::ratelimit::Call;
use crate::types::number::parse_i64;

/// Limits with their keys.
pub(super) type KeyedRules<'a> = Vec<(&'a [u8], Rule)>;

/// Limits of one `RATELIMIT.MULTI`.
const MAX_LIMITS: i64 = 128;
/// A longer identifier is refused.
const MAX_ID: usize = 1024;

/// A limit given by arguments, and how much is wanted of it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) algorithm: Algorithm,
    pub(super) rule: Rule,
    pub(super) cost: u64,
}

/// The same, and who says so.
pub(super) struct Request<'a> {
    pub(super) limit: Limit,
    pub(super) id: Option<&'a [u8]>,
}

impl<'a> Request<'a> {
    /// Reads `key limit window-ms` and the options behind them.
    pub(super) fn parse(args: Args<'a>, takes: bool) -> Result<Self, ReplyError> {
        let (mut cost, mut id, mut algorithm, mut burst) = (1, None, Algorithm::Log, None);
        let mut options = Options::new(args, 4);
        while !options.is_done() {
            if options.take_with("ALGORITHM", 1) {
                let Some(named) = Algorithm::named(options.value()?) else {
                    return Err(ReplyError::fixed("ERR ALGORITHM must be LOG, COUNTER or GCRA"));
                };
                algorithm = named;
            } else if options.take_with("COST", 1) {
                cost = cost_of(options.value()?)?;
            } else if options.take_with("BURST", 1) {
                burst = Some(
                    integer_in(options.value()?, 0..=i64::MAX, "ERR BURST must not be negative")? as u64
                );
            } else if takes && options.take_with("ID", 1) {
                id = Some(identifier(options.value()?)?);
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        match Rule::new(algorithm, number(args.at(2))?, number(args.at(3))?, burst) {
            Ok(rule) => Ok(Self { limit: Limit { algorithm, rule, cost }, id }),
            Err(error) => Err(refused(&error)),
        }
    }

    /// The call as of the command's time.
    pub(super) fn call(&self, limiter: &Limiter<'_>) -> Call<'a> {
        Call { now: limiter.now_us, cost: self.limit.cost, id: self.id }
    }
}

/// A limit or a window. What is negative is out of bounds as 0 is.
#[inline(always)]
fn number(argument: &[u8]) -> Result<u64, ReplyError> {
    match parse_i64(argument) {
        Some(value) => Ok(value.max(0) as u64),
        None => Err(ReplyError::NOT_INTEGER),
    }
}

/// Reads `numkeys key limit window-ms ... [COST n]`: the limits with their keys, and the cost.
pub(super) fn multi(args: Args<'_>) -> Result<(KeyedRules<'_>, u64), ReplyError> {
    let count = integer_in(args.at(1), 1..=MAX_LIMITS, "ERR numkeys must be between 1 and 128")? as usize;
    if args.len() < 2 + count * 3 {
        return Err(ReplyError::SYNTAX);
    }
    let mut limits = Vec::with_capacity(count);
    for at in (2..2 + count * 3).step_by(3) {
        let rule = Rule::new(Algorithm::Log, number(args.at(at + 1))?, number(args.at(at + 2))?, None);
        limits.push((args.at(at), rule.map_err(|error| refused(&error))?));
    }
    Ok((limits, cost_alone(args, 2 + count * 3)?))
}

/// Reads `key max-burst count period [quantity]`: the limit and the cost.
pub(super) fn throttle(args: Args<'_>) -> Result<(Rule, u64), ReplyError> {
    if args.len() > 6 {
        return Err(ReplyError::wrong_arity("cl.throttle"));
    }
    let (burst, count, period) = (positive(args.at(2))?, positive(args.at(3))?, positive(args.at(4))?);
    let cost = args.get(5).map_or(Ok(1), positive)? as u64;
    let window_ms = (period as u64).saturating_mul(1000);
    let rule = Rule::new(Algorithm::Gcra, count as u64, window_ms, Some(burst as u64));
    Ok((rule.map_err(|error| refused(&error))?, cost))
}

/// The error reply for a policy that is not there.
pub(super) fn unknown_policy(name: &[u8]) -> ReplyError {
    ReplyError::showing("ERR no such rate limit policy '", name, "'")
}

/// The error reply for a rule that is out of bounds.
pub(super) fn refused(error: &RuleError) -> ReplyError {
    ReplyError::new(format!("ERR {error}"))
}

/// Reads `[COST n]`, from an argument on.
pub(super) fn cost_alone(args: Args<'_>, first: usize) -> Result<u64, ReplyError> {
    match cost_and_id(args, first)? {
        (cost, None) => Ok(cost),
        _ => Err(ReplyError::SYNTAX),
    }
}

/// Reads `[COST n] [ID id]`, from an argument on.
pub(super) fn cost_and_id(args: Args<'_>, first: usize) -> Result<(u64, Option<&[u8]>), ReplyError> {
    let (mut cost, mut id) = (1, None);
    let mut options = Options::new(args, first);
    while !options.is_done() {
        if options.take_with("COST", 1) {
            cost = cost_of(options.value()?)?;
        } else if options.take_with("ID", 1) {
            id = Some(identifier(options.value()?)?);
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    Ok((cost, id))
}

fn cost_of(argument: &[u8]) -> Result<u64, ReplyError> {
    integer_in(argument, 1..=i64::MAX, "ERR COST must be positive").map(|cost| cost as u64)
}

fn identifier(argument: &[u8]) -> Result<&[u8], ReplyError> {
    if argument.len() > MAX_ID {
        return Err(ReplyError::fixed("ERR ID is longer than 1024 bytes"));
    }
    Ok(argument)
}
