//! Decisions carried out at keys.

use super::{Algorithm, ReplyError, Rule, Rules};
use crate::config::Id;
use crate::ratelimit::state::{self, State};
use crate::ratelimit::{Call, Verdict, log};
use crate::tiers::local::{Event, ValueRef, View};
use crate::types::listpack::Item;
use crate::types::sorted_set::{Limits, SortedSet};

const TAKEN_OF_LOG: Event = Event::sorted_set("ratelimit.take");
const TAKEN: Event = Event::string("ratelimit.take");

fn limits(view: &View<'_>) -> Limits {
    let settings = view.settings();
    Limits {
        entries: settings.int(Id::ZsetMaxListpackEntries) as usize,
        value: settings.int(Id::ZsetMaxListpackValue) as usize,
    }
}

/// The deadline that lets nothing go too early: a key is there until its millisecond is over.
fn deadline(until_us: u64) -> u64 {
    until_us.div_ceil(1000)
}

/// The state in a string, which must be of that algorithm.
fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<State<'_>, ReplyError> {
    State::parse(bytes).filter(|state| state.algorithm() == algorithm).ok_or(ReplyError::WRONG_TYPE)
}

/// Takes what a call wants of the limits at a key, if all of them allow it, and tells the verdict.
// Told where it is made, it is not copied: in a profile, waits for that stood out.
#[inline(always)]
pub(super) fn take(
    view: &mut View<'_>,
    key: &[u8],
    algorithm: Algorithm,
    rules: &[Rule],
    call: &Call<'_>,
    mut tell: impl FnMut(&Verdict),
) -> Result<(), ReplyError> {
    if algorithm == Algorithm::Log {
        let limits = limits(view);
        return view.upsert_until(key, TAKEN_OF_LOG, |permits: &mut SortedSet| {
            log::take(permits, rules, call, &limits, &mut tell).map(deadline)
        });
    }
    if let ([rule], None) = (rules, call.id) {
        let mut take =
            |bytes: &mut [u8]| state::take_single(bytes, algorithm, rule, call.now, call.cost, &mut tell);
        if view.edit_bytes_until(key, TAKEN, |bytes| take(bytes).map(|until| until.map(deadline))) {
            return Ok(());
        }
    }
    view.replace_string(key, TAKEN, |bytes| {
        let state = bytes.map(|bytes| parse(bytes, algorithm)).transpose()?;
        let decision = state::decide(state.as_ref(), algorithm, rules, call);
        tell(&decision.verdict);
        Ok(((), decision.change.map(|change| (change.state, Some(deadline(change.until))))))
    })
}

/// Takes the same of the logs at several keys, of all or of none; returns the verdict that counts and whose it is.
///
/// Limits at one key share its log.
pub(super) fn take_all(
    view: &mut View<'_>,
    limits_of: &[(&[u8], Rule)],
    now: u64,
    cost: u64,
) -> Result<(usize, Verdict), ReplyError> {
    let call = Call { now, cost, id: None };
    let mut verdicts = Vec::with_capacity(limits_of.len());
    for (key, rule) in limits_of {
        let empty = SortedSet::default();
        let permits = view.peek_as::<SortedSet>(key)?.unwrap_or(&empty);
        verdicts.push(log::decide(permits, &[*rule], &call).verdict);
    }
    let Some((strongest, verdict)) = Verdict::strongest(verdicts) else { return Err(ReplyError::SYNTAX) };
    if verdict.limited {
        return Ok((strongest, verdict));
    }
    let limits = limits(view);
    for (at, (key, _)) in limits_of.iter().enumerate() {
        if limits_of[..at].iter().any(|(other, _)| other == key) {
            continue;
        }
        let rules: Rules =
            limits_of[at..].iter().filter(|(other, _)| other == key).map(|(_, rule)| *rule).collect();
        view.upsert_until(key, TAKEN_OF_LOG, |permits: &mut SortedSet| {
            Some(deadline(log::admit(permits, &rules, &call, &limits)))
        })?;
    }
    Ok((strongest, verdict))
}

/// What a call would be told, with what is left before it.
pub(super) fn peek(
    view: &mut View<'_>,
    key: &[u8],
    algorithm: Algorithm,
    rules: &[Rule],
    call: &Call<'_>,
) -> Result<Verdict, ReplyError> {
    let look = Call { cost: 0, ..*call };
    let (now, then) = if algorithm == Algorithm::Log {
        let empty = SortedSet::default();
        let permits = view.peek_as::<SortedSet>(key)?.unwrap_or(&empty);
        (log::decide(permits, rules, &look).verdict, log::decide(permits, rules, call).verdict)
    } else {
        let state = match view.peek(key) {
            None => None,
            Some(ValueRef::String(Item::Bytes(bytes))) => Some(parse(bytes, algorithm)?),
            Some(_) => return Err(ReplyError::WRONG_TYPE),
        };
        let verdict = |call| state::decide(state.as_ref(), algorithm, rules, call).verdict;
        (verdict(&look), verdict(call))
    };
    Ok(Verdict { limited: then.limited, retry_after: then.retry_after, ..now })
}

/// Whether a key holds permits, of whichever algorithm; with which of the two kinds of value.
enum Holds {
    Nothing,
    Log,
    State,
}

fn holds(view: &mut View<'_>, key: &[u8]) -> Result<Holds, ReplyError> {
    match view.peek(key) {
        None => Ok(Holds::Nothing),
        Some(ValueRef::SortedSet(_)) => Ok(Holds::Log),
        Some(ValueRef::String(Item::Bytes(bytes))) if State::parse(bytes).is_some() => Ok(Holds::State),
        Some(_) => Err(ReplyError::WRONG_TYPE),
    }
}

/// Gives permits back, the newest first; returns how many there were to give.
pub(super) fn refund(view: &mut View<'_>, key: &[u8], now: u64, count: u64) -> Result<u64, ReplyError> {
    match holds(view, key)? {
        Holds::Nothing => Ok(0),
        Holds::Log => {
            let given =
                view.edit(key, Event::sorted_set("ratelimit.refund"), |permits: &mut SortedSet| {
                    let given = permits.drop_newest_permits(count);
                    (given, given > 0)
                })?;
            Ok(given.unwrap_or(0))
        }
        Holds::State => view.replace_string(key, Event::string("ratelimit.refund"), |bytes| {
            let state = bytes.and_then(State::parse).ok_or(ReplyError::WRONG_TYPE)?;
            let (given, refunded) = state.refund(now, count);
            Ok((given, (given > 0).then_some((refunded, None))))
        }),
    }
}

/// Forgets the permits at a key; says whether there was anything.
pub(super) fn reset(view: &mut View<'_>, key: &[u8]) -> Result<bool, ReplyError> {
    Ok(match holds(view, key)? {
        Holds::Nothing => false,
        Holds::Log | Holds::State => view.delete(key, Event::DEL),
    })
}
