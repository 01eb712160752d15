//! Active expiry: memory of keys past their deadline comes back without their being touched.
//!
//! Tables keep a lower bound of the earliest deadline per bucket, so a sweep reads 4 bytes for several keys and
//! touches only buckets where something is due: its cost does not grow with the keys that are not.

use super::effects::{Effects, Event};
use super::keyspace::Keyspace;
use super::locks::LockPlan;
use super::view::View;
use crate::types::hasher::hash_bytes;

/// Buckets to look at before a shard's lock is given up for a moment.
const BUCKETS_PER_LOCK: usize = 16 * 1024;

impl Keyspace {
    /// Removes what is past its deadline in one shard; returns how many keys that were.
    pub fn sweep_shard(&self, index: usize, now_ms: u64, effects: &mut Effects) -> usize {
        (0..self.databases()).map(|db| self.sweep_table(index, db, now_ms, effects)).sum()
    }

    fn sweep_table(&self, index: usize, db: usize, now_ms: u64, effects: &mut Effects) -> usize {
        let mut removed_keys = 0;
        loop {
            let Some(mut guard) = self.lock_unless_held(index) else { return removed_keys };
            let shard = &mut *guard;
            let database = &mut shard.databases[db];
            if !database.may_expire() {
                return removed_keys;
            }
            // Hashes of which fields have expired: for a view, which has the change recorded.
            let mut partly_due: Vec<Box<[u8]>> = Vec::new();
            let (observers, settings, mirror) = (&shard.observers, self.settings(), self.mirror_of(db));
            let count = database.keys.sweep(
                &mut database.sweep,
                BUCKETS_PER_LOCK,
                now_ms,
                |entry| {
                    if entry.has_deadlines_of_fields()
                        && entry.deadline().is_none_or(|deadline| deadline >= now_ms)
                    {
                        partly_due.extend(entry.is_due(now_ms).then(|| entry.key().into()));
                        return false;
                    }
                    entry.is_due(now_ms)
                },
                |entry| {
                    let key = entry.key();
                    if let Some(mirror) = mirror {
                        mirror.gone(key);
                    }
                    self.tell_listener(key, true);
                    if observers.as_ref().is_some_and(|observers| observers.changed(db, key)) {
                        effects.ready.push((db, key.into()));
                    }
                    if settings.notifies(Event::EXPIRED.class as u32) {
                        effects.events.push((db, Event::EXPIRED, key.into()));
                    }
                    if entry.as_object().is_some_and(|value| value.is_expensive_to_free()) {
                        effects.garbage.extend(entry.into_object());
                    }
                },
            );
            database.volatile -= count;
            shard.counters.expired += count as u64;
            shard.counters.changes += count as u64;
            removed_keys += count;
            let is_done = database.sweep == 0;
            drop(guard);
            for key in partly_due {
                let plan = LockPlan::Keys([hash_bytes(&key)].into_iter().collect());
                if let Some(mut view) = View::acquire(self, &plan, db, now_ms, effects) {
                    view.contains(&key);
                }
            }
            if is_done {
                return removed_keys;
            }
        }
    }
}
