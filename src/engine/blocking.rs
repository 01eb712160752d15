//! Blocked clients: who waits is registered under the locks that its command ran under, so no wake-up is lost;
//! whoever makes a key ready runs the waiting commands, first come first served, before its own next command.

use std::sync::Arc;

use super::execute::{Outcome, lock_plan};
use super::pipeline::Step;
use super::postponed::Postponed;
use super::rows::Prepared;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::keys;
use crate::commands::spec::{Attempt, Group, OnTimeout, Run};
use crate::commands::table::{COMMANDS, Command};
use crate::protocol::{Args, Reply, ReplyError};
use crate::tiers::local::{Effects, LockPlan, ValueRef, View, Waiter, WaiterOutcome};
use crate::types::hasher::hash_bytes;

/// A command that waits.
pub struct Blocked {
    /// Its registration.
    pub waiter: Arc<Waiter>,
    /// Milliseconds to wait; `None` for as long as it takes.
    pub timeout_ms: Option<u64>,
    /// What to reply when the time is up.
    pub on_timeout: OnTimeout,
    /// Its place in the command table.
    pub command: usize,
    /// When it began, if its time is to be measured at the end of the wait.
    pub measured_from: Option<u64>,
}

/// Why the connection stops waiting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitEnd {
    /// The waiter has an outcome.
    Finished,
    /// The time is up.
    TimedOut,
    /// The client is gone.
    Gone,
}

/// Registers the session's command for the keys it declared, which `view` holds locked.
pub(super) fn register(
    session: &Session,
    command: &Command,
    args: Args<'_>,
    view: &mut View<'_>,
) -> Arc<Waiter> {
    let found = keys::extract(command.spec, args).unwrap_or_default();
    let mut names: Vec<Box<[u8]>> = Vec::with_capacity(found.len());
    for (index, _) in found {
        let key = args.at(index);
        if !names.iter().any(|name| **name == *key) {
            names.push(key.into());
        }
    }
    let settled = command.spec.waits_with.map_or_else(|| args.to_owned(), |settle| settle(view, args));
    let waiter = Waiter::new(session.client.id, session.db, names, command.index, settled, session.protocol);
    let waiter = Arc::new(waiter);
    view.wait(&waiter);
    waiter
}

impl Worker {
    /// Removes expired keys of one shard.
    pub fn sweep(&mut self, shard: usize) {
        self.read_clock();
        self.catch_up();
        let now_ms = self.now_ms();
        self.instance.keyspace.sweep_shard(shard, now_ms, self.effects.get_or_insert_default());
        if self.has_effects() {
            self.settle();
        }
    }

    /// Ends a wait and writes its reply: the command's, if it was served, else what fits the end.
    pub fn finish_wait(
        &mut self,
        session: &mut Session,
        blocked: &Blocked,
        end: WaitEnd,
        out: &mut Vec<u8>,
    ) -> Step {
        self.read_clock();
        self.reply_begins = out.len();
        let waiter = &blocked.waiter;
        if end != WaitEnd::Finished {
            self.stop_waiting(waiter);
        }
        if let Some(begin) = blocked.measured_from {
            self.measure(&session.client, COMMANDS.at(blocked.command), waiter.args.as_args(), begin);
        }
        let mut reply = Reply::new(out, session.protocol);
        match waiter.take_outcome() {
            Some(WaiterOutcome::Served { encoded, journaled }) => {
                reply.raw(&encoded);
                if let Some(sequence) = journaled {
                    self.wait_for(sequence);
                }
            }
            Some(WaiterOutcome::Again) if end != WaitEnd::Gone => {
                self.stop_waiting(waiter);
                let flow = self.execute(session, None, None, waiter.args.as_args(), out);
                return self.step(flow, out);
            }
            Some(WaiterOutcome::Again) => self.stop_waiting(waiter),
            Some(WaiterOutcome::Unblocked { with_error: true }) => {
                self.stop_waiting(waiter);
                let error = ReplyError::fixed("UNBLOCKED client unblocked via CLIENT UNBLOCK");
                self.count_error(&error);
                reply.error(&error);
            }
            Some(WaiterOutcome::Unblocked { with_error: false }) => {
                self.stop_waiting(waiter);
                blocked.on_timeout.write(&mut reply);
            }
            None if end == WaitEnd::TimedOut => blocked.on_timeout.write(&mut reply),
            None => {}
        }
        Step::Flush
    }

    pub(super) fn stop_waiting(&mut self, waiter: &Arc<Waiter>) {
        let instance = self.instance;
        let plan = LockPlan::Keys(waiter.keys.iter().map(|key| hash_bytes(key)).collect());
        let now_ms = self.now_ms();
        let Some(mut view) =
            View::acquire(&instance.keyspace, &plan, waiter.db, now_ms, self.effects.get_or_insert_default())
        else {
            return self.postpone(Postponed::StopWaiting(waiter.clone()));
        };
        view.stop_waiting(waiter);
    }

    /// Runs the commands that wait for a key, in the order they came, until one more finds nothing.
    pub(super) fn serve_waiters(&mut self, db: usize, key: &[u8]) {
        let mut index = 0;
        loop {
            let instance = self.instance;
            let plan = LockPlan::Keys([hash_bytes(key)].into_iter().collect());
            let now_ms = self.now_ms();
            let waiter =
                View::acquire(&instance.keyspace, &plan, db, now_ms, self.effects.get_or_insert_default())
                    .map(|mut view| view.waiter(key, index));
            let Some(waiter) = waiter else { return self.postpone(Postponed::Ready(db, key.into())) };
            let Some(waiter) = waiter else { return };
            match self.serve(&waiter, key) {
                Some(true) => {}
                Some(false) => index += 1,
                None => return self.postpone(Postponed::Ready(db, key.into())),
            }
        }
    }

    /// Runs a waiter's command for a key that is ready; says whether the waiter is out of the queue. `None` if a script
    /// holds what the command needs.
    fn serve(&mut self, waiter: &Arc<Waiter>, key: &[u8]) -> Option<bool> {
        let command = COMMANDS.at(waiter.command);
        let args = waiter.args.as_args();
        let instance = self.instance;
        let mut effects = self.take_effects();
        let plan = lock_plan(command, args);
        let mut view = View::acquire(&instance.keyspace, &plan, waiter.db, self.now_ms(), &mut effects)?;
        let first = &waiter.keys[0];
        let is_queued = (0..).map_while(|at| view.waiter(first, at)).any(|other| Arc::ptr_eq(&other, waiter));
        let mut left = !is_queued;
        if is_queued
            && !waiter.is_finished()
            && let Some(tier) = instance.database()
            && !matches!(
                self.prepare(tier, waiter.db, &mut view, [(command, args)].into_iter()),
                Prepared::Ready
            )
        {
            // It cannot wait for the database here: its own connection can.
            view.stop_waiting(waiter);
            drop(view);
            self.absorb(&mut effects);
            waiter.finish(WaiterOutcome::Again);
            return Some(true);
        }
        if is_queued && !waiter.is_finished() && instance.acl.restricts() && !self.may_be_served(waiter) {
            // Its own connection says so.
            view.stop_waiting(waiter);
            drop(view);
            self.absorb(&mut effects);
            waiter.finish(WaiterOutcome::Again);
            return Some(true);
        }
        // A key of the wrong type does not wake those who wait for the right one.
        let is_awaited = |value| {
            matches!(
                (command.spec.group, value),
                (Group::List, ValueRef::List(_))
                    | (Group::SortedSet, ValueRef::SortedSet(_))
                    | (Group::Stream, ValueRef::Stream(_))
            )
        };
        let has_type = command.spec.waits_for_absence() || view.peek(key).is_some_and(is_awaited);
        let mut served = None;
        if is_queued && has_type && !waiter.is_finished() {
            let mut encoded = Vec::new();
            match self.retry(command, args, &mut view, waiter, &mut encoded) {
                Outcome::Wait { .. } => {}
                Outcome::Replied(_) => {
                    left = true;
                    view.stop_waiting(waiter);
                    served = Some(encoded);
                }
            }
        }
        drop(view);
        let (journaled, unaccepted) = (effects.journaled, effects.unaccepted.take());
        self.absorb(&mut effects);
        if let Some(mut encoded) = served {
            if let Some(error) = unaccepted {
                encoded.clear();
                self.failed(command, &error, &mut Reply::new(&mut encoded, waiter.protocol));
            }
            waiter.finish(WaiterOutcome::Served { encoded, journaled });
        }
        Some(left)
    }

    /// Keeps what a view left to be done for the present round of settling.
    fn absorb(&mut self, effects: &mut Effects) {
        self.effects().ready.append(&mut effects.ready);
        self.effects().events.append(&mut effects.events);
        self.effects().garbage.append(&mut effects.garbage);
        if let Some(sequence) = effects.journaled {
            self.wait_for(sequence);
        }
    }

    fn retry(
        &mut self,
        command: &Command,
        args: Args<'_>,
        view: &mut View<'_>,
        waiter: &Waiter,
        encoded: &mut Vec<u8>,
    ) -> Outcome {
        let mut reply = Reply::new(encoded, waiter.protocol);
        let Run::Blocking(handler) = command.spec.run else {
            return Outcome::Replied(Err(ReplyError::SYNTAX));
        };
        match handler(view, args, &mut reply) {
            Ok(Attempt::Done) => Outcome::Replied(Ok(())),
            Ok(Attempt::Wait { timeout_ms, on_timeout }) => Outcome::Wait { timeout_ms, on_timeout },
            Err(error) => {
                reply.truncate(0);
                self.failed(command, &error, &mut reply);
                Outcome::Replied(Err(error))
            }
        }
    }
}
