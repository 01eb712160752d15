//! The thread `journal-keeper`: what can wait a second, and must not hold up the writing: syncs under
//! `Fsync::EverySecond`, the checkpoint, the removal of segments.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::{Condvar, Mutex};

use super::checkpoint::{Checkpoint, CheckpointFile};
use super::error::is_shortage;
use super::options::Fsync;
use super::shared::Shared;
use super::statistics::Counters;
use crate::clock;

/// The state of the thread.
pub struct Keeper {
    shared: Arc<Shared>,
    checkpoint: CheckpointFile,
}

/// Ends the thread.
#[derive(Default)]
pub struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    /// Tells the thread to end.
    pub fn stop(&self) {
        *self.stopped.lock() = true;
        self.changed.notify_one();
    }
}

impl Keeper {
    /// A keeper with this checkpoint.
    pub fn new(shared: Arc<Shared>, checkpoint: CheckpointFile) -> Self {
        shared.checkpoint.store(checkpoint.content.mark, Ordering::Relaxed);
        Self { shared, checkpoint }
    }

    /// Runs until it is told to stop, which it is after the writer has ended.
    pub fn run(mut self, stop: &Stop) {
        let mut deadline = clock::monotonic() + self.shared.options.interval;
        let mut stopped = stop.stopped.lock();
        while !*stopped {
            if stop.changed.wait_until(&mut stopped, deadline).timed_out() {
                drop(stopped);
                self.tick();
                // The pace is kept unless the disk is slower.
                deadline = (deadline + self.shared.options.interval).max(clock::monotonic());
                stopped = stop.stopped.lock();
            }
        }
        drop(stopped);
        if !self.shared.has_failed() {
            self.tidy();
        }
    }

    fn tick(&mut self) {
        if self.shared.has_failed() {
            return;
        }
        if self.shared.options.fsync == Fsync::EverySecond {
            self.sync();
        }
        self.tidy();
    }

    fn sync(&self) {
        // In this order: what is written by now is in this file, or in those before it, which are synced.
        let written = self.shared.written.load(Ordering::Acquire);
        let file = self.shared.current.lock().clone();
        let Some(file) = file.filter(|_| written > self.shared.durable.load(Ordering::Acquire)) else {
            return;
        };
        let started = clock::monotonic();
        let result = file.sync();
        self.shared.counters.count_sync(clock::monotonic().saturating_duration_since(started));
        match result {
            Ok(()) => {
                self.shared.publish(&self.shared.durable, written);
                self.shared.announce();
            }
            Err(error) => self.shared.fail("sync", error),
        }
    }

    /// Has a checkpoint on disk before there is a segment, so that one that is missing later means something.
    pub fn prepare(&mut self) -> io::Result<()> {
        match self.write_checkpoint().and_then(|()| self.remove_done()) {
            Err(error) if is_shortage(&error) => Ok(()),
            result => result,
        }
    }

    /// Writes the checkpoint if it lags, then removes the segments that it says are done.
    fn tidy(&mut self) {
        if let Err(error) = self.write_checkpoint() {
            self.trouble("write the checkpoint", error);
        } else if let Err(error) = self.remove_done() {
            self.trouble("remove a segment", error);
        }
    }

    fn write_checkpoint(&mut self) -> io::Result<()> {
        let orderly = *self.shared.orderly.lock();
        let content = Checkpoint { mark: self.shared.ledger.lock().mark(), orderly };
        if content != self.checkpoint.content || !self.checkpoint.exists() {
            self.checkpoint.write(&*self.shared.storage, content)?;
            self.shared.checkpoint.store(content.mark, Ordering::Relaxed);
        }
        Ok(())
    }

    fn remove_done(&self) -> io::Result<()> {
        let mut removed = false;
        loop {
            let done = {
                let closed = self.shared.closed.lock();
                closed.front().filter(|front| front.end <= self.checkpoint.content.mark).cloned()
            };
            let Some(segment) = done else { break };
            self.shared.storage.remove(&segment.name)?;
            self.shared.closed.lock().pop_front();
            self.shared.disk.fetch_sub(segment.bytes, Ordering::Relaxed);
            removed = true;
        }
        if removed {
            self.shared.storage.sync()?;
            // Who was refused may try again.
            self.shared.announce();
        }
        Ok(())
    }

    fn trouble(&self, action: &'static str, error: io::Error) {
        if is_shortage(&error) {
            Counters::count(&self.shared.counters.errors);
            tracing::warn!("the journal could not {action}, and will try again: {error}");
        } else {
            self.shared.fail(action, error);
        }
    }
}
