//! `XINFO`.

use super::groups::no_group_of;
use super::{write_entries, write_entry, write_id};
use crate::commands::arguments::integer;
use crate::commands::keys::{KeySpec, access::*, key_at};
use crate::commands::spec::Arity::{AtLeast, Exactly};
use crate::commands::spec::{CommandSpec, Context, Group as Family, flag};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::View;
use crate::types::stream::{Consumer, Entry, Group, Stream, StreamId};

const READ: &[KeySpec] = &[key_at(2, RO | ACCESS)];
/// How many entries `FULL` shows.
const SHOWN: usize = 10;

/// The subcommands of `XINFO`. What they tell changes by commands that Redis invalidates nothing for.
pub(super) const XINFO: &[CommandSpec] = &[
    CommandSpec::data("stream", Family::Stream, AtLeast(3), xinfo_stream)
        .readonly()
        .keys(READ)
        .uncached()
        .doc("Tells of a stream.", "5.0.0", "O(1)", "key [full-block(FULL [COUNT count:integer])]"),
    CommandSpec::data("groups", Family::Stream, Exactly(3), xinfo_groups)
        .readonly()
        .keys(READ)
        .uncached()
        .doc("Tells of a stream's groups.", "5.0.0", "O(N) in the groups", "key"),
    CommandSpec::data("consumers", Family::Stream, Exactly(4), xinfo_consumers)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc("Tells of a group's consumers.", "5.0.0", "O(N) in the consumers", "key group"),
    CommandSpec::session("help", Family::Stream, Exactly(2), xinfo_help)
        .with(flag::LOADING | flag::STALE)
        .doc("Returns what there is to say.", "5.0.0", "O(1)", ""),
];

fn xinfo_help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    crate::commands::write_help(
        reply,
        "XINFO",
        &[
            "CONSUMERS <key> <groupname>",
            "    Tell of the consumers of a group.",
            "GROUPS <key>",
            "    Tell of the groups of a stream.",
            "STREAM <key> [FULL [COUNT <count>]]",
            "    Tell of a stream: of all of it, or of so many entries.",
        ],
    );
    Ok(())
}

fn stream_at<'a>(view: &'a mut View<'_>, key: &[u8]) -> Result<&'a Stream, ReplyError> {
    view.get::<Box<Stream>>(key)?.map(|stream| &**stream).ok_or(ReplyError::NO_SUCH_KEY)
}

/// A field of a map whose value is a number.
fn number(reply: &mut Reply<'_>, name: &str, value: u64) {
    reply.bulk(name.as_bytes());
    reply.integer(value as i64);
}

/// The same with one that may not be known.
fn maybe(reply: &mut Reply<'_>, name: &str, value: Option<u64>) {
    reply.bulk(name.as_bytes());
    match value {
        Some(value) => reply.integer(value as i64),
        None => reply.null(),
    }
}

fn id(reply: &mut Reply<'_>, name: &str, id: StreamId) {
    reply.bulk(name.as_bytes());
    write_id(reply, id);
}

fn entry(reply: &mut Reply<'_>, name: &str, entry: Option<Entry<'_>>) {
    reply.bulk(name.as_bytes());
    match entry {
        Some(entry) => write_entry(reply, &entry),
        None => reply.null(),
    }
}

fn xinfo_stream(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let stream = stream_at(view, args.at(2))?;
    let full = match args.len() {
        3 => None,
        4 if args.is(3, "full") => Some(SHOWN),
        6 if args.is(3, "full") && args.is(4, "count") => {
            let count = integer(args.at(5))?;
            Some(usize::try_from(count).unwrap_or(SHOWN))
        }
        _ => return Err(crate::commands::wrong_subcommand(args)),
    };
    reply.map(if full.is_some() { 9 } else { 10 });
    number(reply, "length", stream.len());
    number(reply, "radix-tree-keys", stream.nodes() as u64);
    number(reply, "radix-tree-nodes", stream.radix_nodes() as u64);
    id(reply, "last-generated-id", stream.last_id);
    id(reply, "max-deleted-entry-id", stream.max_deleted_id);
    number(reply, "entries-added", stream.entries_added);
    id(reply, "recorded-first-entry-id", stream.first_id());
    let Some(count) = full else {
        number(reply, "groups", stream.groups().len() as u64);
        entry(reply, "first-entry", stream.range(StreamId::MIN, StreamId::MAX).next());
        entry(reply, "last-entry", stream.range_back(StreamId::MIN, StreamId::MAX).next());
        return Ok(());
    };
    reply.bulk(b"entries");
    write_entries(reply, stream.range(StreamId::MIN, StreamId::MAX), count);
    reply.bulk(b"groups");
    reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        write_group(reply, stream, name, group, count);
    }
    Ok(())
}

/// A group with what is pending, of which `count` entries are shown; 0 for all.
fn write_group(reply: &mut Reply<'_>, stream: &Stream, name: &[u8], group: &Group, count: usize) {
    let most = if count == 0 { usize::MAX } else { count };
    reply.map(7);
    reply.bulk(b"name");
    reply.bulk(name);
    id(reply, "last-delivered-id", group.last_id);
    maybe(reply, "entries-read", group.entries_read);
    maybe(reply, "lag", stream.lag(group));
    number(reply, "pel-count", group.pending().len() as u64);
    reply.bulk(b"pending");
    reply.array(group.pending().len().min(most));
    for (id, pending) in group.pending().iter().take(most) {
        reply.array(4);
        write_id(reply, *id);
        reply.bulk(&pending.consumer);
        reply.integer(pending.delivered_ms as i64);
        reply.integer(pending.deliveries as i64);
    }
    reply.bulk(b"consumers");
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        write_consumer(reply, group, consumer, most);
    }
}

fn write_consumer(reply: &mut Reply<'_>, group: &Group, consumer: &Consumer, most: usize) {
    reply.map(5);
    reply.bulk(b"name");
    reply.bulk(&consumer.name);
    number(reply, "seen-time", consumer.seen_ms);
    reply.bulk(b"active-time");
    reply.integer(consumer.active_ms.map_or(-1, |millis| millis as i64));
    number(reply, "pel-count", consumer.pending.len() as u64);
    reply.bulk(b"pending");
    reply.array(consumer.pending.len().min(most));
    for id in consumer.pending.iter().take(most) {
        let pending = group.pending().get(id);
        reply.array(3);
        write_id(reply, *id);
        reply.integer(pending.map_or(0, |pending| pending.delivered_ms as i64));
        reply.integer(pending.map_or(0, |pending| pending.deliveries as i64));
    }
}

fn xinfo_groups(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let stream = stream_at(view, args.at(2))?;
    reply.array(stream.groups().len());
    for (name, group) in stream.groups() {
        reply.map(6);
        reply.bulk(b"name");
        reply.bulk(name);
        number(reply, "consumers", group.consumers().len() as u64);
        number(reply, "pending", group.pending().len() as u64);
        id(reply, "last-delivered-id", group.last_id);
        maybe(reply, "entries-read", group.entries_read);
        maybe(reply, "lag", stream.lag(group));
    }
    Ok(())
}

fn xinfo_consumers(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, now_ms) = (args.at(2), view.now_ms());
    let stream = stream_at(view, key)?;
    let group = stream.group(args.at(3)).ok_or_else(|| no_group_of(key, args.at(3)))?;
    reply.array(group.consumers().len());
    for consumer in group.consumers() {
        reply.map(4);
        reply.bulk(b"name");
        reply.bulk(&consumer.name);
        number(reply, "pending", consumer.pending.len() as u64);
        number(reply, "idle", now_ms.saturating_sub(consumer.seen_ms));
        reply.bulk(b"inactive");
        reply.integer(consumer.active_ms.map_or(-1, |millis| now_ms.saturating_sub(millis) as i64));
    }
    Ok(())
}
