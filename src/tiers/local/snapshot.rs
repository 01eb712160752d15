//! Snapshots: the keyspace as it was at one moment, written while it changes.
//!
//! The moment is when all shards are locked at once and told of it. From then on whoever locks a shard first writes it
//! out, before he can change it; a thread that walks over all shards sees that each is. So no key is copied, and nobody
//! waits for more than one shard to be written.

use std::fs::File;
use std::io;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use super::keyspace::Keyspace;
use super::shard::Shard;
use crate::types::rdb::FileWriter;

/// How long to wait for a script that holds shards beyond its time.
const SCRIPT_WAIT: Duration = Duration::from_millis(10);

/// The snapshot that is being written, if one is.
#[derive(Default)]
pub(super) struct SnapshotState {
    /// Counts snapshots; a shard that knows of fewer is yet to be written.
    number: AtomicU64,
    sink: Mutex<Option<Sink>>,
}

/// Where it goes.
struct Sink {
    writer: FileWriter<File>,
    keys: u64,
    /// What ended the writing.
    error: Option<io::Error>,
}

impl Sink {
    fn write(&mut self, shard: &Shard) {
        if self.error.is_some() {
            return;
        }
        for (db, database) in shard.databases.iter().enumerate() {
            for entry in database.keys.iter() {
                let value = entry.value().source();
                if let Err(error) = self.writer.entry(db, entry.key(), value, entry.deadline()) {
                    self.error = Some(error);
                    return;
                }
                self.keys += 1;
            }
        }
    }
}

impl Keyspace {
    /// Writes all keys as they are at one moment of this call; how many those are. One at a time.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn snapshot(&self, writer: FileWriter<File>) -> io::Result<(FileWriter<File>, u64)> {
        let mut sink = Some(Sink { writer, keys: 0, error: None });
        // Nobody is to wait for shards that this holds while it waits for a script.
        while !self.begin_snapshot(&mut sink) {
            std::thread::sleep(SCRIPT_WAIT);
        }
        for shard in 0..self.shards() {
            while self.lock_unless_held(shard).is_none() {
                std::thread::sleep(SCRIPT_WAIT);
            }
        }
        match self.snapshot.sink.lock().take() {
            Some(Sink { writer, keys, error: None }) => Ok((writer, keys)),
            Some(Sink { error: Some(error), .. }) => Err(error),
            None => Err(io::Error::other("another snapshot took its place")),
        }
    }

    /// Locks all shards at once and tells them of the snapshot; says whether no script was in the way.
    fn begin_snapshot(&self, sink: &mut Option<Sink>) -> bool {
        let guards: Option<Vec<MutexGuard<'_, Shard>>> =
            (0..self.shards()).map(|shard| self.lock_unless_held(shard)).collect();
        if guards.is_some() {
            *self.snapshot.sink.lock() = sink.take();
            // Who locks a shard later sees it, as it is stored under all locks.
            self.snapshot.number.fetch_add(1, Relaxed);
        }
        guards.is_some()
    }

    /// Whether a shard that was just locked must be written out first.
    #[inline]
    pub(super) fn is_unsaved(&self, shard: &Shard) -> bool {
        shard.snapshots != self.snapshot.number.load(Relaxed)
    }

    /// Writes a shard out as it is, if that is still wanted.
    #[cold]
    pub(super) fn save_shard(&self, shard: &mut Shard) {
        if let Some(sink) = &mut *self.snapshot.sink.lock() {
            sink.write(shard);
        }
        shard.snapshots = self.snapshot.number.load(Relaxed);
    }

    /// How many changes there were since the start, as far as scripts let them be counted.
    pub fn changes(&self) -> u64 {
        let changes = |shard| self.lock_unless_held(shard).map_or(0, |shard| shard.counters.changes);
        (0..self.shards()).map(changes).sum()
    }
}
