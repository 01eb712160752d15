//! Limits that another Redis decides on: the scripts that it runs, what they are asked, and what their replies say.
//!
//! A script decides, atomically, and replies with what it decided from. The figures of the reply are then computed here,
//! by the code that decides on limits of this host, so both say the same; a reply that the two disagree on is none.
//! States have the same form in both places. Times are the other Redis's, so that no host's clock matters.

use smallvec::SmallVec;

use super::leases::Leftover;
use super::state::{self, State};
use super::{Call, Verdict, log};
use crate::config::{Algorithm, Rule};

/// Takes permits of logs.
pub const LOG: &str = concat!(include_str!("head.lua"), include_str!("log.lua"));
/// Takes permits of a `counter` or `gcra`.
pub const STATE: &str = concat!(include_str!("head.lua"), include_str!("state.lua"));
/// Gives permits back.
pub const REFUND: &str = concat!(include_str!("head.lua"), include_str!("refund.lua"));
/// Gives back what is left of a lease.
pub const GIVE_BACK: &str = concat!(include_str!("head.lua"), include_str!("give_back.lua"));
/// Forgets permits.
pub const RESET: &str = concat!(include_str!("head.lua"), include_str!("reset.lua"));

/// Permits of one call to a log, each of which the script adds as a member.
pub const MAX_LOG_COST: u64 = 10_000;

/// A number that scripts hold exactly and no limit reaches.
const BEYOND: u64 = 1 << 52;

/// One part of a script's reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field<'a> {
    /// A number.
    Integer(i64),
    /// A text.
    Bytes(&'a [u8]),
}

/// What is asked of limits that another Redis keeps.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// How they count.
    pub algorithm: Algorithm,
    /// The limits, each with the place of its key.
    pub limits: SmallVec<[(usize, Rule); 1]>,
    /// Permits.
    pub cost: u64,
    /// The same identifier within the window is counted once.
    pub id: Option<&'a [u8]>,
    /// Whether permits are taken; else they are looked at.
    pub takes: bool,
    /// For how many microseconds what `gcra` takes may be used later than it was taken.
    pub hold_us: u64,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The verdict that counts.
    pub verdict: Verdict,
    /// The place of the limit it is of.
    pub limit: usize,
    /// The time as of which it was decided.
    pub now: u64,
}

impl Question<'_> {
    /// The script that decides.
    pub fn script(&self) -> &'static str {
        if self.algorithm == Algorithm::Log { LOG } else { STATE }
    }

    /// The script's arguments behind the keys. It reads the clock itself unless a time is given.
    pub fn arguments(&self, now: Option<u64>) -> Vec<Vec<u8>> {
        let number = |number: u64| number.to_string().into_bytes();
        let mut arguments = vec![now.map(number).unwrap_or_default()];
        let takes = if self.takes { b"1".to_vec() } else { b"0".to_vec() };
        if self.algorithm == Algorithm::Log {
            arguments.push(number(self.cost.min(BEYOND)));
            arguments.push(if self.id.is_some() { b"1".to_vec() } else { b"0".to_vec() });
            arguments.push(self.id.unwrap_or_default().to_vec());
            arguments.push(takes);
            for (key, rule) in &self.limits {
                arguments.extend([number(*key as u64 + 1), number(rule.limit), number(rule.window_us)]);
            }
            return arguments;
        }
        let is_gcra = self.algorithm == Algorithm::Gcra;
        arguments.push(if is_gcra { b"g".to_vec() } else { b"c".to_vec() });
        arguments.push(self.id.map(|id| state::hash_of(id).to_le_bytes().to_vec()).unwrap_or_default());
        arguments.extend([takes, number(self.cost.min(BEYOND)), number(self.hold_us)]);
        for (_, rule) in &self.limits {
            let interval = if is_gcra { rule.interval_ns } else { 0 };
            let most = interval.saturating_mul(rule.capacity);
            // What is beyond the capacity is refused, however far.
            let moved = interval.saturating_mul(self.cost).min(most + interval);
            arguments.extend([number(rule.window_us), number(rule.limit)]);
            arguments
                .extend([moved, most].iter().flat_map(|nanos| [number(nanos / 1000), number(nanos % 1000)]));
            arguments.push(interval.to_le_bytes().to_vec());
        }
        arguments
    }

    /// What the script's reply says; `None` if that makes no sense.
    pub fn answer(&self, reply: &[Field<'_>]) -> Option<Answer> {
        let [Field::Integer(now), Field::Integer(repeated), Field::Integer(refused), facts @ ..] = reply
        else {
            return None;
        };
        let now = u64::try_from(*now).ok()?;
        let cost = if *repeated == 1 { 0 } else { self.cost };
        let (verdict, limit) = self.verdict(facts, now, cost)?;
        if verdict.limited != (*refused == 1) {
            return None;
        }
        if self.takes {
            return Some(Answer { verdict, limit, now });
        }
        // What is left before the call, and what the call would be told.
        let (before, limit) = self.verdict(facts, now, 0)?;
        let verdict = Verdict { limited: verdict.limited, retry_after: verdict.retry_after, ..before };
        Some(Answer { verdict, limit, now })
    }

    fn verdict(&self, facts: &[Field<'_>], now: u64, cost: u64) -> Option<(Verdict, usize)> {
        if self.algorithm != Algorithm::Log {
            let [Field::Bytes(bytes)] = facts else { return None };
            let state = if bytes.is_empty() { None } else { Some(State::parse(bytes)?) };
            let rules: SmallVec<[Rule; 4]> = self.limits.iter().map(|(_, rule)| *rule).collect();
            let call = Call { now, cost, id: None };
            return Some((state::decide(state.as_ref(), self.algorithm, &rules, &call).verdict, 0));
        }
        if facts.len() != self.limits.len() * 3 {
            return None;
        }
        let mut verdicts: SmallVec<[Verdict; 4]> = SmallVec::new();
        for ((_, rule), facts) in self.limits.iter().zip(facts.chunks_exact(3)) {
            let [Field::Integer(count), Field::Integer(pivot), Field::Integer(newest)] = facts else {
                return None;
            };
            let (pivot, newest) = (u64::try_from(*pivot).ok(), u64::try_from(*newest).ok());
            let time = newest.map_or(now, |newest| newest.max(now));
            let count = u64::try_from(*count).ok()?;
            verdicts.push(log::verdict(rule, count, newest, time, now, cost, |_| pivot));
        }
        Verdict::strongest(verdicts).map(|(limit, verdict)| (verdict, limit))
    }
}

impl Leftover {
    /// The arguments of [`GIVE_BACK`].
    pub fn arguments(&self) -> Vec<Vec<u8>> {
        let number = |number: u64| number.to_string().into_bytes();
        let (taken, used, since) = (number(self.taken), number(self.used), number(self.since_us));
        vec![Vec::new(), taken, used, self.id.clone(), since, number(self.terms.hold_us())]
    }
}
