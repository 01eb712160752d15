//! What clients ask for that a server by itself has none of: a cluster, modules, an append-only file. Before an upstream they
//! ask for upstream's.

use super::super::arguments::{integer, positive, timeout_ms};
use super::super::routing::Route;
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category, flag};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};

/// `CLUSTER`, whatever it asks; Redis's answer to all of it is the same.
pub(super) const CLUSTER: CommandSpec =
    CommandSpec::session("cluster", Group::Cluster, AtLeast(2), no_cluster).route(Route::Shared).doc(
        "Asks for the cluster, of which this server is none.",
        "3.0.0",
        "O(1)",
        "",
    );

/// `READONLY`
pub(super) const READONLY: CommandSpec =
    CommandSpec::session("readonly", Group::Cluster, Exactly(1), no_cluster)
        .with(flag::LOADING | flag::STALE)
        .fast()
        .categories(category::CONNECTION)
        .route(Route::Shared)
        .doc("Has replicas of a cluster answer reads.", "3.0.0", "O(1)", "");

/// `READWRITE`
pub(super) const READWRITE: CommandSpec =
    CommandSpec::session("readwrite", Group::Cluster, Exactly(1), no_cluster)
        .with(flag::LOADING | flag::STALE)
        .fast()
        .categories(category::CONNECTION)
        .route(Route::Shared)
        .doc("Takes back READONLY.", "3.0.0", "O(1)", "");

/// `ASKING`
pub(super) const ASKING: CommandSpec = CommandSpec::session("asking", Group::Cluster, Exactly(1), no_cluster)
    .fast()
    .categories(category::CONNECTION)
    .route(Route::Shared)
    .doc("Says that the client was sent here by another node.", "3.0.0", "O(1)", "");

/// `MODULE`
pub(super) const MODULE: CommandSpec = CommandSpec::container(
    "module",
    Group::Server,
    &[
        CommandSpec::session("list", Group::Server, Exactly(2), list)
            .with(flag::ADMIN | flag::NOSCRIPT)
            .categories(category::DANGEROUS)
            .tips(&["nondeterministic_output_order"])
            .route(Route::Shared)
            .doc("Returns the modules that are loaded: none.", "4.0.0", "O(1)", ""),
        CommandSpec::session("help", Group::Server, Exactly(2), help)
            .with(flag::LOADING | flag::STALE)
            .route(Route::Shared)
            .doc("Lists the subcommands.", "5.0.0", "O(1)", ""),
    ],
)
.doc("Asks for modules.", "4.0.0", "", "");

/// `WAITAOF`
pub(super) const WAITAOF: CommandSpec = CommandSpec::session("waitaof", Group::Generic, Exactly(4), waitaof)
    .with(flag::NOSCRIPT)
    .categories(category::CONNECTION)
    .tips(&["request_policy:all_shards", "response_policy:agg_min"])
    .route(Route::Refused(
        "WAITAOF counts the writes of a connection, and connections to upstream are shared",
    ))
    .doc(
        "Counts who has all writes in an append-only file.",
        "7.2.0",
        "O(1)",
        "numlocal:integer numreplicas:integer timeout:integer",
    );

fn no_cluster(_: &mut Context<'_, '_>, _: Args<'_>, _: &mut Reply<'_>) -> CommandResult {
    Err(ReplyError::fixed("ERR This instance has cluster support disabled"))
}

fn list(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(0);
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(reply, "MODULE", &["LIST", "    Return the modules that are loaded: none."]);
    Ok(())
}

fn waitaof(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let wants_file = integer(args.at(1))?;
    if !(0..=1).contains(&wants_file) {
        return Err(ReplyError::fixed("ERR value is out of range, value must between 0 and 1"));
    }
    positive(args.at(2))?;
    timeout_ms(args.at(3))?;
    if wants_file == 1 {
        return Err(ReplyError::fixed(
            "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled.",
        ));
    }
    // There are no replicas to wait for either.
    reply.array(2);
    reply.integer(0);
    reply.integer(0);
    Ok(())
}
