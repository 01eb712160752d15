//! The connection itself: `PING`, `HELLO`, `AUTH`, `SELECT` and the like.

use std::sync::atomic::Ordering::Relaxed;

use super::acl;
use super::arguments::{Options, database};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Context, Control, Group, flag};
use crate::acl::{DEFAULT, Incident};
use crate::protocol::{Args, CommandResult, Protocol, Reply, ReplyError};
use crate::types::number::parse_i64;

/// Flags of commands that always run.
const ALWAYS: u32 = flag::LOADING | flag::STALE;

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::session("ping", Group::Connection, AtLeast(1), ping)
        .fast()
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc("Replies with PONG, or with what it is given.", "1.0.0", "O(1)", "[message]"),
    CommandSpec::session("echo", Group::Connection, Exactly(2), echo).with(ALWAYS).fast().doc(
        "Replies with what it is given.",
        "1.0.0",
        "O(1)",
        "message",
    ),
    CommandSpec::session("auth", Group::Connection, AtLeast(2), auth)
        .with(
            flag::NOSCRIPT
                | ALWAYS
                | flag::NO_AUTH
                | flag::SKIP_MONITOR
                | flag::SKIP_SLOWLOG
                | flag::ALLOW_BUSY,
        )
        .fast()
        .doc("Authenticates the connection.", "1.0.0", "O(1)", "[username@6.0.0] password"),
    CommandSpec::session("hello", Group::Connection, AtLeast(1), hello)
        .with(
            flag::NOSCRIPT
                | ALWAYS
                | flag::NO_AUTH
                | flag::SKIP_MONITOR
                | flag::SKIP_SLOWLOG
                | flag::ALLOW_BUSY,
        )
        .fast()
        .doc(
            "Agrees on the protocol's version.",
            "6.0.0",
            "O(1)",
            "[arguments(protover:integer [AUTH auth(username password)] [SETNAME clientname])]",
        ),
    CommandSpec::session("select", Group::Connection, Exactly(2), select).with(ALWAYS).fast().doc(
        "Changes the database.",
        "1.0.0",
        "O(1)",
        "index:integer",
    ),
    CommandSpec::session("quit", Group::Connection, AtLeast(1), quit)
        .with(flag::NOSCRIPT | ALWAYS | flag::NO_AUTH | flag::ALLOW_BUSY)
        .fast()
        .doc("Closes the connection.", "1.0.0", "O(1)", "")
        .deprecated("7.2.0", "just closing the connection"),
    CommandSpec::control("reset", Group::Connection, Exactly(1), Control::Reset)
        .with(flag::NOSCRIPT | ALWAYS | flag::NO_AUTH | flag::ALLOW_BUSY)
        .fast()
        .doc("Puts the connection back to where it began.", "6.2.0", "O(1)", ""),
];

fn ping(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 2 {
        return Err(ReplyError::wrong_arity("ping"));
    }
    // In RESP2 a subscriber gets messages alone.
    if context.session.is_subscribed && context.session.protocol == Protocol::Resp2 {
        reply.array(2);
        reply.bulk(b"pong");
        reply.bulk(args.get(1).unwrap_or_default());
        return Ok(());
    }
    match args.len() {
        1 => reply.simple("PONG"),
        _ => reply.bulk(args.at(1)),
    }
    Ok(())
}

fn echo(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.bulk(args.at(1));
    Ok(())
}

fn select(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let databases = context.view.databases();
    let index = database(args.at(1), databases)?;
    context.session.select(index);
    reply.ok();
    Ok(())
}

fn quit(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    context.session.closing = true;
    reply.ok();
    Ok(())
}

fn auth(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(ReplyError::SYNTAX);
    }
    if args.len() == 2 && context.instance.acl.default_user().rules().any_password {
        return Err(ReplyError::fixed(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        ));
    }
    let (user, password) = if args.len() == 3 { (args.at(1), args.at(2)) } else { (DEFAULT, args.at(1)) };
    authenticate(context, args, user, password)?;
    reply.ok();
    Ok(())
}

fn authenticate(
    context: &mut Context<'_, '_>,
    args: Args<'_>,
    name: &[u8],
    password: &[u8],
) -> Result<(), ReplyError> {
    let instance = context.instance;
    if let Some(user) = instance.acl.authenticate(name, password) {
        context.session.become_user(user);
        return Ok(());
    }
    let session = &*context.session;
    acl::note_denied(instance, session, Incident::Auth, acl::place_of(session), args.at(0), name);
    Err(ReplyError::fixed("WRONGPASS invalid username-password pair or user is disabled."))
}

fn hello(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let protocol = match args.get(1) {
        None => context.session.protocol,
        Some(version) => match parse_i64(version) {
            None => return Err(ReplyError::fixed("ERR Protocol version is not an integer or out of range")),
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(ReplyError::fixed("NOPROTO unsupported protocol version")),
        },
    };
    let mut name = None;
    let mut options = Options::new(args, 2);
    while !options.is_done() {
        if options.take_with("auth", 2) {
            let (user, password) = (options.value()?, options.value()?);
            authenticate(context, args, user, password)?;
        } else if options.take_with("setname", 1) {
            let given = options.value()?;
            check_name(given)?;
            name = Some(String::from_utf8_lossy(given).into_owned());
        } else {
            return Err(ReplyError::showing("ERR Syntax error in HELLO option '", options.value()?, "'"));
        }
    }
    if !context.session.authenticated && !context.instance.acl.is_open() {
        return Err(ReplyError::fixed(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    let session = &mut *context.session;
    if let Some(name) = name {
        session.client.names.lock().name = name;
    }
    session.set_protocol(protocol);
    reply.set_protocol(protocol);
    reply.map(7);
    for (key, value) in [("server", "redis"), ("version", super::REDIS_VERSION)] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"proto");
    reply.integer(if protocol == Protocol::Resp3 { 3 } else { 2 });
    reply.bulk(b"id");
    reply.integer(session.client.id as i64);
    for (key, value) in [("mode", "standalone"), ("role", "master")] {
        reply.bulk(key.as_bytes());
        reply.bulk(value.as_bytes());
    }
    reply.bulk(b"modules");
    reply.array(0);
    session.client.resp3.store(protocol == Protocol::Resp3, Relaxed);
    Ok(())
}

/// Whether a client may have this name.
///
/// # Errors
/// That it may not.
pub fn check_name(name: &[u8]) -> Result<(), ReplyError> {
    if name.iter().all(|byte| (b'!'..=b'~').contains(byte)) {
        return Ok(());
    }
    Err(ReplyError::fixed("ERR Client names cannot contain spaces, newlines or special characters."))
}
