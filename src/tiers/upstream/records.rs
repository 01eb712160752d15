//! What the near cache keeps of each key: replies, reads under way, and whether replies may be kept.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::coherence::KeyState;
use super::gather::Ticket;
use super::prefixes::Prefixes;
use super::statistics::Statistics;
use crate::protocol::Args;
use crate::types::prefetch::{prefetch, prefetch_two};

/// What a record takes beside its bytes, roughly.
pub(super) const OVERHEAD: usize = 192;

/// A read: what it asks of which key.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The database.
    pub db: usize,
    /// The command's place in the table.
    pub command: usize,
    /// The request.
    pub args: Args<'a>,
    /// Which argument is the key.
    pub key_at: usize,
    /// Whether other arguments belong to the question; `MGET`'s are questions of their own.
    pub has_rest: bool,
    /// Whether the reply is to be RESP3.
    pub resp3: bool,
    /// The key's hash.
    pub hash: u64,
}

/// What a reply answers: all of a request but its key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Question {
    pub(super) db: u32,
    pub(super) command: u32,
    pub(super) resp3: bool,
    pub(super) rest: Box<[u8]>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) question: Question,
    pub(super) reply: Box<[u8]>,
    pub(super) epoch: u64,
    pub(super) filled_ms: u64,
    pub(super) deadline_ms: u64,
    pub(super) load_ms: u32,
    /// Somebody reads it again already.
    pub(super) is_refreshed: AtomicBool,
}

/// A read that is under way, and who waits for it.
#[derive(Debug, Default)]
pub struct Flight(pub(super) Mutex<Vec<Ticket>>);

#[derive(Debug)]
pub(super) struct Record {
    pub(super) hash: u64,
    pub(super) key: Box<[u8]>,
    pub(super) state: KeyState,
    pub(super) entries: SmallVec<[Entry; 1]>,
    pub(super) flights: Vec<(Question, Arc<Flight>)>,
    /// Whether it was asked for since the eviction looked last.
    pub(super) is_used: AtomicBool,
    /// Where its prefix is counted.
    pub(super) prefix: u16,
}

#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) prefixes: Prefixes,
    pub(super) places: HashTable<u32>,
    pub(super) records: Vec<Option<Record>>,
    pub(super) free: Vec<u32>,
    pub(super) hand: usize,
}

impl Question {
    pub(super) fn of(request: &Request<'_>) -> Self {
        let mut rest = Vec::new();
        if request.has_rest {
            for (index, argument) in request.args.iter().enumerate().skip(1) {
                if index != request.key_at {
                    rest.extend_from_slice(&(argument.len() as u32).to_le_bytes());
                    rest.extend_from_slice(argument);
                }
            }
        }
        let (db, command, resp3) = (request.db as u32, request.command as u32, request.resp3);
        Self { db, command, resp3, rest: rest.into() }
    }

    #[inline]
    pub(super) fn is(&self, request: &Request<'_>) -> bool {
        if self.command != request.command as u32
            || self.db != request.db as u32
            || self.resp3 != request.resp3
        {
            return false;
        }
        let mut rest = &*self.rest;
        if request.has_rest {
            for (index, argument) in request.args.iter().enumerate().skip(1) {
                if index == request.key_at {
                    continue;
                }
                let length = (argument.len() as u32).to_le_bytes();
                let Some(behind) = rest.strip_prefix(&length).and_then(|rest| rest.strip_prefix(argument))
                else {
                    return false;
                };
                rest = behind;
            }
        }
        rest.is_empty()
    }
}

impl Shard {
    /// See [`super::near::Near::prefetch_record`].
    #[inline]
    pub(super) fn prefetch_record(&self, hash: u64) {
        for place in self.places.iter_hash(hash) {
            if let Some(record) = self.records.get(*place as usize) {
                prefetch_two(record);
                prefetch_two((&raw const *record).cast::<u8>().wrapping_add(128));
            }
        }
    }

    /// See [`super::near::Near::prefetch_reply`].
    #[inline]
    pub(super) fn prefetch_reply(&self, hash: u64) {
        for place in self.places.iter_hash(hash) {
            if let Some(Some(record)) = self.records.get(*place as usize)
                && record.hash == hash
            {
                prefetch(record.key.as_ptr());
                if let [entry, ..] = &record.entries[..] {
                    prefetch_two(entry.reply.as_ptr());
                }
            }
        }
    }
}

impl Record {
    pub(super) fn keep(&mut self, entry: Entry) -> Option<Entry> {
        let same = self.entries.iter_mut().find(|other| other.question == entry.question);
        match same {
            Some(same) => Some(std::mem::replace(same, entry)),
            None => {
                self.entries.push(entry);
                None
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let entries = self.entries.iter().map(|entry| entry.reply.len() + entry.question.rest.len());
        entries.sum::<usize>() + self.key.len() + OVERHEAD
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.flights.is_empty() && self.state.is_idle()
    }
}

impl Shard {
    #[inline]
    pub(super) fn place(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let is = |place: &u32| {
            self.records[*place as usize]
                .as_ref()
                .is_some_and(|record| record.hash == hash && *record.key == *key)
        };
        self.places.find(hash, is).copied()
    }

    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<&Record> {
        self.records[self.place(hash, key)? as usize].as_ref()
    }

    pub(super) fn find_or_add(&mut self, hash: u64, key: &[u8]) -> u32 {
        if let Some(place) = self.place(hash, key) {
            return place;
        }
        let record = Record {
            hash,
            key: key.into(),
            state: KeyState::default(),
            entries: SmallVec::new(),
            flights: Vec::new(),
            is_used: AtomicBool::new(true),
            prefix: self.prefixes.place(key),
        };
        let place = match self.free.pop() {
            Some(place) => {
                self.records[place as usize] = Some(record);
                place
            }
            None => {
                self.records.push(Some(record));
                self.records.len() as u32 - 1
            }
        };
        let records = &self.records;
        let hash_of = |place: &u32| records[*place as usize].as_ref().map_or(0, |record| record.hash);
        self.places.insert_unique(hash, place, hash_of);
        place
    }

    /// Drops what is kept of a key, as `change` changes its state.
    pub(super) fn void(&mut self, place: u32, change: impl FnOnce(&mut KeyState)) -> SmallVec<[Entry; 1]> {
        let Some(record) = &mut self.records[place as usize] else { return SmallVec::new() };
        change(&mut record.state);
        // Whoever waits for a read that is under way gets its reply; whoever comes now must not.
        record.flights.clear();
        let garbage = std::mem::take(&mut record.entries);
        self.tidy(place);
        garbage
    }

    /// Forgets a record that holds nothing.
    pub(super) fn tidy(&mut self, place: u32) {
        let Some(record) = &self.records[place as usize] else { return };
        if !record.is_empty() {
            return;
        }
        let hash = record.hash;
        if let Ok(found) = self.places.find_entry(hash, |other| *other == place) {
            found.remove();
        }
        self.records[place as usize] = None;
        self.free.push(place);
    }

    pub(super) fn evict(&mut self, bytes: usize, statistics: &Statistics) -> (usize, Vec<Entry>) {
        let (mut freed, mut garbage) = (0, Vec::new());
        for _ in 0..self.records.len() {
            if freed >= bytes {
                break;
            }
            self.hand = (self.hand + 1) % self.records.len();
            let Some(record) = &mut self.records[self.hand] else { continue };
            if record.entries.is_empty() || std::mem::take(record.is_used.get_mut()) {
                continue;
            }
            freed += record.bytes();
            statistics.evictions.fetch_add(record.entries.len() as u64, Ordering::Relaxed);
            garbage.extend(std::mem::take(&mut record.entries));
            self.tidy(self.hand as u32);
        }
        (freed, garbage)
    }

    pub(super) fn sweep(&mut self, epoch: u64, now_ms: u64) -> Vec<Entry> {
        let mut garbage = Vec::new();
        for place in 0..self.records.len() {
            let Some(record) = &mut self.records[place] else { continue };
            let is_dead = |entry: &Entry| entry.epoch != epoch || entry.deadline_ms <= now_ms;
            let mut index = 0;
            while index < record.entries.len() {
                if is_dead(&record.entries[index]) {
                    garbage.push(record.entries.swap_remove(index));
                } else {
                    index += 1;
                }
            }
            self.tidy(place as u32);
        }
        let used = self.records.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        if used * 4 < self.records.len() {
            self.records.truncate(used);
            self.records.shrink_to_fit();
            self.free.retain(|place| (*place as usize) < used);
            self.free.shrink_to_fit();
            self.hand = 0;
            let records = &self.records;
            self.places
                .shrink_to_fit(|place| records[*place as usize].as_ref().map_or(0, |record| record.hash));
        }
        garbage
    }
}
