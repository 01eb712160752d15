//! What the upstream tier counts.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Counters, read by `CACHE.STATS` and the metrics.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Reads answered from the near cache.
    pub hits: AtomicU64,
    /// Of those, how many while upstream was away.
    pub stale_hits: AtomicU64,
    /// Reads that had to be sent.
    pub misses: AtomicU64,
    /// Reads that waited for another client's.
    pub joined: AtomicU64,
    /// Replies kept.
    pub fills: AtomicU64,
    /// Replies not kept, because the key changed meanwhile.
    pub voided: AtomicU64,
    /// Keys that upstream said have changed.
    pub invalidations: AtomicU64,
    /// Times that all was dropped.
    pub flushes: AtomicU64,
    /// Replies evicted for want of memory.
    pub evictions: AtomicU64,
    /// Requests sent upstream for clients.
    pub requests: AtomicU64,
    /// Requests that failed for want of upstream.
    pub failures: AtomicU64,
    /// Connections made.
    pub connects: AtomicU64,
    /// Connections open.
    pub connections: AtomicI64,
    /// Hits compared with upstream.
    pub shadowed: AtomicU64,
    /// Of those, how many differed.
    pub mismatches: AtomicU64,
    /// Reads sent before what they refresh had expired.
    pub refreshes: AtomicU64,
}

/// Adds one.
#[inline]
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// A connection that is counted for as long as it is open.
#[derive(Debug)]
pub struct Counted(std::sync::Arc<Statistics>);

impl Counted {
    /// Counts one more.
    pub fn new(statistics: &std::sync::Arc<Statistics>) -> Self {
        statistics.connections.fetch_add(1, Relaxed);
        count(&statistics.connects);
        Self(statistics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Relaxed);
    }
}
