//! What a worker has yet to do at keys that a script holds beyond its time. Nobody waits for such a script on a worker: it
//! may be this very worker that runs it.

use std::sync::Arc;

use super::worker::Worker;
use crate::tiers::local::{LockPlan, View, Waiter, WatchFlag};
use crate::types::hasher::hash_bytes;

/// Something to be done once no script holds its locks beyond its time.
pub(super) enum Postponed {
    /// A waiter that has ended is in the queues of its keys still.
    StopWaiting(Arc<Waiter>),
    /// Keys are watched that nobody watches any more.
    Unwatch(Vec<(usize, Box<[u8]>)>, WatchFlag),
    /// A key is ready for those who wait for it.
    Ready(usize, Box<[u8]>),
}

impl Worker {
    #[cold]
    pub(super) fn postpone(&mut self, what: Postponed) {
        self.postponed.push(what);
        self.upkeep.notify_one();
    }

    /// Does what was put off, if it can be done now.
    #[inline]
    pub(super) fn catch_up(&mut self) {
        if !self.postponed.is_empty() && !self.instance.keyspace.is_held() {
            self.do_postponed();
        }
    }

    #[cold]
    fn do_postponed(&mut self) {
        for what in std::mem::take(&mut self.postponed) {
            match what {
                Postponed::StopWaiting(waiter) => self.stop_waiting(&waiter),
                Postponed::Ready(db, key) => self.serve_waiters(db, &key),
                Postponed::Unwatch(keys, flag) => {
                    let instance = self.instance;
                    let now_ms = self.now_ms();
                    let plan = LockPlan::Keys(keys.iter().map(|(_, key)| hash_bytes(key)).collect());
                    let view = View::acquire(
                        &instance.keyspace,
                        &plan,
                        0,
                        now_ms,
                        self.effects.get_or_insert_default(),
                    );
                    let Some(mut view) = view else {
                        self.postponed.push(Postponed::Unwatch(keys, flag));
                        continue;
                    };
                    for (db, key) in &keys {
                        view.select(*db);
                        view.unwatch(key, &flag);
                    }
                }
            }
        }
        if self.has_effects() {
            self.settle();
        }
    }
}
