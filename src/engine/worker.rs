//! What one thread needs to run requests: its counters, its clock and buffers that are used again and again.

use std::cell::RefCell;
use std::sync::Arc;

use crossbeam_utils::CachePadded;
use send_wrapper::SendWrapper;

use crate::clock;
use crate::commands::ratelimit::LastLimit;
use crate::commands::table::COMMANDS;
use crate::instance::Instance;
use crate::protocol::{ReplyError, Span};
use crate::telemetry::WorkerCounters;
use crate::tiers::database::flights::Flight;
use crate::tiers::local::Effects;

/// Replies that must not be sent before the journal has acknowledged a record.
#[derive(Debug, Clone, Copy)]
pub struct Unacknowledged {
    /// The record.
    pub sequence: u64,
    /// Where in the output the first of these replies begins.
    pub begins: usize,
}

/// The engine's state of one thread.
pub struct Worker {
    /// The server.
    pub instance: &'static Instance,
    /// What this thread counts.
    pub counters: Arc<CachePadded<WorkerCounters>>,
    /// What commands left to be done; absent while a view has it. Boxed, as each command passes it on.
    pub(super) effects: Option<Box<Effects>>,
    pub(super) spans: Vec<Span>,
    pub(super) requests: Vec<super::pipeline::Request>,
    /// The limit that was asked for last.
    pub(super) last_limit: RefCell<LastLimit>,
    /// Where the reply to the present request begins.
    pub(super) reply_begins: usize,
    /// The last record of the journal that replies wait for.
    pub(super) unacknowledged: Option<Unacknowledged>,
    /// Changes were made that the journal did not take.
    pub(super) unaccepted: Option<ReplyError>,
    /// Loads that were made for the present request.
    pub(super) landed: Vec<Arc<Flight>>,
    pub(super) postponed: Vec<super::postponed::Postponed>,
    pub(super) lua: Option<Box<super::script::Lua>>,
    /// Bound to its thread, where the admin server's workers, which run no scripts, are not.
    pub(super) suspended: Option<SendWrapper<super::script::Suspended>>,
    /// Told when there is something to be done though no request comes: [`Worker::has_script`], [`Worker::tend`].
    pub upkeep: Arc<tokio::sync::Notify>,
    /// Requests that are on their way upstream.
    pub(super) batch: Option<super::batch::Batch>,
    /// The wall clock in microseconds at `base_ticks`.
    base_us: u64,
    base_ticks: u64,
    /// When the command before ended, which is when this one begins.
    pub(super) ticks: u64,
    /// The wall clock then, in microseconds.
    now_us: u64,
}

impl Worker {
    /// A worker of this server.
    pub fn new(instance: &'static Instance) -> Self {
        let counters = instance.telemetry.register(COMMANDS.len());
        let mut worker = Self {
            instance,
            counters,
            effects: None,
            spans: Vec::new(),
            requests: Vec::new(),
            last_limit: RefCell::default(),
            reply_begins: 0,
            unacknowledged: None,
            unaccepted: None,
            landed: Vec::new(),
            postponed: Vec::new(),
            lua: None,
            suspended: None,
            upkeep: Arc::default(),
            batch: None,
            base_us: 0,
            base_ticks: 0,
            ticks: 0,
            now_us: 0,
        };
        worker.read_clock();
        worker
    }

    /// What commands left to be done.
    pub(super) fn effects(&mut self) -> &mut Effects {
        self.effects.get_or_insert_default()
    }

    /// Takes it for a view's use; to be put back.
    #[inline]
    pub(super) fn take_effects(&mut self) -> Box<Effects> {
        self.effects.take().unwrap_or_default()
    }

    /// Whether commands left something to be done.
    #[inline]
    pub(super) fn has_effects(&self) -> bool {
        self.effects.as_ref().is_some_and(|effects| !effects.is_empty())
    }

    /// What the replies made since the last call have to wait for.
    pub fn take_unacknowledged(&mut self) -> Option<Unacknowledged> {
        self.unacknowledged.take()
    }

    /// The present reply waits for this record.
    pub(super) fn wait_for(&mut self, sequence: u64) {
        let begins = self.unacknowledged.map_or(self.reply_begins, |earlier| earlier.begins);
        self.unacknowledged = Some(Unacknowledged { sequence, begins });
    }

    /// Reads the clocks: once for all requests that are there.
    pub(super) fn read_clock(&mut self) {
        self.base_us = clock::wall_us();
        self.base_ticks = clock::ticks();
        self.ticks = self.base_ticks;
        self.now_us = self.base_us;
    }

    /// A command ended now, and the next one begins.
    #[inline]
    pub(super) fn read_ticks(&mut self) {
        self.ticks = clock::ticks();
        self.now_us = self.base_us + clock::nanos_between(self.base_ticks, self.ticks) / 1000;
    }

    /// The wall clock as of the last reading of the ticks, in microseconds.
    #[inline]
    pub(super) fn now_us(&self) -> u64 {
        self.now_us
    }

    /// The same in milliseconds.
    #[inline]
    pub(super) fn now_ms(&self) -> u64 {
        self.now_us() / 1000
    }
}
