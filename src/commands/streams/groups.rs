//! Groups of consumers: `XGROUP` and `XACK`.

use super::id;
use crate::commands::arguments::{Options, integer};
use crate::commands::keys::{KeySpec, access::*, key_at};
use crate::commands::spec::Arity::{AtLeast, Exactly};
use crate::commands::spec::{CommandSpec, Context, Group as Family, flag};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::stream::{Group, Stream, StreamId};

const ADD: &[KeySpec] = &[key_at(2, RW | INSERT)];
const CHANGE: &[KeySpec] = &[key_at(2, RW | UPDATE)];
const REMOVE: &[KeySpec] = &[key_at(2, RW | DELETE)];

/// The subcommands of `XGROUP`.
pub(super) const XGROUP: &[CommandSpec] = &[
    CommandSpec::data("create", Family::Stream, AtLeast(5), xgroup_create).write().keys(ADD).doc(
        "Creates a group.",
        "5.0.0",
        "O(1)",
        "key group id-selector<id | $=new-id> [MKSTREAM] [ENTRIESREAD entries-read:integer]",
    ),
    CommandSpec::data("setid", Family::Stream, AtLeast(5), xgroup_setid).shrink().keys(CHANGE).doc(
        "Sets which entry a group was given last.",
        "5.0.0",
        "O(1)",
        "key group id-selector<id | $=new-id> [ENTRIESREAD entriesread:integer'entries-read']",
    ),
    CommandSpec::data("destroy", Family::Stream, Exactly(4), xgroup_destroy).shrink().keys(REMOVE).doc(
        "Removes a group.",
        "5.0.0",
        "O(N) in its pending entries",
        "key group",
    ),
    CommandSpec::data("createconsumer", Family::Stream, Exactly(5), xgroup_createconsumer)
        .write()
        .keys(ADD)
        .doc("Creates a consumer.", "6.2.0", "O(1)", "key group consumer"),
    CommandSpec::data("delconsumer", Family::Stream, Exactly(5), xgroup_delconsumer)
        .shrink()
        .keys(REMOVE)
        .doc("Removes a consumer.", "5.0.0", "O(N) in its pending entries", "key group consumer"),
    CommandSpec::session("help", Family::Stream, Exactly(2), xgroup_help)
        .with(flag::LOADING | flag::STALE)
        .doc("Returns what there is to say.", "5.0.0", "O(1)", ""),
];

/// That a stream or its group is not there.
pub(super) fn no_group(key: &[u8], group: &[u8], when: &str) -> ReplyError {
    let head = ReplyError::showing("NOGROUP No such key '", key, "' or consumer group '");
    let mut text = head.text().to_vec();
    text.extend_from_slice(ReplyError::showing("", group, "'").text());
    text.extend_from_slice(when.as_bytes());
    ReplyError::new(text)
}

/// That a group is not there, though the stream is.
pub(super) fn no_group_of(key: &[u8], group: &[u8]) -> ReplyError {
    let head = ReplyError::showing("NOGROUP No such consumer group '", group, "' for key name '");
    let mut text = head.text().to_vec();
    text.extend_from_slice(ReplyError::showing("", key, "'").text());
    ReplyError::new(text)
}

const NO_STREAM: ReplyError = ReplyError::fixed(
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option to create an empty stream automatically.",
);

/// What stands behind `ENTRIESREAD`; −1 for what is not known.
fn entries_read(text: &[u8]) -> Result<Option<u64>, ReplyError> {
    match integer(text)? {
        -1 => Ok(None),
        read => u64::try_from(read)
            .map(Some)
            .map_err(|_| ReplyError::fixed("ERR value for ENTRIESREAD must be positive or -1")),
    }
}

/// The entry behind which a group begins.
fn beginning(text: &[u8], stream: Option<&Stream>) -> Result<StreamId, ReplyError> {
    match text {
        b"$" => Ok(stream.map_or(StreamId::MIN, |stream| stream.last_id)),
        text => id(text, 0),
    }
}

fn xgroup_create(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut options = Options::new(args, 5);
    let (mut makes_stream, mut read) = (false, None);
    while !options.is_done() {
        if options.take("mkstream") {
            makes_stream = true;
        } else if options.take_with("entriesread", 1) {
            read = entries_read(options.value()?)?;
        } else {
            return Err(crate::commands::wrong_subcommand(args));
        }
    }
    let (key, name) = (args.at(2), args.at(3));
    let stream = view.peek_as::<Box<Stream>>(key)?.map(|stream| &**stream);
    if stream.is_none() && !makes_stream {
        return Err(NO_STREAM);
    }
    let group = Group::new(beginning(args.at(4), stream)?, read);
    let is_new = view.upsert(key, Event::stream("xgroup-create"), |stream: &mut Box<Stream>| {
        let is_new = stream.create_group(name, group);
        (is_new, is_new)
    })?;
    if !is_new {
        return Err(ReplyError::fixed("BUSYGROUP Consumer Group name already exists"));
    }
    reply.ok();
    Ok(())
}

/// Changes the group that the arguments name.
fn edit<R>(
    view: &mut View<'_>,
    args: Args<'_>,
    event: Event,
    change: impl FnOnce(&mut Group) -> (R, bool),
) -> Result<R, ReplyError> {
    let (key, name) = (args.at(2), args.at(3));
    let changed = view.edit(key, event, |stream: &mut Box<Stream>| match stream.group_mut(name) {
        None => (None, false),
        Some(group) => {
            let (result, changed) = change(group);
            (Some(result), changed)
        }
    })?;
    changed.ok_or(NO_STREAM)?.ok_or_else(|| no_group_of(key, name))
}

fn xgroup_setid(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut options = Options::new(args, 5);
    let mut read = None;
    while !options.is_done() {
        if !options.take_with("entriesread", 1) {
            return Err(crate::commands::wrong_subcommand(args));
        }
        read = entries_read(options.value()?)?;
    }
    let (key, name) = (args.at(2), args.at(3));
    let stream = view.peek_as::<Box<Stream>>(key)?.ok_or(NO_STREAM)?;
    if stream.group(name).is_none() {
        return Err(no_group_of(key, name));
    }
    let last_id = match args.at(4) {
        b"$" => stream.last_id,
        text => StreamId::parse_bound(text, 0).ok_or(super::INVALID_ID)?,
    };
    edit(view, args, Event::stream("xgroup-setid"), |group| {
        (group.last_id, group.entries_read) = (last_id, read);
        ((), true)
    })?;
    reply.ok();
    Ok(())
}

fn xgroup_destroy(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let removed = view.edit(args.at(2), Event::stream("xgroup-destroy"), |stream: &mut Box<Stream>| {
        let removed = stream.remove_group(args.at(3));
        (removed, removed)
    })?;
    reply.integer(removed.ok_or(NO_STREAM)?.into());
    Ok(())
}

fn xgroup_createconsumer(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let now_ms = view.now_ms();
    let is_new = edit(view, args, Event::stream("xgroup-createconsumer"), |group| {
        let is_new = group.create_consumer(args.at(4), now_ms);
        (is_new, is_new)
    })?;
    reply.integer(is_new.into());
    Ok(())
}

fn xgroup_delconsumer(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let pending = edit(view, args, Event::stream("xgroup-delconsumer"), |group| {
        let pending = group.remove_consumer(args.at(4));
        (pending, pending.is_some())
    })?;
    reply.count(pending.unwrap_or(0));
    Ok(())
}

fn xgroup_help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    crate::commands::write_help(
        reply,
        "XGROUP",
        &[
            "CREATE <key> <groupname> <id|$> [option]",
            "    Create the group <groupname>, which is given what comes behind <id>. Options are:",
            "    * MKSTREAM",
            "      Create an empty stream if there is none.",
            "    * ENTRIESREAD entries_read",
            "      Say how many entries the group was given already.",
            "CREATECONSUMER <key> <groupname> <consumer>",
            "    Create a consumer of the group.",
            "DELCONSUMER <key> <groupname> <consumer>",
            "    Remove a consumer of the group.",
            "DESTROY <key> <groupname>",
            "    Remove the group.",
            "SETID <key> <groupname> <id|$> [ENTRIESREAD entries_read]",
            "    Set the entry that the group was given last.",
        ],
    );
    Ok(())
}

pub(super) fn xack(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, name) = (args.at(1), args.at(2));
    if view.peek_as::<Box<Stream>>(key)?.is_none_or(|stream| stream.group(name).is_none()) {
        reply.integer(0);
        return Ok(());
    }
    let ids: Vec<StreamId> = args.skip(3).iter().map(|text| id(text, 0)).collect::<Result<_, _>>()?;
    let acknowledged = view.edit(key, Event::SILENT, |stream: &mut Box<Stream>| {
        let Some(group) = stream.group_mut(name) else { return (0, false) };
        let acknowledged = ids.into_iter().filter(|id| group.acknowledge(*id)).count();
        (acknowledged, acknowledged > 0)
    })?;
    reply.count(acknowledged.unwrap_or(0));
    Ok(())
}
