//! What the database has yet to get, in memory: records in the order of their sequences, and each key's latest state.
//!
//! Invariants:
//! - Each table has a line of its own, so that one that is locked holds up no other. A record stands in the lines of all
//!   tables that it concerns, and leaves when it is at the front of all of them: a batch is a prefix of its lines, and a
//!   line is in one batch at a time, so the order of each key holds, and a transaction lands whole.
//! - Records whose rows others have locked in the database are held up apart from the lines, and so is what comes later to
//!   any of their keys; they are tried again together, and the order of each key holds among them, too.
//! - A key is here exactly as long as its latest state is not in the database: so it is pinned, and its state is found.
//! - A single change of a key that waits already takes the place of the state that waits (not once a batch has it), or is
//!   put on top of it if it is of single columns: a hot key costs one state, however often it is written.
//! - Where records come in another order than that of their versions, the newer state wins; such states are whole.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use hashbrown::HashTable;
use smallvec::SmallVec;

use super::held_up::HeldUp;
use super::rules::Rules;
use super::store::{Batch, Changes, RowChange, RowState};
use crate::clock;
use crate::types::hasher::hash_bytes;
use crate::types::prefetch::prefetch;

/// Changes beyond this many bytes are left for the next batch: what a connection buffers it keeps.
const MOST_BYTES: usize = 4 << 20;

pub(super) struct Record {
    sequences: SmallVec<[u64; 2]>,
    pub(super) changes: Changes,
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

/// Where a key's latest state is. The key itself is there, too.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Latest {
    hash: u64,
    slot: u64,
    index: usize,
}

/// The records by their slots, of which those at the front leave first, mostly.
#[derive(Default)]
struct Records {
    records: VecDeque<Option<Record>>,
    /// The slot of the first.
    first: u64,
}

impl Records {
    /// The slot of the next record.
    fn end(&self) -> u64 {
        self.first + self.records.len() as u64
    }

    fn push(&mut self, record: Record) {
        self.records.push_back(Some(record));
    }

    fn get(&self, slot: u64) -> Option<&Record> {
        self.records.get(slot.checked_sub(self.first)? as usize)?.as_ref()
    }

    fn get_mut(&mut self, slot: u64) -> Option<&mut Record> {
        self.records.get_mut(slot.checked_sub(self.first)? as usize)?.as_mut()
    }

    fn remove(&mut self, slot: u64) -> Option<Record> {
        let removed = self.records.get_mut(slot.checked_sub(self.first)? as usize)?.take();
        while let Some(None) = self.records.front() {
            self.records.pop_front();
            self.first += 1;
        }
        removed
    }

    /// Starts a record on its way into the cache.
    fn prefetch(&self, slot: u64) {
        if let Some(place) = slot.checked_sub(self.first).and_then(|at| self.records.get(at as usize)) {
            let lines = (0..size_of_val(place)).step_by(64);
            lines.for_each(|at| prefetch(std::ptr::from_ref(place).cast::<u8>().wrapping_add(at)));
        }
    }

    fn is_of(&self, latest: &Latest, hash: u64, key: &[u8]) -> bool {
        let change = || self.get(latest.slot)?.changes.get(latest.index);
        latest.hash == hash && change().is_some_and(|change| *change.key == *key)
    }
}

/// The records.
pub struct Backlog {
    /// The line of each rule.
    line_of: Vec<usize>,
    lines: Vec<Line>,
    records: Records,
    latest: HashTable<Latest>,
    changes: usize,
    under_way: usize,
    held_up: HeldUp,
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
    slots: Slots,
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
            records: Records::default(),
            latest: HashTable::new(),
            changes: 0,
            under_way: 0,
            held_up: HeldUp::default(),
        }
    }

    /// Adds what a record of the journal says; tells whether that began a line or made one full, with so many changes.
    pub fn push(&mut self, sequence: u64, mut changes: Changes, full: usize) -> bool {
        if let [change] = &mut changes[..]
            && let Some(latest) = self.find(&change.key)
            && let Some(record) = self.records.get_mut(latest.slot).filter(|record| !record.is_taken)
        {
            record.sequences.push(sequence);
            let waiting = &mut record.changes[latest.index];
            if change.version < waiting.version {
                // Taken over from a host that is gone: what waits is newer.
                return false;
            }
            let before = std::mem::replace(&mut waiting.state, RowState::Absent);
            let later = std::mem::replace(&mut change.state, RowState::Absent);
            (waiting.rule, waiting.version, waiting.state) =
                (change.rule, change.version, before.then(later));
            return false;
        }
        let slot = self.end();
        let mut lines: SmallVec<[usize; 2]> = SmallVec::new();
        for (index, change) in changes.iter().enumerate() {
            let hash = hash_bytes(&change.key);
            let latest = Latest { hash, slot, index };
            // Of a key that comes twice, the first place is not in the records yet.
            let is_same = |other: &Latest| {
                self.records.is_of(other, hash, &change.key)
                    || other.slot == slot && changes[other.index].key == change.key
            };
            match self.latest.find_mut(hash, is_same) {
                Some(place) => *place = latest,
                None => drop(self.latest.insert_unique(hash, latest, |other| other.hash)),
            }
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
        self.records.push(Record { sequences, changes, accepted, lines, is_taken: false });
        is_news
    }

    /// Brings what waits of keys with these hashes into the cache together, rather than waiting for each in turn.
    ///
    /// Most of what a write of a key costs that waits already are its cache misses, those of its record in the first place.
    /// Measured in `benches/writebehind`: pipelines of 32.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u64>) {
        if self.latest.is_empty() {
            return;
        }
        let place = |hash| self.latest.find(hash, |latest| latest.hash == hash).copied();
        let places: SmallVec<[Latest; 32]> = hashes.filter_map(place).collect();
        places.iter().for_each(|latest| self.records.prefetch(latest.slot));
        for latest in &places {
            if let Some(record) = self.records.get(latest.slot) {
                record.changes.get(latest.index).into_iter().for_each(|change| prefetch(change.key.as_ptr()));
            }
        }
    }

    fn find(&self, key: &[u8]) -> Option<Latest> {
        let hash = hash_bytes(key);
        self.latest.find(hash, |latest| self.records.is_of(latest, hash, key)).copied()
    }

    /// The slot of the next record: what is accepted now is done once [`Self::done`] has reached it.
    pub fn end(&self) -> u64 {
        self.records.end()
    }

    /// Records before this slot are done.
    pub fn done(&self) -> u64 {
        let fronts = self.lines.iter().filter_map(|line| line.queue.front());
        fronts.chain(self.held_up.first()).min().copied().unwrap_or(self.end())
    }

    /// How many records are held up by locks of others.
    pub fn held_up(&self) -> usize {
        self.held_up.len()
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
        self.records.get(self.done()).map(|record| record.accepted)
    }

    /// Whether the key's latest state is not in the database yet.
    pub fn contains(&self, key: &[u8]) -> bool {
        self.find(key).is_some()
    }

    /// The key's latest state, if it is not in the database yet.
    pub fn state(&self, key: &[u8]) -> Option<&RowState> {
        let latest = self.find(key)?;
        Some(&self.records.get(latest.slot)?.changes[latest.index].state)
    }

    /// How long the front of a line that no batch has may wait still.
    fn left(&self, line: &Line, due: Due) -> Option<Duration> {
        let front = line.queue.front().filter(|_| !line.is_under_way)?;
        if due.at_once || line.changes >= due.batch_size || *front < due.hurry {
            return Some(Duration::ZERO);
        }
        let accepted = self.records.get(*front)?.accepted;
        Some(due.interval.saturating_sub(clock::monotonic() - accepted))
    }

    /// How long it takes until something is due that is not yet.
    pub fn until_due(&self, due: Due) -> Option<Duration> {
        let lines = self.lines.iter().filter_map(|line| self.left(line, due));
        lines.chain(self.held_up.left(clock::monotonic())).filter(|left| !left.is_zero()).min()
    }

    /// Takes records of about so many changes as a batch has, if some are due that no batch stands before.
    pub fn take(&mut self, due: Due) -> Option<Taken> {
        if self.held_up.left(clock::monotonic()).is_some_and(|left| left.is_zero()) {
            return Some(self.take_held_up());
        }
        (0..self.lines.len()).find_map(|line| {
            let left = self.left(&self.lines[line], due)?;
            if left.is_zero() { self.take_from(line, due.batch_size) } else { None }
        })
    }

    /// Takes all that is held up, to try it again.
    fn take_held_up(&mut self) -> Taken {
        let slots = self.held_up.begin();
        self.under_way += 1;
        let batch = self.batch(&slots, slots.len());
        Taken { batch, slots: Slots { slots, lines: Vec::new(), is_held_up: true } }
    }

    /// Holds a record up if something is that one of its keys belongs to: takes it out of its lines.
    fn holds_up(&mut self, slot: u64) -> bool {
        let Some(record) = self.records.get(slot).filter(|record| self.held_up.concerns(record)) else {
            return false;
        };
        self.held_up.add(slot, record);
        for line in &record.lines {
            let line = &mut self.lines[*line];
            line.changes -= record.changes.len();
            if let Ok(place) = line.queue.binary_search(&slot) {
                line.queue.remove(place);
            }
        }
        true
    }

    /// Takes the front of a line, and with it of those lines that its transactions stand in too.
    fn take_from(&mut self, first: usize, most: usize) -> Option<Taken> {
        let mut lines = vec![(first, 0)];
        let (mut slots, mut count, mut bytes) = (Vec::new(), 0, 0);
        // The record that is next in the order of all these lines.
        while let Some(slot) =
            lines.iter().filter_map(|(line, taken)| self.lines[*line].queue.get(*taken)).min().copied()
        {
            if self.holds_up(slot) {
                continue;
            }
            let record = self.records.get(slot)?;
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
        Some(Taken { batch, slots: Slots { slots, lines, is_held_up: false } })
    }

    fn batch(&mut self, slots: &[u64], count: usize) -> Batch {
        for slot in slots {
            if let Some(record) = self.records.get_mut(*slot) {
                record.is_taken = true;
            }
        }
        let mut changes: Vec<RowChange> = Vec::with_capacity(count);
        let mut places: HashMap<&[u8], usize> = HashMap::with_capacity(count);
        // Of each change, one before it that it belongs with, or itself.
        let mut with: Vec<usize> = Vec::with_capacity(count);
        let mut is_of_singles = true;
        for record in slots.iter().filter_map(|slot| self.records.get(*slot)) {
            let mut unit = None;
            is_of_singles &= record.changes.len() == 1;
            for change in &record.changes {
                let place = match places.get(&*change.key) {
                    Some(place) => {
                        let earlier = &mut changes[*place];
                        if change.version >= earlier.version {
                            let before = std::mem::replace(&mut earlier.state, RowState::Absent);
                            earlier.state = before.then(change.state.clone());
                            earlier.version = change.version;
                        }
                        *place
                    }
                    None => {
                        places.insert(&change.key, changes.len());
                        changes.push(change.clone());
                        with.push(changes.len() - 1);
                        changes.len() - 1
                    }
                };
                let (one, other) = (first_of(&with, place), unit.unwrap_or(place));
                let other = first_of(&with, other);
                with[one.max(other)] = one.min(other);
                unit = Some(one.min(other));
            }
        }
        if is_of_singles {
            // Each is a unit of its own.
            return Batch { units: vec![1; changes.len()], changes };
        }
        let mut sorted: Vec<(usize, RowChange)> =
            changes.into_iter().enumerate().map(|(place, change)| (first_of(&with, place), change)).collect();
        sorted.sort_by_key(|(unit, _)| *unit);
        let units = sorted.chunk_by(|(one, _), (other, _)| one == other).map(<[_]>::len).collect();
        Batch { changes: sorted.into_iter().map(|(_, change)| change).collect(), units }
    }

    /// The taken records are in the database or given up, but for those with keys that are `locked` there, which are held
    /// up; tells of keys that have nothing waiting any more, and returns the sequences.
    pub fn finish<S: std::hash::BuildHasher>(
        &mut self,
        taken: &Slots,
        locked: &HashSet<Box<[u8]>, S>,
        mut settled: impl FnMut(&[u8]),
    ) -> Vec<u64> {
        self.under_way -= 1;
        for (line, count) in &taken.lines {
            let line = &mut self.lines[*line];
            line.queue.drain(..*count);
            line.is_under_way = false;
        }
        let mut sequences = Vec::new();
        for slot in &taken.slots {
            let Some(record) = self.records.get_mut(*slot) else { continue };
            if !taken.is_held_up {
                record.lines.iter().for_each(|line| self.lines[*line].changes -= record.changes.len());
            }
            if !locked.is_empty() && record.changes.iter().any(|change| locked.contains(&change.key)) {
                record.is_taken = false;
                if !taken.is_held_up {
                    self.held_up.add(*slot, record);
                }
                continue;
            }
            let Some(record) = self.records.remove(*slot) else { continue };
            if taken.is_held_up {
                self.held_up.remove(*slot, &record);
            }
            self.changes -= record.changes.len();
            sequences.extend(record.sequences);
            for (index, change) in record.changes.iter().enumerate() {
                let latest = Latest { hash: hash_bytes(&change.key), slot: *slot, index };
                if let Ok(place) = self.latest.find_entry(latest.hash, |other| *other == latest) {
                    place.remove();
                    settled(&change.key);
                }
            }
        }
        if taken.is_held_up {
            self.held_up.end(!sequences.is_empty(), clock::monotonic());
        }
        sequences
    }
}

/// The first of those that one belongs with.
fn first_of(with: &[usize], mut place: usize) -> usize {
    while with[place] != place {
        place = with[place];
    }
    place
}

/// What a batch has of the backlog.
pub struct Slots {
    slots: Vec<u64>,
    /// How many records of which line.
    lines: Vec<(usize, usize)>,
    /// These were held up: they stand in no line.
    is_held_up: bool,
}

impl Taken {
    /// Whether this was held up by locks before.
    pub fn is_of_the_held_up(&self) -> bool {
        self.slots.is_held_up
    }

    /// The batch, and what to give to [`Backlog::finish`] when it has ended.
    pub fn split(self) -> (Batch, Slots) {
        (self.batch, self.slots)
    }
}

#[cfg(test)]
mod tests;
