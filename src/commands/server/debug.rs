//! `DEBUG`: what tests of clients need.

use std::sync::atomic::Ordering::Relaxed;

use super::super::arguments::float;
use super::super::keyspace::encoding;
use super::super::spec::Arity::AtLeast;
use super::super::spec::{CommandSpec, Context, Group, Scope, category, flag};
use super::ADMIN;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::View;

/// The row.
pub(super) const DEBUG: CommandSpec = CommandSpec::session("debug", Group::Server, AtLeast(2), debug)
    .with(ADMIN | flag::SYSTEM)
    .categories(category::DANGEROUS)
    .scope(Scope::Each)
    .doc("Tools for tests.", "1.0.0", "Depends on the subcommand", "");

fn debug(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    match (args.at(1).to_ascii_lowercase().as_slice(), args.len()) {
        (b"sleep", 3) => {
            let seconds = float(args.at(2))?.clamp(0.0, 3600.0);
            // Redis stops the whole server; here only this client waits, by the timer of blocked clients, and a
            // transaction goes on at once.
            context.session.sleep_ms = Some((seconds * 1000.0) as u64);
        }
        (b"set-active-expire", 3) => {
            context.instance.active_expire.store(args.at(2) != b"0", Relaxed);
            reply.ok();
        }
        (b"object", 3..) => object(context.view, args.at(2), reply)?,
        // Both change nothing that a client could see here.
        (b"quicklist-packed-threshold" | b"jmap" | b"reload" | b"replybuffer", _) => {
            return Err(ReplyError::fixed("ERR DEBUG subcommand not supported by Anteroom"));
        }
        (b"help", 2) => super::super::write_help(
            reply,
            "DEBUG",
            &[
                "OBJECT <key>",
                "    Show what is known of the value at <key>.",
                "SET-ACTIVE-EXPIRE <0|1>",
                "    Stop or resume looking for expired keys.",
                "SLEEP <seconds>",
                "    Let this client wait; others are served meanwhile.",
            ],
        ),
        _ => {
            return Err(super::super::wrong_subcommand(args));
        }
    }
    Ok(())
}

fn object(view: &mut View<'_>, key: &[u8], reply: &mut Reply<'_>) -> CommandResult {
    let now_ms = view.now_ms();
    let Some((encoding, info)) = view.describe(key, |value, info| (encoding(value, info.edited), info))
    else {
        return Err(ReplyError::NO_SUCH_KEY);
    };
    let idle = crate::tiers::local::idle_seconds(info.access, now_ms);
    reply.simple(&format!(
        "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{} lru:{} lru_seconds_idle:{idle}",
        info.memory, info.access
    ));
    Ok(())
}
