//! Active defragmentation by the clock: when it is worth its while, and how much of the time it may take.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crate::clock;
use crate::config::Id;
use crate::instance::Instance;
use crate::tiers::local::{DefragCursor, memory};

/// How long connections that come wait for it at most.
const SLICE: Duration = Duration::from_millis(1);

/// A walk over all keys, while there is one.
#[derive(Default)]
pub(super) struct Defrag {
    cursor: DefragCursor,
    is_running: bool,
}

impl Defrag {
    /// Takes its part of a tick of this length, if it is worth its while.
    pub(super) async fn run(&mut self, instance: &'static Instance, tick: Duration) {
        let settings = &instance.settings;
        if settings.int(Id::Activedefrag) == 0 {
            self.is_running = false;
        } else if !self.is_running {
            self.is_running = is_worthwhile(instance);
        }
        instance.telemetry.defrag_running.store(self.is_running, Relaxed);
        if !self.is_running {
            return;
        }
        let end = clock::monotonic() + tick * settings.int(Id::ActiveDefragCycleMax) as u32 / 100;
        while self.is_running && clock::monotonic() < end {
            memory::without_thread_cache(|| self.run_slice(instance));
            tokio::task::yield_now().await;
        }
    }

    fn run_slice(&mut self, instance: &Instance) {
        let end = clock::monotonic() + SLICE;
        while clock::monotonic() < end {
            let moved = instance.keyspace.defragment_some(&mut self.cursor);
            instance.telemetry.defrag_moved.fetch_add(moved.allocations, Relaxed);
            instance.telemetry.defrag_keys.fetch_add(moved.keys, Relaxed);
            if self.cursor.is_at_begin() {
                self.is_running = false;
                return;
            }
        }
    }
}

/// Whether so much of the pages that hold something is free that moving what is in them pays.
fn is_worthwhile(instance: &Instance) -> bool {
    let settings = &instance.settings;
    let figures = memory::allocator_figures();
    let free = figures.active.saturating_sub(figures.allocated) as u64;
    free > settings.int(Id::ActiveDefragIgnoreBytes) as u64
        && free * 100 > figures.allocated as u64 * settings.int(Id::ActiveDefragThresholdLower) as u64
}
