//! Snapshots: `SAVE`, `BGSAVE`, `LASTSAVE`.

use super::super::routing::Route;
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category, flag};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::snapshots::SaveError;

/// The rows.
pub(super) const SAVE: CommandSpec = CommandSpec::session("save", Group::Server, Exactly(1), save)
    .with(flag::ADMIN | flag::NOSCRIPT | flag::NO_MULTI | flag::NO_ASYNC_LOADING)
    .route(Route::Shared)
    .doc("Writes a snapshot, and replies when it is written.", "1.0.0", "O(N) in the number of keys", "");
pub(super) const BGSAVE: CommandSpec = CommandSpec::session("bgsave", Group::Server, AtLeast(1), bgsave)
    .with(flag::ADMIN | flag::NOSCRIPT | flag::NO_ASYNC_LOADING)
    .route(Route::Shared)
    .doc("Has a snapshot written in the background.", "1.0.0", "O(1)", "[SCHEDULE@3.2.2]");
pub(super) const LASTSAVE: CommandSpec =
    CommandSpec::session("lastsave", Group::Server, Exactly(1), lastsave)
        .with(flag::LOADING | flag::STALE)
        .fast()
        .categories(category::ADMIN | category::DANGEROUS)
        .tips(&["nondeterministic_output"])
        .route(Route::Shared)
        .doc(
            "Returns when the last snapshot was written, in seconds since the Unix epoch.",
            "1.0.0",
            "O(1)",
            "",
        );

const IN_PROGRESS: ReplyError = ReplyError::fixed("ERR Background save already in progress");

fn save(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    match context.instance.snapshots.save() {
        Ok(()) => reply.ok(),
        Err(SaveError::InProgress) => return Err(IN_PROGRESS),
        Err(SaveError::Busy) => return Err(context.instance.scripts.busy()),
        Err(error) => {
            tracing::error!(%error, "no snapshot");
            return Err(ReplyError::fixed("ERR"));
        }
    }
    Ok(())
}

fn bgsave(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let is_known = args.len() == 1 || args.len() == 2 && args.is(1, "schedule");
    if !is_known {
        return Err(ReplyError::SYNTAX);
    }
    context.instance.snapshots.begin().map_err(|_| IN_PROGRESS)?;
    reply.simple("Background saving started");
    Ok(())
}

fn lastsave(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.integer(context.instance.snapshots.last().saved_s as i64);
    Ok(())
}
