//! Active defragmentation by the clock: when it is worth its while, and how much of the time it may take.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock;
use crate::config::Id;
use crate::instance::Instance;
use crate::tiers::local::memory::{self, Compaction};
use crate::tiers::local::{DefragCursor, Moved};

/// How long connections that come wait for it at most.
const SLICE: Duration = Duration::from_millis(1);

/// A walk over all keys, while there is one.
#[derive(Default)]
pub(super) struct Defrag {
    cursor: DefragCursor,
    is_running: bool,
    /// What this walk has done.
    done: Moved,
    /// Bytes that were free when a walk ended that had moved next to nothing: what cannot be moved. 0 if it had.
    stays: u64,
}

impl Defrag {
    /// Takes its part of a tick of this length, if it is worth its while.
    pub(super) async fn run(&mut self, instance: &'static Instance, tick: Duration) {
        let settings = &instance.settings;
        if settings.int(Id::Activedefrag) == 0 {
            self.is_running = false;
        } else if !self.is_running {
            self.is_running = self.is_worthwhile(instance);
            self.done = Moved::default();
        }
        instance.telemetry.defrag_running.store(self.is_running, Relaxed);
        if !self.is_running {
            return;
        }
        let end = clock::monotonic() + tick * share(instance) / 100;
        while self.is_running && clock::monotonic() < end {
            self.run_slice(instance);
            tokio::task::yield_now().await;
        }
    }

    fn run_slice(&mut self, instance: &Instance) {
        let (end, compaction) = (clock::monotonic() + SLICE, Compaction::begin());
        while clock::monotonic() < end {
            let moved = instance.keyspace.defragment_some(&mut self.cursor, &compaction);
            instance.telemetry.defrag_moved.fetch_add(moved.allocations, Relaxed);
            instance.telemetry.defrag_keys.fetch_add(moved.keys, Relaxed);
            self.done.keys += moved.keys;
            self.done.allocations += moved.allocations;
            if self.cursor.is_at_begin() {
                self.is_running = false;
                let was_futile = self.done.allocations * 100 <= self.done.keys;
                self.stays = if was_futile { free_and_allocated().0 } else { 0 };
                return;
            }
        }
    }

    /// Whether so much of the pages that hold something is free that moving what is in them pays.
    fn is_worthwhile(&self, instance: &Instance) -> bool {
        let settings = &instance.settings;
        let (free, allocated) = free_and_allocated();
        free > settings.int(Id::ActiveDefragIgnoreBytes) as u64
            && free * 100 > allocated * settings.int(Id::ActiveDefragThresholdLower) as u64
            // Walking again for the same would be in vain.
            && free > self.stays + self.stays / 8
    }
}

/// Percent of the time: more if the process has outgrown `maxmemory` by far.
fn share(instance: &Instance) -> u32 {
    const IN_NEED: u32 = 3;
    const MOST: u32 = 75;
    let settings = &instance.settings;
    let (share, limit) =
        (settings.int(Id::ActiveDefragCycleMax) as u32, settings.int(Id::Maxmemory) as usize);
    let is_in_need = limit > 0 && memory::resident() > limit + limit / 5;
    if is_in_need { share.max(MOST.min(share * IN_NEED)) } else { share }
}

/// Bytes of pages that hold something which are free, and bytes in use.
fn free_and_allocated() -> (u64, u64) {
    let figures = memory::allocator_figures();
    (figures.active.saturating_sub(figures.allocated) as u64, figures.allocated as u64)
}
