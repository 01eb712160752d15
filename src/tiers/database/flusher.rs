//! The flusher: brings the backlog to the database, batch by batch, from the front of each table's line.
//!
//! A table is in one batch at a time, so the order of each key holds, and one that is locked holds up no other. Of a batch
//! with rows that others have locked, the units with those rows are found by bisection and wait apart in the backlog, and
//! what is written to their keys meanwhile behind them; all else goes on. What the database cannot serve is tried again for
//! as long as it takes, with jittered backoff on the monotonic clock. What it refuses is bisected, but no transaction is: a
//! change it refuses by itself is put among the dead letters, and the others go on, those of its transaction together. Only
//! what is committed or buried is complete.

use std::collections::HashSet;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::time::Duration;

use super::backend::{Backend, Journaled};
use super::backlog::{Due, Taken};
use super::store::{Batch, BoxFuture, Failure, RowChange};
use crate::clock;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Locks are waited for as long as this before those who are held up by them are looked for: longer than Postgres takes to
/// find a deadlock, by its default.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same while they are looked for.
const SHORT_PATIENCE: Duration = Duration::from_millis(100);
/// The same for those who were held up, each time they are tried again.
const LEAST_PATIENCE: Duration = Duration::from_millis(50);

/// Keys whose changes are held up by locks.
type Locked = HashSet<Box<[u8]>>;

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
        let is_again = taken.is_of_the_held_up();
        let (batch, slots) = taken.split();
        let mut locked = Locked::new();
        if is_again {
            for unit in batch.apart() {
                self.apply(unit, self.patience(LEAST_PATIENCE), &mut locked).await;
            }
        } else {
            let rule = batch.changes.first().and_then(|change| self.rules.get(change.rule));
            self.apply(batch, self.patience(PATIENCE), &mut locked).await;
            if !locked.is_empty() {
                tracing::warn!(
                    rows = locked.len(),
                    table = rule.map_or("", |rule| rule.table()),
                    "rows are locked in the database: they wait, others do not"
                );
            }
        }
        let (sequences, done) = {
            let mut backlog = self.backlog.lock();
            (backlog.finish(&slots, &locked, |key| journaled.settled(key)), backlog.done())
        };
        journaled.complete(sequences);
        self.done.send_if_modified(|before| {
            let is_more = done > *before;
            *before = done.max(*before);
            is_more
        });
        self.work.notify_one();
    }

    /// So long, but well below what the statement may take: who waits for a lock and is cut off by that is not known as one
    /// who does.
    fn patience(&self, most: Duration) -> Duration {
        most.min(self.config.statement_timeout.0 / 2).max(Duration::from_millis(1))
    }

    /// Commits or buries all of a batch but for units that others have locked for longer than that.
    fn apply<'a>(&'a self, batch: Batch, patience: Duration, locked: &'a mut Locked) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let (begin, len) = (clock::monotonic(), batch.changes.len());
            let Err(held) = self.persist(&batch, patience).await else {
                let nanos = (clock::monotonic() - begin).as_nanos() as u64;
                self.counters.batches.fetch_add(1, Relaxed);
                self.counters.changes.fetch_add(len as u64, Relaxed);
                self.counters.batch_nanos.fetch_add(nanos, Relaxed);
                self.invalidate_queries(batch.changes.iter().map(|change| change.rule));
                return;
            };
            if let ([change], Held::Refused(reason)) = (&batch.changes[..], &held) {
                return self.bury(&batch, change, reason).await;
            }
            match (batch.halves(), held) {
                (Ok((first, second)), held) => {
                    let patience = if held == Held::Locked { patience.min(SHORT_PATIENCE) } else { patience };
                    self.apply(first, patience, locked).await;
                    self.apply(second, patience, locked).await;
                }
                (Err(unit), Held::Locked) => {
                    locked.extend(unit.changes.into_iter().map(|change| change.key));
                }
                (Err(transaction), Held::Refused(reason)) => self.apply_apart(&transaction, reason).await,
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
                Err(error @ (Failure::Transient(_) | Failure::Locked(_))) => {
                    self.back_off(&mut trouble, batch, &error).await;
                }
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

    /// Tries until the database has committed or refused, or somebody holds a lock for longer than that.
    async fn persist(&self, batch: &Batch, patience: Duration) -> Result<(), Held> {
        let mut trouble = Trouble::default();
        let result = loop {
            match self.store.apply_unless_locked(batch, patience).await {
                Ok(()) => break Ok(()),
                Err(Failure::Refused(reason)) => break Err(Held::Refused(reason)),
                Err(Failure::Locked(_)) => {
                    self.counters.retries.fetch_add(1, Relaxed);
                    break Err(Held::Locked);
                }
                Err(error @ Failure::Transient(_)) => self.back_off(&mut trouble, batch, &error).await,
            }
        };
        self.is_back(trouble);
        result
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

/// What holds up a batch, or a part of it.
#[derive(PartialEq, Eq)]
enum Held {
    /// The database refused it, for this reason.
    Refused(String),
    /// Others have locks.
    Locked,
}

/// Tries of one batch that failed.
#[derive(Default)]
struct Trouble {
    tries: u32,
}
