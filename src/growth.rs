//! Which keys only grow in number and never expire: what `MEMORY DOCTOR` names.
//!
//! Once a minute a bounded part of the keyspace is looked at, and keys are counted by their prefix. Keys are spread
//! over the shards evenly, so some whole shards stand for all of them.

use std::collections::{HashMap, VecDeque};

use crate::tiers::local::View;

/// Keys looked at in one observation, about.
const BUDGET: usize = 20_000;
/// Observations kept: an hour of them.
const MAX_OBSERVATIONS: usize = 60;
/// Prefixes counted in one observation.
const MAX_PREFIXES: usize = 1000;
/// The longest prefix that is told from others.
const MAX_PREFIX: usize = 64;
/// Fewer keys than this are no leak.
const MIN_KEYS: usize = 100;

/// How many keys of each prefix there were.
#[derive(Debug, Default)]
struct Observation {
    /// Unix time in seconds.
    time: u64,
    prefixes: HashMap<Box<[u8]>, Tally>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    keys: usize,
    volatile: usize,
    bytes: usize,
}

/// A prefix whose keys grow in number and never expire.
#[derive(Debug, PartialEq, Eq)]
pub struct Growth {
    /// The prefix.
    pub prefix: Box<[u8]>,
    /// About how many keys it has.
    pub keys: usize,
    /// How many it had at first.
    pub keys_before: usize,
    /// About how many bytes they take.
    pub bytes: usize,
    /// Seconds between the two.
    pub seconds: u64,
}

/// The last observations.
#[derive(Debug, Default)]
pub struct GrowthMonitor {
    observations: VecDeque<Observation>,
}

impl GrowthMonitor {
    /// Looks at the keyspace, a few keys at a time under lock.
    pub fn observe(&mut self, view: &mut View<'_>, time: u64) {
        let mut observation = Observation { time, ..Observation::default() };
        view.sample(BUDGET, |key, info, stands_for| {
            let tally = Tally {
                keys: stands_for,
                volatile: usize::from(info.deadline.is_some()) * stands_for,
                bytes: info.memory * stands_for,
            };
            observation.count(prefix(key), tally);
        });
        self.push(observation);
    }

    fn push(&mut self, observation: Observation) {
        if self.observations.len() == MAX_OBSERVATIONS {
            self.observations.pop_front();
        }
        self.observations.push_back(observation);
    }

    /// The prefixes that never shrank, that still grow, and of which no key expires; largest first.
    pub fn growing(&self) -> Vec<Growth> {
        let (Some(first), Some(last)) = (self.observations.front(), self.observations.back()) else {
            return Vec::new();
        };
        let count = self.observations.len();
        let middle = &self.observations[(count / 2).min(count.saturating_sub(2))];
        let mut growing: Vec<Growth> = last
            .prefixes
            .iter()
            .filter(|(_, tally)| tally.volatile == 0 && tally.keys >= MIN_KEYS)
            .filter_map(|(prefix, tally)| {
                let counts = || self.observations.iter().map(|other| other.keys_of(prefix));
                // A sample is not exact: a little less may be as much.
                let never_shrank =
                    counts().zip(counts().skip(1)).all(|(before, after)| after + after / 16 >= before);
                let (before, lately) = (first.keys_of(prefix), middle.keys_of(prefix));
                let grows = tally.keys > before + before / 8 && tally.keys > lately + lately / 16;
                (never_shrank && grows).then(|| Growth {
                    prefix: prefix.clone(),
                    keys: tally.keys,
                    keys_before: before,
                    bytes: tally.bytes,
                    seconds: last.time.saturating_sub(first.time),
                })
            })
            .collect();
        growing.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.prefix.cmp(&b.prefix)));
        growing
    }
}

impl Observation {
    fn keys_of(&self, prefix: &[u8]) -> usize {
        self.prefixes.get(prefix).map_or(0, |tally| tally.keys)
    }

    fn count(&mut self, prefix: &[u8], tally: Tally) {
        if !self.prefixes.contains_key(prefix) {
            if self.prefixes.len() == MAX_PREFIXES {
                return;
            }
            self.prefixes.insert(prefix.into(), Tally::default());
        }
        if let Some(sum) = self.prefixes.get_mut(prefix) {
            sum.keys += tally.keys;
            sum.volatile += tally.volatile;
            sum.bytes += tally.bytes;
        }
    }
}

/// What keys of a kind have in common: all up to the first part that has a digit in it, or to the last part.
fn prefix(key: &[u8]) -> &[u8] {
    let is_separator = |byte: &u8| matches!(byte, b':' | b'/' | b'.' | b'|' | b'-' | b'_');
    let key = &key[..key.len().min(MAX_PREFIX)];
    let first_digit = key.iter().position(u8::is_ascii_digit).unwrap_or(key.len());
    key[..first_digit].iter().rposition(is_separator).map_or(&[], |at| &key[..=at])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(time: u64, counts: &[(&str, usize, usize)]) -> Observation {
        let mut observation = Observation { time, ..Observation::default() };
        for (prefix, keys, volatile) in counts {
            observation
                .count(prefix.as_bytes(), Tally { keys: *keys, volatile: *volatile, bytes: keys * 50 });
        }
        observation
    }

    #[test]
    fn prefixes_end_before_what_differs() {
        for (key, expected) in [
            ("user:123:name", "user:"),
            ("shop:cart:ab12", "shop:cart:"),
            ("session:abcdef", "session:"),
            ("cache/page/home", "cache/page/"),
            ("plain", ""),
            ("12345", ""),
            ("", ""),
        ] {
            assert_eq!(prefix(key.as_bytes()), expected.as_bytes(), "{key}");
        }
    }

    #[test]
    fn only_what_always_grows_is_named() {
        let mut monitor = GrowthMonitor::default();
        assert_eq!(monitor.growing(), []);
        for round in 1..=4 {
            monitor.push(observed(
                round * 60,
                &[
                    ("leak:", 1000 * round as usize, 0),
                    ("session:", 1000 * round as usize, 900 * round as usize),
                    ("stable:", 5000, 0),
                    ("loaded:", if round == 1 { 0 } else { 3000 }, 0),
                    ("wave:", if round == 3 { 10 } else { 1000 * round as usize }, 0),
                    ("few:", 10 * round as usize, 0),
                ],
            ));
        }
        let expected = Growth {
            prefix: b"leak:"[..].into(),
            keys: 4000,
            keys_before: 1000,
            bytes: 200_000,
            seconds: 180,
        };
        assert_eq!(monitor.growing(), [expected]);
    }
}
