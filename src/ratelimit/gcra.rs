//! `gcra`: the generic cell rate algorithm, in nanoseconds so that no rate is rounded by more than that.

use super::Verdict;
use crate::config::Rule;

/// Decides on a call that wants `cost` permits at `time`; returns the verdict and when the key would be idle after it.
///
/// `idle` is when it would be idle without it, `now` what the clock says, which may be before `time`.
#[inline(always)]
pub(super) fn decide(idle: u64, rule: &Rule, time: u64, now: u64, cost: u64) -> (Verdict, u64) {
    let (interval, time, now) = (rule.interval_ns, time.saturating_mul(1000), now.saturating_mul(1000));
    let tolerance = interval.saturating_mul(rule.capacity);
    let before = idle.max(time);
    let after = before.saturating_add(interval.saturating_mul(cost));
    let limited = cost > 0 && after - time > tolerance;
    let idle = if limited { before } else { after };
    let micros = |until: u64| until.saturating_sub(now).div_ceil(1000);
    let verdict = Verdict {
        limited,
        limit: rule.capacity,
        remaining: tolerance.saturating_sub(idle - time) / interval,
        retry_after: (limited && cost <= rule.capacity).then(|| micros(after.saturating_sub(tolerance))),
        reset_after: micros(idle),
    };
    (verdict, idle)
}

/// Gives permits back; returns when the key will be idle then, and how many it took back.
pub(super) fn refund(idle: u64, interval: u64, time: u64, count: u64) -> (u64, u64) {
    let taken = idle.saturating_sub(time.saturating_mul(1000)).div_ceil(interval.max(1));
    let count = count.min(taken);
    (idle.saturating_sub(interval.saturating_mul(count)), count)
}
