//! Loads under way: one per key however many ask, and void as soon as the key changes.
//!
//! A flight is registered before the backlog is asked and the row is read, and a change of the key voids it under the
//! shard's lock, after it was put into the backlog. So a row that was read before a change never comes into the cache after
//! it. A flight lives until the last request that asked for it has run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::install::Brought;
use super::store::Failure;

/// One load.
pub struct Flight {
    key: Box<[u8]>,
    void: AtomicBool,
    result: Mutex<Option<Result<Brought, Failure>>>,
    landed: Notify,
    flights: Arc<Flights>,
}

/// All of them.
#[derive(Default)]
pub struct Flights {
    by_key: Mutex<HashMap<Box<[u8]>, Weak<Flight>, ahash::RandomState>>,
    count: AtomicUsize,
}

impl Flights {
    /// The flight of a key, and whether the caller is to carry it out.
    pub fn join(self: &Arc<Self>, key: &[u8]) -> (Arc<Flight>, bool) {
        let mut by_key = self.by_key.lock();
        if let Some(flight) = by_key.get(key).and_then(Weak::upgrade).filter(|flight| !flight.is_void()) {
            return (flight, false);
        }
        let flight = Arc::new(Flight {
            key: key.into(),
            void: AtomicBool::new(false),
            result: Mutex::new(None),
            landed: Notify::new(),
            flights: Arc::clone(self),
        });
        by_key.insert(key.into(), Arc::downgrade(&flight));
        self.count.fetch_add(1, Ordering::SeqCst);
        (flight, true)
    }

    /// The key changed: what is being loaded must not be used.
    #[inline]
    pub fn void(&self, key: &[u8]) {
        if self.count.load(Ordering::SeqCst) > 0
            && let Some(flight) = self.by_key.lock().get(key).and_then(Weak::upgrade)
        {
            flight.void.store(true, Ordering::SeqCst);
        }
    }

    /// Anything may have changed.
    pub fn void_all(&self) {
        let flights: Vec<_> = self.by_key.lock().values().filter_map(Weak::upgrade).collect();
        flights.iter().for_each(|flight| flight.void.store(true, Ordering::SeqCst));
    }
}

impl Flight {
    /// The key.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Whether the key changed meanwhile.
    pub fn is_void(&self) -> bool {
        self.void.load(Ordering::SeqCst)
    }

    /// Whether it has landed, found nothing, and is still good.
    pub fn is_absent(&self) -> bool {
        !self.is_void() && matches!(*self.result.lock(), Some(Ok(Brought::Nothing)))
    }

    /// The load has ended.
    pub fn land(&self, result: Result<Brought, Failure>) {
        *self.result.lock() = Some(result);
        self.landed.notify_waiters();
    }

    /// What was loaded, once it is.
    pub async fn landed(&self) -> Result<Brought, Failure> {
        loop {
            let notified = self.landed.notified();
            tokio::pin!(notified);
            // Enabled before the look, so that a landing in between is not missed.
            notified.as_mut().enable();
            if let Some(result) = &*self.result.lock() {
                return result.clone();
            }
            notified.await;
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut by_key = self.flights.by_key.lock();
        self.flights.count.fetch_sub(1, Ordering::SeqCst);
        // A later flight of the key may have taken the place.
        if by_key.get(&self.key).is_some_and(|flight| flight.strong_count() == 0) {
            by_key.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_meanwhile_shares_the_load_until_the_key_changes() {
        let flights = Arc::new(Flights::default());
        let (first, leads) = flights.join(b"k");
        assert!(leads);
        assert!(!flights.join(b"k").1);
        flights.void(b"other");
        assert!(!first.is_void());
        flights.void(b"k");
        assert!(first.is_void());
        let (second, leads) = flights.join(b"k");
        assert!(leads && !second.is_void());
        drop(first);
        assert!(!flights.join(b"k").1, "the first one's end does not end the second");
        drop(second);
        assert!(flights.by_key.lock().is_empty());
        assert_eq!(flights.count.load(Ordering::SeqCst), 0);
    }
}
