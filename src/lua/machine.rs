//! A Lua machine: makes functions of bytecode, calls them, and stops them.
//!
//! While a function runs, the machine holds a pointer to the [`Host`] of that run, which is taken back before the call
//! returns. An error that memory ran out leaves the machine usable: everything is collected before the next call.

use std::ffi::{CStr, c_int};
use std::ptr::NonNull;

use mlua_sys as ffi;
use mlua_sys::lua_State;

use super::library::cjson;
use super::memory::Memory;
use super::random::Random;
use super::stack::{Kind, Place, Stack};
use super::{api, convert, globals};
use crate::protocol::{Args, Protocol, Reply, ReplyError, Span};

/// Interrupts between two looks at the clock.
const INTERRUPTS_PER_LOOK: u32 = 256;
/// Calls between two steps of the collector, and how many KB a step takes.
const CALLS_PER_STEP: u32 = 64;

/// What a run may do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interrupt {
    /// Go on.
    Continue,
    /// End with an error of this text that nothing catches.
    Kill(&'static str),
}

/// What scripts run in: commands, and what `redis.*` asks for.
pub trait Host {
    /// Runs a command and appends its encoded reply.
    ///
    /// # Errors
    /// The command may not run.
    fn call(&mut self, args: Args<'_>, out: &mut Vec<u8>) -> Result<(), ReplyError>;
    /// The protocol of the replies to commands, and in which a boolean is returned.
    fn protocol(&self) -> Protocol;
    /// `redis.setresp`
    fn set_protocol(&mut self, protocol: Protocol);
    /// Whether the client's user may run a command; `None` if there is no such command.
    fn may_run(&mut self, args: Args<'_>) -> Option<bool>;
    /// Whether a message of this level (0 to 3) is wanted, and if so, logs it.
    fn log(&mut self, level: i32, message: &[u8]);
    /// Called again and again while Lua runs.
    fn interrupt(&mut self) -> Interrupt;
    /// `redis.register_function`, while a library is loaded: the function's reference is `reference`.
    ///
    /// # Errors
    /// The function cannot be registered.
    fn register(
        &mut self,
        name: Vec<u8>,
        description: Option<Vec<u8>>,
        flags: Vec<Vec<u8>>,
        function: Function,
    ) -> Result<(), Vec<u8>>;
}

/// A function in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Function(c_int);

/// How a function ended that did not return.
#[derive(Debug)]
pub struct Failure {
    /// The error as it goes to the client, code first.
    pub text: Vec<u8>,
    /// Where it was raised: the source's name and the line.
    pub place: Option<(Vec<u8>, Vec<u8>)>,
    /// The command that failed has been counted already.
    pub is_counted: bool,
    /// It is not an error that a script can raise, but the end of its memory or the like.
    pub is_fatal: bool,
}

/// What functions written in Rust reach from a Lua state.
pub struct Shared {
    /// The host of the run, while there is one.
    host: Option<NonNull<dyn Host>>,
    pub(super) memory: Memory,
    pub(super) random: Random,
    pub(super) json: cjson::Settings,
    /// Buffers of `redis.call`, used again and again.
    pub(super) arguments: Vec<u8>,
    pub(super) spans: Vec<Span>,
    pub(super) reply: Vec<u8>,
    interrupts: u32,
    killed: Option<&'static str>,
}

impl Shared {
    /// The host of the run.
    pub(super) fn host(&mut self) -> Option<&mut dyn Host> {
        // SAFETY: it is set only while the borrow that it was made of lasts; nobody keeps what this returns longer than
        // one call of the host.
        self.host.map(|mut host| unsafe { host.as_mut() })
    }
}

/// What belongs to the machine of this stack.
pub(super) fn shared(stack: &mut Stack) -> &mut Shared {
    // SAFETY: every state has its machine's, which lives longer; the borrow ends with that of the stack.
    unsafe { &mut *(*ffi::lua_callbacks(stack.state)).userdata.cast::<Shared>() }
}

/// A Lua machine.
pub struct Machine {
    state: *mut lua_State,
    shared: Box<Shared>,
    calls: u32,
    /// The table of globals of functions in libraries; a reference.
    library_globals: c_int,
}

impl Machine {
    /// A machine that may take so much memory.
    ///
    /// # Panics
    /// If there is no memory for its libraries.
    pub fn new(limit: usize) -> Self {
        super::digits::link();
        let mut shared = Box::new(Shared {
            host: None,
            memory: Memory::new(usize::MAX),
            random: Random::default(),
            json: cjson::Settings::default(),
            arguments: Vec::new(),
            spans: Vec::new(),
            reply: Vec::new(),
            interrupts: 0,
            killed: None,
        });
        let memory: *mut Memory = &raw mut shared.memory;
        // SAFETY: the memory's place does not change, for it is in a box that the machine keeps.
        let state = unsafe { ffi::lua_newstate(Memory::allocate, memory.cast()) };
        assert!(!state.is_null(), "no memory for a Lua machine");
        // SAFETY: the state is new; the pointer stays right as long as the box is kept.
        unsafe {
            let callbacks = ffi::lua_callbacks(state);
            (*callbacks).userdata = (&raw mut *shared).cast();
            (*callbacks).interrupt = Some(interrupt);
            globals::open(state);
        }
        let library_globals = globals::make_library_globals(&mut Stack { state });
        shared.memory.set_limit(limit);
        Self { state, shared, calls: 0, library_globals }
    }

    /// Bytes it has taken.
    pub fn memory(&self) -> usize {
        self.shared.memory.used()
    }

    /// Changes how much memory it may take.
    pub fn set_limit(&mut self, limit: usize) {
        self.shared.memory.set_limit(limit);
    }

    /// Makes a function of bytecode. `for_library`: it sees the globals of functions rather than those of scripts.
    ///
    /// # Errors
    /// There is no memory for it.
    pub fn load(&mut self, bytecode: &[u8], name: &CStr, for_library: bool) -> Result<Function, Failure> {
        // SAFETY: the state is alive; the bytecode is of this Luau's compiler.
        unsafe {
            let mut environment = 0;
            if for_library {
                ffi::lua_rawgeti_(self.state, ffi::LUA_REGISTRYINDEX, self.library_globals);
                environment = -1;
            }
            let environment = if environment == 0 { 0 } else { ffi::lua_absindex(self.state, environment) };
            let data = bytecode.as_ptr().cast();
            let status = ffi::luau_load(self.state, name.as_ptr(), data, bytecode.len(), environment);
            if status != 0 {
                let text = Stack { state: self.state }.text(-1).unwrap_or_default();
                ffi::lua_settop(self.state, 0);
                self.collect();
                return Err(Failure::fatal(text));
            }
            let reference = ffi::lua_ref(self.state, -1);
            ffi::lua_settop(self.state, 0);
            Ok(Function(reference))
        }
    }

    /// Forgets a function.
    pub fn unload(&mut self, function: Function) {
        // SAFETY: the reference was made by this machine.
        unsafe { ffi::lua_unref(self.state, function.0) };
    }

    /// Calls a script: with its keys and arguments as global variables. Its reply is appended to `out`; the errors in it
    /// that are not counted yet are returned.
    ///
    /// # Errors
    /// It raised an error, or was stopped.
    pub fn run_script(
        &mut self,
        host: &mut dyn Host,
        function: Function,
        keys: Args<'_>,
        arguments: Args<'_>,
        out: (&mut Vec<u8>, Protocol),
    ) -> Result<Vec<ReplyError>, Failure> {
        self.run(host, out, |stack| {
            stack.push_globals();
            stack.set_readonly(-1, false);
            push_array(stack, keys);
            stack.set_global(c"KEYS");
            push_array(stack, arguments);
            stack.set_global(c"ARGV");
            stack.set_readonly(-1, true);
            stack.pop(1);
            push_reference(stack, function);
            0
        })
    }

    /// Calls a function of a library: with its keys and arguments as its arguments. Its reply is appended to `out`; the
    /// errors in it that are not counted yet are returned.
    ///
    /// # Errors
    /// It raised an error, or was stopped.
    pub fn run_function(
        &mut self,
        host: &mut dyn Host,
        function: Function,
        keys: Args<'_>,
        arguments: Args<'_>,
        out: (&mut Vec<u8>, Protocol),
    ) -> Result<Vec<ReplyError>, Failure> {
        self.run(host, out, |stack| {
            push_reference(stack, function);
            push_array(stack, keys);
            push_array(stack, arguments);
            2
        })
    }

    /// Calls the main function of a library, which registers its functions with the host.
    ///
    /// # Errors
    /// It raised an error, or was stopped.
    pub fn load_library(&mut self, host: &mut dyn Host, function: Function) -> Result<(), Failure> {
        let state = self.state;
        globals::set_loading(&mut Stack { state }, true);
        let mut ignored = Vec::new();
        let result = self.run(host, (&mut ignored, Protocol::Resp2), |stack| {
            push_reference(stack, function);
            0
        });
        let result = result.map(drop);
        globals::set_loading(&mut Stack { state }, false);
        result
    }

    fn run(
        &mut self,
        host: &mut dyn Host,
        (out, protocol): (&mut Vec<u8>, Protocol),
        push: impl FnOnce(&mut Stack) -> usize,
    ) -> Result<Vec<ReplyError>, Failure> {
        // SAFETY: only the lifetime changes; the pointer is taken back below, before the borrow ends.
        let pointer = unsafe {
            std::mem::transmute::<NonNull<dyn Host + '_>, NonNull<dyn Host + 'static>>(NonNull::from(host))
        };
        self.shared.host = Some(pointer);
        self.shared.killed = None;
        let state = self.state;
        let mut job = Job { push: Some(push), status: ffi::LUA_OK };
        let (entry, context) = (protected::<_>(&job), (&raw mut job).cast());
        // What is pushed may not fit into the memory: that must be caught as well.
        // SAFETY: the job outlives the call.
        let mut status = unsafe { ffi::lua_cpcall(state, entry, context) };
        if status == ffi::LUA_OK {
            status = job.status;
        }
        let mut stack = Stack { state };
        let result = if status == ffi::LUA_OK {
            let is_resp3 = self.shared.host().is_some_and(|host| host.protocol() == Protocol::Resp3);
            Ok(convert::write_reply(&mut stack, Reply::new(out, protocol), is_resp3))
        } else {
            Err(Failure::read(&mut stack, status))
        };
        self.shared.host = None;
        stack.truncate(0);
        self.calls += 1;
        if status == ffi::LUA_ERRMEM {
            self.collect();
        } else if self.calls.is_multiple_of(CALLS_PER_STEP) {
            // SAFETY: the state is alive and nothing runs in it.
            unsafe { ffi::lua_gc(state, ffi::LUA_GCSTEP, CALLS_PER_STEP as c_int) };
        }
        result
    }

    /// Frees all that nothing refers to.
    fn collect(&mut self) {
        // SAFETY: the state is alive and nothing runs in it.
        unsafe { ffi::lua_gc(self.state, ffi::LUA_GCCOLLECT, 0) };
    }
}

// SAFETY: a Lua state belongs to no particular thread, and between two calls it refers to no host; what it refers to
// otherwise is its own.
unsafe impl Send for Machine {}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: nothing runs in the state, and nothing refers to it any more.
        unsafe { ffi::lua_close(self.state) };
    }
}

struct Job<F> {
    push: Option<F>,
    status: c_int,
}

fn protected<F: FnOnce(&mut Stack) -> usize>(_: &Job<F>) -> ffi::lua_CFunction {
    unsafe extern "C-unwind" fn enter<F: FnOnce(&mut Stack) -> usize>(state: *mut lua_State) -> c_int {
        // SAFETY: `run` passes its job.
        let job = unsafe { &mut *ffi::lua_touserdata(state, 1).cast::<Job<F>>() };
        let mut stack = Stack { state };
        stack.truncate(0);
        stack.push_function(api::on_error);
        let Some(push) = job.push.take() else { return 0 };
        let arguments = push(&mut stack);
        // SAFETY: the handler is at the bottom, then the function with its arguments.
        job.status = unsafe { ffi::lua_pcall(state, arguments as c_int, 1, 1) };
        // The result or the error goes to the caller's stack through the registry.
        // SAFETY: one value is on top.
        unsafe { ffi::lua_rawsetfield(state, ffi::LUA_REGISTRYINDEX, RESULT.as_ptr()) };
        0
    }
    enter::<F>
}

pub(super) const RESULT: &CStr = c"result";

pub(super) fn push_reference(stack: &mut Stack, function: Function) {
    // SAFETY: the reference was made by the machine of this stack.
    unsafe { ffi::lua_rawgeti_(stack.state, ffi::LUA_REGISTRYINDEX, function.0) };
}

/// Makes a reference of the function at an index.
pub(super) fn make_reference(stack: &mut Stack, index: i32) -> Function {
    // SAFETY: the index is there.
    Function(unsafe { ffi::lua_ref(stack.state, index) })
}

fn push_array(stack: &mut Stack, values: Args<'_>) {
    stack.push_table(values.len(), 0);
    for (index, value) in values.iter().enumerate() {
        stack.push_bytes(value);
        stack.set_element(-2, index + 1);
    }
}

impl Failure {
    fn fatal(text: Vec<u8>) -> Self {
        Self { text, place: None, is_counted: false, is_fatal: true }
    }

    /// Reads the error that a call left.
    fn read(stack: &mut Stack, status: c_int) -> Self {
        if status == ffi::LUA_ERRMEM {
            return Self::fatal(b"not enough memory".to_vec());
        }
        // SAFETY: pushes one value.
        unsafe { ffi::lua_rawgetfield(stack.state, ffi::LUA_REGISTRYINDEX, RESULT.as_ptr()) };
        if stack.kind(-1) != Kind::Table {
            return Self::fatal(stack.text(-1).unwrap_or_else(|| b"execution failure".to_vec()));
        }
        let mut field = |name| {
            stack.field(-1, name);
            let text = stack.text(-1);
            stack.pop(1);
            text
        };
        let text = field(c"err").unwrap_or_default();
        let place = field(c"source").zip(field(c"line"));
        stack.field(-1, c"ignore_error_stats_update");
        let is_counted = stack.is_true(-1);
        stack.pop(1);
        Self { text, place, is_counted, is_fatal: false }
    }
}

/// What Luau calls again and again while it runs; `collecting` is not negative while it collects garbage.
///
/// # Safety
/// Luau alone calls it, with the state of a machine of ours that runs.
unsafe extern "C-unwind" fn interrupt(state: *mut lua_State, collecting: c_int) {
    if collecting >= 0 {
        return;
    }
    let mut stack = Stack { state };
    let shared = shared(&mut stack);
    shared.interrupts = shared.interrupts.wrapping_add(1);
    if shared.killed.is_none() {
        if !shared.interrupts.is_multiple_of(INTERRUPTS_PER_LOOK) {
            return;
        }
        match shared.host() {
            Some(host) => match host.interrupt() {
                Interrupt::Continue => return,
                Interrupt::Kill(text) => shared.killed = Some(text),
            },
            None => return,
        }
    }
    let text = shared.killed.unwrap_or_default();
    if stack.has_room(4) {
        api::push_error(&mut stack, text.as_bytes(), false);
    }
    // SAFETY: nothing that has a destructor is left in this frame.
    unsafe { ffi::lua_error(state) }
}

/// The innermost place in Lua, seen from a function that Lua calls.
pub(super) fn place_of_error(stack: &Stack) -> Option<(String, i32)> {
    match stack.place(1) {
        Place::Line(source, line) => Some((source, line)),
        Place::Native => match stack.place(2) {
            Place::Line(source, line) => Some((source, line)),
            _ => None,
        },
        Place::None => None,
    }
}
