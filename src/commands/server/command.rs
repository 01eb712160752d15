//! `COMMAND`: the command table, as clients ask for it. Everything here follows from the rows.

use super::super::arguments::Options;
use super::super::categories::categories;
use super::super::keys::{self, Begin, Find, KeySpec, access};
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category, flag};
use super::super::table::{COMMANDS, Command};
use super::shown;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::types::glob;

/// The row: a container that also runs by itself.
pub(super) const COMMAND: CommandSpec = CommandSpec::container("command", Group::Server, SUBCOMMANDS)
    .runs(AtLeast(1), command)
    .with(super::ALWAYS)
    .categories(category::CONNECTION)
    .tips(&["nondeterministic_output_order"])
    .doc("Describes all commands.", "2.8.13", "O(N) in the number of commands", "");

const SUBCOMMANDS: &[CommandSpec] = &[
    CommandSpec::session("count", Group::Server, Exactly(2), count)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .doc("Counts the commands.", "2.8.13", "O(1)", ""),
    CommandSpec::session("info", Group::Server, AtLeast(2), info)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc("Describes some commands.", "2.8.13", "O(N) in the number of commands", "[command-name...]"),
    CommandSpec::session("docs", Group::Server, AtLeast(2), docs)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc("Documents commands.", "7.0.0", "O(N) in the number of commands", "[command-name...]"),
    CommandSpec::session("list", Group::Server, AtLeast(2), list)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .tips(&["nondeterministic_output_order"])
        .doc(
            "Names the commands.",
            "7.0.0",
            "O(N) in the number of commands",
            "[FILTERBY filterby<MODULE module-name | ACLCAT category | PATTERN pattern:pattern>]",
        ),
    CommandSpec::session("getkeys", Group::Server, AtLeast(3), getkeys)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .doc("Finds the keys of a command.", "2.8.13", "O(N) in the number of arguments", "command [arg...]"),
    CommandSpec::session("getkeysandflags", Group::Server, AtLeast(3), getkeysandflags)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .doc(
            "Finds the keys of a command and what is done to them.",
            "7.0.0",
            "O(N) in the number of arguments",
            "command [arg...]",
        ),
    CommandSpec::session("help", Group::Server, Exactly(2), help)
        .with(super::ALWAYS)
        .categories(category::CONNECTION)
        .doc("Lists the subcommands.", "5.0.0", "O(1)", ""),
];

/// Flags by their names in `COMMAND`.
const FLAGS: &[(u32, &str)] = &[
    (flag::WRITE, "write"),
    (flag::READONLY, "readonly"),
    (flag::DENYOOM, "denyoom"),
    (flag::ADMIN, "admin"),
    (flag::PUBSUB, "pubsub"),
    (flag::NOSCRIPT, "noscript"),
    (flag::BLOCKING, "blocking"),
    (flag::LOADING, "loading"),
    (flag::STALE, "stale"),
    (flag::SKIP_MONITOR, "skip_monitor"),
    (flag::SKIP_SLOWLOG, "skip_slowlog"),
    (flag::FAST, "fast"),
    (flag::NO_AUTH, "no_auth"),
    (flag::NO_MULTI, "no_multi"),
    (flag::MOVABLEKEYS, "movablekeys"),
    (flag::ALLOW_BUSY, "allow_busy"),
    (flag::NO_ASYNC_LOADING, "no_async_loading"),
    (flag::NO_MANDATORY_KEYS, "no_mandatory_keys"),
];

/// Key flags by their names.
const ACCESS: &[(u16, &str)] = &[
    (access::RO, "RO"),
    (access::RW, "RW"),
    (access::OW, "OW"),
    (access::RM, "RM"),
    (access::ACCESS, "access"),
    (access::UPDATE, "update"),
    (access::INSERT, "insert"),
    (access::DELETE, "delete"),
    (access::NOT_KEY, "not_key"),
    (access::INCOMPLETE, "incomplete"),
    (access::VARIABLE_FLAGS, "variable_flags"),
];

/// First key, last key and step, as they were told before there were key specs.
fn legacy_range(keys: &[KeySpec]) -> (i64, i64, i64) {
    let (mut first, mut last, mut step) = (i64::MAX, 0i64, 0);
    let mut open_end = None;
    for spec in keys {
        let (Begin::Index(begin), Find::Range { last: end, step: by, .. }) = (spec.begin, spec.find) else {
            continue;
        };
        first = first.min(begin as i64);
        if end < 0 {
            open_end = Some(i64::from(end));
        } else {
            last = last.max(begin as i64 + i64::from(end));
        }
        step = step.max(by as i64);
    }
    if first == i64::MAX { (0, 0, 0) } else { (first, open_end.unwrap_or(last), step) }
}

fn command(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    info(context, args, reply)
}

fn count(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(COMMANDS.top_level().count());
    Ok(())
}

fn info(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() <= 2 {
        reply.array(COMMANDS.top_level().count());
        COMMANDS.top_level().for_each(|command| write_info(reply, command));
        return Ok(());
    }
    reply.array(args.len() - 2);
    for name in args.skip(2).iter() {
        match COMMANDS.find(name) {
            Some(command) => write_info(reply, command),
            None => reply.null_array(),
        }
    }
    Ok(())
}

fn subcommands(command: &Command) -> Vec<&'static Command> {
    let table: &'static super::super::table::CommandTable = &COMMANDS;
    table.iter().filter(|other| other.parent == Some(command.index)).collect()
}

fn write_info(reply: &mut Reply<'_>, command: &Command) {
    let spec = command.spec;
    reply.array(10);
    reply.bulk(command.name.as_bytes());
    reply.integer(match spec.arity {
        Exactly(count) => i64::from(count),
        AtLeast(count) => -i64::from(count),
    });
    let flags: Vec<&str> = FLAGS.iter().filter(|(bit, _)| spec.has(*bit)).map(|(_, name)| *name).collect();
    reply.set(flags.len());
    flags.iter().for_each(|name| reply.simple(name));
    let (first, last, step) = legacy_range(spec.keys);
    reply.integer(first);
    reply.integer(last);
    reply.integer(step);
    let categories = categories(spec);
    reply.set(categories.len());
    categories.iter().for_each(|name| reply.simple(&format!("@{name}")));
    reply.set(spec.tips.len());
    spec.tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    reply.set(spec.keys.len());
    spec.keys.iter().for_each(|key_spec| write_key_spec(reply, key_spec));
    let children = subcommands(command);
    reply.set(children.len());
    children.iter().for_each(|child| write_info(reply, child));
}

fn write_key_spec(reply: &mut Reply<'_>, spec: &KeySpec) {
    let pair = |reply: &mut Reply<'_>, name: &str, value: i64| {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    };
    let kind = |reply: &mut Reply<'_>, name: &str, pairs: usize| {
        reply.map(2);
        reply.bulk(b"type");
        reply.bulk(name.as_bytes());
        reply.bulk(b"spec");
        reply.map(pairs);
    };
    reply.map(3);
    reply.bulk(b"flags");
    let flags: Vec<&str> =
        ACCESS.iter().filter(|(bit, _)| spec.flags & bit != 0).map(|(_, name)| *name).collect();
    reply.set(flags.len());
    flags.iter().for_each(|name| reply.simple(name));
    reply.bulk(b"begin_search");
    match spec.begin {
        Begin::Index(index) => {
            kind(reply, "index", 1);
            pair(reply, "index", index as i64);
        }
        Begin::Keyword(word, from) => {
            kind(reply, "keyword", 2);
            reply.bulk(b"keyword");
            reply.bulk(word.to_uppercase().as_bytes());
            pair(reply, "startfrom", from.into());
        }
        Begin::Unknown => kind(reply, "unknown", 0),
    }
    reply.bulk(b"find_keys");
    match spec.find {
        Find::Range { last, step, limit } => {
            kind(reply, "range", 3);
            pair(reply, "lastkey", last.into());
            pair(reply, "keystep", step as i64);
            pair(reply, "limit", limit as i64);
        }
        Find::Count { at, first, step } => {
            kind(reply, "keynum", 3);
            pair(reply, "keynumidx", at as i64);
            pair(reply, "firstkey", first as i64);
            pair(reply, "keystep", step as i64);
        }
        Find::Unknown => kind(reply, "unknown", 0),
    }
}

fn docs(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let wanted: Vec<&Command> = if args.len() == 2 {
        COMMANDS.top_level().collect()
    } else {
        args.skip(2).iter().filter_map(|name| COMMANDS.find(name)).collect()
    };
    reply.map(wanted.len());
    wanted.iter().for_each(|command| super::docs::write(reply, command));
    Ok(())
}

fn list(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut options = Options::new(args, 2);
    let mut wanted: Box<dyn Fn(&Command) -> bool> = Box::new(|_| true);
    if options.take_with("filterby", 2) {
        if options.take("pattern") {
            let pattern = options.value()?.to_vec();
            wanted = Box::new(move |command| glob::matches_ignoring_case(&pattern, command.name.as_bytes()));
        } else if options.take("aclcat") {
            let category = shown(options.value()?).to_lowercase();
            wanted = Box::new(move |command| categories(command.spec).contains(&category.as_str()));
        } else if options.take("module") {
            options.value()?;
            wanted = Box::new(|_| false);
        }
    }
    if !options.is_done() {
        return Err(ReplyError::SYNTAX);
    }
    let found: Vec<&Command> = COMMANDS.iter().filter(|command| wanted(command)).collect();
    reply.array(found.len());
    found.iter().for_each(|command| reply.bulk(command.name.as_bytes()));
    Ok(())
}

fn keys_of(args: Args<'_>) -> Result<(Args<'_>, keys::Keys), ReplyError> {
    let inner = args.skip(2);
    let command = COMMANDS.resolve(inner).map_err(|_| ReplyError::fixed("ERR Invalid command specified"))?;
    if command.spec.keys.is_empty() && command.spec.get_keys.is_none() {
        return Err(ReplyError::fixed("ERR The command has no key arguments"));
    }
    if !command.spec.arity.accepts(inner.len()) {
        return Err(ReplyError::fixed("ERR Invalid number of arguments specified for command"));
    }
    match keys::extract(command.spec, inner) {
        Some(keys) if !keys.is_empty() => Ok((inner, keys)),
        _ => Err(ReplyError::fixed("ERR Invalid arguments specified for command")),
    }
}

fn getkeys(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let derived = COMMANDS
        .resolve(args.skip(2))
        .ok()
        .and_then(|command| command.spec.derived_key.filter(|_| command.spec.arity.accepts(args.len() - 2)));
    if let Some(derive) = derived {
        reply.array(1);
        reply.bulk(&derive(args.skip(2)));
        return Ok(());
    }
    let (inner, keys) = keys_of(args)?;
    reply.array(keys.len());
    keys.iter().for_each(|(index, _)| reply.bulk(inner.at(*index)));
    Ok(())
}

fn getkeysandflags(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (inner, keys) = keys_of(args)?;
    let real = COMMANDS.resolve(inner)?.spec.key_flags.map(|key_flags| key_flags(inner));
    reply.array(keys.len());
    for (index, flags) in &keys {
        let flags = real.unwrap_or(*flags);
        reply.array(2);
        reply.bulk(inner.at(*index));
        let names: Vec<&str> =
            ACCESS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
        reply.set(names.len());
        names.iter().for_each(|name| reply.simple(name));
    }
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(
        reply,
        "COMMAND",
        &[
            "(no subcommand)",
            "    Describe all commands.",
            "COUNT",
            "    Return the number of commands.",
            "LIST",
            "    Return the names of the commands, those that a filter lets through.",
            "INFO [<command-name> ...]",
            "    Describe the commands named, or all.",
            "DOCS [<command-name> ...]",
            "    Return the documentation of the commands named, or of all.",
            "GETKEYS <full-command>",
            "    Return the keys in a full command.",
            "GETKEYSANDFLAGS <full-command>",
            "    Return the keys in a full command, with what it does to them.",
        ],
    );
    Ok(())
}
