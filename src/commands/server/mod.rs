//! The server itself: settings, statistics, clients, the command table, and tools for those who look after it.

mod absent;
mod client;
pub mod client_list;
mod command;
mod config;
mod debug;
mod docs;
mod info;
mod latency;
mod latency_report;
mod memory;
mod memory_doctor;
mod memory_stats;
mod persistence;
mod slow_log;
mod tracking;

use super::routing::Route;
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Context, Group, Scope, category, flag};
use std::sync::atomic::Ordering::Relaxed;

use crate::clock;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};

const ALWAYS: u32 = flag::LOADING | flag::STALE;
const ADMIN: u32 = flag::ADMIN | flag::NOSCRIPT | ALWAYS;

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::container("config", Group::Server, config::CONFIG).doc(
        "Commands on settings.",
        "2.0.0",
        "Depends on subcommand.",
        "",
    ),
    CommandSpec::container("client", Group::Connection, client::CLIENT).doc(
        "Commands on connections.",
        "2.4.0",
        "Depends on subcommand.",
        "",
    ),
    CommandSpec::container("slowlog", Group::Server, slow_log::SLOWLOG).doc(
        "Commands on slow commands.",
        "2.2.12",
        "Depends on subcommand.",
        "",
    ),
    CommandSpec::container("latency", Group::Server, latency::LATENCY).doc(
        "Commands on latencies.",
        "2.8.13",
        "Depends on subcommand.",
        "",
    ),
    CommandSpec::container("memory", Group::Server, memory::MEMORY).doc(
        "Commands on memory.",
        "4.0.0",
        "Depends on subcommand.",
        "",
    ),
    command::COMMAND,
    absent::CLUSTER,
    absent::READONLY,
    absent::READWRITE,
    absent::ASKING,
    absent::MODULE,
    absent::WAITAOF,
    info::INFO,
    persistence::SAVE,
    persistence::BGSAVE,
    persistence::LASTSAVE,
    debug::DEBUG,
    CommandSpec::session("monitor", Group::Server, Exactly(1), monitor)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .route(Route::Stream)
        .doc("Shows every command that runs, until the connection ends.", "1.0.0", "", ""),
    CommandSpec::session("time", Group::Server, Exactly(1), time)
        .with(ALWAYS)
        .fast()
        .tips(&["nondeterministic_output"])
        .doc("Returns the server's time: seconds and microseconds.", "2.6.0", "O(1)", ""),
    CommandSpec::session("lolwut", Group::Server, AtLeast(1), lolwut).readonly().fast().doc(
        "Shows the version, with a picture.",
        "5.0.0",
        "",
        "[VERSION version:integer]",
    ),
    CommandSpec::session("shutdown", Group::Server, AtLeast(1), shutdown)
        .with(ADMIN | flag::NO_MULTI | flag::ALLOW_BUSY)
        .categories(category::DANGEROUS)
        .doc(
            "Ends the server in good order.",
            "1.0.0",
            "O(1)",
            "[save-selector<NOSAVE | SAVE>] [NOW@7.0.0] [FORCE@7.0.0] [ABORT@7.0.0]",
        ),
    CommandSpec::session("role", Group::Server, Exactly(1), role)
        .with(flag::NOSCRIPT | ALWAYS)
        .fast()
        .categories(category::DANGEROUS | category::ADMIN)
        .doc("Returns the role in replication.", "2.8.12", "O(1)", ""),
    CommandSpec::data("wait", Group::Generic, Exactly(3), wait)
        .route(Route::Refused(
            "WAIT counts the writes of a connection, and connections to upstream are shared",
        ))
        .categories(category::CONNECTION)
        .tips(&["request_policy:all_shards", "response_policy:agg_min"])
        .scope(Scope::Each)
        .doc(
            "Counts the replicas that have all writes.",
            "3.0.0",
            "O(1)",
            "numreplicas:integer timeout:integer",
        ),
];

fn time(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let micros = context.session.frozen_us.unwrap_or_else(clock::wall_us);
    reply.array(2);
    reply.bulk_integer((micros / 1_000_000) as i64);
    reply.bulk_integer((micros % 1_000_000) as i64);
    Ok(())
}

fn monitor(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !context.session.client.monitors.load(Relaxed) {
        context.instance.clients.monitors.add(&context.session.client);
    }
    reply.ok();
    Ok(())
}

fn lolwut(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    const PICTURE: &str = "\
    .-----------.\n\
    |  .-----.  |\n\
    |  |     |  |    The room in front of the hall.\n\
    |  |    o|  |\n\
____|__|_____|__|____\n";
    let text = format!("{PICTURE}\nAnteroom ver. {}\n", env!("CARGO_PKG_VERSION"));
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn shutdown(context: &mut Context<'_, '_>, args: Args<'_>, _: &mut Reply<'_>) -> CommandResult {
    let mut saves = None;
    for option in args.skip(1).iter() {
        match option.to_ascii_lowercase().as_slice() {
            b"now" | b"force" => {}
            b"nosave" if saves.is_none() => saves = Some(false),
            b"save" if saves.is_none() => saves = Some(true),
            _ => return Err(ReplyError::SYNTAX),
        }
    }
    if saves == Some(true)
        && let Err(error) = context.instance.snapshots.save_last()
    {
        tracing::error!(%error, "no snapshot");
        return Err(ReplyError::fixed("ERR Errors trying to SHUTDOWN. Check logs."));
    }
    *context.instance.last_snapshot.lock() = saves;
    context.session.closing = true;
    context.instance.stop();
    Ok(())
}

fn role(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(3);
    reply.bulk(b"master");
    reply.integer(0);
    reply.array(0);
    Ok(())
}

fn wait(_: &mut crate::tiers::local::View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::arguments::integer(args.at(1))?;
    super::arguments::timeout_ms(args.at(2))?;
    // There are no replicas to wait for.
    reply.integer(0);
    Ok(())
}

/// A text of a client's as it may be shown.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
