//! Running a script: on a stack of its own, or within a transaction.

use std::panic::{AssertUnwindSafe, catch_unwind};

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};
use send_wrapper::SendWrapper;
use tokio::sync::oneshot;

use super::Lua;
use super::host::{ScriptHost, WorkerPointer, time_allowed};
use super::prepare::{FIRST_KEY, Plan, Prepared};
use crate::clients::Session;
use crate::clock;
use crate::commands::spec::Script as Kind;
use crate::commands::table::{COMMANDS, Command};
use crate::engine::execute::Flow;
use crate::engine::pending::Pending;
use crate::engine::worker::Worker;
use crate::lua::Failure;
use crate::protocol::{Args, OwnedArgs, Protocol, Reply, ReplyError};
use crate::tiers::local::{Effects, View};

/// As much as a thread has; what is not used takes no memory.
const STACK_SIZE: usize = 2 * 1024 * 1024;

/// What a run leaves.
struct Ended {
    /// Gone after a panic: nobody knows in what state the machine is.
    lua: Option<Box<Lua>>,
    effects: Box<Effects>,
    result: Result<Encoded, RunError>,
}

/// The encoded reply, and the errors in it that are to be counted.
type Encoded = (Vec<u8>, Vec<ReplyError>);

/// Why there is no reply.
enum RunError {
    Failed(ReplyError, IsCounted),
    Busy,
    Panicked,
}

type IsCounted = bool;
type Run = Coroutine<WorkerPointer, (), Ended, DefaultStack>;

/// A script that is set aside, with its locks.
pub struct Suspended {
    run: Run,
    reply: oneshot::Sender<(Vec<u8>, Option<u64>)>,
    args: OwnedArgs,
    command: usize,
    begin: u64,
    protocol: Protocol,
    client: std::sync::Arc<crate::clients::Client>,
}

impl Worker {
    /// Runs a command that runs Lua.
    pub(in crate::engine) fn script(
        &mut self,
        kind: Kind,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let begin = self.ticks;
        let Some(mut lua) = self.take_lua(session) else {
            self.refuse(session, args, &self.instance.scripts.busy(), out);
            return Flow::Next;
        };
        let prepared = match lua.prepare(self.instance, kind, args, false) {
            Ok(Plan::Run(prepared)) => prepared,
            Ok(Plan::Done(name)) => {
                self.lua = Some(lua);
                write_done(&mut Reply::new(out, session.protocol), name.as_deref());
                self.measure(&session.client, command, args, begin);
                return Flow::Next;
            }
            Err(error) => {
                self.lua = Some(lua);
                self.failed(command, &error, &mut Reply::new(out, session.protocol));
                self.measure(&session.client, command, args, begin);
                return Flow::Next;
            }
        };
        if let Some(tier) = self.instance.database() {
            let keys = args.take(prepared.keys_end).skip(FIRST_KEY);
            if let Some(waits) = self.prepare_script(tier, session.db, keys.iter()) {
                self.lua = Some(lua);
                return self.fill(tier, waits, args);
            }
        }
        let stack = match lua.stack.take().map_or_else(|| DefaultStack::new(STACK_SIZE), Ok) {
            Ok(stack) => stack,
            Err(error) => {
                tracing::error!(%error, "no stack for scripts");
                self.lua = Some(lua);
                let error = ReplyError::fixed("ERR there is no memory to run scripts in");
                self.failed(command, &error, &mut Reply::new(out, session.protocol));
                return Flow::Next;
            }
        };
        let task = Task { lua, prepared, protocol: session.protocol, db: session.db, begin };
        let mut run = self.start(task, session, args, stack);
        match run.resume(WorkerPointer(self)) {
            CoroutineResult::Return(ended) => {
                let stack = run.into_stack();
                self.finish(ended, stack, command, session.protocol, out);
                self.measure(&session.client, command, args, begin);
                Flow::Next
            }
            CoroutineResult::Yield(()) => self.set_aside(run, session, command, args, begin),
        }
    }

    /// Makes the coroutine of a run; it has not begun.
    fn start(&mut self, task: Task, session: &Session, args: Args<'_>, stack: DefaultStack) -> Run {
        let (client, now_ms, now_us) = (session.client.clone(), self.now_ms(), self.now_us());
        let (user, tracking, caching) = (session.user.clone(), session.tracking.clone(), session.caching);
        let no_touch = client.no_touch.load(std::sync::atomic::Ordering::Relaxed);
        let keyspace = &self.instance.keyspace;
        // SAFETY: only the lifetime changes. The arguments are looked at before the run is first set aside, and not
        // after, but for the copy that `note_overdue` makes just before.
        let args = unsafe { std::mem::transmute::<Args<'_>, Args<'static>>(args) };
        Coroutine::with_stack(stack, move |yielder: &Yielder<WorkerPointer, ()>, worker: WorkerPointer| {
            let Task { mut lua, prepared, protocol, db, begin } = task;
            let mut effects = Box::<Effects>::default();
            (lua.session.client, lua.session.user) = (client, user);
            (lua.session.tracking, lua.session.caching) = (tracking, caching);
            let caught = catch_unwind(AssertUnwindSafe(|| {
                let Some(mut view) = View::acquire(keyspace, &prepared.locks, db, now_ms, &mut effects)
                else {
                    return Err(RunError::Busy);
                };
                if no_touch {
                    view.set_touches(false);
                }
                let run = (worker, Some(yielder), begin);
                lua.run(run, &prepared, args, &mut view, (protocol, db, now_us))
            }));
            match caught {
                Ok(result) => Ended { lua: Some(lua), effects, result },
                Err(_) => {
                    // What it held may be in use by frames that are gone.
                    std::mem::forget(lua);
                    Ended { lua: None, effects, result: Err(RunError::Panicked) }
                }
            }
        })
    }

    /// Keeps a run for later; its client waits.
    #[cold]
    fn set_aside(
        &mut self,
        run: Run,
        session: &Session,
        command: &Command,
        args: Args<'_>,
        begin: u64,
    ) -> Flow {
        let (reply, awaited) = oneshot::channel();
        let (client, protocol) = (session.client.clone(), session.protocol);
        let (args, command) = (args.to_owned(), command.index);
        let suspended = Suspended { run, reply, args, command, begin, protocol, client };
        self.suspended = Some(SendWrapper::new(suspended));
        self.upkeep.notify_one();
        let tier = self.instance.database();
        let reply = Box::pin(async move {
            // A sender that is dropped is that of a thread that ends.
            let (mut encoded, journaled) = awaited.await.unwrap_or_default();
            if let (Some(tier), Some(sequence)) = (tier, journaled)
                && let Err(error) = tier.acknowledged(sequence).await
            {
                encoded.clear();
                let error = ReplyError::new(format!("IOERR the write may be lost: {error}"));
                Reply::new(&mut encoded, protocol).error(&error);
            }
            encoded
        });
        Flow::pending(Pending::reply(reply).unbounded())
    }

    /// Whether a script is set aside, so that [`Worker::continue_script`] is to be called.
    pub fn has_script(&self) -> bool {
        self.suspended.is_some()
    }

    /// Goes on with the script that is set aside, for a while.
    pub fn continue_script(&mut self) {
        let Some(mut suspended) = self.suspended.take() else { return };
        match suspended.run.resume(WorkerPointer(self)) {
            CoroutineResult::Yield(()) => self.suspended = Some(suspended),
            CoroutineResult::Return(ended) => {
                let Suspended { run, reply, args, command, begin, protocol, client } = suspended.take();
                let command = COMMANDS.at(command);
                self.read_clock();
                let mut out = Vec::new();
                self.finish(ended, run.into_stack(), command, protocol, &mut out);
                self.measure(&client, command, args.as_args(), begin);
                let journaled = self.unacknowledged.take().map(|record| record.sequence);
                // The client may be gone.
                drop(reply.send((out, journaled)));
            }
        }
    }

    fn finish(
        &mut self,
        ended: Ended,
        stack: DefaultStack,
        command: &Command,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) {
        let Ended { lua, effects, result } = ended;
        self.lua = lua;
        if let Some(lua) = &mut self.lua {
            lua.stack = Some(stack);
            lua.tell_memory(self.instance);
        }
        let begins = out.len();
        if !effects.is_empty() {
            self.effects = Some(effects);
            self.settle();
        }
        self.write_result(result, command, protocol, out);
        if let Some(error) = self.unaccepted.take() {
            out.truncate(begins);
            self.failed(command, &error, &mut Reply::new(out, protocol));
        }
    }

    fn write_result(
        &mut self,
        result: Result<Encoded, RunError>,
        command: &Command,
        protocol: Protocol,
        out: &mut Vec<u8>,
    ) {
        let mut reply = Reply::new(out, protocol);
        match result {
            Ok((encoded, errors)) => {
                reply.raw(&encoded);
                errors.iter().for_each(|error| self.count_error(error));
                if encoded.first() == Some(&b'-') {
                    self.counters.commands[command.index].failed.add(1);
                }
                if let Some(lua) = &mut self.lua {
                    lua.give_back(encoded);
                }
            }
            Err(RunError::Failed(error, true)) => {
                self.counters.commands[command.index].failed.add(1);
                reply.error(&error);
            }
            Err(RunError::Failed(error, false)) => self.failed(command, &error, &mut reply),
            Err(RunError::Busy) => {
                let error = self.instance.scripts.busy();
                self.counters.commands[command.index].rejected.add(1);
                self.count_error(&error);
                reply.error(&error);
            }
            Err(RunError::Panicked) => {
                let error = self.panicked(command);
                self.failed(command, &error, &mut reply);
            }
        }
    }

    /// Runs a command that runs Lua within a transaction, under the transaction's locks. It is not set aside.
    pub(in crate::engine) fn script_within(
        &mut self,
        kind: Kind,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        view: &mut View<'_>,
        out: &mut Vec<u8>,
    ) {
        let begin = self.ticks;
        let result = match self.take_lua(session) {
            None => Err(RunError::Busy),
            Some(mut lua) => match lua.prepare(self.instance, kind, args, true) {
                Ok(Plan::Done(name)) => {
                    self.lua = Some(lua);
                    let mut encoded = Vec::new();
                    write_done(&mut Reply::new(&mut encoded, session.protocol), name.as_deref());
                    Ok((encoded, Vec::new()))
                }
                Err(error) => {
                    self.lua = Some(lua);
                    Err(RunError::Failed(error, false))
                }
                Ok(Plan::Run(prepared)) => {
                    (lua.session.client, lua.session.user) = (session.client.clone(), session.user.clone());
                    (lua.session.tracking, lua.session.caching) = (session.tracking.clone(), session.caching);
                    let now_us = self.now_us();
                    let worker = WorkerPointer(self);
                    let caught = catch_unwind(AssertUnwindSafe(|| {
                        let how = (session.protocol, session.db, now_us);
                        lua.run((worker, None, begin), &prepared, args, view, how)
                    }));
                    match caught {
                        Ok(result) => {
                            self.lua = Some(lua);
                            result
                        }
                        Err(_) => {
                            std::mem::forget(lua);
                            Err(RunError::Panicked)
                        }
                    }
                }
            },
        };
        self.write_result(result, command, session.protocol, out);
        self.measure(&session.client, command, args, begin);
    }
}

/// What a coroutine needs to run a script.
struct Task {
    lua: Box<Lua>,
    prepared: Prepared,
    protocol: Protocol,
    db: usize,
    begin: u64,
}

impl Lua {
    fn run(
        &mut self,
        (worker, yielder, begin): (WorkerPointer, Option<&Yielder<WorkerPointer, ()>>, u64),
        prepared: &Prepared,
        args: Args<'_>,
        view: &mut View<'_>,
        (protocol, db, now_us): (Protocol, usize, u64),
    ) -> Result<Encoded, RunError> {
        let mut encoded = std::mem::take(&mut self.spare);
        self.session.db = db;
        self.session.protocol = Protocol::Resp2;
        self.session.frozen_us = Some(now_us);
        // SAFETY: the caller lends its worker for the run.
        let due = time_allowed(unsafe { &*worker.0 });
        let mut host = ScriptHost {
            worker,
            session: &mut self.session,
            view,
            prepared,
            args,
            yielder,
            has_written: false,
            begin: clock::ticks().max(begin),
            due,
            running: None,
        };
        let (keys, rest) = (args.take(prepared.keys_end).skip(FIRST_KEY), args.skip(prepared.keys_end));
        let out = (&mut encoded, protocol);
        let result = match prepared.is_script {
            true => self.machine.run_script(&mut host, prepared.function, keys, rest, out),
            false => self.machine.run_function(&mut host, prepared.function, keys, rest, out),
        };
        drop(host);
        let client = &self.session.client;
        client.db.store(db, std::sync::atomic::Ordering::Relaxed);
        match result {
            Ok(errors) => Ok((encoded, errors)),
            Err(failure) => Err(RunError::Failed(error_of(&failure, &prepared.name), failure.is_counted)),
        }
    }

    /// Takes a buffer back.
    fn give_back(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 64 * 1024 {
            buffer.clear();
            self.spare = buffer;
        }
    }
}

fn write_done(reply: &mut Reply<'_>, name: Option<&[u8]>) {
    match name {
        Some(name) => reply.bulk(name),
        None => reply.ok(),
    }
}

fn error_of(failure: &Failure, name: &[u8]) -> ReplyError {
    if failure.is_fatal {
        let shown = &failure.text[..failure.text.len().min(100)];
        return ReplyError::new([b"ERR Error running script ", name, b", ", shown].concat());
    }
    let mut text = failure.text.clone();
    if let Some((source, line)) = &failure.place {
        text.extend([b" script: ", name, b", on ", source, b":", line, b"."].concat());
    }
    ReplyError::new(text)
}
