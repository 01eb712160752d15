//! Sums over all shards, for `INFO` and the metrics.

use super::keyspace::KeyspaceCounters;
use super::view::View;

impl View<'_> {
    /// Keys, and keys with a deadline, of a database.
    pub fn key_counts(&mut self, db: usize) -> (usize, usize) {
        let mut counts = (0, 0);
        for shard in 0..self.keyspace.shards() {
            self.with_shard(shard, |shard| {
                counts.0 += shard.databases[db].keys.len();
                counts.1 += shard.databases[db].volatile;
            });
        }
        counts
    }

    /// Sums of what the shards counted.
    pub fn counters(&mut self) -> KeyspaceCounters {
        let mut sum = KeyspaceCounters::default();
        for shard in 0..self.keyspace.shards() {
            let counters = self.with_shard(shard, |shard| shard.counters);
            sum.changes += counters.changes;
            sum.hits += counters.hits;
            sum.misses += counters.misses;
            sum.expired += counters.expired;
            sum.expired_fields += counters.expired_fields;
            sum.evicted += counters.evicted;
        }
        sum
    }

    /// Counts from nothing again, except the changes.
    pub fn reset_counters(&mut self) {
        for shard in 0..self.keyspace.shards() {
            self.with_shard(shard, |shard| {
                let changes = shard.counters.changes;
                shard.counters = KeyspaceCounters { changes, ..KeyspaceCounters::default() };
            });
        }
    }

    /// Bytes of the tables themselves, without their entries.
    pub fn table_memory(&mut self, db: usize) -> usize {
        (0..self.keyspace.shards())
            .map(|shard| self.with_shard(shard, |shard| shard.databases[db].keys.memory()))
            .sum()
    }
}
