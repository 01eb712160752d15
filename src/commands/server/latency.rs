//! `LATENCY`: histograms of commands, and the events above `latency-monitor-threshold`.

use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category};
use super::super::table::{COMMANDS, Command};
use super::ADMIN;
use crate::protocol::{Args, CommandResult, Reply};
use crate::telemetry::{LATENCY_STEPS, step_limit};

/// The subcommands.
pub(super) const LATENCY: &[CommandSpec] = &[
    CommandSpec::session("histogram", Group::Server, AtLeast(2), histogram)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(&["nondeterministic_output"])
        .doc(
            "Returns how long commands took.",
            "7.0.0",
            "O(N) in the number of commands",
            "[command [command ...]]",
        ),
    CommandSpec::session("help", Group::Server, Exactly(2), help).with(super::ALWAYS).doc(
        "Lists the subcommands.",
        "2.8.13",
        "O(1)",
        "",
    ),
];

fn histogram(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let named: Vec<&Command> = if args.len() == 2 {
        COMMANDS.iter().collect()
    } else {
        args.skip(2).iter().filter_map(|name| COMMANDS.get(name)).collect()
    };
    let (map, mut shown) = (reply.deferred(), 0);
    for command in named {
        let mut counts = [0; LATENCY_STEPS];
        context.instance.telemetry.each(|worker| worker.latencies[command.index].add_to(&mut counts));
        let calls: u64 = counts.iter().sum();
        if calls == 0 {
            continue;
        }
        shown += 1;
        reply.bulk(command.name.as_bytes());
        reply.map(2);
        reply.bulk(b"calls");
        reply.integer(calls as i64);
        reply.bulk(b"histogram_usec");
        write_cumulative(reply, &counts);
    }
    reply.end_map(map, shown);
    Ok(())
}

/// Writes, by upper bounds that double, how many calls took no longer.
fn write_cumulative(reply: &mut Reply<'_>, counts: &[u64; LATENCY_STEPS]) {
    let (buckets, mut shown, mut sum, mut bound) = (reply.deferred(), 0, 0, 1u64);
    let total: u64 = counts.iter().sum();
    let mut step = 0;
    while sum < total && step < LATENCY_STEPS {
        let before = sum;
        while step < LATENCY_STEPS && step_limit(step) <= bound * 1000 {
            sum += counts[step];
            step += 1;
        }
        if sum > before {
            reply.integer(bound as i64);
            reply.integer(sum as i64);
            shown += 1;
        }
        bound *= 2;
    }
    reply.end_map(buckets, shown);
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(
        reply,
        "LATENCY",
        &["HISTOGRAM [<command> ...]", "    Return a cumulative histogram of the time that commands took."],
    );
    Ok(())
}
