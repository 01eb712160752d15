//! `CLIENT`.

use std::sync::atomic::Ordering::Relaxed;

use super::super::arguments::{Options, integer};
use super::super::connection::check_name;
use super::super::spec::Arity::{AtLeast, Exactly};
use super::super::spec::{CommandSpec, Context, Group, category, flag};
use super::super::table::COMMANDS;
use super::shown;
use crate::clients::{Client, ReplyMode};
use crate::clock;
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
    CommandSpec::session("info", Group::Connection, Exactly(2), info)
        .with(PLAIN)
        .tips(&["nondeterministic_output"])
        .doc("Describes the connection.", "6.2.0", "O(1)", ""),
    CommandSpec::session("list", Group::Connection, AtLeast(2), list)
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
    CommandSpec::session("kill", Group::Connection, AtLeast(3), kill)
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

/// One connection as `CLIENT LIST` shows it.
fn describe(client: &Client, now_ms: u64) -> String {
    let names = client.names.lock().clone();
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    let queued = client.queued.load(Relaxed);
    let last = client.last_command.load(Relaxed);
    let command = if last == usize::MAX { "NULL" } else { COMMANDS.at(last).name.as_str() };
    let mut flags = String::new();
    for (set, letter) in [
        (queued > 0, 'x'),
        (client.blocked.lock().is_some(), 'b'),
        (client.is_unix, 'U'),
        (client.no_evict.load(Relaxed), 'e'),
        (client.no_touch.load(Relaxed), 'T'),
    ] {
        flags.extend(set.then_some(letter));
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let (query, output) = (client.query_buffer.load(Relaxed), client.output_buffer.load(Relaxed));
    let transaction = client.transaction_memory.load(Relaxed);
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub=0 psub=0 ssub=0 multi={} watch={} \
         qbuf={query} qbuf-free=0 argv-mem=0 multi-mem={transaction} rbs=0 rbp=0 obl=0 oll=0 omem={output} \
         tot-mem={} events=r cmd={command} user={} redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.address,
        client.local_address,
        client.fd,
        names.name,
        seconds(client.connected_ms),
        seconds(client.last_request_ms.load(Relaxed)),
        client.db.load(Relaxed),
        queued as i64 - 1,
        client.watching.load(Relaxed),
        super::memory_stats::client_memory(client),
        names.user,
        if client.resp3.load(Relaxed) { 3 } else { 2 },
        names.library,
        names.library_version,
    )
}

fn info(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let text = describe(&context.session.client, clock::wall_ms()) + "\n";
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn list(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut clients = context.instance.clients.list();
    if args.len() == 4 && args.is(2, "type") {
        if !is_normal(args.at(3))? {
            clients.clear();
        }
    } else if args.len() > 3 && args.is(2, "id") {
        let ids =
            args.skip(3).iter().map(|id| integer(id).map_err(|_| ReplyError::fixed("ERR Invalid client ID")));
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        clients.retain(|client| ids.contains(&(client.id as i64)));
    } else if args.len() != 2 {
        return Err(ReplyError::SYNTAX);
    }
    let now_ms = clock::wall_ms();
    let text: String = clients.iter().map(|client| describe(client, now_ms) + "\n").collect();
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

/// Whether a client type is that of ordinary clients, which all are.
fn is_normal(name: &[u8]) -> Result<bool, ReplyError> {
    match name.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(true),
        b"master" | b"slave" | b"replica" | b"pubsub" => Ok(false),
        _ => Err(ReplyError::showing("ERR Unknown client type '", name, "'")),
    }
}

/// Whether a client is meant.
type Filter = Box<dyn Fn(&Client) -> bool>;

fn kill(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let me = context.session.client.id;
    let old_form = args.len() == 3;
    let (mut filters, mut skips_me): (Vec<Filter>, bool) = (Vec::new(), !old_form);
    if old_form {
        let address = shown(args.at(2));
        filters.push(Box::new(move |client| client.address == address));
    }
    let mut options = Options::new(args, if old_form { 3 } else { 2 });
    while !options.is_done() {
        if options.take_with("id", 1) {
            let id = integer(options.value()?).ok().filter(|id| *id > 0);
            let id = id.ok_or(ReplyError::fixed("ERR client-id should be greater than 0"))?;
            filters.push(Box::new(move |client| client.id == id as u64));
        } else if options.take_with("type", 1) {
            let normal = is_normal(options.value()?)?;
            filters.push(Box::new(move |_| normal));
        } else if options.take_with("addr", 1) {
            let address = shown(options.value()?);
            filters.push(Box::new(move |client| client.address == address));
        } else if options.take_with("laddr", 1) {
            let address = shown(options.value()?);
            filters.push(Box::new(move |client| client.local_address == address));
        } else if options.take_with("user", 1) {
            let user = shown(options.value()?);
            if user != "default" {
                return Err(ReplyError::new(format!("ERR No such user '{user}'")));
            }
            filters.push(Box::new(move |client| client.names.lock().user == user));
        } else if options.take_with("skipme", 1) {
            skips_me = match options.value()?.to_ascii_lowercase().as_slice() {
                b"yes" => true,
                b"no" => false,
                _ => return Err(ReplyError::SYNTAX),
            };
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    let mut killed = 0;
    for client in context.instance.clients.list() {
        if skips_me && client.id == me || !filters.iter().all(|wanted| wanted(&client)) {
            continue;
        }
        killed += 1;
        if client.id == me {
            context.session.closing = true;
        } else {
            client.kill();
        }
    }
    match (old_form, killed) {
        (false, _) => reply.count(killed),
        (true, 0) => return Err(ReplyError::fixed("ERR No such client")),
        (true, _) => reply.ok(),
    }
    Ok(())
}

fn unblock(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
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
