//! What the database has yet to get, in memory: records in the order of their sequences, and each key's latest state.
//!
//! Invariants:
//! - A record's changes stay together, and records leave from the front: a batch is a prefix, so the order of each key
//!   holds, and a transaction lands whole.
//! - A key is here exactly as long as its latest state is not in the database: so it is pinned, and its state is found.
//! - A single change of a key that waits already takes the place of the state that waits (not once a batch has it), or is
//!   put on top of it if it is of single columns: a hot key costs one state, however often it is written.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

use smallvec::SmallVec;

use super::store::{Batch, RowChange, RowState};
use crate::clock;

struct Record {
    sequences: SmallVec<[u64; 2]>,
    changes: Vec<RowChange>,
    accepted: Instant,
}

#[derive(Clone, Copy)]
struct Latest {
    slot: u64,
    index: usize,
    version: i64,
}

/// The records.
#[derive(Default)]
pub struct Backlog {
    queue: VecDeque<Record>,
    /// The slot of the queue's first record: so many are done.
    base: u64,
    /// Records at the front that a batch has.
    taken: usize,
    latest: HashMap<Box<[u8]>, Latest, ahash::RandomState>,
    changes: usize,
}

/// A prefix of the queue, each key once.
pub struct Taken {
    /// The changes.
    pub batch: Batch,
    /// The records.
    pub records: usize,
}

impl Backlog {
    /// Adds what a record of the journal says.
    pub fn push(&mut self, sequence: u64, changes: Vec<RowChange>) {
        if let [change] = &changes[..]
            && let Some(latest) = self.latest.get_mut(&change.key)
            && latest.slot >= self.base + self.taken as u64
        {
            let record = &mut self.queue[(latest.slot - self.base) as usize];
            record.sequences.push(sequence);
            latest.version = change.version;
            for change in changes {
                let waiting = &mut record.changes[latest.index];
                let before = std::mem::replace(&mut waiting.state, RowState::Absent);
                *waiting = RowChange { state: before.then(change.state), ..change };
            }
            return;
        }
        let slot = self.end();
        for (index, change) in changes.iter().enumerate() {
            self.latest.insert(change.key.clone(), Latest { slot, index, version: change.version });
        }
        self.changes += changes.len();
        let accepted = clock::monotonic();
        self.queue.push_back(Record { sequences: SmallVec::from_slice(&[sequence]), changes, accepted });
    }

    /// The slot of the next record: what is accepted now is done once [`Self::done`] has reached it.
    pub fn end(&self) -> u64 {
        self.base + self.queue.len() as u64
    }

    /// How many records are done.
    pub fn done(&self) -> u64 {
        self.base
    }

    /// How many changes wait.
    pub fn depth(&self) -> usize {
        self.changes
    }

    /// When the oldest record was accepted.
    pub fn oldest(&self) -> Option<Instant> {
        self.queue.front().map(|record| record.accepted)
    }

    /// Whether the key's latest state is not in the database yet.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.latest.contains_key(key)
    }

    /// The key's latest state, if it is not in the database yet.
    pub fn state(&self, key: &[u8]) -> Option<&RowState> {
        let latest = self.latest.get(key)?;
        Some(&self.queue[(latest.slot - self.base) as usize].changes[latest.index].state)
    }

    /// Takes records from the front, of about so many changes.
    pub fn take(&mut self, most: usize) -> Taken {
        let (mut records, mut count) = (0, 0);
        for record in &self.queue {
            if records > 0 && count + record.changes.len() > most {
                break;
            }
            records += 1;
            count += record.changes.len();
        }
        self.taken = records;
        let mut batch: Vec<RowChange> = Vec::with_capacity(count);
        let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(count);
        for change in self.queue.iter().take(records).flat_map(|record| &record.changes) {
            match places.get(&*change.key) {
                Some(place) => {
                    let earlier = &mut batch[*place];
                    let before = std::mem::replace(&mut earlier.state, RowState::Absent);
                    earlier.state = before.then(change.state.clone());
                    earlier.version = change.version;
                }
                None => {
                    places.insert(&change.key, batch.len());
                    batch.push(change.clone());
                }
            }
        }
        Taken { batch: Batch { changes: batch }, records }
    }

    /// The taken records are in the database or given up; tells of keys that have nothing waiting any more, and returns
    /// the sequences.
    pub fn finish(&mut self, mut settled: impl FnMut(&[u8])) -> Vec<u64> {
        let mut sequences = Vec::new();
        for record in self.queue.drain(..std::mem::take(&mut self.taken)) {
            self.base += 1;
            self.changes -= record.changes.len();
            sequences.extend(record.sequences);
            for change in record.changes {
                if self.latest.get(&change.key).is_some_and(|latest| latest.version == change.version) {
                    self.latest.remove(&change.key);
                    settled(&change.key);
                }
            }
        }
        sequences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, version: i64) -> RowChange {
        let state = RowState::Value(version.to_string().into_bytes());
        RowChange { rule: 0, key: key.as_bytes().into(), version, state }
    }

    fn versions(taken: &Taken) -> Vec<i64> {
        taken.batch.changes.iter().map(|change| change.version).collect()
    }

    #[test]
    fn a_hot_key_costs_one_state_and_completes_all_its_sequences() {
        let mut backlog = Backlog::default();
        (1..=3).for_each(|version| backlog.push(version, vec![change("a", version as i64)]));
        assert_eq!((backlog.depth(), backlog.end()), (1, 1));
        let taken = backlog.take(10);
        assert_eq!(versions(&taken), [3]);
        // A batch has it: what comes now is another record.
        backlog.push(4, vec![change("a", 4)]);
        assert_eq!(backlog.state(b"a"), Some(&RowState::Value(b"4".to_vec())));
        assert_eq!(backlog.finish(|_| ()), [1, 2, 3]);
        assert!(backlog.contains(b"a"));
        assert_eq!(versions(&backlog.take(10)), [4]);
        assert_eq!(backlog.finish(|_| ()), [4]);
        assert!(!backlog.contains(b"a"));
        assert_eq!((backlog.depth(), backlog.done()), (0, 2));
    }

    #[test]
    fn a_transaction_is_never_split_and_the_last_state_wins() {
        let mut backlog = Backlog::default();
        backlog.push(1, vec![change("a", 1)]);
        backlog.push(2, vec![change("a", 2), change("b", 2), change("c", 2)]);
        backlog.push(3, vec![change("b", 3)]);
        assert_eq!(versions(&backlog.take(2)), [1]);
        assert_eq!(backlog.finish(|_| ()), [1]);
        assert_eq!(versions(&backlog.take(2)), [2, 3, 2]);
        assert_eq!(backlog.finish(|_| ()), [2, 3]);
    }

    #[test]
    fn one_batch_has_each_key_once() {
        let mut backlog = Backlog::default();
        backlog.push(1, vec![change("a", 1)]);
        backlog.push(2, vec![change("a", 2), change("b", 2)]);
        assert_eq!(versions(&backlog.take(100)), [2, 2]);
        assert_eq!(backlog.finish(|_| ()), [1, 2]);
        assert_eq!(backlog.depth(), 0);
    }
}
