//! What stands before a database, whoever accepts the changes: the rules, the store, what waits for it, and its flushing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use super::backlog::Backlog;
use super::queries::Results;
use super::readiness::Readiness;
use super::rules::Rules;
use super::store::{Changes, Store};
use crate::clock;
use crate::config::database::DatabaseConfig;

/// What is counted.
#[derive(Debug, Default)]
pub struct Counters {
    /// Batches committed.
    pub batches: AtomicU64,
    /// Changes committed.
    pub changes: AtomicU64,
    /// Nanoseconds that commits took.
    pub batch_nanos: AtomicU64,
    /// Tries that the database could not serve.
    pub retries: AtomicU64,
    /// Changes put among the dead letters.
    pub dead_letters: AtomicU64,
    /// Rows read.
    pub loads: AtomicU64,
    /// Reads that failed.
    pub failed_loads: AtomicU64,
    /// Changes that the journal did not take although the cache has them.
    pub unjournaled: AtomicU64,
    /// Batches under way whose last try failed.
    pub failing: AtomicUsize,
}

/// Who accepted the records of the backlog, and keeps them until they are done.
pub trait Journaled: Send + Sync {
    /// A key has nothing waiting any more. The backlog is locked.
    fn settled(&self, key: &[u8]);

    /// These records are in the database, or among the dead letters.
    fn complete(&self, sequences: Vec<u64>);
}

/// A database, and what waits for it.
pub struct Backend {
    /// Which keys are rows.
    pub rules: Arc<Rules>,
    /// The section of the configuration.
    pub config: DatabaseConfig,
    /// The database.
    pub store: Arc<dyn Store>,
    /// Whether it was seen to be as it should be.
    pub readiness: Readiness,
    /// What is counted.
    pub counters: Counters,
    /// Results of named queries.
    pub results: Results,
    /// Where calls of the database run.
    pub runtime: tokio::runtime::Handle,
    pub(super) backlog: Mutex<Backlog>,
    pub(super) work: Notify,
    pub(super) done: watch::Sender<u64>,
    /// Records up to this slot are to be flushed without waiting for a batch to fill.
    pub(super) hurry: AtomicU64,
    pub(super) stopping: AtomicBool,
}

impl Backend {
    /// A database, and the records that wait for it already, which go there at once. Calls of it will run on the runtime
    /// that this is called on.
    pub fn new(
        config: &DatabaseConfig,
        store: Arc<dyn Store>,
        rules: Arc<Rules>,
        readiness: Readiness,
        backlog: Backlog,
    ) -> Self {
        let hurry = AtomicU64::new(backlog.end());
        Self {
            rules,
            config: config.clone(),
            store,
            readiness,
            counters: Counters::default(),
            results: Results::default(),
            runtime: tokio::runtime::Handle::current(),
            backlog: Mutex::new(backlog),
            work: Notify::new(),
            done: watch::channel(0).0,
            hurry,
            stopping: AtomicBool::new(false),
        }
    }

    /// Adds a record.
    pub fn push(&self, sequence: u64, changes: Changes) {
        if self.backlog.lock().push(sequence, changes, self.config.batch_size) {
            self.work.notify_one();
        }
    }

    /// Has what was accepted until now flushed without waiting for batches to fill.
    pub fn hurry(&self) -> u64 {
        let end = self.backlog.lock().end();
        self.hurry.fetch_max(end, Ordering::SeqCst);
        self.work.notify_one();
        end
    }

    /// Flushes what is in the backlog now; says whether it was done in time.
    pub async fn flush(&self, timeout: Option<Duration>) -> bool {
        let end = self.hurry();
        let mut done = self.done.subscribe();
        // The sender lives as long as this.
        let flushed = async { done.wait_for(|done| *done >= end).await.is_ok() };
        match timeout {
            Some(timeout) => tokio::time::timeout(timeout, flushed).await.unwrap_or(false),
            None => flushed.await,
        }
    }

    /// Changes that wait, and for how long the oldest has.
    pub fn depth(&self) -> (usize, Duration) {
        let backlog = self.backlog.lock();
        let age = backlog.oldest().map_or(Duration::ZERO, |oldest| clock::monotonic() - oldest);
        (backlog.depth(), age)
    }
}
