//! What one thread needs to run requests: its counters, its clock and buffers that are used again and again.

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::clock;
use crate::commands::table::COMMANDS;
use crate::instance::Instance;
use crate::protocol::Span;
use crate::telemetry::WorkerCounters;
use crate::tiers::local::Effects;

/// The engine's state of one thread.
pub struct Worker {
    /// The server.
    pub instance: &'static Instance,
    /// What this thread counts.
    pub counters: Arc<CachePadded<WorkerCounters>>,
    pub(super) effects: Effects,
    pub(super) spans: Vec<Span>,
    pub(super) requests: Vec<super::pipeline::Request>,
    /// Requests that are on their way upstream.
    pub(super) batch: Option<super::forward::Batch>,
    /// The wall clock in microseconds at `base_ticks`.
    base_us: u64,
    base_ticks: u64,
    /// When the command before ended, which is when this one begins.
    pub(super) ticks: u64,
}

impl Worker {
    /// A worker of this server.
    pub fn new(instance: &'static Instance) -> Self {
        let counters = instance.telemetry.register(COMMANDS.len());
        let mut worker = Self {
            instance,
            counters,
            effects: Effects::default(),
            spans: Vec::new(),
            requests: Vec::new(),
            batch: None,
            base_us: 0,
            base_ticks: 0,
            ticks: 0,
        };
        worker.read_clock();
        worker
    }

    /// Reads the clocks: once for all requests that are there.
    pub(super) fn read_clock(&mut self) {
        self.base_us = clock::wall_us();
        self.base_ticks = clock::ticks();
        self.ticks = self.base_ticks;
    }

    /// The wall clock as of the last reading of the ticks, in microseconds.
    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.base_us + clock::nanos_between(self.base_ticks, self.ticks) / 1000
    }

    /// The same in milliseconds.
    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }
}
