//! `CLIENT`.

use std::sync::atomic::Ordering::Relaxed;

use super::super::arguments::integer;
use super::super::connection::check_name;
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category, flag};
use super::super::wrong_subcommand;
use super::{client_list, shown, tracking};
use crate::clients::ReplyMode;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::WaiterOutcome;

const PLAIN: u32 = flag::NOSCRIPT | super::ALWAYS;

/// The subcommands.
pub(super) const CLIENT: &[CommandSpec] = &[
    CommandSpec::session("id", Group::Connection, Exactly(2), id).with(PLAIN).doc(
        "Returns the connection's number.",
        "5.0.0",
        "O(1)",
        "",
    ),
    CommandSpec::session("getname", Group::Connection, Exactly(2), getname).with(PLAIN).doc(
        "Returns the connection's name.",
        "2.6.9",
        "O(1)",
        "",
    ),
    CommandSpec::session("setname", Group::Connection, Exactly(3), setname)
        .with(PLAIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Names the connection.", "2.6.9", "O(1)", "connection-name"),
    CommandSpec::session("setinfo", Group::Connection, Exactly(4), setinfo)
        .with(PLAIN)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Names the client's library.", "7.2.0", "O(1)", "attr<LIB-NAME libname | LIB-VER libver>"),
    CommandSpec::session("info", Group::Connection, Exactly(2), client_list::info)
        .with(PLAIN)
        .tips(&["nondeterministic_output"])
        .doc("Describes the connection.", "6.2.0", "O(1)", ""),
    CommandSpec::session("list", Group::Connection, AtLeast(2), client_list::list)
        .with(PLAIN | flag::ADMIN)
        .categories(category::DANGEROUS)
        .tips(&["nondeterministic_output"])
        .doc(
            "Describes all connections.",
            "2.4.0",
            "O(N) in the number of connections",
            "[TYPE client-type<NORMAL | MASTER | REPLICA | PUBSUB>@5.0.0] [ID \
            client-id:integer@6.2.0...]",
        ),
    CommandSpec::session("kill", Group::Connection, AtLeast(3), client_list::kill)
        .with(PLAIN | flag::ADMIN)
        .categories(category::DANGEROUS)
        .doc(
            "Closes connections.",
            "2.4.0",
            "O(N) in the number of connections",
            "filter<old-format'ip:port'!2.8.12 | new-format<[ID client-id:integer@2.8.12] | [TYPE \
            client-type<NORMAL | MASTER@3.2.0 | SLAVE | REPLICA@5.0.0 | PUBSUB>@2.8.12] | [USER \
            username] | [ADDR addr'ip:port'] | [LADDR laddr'ip:port'@6.2.0] | [SKIPME skipme<YES \
            | NO>]>...>",
        ),
    CommandSpec::session("unblock", Group::Connection, AtLeast(3), unblock)
        .with(PLAIN | flag::ADMIN)
        .categories(category::DANGEROUS)
        .doc(
            "Ends another connection's wait.",
            "5.0.0",
            "O(log N)",
            "client-id:integer [unblock-type<TIMEOUT | ERROR>]",
        ),
    CommandSpec::session("reply", Group::Connection, Exactly(3), reply_mode).with(PLAIN).doc(
        "Says which replies are wanted.",
        "3.2.0",
        "O(1)",
        "action<ON | OFF | SKIP>",
    ),
    CommandSpec::session("no-evict", Group::Connection, Exactly(3), no_evict)
        .with(PLAIN | flag::ADMIN)
        .categories(category::DANGEROUS)
        .doc("Keeps the connection when memory is short.", "7.0.0", "O(1)", "enabled<ON | OFF>"),
    CommandSpec::session("no-touch", Group::Connection, Exactly(3), no_touch).with(PLAIN).doc(
        "Leaves access records alone.",
        "7.2.0",
        "O(1)",
        "enabled<ON | OFF>",
    ),
    CommandSpec::session("pause", Group::Connection, AtLeast(3), pause)
        .with(PLAIN | flag::ADMIN)
        .categories(category::DANGEROUS)
        .doc("Holds back commands.", "3.0.0", "O(1)", "timeout:integer [mode<WRITE | ALL>@6.2.0]"),
    CommandSpec::session("unpause", Group::Connection, Exactly(2), unpause)
        .with(PLAIN | flag::ADMIN)
        .categories(category::DANGEROUS)
        .doc("Lets commands that are held back go on.", "6.2.0", "O(N) in the number of clients", ""),
    CommandSpec::session("getredir", Group::Connection, Exactly(2), tracking::getredir).with(PLAIN).doc(
        "Returns the connection that invalidations go to.",
        "6.0.0",
        "O(1)",
        "",
    ),
    CommandSpec::session("tracking", Group::Connection, AtLeast(3), tracking::tracking).with(PLAIN).doc(
        "Has the connection told when a key that it read has changed.",
        "6.0.0",
        "O(1); with PREFIX, O(N) in the number of prefixes",
        "status<ON | OFF> [REDIRECT client-id:integer] [PREFIX prefix...+] [BCAST] [OPTIN] \
            [OPTOUT] [NOLOOP]",
    ),
    CommandSpec::session("caching", Group::Connection, Exactly(3), tracking::caching).with(PLAIN).doc(
        "Says whether the keys of the next command are of interest.",
        "6.0.0",
        "O(1)",
        "mode<YES | NO>",
    ),
    CommandSpec::session("trackinginfo", Group::Connection, Exactly(2), tracking::trackinginfo)
        .with(PLAIN)
        .doc("Describes the tracking of keys.", "6.2.0", "O(1)", ""),
    CommandSpec::session("help", Group::Connection, Exactly(2), help).with(super::ALWAYS).doc(
        "Lists the subcommands.",
        "5.0.0",
        "O(1)",
        "",
    ),
];

fn id(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.integer(context.session.client.id as i64);
    Ok(())
}

fn getname(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let names = context.session.client.names.lock();
    reply.bulk_or_null(Some(names.name.as_bytes()).filter(|name| !name.is_empty()));
    Ok(())
}

fn setname(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    check_name(args.at(2))?;
    context.session.client.names.lock().name = shown(args.at(2));
    reply.ok();
    Ok(())
}

fn setinfo(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let value = args.at(3);
    let is_clean = value.iter().all(|byte| (b'!'..=b'~').contains(byte));
    let option = args.at(2).to_ascii_lowercase();
    let mut names = context.session.client.names.lock();
    let place = match option.as_slice() {
        b"lib-name" => &mut names.library,
        b"lib-ver" => &mut names.library_version,
        _ => {
            return Err(ReplyError::showing("ERR Unrecognized option '", args.at(2), "'"));
        }
    };
    if !is_clean {
        let option = String::from_utf8_lossy(&option).into_owned();
        return Err(ReplyError::new(format!(
            "ERR {option} cannot contain spaces, newlines or special characters."
        )));
    }
    *place = shown(value);
    reply.ok();
    Ok(())
}

fn pause(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let only_writes = match args.get(3) {
        None => false,
        Some(mode) if mode.eq_ignore_ascii_case(b"write") => true,
        Some(mode) if mode.eq_ignore_ascii_case(b"all") => false,
        Some(_) => return Err(ReplyError::fixed("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    if args.len() > 4 {
        return Err(wrong_subcommand(args));
    }
    let millis = integer(args.at(2))
        .map_err(|_| ReplyError::fixed("ERR timeout is not an integer or out of range"))?;
    let millis = u64::try_from(millis).map_err(|_| ReplyError::fixed("ERR timeout is negative"))?;
    let end_ms = millis.checked_add(context.view.now_ms()).filter(|end| *end <= i64::MAX as u64);
    let end_ms = end_ms.ok_or(ReplyError::fixed("ERR timeout is out of range"))?;
    context.instance.pause.begin(end_ms, only_writes);
    reply.ok();
    Ok(())
}

fn unpause(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.instance.pause.end();
    reply.ok();
    Ok(())
}

fn unblock(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 4 {
        return Err(wrong_subcommand(args));
    }
    let with_error = match args.get(3) {
        None => false,
        Some(word) if word.eq_ignore_ascii_case(b"timeout") => false,
        Some(word) if word.eq_ignore_ascii_case(b"error") => true,
        Some(_) => return Err(ReplyError::fixed("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")),
    };
    let id = integer(args.at(2))?;
    let client = u64::try_from(id).ok().and_then(|id| context.instance.clients.get(id));
    // Who waits for no key cannot be unblocked, as in Redis.
    let waiter =
        client.and_then(|client| client.blocked.lock().clone()).filter(|waiter| !waiter.keys.is_empty());
    if let Some(waiter) = &waiter {
        waiter.finish(WaiterOutcome::Unblocked { with_error });
    }
    reply.integer(waiter.is_some().into());
    Ok(())
}

fn reply_mode(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let session = &mut *context.session;
    match args.at(2).to_ascii_lowercase().as_slice() {
        b"on" => {
            session.reply_mode = ReplyMode::On;
            reply.ok();
        }
        b"off" => session.reply_mode = ReplyMode::Off,
        b"skip" if session.reply_mode != ReplyMode::Off => session.reply_mode = ReplyMode::SkipThis,
        b"skip" => {}
        _ => return Err(ReplyError::SYNTAX),
    }
    Ok(())
}

fn on_or_off(argument: &[u8]) -> Result<bool, ReplyError> {
    match argument.to_ascii_lowercase().as_slice() {
        b"on" => Ok(true),
        b"off" => Ok(false),
        _ => Err(ReplyError::SYNTAX),
    }
}

fn no_evict(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.session.client.no_evict.store(on_or_off(args.at(2))?, Relaxed);
    reply.ok();
    Ok(())
}

fn no_touch(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.session.client.no_touch.store(on_or_off(args.at(2))?, Relaxed);
    reply.ok();
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::super::write_help(
        reply,
        "CLIENT",
        &[
            "GETNAME",
            "    Return the name of this connection.",
            "ID",
            "    Return the ID of this connection.",
            "INFO",
            "    Describe this connection.",
            "KILL <ip:port>",
            "    Close the connection from <ip:port>.",
            "KILL <option> <value> [<option> <value> [...]]",
            "    Close the connections that all options fit:",
            "    * ADDR (<ip:port>|<unixsocket>:0)",
            "      Come from this address.",
            "    * LADDR (<ip:port>|<unixsocket>:0)",
            "      Came to this local address.",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Are of this type.",
            "    * USER <username>",
            "      Are authenticated as <username>.",
            "    * SKIPME (YES|NO)",
            "      Spare this connection (default: yes).",
            "LIST [options ...]",
            "    Describe the connections that the options fit:",
            "    * TYPE (NORMAL|MASTER|REPLICA|PUBSUB)",
            "      Are of this type.",
            "    * ID <id> [<id> ...]",
            "      Have one of these IDs.",
            "PAUSE <timeout> [WRITE|ALL]",
            "    Hold back all commands, or those that write, for <timeout> milliseconds.",
            "UNPAUSE",
            "    Let the commands that are held back go on.",
            "GETREDIR",
            "    Return the connection that invalidations go to.",
            "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
            "    Say whether this connection is told when a key that it read has changed.",
            "CACHING (YES|NO)",
            "    Say whether the keys of the next command are of interest.",
            "TRACKINGINFO",
            "    Describe the tracking of keys for this connection.",
            "REPLY (ON|OFF|SKIP)",
            "    Say which replies this connection wants.",
            "SETNAME <name>",
            "    Name this connection <name>.",
            "SETINFO <option> <value>",
            "    Describe the client's library:",
            "    * LIB-NAME: its name.",
            "    * LIB-VER: its version.",
            "UNBLOCK <clientid> [TIMEOUT|ERROR]",
            "    End the wait of a blocked client.",
            "NO-EVICT (ON|OFF)",
            "    Keep this connection when memory is short.",
            "NO-TOUCH (ON|OFF)",
            "    Leave the access records of keys alone.",
        ],
    );
    Ok(())
}
