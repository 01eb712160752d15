//! Rate limiting: what is decided, from a key's state, the rules and a time that the caller gives.
//!
//! Pure but for the registry of policies: no requests, no replies, no keys, no clock. Of a clock that was set back,
//! nothing follows but longer waits: each state knows the newest time at which it was changed, and no decision is made
//! as of an earlier one.
//!
//! Limits that all hosts share are decided on by a Redis, by scripts ([`remote`]).
//!
//! - `log` keeps each permit as a member of a sorted set ([`crate::types::sorted_set`]); a permit given at time t counts
//!   in all windows that hold t, a window being all times from its beginning to just before its end.
//! - `counter` keeps two counters for windows that lie side by side; of the older, the part is counted that the window
//!   which ends now still covers.
//! - `gcra` keeps the time at which the key will be idle; a call moves it by one interval for each permit and is refused
//!   if that would put it farther ahead than the capacity allows.

mod counter;
mod gcra;
pub mod leases;
pub mod log;
mod refusals;
mod registry;
pub mod remote;
pub mod state;
#[cfg(test)]
mod tests;

pub use registry::{ActivePolicy, RateLimits};

use crate::config::Rule;

/// What is said to a call. Times are microseconds from the time that the caller gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Refused.
    pub limited: bool,
    /// Permits that an idle key has.
    pub limit: u64,
    /// Permits that are left.
    pub remaining: u64,
    /// When the same call would be admitted if nothing else came; `None` if it is, or never would be.
    pub retry_after: Option<u64>,
    /// When all permits will be back if nothing else comes.
    pub reset_after: u64,
}

/// A call: how many permits it wants, and who it says it is.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The time in microseconds.
    pub now: u64,
    /// Permits; with 0, all rules are looked at and nothing is refused.
    pub cost: u64,
    /// The same identifier within the window is counted once.
    pub id: Option<&'a [u8]>,
}

impl Verdict {
    /// Whether this verdict says more of what is to come than another: it refuses, for longer; or it leaves less.
    fn outweighs(&self, other: &Self) -> bool {
        if self.limited != other.limited {
            return self.limited;
        }
        if self.limited {
            return match (self.retry_after, other.retry_after) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(this), Some(that)) => this > that,
            };
        }
        self.remaining < other.remaining
    }

    /// The one that outweighs the others, with its place.
    pub fn strongest(verdicts: impl IntoIterator<Item = Self>) -> Option<(usize, Self)> {
        verdicts
            .into_iter()
            .enumerate()
            .reduce(|best, next| if next.1.outweighs(&best.1) { next } else { best })
    }
}

/// The longest window of several rules.
fn longest(rules: &[Rule]) -> u64 {
    rules.iter().map(|rule| rule.window_us).max().unwrap_or(0)
}
