//! Keys whose change is being committed: until that has ended, nobody else changes them.
//!
//! A lane is taken under the locks of its keys, and given back under them once the cache has what was committed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

type Key = (usize, Box<[u8]>);

/// All lanes.
#[derive(Default)]
pub struct Lanes {
    taken: Mutex<HashMap<Key, Arc<Notify>, ahash::RandomState>>,
    count: AtomicUsize,
}

/// Keys that are one's own until it is dropped.
pub struct Lane {
    lanes: &'static Lanes,
    keys: Vec<Key>,
    ended: Arc<Notify>,
}

impl Lanes {
    /// Takes a lane of keys, with their databases. None of them is taken: their locks are held, and that was asked.
    pub fn take(&'static self, mut keys: Vec<Key>) -> Lane {
        keys.sort_unstable();
        keys.dedup();
        let ended = Arc::new(Notify::new());
        let mut taken = self.taken.lock();
        for key in &keys {
            taken.insert(key.clone(), Arc::clone(&ended));
        }
        self.count.store(taken.len(), Ordering::SeqCst);
        Lane { lanes: self, keys, ended }
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }

    /// What tells when the lane that a key is in has ended, if it is in one. To be awaited with the lane still there.
    pub fn of(&self, db: usize, key: &[u8]) -> Option<Arc<Notify>> {
        if self.is_empty() { None } else { self.taken.lock().get(&(db, Box::from(key))).cloned() }
    }

    /// Resolves when none of these keys is in a lane any more; somebody may have taken another one since.
    pub async fn free(&self, keys: &[Key]) {
        for (db, key) in keys {
            while let Some(ended) = self.of(*db, key) {
                let notified = ended.notified();
                tokio::pin!(notified);
                // Enabled before it is asked again, so that the end in between is not missed.
                notified.as_mut().enable();
                if !self.of(*db, key).is_some_and(|now| Arc::ptr_eq(&now, &ended)) {
                    continue;
                }
                notified.await;
            }
        }
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        let mut taken = self.lanes.taken.lock();
        for key in &self.keys {
            taken.remove(key);
        }
        self.lanes.count.store(taken.len(), Ordering::SeqCst);
        drop(taken);
        self.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_goes_on_when_the_lane_ends() {
        let lanes: &'static Lanes = Box::leak(Box::default());
        let key = |name: &str| (0, Box::from(name.as_bytes()));
        let lane = lanes.take(vec![key("a"), key("b"), key("a")]);
        assert!(lanes.of(0, b"a").is_some() && lanes.of(1, b"a").is_none() && lanes.of(0, b"c").is_none());
        let waiting = tokio::spawn(async move { lanes.free(&[key("c"), key("b")]).await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(lane);
        waiting.await.unwrap();
        assert!(lanes.is_empty());
    }
}
