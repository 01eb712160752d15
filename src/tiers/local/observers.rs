//! Who waits for a change of a key in one shard: `WATCH`ing transactions and blocked clients.
//!
//! Everything here is guarded by the shard's lock, so a change and its observers cannot miss each other.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::protocol::{OwnedArgs, Protocol};

type Key = (usize, Box<[u8]>);

/// Set when a watched key changes; a transaction that finds it set is aborted.
#[derive(Debug, Clone, Default)]
pub struct WatchFlag(Arc<AtomicBool>);

impl WatchFlag {
    /// Marks the transaction as overtaken.
    pub fn raise(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether a watched key changed.
    pub fn is_raised(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }

    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// How a blocked client's wait ended.
#[derive(Debug)]
pub enum WaiterOutcome {
    /// Its command ran.
    Served {
        /// The encoded reply.
        encoded: Vec<u8>,
        /// What has to be acknowledged before the client gets it.
        journaled: Option<u64>,
    },
    /// Its command is to be run again: something has to be loaded first.
    Again,
    /// `CLIENT UNBLOCK`: with an error, or as if the time were up.
    Unblocked {
        /// Whether the client gets an error.
        with_error: bool,
    },
}

/// A client blocked on keys: its command, run again by whoever makes a key ready.
#[derive(Debug)]
pub struct Waiter {
    /// The client's id.
    pub client: u64,
    /// The database its keys are in.
    pub db: usize,
    /// The keys it waits for.
    pub keys: Vec<Box<[u8]>>,
    /// The command's index in the command table.
    pub command: usize,
    /// Its arguments.
    pub args: OwnedArgs,
    /// The protocol of its reply.
    pub protocol: Protocol,
    outcome: Mutex<Option<WaiterOutcome>>,
    notify: Notify,
}

impl Waiter {
    /// A waiter that is not registered anywhere yet.
    pub fn new(
        client: u64,
        db: usize,
        keys: Vec<Box<[u8]>>,
        command: usize,
        args: OwnedArgs,
        protocol: Protocol,
    ) -> Self {
        let (outcome, notify) = (Mutex::new(None), Notify::new());
        Self { client, db, keys, command, args, protocol, outcome, notify }
    }

    /// Ends the wait; the first outcome stands.
    pub fn finish(&self, outcome: WaiterOutcome) {
        self.outcome.lock().get_or_insert(outcome);
        self.notify.notify_one();
    }

    /// Whether the wait has ended.
    pub fn is_finished(&self) -> bool {
        self.outcome.lock().is_some()
    }

    /// The outcome, once.
    pub fn take_outcome(&self) -> Option<WaiterOutcome> {
        self.outcome.lock().take()
    }

    /// Resolves when the wait has ended.
    pub async fn finished(&self) {
        self.notify.notified().await;
    }
}

/// The observers of one shard's keys.
#[derive(Debug, Default)]
pub struct Observers {
    watchers: HashMap<Key, Vec<WatchFlag>>,
    waiters: HashMap<Key, VecDeque<Arc<Waiter>>>,
}

impl Observers {
    /// Whether nobody observes anything.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty() && self.waiters.is_empty()
    }

    /// Raises `flag` at the next change of the key.
    pub fn watch(&mut self, db: usize, key: &[u8], flag: &WatchFlag) {
        self.watchers.entry((db, key.into())).or_default().push(flag.clone());
    }

    /// Takes the flag back.
    pub fn unwatch(&mut self, db: usize, key: &[u8], flag: &WatchFlag) {
        let key: Key = (db, key.into());
        if let Some(flags) = self.watchers.get_mut(&key) {
            flags.retain(|other| !other.is(flag));
            if flags.is_empty() {
                self.watchers.remove(&key);
            }
        }
    }

    /// Queues a waiter behind those that wait for the key already.
    pub fn wait(&mut self, db: usize, key: &[u8], waiter: &Arc<Waiter>) {
        self.waiters.entry((db, key.into())).or_default().push_back(waiter.clone());
    }

    /// Takes a waiter out of the key's queue.
    pub fn stop_waiting(&mut self, db: usize, key: &[u8], waiter: &Arc<Waiter>) {
        let key: Key = (db, key.into());
        if let Some(queue) = self.waiters.get_mut(&key) {
            queue.retain(|other| !Arc::ptr_eq(other, waiter));
            if queue.is_empty() {
                self.waiters.remove(&key);
            }
        }
    }

    /// The waiter at `index` in the key's queue.
    pub fn waiter(&self, db: usize, key: &[u8], index: usize) -> Option<Arc<Waiter>> {
        self.waiters.get(&(db, Box::from(key)))?.get(index).cloned()
    }

    /// Notes a change: raises the watchers' flags and says whether somebody waits for the key.
    pub fn changed(&self, db: usize, key: &[u8]) -> bool {
        let key: Key = (db, key.into());
        for flag in self.watchers.get(&key).into_iter().flatten() {
            flag.raise();
        }
        self.waiters.contains_key(&key)
    }

    /// The keys of a database that are watched or waited for.
    pub fn keys_of(&self, db: usize) -> Vec<Box<[u8]>> {
        let mut keys: Vec<Box<[u8]>> = self
            .watchers
            .keys()
            .chain(self.waiters.keys())
            .filter(|(of, _)| *of == db)
            .map(|(_, key)| key.clone())
            .collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}
