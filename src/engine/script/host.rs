//! What a script's commands run in: the locks that the script holds, and a session of its own.

use std::sync::Arc;
use std::sync::atomic::Ordering::Release;

use corosensei::Yielder;

use super::prepare::Prepared;
use crate::clients::Session;
use crate::clock;
use crate::commands::acl;
use crate::commands::spec::{Run, flag};
use crate::commands::table::COMMANDS;
use crate::config::Id;
use crate::engine::execute::Outcome;
use crate::engine::worker::Worker;
use crate::lua::{Function, Host, Interrupt};
use crate::protocol::{Args, Protocol, Reply, ReplyError};
use crate::scripts::Running;
use crate::tiers::local::View;

/// How long a script runs on before it is set aside once more, in nanoseconds.
const SLICE: u64 = 5_000_000;

/// The worker that a script runs on, for as long as it is not set aside.
#[derive(Clone, Copy)]
pub(super) struct WorkerPointer(pub *mut Worker);

/// The host of one run.
pub(super) struct ScriptHost<'a, 'view> {
    pub worker: WorkerPointer,
    pub session: &'a mut Session,
    pub view: &'a mut View<'view>,
    pub prepared: &'a Prepared,
    /// The command that runs the script.
    pub args: Args<'a>,
    /// Where the script is set aside, if it can be.
    pub yielder: Option<&'a Yielder<WorkerPointer, ()>>,
    pub has_written: bool,
    /// When it began, and when it will have had its time, in ticks and nanoseconds.
    pub begin: u64,
    pub due: u64,
    pub running: Option<Arc<Running>>,
}

impl ScriptHost<'_, '_> {
    fn worker(&mut self) -> &mut Worker {
        // SAFETY: whoever runs the script lends its worker until the script ends or is set aside, and uses it no other way
        // meanwhile; when the script goes on, it is given a new pointer.
        unsafe { &mut *self.worker.0 }
    }

    fn refuse(&mut self, command: Option<usize>, text: &'static str) -> ReplyError {
        let error = ReplyError::fixed(text);
        let worker = self.worker();
        worker.count_error(&error);
        if let Some(index) = command {
            worker.counters.commands[index].rejected.add(1);
        }
        error
    }

    /// The script has had its time: others are told so rather than kept waiting.
    #[cold]
    fn note_overdue(&mut self) {
        let instance = self.worker().instance;
        let elapsed = std::time::Duration::from_nanos(clock::nanos_between(self.begin, clock::ticks()));
        let name = String::from_utf8_lossy(&self.prepared.name).into_owned();
        tracing::warn!(millis = elapsed.as_millis(), script = name, "a script runs long");
        let started = clock::monotonic() - elapsed;
        let running = Arc::new(Running::new(
            self.prepared.name.clone(),
            self.args.to_owned(),
            self.prepared.is_script,
            started,
            self.has_written,
        ));
        instance.scripts.note_running(running.clone());
        instance.keyspace.begin_hold();
        self.running = Some(running);
    }
}

impl Drop for ScriptHost<'_, '_> {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            let instance = self.worker().instance;
            instance.scripts.note_ended(&running);
            instance.keyspace.end_hold();
        }
    }
}

impl Host for ScriptHost<'_, '_> {
    fn call(&mut self, args: Args<'_>, out: &mut Vec<u8>) -> Result<(), ReplyError> {
        let Ok(command) = COMMANDS.resolve(args) else {
            return Err(self.refuse(None, "ERR Unknown Redis command called from script"));
        };
        let (spec, index) = (command.spec, Some(command.index));
        if !spec.arity.accepts(args.len()) {
            return Err(self.refuse(index, "ERR Wrong number of args calling Redis command from script"));
        }
        if spec.has(flag::NOSCRIPT) || matches!(spec.run, Run::Control(_) | Run::Script(_)) {
            return Err(self.refuse(index, "ERR This Redis command is not allowed from script"));
        }
        if self.session.user.is_restricted()
            // SAFETY: as in `worker`; the borrow of the session beside it is of another field.
            && let Err(error) = unsafe { &*self.worker.0 }.permit_in_script(self.session, command, args)
        {
            let worker = self.worker();
            worker.count_error(&error);
            worker.counters.commands[command.index].rejected.add(1);
            return Err(error);
        }
        if self.prepared.only_reads && spec.flags & (flag::WRITE | flag::MAY_REPLICATE) != 0 {
            return Err(self.refuse(index, "ERR Write commands are not allowed from read-only scripts."));
        }
        if self.prepared.refuses_memory && spec.has(flag::DENYOOM) && !self.has_written {
            return Err(self.refuse(index, "OOM command not allowed when used memory > 'maxmemory'."));
        }
        // SAFETY: as in `worker`; the borrow of the view beside it is of another field.
        let worker = unsafe { &mut *self.worker.0 };
        worker.prepare_within(self.session.db, self.view, command, args)?;
        if spec.has(flag::WRITE) {
            self.has_written = true;
            if let Some(running) = &self.running {
                running.has_written.store(true, Release);
            }
        }
        self.view.select(self.session.db);
        // SAFETY: as in `worker`; the borrow of the session and the view beside it is of other fields.
        let worker = unsafe { &mut *self.worker.0 };
        if let Outcome::Wait { on_timeout, .. } = worker.invoke(self.session, command, args, self.view, out) {
            on_timeout.write_at_once(&mut Reply::new(out, self.session.protocol));
        }
        let (db, worker) = (self.session.db, self.worker());
        let monitors = &worker.instance.clients.monitors;
        if !monitors.is_empty() && spec.flags & (flag::SKIP_MONITOR | flag::ADMIN) == 0 {
            monitors.show(worker.now_us(), db, "lua", args);
        }
        Ok(())
    }

    fn protocol(&self) -> Protocol {
        self.session.protocol
    }

    fn set_protocol(&mut self, protocol: Protocol) {
        // Not the client's: that is told of in `CLIENT LIST`.
        self.session.protocol = protocol;
    }

    fn may_run(&mut self, args: Args<'_>) -> Option<bool> {
        let command = COMMANDS.resolve(args).ok()?;
        let has_all = command.spec.arity.accepts(args.len());
        Some(
            !self.session.user.is_restricted()
                || has_all && acl::check(&self.session.user.rules(), command, args).is_ok(),
        )
    }

    fn log(&mut self, level: i32, message: &[u8]) {
        log(level, message);
    }

    fn interrupt(&mut self) -> Interrupt {
        if self.due == 0 || clock::nanos_between(self.begin, clock::ticks()) < self.due {
            return Interrupt::Continue;
        }
        if self.running.is_none() {
            self.note_overdue();
        }
        if let Some(yielder) = self.yielder {
            self.worker = yielder.suspend(());
        }
        self.due = clock::nanos_between(self.begin, clock::ticks()) + SLICE;
        match &self.running {
            Some(running) if running.is_killed() => {
                tracing::info!("a script was killed");
                Interrupt::Kill("Script killed by user with SCRIPT KILL...")
            }
            _ => Interrupt::Continue,
        }
    }

    fn register(
        &mut self,
        _: Vec<u8>,
        _: Option<Vec<u8>>,
        _: Vec<Vec<u8>>,
        _: Function,
    ) -> Result<(), Vec<u8>> {
        Err(b"redis.register_function can only be called on FUNCTION LOAD command".to_vec())
    }
}

/// Logs what a script says.
pub(super) fn log(level: i32, message: &[u8]) {
    let message = String::from_utf8_lossy(message);
    match level {
        0 | 1 => tracing::debug!(target: "script", "{message}"),
        2 => tracing::info!(target: "script", "{message}"),
        _ => tracing::warn!(target: "script", "{message}"),
    }
}

/// When a script that begins now will have had its time.
pub(super) fn time_allowed(worker: &Worker) -> u64 {
    (worker.instance.settings.int(Id::BusyReplyThreshold) as u64).saturating_mul(1_000_000)
}
