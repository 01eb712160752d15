//! The commands: one file a family, each with its rows of the command table on top and its handlers below.
//!
//! To add a command, write one function and one row in the family's file. A new family is added to [`FAMILIES`].

pub mod keys;
pub mod routing;
pub mod spec;
pub mod syntax;
pub mod table;

pub mod acl;
mod arguments;
mod bitmaps;
pub mod cache;
mod categories;
mod connection;
mod database;
mod deadline;
mod dump;
mod field_deadlines;
mod functions;
mod geo;
mod hashes;
mod hyperloglogs;
mod keyspace;
mod lists;
mod pubsub;
mod random;
pub mod ratelimit;
mod scanning;
mod scripting;
mod server;
mod sets;
mod sort;
mod sorted_sets;
mod streams;
mod strings;
mod transactions;

pub use server::client_list;
use spec::CommandSpec;

use crate::protocol::{Args, Reply, ReplyError};

/// Every row of the command table.
pub const FAMILIES: &[&[CommandSpec]] = &[
    connection::COMMANDS,
    keyspace::COMMANDS,
    dump::COMMANDS,
    strings::COMMANDS,
    hashes::COMMANDS,
    field_deadlines::COMMANDS,
    lists::COMMANDS,
    sets::COMMANDS,
    sorted_sets::COMMANDS,
    streams::COMMANDS,
    bitmaps::COMMANDS,
    hyperloglogs::COMMANDS,
    geo::COMMANDS,
    sort::COMMANDS,
    transactions::COMMANDS,
    scripting::COMMANDS,
    functions::COMMANDS,
    pubsub::COMMANDS,
    ratelimit::COMMANDS,
    database::COMMANDS,
    cache::COMMANDS,
    acl::COMMANDS,
    server::COMMANDS,
];

/// The version of Redis whose behaviour this is, as clients ask for it.
pub const REDIS_VERSION: &str = "7.2.4";

/// The error of a subcommand whose arguments make no sense, though there are enough of them.
fn wrong_subcommand(args: Args<'_>) -> ReplyError {
    let shown = String::from_utf8_lossy(args.at(1)).into_owned();
    let container = String::from_utf8_lossy(args.at(0)).to_uppercase();
    ReplyError::new(format!(
        "ERR unknown subcommand or wrong number of arguments for '{shown}'. Try {container} HELP."
    ))
}

/// Writes what a container's `HELP` replies.
fn write_help(reply: &mut Reply<'_>, container: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    reply.simple(&format!("{container} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| reply.simple(line));
    reply.simple("HELP");
    reply.simple("    Print this help.");
}
