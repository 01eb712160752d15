//! The flusher: brings the backlog to the database, batch by batch, from the front.
//!
//! One batch is under way at a time, so the order of each key holds. What the database cannot serve is tried again for as
//! long as it takes, with jittered backoff on the monotonic clock. What it refuses is bisected: a change it refuses by
//! itself is put among the dead letters, and the others go on. Only what is committed or buried is complete.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::backlog::Taken;
use super::store::{Batch, BoxFuture, Failure, RowChange};
use super::tier::Tier;
use crate::clock;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Tier {
    /// Flushes until the tier is stopped and, if the database allows, all is done.
    pub async fn run_flusher(self: &'static Tier) {
        loop {
            self.wait_for_work().await;
            let taken = {
                let mut backlog = self.backlog.lock();
                if backlog.depth() == 0 && self.stopping.load(SeqCst) {
                    return;
                }
                backlog.take(self.config.batch_size)
            };
            if taken.records > 0 {
                self.commit(taken).await;
            }
        }
    }

    /// Has the flusher end once the backlog is empty.
    pub fn stop_flusher(&self) {
        self.stopping.store(true, SeqCst);
        self.work.notify_one();
    }

    async fn wait_for_work(&self) {
        loop {
            let (depth, oldest, done) = {
                let backlog = self.backlog.lock();
                (backlog.depth(), backlog.oldest(), backlog.done())
            };
            let interval = self.config.flush_interval.0;
            let is_due = self.stopping.load(SeqCst)
                || depth >= self.config.batch_size
                || depth > 0 && done < self.hurry.load(SeqCst);
            let left = oldest.map(|oldest| interval.saturating_sub(clock::monotonic() - oldest));
            match left {
                _ if is_due => return,
                Some(Duration::ZERO) => return,
                Some(left) => drop(tokio::time::timeout(left, self.work.notified()).await),
                None => self.work.notified().await,
            }
        }
    }

    async fn commit(&self, taken: Taken) {
        self.apply(taken.batch).await;
        let (sequences, done) = {
            let mut backlog = self.backlog.lock();
            // Rows read before they changed must not come into the cache now that nothing covers them.
            let sequences = backlog.finish(|key| self.flights.void(key));
            (sequences, backlog.done())
        };
        self.journal.complete(sequences);
        self.done.send_replace(done);
    }

    /// Commits or buries all of a batch.
    fn apply(&self, batch: Batch) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let (begin, len) = (clock::monotonic(), batch.changes.len());
            let Err(error) = self.persist(&batch).await else {
                let nanos = (clock::monotonic() - begin).as_nanos() as u64;
                self.counters.batches.fetch_add(1, Relaxed);
                self.counters.changes.fetch_add(len as u64, Relaxed);
                self.counters.batch_nanos.fetch_add(nanos, Relaxed);
                self.invalidate_queries(batch.changes.iter().map(|change| change.rule));
                return;
            };
            let mut changes = batch.changes;
            if let [change] = &changes[..] {
                return self.bury(change, &error).await;
            }
            let second = changes.split_off(len / 2);
            self.apply(Batch { changes }).await;
            self.apply(Batch { changes: second }).await;
        })
    }

    /// Tries until the database has committed or refused; returns why it refused.
    async fn persist(&self, batch: &Batch) -> Result<(), String> {
        let mut pause = FIRST_PAUSE;
        loop {
            match self.store.apply(batch).await {
                Ok(()) => {
                    self.is_back();
                    return Ok(());
                }
                Err(Failure::Refused(reason)) => {
                    self.is_back();
                    return Err(reason);
                }
                Err(error @ Failure::Transient(_)) => self.back_off(&mut pause, &error).await,
            }
        }
    }

    async fn bury(&self, change: &RowChange, reason: &str) {
        let mut pause = FIRST_PAUSE;
        while let Err(error) = self.store.bury(change, reason).await {
            // The row's only other copy is the journal: it stays there until the dead letter is written.
            self.back_off(&mut pause, &error).await;
        }
        self.is_back();
        let rule = self.rules.get(change.rule).map_or("", |rule| rule.pattern.text());
        tracing::warn!(
            rule,
            version = change.version,
            reason,
            "a change was refused: it is a dead letter now"
        );
        self.counters.dead_letters.fetch_add(1, Relaxed);
    }

    async fn back_off(&self, pause: &mut Duration, error: &Failure) {
        self.counters.retries.fetch_add(1, Relaxed);
        if !self.counters.is_away.swap(true, Relaxed) {
            tracing::warn!(%error, "cannot flush; trying again");
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        *pause = (*pause * 2).min(LONGEST_PAUSE);
    }

    fn is_back(&self) {
        if self.counters.is_away.swap(false, Relaxed) {
            tracing::info!("the database is back");
        }
    }
}

/// A running tier.
pub struct Running {
    /// The tier.
    pub tier: &'static Tier,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Starts the thread `flusher` with its runtime, opens the tier on it, and flushes until [`Running::stop`].
    ///
    /// # Errors
    /// Why the tier cannot start.
    pub fn start<F, E>(open: impl FnOnce() -> F + Send + 'static) -> Result<Self, E>
    where
        F: Future<Output = Result<Tier, E>>,
        E: From<std::io::Error> + Send + 'static,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (opened, result) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("flusher".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let tier: Result<&'static Tier, E> = open().await.map(|tier| &*Box::leak(Box::new(tier)));
                let running = tier.as_ref().ok().copied();
                // Its receiver waits right below.
                drop(opened.send(tier));
                if let Some(tier) = running {
                    tier.run_flusher().await;
                }
            });
        })?;
        match result.recv() {
            Ok(tier) => Ok(Self { tier: tier?, thread }),
            Err(_) => Err(std::io::Error::other("the flusher's thread panicked").into()),
        }
    }

    /// Flushes what is left, until the deadline, and closes the journal, which keeps the rest.
    pub fn stop(self, deadline: std::time::Instant) {
        self.tier.stop_flusher();
        while !self.thread.is_finished() && clock::monotonic() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (left, _) = self.tier.depth();
        if left > 0 {
            tracing::warn!(changes = left, "not flushed in time: they stay in the journal");
        }
        if let Err(error) = self.tier.journal.close() {
            tracing::error!(%error, "the journal did not end in order");
        }
    }
}
