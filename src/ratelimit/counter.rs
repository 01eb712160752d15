//! `counter`: two counters for windows side by side, which begin at multiples of their length.

use super::Verdict;
use crate::config::Rule;

/// The counters of the window that holds a time, and of the one before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) current: u64,
    pub(super) previous: u64,
}

impl Counts {
    /// The counters that were right at `from`, as of `time`.
    pub(super) fn rolled(self, window: u64, from: u64, time: u64) -> Self {
        match (time / window).saturating_sub(from / window) {
            0 => self,
            1 => Self { current: 0, previous: self.current },
            _ => Self::default(),
        }
    }

    /// Permits that count at `elapsed` after the window's beginning, times the window's length.
    fn weighted(self, window: u64, elapsed: u64) -> u128 {
        u128::from(self.previous) * u128::from(window - elapsed)
            + u128::from(self.current) * u128::from(window)
    }

    /// When both will have left, seen from the beginning of the current window.
    fn end(self, window: u64) -> u64 {
        match self {
            Self { current: 0, previous: 0 } => 0,
            Self { current: 0, .. } => window,
            _ => window.saturating_mul(2),
        }
    }
}

/// When counters that were changed at `time` count no more.
pub(super) fn forgotten(window: u64, time: u64) -> u64 {
    (time - time % window).saturating_add(window.saturating_mul(2))
}

/// The quotient, without a call where it takes one word, as it mostly does.
#[inline]
fn quotient(dividend: u128, divisor: u64) -> u64 {
    match u64::try_from(dividend) {
        Ok(dividend) => dividend / divisor,
        Err(_) => (dividend / u128::from(divisor)) as u64,
    }
}

/// Decides on a call that wants `cost` permits at `time`, as of which the counters are; returns the verdict and the
/// counters after it. `now` is what the clock says, which may be before `time`.
pub(super) fn decide(counts: Counts, rule: &Rule, time: u64, now: u64, cost: u64) -> (Verdict, Counts) {
    let (limit, window) = (rule.capacity, rule.window_us);
    let (begin, elapsed) = (time - time % window, time % window);
    let taken = Counts { current: counts.current.saturating_add(cost), ..counts };
    let scaled = u128::from(limit) * u128::from(window);
    let limited = cost > 0 && taken.weighted(window, elapsed) > scaled;
    let after = if limited { counts } else { taken };
    let left = quotient(scaled.saturating_sub(after.weighted(window, elapsed)), window);
    let verdict = Verdict {
        limited,
        limit,
        remaining: left,
        retry_after: (limited && cost <= limit)
            .then(|| begin.saturating_add(admitted_at(counts, rule, cost)).saturating_sub(now)),
        reset_after: begin.saturating_add(after.end(window)).saturating_sub(now),
    };
    (verdict, after)
}

/// When a call would be admitted if nothing else came, seen from the beginning of the current window.
fn admitted_at(counts: Counts, rule: &Rule, cost: u64) -> u64 {
    let (free, window) = (rule.capacity - cost, rule.window_us);
    // The time in a window at which what is left of `previous` permits fits into `room`.
    let fits_at = |previous: u64, room: u64| {
        if previous <= room {
            return 0;
        }
        window - quotient(u128::from(room) * u128::from(window), previous)
    };
    if let Some(room) = free.checked_sub(counts.current) {
        let elapsed = fits_at(counts.previous, room);
        if elapsed < window {
            return elapsed;
        }
    }
    // In the next window the current counter is the older one; in the one after it, nothing is left.
    window.saturating_add(fits_at(counts.current, free))
}

/// Gives permits back; returns how many there were to give.
pub(super) fn refund(counts: &mut Counts, count: u64) -> u64 {
    let current = count.min(counts.current);
    let previous = (count - current).min(counts.previous);
    counts.current -= current;
    counts.previous -= previous;
    current + previous
}
