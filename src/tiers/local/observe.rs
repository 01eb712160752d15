//! Registering watchers and waiters for keys that the view holds locked.

use std::sync::Arc;

use super::observers::{Observers, Waiter, WatchFlag};
use super::view::View;

impl View<'_> {
    /// Raises `flag` when the key changes.
    pub fn watch(&mut self, key: &[u8], flag: &WatchFlag) {
        // A key past its deadline counts as absent from the start.
        self.peek(key);
        let db = self.db();
        self.observers(key, |observers| observers.watch(db, key, flag));
    }

    /// Takes the flag back.
    pub fn unwatch(&mut self, key: &[u8], flag: &WatchFlag) {
        // A key whose time came in between has changed, though nobody touched it.
        self.peek(key);
        let db = self.db();
        self.observers(key, |observers| observers.unwatch(db, key, flag));
    }

    /// Queues a waiter at all its keys.
    pub fn wait(&mut self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            self.observers(key, |observers| observers.wait(waiter.db, key, waiter));
        }
    }

    /// Takes a waiter out of the queues of all its keys.
    pub fn stop_waiting(&mut self, waiter: &Arc<Waiter>) {
        for key in &waiter.keys {
            self.observers(key, |observers| observers.stop_waiting(waiter.db, key, waiter));
        }
    }

    /// The waiter at `index` in the key's queue.
    pub fn waiter(&mut self, key: &[u8], index: usize) -> Option<Arc<Waiter>> {
        let (hash, db) = (self.hash(key), self.db());
        self.shard(hash).observers.as_ref()?.waiter(db, key, index)
    }

    fn observers(&mut self, key: &[u8], act: impl FnOnce(&mut Observers)) {
        let hash = self.hash(key);
        let shard = self.shard(hash);
        let observers = shard.observers.get_or_insert_default();
        act(observers);
        if observers.is_empty() {
            shard.observers = None;
        }
    }
}
