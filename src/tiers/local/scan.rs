//! Walking over all keys of a database: `SCAN`, `KEYS`, `RANDOMKEY`, counts, and emptying it.

use super::entry::Entry;
use super::value::ValueRef;
use super::view::{KeyInfo, View};
use crate::types::table::Table;

/// Bits of a cursor that name the shard.
const SHARD_BITS: u32 = 8;

impl View<'_> {
    /// Visits the keys of at least one bucket from `cursor` on, stopping once `count` keys or buckets were visited.
    ///
    /// Returns the cursor to go on with, 0 at the end. A key that is there from the first call to the last is
    /// visited at least once, however the tables grow and shrink meanwhile.
    pub fn scan(&mut self, cursor: u64, count: usize, mut visit: impl FnMut(&[u8], ValueRef<'_>)) -> u64 {
        debug_assert_eq!(self.keyspace.shards(), 1 << SHARD_BITS);
        let (now_ms, db) = (self.now_ms(), self.db());
        let mut shard = (cursor & ((1 << SHARD_BITS) - 1)) as usize;
        let mut position = cursor >> SHARD_BITS;
        // Keys are counted, and empty buckets too, ten to one as in Redis, to bound the work.
        let (mut keys, mut buckets) = (0, 0);
        while shard < self.keyspace.shards() {
            position = self.with_shard(shard, |shard| {
                let table = &shard.databases[db].keys;
                if table.is_empty() {
                    return 0;
                }
                loop {
                    position = table.scan(position, |entry| {
                        keys += 1;
                        if !entry.is_expired(now_ms) {
                            visit(entry.key(), entry.value());
                        }
                    });
                    buckets += 1;
                    if position == 0 || keys >= count || buckets >= count.saturating_mul(10) {
                        return position;
                    }
                }
            });
            if position == 0 {
                shard += 1;
            }
            if keys >= count || buckets >= count.saturating_mul(10) {
                break;
            }
        }
        if shard >= self.keyspace.shards() { 0 } else { position << SHARD_BITS | shard as u64 }
    }

    /// Visits about `budget` keys of all databases, all of some shards, a few under one lock. `visit` is told how many
    /// keys the one it sees stands for.
    pub fn sample(&mut self, budget: usize, mut visit: impl FnMut(&[u8], KeyInfo, usize)) {
        /// Buckets looked at under one lock.
        const SLICE: usize = 128;
        let now_ms = self.now_ms();
        let total: usize = (0..self.databases()).map(|db| self.key_counts(db).0).sum();
        let all = self.keyspace.shards();
        let stands_for = total.div_ceil(budget).next_power_of_two().min(all);
        let databases = self.databases();
        for index in 0..all / stands_for * databases {
            let (shard, db) = (index / databases, index % databases);
            let mut position = 0;
            loop {
                self.with_shard(shard, |shard| {
                    for _ in 0..SLICE {
                        position = shard.databases[db].keys.scan(position, |entry| {
                            if !entry.is_expired(now_ms) {
                                visit(entry.key(), KeyInfo::of(entry), stands_for);
                            }
                        });
                        if position == 0 {
                            break;
                        }
                    }
                });
                if position == 0 {
                    break;
                }
            }
        }
    }

    /// Visits every key of the database, shard after shard.
    pub fn each_key(&mut self, mut visit: impl FnMut(&[u8], ValueRef<'_>)) {
        let (now_ms, db) = (self.now_ms(), self.db());
        for shard in 0..self.keyspace.shards() {
            self.with_shard(shard, |shard| {
                for entry in shard.databases[db].keys.iter().filter(|entry| !entry.is_expired(now_ms)) {
                    visit(entry.key(), entry.value());
                }
            });
        }
    }

    /// A key of the database, each about as likely as the others.
    pub fn random_key(&mut self) -> Option<Box<[u8]>> {
        const ATTEMPTS: usize = 100;
        let mut rng = fastrand::Rng::new();
        let (now_ms, db) = (self.now_ms(), self.db());
        for _ in 0..ATTEMPTS {
            let total = self.key_count();
            if total == 0 {
                return None;
            }
            // A shard in proportion to its keys, then a key of it.
            let mut nth = rng.usize(..total);
            for shard in 0..self.keyspace.shards() {
                let found = self.with_shard(shard, |shard| {
                    let table = &shard.databases[db].keys;
                    if nth >= table.len() {
                        nth -= table.len();
                        return None;
                    }
                    Some(
                        table
                            .random(&mut rng)
                            .filter(|entry| !entry.is_expired(now_ms))
                            .map(|e| e.key().into()),
                    )
                });
                match found {
                    Some(Some(key)) => return Some(key),
                    Some(None) => break,
                    None => {}
                }
            }
        }
        // Mostly expired keys: take the first live one.
        let mut first = None;
        self.each_key(|key, _| {
            first.get_or_insert_with(|| key.into());
        });
        first
    }

    /// Keys in the database, those past their deadline that are not removed yet included.
    pub fn key_count(&mut self) -> usize {
        let db = self.db();
        (0..self.keyspace.shards())
            .map(|shard| self.with_shard(shard, |shard| shard.databases[db].keys.len()))
            .sum()
    }

    /// Removes every key of these databases; their memory is freed when the locks are released, by another thread if
    /// `lazily`.
    pub fn flush(&mut self, databases: std::ops::Range<usize>, lazily: bool) {
        let db = self.db();
        for emptied in databases {
            self.select(emptied);
            self.flush_database();
        }
        self.select(db);
        self.effects.frees_tables_now |= !lazily;
        self.keyspace.tell_flushed();
    }

    fn flush_database(&mut self) {
        let db = self.db();
        for index in 0..self.keyspace.shards() {
            let mut ready = Vec::new();
            let table: Table<Entry> = self.with_shard(index, |shard| {
                if let Some(observers) = &shard.observers {
                    for key in observers.keys_of(db) {
                        let hash = crate::types::hasher::hash_bytes(&key);
                        if shard.databases[db].find(hash, &key).is_some() && observers.changed(db, &key) {
                            ready.push((db, key));
                        }
                    }
                }
                let keys = shard.databases[db].take_keys();
                shard.counters.changes += keys.len() as u64;
                keys
            });
            self.effects.ready.append(&mut ready);
            if !table.is_empty() {
                self.effects.tables.push(table);
            }
        }
    }

    /// Exchanges the contents of two databases; all shards must be locked.
    pub fn swap_databases(&mut self, first: usize, second: usize) {
        for index in 0..self.keyspace.shards() {
            let mut ready = Vec::new();
            self.with_shard(index, |shard| {
                shard.databases.swap(first, second);
                shard.counters.changes += 1;
                let Some(observers) = &shard.observers else { return };
                for db in [first, second] {
                    let other = if db == first { second } else { first };
                    for key in observers.keys_of(db) {
                        let hash = crate::types::hasher::hash_bytes(&key);
                        let is_in = |db: usize| shard.databases[db].find(hash, &key).is_some();
                        if (is_in(db) || is_in(other)) && observers.changed(db, &key) {
                            ready.push((db, key));
                        }
                    }
                }
            });
            self.effects.ready.append(&mut ready);
        }
        self.keyspace.tell_flushed();
    }
}
