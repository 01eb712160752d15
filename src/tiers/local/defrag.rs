//! Active defragmentation: what lies in pages that are mostly free is moved together, so that those pages can be given back.
//!
//! When the sizes of values shift, each page keeps some of the old ones, and the process holds far more than is in use.
//! Moved are entries, short collections, and the elements of tables up to [`MOST_ELEMENTS`].

use super::keyspace::Keyspace;
use super::memory::Compaction;

/// Buckets looked at under one lock: about a hundred keys.
const BUCKETS_PER_LOCK: usize = 16;
/// A collection with more elements would be held for too long.
pub const MOST_ELEMENTS: usize = 256;

/// How far a walk over all keys has come.
#[derive(Debug, Default, Clone, Copy)]
pub struct DefragCursor {
    shard: usize,
    db: usize,
    bucket: usize,
}

/// What some steps of a walk did.
#[derive(Debug, Default, Clone, Copy)]
pub struct Moved {
    /// Keys looked at.
    pub keys: u64,
    /// Allocations that were moved.
    pub allocations: u64,
}

impl Keyspace {
    /// Looks at some keys from the cursor on, and moves what lies badly; none of a shard that a script holds. At the end of all
    /// keys the cursor is at the beginning again.
    pub fn defragment_some(&self, cursor: &mut DefragCursor, compaction: &Compaction) -> Moved {
        let mut moved = Moved::default();
        if let Some(mut shard) = self.lock_unless_held(cursor.shard) {
            let table = &mut shard.databases[cursor.db].keys;
            // SAFETY: what can be moved asks for its own allocation, under the lock.
            let wants = |address| unsafe { compaction.wants(address) };
            let relocated = table.relocate_some(&mut cursor.bucket, BUCKETS_PER_LOCK, &wants, |entry| {
                moved.keys += 1;
                entry.relocate(&wants)
            });
            moved.allocations += relocated as u64;
            if cursor.bucket > 0 {
                return moved;
            }
        } else {
            cursor.bucket = 0;
        }
        cursor.db += 1;
        if cursor.db == self.databases() {
            *cursor = DefragCursor { shard: (cursor.shard + 1) % self.shards(), ..DefragCursor::default() };
        }
        moved
    }
}

impl DefragCursor {
    /// Whether a walk would begin here.
    pub fn is_at_begin(&self) -> bool {
        (self.shard, self.db, self.bucket) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Settings;
    use crate::tiers::local::{Effects, Event, Expiry, LockPlan, View};
    use crate::types::hash::{Hash, Limits};
    use crate::types::listpack::Item;

    /// With most of it gone again, so that the rest lies in pages that are mostly free.
    #[test]
    fn what_is_moved_is_what_it_was() {
        const KEYS: u32 = 20_000;
        let keyspace = Keyspace::new(2, Arc::new(Settings::default()));
        let mut effects = Effects::default();
        let name = |number: u32| format!("key:{number}").into_bytes();
        let mut view = View::new(&keyspace, &LockPlan::All, 0, 1000, &mut effects);
        for number in 0..KEYS {
            let key = name(number);
            if number % 3 == 0 {
                view.set_string(&key, &[b'v'; 70], Expiry::At(5000), Event::string("set"));
            } else {
                let limits = Limits { entries: 8, value: 64 };
                let edit = |hash: &mut Hash| {
                    for field in 0..number % 20 + 1 {
                        hash.set(&field.to_le_bytes(), &key, &limits);
                    }
                    ((), true)
                };
                view.upsert(&key, Event::hash("hset"), edit).unwrap();
            }
        }
        for number in (0..KEYS).filter(|number| number % 16 != 0) {
            view.delete(&name(number), Event::DEL);
        }
        drop(view);
        let (mut cursor, mut moved) = (DefragCursor::default(), Moved::default());
        loop {
            let some = keyspace.defragment_some(&mut cursor, &Compaction::begin());
            moved.keys += some.keys;
            moved.allocations += some.allocations;
            if cursor.is_at_begin() {
                break;
            }
        }
        assert_eq!(moved.keys, u64::from(KEYS / 16));
        assert!(moved.allocations > moved.keys / 2, "{moved:?}");
        let mut view = View::new(&keyspace, &LockPlan::All, 0, 1000, &mut effects);
        for number in (0..KEYS).step_by(16) {
            let key = name(number);
            if number % 3 == 0 {
                assert_eq!(view.string(&key).unwrap().map(|item| item.to_vec()), Some(vec![b'v'; 70]));
                assert_eq!(view.info(&key).unwrap().deadline, Some(5000));
            } else {
                let hash = view.peek_as::<Hash>(&key).unwrap().unwrap();
                assert_eq!(hash.len() as u32, number % 20 + 1);
                assert!(hash.iter().all(|(_, value)| value == Item::Bytes(&key)));
            }
        }
    }
}
