//! Scripts: one request with many commands, under locks that it holds from its first command to its last.
//!
//! A script runs on its connection's thread, but on a stack of its own. When it has had its time (`busy-reply-threshold`)
//! it is set aside now and then, still holding its locks, so that the thread's other connections get their answer: `BUSY`.
//! Nobody waits for the locks of such a script (`Keyspace::lock_unless_held`).

mod declared;
mod host;
mod library;
mod prepare;
mod run;

use std::collections::HashMap;
use std::sync::Arc;

use corosensei::stack::DefaultStack;

use crate::clients::Session;
use crate::lua::{Function, Machine};
use crate::scripts::{Digest, Script};

pub use run::Suspended;

/// A script that a machine has loaded.
#[derive(Clone)]
struct LoadedScript {
    function: Function,
    script: Arc<Script>,
    /// It provably reaches no keys but those that it is given.
    keeps_to_keys: bool,
}

/// What a worker runs Lua with.
pub struct Lua {
    machine: Machine,
    /// The scripts that the machine has loaded.
    loaded: HashMap<Digest, LoadedScript>,
    /// Those were known at this generation of the server's scripts.
    generation: u64,
    functions: library::LoadedFunctions,
    /// The session that scripts' commands run in.
    session: Session,
    /// The stack that scripts run on, while none does.
    stack: Option<DefaultStack>,
    /// Bytes that the server's figures have the machine take.
    told_memory: usize,
    /// A buffer for replies.
    spare: Vec<u8>,
}
