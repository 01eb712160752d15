//! The flusher: brings the backlog to the database, batch by batch, from the front of each table's line.
//!
//! A table is in one batch at a time, so the order of each key holds, and one that is locked holds up no other. What the
//! database cannot serve is tried again for as long as it takes, with jittered backoff on the monotonic clock. What it
//! refuses is bisected, but no transaction is: a change it refuses by itself is put among the dead letters, and the others
//! go on, those of its transaction together. Only what is committed or buried is complete.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::backend::{Backend, Journaled};
use super::backlog::{Due, Taken};
use super::store::{Batch, BoxFuture, Failure, RowChange};
use crate::clock;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Backend {
    /// Flushes until it is stopped and, if the database allows, all is done.
    pub async fn run_flusher(&'static self, journaled: &'static dyn Journaled) {
        // Half of the connections stay for those who read.
        let most = (self.config.pool_max / 2).max(1);
        loop {
            let left = {
                let mut backlog = self.backlog.lock();
                let at_once = self.stopping.load(SeqCst);
                if backlog.depth() == 0 && at_once {
                    return;
                }
                let due = Due {
                    batch_size: self.config.batch_size,
                    interval: self.config.flush_interval.0,
                    hurry: self.hurry.load(SeqCst),
                    at_once,
                };
                while backlog.under_way() < most
                    && let Some(taken) = backlog.take(due)
                {
                    tokio::spawn(self.commit(taken, journaled));
                }
                backlog.until_due(due)
            };
            // What is due and was not taken waits for a batch, whose end is told.
            match left {
                Some(left) => drop(tokio::time::timeout(left, self.work.notified()).await),
                None => self.work.notified().await,
            }
        }
    }

    /// Has the flusher end once the backlog is empty.
    pub fn stop_flusher(&self) {
        self.stopping.store(true, SeqCst);
        self.work.notify_one();
    }

    async fn commit(&'static self, taken: Taken, journaled: &'static dyn Journaled) {
        let (batch, slots) = taken.split();
        self.apply(batch).await;
        let (sequences, done) = {
            let mut backlog = self.backlog.lock();
            (backlog.finish(&slots, |key| journaled.settled(key)), backlog.done())
        };
        journaled.complete(sequences);
        self.done.send_if_modified(|before| {
            let is_more = done > *before;
            *before = done.max(*before);
            is_more
        });
        self.work.notify_one();
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
            if let [change] = &batch.changes[..] {
                return self.bury(&batch, change, &error).await;
            }
            match batch.halves() {
                Ok((first, second)) => {
                    self.apply(first).await;
                    self.apply(second).await;
                }
                Err(transaction) => self.apply_apart(&transaction, error).await,
            }
        })
    }

    /// Commits what of a transaction is not refused, and buries the rest; all of it, if it is refused as a whole.
    async fn apply_apart(&self, batch: &Batch, refused: String) {
        let mut trouble = Trouble::default();
        let apart = loop {
            match self.store.apply_apart(batch).await {
                Ok(apart) => break apart,
                Err(Failure::Refused(_)) => {
                    break (0..batch.changes.len()).map(|place| (place, refused.clone())).collect();
                }
                Err(error @ Failure::Transient(_)) => self.back_off(&mut trouble, batch, &error).await,
            }
        };
        self.is_back(trouble);
        self.counters.batches.fetch_add(1, Relaxed);
        self.counters.changes.fetch_add((batch.changes.len() - apart.len()) as u64, Relaxed);
        for (place, reason) in apart {
            self.bury(batch, &batch.changes[place], &reason).await;
        }
        self.invalidate_queries(batch.changes.iter().map(|change| change.rule));
    }

    /// Tries until the database has committed or refused; returns why it refused.
    async fn persist(&self, batch: &Batch) -> Result<(), String> {
        let mut trouble = Trouble::default();
        loop {
            match self.store.apply(batch).await {
                Ok(()) => {
                    self.is_back(trouble);
                    return Ok(());
                }
                Err(Failure::Refused(reason)) => {
                    self.is_back(trouble);
                    return Err(reason);
                }
                Err(error @ Failure::Transient(_)) => self.back_off(&mut trouble, batch, &error).await,
            }
        }
    }

    async fn bury(&self, batch: &Batch, change: &RowChange, reason: &str) {
        let mut trouble = Trouble::default();
        while let Err(error) = self.store.bury(change, reason).await {
            // The row's only other copy is the journal: it stays there until the dead letter is written.
            self.back_off(&mut trouble, batch, &error).await;
        }
        self.is_back(trouble);
        let rule = self.rules.get(change.rule).map_or("", |rule| rule.pattern.text());
        tracing::warn!(
            rule,
            version = change.version,
            reason,
            "a change was refused: it is a dead letter now"
        );
        self.counters.dead_letters.fetch_add(1, Relaxed);
    }

    async fn back_off(&self, trouble: &mut Trouble, batch: &Batch, error: &Failure) {
        self.counters.retries.fetch_add(1, Relaxed);
        if trouble.tries == 0 {
            self.counters.failing.fetch_add(1, Relaxed);
            let rule = batch.changes.first().and_then(|change| self.rules.get(change.rule));
            let table = rule.map_or("", |rule| rule.table());
            tracing::warn!(%error, table, "cannot flush; trying again");
        }
        let pause = LONGEST_PAUSE.min(FIRST_PAUSE * 2_u32.pow(trouble.tries.min(16)));
        trouble.tries += 1;
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
    }

    fn is_back(&self, trouble: Trouble) {
        if trouble.tries > 0 && self.counters.failing.fetch_sub(1, Relaxed) == 1 {
            tracing::info!("the database takes everything again");
        }
    }
}

/// Tries of one batch that failed.
#[derive(Default)]
struct Trouble {
    tries: u32,
}
