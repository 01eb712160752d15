//! Scripts: the rows of all commands that concern Lua, and the bodies of those that run none.

use super::keys::{access::*, counted_keys};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Context, Group, Script, flag};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::scripts;

pub(super) const RUNS: u32 =
    flag::NOSCRIPT | flag::SKIP_MONITOR | flag::STALE | flag::MOVABLEKEYS | flag::NO_MANDATORY_KEYS;
const WRITES: &[super::keys::KeySpec] = &[counted_keys(2, RW | ACCESS | UPDATE)];
const READS: &[super::keys::KeySpec] = &[counted_keys(2, RO | ACCESS)];
pub(super) const COST: &str = "Depends on the script";

const fn eval(name: &'static str, by_digest: bool, only_reads: bool) -> CommandSpec {
    let spec = CommandSpec::script(name, AtLeast(3), Script::Eval { by_digest, only_reads }).with(RUNS);
    if only_reads { spec.readonly().keys(READS) } else { spec.with(flag::MAY_REPLICATE).keys(WRITES) }
}

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    eval("eval", false, false).doc(
        "Runs a Lua script.",
        "2.6.0",
        COST,
        "script numkeys:integer [key...] [arg...]",
    ),
    eval("eval_ro", false, true).doc(
        "Runs a Lua script that may only read.",
        "7.0.0",
        COST,
        "script numkeys:integer [key...] [arg...]",
    ),
    eval("evalsha", true, false).doc(
        "Runs a Lua script that the server knows, by its digest.",
        "2.6.0",
        COST,
        "sha1 numkeys:integer [key...] [arg...]",
    ),
    eval("evalsha_ro", true, true).doc(
        "Runs a Lua script that the server knows and that may only read, by its digest.",
        "7.0.0",
        COST,
        "sha1 numkeys:integer [key...] [arg...]",
    ),
    CommandSpec::container("script", Group::Scripting, SCRIPT).doc(
        "Commands on the scripts that the server knows.",
        "2.6.0",
        "Depends on subcommand.",
        "",
    ),
];

const SCRIPT: &[CommandSpec] = &[
    CommandSpec::session("load", Group::Scripting, Exactly(3), load)
        .with(flag::NOSCRIPT | flag::STALE)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Makes a script known; returns its digest.", "2.6.0", "O(N) in the script's length", "script"),
    CommandSpec::session("exists", Group::Scripting, AtLeast(3), exists)
        .with(flag::NOSCRIPT)
        .tips(&["request_policy:all_shards", "response_policy:agg_logical_and"])
        .doc(
            "Tells which digests are those of known scripts.",
            "2.6.0",
            "O(N) in the number of digests",
            "sha1...",
        ),
    CommandSpec::session("flush", Group::Scripting, AtLeast(2), flush)
        .with(flag::NOSCRIPT)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc(
            "Forgets all scripts.",
            "2.6.0",
            "O(N) in the number of scripts",
            "[flush-type<ASYNC | SYNC>@6.2.0]",
        ),
    CommandSpec::session("kill", Group::Scripting, Exactly(2), kill)
        .with(flag::NOSCRIPT | flag::ALLOW_BUSY)
        .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
        .doc("Stops a script that runs too long, if it has written nothing.", "2.6.0", "O(1)", ""),
    CommandSpec::session("debug", Group::Scripting, Exactly(3), debug).with(flag::NOSCRIPT).doc(
        "Sets the debug mode of scripts, of which there is only NO.",
        "3.2.0",
        "O(1)",
        "mode<YES | SYNC | NO>",
    ),
    CommandSpec::session("help", Group::Scripting, Exactly(2), help).with(flag::LOADING | flag::STALE).doc(
        "Lists the subcommands.",
        "5.0.0",
        "O(1)",
        "",
    ),
];

fn load(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let source = args.at(2);
    let script = context.instance.scripts.add(source, scripts::digest(source))?;
    reply.bulk(&script.digest);
    Ok(())
}

fn exists(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(args.len() - 2);
    for name in args.skip(2).iter() {
        let script = scripts::named_digest(name).and_then(|digest| context.instance.scripts.get(&digest));
        reply.integer(script.is_some().into());
    }
    Ok(())
}

fn flush(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 3 || args.len() == 3 && !args.is(2, "sync") && !args.is(2, "async") {
        return Err(ReplyError::fixed("ERR SCRIPT FLUSH only support SYNC|ASYNC option"));
    }
    context.instance.scripts.flush();
    reply.ok();
    Ok(())
}

fn kill(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.instance.scripts.kill(true)?;
    reply.ok();
    Ok(())
}

/// There is no debugger.
fn debug(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.is(2, "no") {
        reply.ok();
        return Ok(());
    }
    if args.is(2, "yes") || args.is(2, "sync") {
        return Err(ReplyError::fixed("ERR there is no debugger for scripts"));
    }
    Err(ReplyError::fixed("ERR Use SCRIPT DEBUG YES/SYNC/NO"))
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::write_help(
        reply,
        "SCRIPT",
        &[
            "DEBUG (YES|SYNC|NO)",
            "    Set the debug mode of scripts; there is only NO.",
            "EXISTS <sha1> [<sha1> ...]",
            "    Tell which digests are those of known scripts.",
            "FLUSH [ASYNC|SYNC]",
            "    Forget all scripts.",
            "KILL",
            "    Stop a script that runs too long.",
            "LOAD <script>",
            "    Make a script known without running it.",
        ],
    );
    Ok(())
}
