//! Which server is the master, as far as connections have found out, where Sentinels say so.
//!
//! While a failover goes on, the old master may still answer. Whoever has been at the new one must not read what the old one
//! says, nor what is kept of it. So the first connection to a new master drops all that is kept, and the shared connections
//! to another server take no further reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::near::Near;

/// The present master, and how often it was another before.
#[derive(Debug)]
pub struct Master {
    near: Arc<Near>,
    address: Mutex<Option<(String, u16)>>,
    term: AtomicU64,
    changed: Notify,
}

impl Master {
    /// None is known.
    pub fn new(near: Arc<Near>) -> Self {
        Self { near, address: Mutex::new(None), term: AtomicU64::new(0), changed: Notify::new() }
    }

    /// A connection is at this master, and has not asked it for anything yet. Returns its term.
    pub fn found(&self, address: (String, u16)) -> u64 {
        let mut known = self.address.lock();
        if known.as_ref() != Some(&address) {
            let is_other = known.replace(address).is_some();
            if is_other {
                self.term.fetch_add(1, Ordering::AcqRel);
                self.near.drop_all();
                self.changed.notify_waiters();
            }
        }
        self.term()
    }

    /// The present term.
    pub fn term(&self) -> u64 {
        self.term.load(Ordering::Acquire)
    }

    /// Resolves when this term is over.
    pub async fn end_of(&self, term: u64) {
        loop {
            let changed = self.changed.notified();
            if self.term() != term {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::upstream::statistics::Statistics;

    #[test]
    fn another_master_ends_the_term_and_what_is_kept() {
        let near = Arc::new(Near::new(1000, 0, false, Arc::new(Statistics::default())));
        let master = Master::new(near.clone());
        let (one, two) = (("one".to_owned(), 1), ("two".to_owned(), 1));
        let epoch = near.epoch();
        assert_eq!((master.found(one.clone()), master.found(one.clone()), near.epoch()), (0, 0, epoch));
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let end = master.end_of(0);
            tokio::pin!(end);
            tokio::select! {
                biased;
                () = &mut end => panic!("it is not over"),
                () = std::future::ready(()) => {}
            }
            assert_eq!((master.found(two), near.epoch()), (1, epoch + 1));
            end.await;
            master.end_of(0).await;
        });
        assert_eq!((master.found(one), near.epoch()), (2, epoch + 2));
    }
}
