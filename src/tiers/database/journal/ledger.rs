//! Which records are complete, in whatever order they became so, and up to where all are: the mark.
//!
//! A bit for each record beyond the mark, in chunks that exist only where something is complete.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Sequence;

const WORDS: usize = 64;
const CHUNK: u64 = WORDS as u64 * 64;

/// How far apart times are kept.
const AGE_STEP: Duration = Duration::from_millis(100);
/// How many times are kept; beyond it every other is forgotten.
const MAX_AGES: usize = 4096;

/// The completeness of records.
#[derive(Default)]
pub struct Ledger {
    mark: Sequence,
    /// The last sequence that was registered at the start.
    end: Sequence,
    /// Sequences beyond the mark that no record has: first and last.
    gaps: VecDeque<(Sequence, Sequence)>,
    chunks: BTreeMap<u64, Box<[u64; WORDS]>>,
    /// The sequence from which on records were accepted at this time.
    ages: VecDeque<(Sequence, Instant)>,
    registered: u64,
    completed: u64,
}

impl Ledger {
    /// Everything up to this mark is complete.
    pub fn new(mark: Sequence) -> Self {
        Self { mark, end: mark, ..Self::default() }
    }

    /// A record that was replayed; ascending. Those left out do not exist.
    pub fn register(&mut self, sequence: Sequence) {
        self.skip_to(sequence);
        self.end = sequence;
        self.registered += 1;
    }

    /// The records from here on are appended one after the other.
    pub fn skip_to(&mut self, next: Sequence) {
        if next > self.end + 1 {
            self.gaps.push_back((self.end + 1, next - 1));
            self.end = next - 1;
        }
        self.advance();
    }

    /// Everything up to here is complete.
    pub fn mark(&self) -> Sequence {
        self.mark
    }

    /// Records replayed and not complete, less records appended and complete.
    pub fn balance(&self) -> i64 {
        self.registered as i64 - self.completed as i64
    }

    /// This record is complete. Said twice, it counts once.
    pub fn complete(&mut self, sequence: Sequence) {
        if sequence <= self.mark || self.gaps.iter().any(|gap| (gap.0..=gap.1).contains(&sequence)) {
            return;
        }
        let (word, bit) = place(sequence);
        let chunk = self.chunks.entry(sequence / CHUNK).or_insert_with(|| Box::new([0; WORDS]));
        if chunk[word] & bit == 0 {
            chunk[word] |= bit;
            self.completed += 1;
        }
    }

    /// Moves the mark up to the first record that is not complete.
    pub fn advance(&mut self) {
        loop {
            let next = self.mark + 1;
            if let Some((_, end)) = self.gaps.front().copied().filter(|gap| gap.0 == next) {
                self.mark = end;
                self.gaps.pop_front();
                continue;
            }
            if let Some(first) = self.chunks.first_entry().filter(|first| *first.key() < next / CHUNK) {
                first.remove();
                continue;
            }
            let Some(chunk) = self.chunks.get(&(next / CHUNK)) else { break };
            let (word, bit) = place(next);
            let complete = (chunk[word] >> bit.trailing_zeros()).trailing_ones();
            if complete == 0 {
                break;
            }
            self.mark += u64::from(complete);
        }
    }

    /// Records from here on were accepted now.
    pub fn note_time(&mut self, first: Sequence, now: Instant) {
        if self.ages.back().is_some_and(|last| now.saturating_duration_since(last.1) < AGE_STEP) {
            return;
        }
        self.ages.push_back((first, now));
        if self.ages.len() > MAX_AGES {
            let mut index = 0;
            self.ages.retain(|_| {
                index += 1;
                index % 2 == 1
            });
        }
    }

    /// The first record that is not complete, of those before `next`, and when it was accepted.
    pub fn oldest(&mut self, next: Sequence) -> Option<(Sequence, Option<Instant>)> {
        let oldest = self.mark + 1;
        while self.ages.get(1).is_some_and(|second| second.0 <= oldest) {
            self.ages.pop_front();
        }
        (oldest < next).then(|| (oldest, self.ages.front().map(|age| age.1)))
    }
}

fn place(sequence: Sequence) -> (usize, u64) {
    ((sequence % CHUNK / 64) as usize, 1 << (sequence % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_gap_is_passed_and_what_is_not_complete_is_not() {
        let mut ledger = Ledger::new(3);
        ledger.register(4);
        ledger.register(10);
        ledger.skip_to(1 << 33);
        assert_eq!(ledger.mark(), 3);
        ledger.complete(10);
        ledger.complete(7);
        ledger.advance();
        assert_eq!((ledger.mark(), ledger.balance()), (3, 1));
        ledger.complete(4);
        ledger.advance();
        assert_eq!((ledger.mark(), ledger.balance()), ((1 << 33) - 1, 0));
        assert_eq!(ledger.oldest(1 << 33), None);
        ledger.complete(1 << 33);
        ledger.advance();
        assert_eq!(ledger.mark(), 1 << 33);
        assert_eq!(ledger.chunks.len(), 1);
    }

    #[test]
    fn times_stay_few_and_never_make_a_record_younger() {
        let (mut ledger, start) = (Ledger::new(0), crate::clock::monotonic());
        for step in 0..100_000u32 {
            ledger.note_time(u64::from(step) + 1, start + AGE_STEP * step);
        }
        assert!(ledger.ages.len() <= MAX_AGES);
        (1..=50_000).for_each(|sequence| ledger.complete(sequence));
        ledger.advance();
        let (oldest, accepted) = ledger.oldest(100_001).unwrap();
        assert_eq!(oldest, 50_001);
        assert!(accepted.unwrap() <= start + AGE_STEP * 50_000);
    }

    proptest! {
        #[test]
        fn the_mark_is_before_the_first_that_is_missing(
            start in 0u64..10_000,
            order in Just((1u64..9_000).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let mut ledger = Ledger::new(start);
            let mut open: BTreeSet<u64> = order.iter().map(|offset| start + offset).collect();
            for (index, offset) in order.into_iter().enumerate() {
                ledger.complete(start + offset);
                open.remove(&(start + offset));
                if index % 64 == 0 || open.len() < 10 {
                    ledger.advance();
                    prop_assert_eq!(ledger.mark() + 1, open.first().copied().unwrap_or(start + 9_000));
                }
            }
            prop_assert!(ledger.chunks.len() <= 1);
        }
    }
}
