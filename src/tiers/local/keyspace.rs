//! The keyspace: shards that all threads share, each behind a lock of its own.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use super::entry::Entry;
use super::eviction::EvictionState;
use super::listener::Listener;
use super::mirror::Mirror;
use super::shard::{Shard, ShardCounters};
use super::snapshot::SnapshotState;
use crate::config::Settings;
use crate::types::prefetch::Part;

/// Many more than there are threads, so that two threads rarely meet; a power of two.
const SHARDS: usize = 256;
/// Who waits for a lock looks this often whether it is worth waiting.
const HELD_CHECK: Duration = Duration::from_millis(10);

/// The keys of all databases.
pub struct Keyspace {
    shards: Box<[CachePadded<Mutex<Shard>>]>,
    databases: usize,
    settings: Arc<Settings>,
    /// Scripts that run past their time, with shards locked.
    holders: AtomicUsize,
    pub(super) eviction: EvictionState,
    pub(super) snapshot: SnapshotState,
    /// The tier that is told of changes, if there is one.
    pub(super) mirror: OnceLock<&'static dyn Mirror>,
    /// Who is told of changes while anybody wants to hear of them.
    pub(super) listener: OnceLock<&'static dyn Listener>,
    pub(super) listening: AtomicUsize,
}

/// Sums over all shards.
pub type KeyspaceCounters = ShardCounters;

impl Keyspace {
    /// An empty keyspace.
    pub fn new(databases: usize, settings: Arc<Settings>) -> Self {
        let shard = || CachePadded::new(Mutex::new(Shard::new(databases, settings.maxmemory_policy())));
        let shards = (0..SHARDS).map(|_| shard()).collect();
        let (holders, mirror) = (AtomicUsize::new(0), OnceLock::new());
        let (listener, listening, eviction) =
            (OnceLock::new(), AtomicUsize::new(0), EvictionState::default());
        let snapshot = SnapshotState::default();
        Self { shards, databases, settings, holders, eviction, snapshot, mirror, listener, listening }
    }

    /// How many databases there are.
    pub fn databases(&self) -> usize {
        self.databases
    }

    /// The settings it follows.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// How many keys there are in all databases, one shard locked after the other.
    pub fn len(&self) -> usize {
        let count = |shard: usize| {
            let count =
                |shard: &Shard| shard.databases.iter().map(|database| database.keys.len()).sum::<usize>();
            self.lock_unless_held(shard).map_or(0, |shard| count(&shard))
        };
        (0..self.shards()).map(count).sum()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Locks one shard.
    #[inline]
    pub(super) fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.saved(self.shards[shard].lock())
    }

    /// A shard that is written out before it can be changed, if a snapshot is to have it as it is.
    #[inline]
    fn saved<'a>(&'a self, mut guard: MutexGuard<'a, Shard>) -> MutexGuard<'a, Shard> {
        if self.is_unsaved(&guard) {
            self.save_shard(&mut guard);
        }
        guard
    }

    /// Locks one shard; gives up if a script holds it that has had its time.
    #[inline]
    pub(super) fn lock_unless_held(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        match self.shards[shard].try_lock() {
            Some(guard) => Some(self.saved(guard)),
            None => self.wait_unless_held(shard),
        }
    }

    #[cold]
    fn wait_unless_held(&self, shard: usize) -> Option<MutexGuard<'_, Shard>> {
        loop {
            if let Some(guard) = self.shards[shard].try_lock_for(HELD_CHECK) {
                return Some(self.saved(guard));
            }
            if self.is_held() {
                return None;
            }
        }
    }

    /// From here on a script holds its locks beyond its time: nobody is to wait for them.
    pub fn begin_hold(&self) {
        self.holders.fetch_add(1, Relaxed);
    }

    /// The script is over.
    pub fn end_hold(&self) {
        self.holders.fetch_sub(1, Relaxed);
    }

    /// Whether a script holds locks beyond its time.
    #[inline]
    pub fn is_held(&self) -> bool {
        self.holders.load(Relaxed) > 0
    }

    /// Starts the key's bucket on its way into the cache. Does nothing if somebody else is at the shard.
    #[inline]
    pub fn prefetch_bucket(&self, hash: u64, db: usize) {
        if let Some(shard) = self.shards[Self::shard_of(hash)].try_lock() {
            shard.databases[db].keys.prefetch(hash);
        }
    }

    /// Starts the key's entry on its way into the cache, once its bucket is there.
    #[inline]
    pub fn prefetch_entry(&self, hash: u64, db: usize) {
        if let Some(shard) = self.shards[Self::shard_of(hash)].try_lock() {
            shard.databases[db].keys.prefetch_element(hash);
        }
    }

    /// The same for an entry of which no more than the head is read: its value lies elsewhere.
    #[inline]
    pub fn prefetch_head(&self, hash: u64, db: usize) {
        if let Some(shard) = self.shards[Self::shard_of(hash)].try_lock() {
            shard.databases[db].keys.each_candidate(hash, Entry::prefetch_head);
        }
    }

    /// Starts a part of the key's value on its way into the cache, once its entry is there.
    #[inline]
    pub fn prefetch_part(&self, hash: u64, db: usize, part: Part) {
        if let Some(shard) = self.shards[Self::shard_of(hash)].try_lock() {
            shard.databases[db].keys.each_candidate(hash, |entry| {
                if let Some(value) = entry.as_object() {
                    value.prefetch(part);
                }
            });
        }
    }

    /// The shard of a key with this hash: bits that neither a table's index nor its tags use first.
    #[inline]
    pub(super) fn shard_of(hash: u64) -> usize {
        (hash >> 40) as usize & (SHARDS - 1)
    }
}
