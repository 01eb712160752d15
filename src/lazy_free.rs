//! Values that take long to free are freed on a thread of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::Sender;

use crate::tiers::local::Effects;

/// The way to that thread, and what it has to do.
pub struct LazyFree {
    queue: Sender<Effects>,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    pending: AtomicU64,
    freed: AtomicU64,
}

impl LazyFree {
    /// Starts the thread.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start() -> std::io::Result<Self> {
        let (queue, received) = std::sync::mpsc::channel::<Effects>();
        let counts = Arc::new(Counts::default());
        let shared = counts.clone();
        std::thread::Builder::new().name("lazy-free".to_owned()).spawn(move || {
            for effects in received {
                let objects = effects.objects();
                drop(effects);
                shared.freed.fetch_add(objects, Relaxed);
                shared.pending.fetch_sub(objects, Relaxed);
            }
        })?;
        Ok(Self { queue, counts })
    }

    /// Frees values there.
    pub fn free(&self, effects: Effects) {
        self.counts.pending.fetch_add(effects.objects(), Relaxed);
        // The receiver ends only with the process; then it does not matter who frees.
        drop(self.queue.send(effects));
    }

    /// How many values wait to be freed.
    pub fn pending(&self) -> u64 {
        self.counts.pending.load(Relaxed)
    }

    /// How many were freed.
    pub fn freed(&self) -> u64 {
        self.counts.freed.load(Relaxed)
    }

    /// Counts from nothing again.
    pub fn reset(&self) {
        self.counts.freed.store(0, Relaxed);
    }
}
