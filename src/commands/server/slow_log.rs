//! `SLOWLOG`.

use super::super::arguments::integer_in;
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category, flag};
use crate::protocol::{Args, CommandResult, Reply};

/// The subcommands.
pub(super) const SLOWLOG: &[CommandSpec] = &[
    CommandSpec::session("get", Group::Server, AtLeast(2), get)
        .with(flag::ADMIN | super::ALWAYS)
        .categories(category::DANGEROUS)
        .tips(&["request_policy:all_nodes", "nondeterministic_output"])
        .doc("Returns the last slow commands.", "2.2.12", "O(N) in the entries returned", "[count:integer]"),
    CommandSpec::session("len", Group::Server, Exactly(2), len)
        .with(flag::ADMIN | super::ALWAYS)
        .categories(category::DANGEROUS)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum", "nondeterministic_output"])
        .doc("Counts the entries.", "2.2.12", "O(1)", ""),
    CommandSpec::session("reset", Group::Server, Exactly(2), reset)
        .with(flag::ADMIN | super::ALWAYS)
        .categories(category::DANGEROUS)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Forgets the entries.", "2.2.12", "O(N) in the entries", ""),
    CommandSpec::session("help", Group::Server, Exactly(2), help).with(super::ALWAYS).doc(
        "Lists the subcommands.",
        "6.2.0",
        "O(1)",
        "",
    ),
];

fn get(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = match args.get(2) {
        None => 10,
        Some(count) => {
            const ERROR: &str = "ERR count should be greater than or equal to -1";
            usize::try_from(integer_in(count, -1..=i64::MAX, ERROR)?).unwrap_or(usize::MAX)
        }
    };
    let log = context.instance.slow_log.lock();
    reply.array(count.min(log.len()));
    for entry in log.entries().take(count) {
        reply.array(6);
        reply.integer(entry.id as i64);
        reply.integer(entry.time as i64);
        reply.integer(entry.micros as i64);
        reply.array(entry.arguments.len());
        entry.arguments.iter().for_each(|argument| reply.bulk(argument));
        reply.bulk(entry.address.as_bytes());
        reply.bulk(entry.name.as_bytes());
    }
    Ok(())
}

fn len(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(context.instance.slow_log.lock().len());
    Ok(())
}

fn reset(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.instance.slow_log.lock().clear();
    reply.ok();
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(
        reply,
        "SLOWLOG",
        &[
            "GET [<count>]",
            "    Return the newest <count> entries (10 by default, -1 for all): id, time, microseconds, arguments, client.",
            "LEN",
            "    Return the number of entries.",
            "RESET",
            "    Forget all entries.",
        ],
    );
    Ok(())
}
