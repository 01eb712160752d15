//! `MULTI`, `EXEC` and what belongs to them: a transaction is one request with many commands, under one lock.

use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::execute::{Flow, Outcome, lock_plan};
use super::postponed::Postponed;
use super::rows::{Key, Prepared, keys_of};
use super::through::Through;
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
            Control::Exec => match self.exec(session, args, out) {
                Ok(Flow::Next) => Ok(()),
                Ok(flow) => return flow,
                Err(error) => Err(error),
            },
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
            Control::Watch => self.watch(session, args.skip(1)).map(|()| {
                Reply::new(out, session.protocol).ok();
            }),
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
            Control::Database(what) => match self.database_command(session, what, args) {
                Ok(flow) => {
                    self.measure(&session.client, command, args, begin);
                    return flow;
                }
                Err(error) => Err(error),
            },
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

    fn exec(&mut self, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) -> Result<Flow, ReplyError> {
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
        let mut effects = self.take_effects();
        let Some(mut view) =
            View::acquire(&instance.keyspace, &plan, session.db, self.now_ms(), &mut effects)
        else {
            self.unwatch(session);
            let busy = instance.scripts.busy();
            return Err(ReplyError::new(
                [b"EXECABORT Transaction discarded because of: ", busy.text()].concat(),
            ));
        };
        let through = match self.prepare_exec(&transaction, session, &mut view) {
            Prepared::Ready => None,
            Prepared::Through if matches!(plan, LockPlan::All) => {
                drop(view);
                self.effects = Some(effects);
                self.unwatch(session);
                return Err(ReplyError::fixed(
                    "ERR a transaction that writes through to the database cannot contain commands on all keys",
                ));
            }
            Prepared::Through => instance.database(),
            Prepared::Refused(error) => {
                drop(view);
                self.effects = Some(effects);
                self.unwatch(session);
                let text = [b"EXECABORT Transaction discarded because of: ", error.text()].concat();
                return Err(ReplyError::new(text));
            }
            Prepared::Waits(waits) => {
                drop(view);
                self.effects = Some(effects);
                // As if EXEC had not been sent yet.
                session.client.queued.store(transaction.queue.len() + 1, Relaxed);
                session.client.transaction_memory.store(transaction.memory(), Relaxed);
                session.transaction = Some(transaction);
                return match instance.database() {
                    Some(tier) => Ok(self.fill(tier, waits, args)),
                    None => Ok(Flow::Next),
                };
            }
        };
        release_watches(session, &mut view);
        if std::mem::take(&mut session.watch_flag).is_raised() {
            Reply::new(out, session.protocol).null_array();
        } else if let Some(tier) = through {
            let keys = transaction_keys(&transaction, session.db);
            view.begin_trial(keys.iter().map(|(db, key)| (*db, &**key)));
            let mut encoded = Vec::new();
            self.exec_all(session, &transaction, &mut view, &mut encoded);
            let tried = view.end_trial();
            let through = Through::begin(tier, &mut view, tried, keys);
            drop(view);
            self.effects = Some(effects);
            return Ok(self.commit(tier, through, session, encoded, out));
        } else {
            self.exec_all(session, &transaction, &mut view, out);
        }
        drop(view);
        self.effects = Some(effects);
        if self.has_effects() {
            self.settle();
            self.refuse_unaccepted(session, out);
        }
        Ok(Flow::Next)
    }

    fn prepare_exec(
        &mut self,
        transaction: &Transaction,
        session: &Session,
        view: &mut View<'_>,
    ) -> Prepared {
        let Some(tier) = self.instance.database() else { return Prepared::Ready };
        let requests = transaction.queue.iter().map(|(index, args)| (COMMANDS.at(*index), args.as_args()));
        self.prepare(tier, session.db, view, requests)
    }

    fn exec_all(
        &mut self,
        session: &mut Session,
        transaction: &Transaction,
        view: &mut View<'_>,
        out: &mut Vec<u8>,
    ) {
        Reply::new(out, session.protocol).array(transaction.queue.len());
        for (index, args) in &transaction.queue {
            self.exec_one(session, COMMANDS.at(*index), args.as_args(), view, out);
        }
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
        if session.user.is_restricted()
            && let Err(error) = self.permit_in_exec(session, command, args)
        {
            self.counters.commands[command.index].rejected.add(1);
            return self.reply_error(session, &error, out);
        }
        if let Run::Control(_) = command.spec.run {
            // Only UNWATCH can be queued, and EXEC has unwatched everything already.
            return Reply::new(out, session.protocol).ok();
        }
        if let Run::Script(script) = command.spec.run {
            self.show(session, command, args);
            return self.script_within(script, session, command, args, view, out);
        }
        if let Outcome::Wait { on_timeout, .. } = self.invoke(session, command, args, view, out) {
            on_timeout.write_at_once(&mut Reply::new(out, session.protocol));
        }
        self.show(session, command, args);
    }

    /// Forgets the transaction and the watches.
    pub(super) fn discard_transaction(&mut self, session: &mut Session) {
        session.transaction = None;
        session.client.queued.store(0, Relaxed);
        session.client.transaction_memory.store(0, Relaxed);
        self.unwatch(session);
    }

    fn watch(&mut self, session: &mut Session, keys: Args<'_>) -> Result<(), ReplyError> {
        if session.watch_flag.is_raised() {
            return Ok(());
        }
        let hashes = keys.iter().map(hash_bytes).collect();
        let instance = self.instance;
        let now_ms = self.now_ms();
        let plan = LockPlan::Keys(hashes);
        let mut view = View::acquire(
            &instance.keyspace,
            &plan,
            session.db,
            now_ms,
            self.effects.get_or_insert_default(),
        )
        .ok_or_else(|| instance.scripts.busy())?;
        for key in keys.iter() {
            if !session.watched.iter().any(|(db, watched)| *db == session.db && **watched == *key) {
                view.watch(key, &session.watch_flag);
                session.watched.push((session.db, key.into()));
            }
        }
        session.client.watching.store(session.watched.len(), Relaxed);
        Ok(())
    }

    /// Forgets the watches.
    pub(super) fn unwatch(&mut self, session: &mut Session) {
        if !session.watched.is_empty() {
            let hashes = session.watched.iter().map(|(_, key)| hash_bytes(key)).collect();
            let instance = self.instance;
            let now_ms = self.now_ms();
            let plan = LockPlan::Keys(hashes);
            if let Some(mut view) = View::acquire(
                &instance.keyspace,
                &plan,
                session.db,
                now_ms,
                self.effects.get_or_insert_default(),
            ) {
                release_watches(session, &mut view);
            }
            let keys = std::mem::take(&mut session.watched);
            if !keys.is_empty() {
                self.postpone(Postponed::Unwatch(keys, session.watch_flag.clone()));
                session.client.watching.store(0, Relaxed);
            }
        }
        session.watch_flag = WatchFlag::default();
    }

    /// Puts the session back to what a new connection has.
    fn reset(&mut self, session: &mut Session) {
        self.discard_transaction(session);
        session.select(self.instance.first_db());
        session.set_protocol(Protocol::Resp2);
        session.reply_mode = crate::clients::ReplyMode::On;
        session.user = self.instance.acl.default_user().clone();
        session.authenticated = self.instance.acl.is_open();
        session.end_tracking(&self.instance.clients, &self.instance.keyspace);
        session.unsubscribe_all(&self.instance.clients);
        self.instance.clients.monitors.remove(&session.client);
        session.client.no_evict.store(false, Relaxed);
        session.client.no_touch.store(false, Relaxed);
        let mut names = session.client.names.lock();
        names.name.clear();
        "default".clone_into(&mut names.user);
    }

    /// Gives back what a closed connection held.
    pub fn end_session(&mut self, session: &mut Session) {
        self.read_clock();
        session.end_tracking(&self.instance.clients, &self.instance.keyspace);
        session.unsubscribe_all(&self.instance.clients);
        self.instance.clients.monitors.remove(&session.client);
        self.discard_transaction(session);
        if self.has_effects() {
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

/// The keys that a transaction may change.
fn transaction_keys(transaction: &Transaction, db: usize) -> Vec<Key> {
    keys_of(db, transaction.queue.iter().map(|(index, args)| (COMMANDS.at(*index), args.as_args())))
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
    pub(super) fn write_at_once(self, reply: &mut Reply<'_>) {
        match self {
            Self::NullArrayOrNull => reply.null(),
            _ => self.write(reply),
        }
    }
}
