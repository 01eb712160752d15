//! Functions: the rows of all commands that concern libraries, and the bodies of those that run no Lua.

use super::keys::{access::*, counted_keys};
use super::scripting::{COST, RUNS};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Context, Group, Script, flag};
use crate::clock;
use crate::libraries::FunctionInfo;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::scripts::Flags;
use crate::types::{glob, rdb};

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::script("fcall", AtLeast(3), Script::Call { only_reads: false })
        .with(RUNS | flag::MAY_REPLICATE)
        .keys(&[counted_keys(2, RW | ACCESS | UPDATE)])
        .doc("Calls a function.", "7.0.0", COST, "function numkeys:integer [key...] [arg...]"),
    CommandSpec::script("fcall_ro", AtLeast(3), Script::Call { only_reads: true })
        .with(RUNS)
        .readonly()
        .keys(&[counted_keys(2, RO | ACCESS)])
        .doc(
            "Calls a function that may only read.",
            "7.0.0",
            COST,
            "function numkeys:integer [key...] [arg...]",
        ),
    CommandSpec::container("function", Group::Scripting, FUNCTION).doc(
        "Commands on libraries of functions.",
        "7.0.0",
        "Depends on subcommand.",
        "",
    ),
];

const EVERYWHERE: &[&str] = &["request_policy:all_shards", "response_policy:all_succeeded"];

const FUNCTION: &[CommandSpec] =
    &[
        CommandSpec::script("load", AtLeast(3), Script::LoadLibrary)
            .with(flag::NOSCRIPT)
            .write()
            .tips(EVERYWHERE)
            .doc(
                "Makes a library; returns its name.",
                "7.0.0",
                "O(1), and what the library's code costs",
                "[REPLACE] function-code",
            ),
        CommandSpec::script("restore", AtLeast(3), Script::RestoreLibraries)
            .with(flag::NOSCRIPT)
            .write()
            .tips(EVERYWHERE)
            .doc(
                "Makes the libraries that FUNCTION DUMP returned.",
                "7.0.0",
                "O(N) in the number of functions",
                "serialized-value [policy<FLUSH | APPEND | REPLACE>]",
            ),
        CommandSpec::session("delete", Group::Scripting, Exactly(3), delete)
            .with(flag::NOSCRIPT)
            .shrink()
            .tips(EVERYWHERE)
            .doc("Removes a library.", "7.0.0", "O(1)", "library-name"),
        CommandSpec::session("flush", Group::Scripting, AtLeast(2), flush)
            .with(flag::NOSCRIPT)
            .shrink()
            .tips(EVERYWHERE)
            .doc(
                "Removes all libraries.",
                "7.0.0",
                "O(N) in the number of functions",
                "[flush-type<ASYNC | SYNC>]",
            ),
        CommandSpec::session("kill", Group::Scripting, Exactly(2), kill)
            .with(flag::NOSCRIPT | flag::ALLOW_BUSY)
            .tips(&["request_policy:all_shards", "response_policy:one_succeeded"])
            .doc("Stops a function that runs too long, if it has written nothing.", "7.0.0", "O(1)", ""),
        CommandSpec::session("list", Group::Scripting, AtLeast(2), list)
            .with(flag::NOSCRIPT)
            .tips(&["nondeterministic_output_order"])
            .doc(
                "Returns the libraries with their functions.",
                "7.0.0",
                "O(N) in the number of functions",
                "[LIBRARYNAME library-name-pattern] [WITHCODE]",
            ),
        CommandSpec::session("stats", Group::Scripting, Exactly(2), stats)
            .with(flag::NOSCRIPT | flag::ALLOW_BUSY)
            .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
            .doc("Returns which function runs long, and how many there are.", "7.0.0", "O(1)", ""),
        CommandSpec::session("dump", Group::Scripting, Exactly(2), dump).with(flag::NOSCRIPT).doc(
            "Returns all libraries in Redis's file format.",
            "7.0.0",
            "O(N) in the number of functions",
            "",
        ),
        CommandSpec::session("help", Group::Scripting, Exactly(2), help)
            .with(flag::LOADING | flag::STALE)
            .doc("Lists the subcommands.", "7.0.0", "O(1)", ""),
    ];

fn delete(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !context.instance.libraries.remove(args.at(2)) {
        return Err(ReplyError::fixed("ERR Library not found"));
    }
    reply.ok();
    Ok(())
}

fn flush(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(super::wrong_subcommand(args));
    }
    if args.len() == 3 && !args.is(2, "sync") && !args.is(2, "async") {
        return Err(ReplyError::fixed("ERR FUNCTION FLUSH only supports SYNC|ASYNC option"));
    }
    context.instance.libraries.flush();
    reply.ok();
    Ok(())
}

fn kill(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.instance.scripts.kill(false)?;
    reply.ok();
    Ok(())
}

fn list(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (mut pattern, mut with_code) = (None, false);
    let mut index = 2;
    while index < args.len() {
        if !with_code && args.is(index, "withcode") {
            with_code = true;
        } else if pattern.is_none() && args.is(index, "libraryname") {
            index += 1;
            let missing = ReplyError::fixed("ERR library name argument was not given");
            pattern = Some(args.get(index).ok_or(missing)?);
        } else {
            return Err(ReplyError::showing("ERR Unknown argument ", args.at(index), ""));
        }
        index += 1;
    }
    let set = context.instance.libraries.snapshot();
    let shown: Vec<_> = set
        .iter()
        .filter(|library| pattern.is_none_or(|pattern| glob::matches_ignoring_case(pattern, &library.name)))
        .collect();
    reply.array(shown.len());
    for library in shown {
        reply.map(if with_code { 4 } else { 3 });
        reply.bulk(b"library_name");
        reply.bulk(&library.name);
        reply.bulk(b"engine");
        reply.bulk(b"LUA");
        reply.bulk(b"functions");
        reply.array(library.functions.len());
        library.functions.iter().for_each(|function| write_function(reply, function));
        if with_code {
            reply.bulk(b"library_code");
            reply.bulk(&library.source);
        }
    }
    Ok(())
}

fn write_function(reply: &mut Reply<'_>, function: &FunctionInfo) {
    reply.map(3);
    reply.bulk(b"name");
    reply.bulk(&function.name);
    reply.bulk(b"description");
    reply.bulk_or_null(function.description.as_deref());
    reply.bulk(b"flags");
    let flags: Vec<&str> =
        Flags::NAMES.iter().filter(|(flag, _)| function.flags.has(*flag)).map(|(_, name)| *name).collect();
    reply.set(flags.len());
    flags.iter().for_each(|name| reply.simple(name));
}

fn stats(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let instance = context.instance;
    let running = instance.scripts.longest();
    if running.as_ref().is_some_and(|running| running.is_script) {
        return Err(instance.scripts.busy());
    }
    reply.map(2);
    reply.bulk(b"running_script");
    match running {
        None => reply.null(),
        Some(running) => {
            reply.map(3);
            reply.bulk(b"name");
            reply.bulk(&running.name);
            reply.bulk(b"command");
            let words = running.command.as_args();
            reply.array(words.len());
            words.iter().for_each(|word| reply.bulk(word));
            reply.bulk(b"duration_ms");
            reply.integer((clock::monotonic() - running.started).as_millis() as i64);
        }
    }
    let (libraries, functions, _) = instance.libraries.usage();
    reply.bulk(b"engines");
    reply.map(1);
    reply.bulk(b"LUA");
    reply.map(2);
    reply.bulk(b"libraries_count");
    reply.count(libraries);
    reply.bulk(b"functions_count");
    reply.count(functions);
    Ok(())
}

fn dump(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let set = context.instance.libraries.snapshot();
    reply.bulk(&rdb::encode_libraries(set.iter().map(|library| library.source.as_slice())));
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::write_help(
        reply,
        "FUNCTION",
        &[
            "LOAD [REPLACE] <FUNCTION CODE>",
            "    Make a library.",
            "DELETE <LIBRARY NAME>",
            "    Remove a library.",
            "LIST [LIBRARYNAME PATTERN] [WITHCODE]",
            "    Return the libraries with their functions, and with their code if asked to.",
            "STATS",
            "    Return which function runs long, and how many libraries and functions there are.",
            "KILL",
            "    Stop a function that runs too long.",
            "FLUSH [ASYNC|SYNC]",
            "    Remove all libraries.",
            "DUMP",
            "    Return all libraries as bytes.",
            "RESTORE <PAYLOAD> [FLUSH|APPEND|REPLACE]",
            "    Make the libraries that DUMP returned. The policy says what becomes of those that are there.",
        ],
    );
    Ok(())
}
