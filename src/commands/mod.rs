//! The commands: one file a family, each with its rows of the command table on top and its handlers below.
//!
//! To add a command, write one function and one row in the family's file. A new family is added to [`FAMILIES`].

pub mod keys;
pub mod spec;
pub mod table;

mod arguments;
mod connection;
mod deadline;
mod strings;

use spec::CommandSpec;

/// Every row of the command table.
pub const FAMILIES: &[&[CommandSpec]] = &[connection::COMMANDS, strings::COMMANDS];

/// The version of Redis whose behaviour this is, as clients ask for it.
pub const REDIS_VERSION: &str = "7.2.4";
