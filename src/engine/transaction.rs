//! `MULTI`, `EXEC` and what belongs to them: a transaction is one request with many commands, under one lock.

use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::execute::{Flow, Outcome, lock_plan};
use super::worker::Worker;
use crate::clients::{Session, Transaction};
use crate::commands::spec::{Control, OnTimeout, Run, Scope};
use crate::commands::table::{COMMANDS, Command};
use crate::protocol::{Args, Protocol, Reply, ReplyError};
use crate::tiers::local::{LockPlan, View, WatchFlag};
use crate::types::hasher::hash_bytes;

impl Worker {
    /// Runs a command of the engine itself.
    pub(super) fn control(
        &mut self,
        control: Control,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let begin = self.ticks;
        let result = match control {
            Control::Multi if session.transaction.is_some() => {
                Err(ReplyError::fixed("ERR MULTI calls can not be nested"))
            }
            Control::Multi => {
                session.transaction = Some(Transaction::default());
                session.client.queued.store(1, Relaxed);
                Reply::new(out, session.protocol).ok();
                Ok(())
            }
            Control::Exec => self.exec(session, out),
            Control::Discard if session.transaction.is_none() => {
                Err(ReplyError::fixed("ERR DISCARD without MULTI"))
            }
            Control::Discard => {
                self.discard_transaction(session);
                Reply::new(out, session.protocol).ok();
                Ok(())
            }
            Control::Watch if session.transaction.is_some() => {
                Err(ReplyError::fixed("ERR WATCH inside MULTI is not allowed"))
            }
            Control::Watch => {
                self.watch(session, args.skip(1));
                Reply::new(out, session.protocol).ok();
                Ok(())
            }
            Control::Unwatch => {
                if let Some(transaction) = &mut session.transaction {
                    transaction.push(command.index, args);
                    Reply::new(out, session.protocol).simple("QUEUED");
                } else {
                    self.unwatch(session);
                    Reply::new(out, session.protocol).ok();
                }
                Ok(())
            }
            Control::Invalidate => Err(crate::commands::cache::NO_UPSTREAM),
            Control::Reset => {
                self.reset(session);
                Reply::new(out, session.protocol).simple("RESET");
                Ok(())
            }
        };
        if let Err(error) = result {
            self.counters.commands[command.index].failed.add(1);
            self.reply_error(session, &error, out);
        }
        self.measure(&session.client, command, args, begin);
        Flow::Next
    }

    fn exec(&mut self, session: &mut Session, out: &mut Vec<u8>) -> Result<(), ReplyError> {
        let Some(transaction) = session.transaction.take() else {
            return Err(ReplyError::fixed("ERR EXEC without MULTI"));
        };
        session.client.queued.store(0, Relaxed);
        session.client.transaction_memory.store(0, Relaxed);
        if transaction.is_broken {
            self.unwatch(session);
            return Err(ReplyError::fixed("EXECABORT Transaction discarded because of previous errors."));
        }
        let plan = transaction_plan(&transaction, session);
        let instance = self.instance;
        let mut effects = std::mem::take(&mut self.effects);
        let mut view = View::new(&instance.keyspace, &plan, session.db, self.now_ms(), &mut effects);
        release_watches(session, &mut view);
        if std::mem::take(&mut session.watch_flag).is_raised() {
            Reply::new(out, session.protocol).null_array();
        } else {
            Reply::new(out, session.protocol).array(transaction.queue.len());
            for (index, args) in &transaction.queue {
                self.exec_one(session, COMMANDS.at(*index), args.as_args(), &mut view, out);
            }
        }
        drop(view);
        self.effects = effects;
        if !self.effects.is_empty() {
            self.settle();
        }
        Ok(())
    }

    fn exec_one(
        &mut self,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        view: &mut View<'_>,
        out: &mut Vec<u8>,
    ) {
        view.select(session.db);
        if let Run::Control(_) = command.spec.run {
            // Only UNWATCH can be queued, and EXEC has unwatched everything already.
            return Reply::new(out, session.protocol).ok();
        }
        if let Outcome::Wait { on_timeout, .. } = self.invoke(session, command, args, view, out) {
            on_timeout.write_at_once(&mut Reply::new(out, session.protocol));
        }
    }

    /// Forgets the transaction and the watches.
    pub(super) fn discard_transaction(&mut self, session: &mut Session) {
        session.transaction = None;
        session.client.queued.store(0, Relaxed);
        session.client.transaction_memory.store(0, Relaxed);
        self.unwatch(session);
    }

    fn watch(&mut self, session: &mut Session, keys: Args<'_>) {
        if session.watch_flag.is_raised() {
            return;
        }
        let hashes = keys.iter().map(hash_bytes).collect();
        let instance = self.instance;
        let now_ms = self.now_ms();
        let mut view =
            View::new(&instance.keyspace, &LockPlan::Keys(hashes), session.db, now_ms, &mut self.effects);
        for key in keys.iter() {
            if !session.watched.iter().any(|(db, watched)| *db == session.db && **watched == *key) {
                view.watch(key, &session.watch_flag);
                session.watched.push((session.db, key.into()));
            }
        }
        session.client.watching.store(session.watched.len(), Relaxed);
    }

    /// Forgets the watches.
    pub(super) fn unwatch(&mut self, session: &mut Session) {
        if !session.watched.is_empty() {
            let hashes = session.watched.iter().map(|(_, key)| hash_bytes(key)).collect();
            let instance = self.instance;
            let now_ms = self.now_ms();
            let mut view =
                View::new(&instance.keyspace, &LockPlan::Keys(hashes), session.db, now_ms, &mut self.effects);
            release_watches(session, &mut view);
        }
        session.watch_flag = WatchFlag::default();
    }

    /// Puts the session back to what a new connection has.
    fn reset(&mut self, session: &mut Session) {
        self.discard_transaction(session);
        session.select(self.instance.first_db());
        session.set_protocol(Protocol::Resp2);
        session.reply_mode = crate::clients::ReplyMode::On;
        session.authenticated = self.instance.settings.text(crate::config::Id::Requirepass).is_empty();
        session.client.no_evict.store(false, Relaxed);
        session.client.no_touch.store(false, Relaxed);
        let mut names = session.client.names.lock();
        names.name.clear();
        "default".clone_into(&mut names.user);
    }

    /// Gives back what a closed connection held.
    pub fn end_session(&mut self, session: &mut Session) {
        self.read_clock();
        self.discard_transaction(session);
        if !self.effects.is_empty() {
            self.settle();
        }
    }
}

fn release_watches(session: &mut Session, view: &mut View<'_>) {
    let db = view.db();
    for (watched_db, key) in session.watched.drain(..) {
        view.select(watched_db);
        view.unwatch(&key, &session.watch_flag);
    }
    view.select(db);
    session.client.watching.store(0, Relaxed);
}

/// The shards that a transaction needs: those of all its commands and of the keys it watched.
fn transaction_plan(transaction: &Transaction, session: &Session) -> LockPlan {
    let mut hashes: SmallVec<[u64; 4]> = session.watched.iter().map(|(_, key)| hash_bytes(key)).collect();
    for (index, args) in &transaction.queue {
        let command = COMMANDS.at(*index);
        match lock_plan(command, args.as_args()) {
            LockPlan::Keys(keys) => hashes.extend(keys),
            LockPlan::Each
                if matches!(command.spec.run, Run::Session(_))
                    && !matches!(command.spec.scope, Scope::Each) => {}
            LockPlan::Each if matches!(command.spec.run, Run::Control(_)) => {}
            LockPlan::Each | LockPlan::All => return LockPlan::All,
        }
    }
    LockPlan::Keys(hashes)
}

impl OnTimeout {
    /// Writes the reply to a wait that ended with nothing.
    pub fn write(self, reply: &mut Reply<'_>) {
        match self {
            Self::NullArray | Self::NullArrayOrNull => reply.null_array(),
            Self::Ok => reply.ok(),
        }
    }

    /// Writes the reply of a transaction, which does not wait.
    fn write_at_once(self, reply: &mut Reply<'_>) {
        match self {
            Self::NullArrayOrNull => reply.null(),
            _ => self.write(reply),
        }
    }
}
