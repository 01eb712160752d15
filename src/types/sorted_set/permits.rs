//! A sorted set as the log of a rate limiter: one member a permit, its score the time in microseconds.
//!
//! What the limiter writes is in the form of a [`Log`] until something else is put in or a member is taken out of the
//! middle; then it is a sorted set like any other, and the limiter goes on with it. Members that somebody else added
//! count as permits given at the time that is their score.

use super::log::{Log, first_number};
use super::{Form, Limits, SortedSet};
use crate::types::listpack::NumBuf;

/// The latest time that a score holds to the microsecond.
const LATEST: f64 = 9_007_199_254_740_992.0;

fn time_of(score: f64) -> u64 {
    score.clamp(0.0, LATEST) as u64
}

/// The member of one of the permits that a call with an identifier took.
fn member_of(id: &[u8], index: u64) -> Vec<u8> {
    [format!("id:{index}:").as_bytes(), id].concat()
}

impl SortedSet {
    /// The log that it is, if it holds permits and nothing else.
    #[inline]
    pub fn as_log(&mut self) -> Option<&mut Log> {
        if let Form::Log(log) = &mut self.0 { Some(log) } else { None }
    }

    /// When the permit of a rank, the oldest first, was given.
    #[inline]
    pub fn permit(&self, rank: usize) -> Option<u64> {
        match &self.0 {
            Form::Log(log) => (rank < log.len()).then(|| log.time(rank)),
            _ => self.iter(rank, false).next().map(|(_, score)| time_of(score)),
        }
    }

    /// When the newest was given.
    #[inline]
    pub fn newest_permit(&self) -> Option<u64> {
        match &self.0 {
            Form::Log(log) => log.newest_time(),
            _ => self.iter(self.len().checked_sub(1)?, true).next().map(|(_, score)| time_of(score)),
        }
    }

    /// How many were given up to a time, that time included.
    #[inline]
    pub fn permits_until(&self, time: u64) -> usize {
        match &self.0 {
            Form::Log(log) => log.count_until(time),
            _ => self.rank_where(|score, _| time_of(score) <= time),
        }
    }

    /// When a call with this identifier took the first of its permits, if it is still there.
    pub fn permit_of(&self, id: &[u8]) -> Option<u64> {
        match &self.0 {
            Form::Log(_) => None,
            _ => self.score(&member_of(id, 0)).map(time_of),
        }
    }

    /// Adds permits given at `time`, which is not before the newest's; with an identifier, in its name. `most` is how many
    /// there will be at a time, mostly.
    pub fn add_permits(&mut self, time: u64, count: u64, most: u64, id: Option<&[u8]>, limits: &Limits) {
        if id.is_none() && self.is_empty() && !matches!(self.0, Form::Log(_)) {
            self.0 = Form::Log(Log::new(time));
        }
        if let (Form::Log(log), None) = (&mut self.0, id) {
            return log.push(time, count as usize, most as usize);
        }
        let mut number = first_number(time);
        for index in 0..count {
            if let Some(id) = id {
                self.insert(&member_of(id, index), time as f64, limits);
                continue;
            }
            let mut buffer = NumBuf::new();
            while self.score(buffer.format(number as i64)).is_some() {
                number += 1;
            }
            self.insert(buffer.format(number as i64), time as f64, limits);
            number += 1;
        }
    }

    /// Takes the oldest permits out.
    #[inline]
    pub fn drop_oldest_permits(&mut self, count: usize) {
        match &mut self.0 {
            Form::Log(log) => log.drop_oldest(count),
            _ => drop(self.remove_ranks(0..count, |_, _| ())),
        }
    }

    /// Takes the newest permits out, as many as there are; returns how many there were.
    pub fn drop_newest_permits(&mut self, count: u64) -> u64 {
        let len = self.len();
        let count = count.min(len as u64);
        self.remove_ranks(len - count as usize..len, |_, _| ());
        count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Bounds, LexBound, ScoreBound};
    use super::*;

    const LIMITS: Limits = Limits { entries: 8, value: 64 };

    fn contents(set: &SortedSet) -> Vec<(Vec<u8>, f64)> {
        set.iter(0, false).map(|(member, score)| (member.to_vec(), score)).collect()
    }

    proptest! {
        /// Whatever is done to a log, it reads as an ordinary sorted set of the same members does.
        #[test]
        fn a_log_is_a_sorted_set(
            steps in prop::collection::vec((0u8..12, 0u64..4, 0usize..40), 1..120),
        ) {
            let (mut log, mut plain) = (SortedSet::default(), SortedSet::default());
            let mut time = 1_700_000_000_000_000;
            for (kind, count, at) in steps {
                // Now and then farther than four bytes reach.
                time += if at == 39 { 1 << 32 } else { count * 3 };
                match kind {
                    0..7 => {
                        let before = contents(&log);
                        log.add_permits(time, count, at as u64, None, &LIMITS);
                        for (member, score) in contents(&log) {
                            plain.insert(&member, score, &LIMITS);
                        }
                        prop_assert_eq!(contents(&log).len(), before.len() + count as usize);
                    }
                    7 => {
                        let dropped = (count as usize).min(log.len());
                        log.drop_oldest_permits(dropped);
                        plain.remove_ranks(0..dropped, |_, _| ());
                    }
                    8 => {
                        let dropped = log.drop_newest_permits(count) as usize;
                        let len = plain.len();
                        plain.remove_ranks(len - dropped..len, |_, _| ());
                    }
                    9 => {
                        let member = format!("foreign{at}");
                        let score = time as f64 - 20.0;
                        prop_assert_eq!(
                            log.insert(member.as_bytes(), score, &LIMITS),
                            plain.insert(member.as_bytes(), score, &LIMITS)
                        );
                    }
                    10 => if let Some((member, _)) = contents(&plain).get(at).cloned() {
                        prop_assert_eq!(log.remove(&member), plain.remove(&member));
                    },
                    _ => {
                        let range = at.min(log.len())..(at + count as usize).min(log.len());
                        let (mut seen, mut expected) = (Vec::new(), Vec::new());
                        log.remove_ranks(range.clone(), |member, score| seen.push((member.to_vec(), score)));
                        plain.remove_ranks(range, |member, score| expected.push((member.to_vec(), score)));
                        prop_assert_eq!(seen, expected);
                    }
                }
                log.relocate(&|_| kind % 2 == 0);
                let members = contents(&plain);
                prop_assert_eq!(contents(&log), members.clone());
                prop_assert_eq!(contents(&log.clone()), members.clone());
                for (rank, (member, score)) in members.iter().enumerate() {
                    prop_assert_eq!(log.rank(member, false), Some((rank, *score)));
                    prop_assert_eq!(log.rank(member, true), Some((members.len() - 1 - rank, *score)));
                    prop_assert_eq!(log.score(member), Some(*score));
                    prop_assert_eq!(log.iter(rank, true).count(), rank + 1);
                    let low = ScoreBound { score: *score, exclusive: count % 2 == 0 };
                    let high = ScoreBound { score: *score + 5.0, exclusive: false };
                    let bounds = Bounds::Score(low, high);
                    prop_assert_eq!(log.ranks_within(&bounds), plain.ranks_within(&bounds));
                    let bounds = Bounds::Lex(LexBound::Included(member), LexBound::Max);
                    if matches!(log.0, Form::Log(_)) {
                        prop_assert_eq!(log.ranks_within(&bounds), rank..members.len());
                    }
                }
                let mut scanned = Vec::new();
                let mut cursor = 0;
                loop {
                    cursor = log.scan(cursor, |member, score| scanned.push((member.to_vec(), score)));
                    if cursor == 0 { break }
                }
                scanned.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.0.cmp(&b.0)));
                prop_assert_eq!(scanned, members);
            }
        }
    }

    #[test]
    fn a_full_log_takes_about_four_bytes_a_permit() {
        let mut set = SortedSet::default();
        for time in 0..100_000 {
            set.add_permits(time, 1, u64::MAX, None, &LIMITS);
        }
        assert!(set.memory() < 100_000 * 5, "{}", set.memory());
        set.drop_oldest_permits(99_990);
        assert!(set.memory() < 1000, "{}", set.memory());
        assert_eq!((set.len(), set.permit(0), set.newest_permit()), (10, Some(99_990), Some(99_999)));
    }

    #[test]
    fn foreign_scores_are_taken_as_times() {
        let mut set = SortedSet::default();
        for score in [f64::NEG_INFINITY, -1.0, 2.5, 1e18, f64::INFINITY] {
            set.insert(score.to_string().as_bytes(), score, &LIMITS);
        }
        assert_eq!((set.permit(0), set.permit(2), set.newest_permit()), (Some(0), Some(2), Some(1 << 53)));
        assert_eq!((set.permits_until(1), set.permits_until(2), set.permits_until(u64::MAX)), (2, 3, 5));
    }

    #[test]
    fn identifiers_do_not_run_into_each_other() {
        let mut set = SortedSet::default();
        set.add_permits(5, 2, 9, Some(b"a"), &LIMITS);
        set.add_permits(6, 1, 9, Some(b"1:a"), &LIMITS);
        set.add_permits(6, 3, 9, None, &LIMITS);
        assert_eq!((set.len(), set.permit_of(b"a"), set.permit_of(b"1:a")), (6, Some(5), Some(6)));
        assert_eq!(set.permit_of(b"b"), None);
    }
}
