//! One request: the gate it must pass, and the handler that runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::blocking::Blocked;
use super::pending::Pending;
use super::rows::{Prepared, keys_of};
use super::through::Through;
use super::worker::Worker;
use crate::clients::{Client, ReplyMode, Session, Transaction, note_running};
use crate::clock;
use crate::commands::keys;
use crate::commands::routing::Route;
use crate::commands::spec::{Attempt, Context, Control, Limiter, OnTimeout, Run, Scope, Script, flag};
use crate::commands::table::{COMMANDS, Command};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Protocol, Reply, ReplyError};
use crate::tiers::local::{Evicted, LockPlan, Locks, ShardHeld, View};
use crate::types::hasher::hash_bytes;

/// More than is needed, so that not every request evicts.
const EVICTED_AHEAD: usize = 64 * 1024;

/// What comes after a request. Small, as each request hands one up: what waits lies apart.
pub enum Flow {
    /// The next one.
    Next,
    /// The end of the connection.
    Close,
    /// A wait.
    Blocked(Box<Blocked>),
    /// A wait after which the request is tried again.
    Held(Box<Blocked>),
    /// A wait for another tier.
    Pending(Box<Pending>),
}

impl Flow {
    pub(super) fn blocked(blocked: Blocked) -> Self {
        Self::Blocked(Box::new(blocked))
    }

    pub(super) fn held(held: Blocked) -> Self {
        Self::Held(Box::new(held))
    }

    pub(super) fn pending(pending: Pending) -> Self {
        Self::Pending(Box::new(pending))
    }
}

/// What a handler left behind.
pub(super) enum Outcome {
    Replied(CommandResult),
    Wait { timeout_ms: Option<u64>, on_timeout: OnTimeout },
}

impl Worker {
    /// Runs one request, appending its reply to `out`.
    ///
    /// `command` is what it names, `hash` that of the command's only key.
    pub(super) fn execute(
        &mut self,
        session: &mut Session,
        command: Option<&'static Command>,
        hash: Option<u64>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let is_tracked = self.instance.keyspace.is_listening();
        if is_tracked {
            note_running(session.client.id);
        }
        let flow = self.execute_one(session, command, hash, args, out);
        if is_tracked || session.is_subscribed {
            Self::after_tracked(session, &flow, out);
        }
        flow
    }

    #[inline]
    fn execute_one(
        &mut self,
        session: &mut Session,
        command: Option<&'static Command>,
        hash: Option<u64>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mark = out.len();
        self.reply_begins = mark;
        let mode = session.reply_mode;
        session.client.last_request_ms.store(self.now_ms(), Relaxed);
        if let Some(upstream) = &self.instance.upstream
            && let Some(flow) = self.forward(upstream, session, command, hash, args, out)
        {
            return if session.closing { Flow::Close } else { flow };
        }
        let command = command.map_or_else(|| COMMANDS.resolve(args), Ok);
        let mut flow = match command.and_then(|command| self.admit(session, command, args)) {
            Ok(command) => {
                if self.instance.pause.is_set()
                    && let Some(held) = self.hold(session, command, args)
                {
                    return Flow::held(held);
                }
                session.client.last_command.store(command.index, Relaxed);
                self.dispatch(session, command, hash, args, out)
            }
            Err(error) => {
                self.refuse(session, args, &error, out);
                Flow::Next
            }
        };
        match (mode, session.reply_mode) {
            (ReplyMode::On, ReplyMode::On) => {}
            _ if matches!(&flow, Flow::Pending(pending) if pending.runs_again()) => {}
            (_, ReplyMode::SkipThis) => {
                out.truncate(mark);
                session.reply_mode = ReplyMode::SkipNext;
            }
            (ReplyMode::SkipNext, ReplyMode::SkipNext) => {
                out.truncate(mark);
                session.reply_mode = ReplyMode::On;
            }
            // The reply to CLIENT REPLY ON itself is wanted.
            (_, ReplyMode::On) => {}
            _ => out.truncate(mark),
        }
        if let Flow::Pending(pending) = &mut flow
            && mode != ReplyMode::On
        {
            pending.silence();
        }
        if session.closing { Flow::Close } else { flow }
    }

    /// The gate: whether the command may run now.
    #[inline]
    pub(super) fn admit<'c>(
        &mut self,
        session: &mut Session,
        command: &'c Command,
        args: Args<'_>,
    ) -> Result<&'c Command, ReplyError> {
        let spec = command.spec;
        if !spec.arity.accepts(args.len()) {
            return Err(ReplyError::wrong_arity(&command.name));
        }
        if !session.authenticated && !spec.has(flag::NO_AUTH) && !self.instance.acl.is_open() {
            return Err(ReplyError::NO_AUTH);
        }
        if session.user.is_restricted() {
            self.permit(session, command, args)?;
        }
        if session.transaction.is_some() && spec.has(flag::NO_MULTI) {
            return Err(ReplyError::fixed("ERR Command not allowed inside a transaction"));
        }
        if self.instance.keyspace.is_held() && !spec.has(flag::ALLOW_BUSY) {
            return Err(self.instance.scripts.busy());
        }
        if self.instance.keyspace.is_over_limit() && !self.instance.pause.is_on(self.now_ms()) {
            self.make_room(session, command)?;
        }
        if session.is_subscribed && session.protocol == Protocol::Resp2 {
            only_listens(command)?;
        }
        Ok(command)
    }

    /// Evicts; what may need memory is refused if that does not help.
    #[cold]
    fn make_room(&mut self, session: &Session, command: &Command) -> Result<(), ReplyError> {
        let now_ms = self.now_ms();
        let begin = clock::ticks();
        if let Some(upstream) = &self.instance.upstream {
            // What is kept of upstream's goes first: upstream still has it.
            let limit = self.instance.settings.int(Id::Maxmemory).max(0) as usize;
            upstream.near.evict(crate::tiers::local::memory::used().saturating_sub(limit) + EVICTED_AHEAD);
            if !self.instance.keyspace.is_over_limit() || command.routing.route != Route::Local {
                return Ok(());
            }
        }
        let evicted = self.instance.keyspace.make_room(now_ms, self.effects.get_or_insert_default());
        self.instance.note_latency("eviction-cycle", clock::nanos_between(begin, clock::ticks()) / 1_000_000);
        self.settle();
        if evicted == Evicted::Exhausted
            && let Some(tier) = self.instance.database()
        {
            // Keys that wait for the database may be all that is left: once it has them they can go.
            tier.backend.hurry();
        }
        let executes_writes = || {
            command.spec.name == "exec"
                && session.transaction.as_ref().is_some_and(|transaction| {
                    transaction.queue.iter().any(|(index, _)| COMMANDS.at(*index).spec.has(flag::DENYOOM))
                })
        };
        if evicted == Evicted::Exhausted && (command.spec.has(flag::DENYOOM) || executes_writes()) {
            return Err(ReplyError::OUT_OF_MEMORY);
        }
        Ok(())
    }

    /// Replies an error to a request that was not run.
    #[cold]
    pub(super) fn refuse(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        error: &ReplyError,
        out: &mut Vec<u8>,
    ) {
        if error.code() == "NOPERM" {
            self.note_refused(session, args);
        }
        if let Ok(command) = COMMANDS.resolve(args) {
            self.counters.commands[command.index].rejected.add(1);
            if matches!(command.spec.run, Run::Control(Control::Exec)) {
                let reason = error.text().strip_prefix(b"ERR ").unwrap_or(error.text());
                let text = [b"EXECABORT Transaction discarded because of: ", reason].concat();
                self.discard_transaction(session);
                return self.reply_error(session, &ReplyError::new(text), out);
            }
        }
        if let Some(transaction) = &mut session.transaction {
            transaction.is_broken = true;
        }
        self.reply_error(session, error, out);
    }

    pub(super) fn reply_error(&mut self, session: &Session, error: &ReplyError, out: &mut Vec<u8>) {
        self.count_error(error);
        Reply::new(out, session.protocol).error(error);
    }

    #[cold]
    pub(super) fn count_error(&self, error: &ReplyError) {
        self.counters.errors.add(1);
        self.instance.telemetry.count_error(error.code());
    }

    #[inline]
    fn dispatch(
        &mut self,
        session: &mut Session,
        command: &Command,
        hash: Option<u64>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        if let Some(transaction) = &mut session.transaction
            && !matches!(command.spec.run, Run::Control(_))
            && !matches!(command.spec.name, "quit")
        {
            return queue(session_queue(transaction, command, args), session, out);
        }
        let flow = match command.spec.run {
            Run::Control(control) => self.control(control, session, command, args, out),
            Run::Script(script) => {
                // Before what it runs.
                self.show(session, command, args);
                return self.script(script, session, command, args, out);
            }
            _ => self.call(session, command, hash, args, out),
        };
        let runs_again = match &flow {
            Flow::Held(_) => true,
            Flow::Pending(pending) => pending.runs_again(),
            _ => false,
        };
        if !runs_again {
            self.show(session, command, args);
        }
        flow
    }

    /// Shows a command to who monitors.
    #[inline]
    pub(super) fn show(&self, session: &Session, command: &Command, args: Args<'_>) {
        if self.instance.clients.monitors.is_empty() {
            return;
        }
        let spec = command.spec;
        // What runs others is shown, though the others are too.
        if matches!(spec.run, Run::Script(_)) || spec.flags & (flag::SKIP_MONITOR | flag::ADMIN) == 0 {
            self.show_always(session, args);
        }
    }

    /// The same whatever the command.
    #[cold]
    pub(super) fn show_always(&self, session: &Session, args: Args<'_>) {
        let (client, instance) = (&session.client, self.instance);
        if client.is_unix {
            let whose = format!("unix:{}", instance.settings.text(Id::Unixsocket));
            instance.clients.monitors.show(self.now_us(), session.db, &whose, args);
        } else {
            instance.clients.monitors.show(self.now_us(), session.db, &client.address, args);
        }
    }

    /// Runs a command of its own (not within a transaction) under the locks it needs.
    #[inline]
    pub(super) fn call(
        &mut self,
        session: &mut Session,
        command: &Command,
        hash: Option<u64>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let (db, now_ms) = (session.db, self.now_ms());
        let instance = self.instance;
        if command.spec.has(flag::OFFLOAD)
            && (session.tracking.is_none() || command.spec.keys.is_empty())
            && self.is_long(command)
            && !self.has_rows(db, command, args)
        {
            return self.leave_apart(session, command, args);
        }
        let begin = self.ticks;
        let mut effects = self.take_effects();
        let single = command.single_key().zip(hash);
        let plan = if single.is_some() { LockPlan::Each } else { lock_plan(command, args) };
        let Some(locks) = (match single {
            Some((_, hash)) => Locks::of_hash(&instance.keyspace, hash),
            None => Locks::unless_held(&instance.keyspace, &plan),
        }) else {
            self.effects = Some(effects);
            self.refuse(session, args, &instance.scripts.busy(), out);
            return Flow::Next;
        };
        // Made where it stays, as it is long to copy.
        let mut view = View::of_locks(&instance.keyspace, locks, db, now_ms, &mut effects);
        match single {
            Some((index, hash)) => view.set_first(args.at(index), hash),
            None => view.prefetch(&plan),
        }
        if session.client.no_touch.load(Relaxed) {
            view.set_touches(false);
        }
        if let Some(tier) = instance.database() {
            match self.prepare(tier, db, &mut view, [(command, args)].into_iter()) {
                Prepared::Ready => {}
                Prepared::Refused(error) => {
                    drop(view);
                    self.effects = Some(effects);
                    self.counters.commands[command.index].rejected.add(1);
                    self.reply_error(session, &error, out);
                    return Flow::Next;
                }
                Prepared::Waits(waits) => {
                    drop(view);
                    self.effects = Some(effects);
                    return self.fill(tier, waits, args);
                }
                Prepared::Through => {
                    let keys = keys_of(db, [(command, args)].into_iter());
                    view.begin_trial(keys.iter().map(|(db, key)| (*db, &**key)));
                    let mut encoded = Vec::new();
                    let outcome = self.invoke(session, command, args, &mut view, &mut encoded);
                    let tried = view.end_trial();
                    if let Outcome::Replied(_) = outcome {
                        let through = Through::begin(tier, &mut view, tried, keys);
                        drop(view);
                        self.effects = Some(effects);
                        return self.commit(tier, through, session, encoded, out);
                    }
                }
            }
        }
        let outcome = self.invoke(session, command, args, &mut view, out);
        let flow = match outcome {
            Outcome::Replied(_) => Flow::Next,
            Outcome::Wait { timeout_ms, on_timeout } => {
                let waiter = super::blocking::register(session, command, args, &mut view);
                let measured_from = (on_timeout == OnTimeout::Ok).then_some(begin);
                Flow::blocked(Blocked {
                    waiter,
                    timeout_ms,
                    on_timeout,
                    command: command.index,
                    measured_from,
                })
            }
        };
        drop(view);
        self.effects = Some(effects);
        if self.has_effects() {
            self.settle();
            self.refuse_unaccepted(session, out);
        }
        flow
    }

    /// Runs a handler, measures it, and makes its error the reply.
    #[inline]
    pub(super) fn invoke(
        &mut self,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        view: &mut View<'_>,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let mark = out.len();
        let begin = self.ticks;
        if session.tracking.is_some() {
            self.note_reads(session, command, args);
        }
        let caught = catch_unwind(AssertUnwindSafe(|| {
            let mut reply = Reply::new(out, session.protocol);
            match command.spec.run {
                Run::Data(handler) => Outcome::Replied(handler(view, args, &mut reply)),
                Run::Blocking(handler) => match handler(view, args, &mut reply) {
                    Ok(Attempt::Done) => Outcome::Replied(Ok(())),
                    Ok(Attempt::Wait { timeout_ms, on_timeout }) => Outcome::Wait { timeout_ms, on_timeout },
                    Err(error) => Outcome::Replied(Err(error)),
                },
                Run::Limit(handler) => {
                    let (limits, last) = (&self.instance.limits, &self.last_limit);
                    let limiter = Limiter { limits, now_us: self.now_us(), last };
                    Outcome::Replied(handler(view, &limiter, args, &mut reply))
                }
                Run::Session(handler) => {
                    let mut context = Context { session, instance: self.instance, view };
                    let result = handler(&mut context, args, &mut reply);
                    match (&result, session.sleep_ms.take()) {
                        (Ok(()), timeout_ms @ Some(_)) => {
                            Outcome::Wait { timeout_ms, on_timeout: OnTimeout::Ok }
                        }
                        _ => Outcome::Replied(result),
                    }
                }
                // A container without a subcommand does not pass the arity check.
                Run::Control(_) | Run::Script(_) | Run::Container(_) => {
                    Outcome::Replied(Err(ReplyError::SYNTAX))
                }
            }
        }));
        let outcome = caught.unwrap_or_else(|cause| Outcome::Replied(Err(self.unwound(command, &*cause))));
        if let Outcome::Replied(Err(error)) = &outcome {
            out.truncate(mark);
            self.failed(command, error, &mut Reply::new(out, session.protocol));
        }
        if !matches!(outcome, Outcome::Wait { on_timeout: OnTimeout::Ok, .. }) {
            self.measure(&session.client, command, args, begin);
        }
        outcome
    }

    /// The error of a command that did not come to its end.
    #[cold]
    pub(super) fn unwound(&self, command: &Command, cause: &(dyn std::any::Any + Send)) -> ReplyError {
        if cause.is::<ShardHeld>() { self.instance.scripts.busy() } else { self.panicked(command) }
    }

    /// The error of a command that panicked.
    #[cold]
    pub(super) fn panicked(&self, command: &Command) -> ReplyError {
        self.counters.panics.add(1);
        tracing::error!(command = command.name, "a command panicked");
        ReplyError::fixed("ERR internal error")
    }

    /// Counts a command's error and makes it the reply.
    #[cold]
    pub(super) fn failed(&self, command: &Command, error: &ReplyError, reply: &mut Reply<'_>) {
        self.counters.commands[command.index].failed.add(1);
        self.count_error(error);
        reply.error(error);
    }

    /// Counts an execution and its time; notes it if it was slow.
    #[inline]
    pub(super) fn measure(&mut self, client: &Client, command: &Command, args: Args<'_>, begin: u64) {
        self.read_ticks();
        let nanos = clock::nanos_between(begin, self.ticks);
        let counters = &self.counters.commands[command.index];
        counters.calls.add(1);
        counters.nanos.add(nanos);
        if self.instance.settings.int(Id::LatencyTracking) == 1 {
            self.counters.latencies[command.index].record(nanos);
        }
        let event = if command.spec.has(flag::FAST) { "fast-command" } else { "command" };
        self.instance.note_latency(event, nanos / 1_000_000);
        let threshold = self.instance.settings.int(Id::SlowlogLogSlowerThan);
        if threshold >= 0 && nanos / 1000 >= threshold as u64 && !command.spec.has(flag::SKIP_SLOWLOG) {
            self.note_slow(client, args, nanos / 1000);
        }
    }

    #[cold]
    fn note_slow(&self, client: &Client, args: Args<'_>, micros: u64) {
        let limit = self.instance.settings.int(Id::SlowlogMaxLen) as usize;
        let (address, name) = (client.address.clone(), client.names.lock().name.clone());
        self.instance.slow_log.lock().push(args, self.now_ms() / 1000, micros, address, name, limit);
    }

    /// Carries out what commands left to be done after their locks.
    #[cold]
    pub(super) fn settle(&mut self) {
        let effects = self.effects();
        let (journaled, unaccepted) = (effects.journaled.take(), effects.unaccepted.take());
        if let Some(sequence) = journaled {
            self.wait_for(sequence);
        }
        self.unaccepted = unaccepted;
        while !self.effects().ready.is_empty() {
            for (db, key) in std::mem::take(&mut self.effects().ready) {
                self.serve_waiters(db, &key);
            }
        }
        let instance = self.instance;
        let effects = self.effects();
        instance.publish_events(&effects.events);
        effects.events.clear();
        if std::mem::take(&mut effects.frees_tables_now) {
            effects.tables.clear();
        }
        if !effects.garbage.is_empty() || !effects.tables.is_empty() {
            let garbage = std::mem::take(effects);
            instance.lazy_free.free(garbage);
        }
    }
}

/// Whether a client that has subscriptions may run a command: in RESP2, it could not tell a reply from a message.
#[cold]
fn only_listens(command: &Command) -> Result<(), ReplyError> {
    let spec = command.spec;
    if spec.listens() || matches!(spec.name, "ping" | "quit" | "reset") {
        return Ok(());
    }
    Err(ReplyError::new(format!(
        "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
        command.name
    )))
}

fn session_queue(transaction: &mut Transaction, command: &Command, args: Args<'_>) -> (usize, usize) {
    transaction.push(command.index, args);
    (transaction.queue.len(), transaction.memory())
}

fn queue((queued, memory): (usize, usize), session: &Session, out: &mut Vec<u8>) -> Flow {
    session.client.queued.store(queued + 1, Relaxed);
    session.client.transaction_memory.store(memory, Relaxed);
    Reply::new(out, session.protocol).simple("QUEUED");
    Flow::Next
}

/// The shards a command needs.
pub(super) fn lock_plan(command: &Command, args: Args<'_>) -> LockPlan {
    let mut scope = command.spec.scope;
    while let Scope::By(decide) = scope {
        scope = decide(args);
    }
    match (scope, command.spec.run) {
        (Scope::All, _) => LockPlan::All,
        (Scope::Each, _) | (_, Run::Session(_) | Run::Control(_) | Run::Container(_)) => LockPlan::Each,
        (_, Run::Script(Script::Eval { .. } | Script::Call { .. })) => LockPlan::All,
        (_, Run::Script(_)) => LockPlan::Keys(SmallVec::new()),
        (Scope::Keys | Scope::By(_), Run::Data(_) | Run::Blocking(_) | Run::Limit(_)) => {
            let keys = keys::extract(command.spec, args).unwrap_or_default();
            let mut hashes: SmallVec<[u64; 4]> =
                keys.iter().map(|(index, _)| hash_bytes(args.at(*index))).collect();
            hashes.extend(command.spec.derived_key.map(|derive| hash_bytes(&derive(args))));
            LockPlan::Keys(hashes)
        }
    }
}
