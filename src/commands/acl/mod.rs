//! `ACL`: users and what they may do.

mod check;
mod file;
mod rules;

pub use check::{check, check_sort, object_of, reason};
pub use file::{UsersError, load_users};

use std::sync::Arc;

use super::arguments::integer;
use super::categories::{CATEGORIES, categories};
use super::client_list;
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{Arity, CommandSpec, Context, Group, SessionHandler, category, flag};
use super::table::COMMANDS as TABLE;
use super::write_help;
use crate::acl::{DEFAULT, Incident, LogEntry, Rules, Selector, User, Where};
use crate::clients::{Audience, Session};
use crate::clock;
use crate::config::{Id, Settings, replace_file};
use crate::instance::Instance;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::WaiterOutcome;
use rules::{apply, channel_rules, command_rules, describe, flags, key_rules, merge_selectors};

const ALWAYS: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE;

/// A row for who looks after the server.
const fn administering(name: &'static str, arity: Arity, handler: SessionHandler) -> CommandSpec {
    CommandSpec::session(name, Group::Server, arity, handler)
        .with(ALWAYS | flag::ADMIN)
        .categories(category::DANGEROUS)
}

/// The rows.
pub const COMMANDS: &[CommandSpec] = &[CommandSpec::container("acl", Group::Server, ACL).doc(
    "Commands on users and what they may do.",
    "6.0.0",
    "Depends on subcommand.",
    "",
)];

const ACL: &[CommandSpec] = &[
    CommandSpec::session("cat", Group::Server, AtLeast(2), cat).with(ALWAYS).doc(
        "Lists the categories, or the commands of one.",
        "6.0.0",
        "O(1) since the categories and commands are a fixed set.",
        "[category]",
    ),
    administering("deluser", AtLeast(3), deluser)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Removes users; their connections end.", "6.0.0", "O(1) amortized time", "username..."),
    administering("dryrun", AtLeast(4), dryrun).doc(
        "Says whether a user may run a command, and does not run it.",
        "7.0.0",
        "O(1).",
        "username command [arg...]",
    ),
    CommandSpec::session("genpass", Group::Server, AtLeast(2), genpass).with(ALWAYS).doc(
        "Makes a password up.",
        "6.0.0",
        "O(1)",
        "[bits:integer]",
    ),
    administering("getuser", Exactly(3), getuser).doc(
        "Returns a user's rules.",
        "6.0.0",
        "O(N), with N the passwords, rules and patterns",
        "username",
    ),
    administering("list", Exactly(2), list).doc(
        "Returns all users with their rules, as a file has them.",
        "6.0.0",
        "O(N), with N the users",
        "",
    ),
    administering("load", Exactly(2), load).doc(
        "Takes the users of the ACL file.",
        "6.0.0",
        "O(N), with N the users",
        "",
    ),
    administering("log", AtLeast(2), log).doc(
        "Returns what was denied of late.",
        "6.0.0",
        "O(N), with N the entries shown",
        "[operation<count:integer | RESET>]",
    ),
    administering("save", Exactly(2), save)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc("Writes the users into the ACL file.", "6.0.0", "O(N), with N the users", ""),
    administering("setuser", AtLeast(3), setuser)
        .tips(&["request_policy:all_nodes", "response_policy:all_succeeded"])
        .doc(
            "Makes a user, or changes his rules.",
            "6.0.0",
            "O(N), with N the rules given",
            "username [rule...]",
        ),
    administering("users", Exactly(2), users).doc(
        "Returns the users' names.",
        "6.0.0",
        "O(N), with N the users",
        "",
    ),
    CommandSpec::session("whoami", Group::Server, Exactly(2), whoami).with(ALWAYS).doc(
        "Returns the name of the connection's user.",
        "6.0.0",
        "O(1)",
        "",
    ),
    CommandSpec::session("help", Group::Server, Exactly(2), help).with(flag::LOADING | flag::STALE).doc(
        "Lists the subcommands.",
        "6.0.0",
        "O(1)",
        "",
    ),
];

fn cat(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(super::wrong_subcommand(args));
    }
    let Some(wanted) = args.get(2) else {
        reply.array(CATEGORIES.len());
        CATEGORIES.iter().for_each(|name| reply.bulk(name.as_bytes()));
        return Ok(());
    };
    let lower = wanted.to_ascii_lowercase();
    let Some(name) = CATEGORIES.iter().find(|name| name.as_bytes() == lower) else {
        return Err(ReplyError::showing("ERR Unknown category '", wanted, "'"));
    };
    let found: Vec<_> = TABLE.iter().filter(|command| categories(command.spec).contains(name)).collect();
    reply.array(found.len());
    found.iter().for_each(|command| reply.bulk(command.name.as_bytes()));
    Ok(())
}

fn deluser(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.skip(2).iter().any(|name| name == DEFAULT) {
        return Err(ReplyError::fixed("ERR The 'default' user cannot be removed"));
    }
    let acl = &context.instance.acl;
    let _changing = acl.changing.lock();
    let mut removed = 0;
    for user in args.skip(2).iter().filter_map(|name| acl.remove(name)) {
        removed += 1;
        end_connections(context, &user);
    }
    reply.integer(removed);
    Ok(())
}

/// Ends what a user who is gone has open; his own connection once it has its reply.
fn end_connections(context: &mut Context<'_, '_>, user: &Arc<User>) {
    // Whoever holds on to him may do nothing from here on.
    user.set_rules(Rules::new(false));
    let name = user.shown();
    for client in context.instance.clients.list() {
        if client.names.lock().user != name {
            continue;
        }
        if client.id == context.session.client.id {
            context.session.closing = true;
        } else {
            client.kill();
        }
    }
}

fn setuser(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (instance, name) = (context.instance, args.at(2));
    if name.iter().any(|byte| byte.is_ascii_whitespace() || *byte == 0) {
        return Err(ReplyError::fixed("ERR Usernames can't contain spaces or null characters"));
    }
    let words = merge_selectors(args.skip(3).iter()).map_err(|open| {
        ReplyError::showing("ERR Unmatched parenthesis in acl selector starting at '", &open, "'.")
    })?;
    let _changing = instance.acl.changing.lock();
    let all_channels = has_all_channels(&instance.settings);
    let before = instance.acl.get(name).map(|user| user.rules());
    let mut rules = before.as_deref().map_or_else(|| Rules::new(all_channels), Rules::clone);
    for word in &words {
        apply(&mut rules, word, all_channels).map_err(|error| {
            let shown =
                [b"ERR Error in ACL SETUSER modifier '", &**word, format!("': {error}").as_bytes()].concat();
            ReplyError::new(shown)
        })?;
    }
    let user = instance.acl.put(name, rules);
    rules_changed(context, &user, before.as_deref());
    reply.ok();
    Ok(())
}

/// Whether new users may use all channels.
fn has_all_channels(settings: &Settings) -> bool {
    // The second of the directive's words.
    settings.int(Id::AclPubsubDefault) == 1
}

/// Ends connections that listen to what their user may not listen to any more, and has those look again that wait.
fn rules_changed(context: &mut Context<'_, '_>, user: &User, before: Option<&Rules>) {
    let (instance, rules, name) = (context.instance, user.rules(), user.shown());
    // What is listened to upstream is not known here.
    let is_unknown = instance.upstream.is_some()
        && before.is_some_and(|before| !before.channels().eq(rules.channels()))
        && !rules.is_unrestricted();
    let may = |audience, channel: &[u8]| rules.allows_channel(channel, audience == Audience::Pattern);
    for client in instance.clients.list() {
        if client.names.lock().user != name {
            continue;
        }
        if let Some(waiter) = &*client.blocked.lock() {
            let command = TABLE.at(waiter.command);
            if check(&rules, command, waiter.args.as_args()).is_err() {
                waiter.finish(WaiterOutcome::Again);
            }
        }
        let is_own = client.id == context.session.client.id;
        if client.is_subscribed() && !instance.clients.subscriptions.all_allowed(client.id, may) {
            if is_own {
                context.session.closing = true;
            } else {
                client.kill();
            }
        } else if is_unknown && !is_own {
            client.kill();
        }
    }
}

fn getuser(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(user) = context.instance.acl.get(args.at(2)) else {
        reply.null();
        return Ok(());
    };
    let rules = user.rules();
    reply.map(6);
    reply.bulk(b"flags");
    let flags = flags(&rules);
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"passwords");
    reply.array(rules.passwords.len());
    rules.passwords.iter().for_each(|hash| reply.bulk(hash.as_bytes()));
    write_selector(reply, &rules.root);
    reply.bulk(b"selectors");
    reply.array(rules.selectors.len());
    for selector in &rules.selectors {
        reply.map(3);
        write_selector(reply, selector);
    }
    Ok(())
}

fn write_selector(reply: &mut Reply<'_>, selector: &Selector) {
    reply.bulk(b"commands");
    reply.bulk(command_rules(selector).as_bytes());
    reply.bulk(b"keys");
    reply.bulk(&key_rules(selector));
    reply.bulk(b"channels");
    reply.bulk(&channel_rules(selector));
}

fn list(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let users = context.instance.acl.users();
    reply.array(users.len());
    users.iter().for_each(|user| reply.bulk(&line_of(user)));
    Ok(())
}

/// A user as a file has him.
fn line_of(user: &User) -> Vec<u8> {
    [b"user ", &*user.name, b" ", &describe(&user.rules())].concat()
}

fn users(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let users = context.instance.acl.users();
    reply.array(users.len());
    users.iter().for_each(|user| reply.bulk(&user.name));
    Ok(())
}

fn whoami(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.bulk(&context.session.user.name);
    Ok(())
}

fn genpass(_: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    const BOUNDS: &str = "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096";
    if args.len() > 3 {
        return Err(super::wrong_subcommand(args));
    }
    let bits = args.get(2).map_or(Ok(256), integer)?;
    if !(1..=4096).contains(&bits) {
        return Err(ReplyError::fixed(BOUNDS));
    }
    let mut bytes = vec![0; (bits as usize).div_ceil(8)];
    getrandom::fill(&mut bytes).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        ReplyError::fixed("ERR the system gives no random bytes")
    })?;
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate((bits as usize).div_ceil(4));
    reply.bulk(text.as_bytes());
    Ok(())
}

fn dryrun(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(user) = context.instance.acl.get(args.at(2)) else {
        return Err(ReplyError::showing("ERR User '", args.at(2), "' not found"));
    };
    let inner = args.skip(3);
    let Ok(command) = TABLE.resolve(inner) else {
        return Err(ReplyError::showing("ERR Command '", inner.at(0), "' not found"));
    };
    if !command.spec.arity.accepts(inner.len()) {
        return Err(ReplyError::wrong_arity(&command.name));
    }
    match check(&user.rules(), command, inner) {
        Ok(()) => reply.ok(),
        Err(denied) => reply.bulk(&check::full_reason(denied, &user.shown(), command, inner)),
    }
    Ok(())
}

fn log(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len() > 3 {
        return Err(super::wrong_subcommand(args));
    }
    let mut log = context.instance.acl.log.lock();
    if args.is(2, "reset") {
        log.clear();
        reply.ok();
        return Ok(());
    }
    let count = args.get(2).map_or(Ok(10), integer)?.max(0) as usize;
    let now_ms = clock::wall_ms();
    let entries = log.newest(count);
    reply.array(entries.len());
    for entry in entries {
        reply.map(10);
        reply.bulk(b"count");
        reply.integer(entry.count as i64);
        reply.bulk(b"reason");
        reply.bulk(entry.incident.name().as_bytes());
        reply.bulk(b"context");
        reply.bulk(entry.place.name().as_bytes());
        reply.bulk(b"object");
        reply.bulk(&entry.object);
        reply.bulk(b"username");
        reply.bulk(&entry.user);
        reply.bulk(b"age-seconds");
        reply.double(now_ms.saturating_sub(entry.updated_ms) as f64 / 1000.0);
        reply.bulk(b"client-info");
        reply.bulk(entry.client.as_bytes());
        reply.bulk(b"entry-id");
        reply.integer(entry.id as i64);
        reply.bulk(b"timestamp-created");
        reply.integer(entry.created_ms as i64);
        reply.bulk(b"timestamp-last-updated");
        reply.integer(entry.updated_ms as i64);
    }
    Ok(())
}

/// Where a request of this session stands.
pub fn place_of(session: &Session) -> Where {
    if session.transaction.is_some() { Where::Multi } else { Where::TopLevel }
}

/// Counts what somebody was denied and notes it in the log.
#[cold]
pub fn note_denied(
    instance: &Instance,
    session: &Session,
    incident: Incident,
    place: Where,
    object: &[u8],
    user: &[u8],
) {
    instance.acl.count(incident);
    let now_ms = clock::wall_ms();
    let entry = LogEntry {
        count: 1,
        incident,
        place,
        object: object.into(),
        user: user.into(),
        client: client_list::describe(&session.client, session.tracking.as_deref(), now_ms),
        id: 0,
        created_ms: now_ms,
        updated_ms: now_ms,
    };
    instance.acl.log.lock().add(entry, instance.settings.int(Id::AcllogMaxLen) as usize);
}

/// Where the users are kept.
fn file_of(instance: &Instance) -> Result<std::path::PathBuf, ReplyError> {
    match &*instance.settings.text(Id::Aclfile) {
        "" => Err(ReplyError::fixed(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.",
        )),
        path => Ok(path.into()),
    }
}

fn save(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let path = file_of(context.instance)?;
    let mut text = Vec::new();
    for user in context.instance.acl.users() {
        text.extend_from_slice(&line_of(&user));
        text.push(b'\n');
    }
    replace_file(&path, &text).map_err(|error| {
        tracing::error!(%error, file = %path.display(), "the users were not written");
        ReplyError::fixed("ERR There was an error trying to save the ACLs. Please check the server logs for more information")
    })?;
    reply.ok();
    Ok(())
}

fn load(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let instance = context.instance;
    let path = file_of(instance)?;
    let mut read = file::read(&path, has_all_channels(&instance.settings))
        .map_err(|error| ReplyError::new(format!("ERR {error}")))?;
    if !read.contains_key(DEFAULT) {
        read.insert(DEFAULT.into(), Rules::default_user(&instance.settings.text(Id::Requirepass)));
    }
    let _changing = instance.acl.changing.lock();
    for user in instance.acl.users() {
        if *user.name != *DEFAULT && !read.contains_key(&user.name) {
            instance.acl.remove(&user.name);
            end_connections(context, &user);
        }
    }
    for (name, rules) in read {
        let before = instance.acl.get(&name).map(|user| user.rules());
        let user = instance.acl.put(&name, rules);
        rules_changed(context, &user, before.as_deref());
    }
    reply.ok();
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_help(
        reply,
        "ACL",
        &[
            "CAT [<category>]",
            "    Return the categories, or the commands of <category>.",
            "DELUSER <username> [<username> ...]",
            "    Remove users.",
            "DRYRUN <username> <command> [<arg> ...]",
            "    Return whether the user may run the command, and do not run it.",
            "GETUSER <username>",
            "    Return the user's rules.",
            "GENPASS [<bits>]",
            "    Make a password up, of 256 bits or as many as are given.",
            "LIST",
            "    Return the users with their rules, as a file has them.",
            "LOAD",
            "    Take the users of the ACL file.",
            "LOG [<count> | RESET]",
            "    Return what was denied of late, or forget it.",
            "SAVE",
            "    Write the users into the ACL file.",
            "SETUSER <username> <rule> [<rule> ...]",
            "    Make a user, or change his rules.",
            "USERS",
            "    Return the users' names.",
            "WHOAMI",
            "    Return the name of the connection's user.",
        ],
    );
    Ok(())
}
