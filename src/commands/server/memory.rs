//! `MEMORY`.

use super::super::arguments::{Options, integer};
use super::super::keys::{access::RO, key_at};
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, Scope};
use super::{memory_doctor, memory_stats};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{View, memory};

/// The subcommands.
pub(super) const MEMORY: &[CommandSpec] = &[
    CommandSpec::data("usage", Group::Server, AtLeast(3), usage)
        .uncached()
        .readonly()
        .keys(&[key_at(2, RO)])
        .doc(
            "Returns the bytes allocated for a key.",
            "4.0.0",
            "O(N) in the samples",
            "key [SAMPLES count:integer]",
        ),
    CommandSpec::session("doctor", Group::Server, Exactly(2), doctor)
        .scope(Scope::Each)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("Says what may be wrong with the use of memory.", "4.0.0", "O(1)", ""),
    CommandSpec::session("malloc-stats", Group::Server, Exactly(2), malloc_stats)
        .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
        .doc("Returns the allocator's report.", "4.0.0", "O(1)", ""),
    CommandSpec::session("stats", Group::Server, Exactly(2), memory_stats::stats)
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
        if integer(options.value()?)? < 0 {
            return Err(ReplyError::SYNTAX);
        }
    }
    match view.info(args.at(2)) {
        Some(info) => reply.count(info.memory + SLOT),
        None => reply.null(),
    }
    Ok(())
}

fn doctor(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.verbatim("txt", memory_doctor::report(context).as_bytes());
    Ok(())
}

fn malloc_stats(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.verbatim("txt", memory::allocator_report().as_bytes());
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
            "DOCTOR",
            "    Say what may be wrong, and which keys only grow in number.",
            "MALLOC-STATS",
            "    Return the report of the memory allocator.",
            "PURGE",
            "    Ask the allocator to give back what it can.",
            "STATS",
            "    Return figures on the use of memory.",
            "USAGE <key> [SAMPLES <count>]",
            "    Return the bytes that <key> and its value take. <count> is accepted; what is",
            "    nested is always sampled.",
        ],
    );
    Ok(())
}
