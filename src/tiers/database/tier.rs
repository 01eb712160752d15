//! The database tier as the others use it: what must be loaded, what was changed, and until when to wait.
//!
//! Invariants:
//! - A change gets its sequence, and its place in the backlog, under the lock of the key's shard and under one lock of
//!   the backlog, so both have the order in which the cache changed.
//! - Calls of the database run on the tier's own runtime; whoever waits for them waits without a lock.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::backend::{Backend, Journaled};
use super::backlog::Backlog;
use super::encoding::{self, Unreadable};
use super::flights::{Flight, Flights};
use super::journal::{self, Fsync, Journal, JournalError, OpenError, Sequence};
use super::readiness::{self, Readiness};
use super::rules::{RuleError, Rules};
use super::store::{Changes, Failure, RowState, SetupError, Store};
use super::{install, lanes::Lanes};
use crate::clock;
use crate::config::database::{DatabaseConfig, JournalFsync};
use crate::protocol::ReplyError;
use crate::tiers::local::Keyspace;

/// Absent rows remembered at most; beyond it all are forgotten.
const MAX_ABSENCES: usize = 100_000;

/// Why the tier cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A rule is wrong.
    #[error(transparent)]
    Rule(#[from] RuleError),
    /// The database is not as it should be.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// It cannot be asked.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The journal cannot be opened.
    #[error("journal: {0}")]
    Journal(#[from] OpenError),
    /// The journal holds what the configuration no longer knows.
    #[error(
        "the journal's record {sequence} cannot be replayed: {reason}; configure it as before until it is flushed"
    )]
    Replay {
        /// The record.
        sequence: Sequence,
        /// Why.
        reason: Unreadable,
    },
    /// A thread or runtime cannot be started.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// What a client is told whose write the journal does not take.
pub fn refusal(error: &JournalError) -> ReplyError {
    match error {
        JournalError::Full(_) => ReplyError::new(format!(
            "BUSY the write is refused, the database has not taken those before it: {error}"
        )),
        _ => ReplyError::new(format!("IOERR {error}; writes are refused")),
    }
}

/// The tier.
pub struct Tier {
    /// The database, and what waits for it.
    pub backend: Backend,
    /// What was accepted.
    pub journal: Journal,
    /// Loads under way.
    pub flights: Arc<Flights>,
    /// A change has waited for longer than it may.
    is_overdue: AtomicBool,
    /// Keys whose change is being committed.
    pub lanes: Lanes,
    /// Keys that others changed in the database while they could not be dropped from the cache.
    pub(super) stale: Mutex<HashSet<Box<[u8]>, ahash::RandomState>>,
    /// The cache, once rows are dropped from it.
    pub(super) keyspace: OnceLock<&'static Keyspace>,
    absences: Mutex<HashMap<Box<[u8]>, Instant, ahash::RandomState>>,
    /// Those of them that nothing waits for any more, since the backlog was last locked.
    unpinned: Mutex<Vec<Box<[u8]>>>,
    progress: Arc<Notify>,
}

impl Tier {
    /// Opens the tier: holds the rules against the database, replays the journal.
    ///
    /// # Errors
    /// Why it cannot start.
    pub async fn open(
        config: &DatabaseConfig,
        directory: &Path,
        store: Arc<dyn Store>,
        rules: Arc<Rules>,
    ) -> Result<Self, StartError> {
        // A journal says that the database was as it should be before.
        let had_journal = std::fs::read_dir(directory).is_ok_and(|mut files| files.next().is_some());
        let (first_sequence, readiness) = match readiness::ask(&*store).await? {
            Ok(first) => (first, Readiness::checked()),
            Err(why) if had_journal => {
                tracing::warn!(
                    "the database cannot be reached ({why}): what is accepted waits in the journal"
                );
                (readiness::version_floor(clock::wall_ms()), Readiness::away(why))
            }
            Err(why) => return Err(SetupError::Unreachable(why).into()),
        };
        let options = journal::Options {
            fsync: match config.journal_fsync {
                JournalFsync::Always => Fsync::Always,
                JournalFsync::EverySecond => Fsync::EverySecond,
                JournalFsync::No => Fsync::No,
            },
            max_size: config.journal_max_size.0,
            first_sequence,
            ..journal::Options::default()
        };
        let (mut backlog, mut unreadable, mut empty) = (Backlog::new(&rules), None, Vec::new());
        let (journal, report) =
            Journal::open(directory, options, |sequence, payload| {
                match encoding::decode(&rules, sequence, payload) {
                    Ok(changes) if changes.is_empty() => empty.push(sequence),
                    Ok(changes) => drop(backlog.push(sequence, changes, config.batch_size)),
                    Err(reason) => drop(unreadable.get_or_insert((sequence, reason))),
                }
            })?;
        if let Some((sequence, reason)) = unreadable {
            return Err(StartError::Replay { sequence, reason });
        }
        journal.complete(empty);
        if report.records > 0 {
            tracing::info!(records = report.records, "replayed the journal: they go to the database now");
        }
        let progress = Arc::new(Notify::new());
        let waiters = Arc::clone(&progress);
        journal.on_progress(Box::new(move || waiters.notify_waiters()));
        Ok(Self {
            backend: Backend::new(config, store, rules, readiness, backlog),
            journal,
            flights: Arc::default(),
            is_overdue: AtomicBool::new(false),
            lanes: Lanes::default(),
            stale: Mutex::default(),
            keyspace: OnceLock::new(),
            absences: Mutex::default(),
            unpinned: Mutex::default(),
            progress,
        })
    }

    /// Whether the journal has room for so many bytes more: to be asked before the cache is changed.
    ///
    /// # Errors
    /// It is full, or has failed, or what it holds has waited for too long.
    pub fn admit(&self, bytes: usize) -> Result<(), ReplyError> {
        if self.is_overdue.load(Ordering::Relaxed) {
            return Err(ReplyError::new(format!(
                "BUSY the write is refused, the database has not taken those before it: one has waited for over {:?}",
                self.backend.config.journal_max_age.0
            )));
        }
        self.journal.reserve(bytes).map(drop).map_err(|error| refusal(&error))
    }

    /// Looks again and again whether a change has waited for longer than it may. Ends at once if it may for ever.
    pub(super) async fn watch_age(&self) {
        const STEP: Duration = Duration::from_millis(100);
        let most = self.backend.config.journal_max_age.0;
        while !most.is_zero() {
            tokio::time::sleep(STEP.min(most / 4)).await;
            let (_, age) = self.backend.depth();
            if self.is_overdue.swap(age > most, Ordering::Relaxed) != (age > most) {
                tracing::warn!(
                    ?age,
                    refused = age > most,
                    "writes under rules of the database: the oldest's wait"
                );
            }
        }
    }

    /// Brings into the cache what waits of keys with these hashes, which are about to change.
    pub fn prefetch(&self, hashes: impl Iterator<Item = u64>) {
        if let Some(backlog) = self.backend.backlog.try_lock() {
            backlog.prefetch(hashes);
        }
    }

    /// Takes changes that were made to the cache, with the locks of their keys held.
    ///
    /// # Errors
    /// The journal did not take them.
    pub fn accept(&self, mut changes: Changes) -> Result<Sequence, JournalError> {
        let payload = encoding::encode(&self.backend.rules, &changes);
        let count = changes.len();
        for change in &changes {
            self.changed(&change.key);
        }
        let (is_due, sequence) = {
            let mut backlog = self.backend.backlog.lock();
            let sequence = self.journal.append_regardless(&[&payload]).inspect_err(|error| {
                self.backend.counters.unjournaled.fetch_add(count as u64, Ordering::Relaxed);
                tracing::error!(%error, "the journal did not take what the cache has");
            })?;
            changes.iter_mut().for_each(|change| change.version = sequence as i64);
            (backlog.push(sequence, changes, self.backend.config.batch_size), sequence)
        };
        if is_due {
            self.backend.work.notify_one();
        }
        Ok(sequence)
    }

    /// A version above all before it, for a change that does not go through the backlog.
    ///
    /// # Errors
    /// The journal gives none.
    pub fn next_version(&self) -> Result<i64, JournalError> {
        let sequence = self.journal.append_regardless(&[&encoding::encode(&self.backend.rules, &[])])?;
        self.journal.complete([sequence]);
        Ok(sequence as i64)
    }

    /// A key changed, here or in the database: nothing that was learnt about it before holds.
    pub fn changed(&self, key: &[u8]) {
        self.flights.void(key);
        let mut absences = self.absences.lock();
        if !absences.is_empty() {
            absences.remove(key);
        }
    }

    /// Whether a key is a row, by the rules.
    pub fn is_row(&self, key: &[u8]) -> bool {
        self.backend.rules.find(key).is_some()
    }

    /// Whether the row's latest state is not in the database yet: so its key must not be evicted.
    pub fn pins_row(&self, key: &[u8]) -> bool {
        self.backend.backlog.lock().contains(key)
    }

    /// The row's latest state, if it is not in the database yet.
    pub fn unflushed(&self, key: &[u8]) -> Option<RowState> {
        self.backend.backlog.lock().state(key).cloned()
    }

    /// Whether the row is known to be absent.
    pub fn is_absent(&self, key: &[u8]) -> bool {
        let absences = self.absences.lock();
        !absences.is_empty() && absences.get(key).is_some_and(|until| clock::monotonic() < *until)
    }

    pub(super) fn forget_absences(&self) {
        self.absences.lock().clear();
    }

    /// Remembers that a row is absent, if that is wished; the key's lock is held and its flight is not void.
    pub(super) fn note_absent(&self, flight: &Flight, rule: usize) {
        let Some(ttl) = self.backend.rules.get(rule).and_then(|rule| rule.negative_ttl) else { return };
        let mut absences = self.absences.lock();
        if absences.len() >= MAX_ABSENCES {
            absences.clear();
        }
        absences.insert(flight.key().into(), clock::monotonic() + ttl);
    }

    /// Begins loading a row into the cache, or joins who loads it.
    pub fn load(&'static self, keyspace: &'static Keyspace, rule: usize, key: &[u8]) -> Arc<Flight> {
        let (flight, leads) = self.flights.join(key);
        if leads {
            let (loading, limit) = (Arc::clone(&flight), self.backend.config.statement_timeout.0);
            self.backend.runtime.spawn(async move {
                let loaded = tokio::time::timeout(limit, self.backend.store.load(rule, loading.key())).await;
                let result = match (self.backend.readiness.fault(), loaded) {
                    (Some(fault), _) => Err(Failure::Transient(fault)),
                    (None, Ok(loaded)) => loaded,
                    (None, Err(_)) => Err(Failure::Transient("it did not answer in time".to_owned())),
                };
                let result =
                    result.and_then(|loaded| install::install(self, keyspace, rule, &loading, &loaded));
                let counters = &self.backend.counters;
                let counter = if result.is_ok() { &counters.loads } else { &counters.failed_loads };
                counter.fetch_add(1, Ordering::Relaxed);
                loading.land(result);
            });
        }
        flight
    }

    /// Resolves when the journal has acknowledged the sequence.
    ///
    /// # Errors
    /// It never may.
    pub async fn acknowledged(&self, sequence: Sequence) -> Result<(), JournalError> {
        if self.journal.status(sequence)? {
            return Ok(());
        }
        // What the other connections of this thread have to say goes with the same write.
        tokio::task::yield_now().await;
        if !self.journal.status(sequence)? {
            self.journal.write_out();
        }
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Enabled before the look, so that progress in between is not missed.
            progress.as_mut().enable();
            if self.journal.status(sequence)? {
                return Ok(());
            }
            progress.await;
        }
    }
}

impl Journaled for Tier {
    fn settled(&self, key: &[u8]) {
        // Rows read before they changed must not come into the cache now that nothing covers them.
        self.flights.void(key);
        if self.stale.lock().contains(key) {
            self.unpinned.lock().push(key.into());
        }
    }

    fn complete(&self, sequences: Vec<u64>) {
        let unpinned = std::mem::take(&mut *self.unpinned.lock());
        self.forget_stale(unpinned.iter());
        self.journal.complete(sequences);
    }
}
