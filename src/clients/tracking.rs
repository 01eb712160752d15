//! `CLIENT TRACKING`: who keeps what he read, and is told when it has changed.
//!
//! What a client reads is noted under the lock of the key, and a change is told under it, so none is missed in between.
//! The message waits for the replies of what the client has run until then ([`super::pushes`]): whoever gets it has had the
//! old value before. As in Redis a key is told once, until it is read again, and databases are not told apart.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{AcqRel, Acquire, Relaxed},
};

use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::Clients;
use crate::protocol::{Protocol, Reply};
use crate::tiers::local::Listener;
use crate::types::hasher::hash_bytes;

const SHARDS: usize = 64;

thread_local! {
    /// The client whose command this thread runs.
    static RUNNING: Cell<u64> = const { Cell::new(0) };
}

/// Notes whose command this thread runs from here on.
pub fn note_running(client: u64) {
    RUNNING.set(client);
}

/// How a client wants to be told.
#[derive(Debug, Clone, Default)]
pub struct TrackingOptions {
    /// Of all keys that begin with one of the prefixes, whatever it reads.
    pub broadcast: bool,
    /// The prefixes.
    pub prefixes: Vec<Box<[u8]>>,
    /// Only of what it reads right after `CLIENT CACHING YES`.
    pub opt_in: bool,
    /// Not of what it reads right after `CLIENT CACHING NO`.
    pub opt_out: bool,
    /// Not of its own changes.
    pub no_loop: bool,
    /// By this connection, if not 0.
    pub redirect: u64,
}

/// A client that is told of changes.
#[derive(Debug)]
pub struct Tracker {
    /// Its number.
    pub id: u64,
    /// How it is told.
    pub options: TrackingOptions,
    /// The connection that it is to be told by is gone.
    pub is_broken: AtomicBool,
}

type Keys = HashMap<Box<[u8]>, SmallVec<[u64; 2]>>;

/// Who is told of what.
pub struct Tracking {
    trackers: RwLock<HashMap<u64, Arc<Tracker>>>,
    /// How many they are.
    active: AtomicUsize,
    keys: [Mutex<Keys>; SHARDS],
    /// Changes that were told of, of the keys of each part: whoever reads what comes from elsewhere compares.
    changes: [AtomicU64; SHARDS],
    count: AtomicUsize,
    prefixes: RwLock<BTreeMap<Box<[u8]>, Vec<u64>>>,
}

impl Default for Tracking {
    fn default() -> Self {
        Self {
            trackers: RwLock::default(),
            active: AtomicUsize::new(0),
            keys: std::array::from_fn(|_| Mutex::default()),
            changes: std::array::from_fn(|_| AtomicU64::new(0)),
            count: AtomicUsize::new(0),
            prefixes: RwLock::default(),
        }
    }
}

impl Tracker {
    /// Whether what is read now is noted, by whether `CLIENT CACHING` came right before.
    pub fn notes(&self, is_caching: bool) -> bool {
        let options = &self.options;
        let is_wanted = if options.opt_in { is_caching } else { !(options.opt_out && is_caching) };
        is_wanted && !options.broadcast
    }
}

impl Tracking {
    /// Has a client told of changes, or told in another way.
    pub fn enable(&self, tracker: Arc<Tracker>) {
        let mut prefixes = self.prefixes.write();
        for prefix in &tracker.options.prefixes {
            let clients = prefixes.entry(prefix.clone()).or_default();
            if !clients.contains(&tracker.id) {
                clients.push(tracker.id);
            }
        }
        drop(prefixes);
        let mut trackers = self.trackers.write();
        trackers.insert(tracker.id, tracker);
        self.active.store(trackers.len(), Relaxed);
    }

    /// Has a client told no more. What it read is forgotten when that changes, or with the last client of all.
    pub fn disable(&self, tracker: &Tracker) {
        self.prefixes.write().retain(|_, clients| {
            clients.retain(|client| *client != tracker.id);
            !clients.is_empty()
        });
        let mut trackers = self.trackers.write();
        trackers.remove(&tracker.id);
        self.active.store(trackers.len(), Relaxed);
        if trackers.values().all(|tracker| tracker.options.broadcast) {
            self.forget_keys();
        }
    }

    fn forget_keys(&self) {
        for keys in &self.keys {
            let forgotten = std::mem::take(&mut *keys.lock());
            self.count.fetch_sub(forgotten.len(), Relaxed);
        }
    }

    /// How a client is told.
    pub fn tracker(&self, client: u64) -> Option<Arc<Tracker>> {
        self.trackers.read().get(&client).cloned()
    }

    /// Clients that are told, keys that were read by them, who read them, and prefixes.
    pub fn figures(&self) -> (usize, usize, usize, usize) {
        let items = self.keys.iter().map(|keys| keys.lock().values().map(SmallVec::len).sum::<usize>());
        let (trackers, prefixes) = (self.trackers.read().len(), self.prefixes.read().len());
        (trackers, self.count.load(Relaxed), items.sum(), prefixes)
    }

    fn shard(&self, key: &[u8]) -> &Mutex<Keys> {
        &self.keys[part_of(key)]
    }

    /// A number that is another one once a key has changed, and maybe before.
    pub fn stamp(&self, key: &[u8]) -> u64 {
        self.changes[part_of(key)].load(Acquire)
    }
}

fn part_of(key: &[u8]) -> usize {
    (hash_bytes(key) >> 48) as usize % SHARDS
}

impl Clients {
    /// Notes that a client has read a key whose lock is not held here, and had this stamp before it was read. If it may
    /// have changed meanwhile, the client is told at once.
    pub fn note_read_since(&self, tracker: &Tracker, key: &[u8], stamp: u64, most: usize) {
        self.note_read(tracker, key, most);
        if self.tracking.stamp(key) != stamp {
            self.push(tracker, Some(key));
        }
    }

    /// Tells a client of a key that nobody will tell it of.
    pub fn tell_at_once(&self, tracker: &Tracker, key: &[u8]) {
        self.push(tracker, Some(key));
    }

    /// Notes that a client has read a key. If there are more of them than `most`, another is told as if it had changed.
    pub fn note_read(&self, tracker: &Tracker, key: &[u8], most: usize) {
        let tracking = &self.tracking;
        let mut keys = tracking.shard(key).lock();
        match keys.get_mut(key) {
            Some(readers) if readers.contains(&tracker.id) => return,
            Some(readers) => return readers.push(tracker.id),
            None => drop(keys.insert(key.into(), SmallVec::from_slice(&[tracker.id]))),
        }
        tracking.count.fetch_add(1, Relaxed);
        if most > 0 && tracking.count.load(Relaxed) > most {
            // Which one is met first is random with the map's hashes.
            let other = keys.keys().find(|other| ***other != *key).cloned();
            if let Some(other) = other
                && let Some(readers) = keys.remove(&other)
            {
                tracking.count.fetch_sub(1, Relaxed);
                drop(keys);
                self.tell(&readers, &other, 0);
            }
        }
    }

    fn tell(&self, readers: &[u64], key: &[u8], by: u64) {
        for reader in readers {
            let Some(tracker) = self.tracking.tracker(*reader) else { continue };
            if !tracker.options.broadcast {
                self.tell_one(&tracker, key, by);
            }
        }
    }

    fn tell_readers(&self, key: &[u8], by: u64) {
        // Before it is looked who has read it: whoever is noted later sees it.
        self.tracking.changes[part_of(key)].fetch_add(1, AcqRel);
        let readers = self.tracking.shard(key).lock().remove(key);
        if let Some(readers) = readers {
            self.tracking.count.fetch_sub(1, Relaxed);
            self.tell(&readers, key, by);
        }
    }

    fn tell_others(&self, key: &[u8], by: u64) {
        let prefixes = self.tracking.prefixes.read();
        for (_, clients) in prefixes.iter().filter(|(prefix, _)| key.starts_with(prefix)) {
            for client in clients {
                if let Some(tracker) = self.tracking.tracker(*client) {
                    self.tell_one(&tracker, key, by);
                }
            }
        }
    }

    fn tell_one(&self, tracker: &Tracker, key: &[u8], by: u64) {
        if !tracker.options.no_loop || by != tracker.id {
            self.push(tracker, Some(key));
        }
    }

    /// Sends the message that a key has changed, or any.
    fn push(&self, tracker: &Tracker, key: Option<&[u8]>) {
        let redirect = tracker.options.redirect;
        let mut message = Vec::new();
        let Some(target) = self.get(if redirect == 0 { tracker.id } else { redirect }) else {
            tracker.is_broken.store(true, Relaxed);
            let mut reply = Reply::new(&mut message, Protocol::Resp3);
            reply.push(2);
            reply.bulk(b"tracking-redir-broken");
            reply.integer(redirect as i64);
            // What cannot be told in RESP2 is not told, as in Redis.
            if let Some(own) = self.get(tracker.id).filter(|own| own.resp3.load(Relaxed)) {
                own.push(&message);
            }
            return;
        };
        let resp3 = target.resp3.load(Relaxed);
        // In RESP2 it is a message on a channel, to one that is redirected to and listens to whatever.
        if !resp3 && (redirect == 0 || !target.is_subscribed()) {
            return;
        }
        let mut reply = Reply::new(&mut message, if resp3 { Protocol::Resp3 } else { Protocol::Resp2 });
        if resp3 {
            reply.push(2);
            reply.bulk(b"invalidate");
        } else {
            reply.array(3);
            reply.bulk(b"message");
            reply.bulk(b"__redis__:invalidate");
        }
        match key {
            Some(key) => {
                reply.array(1);
                reply.bulk(key);
            }
            None => reply.null(),
        }
        target.push(&message);
    }
}

impl Listener for Clients {
    fn changed(&self, key: &[u8], of_itself: bool) {
        if self.tracking.active.load(Relaxed) == 0 {
            return;
        }
        let by = if of_itself { 0 } else { RUNNING.get() };
        self.tell_readers(key, by);
        self.tell_others(key, by);
    }

    fn changed_for_readers(&self, key: &[u8]) {
        if self.tracking.active.load(Relaxed) > 0 {
            self.tell_readers(key, 0);
        }
    }

    fn changed_for_others(&self, key: &[u8]) {
        self.tell_others(key, 0);
    }

    fn has_others(&self) -> bool {
        !self.tracking.prefixes.read().is_empty()
    }

    fn missed_by_others(&self) {
        let trackers: Vec<_> = self.tracking.trackers.read().values().cloned().collect();
        for tracker in trackers.iter().filter(|tracker| tracker.options.broadcast) {
            self.push(tracker, None);
        }
    }

    fn flushed(&self) {
        if self.tracking.active.load(Relaxed) == 0 {
            return;
        }
        for changes in &self.tracking.changes {
            changes.fetch_add(1, AcqRel);
        }
        self.tracking.forget_keys();
        let trackers: Vec<_> = self.tracking.trackers.read().values().cloned().collect();
        trackers.iter().for_each(|tracker| self.push(tracker, None));
    }
}
