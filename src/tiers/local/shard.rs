//! One shard: the keys of all databases whose hashes fall into it, behind one lock.

use super::entry::Entry;
use super::observers::Observers;
use crate::config::Policy;
use crate::types::equality::same_bytes;
use crate::types::s3fifo::S3Fifo;
use crate::types::table::Table;

/// What a shard's lock guards.
pub struct Shard {
    pub(super) databases: Vec<Database>,
    /// Present while somebody watches or waits for a key here.
    pub(super) observers: Option<Box<Observers>>,
    /// Counted under the lock, summed when asked for.
    pub(super) counters: ShardCounters,
    /// How many snapshots it was written into.
    pub(super) snapshots: u64,
}

/// The part of one database that lies in one shard.
#[derive(Default)]
pub struct Database {
    pub(super) keys: Table<Entry>,
    /// Keys with a deadline.
    pub(super) volatile: usize,
    /// There was a hash with fields that expire.
    pub(super) expires_fields: bool,
    /// Where the sweep for expired keys goes on.
    pub(super) sweep: usize,
    /// The queues of `allkeys-s3fifo`, while that is the policy.
    pub(super) queues: Option<Box<S3Fifo>>,
}

/// Events in one shard since the start.
#[derive(Debug, Default, Clone, Copy)]
pub struct ShardCounters {
    /// Changes to keys.
    pub changes: u64,
    /// Reads that found their key.
    pub hits: u64,
    /// Reads that did not.
    pub misses: u64,
    /// Keys removed because their deadline passed.
    pub expired: u64,
    /// Fields of hashes removed because theirs did.
    pub expired_fields: u64,
    /// Keys removed to make room.
    pub evicted: u64,
}

impl Shard {
    /// An empty shard, with queues for `allkeys-s3fifo` if that is the policy.
    pub(super) fn new(databases: usize, policy: Policy) -> Self {
        let queues = || (policy == Policy::AllkeysS3fifo).then(Box::default);
        let database = || Database { queues: queues(), ..Database::default() };
        Self {
            databases: (0..databases).map(|_| database()).collect(),
            observers: None,
            counters: ShardCounters::default(),
            snapshots: 0,
        }
    }
}

impl Database {
    #[inline]
    pub(super) fn find(&self, hash: u64, key: &[u8]) -> Option<&Entry> {
        self.keys.find(hash, |entry| same_bytes(entry.key(), key))
    }

    #[inline]
    pub(super) fn find_mut(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        self.keys.find_mut(hash, |entry| same_bytes(entry.key(), key))
    }

    /// Adds an entry whose key is absent.
    #[inline]
    pub(super) fn insert(&mut self, hash: u64, mut entry: Entry) -> &mut Entry {
        self.volatile += usize::from(entry.deadline().is_some());
        self.expires_fields |= entry.has_deadlines_of_fields();
        if let Some(queues) = &mut self.queues {
            entry.set_mark(super::eviction::first_mark(queues.on_insert(hash)));
            if queues.wants_sweep(self.keys.len()) {
                let keys = &self.keys;
                queues.sweep(|id| super::eviction::resident(keys, id).is_some());
            }
        }
        self.keys.insert_unique(hash, entry)
    }

    /// Takes an entry out.
    #[inline]
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) -> Option<Entry> {
        let entry = self.keys.remove(hash, |entry| same_bytes(entry.key(), key))?;
        self.volatile -= usize::from(entry.deadline().is_some());
        Some(entry)
    }

    /// Notes that an entry that had this deadline, or none, has that one now.
    #[inline]
    pub(super) fn deadline_changed(&mut self, hash: u64, had: Option<u64>, deadline: Option<u64>) {
        match (had, deadline) {
            // What the table knows is a lower bound, which a later deadline leaves true.
            (Some(had), Some(deadline)) if deadline >= had => {}
            (had, Some(deadline)) => {
                self.volatile += usize::from(had.is_none());
                self.keys.note_deadline(hash, deadline);
            }
            (had, None) => self.volatile -= usize::from(had.is_some()),
        }
    }

    /// Notes that a hash has fields that expire, and when the first does.
    pub(super) fn fields_expire(&mut self, hash: u64, due: u64) {
        self.expires_fields = true;
        self.keys.note_deadline(hash, due);
    }

    /// Whether there may be anything in it that expires.
    pub(super) fn may_expire(&self) -> bool {
        self.volatile > 0 || self.expires_fields
    }

    /// Empties it, handing the keys over.
    pub(super) fn take_keys(&mut self) -> Table<Entry> {
        self.volatile = 0;
        self.expires_fields = false;
        self.sweep = 0;
        if let Some(queues) = &mut self.queues {
            **queues = S3Fifo::default();
        }
        std::mem::take(&mut self.keys)
    }
}
