//! Streams: adding, reading and trimming entries. Groups of consumers are beside it.

mod groups;
mod info;
mod pending;
mod read;

use smallvec::SmallVec;

use super::arguments::{Options, integer, integer_in};
use super::keys::{Begin, Find, KeySpec, access::*, key_at};
use super::routing::Rewriting;
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group, flag};
use super::strings::write_item;
use crate::config::{Id, Settings};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::stream::{AddError, Entry, Keep, Limits, NewId, Stream, StreamId, Trim};

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const CHANGE: &[KeySpec] = &[key_at(1, RW | UPDATE)];
const SHRINK: &[KeySpec] = &[key_at(1, RW | DELETE)];

/// Keys behind the word, as many as ids behind them.
const fn keys_of_streams(from: i32) -> KeySpec {
    KeySpec {
        begin: Begin::Keyword("STREAMS", from),
        find: Find::Range { last: -1, step: 1, limit: 2 },
        flags: RO | ACCESS,
    }
}

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("xadd", Group::Stream, AtLeast(5), xadd)
        .write()
        .fast()
        .keys(CHANGE)
        .tips(&["nondeterministic_output"])
        .doc(
            "Adds an entry.",
            "5.0.0",
            "O(1), and O(N) in the entries that are trimmed",
            "key [NOMKSTREAM@6.2.0] [trim(strategy<MAXLEN | MINID@6.2.0> [operator<==equal | ~=approximately>] threshold [LIMIT count:integer@6.2.0])] id-selector<*=auto-id | id> data(field value)...",
        ),
    CommandSpec::data("xlen", Group::Stream, Exactly(2), xlen).readonly().fast().keys(&[key_at(1, RO)]).doc(
        "Counts the entries.",
        "5.0.0",
        "O(1)",
        "key",
    ),
    CommandSpec::data("xrange", Group::Stream, AtLeast(4), xrange)
        .rewriting(Rewriting::NullArrayAbove(0))
        .readonly()
        .keys(READ)
        .doc(
            "Returns the entries between two ids.",
            "5.0.0",
            "O(N) in the entries returned",
            "key start end [COUNT count:integer]",
        ),
    CommandSpec::data("xrevrange", Group::Stream, AtLeast(4), xrevrange)
        .rewriting(Rewriting::NullArrayAbove(0))
        .readonly()
        .keys(READ)
        .doc(
            "Returns the entries between two ids, the last first.",
            "5.0.0",
            "O(N) in the entries returned",
            "key end start [COUNT count:integer]",
        ),
    CommandSpec::data("xdel", Group::Stream, AtLeast(3), xdel).shrink().fast().keys(SHRINK).doc(
        "Deletes entries.",
        "5.0.0",
        "O(1) for each entry",
        "key id...",
    ),
    CommandSpec::data("xtrim", Group::Stream, AtLeast(4), xtrim)
        .shrink()
        .keys(SHRINK)
        .tips(&["nondeterministic_output"])
        .doc(
            "Removes entries from the beginning.",
            "5.0.0",
            "O(N) in the entries removed",
            "key trim(strategy<MAXLEN | MINID@6.2.0> [operator<==equal | ~=approximately>] threshold [LIMIT count:integer@6.2.0])",
        ),
    CommandSpec::data("xsetid", Group::Stream, AtLeast(3), xsetid).write().fast().keys(CHANGE).doc(
        "Sets the last id.",
        "5.0.0",
        "O(1)",
        "key last-id [ENTRIESADDED entries-added:integer@7.0.0] [MAXDELETEDID max-deleted-id@7.0.0]",
    ),
    CommandSpec::waiting("xread", Group::Stream, AtLeast(4), read::xread)
        .readonly()
        .with(flag::MOVABLEKEYS)
        .keys(&[keys_of_streams(1)])
        .waits_with(read::settled)
        .doc(
            "Returns the entries behind given ids, and may wait for some.",
            "5.0.0",
            "O(N) in the entries returned",
            "[COUNT count:integer] [BLOCK milliseconds:integer] STREAMS streams(key... id...)",
        ),
    CommandSpec::waiting("xreadgroup", Group::Stream, AtLeast(7), read::xreadgroup)
        .shrink()
        .with(flag::MOVABLEKEYS)
        .keys(&[keys_of_streams(4)])
        .doc(
            "Gives entries to a consumer of a group, and may wait for some.",
            "5.0.0",
            "O(N log P): the entries returned, those pending",
            "GROUP group-block(group consumer) [COUNT count:integer] [BLOCK milliseconds:integer] [NOACK] STREAMS streams(key... id...)",
        ),
    CommandSpec::container("xgroup", Group::Stream, groups::XGROUP).doc(
        "Commands on groups of consumers.",
        "5.0.0",
        "Depends on subcommand.",
        "",
    ),
    CommandSpec::data("xack", Group::Stream, AtLeast(4), groups::xack).shrink().fast().keys(CHANGE).doc(
        "Notes that a consumer is done with entries.",
        "5.0.0",
        "O(log P) in the pending entries, for each",
        "key group id...",
    ),
    CommandSpec::data("xpending", Group::Stream, AtLeast(3), pending::xpending)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc(
            "Returns what consumers were given and are not done with.",
            "5.0.0",
            "O(N) in the entries returned, or in the consumers",
            "key group [filters([IDLE min-idle-time:integer@6.2.0] start end count:integer [consumer])]",
        ),
    CommandSpec::data("xclaim", Group::Stream, AtLeast(6), pending::xclaim)
        .shrink()
        .fast()
        .keys(CHANGE)
        .tips(&["nondeterministic_output"])
        .doc(
            "Gives pending entries to another consumer.",
            "5.0.0",
            "O(log P) in the pending entries, for each",
            "key group consumer min-idle-time id... [IDLE ms:integer] [TIME unix-time-milliseconds:unix-time] [RETRYCOUNT count:integer] [FORCE] [JUSTID] [LASTID lastid]",
        ),
    CommandSpec::data("xautoclaim", Group::Stream, AtLeast(6), pending::xautoclaim)
        .shrink()
        .fast()
        .keys(SHRINK)
        .tips(&["nondeterministic_output"])
        .doc(
            "Gives entries that have been pending for long to another consumer.",
            "6.2.0",
            "O(N) in the pending entries looked at",
            "key group consumer min-idle-time start [COUNT count:integer] [JUSTID]",
        ),
    CommandSpec::container("xinfo", Group::Stream, info::XINFO).doc(
        "Commands that tell of streams.",
        "5.0.0",
        "Depends on subcommand.",
        "",
    ),
];

const INVALID_ID: ReplyError =
    ReplyError::fixed("ERR Invalid stream ID specified as stream command argument");

/// An id; without the number behind the dash it is `seq`.
fn id(text: &[u8], seq: u64) -> Result<StreamId, ReplyError> {
    StreamId::parse(text, seq).ok_or(INVALID_ID)
}

/// The first id of a range.
fn start(text: &[u8]) -> Result<StreamId, ReplyError> {
    match text.strip_prefix(b"(") {
        Some(text) => id(text, 0)?.next().ok_or(ReplyError::fixed("ERR invalid start ID for the interval")),
        None => StreamId::parse_bound(text, 0).ok_or(INVALID_ID),
    }
}

/// The last id of a range.
fn end(text: &[u8]) -> Result<StreamId, ReplyError> {
    match text.strip_prefix(b"(") {
        Some(text) => {
            id(text, u64::MAX)?.previous().ok_or(ReplyError::fixed("ERR invalid end ID for the interval"))
        }
        None => StreamId::parse_bound(text, u64::MAX).ok_or(INVALID_ID),
    }
}

fn write_id(reply: &mut Reply<'_>, id: StreamId) {
    let mut text = SmallVec::<[u8; 41]>::from_slice(itoa::Buffer::new().format(id.ms).as_bytes());
    text.push(b'-');
    text.extend_from_slice(itoa::Buffer::new().format(id.seq).as_bytes());
    reply.bulk(&text);
}

fn write_entry(reply: &mut Reply<'_>, entry: &Entry<'_>) {
    reply.array(2);
    write_id(reply, entry.id);
    reply.array(entry.len() * 2);
    for (field, value) in entry.fields() {
        write_item(reply, field);
        write_item(reply, value);
    }
}

/// Writes entries, as many as `count` at most; 0 for all.
fn write_entries<'a>(reply: &mut Reply<'_>, entries: impl Iterator<Item = Entry<'a>>, count: usize) {
    let array = reply.deferred();
    let mut written = 0;
    for entry in entries {
        write_entry(reply, &entry);
        written += 1;
        if written == count {
            break;
        }
    }
    reply.end_array(array, written);
}

fn limits(settings: &Settings) -> Limits {
    Limits {
        bytes: settings.int(Id::StreamNodeMaxBytes) as usize,
        entries: settings.int(Id::StreamNodeMaxEntries) as u64,
    }
}

/// How `XADD` and `XTRIM` are to trim, and what `XADD` says before its fields.
#[derive(Default)]
struct Adding {
    keep: Option<Keep>,
    is_approximate: bool,
    limit: Option<u64>,
    must_exist: bool,
    id: Option<NewId>,
    /// The first argument that is no option.
    next: usize,
}

impl Adding {
    /// Reads the options; `now_ms` if an id is to follow them.
    fn parse(args: Args<'_>, now_ms: Option<u64>) -> Result<Self, ReplyError> {
        const BOTH: ReplyError = ReplyError::fixed(
            "ERR syntax error, MAXLEN and MINID options at the same time are not compatible",
        );
        let mut adding = Self::default();
        let mut options = Options::new(args, 2);
        while !options.is_done() {
            if let Some(now_ms) = now_ms
                && options.take("*")
            {
                adding.id = Some(NewId::Auto(now_ms));
                break;
            } else if options.take_with("maxlen", 1) {
                let threshold = adding.threshold(&mut options)?;
                if adding.keep.is_some() {
                    return Err(BOTH);
                }
                let len = integer(threshold)?;
                let len = u64::try_from(len)
                    .map_err(|_| ReplyError::fixed("ERR The MAXLEN argument must be >= 0."))?;
                adding.keep = Some(Keep::Last(len));
            } else if options.take_with("minid", 1) {
                let threshold = adding.threshold(&mut options)?;
                if adding.keep.is_some() {
                    return Err(BOTH);
                }
                adding.keep = Some(Keep::From(id(threshold, 0)?));
            } else if options.take_with("limit", 1) {
                let limit = integer(options.value()?)?;
                let limit = u64::try_from(limit)
                    .map_err(|_| ReplyError::fixed("ERR The LIMIT argument must be >= 0."))?;
                adding.limit = Some(limit);
            } else if now_ms.is_some() && options.take("nomkstream") {
                adding.must_exist = true;
            } else if now_ms.is_some() {
                let text = options.value()?;
                adding.id = Some(match StreamId::parse_open(text) {
                    Some(ms) => NewId::Open(ms),
                    None => NewId::Exactly(id(text, 0)?),
                });
                break;
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        adding.next = args.len() - options.remaining();
        adding.check(now_ms.is_some())?;
        Ok(adding)
    }

    /// The threshold behind `=` or `~`.
    fn threshold<'a>(&mut self, options: &mut Options<'a>) -> Result<&'a [u8], ReplyError> {
        self.is_approximate = options.take_with("~", 1);
        if !self.is_approximate {
            options.take_with("=", 1);
        }
        options.value()
    }

    fn check(&self, adds: bool) -> Result<(), ReplyError> {
        let error = match (self.keep, self.limit) {
            (None, Some(1..)) => {
                "ERR syntax error, LIMIT cannot be used without specifying a trimming strategy"
            }
            (None, _) if !adds => "ERR syntax error, XTRIM must be called with either MAXLEN or MINID",
            (_, Some(_)) if !self.is_approximate => {
                "ERR syntax error, LIMIT cannot be used without the special ~ option"
            }
            _ => return Ok(()),
        };
        Err(ReplyError::fixed(error))
    }

    /// The trim, if there is to be one.
    fn trim(&self, settings: &Settings) -> Option<Trim> {
        let keep = self.keep?;
        let limit = match (self.limit, self.is_approximate) {
            (Some(limit), _) => limit,
            (None, false) => 0,
            // As much as a hundred nodes, within bounds.
            (None, true) => match limits(settings).entries.saturating_mul(100) {
                0 => 10_000,
                limit => limit.min(1_000_000),
            },
        };
        Some(Trim { keep, is_approximate: self.is_approximate, limit })
    }
}

fn xadd(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let adding = Adding::parse(args, Some(view.now_ms()))?;
    let fields = args.skip(adding.next);
    let Some(new_id) = adding.id.filter(|_| fields.len() >= 2 && fields.len().is_multiple_of(2)) else {
        return Err(ReplyError::wrong_arity("xadd"));
    };
    if new_id == NewId::Exactly(StreamId::MIN) {
        return Err(ReplyError::fixed("ERR The ID specified in XADD must be greater than 0-0"));
    }
    let key = args.at(1);
    if adding.must_exist && !view.contains(key) {
        reply.null();
        return Ok(());
    }
    let (limits, trim) = (limits(view.settings()), adding.trim(view.settings()));
    let pairs: SmallVec<[(&[u8], &[u8]); 8]> =
        (0..fields.len() / 2).map(|pair| (fields.at(2 * pair), fields.at(2 * pair + 1))).collect();
    let added = view.upsert(key, Event::stream("xadd"), |stream: &mut Box<Stream>| {
        let added = stream.add(new_id, &pairs, limits);
        let trimmed = trim.filter(|_| added.is_ok()).map_or(0, |trim| stream.trim(&trim));
        (added.map(|id| (id, trimmed)), added.is_ok())
    })?;
    let (id, trimmed) = added.map_err(|error| match error {
        AddError::Exhausted => {
            ReplyError::fixed("ERR The stream has exhausted the last possible ID, unable to add more items")
        }
        AddError::NotGreater => ReplyError::fixed(
            "ERR The ID specified in XADD is equal or smaller than the target stream top item",
        ),
        AddError::TooLarge => ReplyError::fixed("ERR Elements are too large to be stored"),
    })?;
    if trimmed > 0 {
        view.announce(key, Event::stream("xtrim"));
    }
    write_id(reply, id);
    Ok(())
}

fn xlen(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let stream = view.get::<Box<Stream>>(args.at(1))?;
    reply.integer(stream.map_or(0, |stream| stream.len() as i64));
    Ok(())
}

fn xrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    range(view, args, reply, false)
}

fn xrevrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    range(view, args, reply, true)
}

fn range(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>, backwards: bool) -> CommandResult {
    let (first, last) = if backwards { (3, 2) } else { (2, 3) };
    let (from, to) = (start(args.at(first))?, end(args.at(last))?);
    let mut options = Options::new(args, 4);
    let mut count = None;
    while !options.is_done() {
        if !options.take_with("count", 1) {
            return Err(ReplyError::SYNTAX);
        }
        count = Some(integer(options.value()?)?.max(0) as usize);
    }
    let Some(stream) = view.get::<Box<Stream>>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    match (count, backwards) {
        (Some(0), _) => reply.null_array(),
        (_, false) => write_entries(reply, stream.range(from, to), count.unwrap_or(0)),
        (_, true) => write_entries(reply, stream.range_back(from, to), count.unwrap_or(0)),
    }
    Ok(())
}

fn xdel(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = args.at(1);
    if view.peek_as::<Box<Stream>>(key)?.is_none() {
        reply.integer(0);
        return Ok(());
    }
    let ids: Vec<StreamId> = args.skip(2).iter().map(|text| id(text, 0)).collect::<Result<_, _>>()?;
    let deleted = view.edit(key, Event::stream("xdel"), |stream: &mut Box<Stream>| {
        let deleted = stream.delete(&ids);
        (deleted, deleted > 0)
    })?;
    reply.integer(deleted.unwrap_or(0) as i64);
    Ok(())
}

fn xtrim(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let adding = Adding::parse(args, None)?;
    let Some(trim) = adding.trim(view.settings()) else { return Err(ReplyError::SYNTAX) };
    let trimmed = view.edit(args.at(1), Event::stream("xtrim"), |stream: &mut Box<Stream>| {
        let trimmed = stream.trim(&trim);
        (trimmed, trimmed > 0)
    })?;
    reply.integer(trimmed.unwrap_or(0) as i64);
    Ok(())
}

fn xsetid(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let last_id = id(args.at(2), 0)?;
    let mut options = Options::new(args, 3);
    let (mut added, mut max_deleted) = (None, None);
    while !options.is_done() {
        if options.take_with("entriesadded", 1) {
            let error = "ERR entries_added must be positive";
            let text = options.value()?;
            integer(text)?;
            added = Some(integer_in(text, 0..=i64::MAX, error)? as u64);
        } else if options.take_with("maxdeletedid", 1) {
            let deleted = id(options.value()?, 0)?;
            if last_id < deleted {
                return Err(ReplyError::fixed(
                    "ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id",
                ));
            }
            max_deleted = Some(deleted);
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    let done = view.edit(args.at(1), Event::stream("xsetid"), |stream: &mut Box<Stream>| {
        let error = if last_id < stream.max_deleted_id {
            "ERR The ID specified in XSETID is smaller than current max_deleted_entry_id"
        } else if stream.last_entry_id().is_some_and(|top| last_id < top) {
            "ERR The ID specified in XSETID is smaller than the target stream top item"
        } else if added.is_some_and(|added| !stream.is_empty() && added < stream.len()) {
            "ERR The entries_added specified in XSETID is smaller than the target stream length"
        } else {
            stream.last_id = last_id;
            stream.entries_added = added.unwrap_or(stream.entries_added);
            if let Some(deleted) = max_deleted.filter(|deleted| *deleted != StreamId::MIN) {
                stream.max_deleted_id = deleted;
            }
            return (Ok(()), true);
        };
        (Err(ReplyError::fixed(error)), false)
    })?;
    done.ok_or(ReplyError::NO_SUCH_KEY)??;
    reply.ok();
    Ok(())
}
