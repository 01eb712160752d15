//! `LATENCY`: histograms of commands, and the events above `latency-monitor-threshold`.

use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category};
use super::super::table::{COMMANDS, Command};
use super::{ADMIN, latency_report};
use crate::clock;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::telemetry::{LATENCY_STEPS, step_limit};

const NONDETERMINISTIC: &[&str] =
    &["nondeterministic_output", "request_policy:all_nodes", "response_policy:special"];

/// The subcommands.
pub(super) const LATENCY: &[CommandSpec] = &[
    CommandSpec::session("doctor", Group::Server, Exactly(2), doctor)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(NONDETERMINISTIC)
        .doc("Explains the latency monitor's samples.", "2.8.13", "O(1)", ""),
    CommandSpec::session("graph", Group::Server, Exactly(3), graph)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(NONDETERMINISTIC)
        .doc("Draws an event's samples.", "2.8.13", "O(1)", "event"),
    CommandSpec::session("history", Group::Server, Exactly(3), history)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(NONDETERMINISTIC)
        .doc("Returns an event's samples.", "2.8.13", "O(1)", "event"),
    CommandSpec::session("latest", Group::Server, Exactly(2), latest)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(NONDETERMINISTIC)
        .doc("Returns the last sample of each event.", "2.8.13", "O(1)", ""),
    CommandSpec::session("reset", Group::Server, AtLeast(2), reset)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(&["request_policy:all_nodes", "response_policy:agg_sum"])
        .doc("Forgets samples.", "2.8.13", "O(1)", "[event...]"),
    CommandSpec::session("histogram", Group::Server, AtLeast(2), histogram)
        .with(ADMIN)
        .categories(category::DANGEROUS)
        .tips(NONDETERMINISTIC)
        .doc("Returns how long commands took.", "7.0.0", "O(N) in the number of commands", "[command...]"),
    CommandSpec::session("help", Group::Server, Exactly(2), help).with(super::ALWAYS).doc(
        "Lists the subcommands.",
        "2.8.13",
        "O(1)",
        "",
    ),
];

fn doctor(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (monitor, settings) = (context.instance.latency.lock(), &context.instance.settings);
    let report = latency_report::doctor(&monitor, settings, clock::wall_ms() / 1000);
    reply.verbatim("txt", report.as_bytes());
    Ok(())
}

fn graph(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let monitor = context.instance.latency.lock();
    let Some((event, series)) = monitor.series(args.at(2)) else {
        let event = super::shown(args.at(2));
        return Err(ReplyError::new(format!("ERR No samples available for event '{event}'")));
    };
    let graph = latency_report::graph(event, series, clock::wall_ms() / 1000);
    reply.verbatim("txt", graph.as_bytes());
    Ok(())
}

fn history(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let monitor = context.instance.latency.lock();
    let Some((_, series)) = monitor.series(args.at(2)) else {
        reply.array(0);
        return Ok(());
    };
    reply.array(series.samples().len());
    for sample in series.samples() {
        reply.array(2);
        reply.integer(sample.time as i64);
        reply.integer(sample.millis as i64);
    }
    Ok(())
}

fn latest(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let monitor = context.instance.latency.lock();
    reply.array(monitor.events().len());
    for (event, series) in monitor.events() {
        let (time, millis) = series.last().map_or((0, 0), |sample| (sample.time, sample.millis));
        reply.array(4);
        reply.bulk(event.as_bytes());
        [time, millis, series.all_time_high].iter().for_each(|number| reply.integer(*number as i64));
    }
    Ok(())
}

fn reset(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let is_meant = |event: &str| {
        args.len() == 2 || args.skip(2).iter().any(|name| name.eq_ignore_ascii_case(event.as_bytes()))
    };
    reply.count(context.instance.latency.lock().reset(is_meant));
    Ok(())
}

fn histogram(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let named: Vec<&Command> = if args.len() == 2 {
        COMMANDS.iter().collect()
    } else {
        args.skip(2).iter().filter_map(|name| COMMANDS.find(name)).flat_map(with_subcommands).collect()
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

fn with_subcommands(command: &Command) -> impl Iterator<Item = &Command> {
    let index = command.index;
    COMMANDS.iter().filter(move |other| other.index == index || other.parent == Some(index))
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
        &[
            "DOCTOR",
            "    Explain the samples in words, with advice.",
            "GRAPH <event>",
            "    Draw the samples of the <event> class.",
            "HISTORY <event>",
            "    Return the samples of the <event> class: Unix time, milliseconds.",
            "LATEST",
            "    Return the last sample of every event, and the worst.",
            "RESET [<event> ...]",
            "    Forget the samples of one or more <event> classes.",
            "    (default: of all event classes)",
            "HISTOGRAM [COMMAND ...]",
            "    Return a cumulative histogram of the time that the commands took.",
            "    If no commands are specified then all histograms are replied.",
        ],
    );
    Ok(())
}
