//! Before a script runs: finding it, and whether it may run now.

use super::{LoadedScript, Lua, declared};
use crate::clients::Session;
use crate::commands::spec::Script as Kind;
use crate::config::Id;
use crate::engine::worker::Worker;
use crate::instance::Instance;
use crate::lua::{Failure, Function, Machine};
use crate::protocol::{Args, ReplyError};
use crate::scripts::{Digest, Flags, SOURCE_NAME, digest, named_digest};
use crate::tiers::local::LockPlan;
use crate::types::hasher::hash_bytes;
use crate::types::number::parse_i64;

/// A script that is about to run.
pub(super) struct Prepared {
    pub function: Function,
    /// The digest of a script, the name of a function.
    pub name: Vec<u8>,
    pub is_script: bool,
    /// Where the keys end among the arguments, which begin with the command.
    pub keys_end: usize,
    /// What it locks.
    pub locks: LockPlan,
    /// Commands that write are refused.
    pub only_reads: bool,
    /// Commands that need memory are refused.
    pub refuses_memory: bool,
}

/// What there is to be done.
pub(super) enum Plan {
    Run(Prepared),
    /// Nothing more: the reply is this, or `OK`.
    Done(Option<Vec<u8>>),
}

/// Of the arguments: the keys begin here.
pub(super) const FIRST_KEY: usize = 3;

/// A change of a machine's memory, in bytes, that is worth telling.
const MUCH: usize = 32 * 1024;

const NO_SCRIPT: ReplyError = ReplyError::fixed("NOSCRIPT No matching script. Please use EVAL.");

impl Worker {
    /// The Lua of this worker, made at its first use. `None` while one of its scripts is set aside.
    pub(super) fn take_lua(&mut self, session: &Session) -> Option<Box<Lua>> {
        if self.suspended.is_some() {
            return None;
        }
        Some(self.lua.take().unwrap_or_else(|| Box::new(Lua::new(self.instance, session))))
    }

    /// Does what is to be done though no request comes; says whether something is left.
    pub fn tend(&mut self) -> bool {
        self.read_clock();
        self.catch_up();
        self.refresh_lua();
        !self.postponed.is_empty()
    }

    /// Has this worker's machine forget what the server has forgotten, though nothing is run in it.
    fn refresh_lua(&mut self) {
        let instance = self.instance;
        if let Some(lua) = &mut self.lua {
            lua.forget_flushed(instance);
            lua.tell_memory(instance);
        }
    }
}

impl Lua {
    fn new(instance: &Instance, session: &Session) -> Self {
        Self {
            machine: Machine::new(instance.settings.int(Id::ScriptMemoryLimit) as usize),
            loaded: std::collections::HashMap::new(),
            generation: instance.scripts.generation(),
            functions: super::library::LoadedFunctions::default(),
            session: Session::new(session.client.clone(), session.user.clone(), true),
            stack: None,
            told_memory: 0,
            spare: Vec::new(),
        }
    }

    /// Finds what a command names, and checks that it may run.
    pub(super) fn prepare(
        &mut self,
        instance: &Instance,
        kind: Kind,
        args: Args<'_>,
        is_queued: bool,
    ) -> Result<Plan, ReplyError> {
        self.machine.set_limit(instance.settings.int(Id::ScriptMemoryLimit) as usize);
        match kind {
            Kind::Eval { by_digest, only_reads } => {
                self.prepare_script(instance, (by_digest, only_reads), args, is_queued).map(Plan::Run)
            }
            Kind::Call { only_reads } => {
                self.prepare_function(instance, only_reads, args, is_queued).map(Plan::Run)
            }
            Kind::LoadLibrary => self.load_library(instance, args).map(|name| Plan::Done(Some(name))),
            Kind::RestoreLibraries if args.len() > 4 => {
                let shown = String::from_utf8_lossy(args.at(1)).into_owned();
                Err(ReplyError::new(format!(
                    "ERR unknown subcommand or wrong number of arguments for '{shown}'. Try FUNCTION HELP."
                )))
            }
            Kind::RestoreLibraries => self.restore_libraries(instance, args).map(|()| Plan::Done(None)),
        }
    }

    fn prepare_function(
        &mut self,
        instance: &Instance,
        only_reads: bool,
        args: Args<'_>,
        is_queued: bool,
    ) -> Result<Prepared, ReplyError> {
        let found = self.function(instance, args.at(1))?;
        let bad_count = || ReplyError::fixed("ERR Bad number of keys provided");
        let keys_end = FIRST_KEY + count_keys(args, bad_count)?;
        let flags = found.info.flags;
        let is_full = instance.keyspace.is_over_limit();
        check_flags(flags, only_reads, is_full, is_queued)?;
        let only_reads = only_reads || flags.has(Flags::NO_WRITES);
        let refuses_memory = is_full && !flags.has(Flags::ALLOW_OOM);
        let (function, name) = (found.function, found.info.name.clone());
        let locks = LockPlan::All;
        Ok(Prepared { function, name, is_script: false, keys_end, locks, only_reads, refuses_memory })
    }

    fn prepare_script(
        &mut self,
        instance: &Instance,
        (by_digest, only_reads): (bool, bool),
        args: Args<'_>,
        is_queued: bool,
    ) -> Result<Prepared, ReplyError> {
        let named = match by_digest {
            true => Some(named_digest(args.at(1)).ok_or(NO_SCRIPT)?),
            false => None,
        };
        let keys_end = FIRST_KEY + count_keys(args, || ReplyError::NOT_INTEGER)?;
        self.forget_flushed(instance);
        let digest = named.unwrap_or_else(|| digest(args.at(1)));
        let LoadedScript { function, script, keeps_to_keys } =
            self.load(instance, digest, (!by_digest).then(|| args.at(1)))?;
        let is_full = instance.keyspace.is_over_limit();
        check_flags(script.flags, only_reads, is_full, is_queued)?;
        let (flags, name) = (script.flags, digest.to_vec());
        let only_reads = only_reads || flags.has(Flags::NO_WRITES);
        let refuses_memory = is_full && !flags.has(Flags::ALLOW_OOM);
        let locks = if keeps_to_keys {
            let keys = args.take(keys_end).skip(FIRST_KEY);
            LockPlan::Keys(keys.iter().map(hash_bytes).collect())
        } else {
            LockPlan::All
        };
        Ok(Prepared { function, name, is_script: true, keys_end, locks, only_reads, refuses_memory })
    }

    /// Tells the server's figures what the machine takes, if that has changed by much.
    pub(super) fn tell_memory(&mut self, instance: &Instance) {
        let memory = self.machine.memory();
        if memory.abs_diff(self.told_memory) > MUCH {
            instance.scripts.note_memory(self.told_memory, memory);
            self.told_memory = memory;
        }
    }

    /// Forgets what the server has forgotten, and begins with a new machine, as Redis does: what scripts left in it goes.
    fn forget_flushed(&mut self, instance: &Instance) {
        let generation = instance.scripts.generation();
        if generation != self.generation {
            self.generation = generation;
            self.loaded.clear();
            self.functions = super::library::LoadedFunctions::default();
            self.machine = Machine::new(instance.settings.int(Id::ScriptMemoryLimit) as usize);
        }
    }

    fn load(
        &mut self,
        instance: &Instance,
        digest: Digest,
        source: Option<&[u8]>,
    ) -> Result<LoadedScript, ReplyError> {
        if let Some(loaded) = self.loaded.get(&digest) {
            return Ok(loaded.clone());
        }
        let script = match (instance.scripts.get(&digest), source) {
            (Some(script), _) => script,
            (None, Some(source)) => instance.scripts.add(source, digest)?,
            (None, None) => return Err(NO_SCRIPT),
        };
        let function = self
            .machine
            .load(&script.bytecode, SOURCE_NAME, false)
            .map_err(|failure| cannot_load(&failure))?;
        let keeps_to_keys = declared::keeps_to_keys(&script.source);
        let loaded = LoadedScript { function, script, keeps_to_keys };
        self.loaded.insert(digest, loaded.clone());
        Ok(loaded)
    }
}

pub(super) fn cannot_load(failure: &Failure) -> ReplyError {
    ReplyError::new([b"ERR Error compiling script (new function): ", failure.text.as_slice()].concat())
}

/// How many of the arguments are keys.
fn count_keys(args: Args<'_>, no_number: impl FnOnce() -> ReplyError) -> Result<usize, ReplyError> {
    let count = parse_i64(args.at(2)).ok_or_else(no_number)?;
    if count > (args.len() - FIRST_KEY) as i64 {
        return Err(ReplyError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    usize::try_from(count).map_err(|_| ReplyError::fixed("ERR Number of keys can't be negative"))
}

/// Whether something with these flags may run.
fn check_flags(flags: Flags, only_reads: bool, is_full: bool, is_queued: bool) -> Result<(), ReplyError> {
    if flags.has(Flags::UNSAID | Flags::NO_WRITES) {
        return Ok(());
    }
    if only_reads {
        return Err(ReplyError::fixed("ERR Can not execute a script with write flag using *_ro command."));
    }
    if is_full && !flags.has(Flags::ALLOW_OOM) {
        if !is_queued {
            // It is refused as any other command that may need memory.
            return Err(ReplyError::OUT_OF_MEMORY);
        }
        return Err(ReplyError::fixed(
            "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'",
        ));
    }
    Ok(())
}
