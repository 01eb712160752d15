//! What the database has yet to get, in memory: records in the order of their sequences, and each key's latest state.
//!
//! Invariants:
//! - Each table has a line of its own, so that one that is locked holds up no other. A record stands in the lines of all
//!   tables that it concerns, and leaves when it is at the front of all of them: a batch is a prefix of its lines, and a
//!   line is in one batch at a time, so the order of each key holds, and a transaction lands whole.
//! - A key is here exactly as long as its latest state is not in the database: so it is pinned, and its state is found.
//! - A single change of a key that waits already takes the place of the state that waits (not once a batch has it), or is
//!   put on top of it if it is of single columns: a hot key costs one state, however often it is written.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use super::rules::Rules;
use super::store::{Batch, RowChange, RowState};
use crate::clock;

/// Changes beyond this many bytes are left for the next batch: what a connection buffers it keeps.
const MOST_BYTES: usize = 4 << 20;

struct Record {
    sequences: SmallVec<[u64; 2]>,
    changes: Vec<RowChange>,
    accepted: Instant,
    /// The lines that it stands in.
    lines: SmallVec<[usize; 2]>,
    /// Whether a batch has it.
    is_taken: bool,
}

/// What waits for one table: slots of records.
#[derive(Default)]
struct Line {
    queue: VecDeque<u64>,
    changes: usize,
    /// Whether a batch has its front.
    is_under_way: bool,
}

#[derive(Clone, Copy)]
struct Latest {
    slot: u64,
    index: usize,
    version: i64,
}

/// The records.
pub struct Backlog {
    /// The line of each rule.
    line_of: Vec<usize>,
    lines: Vec<Line>,
    records: HashMap<u64, Record, ahash::RandomState>,
    /// The slot of the next record.
    next: u64,
    latest: HashMap<Box<[u8]>, Latest, ahash::RandomState>,
    changes: usize,
    under_way: usize,
}

/// From when on a line's front is to go to the database.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    /// So many changes are a batch.
    pub batch_size: usize,
    /// The oldest may wait so long.
    pub interval: Duration,
    /// Records before this slot go at once.
    pub hurry: u64,
    /// All do.
    pub at_once: bool,
}

/// A prefix of some lines, each key once.
pub struct Taken {
    /// The changes.
    pub batch: Batch,
    slots: Vec<u64>,
    /// How many records of which line.
    lines: Vec<(usize, usize)>,
}

impl Backlog {
    /// An empty one, for these rules.
    pub fn new(rules: &Rules) -> Self {
        let mut tables: Vec<&str> = Vec::new();
        let line = |rule: &'_ super::rules::Rule| rule.table().to_owned();
        let names: Vec<String> = rules.all().iter().map(line).collect();
        let mut line_of = Vec::with_capacity(names.len());
        for name in &names {
            let known = tables.iter().position(|table| table == name);
            line_of.push(known.unwrap_or_else(|| {
                tables.push(name);
                tables.len() - 1
            }));
        }
        Self::with_lines(line_of)
    }

    fn with_lines(line_of: Vec<usize>) -> Self {
        let count = line_of.iter().max().map_or(1, |last| last + 1);
        Self {
            line_of,
            lines: std::iter::repeat_with(Line::default).take(count).collect(),
            records: HashMap::default(),
            next: 0,
            latest: HashMap::default(),
            changes: 0,
            under_way: 0,
        }
    }

    /// Adds what a record of the journal says; tells whether that began a line or made one full, with so many changes.
    pub fn push(&mut self, sequence: u64, changes: Vec<RowChange>, full: usize) -> bool {
        if let [change] = &changes[..]
            && let Some(latest) = self.latest.get_mut(&change.key)
            && let Some(record) = self.records.get_mut(&latest.slot).filter(|record| !record.is_taken)
        {
            record.sequences.push(sequence);
            latest.version = change.version;
            for change in changes {
                let waiting = &mut record.changes[latest.index];
                let before = std::mem::replace(&mut waiting.state, RowState::Absent);
                *waiting = RowChange { state: before.then(change.state), ..change };
            }
            return false;
        }
        let slot = self.next;
        self.next += 1;
        let mut lines: SmallVec<[usize; 2]> = SmallVec::new();
        for (index, change) in changes.iter().enumerate() {
            self.latest.insert(change.key.clone(), Latest { slot, index, version: change.version });
            let line = self.line_of.get(change.rule).copied().unwrap_or(0);
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        let mut is_news = false;
        for line in &lines {
            let line = &mut self.lines[*line];
            let before = line.changes;
            line.queue.push_back(slot);
            line.changes += changes.len();
            is_news |= before == 0 || before < full && line.changes >= full;
        }
        self.changes += changes.len();
        let (sequences, accepted) = (SmallVec::from_slice(&[sequence]), clock::monotonic());
        self.records.insert(slot, Record { sequences, changes, accepted, lines, is_taken: false });
        is_news
    }

    /// The slot of the next record: what is accepted now is done once [`Self::done`] has reached it.
    pub fn end(&self) -> u64 {
        self.next
    }

    /// Records before this slot are done.
    pub fn done(&self) -> u64 {
        self.lines.iter().filter_map(|line| line.queue.front()).min().copied().unwrap_or(self.next)
    }

    /// How many changes wait.
    pub fn depth(&self) -> usize {
        self.changes
    }

    /// How many batches are under way.
    pub fn under_way(&self) -> usize {
        self.under_way
    }

    /// When the oldest record was accepted.
    pub fn oldest(&self) -> Option<Instant> {
        self.records.get(&self.done()).map(|record| record.accepted)
    }

    /// Whether the key's latest state is not in the database yet.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.latest.contains_key(key)
    }

    /// The key's latest state, if it is not in the database yet.
    pub fn state(&self, key: &[u8]) -> Option<&RowState> {
        let latest = self.latest.get(key)?;
        Some(&self.records.get(&latest.slot)?.changes[latest.index].state)
    }

    /// How long the front of a line that no batch has may wait still.
    fn left(&self, line: &Line, due: Due) -> Option<Duration> {
        let front = line.queue.front().filter(|_| !line.is_under_way)?;
        if due.at_once || line.changes >= due.batch_size || *front < due.hurry {
            return Some(Duration::ZERO);
        }
        let accepted = self.records.get(front)?.accepted;
        Some(due.interval.saturating_sub(clock::monotonic() - accepted))
    }

    /// How long it takes until something is due that is not yet.
    pub fn until_due(&self, due: Due) -> Option<Duration> {
        self.lines.iter().filter_map(|line| self.left(line, due)).filter(|left| !left.is_zero()).min()
    }

    /// Takes records of about so many changes as a batch has, if some are due that no batch stands before.
    pub fn take(&mut self, due: Due) -> Option<Taken> {
        (0..self.lines.len()).find_map(|line| {
            let left = self.left(&self.lines[line], due)?;
            if left.is_zero() { self.take_from(line, due.batch_size) } else { None }
        })
    }

    /// Takes the front of a line, and with it of those lines that its transactions stand in too.
    fn take_from(&mut self, first: usize, most: usize) -> Option<Taken> {
        let mut lines = vec![(first, 0)];
        let (mut slots, mut count, mut bytes) = (Vec::new(), 0, 0);
        // The record that is next in the order of all these lines.
        while let Some(slot) =
            lines.iter().filter_map(|(line, taken)| self.lines[*line].queue.get(*taken)).min().copied()
        {
            let record = self.records.get(&slot)?;
            let size: usize = record.changes.iter().map(|change| change.state.bytes()).sum();
            if count > 0 && (count + record.changes.len() > most || bytes + size > MOST_BYTES) {
                break;
            }
            let others = record.lines.iter().filter(|line| !lines.iter().any(|(known, _)| known == *line));
            let others: SmallVec<[usize; 2]> = others.copied().collect();
            if others.iter().any(|line| self.lines[*line].is_under_way) {
                break;
            }
            if !others.is_empty() {
                // What stands before it in its other lines comes first.
                lines.extend(others.into_iter().map(|line| (line, 0)));
                continue;
            }
            for (line, taken) in &mut lines {
                *taken += usize::from(record.lines.contains(line));
            }
            count += record.changes.len();
            bytes += size;
            slots.push(slot);
        }
        lines.retain(|(_, taken)| *taken > 0);
        if slots.is_empty() {
            return None;
        }
        lines.iter().for_each(|(line, _)| self.lines[*line].is_under_way = true);
        self.under_way += 1;
        let batch = self.batch(&slots, count);
        Some(Taken { batch, slots, lines })
    }

    fn batch(&mut self, slots: &[u64], count: usize) -> Batch {
        for slot in slots {
            if let Some(record) = self.records.get_mut(slot) {
                record.is_taken = true;
            }
        }
        let mut changes: Vec<RowChange> = Vec::with_capacity(count);
        let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(count);
        let taken = slots.iter().filter_map(|slot| self.records.get(slot));
        for change in taken.flat_map(|record| &record.changes) {
            match places.get(&*change.key) {
                Some(place) => {
                    let earlier = &mut changes[*place];
                    let before = std::mem::replace(&mut earlier.state, RowState::Absent);
                    earlier.state = before.then(change.state.clone());
                    earlier.version = change.version;
                }
                None => {
                    places.insert(&change.key, changes.len());
                    changes.push(change.clone());
                }
            }
        }
        Batch { changes }
    }

    /// The taken records are in the database or given up; tells of keys that have nothing waiting any more, and returns
    /// the sequences.
    pub fn finish(&mut self, slots: &Slots, mut settled: impl FnMut(&[u8])) -> Vec<u64> {
        self.under_way -= 1;
        for (line, taken) in &slots.lines {
            let line = &mut self.lines[*line];
            line.queue.drain(..*taken);
            line.is_under_way = false;
        }
        let mut sequences = Vec::new();
        for slot in &slots.slots {
            let Some(record) = self.records.remove(slot) else { continue };
            self.changes -= record.changes.len();
            record.lines.iter().for_each(|line| self.lines[*line].changes -= record.changes.len());
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

/// What a batch has of the backlog.
pub struct Slots {
    slots: Vec<u64>,
    lines: Vec<(usize, usize)>,
}

impl Taken {
    /// The batch, and what to give to [`Backlog::finish`] when it has ended.
    pub fn split(self) -> (Batch, Slots) {
        (self.batch, Slots { slots: self.slots, lines: self.lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Due = Due { batch_size: 100, interval: Duration::ZERO, hurry: u64::MAX, at_once: true };

    fn of(rule: usize, key: &str, version: i64) -> RowChange {
        let state = RowState::Value(version.to_string().into_bytes());
        RowChange { rule, key: key.as_bytes().into(), version, state }
    }

    fn change(key: &str, version: i64) -> RowChange {
        of(0, key, version)
    }

    fn versions(batch: &Batch) -> Vec<i64> {
        batch.changes.iter().map(|change| change.version).collect()
    }

    fn take(backlog: &mut Backlog, batch_size: usize) -> Option<(Vec<i64>, Slots)> {
        let (batch, slots) = backlog.take(Due { batch_size, ..ALL })?.split();
        Some((versions(&batch), slots))
    }

    #[test]
    fn a_hot_key_costs_one_state_and_completes_all_its_sequences() {
        let mut backlog = Backlog::with_lines(vec![0]);
        assert!(backlog.push(1, vec![change("a", 1)], 2));
        (2..=3).for_each(|version| assert!(!backlog.push(version, vec![change("a", version as i64)], 2)));
        assert_eq!((backlog.depth(), backlog.end()), (1, 1));
        let (taken, slots) = take(&mut backlog, 10).unwrap();
        assert_eq!(taken, [3]);
        // A batch has it: what comes now is another record, and has to wait for the batch.
        assert!(backlog.push(4, vec![change("a", 4)], 2), "the line is full");
        assert_eq!(backlog.state(b"a"), Some(&RowState::Value(b"4".to_vec())));
        assert!(take(&mut backlog, 10).is_none());
        assert_eq!(backlog.finish(&slots, |_| ()), [1, 2, 3]);
        assert!(backlog.contains(b"a"));
        let (taken, slots) = take(&mut backlog, 10).unwrap();
        assert_eq!(taken, [4]);
        assert_eq!(backlog.finish(&slots, |_| ()), [4]);
        assert!(!backlog.contains(b"a"));
        assert_eq!((backlog.depth(), backlog.done(), backlog.under_way()), (0, 2, 0));
    }

    #[test]
    fn a_transaction_is_never_split_and_the_last_state_wins() {
        let mut backlog = Backlog::with_lines(vec![0]);
        backlog.push(1, vec![change("a", 1)], 9);
        backlog.push(2, vec![change("a", 2), change("b", 2), change("c", 2)], 9);
        backlog.push(3, vec![change("b", 3)], 9);
        let (taken, slots) = take(&mut backlog, 2).unwrap();
        assert_eq!(taken, [1]);
        assert_eq!(backlog.finish(&slots, |_| ()), [1]);
        let (taken, slots) = take(&mut backlog, 2).unwrap();
        assert_eq!(taken, [2, 3, 2]);
        assert_eq!(backlog.finish(&slots, |_| ()), [2, 3]);
    }

    #[test]
    fn a_batch_is_bounded_in_bytes_but_takes_one_record_whatever_its_size() {
        let mut backlog = Backlog::with_lines(vec![0]);
        for (version, bytes) in [(1, MOST_BYTES * 2), (2, MOST_BYTES / 2), (3, MOST_BYTES / 2), (4, 1)] {
            let state = RowState::Value(vec![0; bytes]);
            let change = RowChange { rule: 0, key: vec![version as u8].into(), version, state };
            backlog.push(version as u64, vec![change], 9);
        }
        for expected in [vec![1], vec![2, 3], vec![4]] {
            let (taken, slots) = take(&mut backlog, 100).unwrap();
            assert_eq!(taken, expected);
            backlog.finish(&slots, |_| ());
        }
    }

    #[test]
    fn one_batch_has_each_key_once() {
        let mut backlog = Backlog::with_lines(vec![0]);
        backlog.push(1, vec![change("a", 1)], 9);
        backlog.push(2, vec![change("a", 2), change("b", 2)], 9);
        let (taken, slots) = take(&mut backlog, 100).unwrap();
        assert_eq!(taken, [2, 2]);
        assert_eq!(backlog.finish(&slots, |_| ()), [1, 2]);
        assert_eq!(backlog.depth(), 0);
    }

    #[test]
    fn a_table_that_is_held_up_holds_up_no_other_but_for_transactions_on_both() {
        // Two rules of one table, and one of another.
        let mut backlog = Backlog::with_lines(vec![0, 0, 1]);
        backlog.push(1, vec![of(0, "a", 1)], 9);
        backlog.push(2, vec![of(1, "b", 2)], 9);
        let (first, held) = take(&mut backlog, 9).unwrap();
        assert_eq!(first, [1, 2]);
        backlog.push(3, vec![of(2, "x", 3)], 9);
        backlog.push(4, vec![of(2, "y", 4), of(0, "c", 4)], 9);
        backlog.push(5, vec![of(2, "z", 5)], 9);
        let (second, slots) = take(&mut backlog, 9).unwrap();
        assert_eq!(second, [3], "not the transaction, and nothing behind it");
        assert!(take(&mut backlog, 9).is_none());
        assert_eq!(backlog.finish(&slots, |_| ()), [3]);
        assert!(take(&mut backlog, 9).is_none());
        assert_eq!((backlog.done(), backlog.end()), (0, 5));
        assert_eq!(backlog.finish(&held, |_| ()), [1, 2]);
        let (third, slots) = take(&mut backlog, 9).unwrap();
        assert_eq!(third, [4, 4, 5]);
        assert_eq!(backlog.finish(&slots, |_| ()), [4, 5]);
        assert_eq!((backlog.done(), backlog.depth()), (5, 0));
    }

    #[test]
    fn what_stands_before_a_transaction_in_any_of_its_lines_goes_with_it() {
        let mut backlog = Backlog::with_lines(vec![0, 1]);
        backlog.push(1, vec![of(1, "x", 1)], 9);
        backlog.push(2, vec![of(0, "a", 2)], 9);
        backlog.push(3, vec![of(0, "a", 3), of(1, "x", 3)], 9);
        backlog.push(4, vec![of(1, "y", 4)], 9);
        let (taken, slots) = take(&mut backlog, 9).unwrap();
        assert_eq!(taken, [3, 3, 4]);
        let mut settled = Vec::new();
        assert_eq!(backlog.finish(&slots, |key| settled.push(key.to_vec())).len(), 4);
        assert_eq!((settled.len(), backlog.depth(), backlog.done()), (3, 0, 4));
    }
}
