//! `MEMORY`.

use super::super::arguments::{Options, integer_in};
use super::super::keys::{access::RO, key_at};
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, Scope};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{View, memory};

/// The subcommands.
pub(super) const MEMORY: &[CommandSpec] = &[
    CommandSpec::data("usage", Group::Server, AtLeast(3), usage).readonly().keys(&[key_at(2, RO)]).doc(
        "Returns the bytes allocated for a key.",
        "4.0.0",
        "O(N) in the samples",
        "key [SAMPLES count:integer]",
    ),
    CommandSpec::session("stats", Group::Server, Exactly(2), stats)
        .scope(Scope::Each)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("Returns figures on memory.", "4.0.0", "O(1)", ""),
    CommandSpec::session("purge", Group::Server, Exactly(2), purge)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("Asks the allocator to give back what it can.", "4.0.0", "O(1)", ""),
    CommandSpec::session("help", Group::Server, Exactly(2), help).with(super::ALWAYS).doc(
        "Lists the subcommands.",
        "4.0.0",
        "O(1)",
        "",
    ),
];

/// Bytes of a key's slot in its table: a bucket's line shared by its elements.
const SLOT: usize = 16;

fn usage(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut options = Options::new(args, 3);
    while !options.is_done() {
        if !options.take_with("samples", 1) {
            return Err(ReplyError::SYNTAX);
        }
        integer_in(options.value()?, 0..=i64::MAX, "ERR syntax error")?;
    }
    match view.info(args.at(2)) {
        Some(info) => reply.count(info.memory + SLOT),
        None => reply.null(),
    }
    Ok(())
}

fn stats(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let peak = context.instance.telemetry.peak_memory.load(std::sync::atomic::Ordering::Relaxed);
    let used = memory::used();
    let keys: usize = (0..context.view.databases()).map(|db| context.view.key_counts(db).0).sum();
    let tables: usize = (0..context.view.databases()).map(|db| context.view.table_memory(db)).sum();
    let figures = [
        ("peak.allocated", (peak as usize).max(used)),
        ("total.allocated", used),
        ("overhead.total", tables),
        ("keys.count", keys),
        ("keys.bytes-per-key", used.checked_div(keys).unwrap_or(0)),
        ("dataset.bytes", used.saturating_sub(tables)),
    ];
    reply.map(figures.len());
    for (name, value) in figures {
        reply.bulk(name.as_bytes());
        reply.count(value);
    }
    Ok(())
}

fn purge(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    memory::purge().map_err(|error| ReplyError::new(format!("ERR Error purging dirty pages: {error}")))?;
    reply.ok();
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(
        reply,
        "MEMORY",
        &[
            "USAGE <key> [SAMPLES <count>]",
            "    Return the bytes allocated for <key>.",
            "STATS",
            "    Return figures on memory.",
            "PURGE",
            "    Ask the allocator to give back what it can.",
        ],
    );
    Ok(())
}
