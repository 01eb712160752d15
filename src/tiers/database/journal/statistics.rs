//! Counters.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{JournalError, Sequence};

/// How the journal is.
#[derive(Debug, Clone)]
pub struct Statistics {
    /// Segments on disk.
    pub segments: usize,
    /// Bytes of the segments.
    pub disk_bytes: u64,
    /// Bytes accepted and not yet written.
    pub buffered_bytes: u64,
    /// Records appended since it was opened.
    pub appended: u64,
    /// Records that are not complete.
    pub unfinished: u64,
    /// The first of them.
    pub oldest: Option<Sequence>,
    /// How old that one is, to a tenth of a second or so.
    pub oldest_age: Duration,
    /// Written up to here.
    pub written: Sequence,
    /// Synced up to here.
    pub durable: Sequence,
    /// Complete up to here.
    pub mark: Sequence,
    /// The mark that the checkpoint on disk has.
    pub checkpoint: Sequence,
    /// Writes (group commits).
    pub writes: u64,
    /// Syncs of segments.
    pub syncs: u64,
    /// The time they took.
    pub sync_time: Duration,
    /// The longest of them.
    pub longest_sync: Duration,
    /// Errors of the system, lack of space included.
    pub errors: u64,
    /// Reservations and appends refused.
    pub refused: u64,
    /// Why nothing is taken at the moment.
    pub trouble: Option<JournalError>,
}

/// What is counted as it happens.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub writes: AtomicU64,
    pub syncs: AtomicU64,
    pub sync_nanos: AtomicU64,
    pub longest_sync_nanos: AtomicU64,
    pub errors: AtomicU64,
    pub refused: AtomicU64,
}

impl Counters {
    pub fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_sync(&self, took: Duration) {
        let nanos = took.as_nanos() as u64;
        Self::count(&self.syncs);
        self.sync_nanos.fetch_add(nanos, Ordering::Relaxed);
        self.longest_sync_nanos.fetch_max(nanos, Ordering::Relaxed);
    }
}
