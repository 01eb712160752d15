//! `log`: exact, over a sorted set with one member a permit.
//!
//! Several rules share one set, which keeps what the longest window needs; a shorter one counts the newest of it.

use super::{Call, Verdict, longest};
use crate::config::Rule;
use crate::types::sorted_set::{Limits, Log, SortedSet};

/// What several rules say to a call.
#[derive(Debug, Clone, Copy)]
pub struct Decision {
    /// The verdict that counts.
    pub verdict: Verdict,
    /// The place of the rule it is of.
    pub rule: usize,
    /// The call was admitted before, under its identifier.
    pub is_repeated: bool,
}

/// The time as of which a call is looked at: never before the newest permit.
#[inline]
fn effective(permits: &SortedSet, now: u64) -> u64 {
    permits.newest_permit().map_or(now, |newest| newest.max(now))
}

/// How many permits have left a window that ends at `time`.
#[inline]
fn outside(permits: &SortedSet, time: u64, window: u64) -> usize {
    time.checked_sub(window).map_or(0, |last| permits.permits_until(last))
}

/// Decides, and changes nothing.
pub fn decide(permits: &SortedSet, rules: &[Rule], call: &Call<'_>) -> Decision {
    let time = effective(permits, call.now);
    let is_repeated = call.id.is_some_and(|id| {
        permits.permit_of(id).is_some_and(|given| given.saturating_add(longest(rules)) > time)
    });
    let cost = if is_repeated { 0 } else { call.cost };
    let decide_one = |rule: &Rule| decide_one(permits, rule, time, call.now, cost);
    match rules {
        [rule] => Decision { verdict: decide_one(rule), rule: 0, is_repeated },
        _ => {
            let strongest = Verdict::strongest(rules.iter().map(decide_one));
            let Some((rule, verdict)) = strongest else { unreachable!("a limit has at least one rule") };
            Decision { verdict, rule, is_repeated }
        }
    }
}

#[inline]
fn decide_one(permits: &SortedSet, rule: &Rule, time: u64, now: u64, cost: u64) -> Verdict {
    let outside = outside(permits, time, rule.window_us);
    let count = (permits.len() - outside) as u64;
    let given = |surplus: u64| permits.permit(outside + surplus as usize - 1);
    verdict(rule, count, permits.newest_permit(), time, now, cost, given)
}

/// What a rule says to a call, by how many permits count, when the newest was given, and when the one was that is so many
/// places behind the oldest of them.
#[inline(always)]
pub(super) fn verdict(
    rule: &Rule,
    count: u64,
    newest: Option<u64>,
    time: u64,
    now: u64,
    cost: u64,
    given: impl FnOnce(u64) -> Option<u64>,
) -> Verdict {
    let (limit, window) = (rule.limit, rule.window_us);
    let limited = cost > 0 && count.saturating_add(cost) > limit;
    let newest = if cost > 0 && !limited { time } else { newest.unwrap_or(0) };
    let ends = |given: u64| given.saturating_add(window).saturating_sub(now);
    Verdict {
        limited,
        limit,
        remaining: limit.saturating_sub(if limited { count } else { count + cost }),
        retry_after: if limited && cost <= limit { given(count + cost - limit).map(ends) } else { None },
        reset_after: ends(newest),
    }
}

/// Decides, tells the verdict and, if the call is admitted, takes its permits. Returns when the set may be forgotten, in
/// microseconds, if it was changed.
#[inline(always)]
pub fn take(
    permits: &mut SortedSet,
    rules: &[Rule],
    call: &Call<'_>,
    limits: &Limits,
    tell: &mut impl FnMut(&Verdict),
) -> Option<u64> {
    if let ([rule], None, Some(log)) = (rules, call.id, permits.as_log()) {
        return take_one(log, rule, call, tell);
    }
    let decision = decide(permits, rules, call);
    tell(&decision.verdict);
    if decision.verdict.limited || decision.is_repeated || call.cost == 0 {
        return None;
    }
    Some(admit(permits, rules, call, limits))
}

/// The same of one rule, for a call without an identifier, while there is nothing but permits: what has left the window is
/// found once.
#[inline(always)]
fn take_one(log: &mut Log, rule: &Rule, call: &Call<'_>, tell: &mut impl FnMut(&Verdict)) -> Option<u64> {
    let newest = log.newest_time();
    let time = newest.map_or(call.now, |newest| newest.max(call.now));
    let outside = time.checked_sub(rule.window_us).map_or(0, |last| log.count_until(last));
    let given = |surplus: u64| Some(log.time(outside + surplus as usize - 1));
    let verdict = verdict(rule, (log.len() - outside) as u64, newest, time, call.now, call.cost, given);
    tell(&verdict);
    if verdict.limited || call.cost == 0 {
        return None;
    }
    log.drop_oldest(outside);
    log.push(time, call.cost as usize, rule.limit as usize);
    Some(time.saturating_add(rule.window_us))
}

/// Takes the permits of a call that was decided to be admitted; returns when the set may be forgotten.
pub fn admit(permits: &mut SortedSet, rules: &[Rule], call: &Call<'_>, limits: &Limits) -> u64 {
    let (time, window) = (effective(permits, call.now), longest(rules));
    let outside = outside(permits, time, window);
    permits.drop_oldest_permits(outside);
    let most = rules.iter().map(|rule| rule.limit).max().unwrap_or(0);
    permits.add_permits(time, call.cost, most, call.id, limits);
    time.saturating_add(window)
}
