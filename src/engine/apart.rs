//! Commands that take long run on a thread of their own, so that no connection waits for another one's `KEYS`.
//!
//! Their client is blocked meanwhile, by the same mechanism as one that waits for a key.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::blocking::Blocked;
use super::execute::{Flow, lock_plan};
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::spec::{OnTimeout, Run, Scope};
use crate::commands::table::{COMMANDS, Command};
use crate::instance::{Apart, Instance};
use crate::protocol::{Args, Reply, ReplyError};
use crate::tiers::local::{Effects, View, Waiter, WaiterOutcome};

/// A walk over fewer keys than this is over before another thread has woken up.
const MANY_KEYS: usize = 20_000;

/// Starts the thread.
///
/// # Errors
/// If it cannot be started.
pub fn start(instance: &'static Instance) -> std::io::Result<()> {
    let Some(queue) = instance.apart_queue.lock().take() else { return Ok(()) };
    std::thread::Builder::new().name("apart".to_owned()).spawn(move || {
        let mut worker = Worker::new(instance);
        for work in queue {
            match work {
                Apart::Command(waiter) => worker.run_apart(&waiter),
                Apart::Effects(effects) => worker.settle_for(effects),
            }
        }
    })?;
    Ok(())
}

impl Worker {
    /// Whether a command that is marked as long really is, with the keys there are.
    #[cold]
    pub(super) fn is_long(&self, command: &Command) -> bool {
        matches!(command.spec.scope, Scope::Keys) || self.instance.keyspace.len() >= MANY_KEYS
    }

    /// Leaves a command to the thread for long ones; its client waits.
    #[cold]
    pub(super) fn leave_apart(&self, session: &Session, command: &Command, args: Args<'_>) -> Flow {
        let args = args.to_owned();
        let waiter =
            Waiter::new(session.client.id, session.db, Vec::new(), command.index, args, session.protocol);
        let waiter = Arc::new(waiter);
        self.instance.run_apart(waiter.clone());
        let (timeout_ms, on_timeout, measured_from) = (None, OnTimeout::NullArray, None);
        Flow::blocked(Blocked { waiter, timeout_ms, on_timeout, command: command.index, measured_from })
    }

    /// Carries out what changes made elsewhere left to be done.
    fn settle_for(&mut self, effects: Effects) {
        self.read_clock();
        self.effects = Some(Box::new(effects));
        self.settle();
        // Who is served learns of his record by his waiter.
        self.unacknowledged = None;
    }

    /// Runs a waiter's command and finishes the waiter with its reply.
    fn run_apart(&mut self, waiter: &Waiter) {
        self.read_clock();
        self.catch_up();
        let (command, args, begin) = (COMMANDS.at(waiter.command), waiter.args.as_args(), self.ticks);
        let instance = self.instance;
        let mut effects = self.take_effects();
        let plan = lock_plan(command, args);
        let mut encoded = Vec::new();
        let now_ms = self.now_ms();
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let view = View::acquire(&instance.keyspace, &plan, waiter.db, now_ms, &mut effects);
            let mut view = view.ok_or_else(|| instance.scripts.busy())?;
            match command.spec.run {
                Run::Data(handler) => {
                    handler(&mut view, args, &mut Reply::new(&mut encoded, waiter.protocol))
                }
                _ => Err(ReplyError::SYNTAX),
            }
        }));
        if let Err(error) = caught.unwrap_or_else(|cause| Err(self.unwound(command, &*cause))) {
            encoded.clear();
            self.failed(command, &error, &mut Reply::new(&mut encoded, waiter.protocol));
        }
        self.effects = Some(effects);
        self.settle();
        let journaled = self.unacknowledged.take().map(|record| record.sequence);
        if let Some(error) = self.unaccepted.take() {
            encoded.clear();
            self.failed(command, &error, &mut Reply::new(&mut encoded, waiter.protocol));
        }
        if let Some(client) = instance.clients.get(waiter.client) {
            self.measure(&client, command, args, begin);
        }
        waiter.finish(WaiterOutcome::Served { encoded, journaled });
    }
}
