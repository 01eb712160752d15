//! Lua for scripts: a virtual machine (Luau) with the libraries and the conventions that Redis gives its scripts.
//!
//! It knows neither keys nor commands: what `redis.call` does is a [`Host`]'s business. A machine belongs to one thread.
//! Every call into Luau is in `stack.rs` and `machine.rs`; the libraries are written over the safe `Stack`.

mod api;
mod compile;
mod convert;
mod digits;
mod globals;
mod library;
mod machine;
mod memory;
mod random;
mod stack;

pub use compile::{CompileError, compile};
pub use machine::{Failure, Function, Host, Interrupt, Machine};
