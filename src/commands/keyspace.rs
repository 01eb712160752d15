//! Keys of any type: existence, expiry, names, scanning, and the databases they are in.

use super::arguments::{Options, database, integer, integer_in};
use super::deadline::TimeUnit;
use super::keys::{access::*, key_at, keys_in};
use super::scanning::{self, ScanOptions};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group, Scope, category, flag};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, ValueRef, View, frequency, idle_seconds};
use crate::types::glob;
use crate::types::listpack::Item;

const KEYSPACE: u32 = category::KEYSPACE;
const DANGEROUS: u32 = category::KEYSPACE | category::DANGEROUS;

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("del", Group::Generic, AtLeast(2), del)
        .shrink()
        .categories(KEYSPACE)
        .keys(&[keys_in(1, -1, 1, RM | DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("Removes keys.", "1.0.0", "O(N) in the number of keys", "key..."),
    CommandSpec::data("unlink", Group::Generic, AtLeast(2), unlink)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[keys_in(1, -1, 1, RM | DELETE)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("Removes keys; their memory is freed on another thread.", "4.0.0", "O(1) per key", "key..."),
    CommandSpec::data("exists", Group::Generic, AtLeast(2), exists)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[keys_in(1, -1, 1, RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("Counts how many of the keys exist.", "1.0.0", "O(N) in the number of keys", "key..."),
    CommandSpec::data("touch", Group::Generic, AtLeast(2), exists)
        .uncached()
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[keys_in(1, -1, 1, RO)])
        .tips(&["request_policy:multi_shard", "response_policy:agg_sum"])
        .doc("Notes that keys were used.", "3.2.1", "O(N) in the number of keys", "key..."),
    CommandSpec::data("type", Group::Generic, Exactly(2), type_)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RO)])
        .doc("Says what type a key holds.", "1.0.0", "O(1)", "key"),
    CommandSpec::data("expire", Group::Generic, AtLeast(3), expire)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | UPDATE)])
        .doc(
            "Sets a key's time to live in seconds.",
            "1.0.0",
            "O(1)",
            "key seconds:integer [condition<NX | XX | GT | LT>@7.0.0]",
        ),
    CommandSpec::data("pexpire", Group::Generic, AtLeast(3), pexpire)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | UPDATE)])
        .doc(
            "Sets a key's time to live in milliseconds.",
            "2.6.0",
            "O(1)",
            "key milliseconds:integer [condition<NX | XX | GT | LT>@7.0.0]",
        ),
    CommandSpec::data("expireat", Group::Generic, AtLeast(3), expireat)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | UPDATE)])
        .doc(
            "Sets the Unix time at which a key expires.",
            "1.2.0",
            "O(1)",
            "key unix-time-seconds:unix-time [condition<NX | XX | GT | LT>@7.0.0]",
        ),
    CommandSpec::data("pexpireat", Group::Generic, AtLeast(3), pexpireat)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | UPDATE)])
        .doc(
            "Sets the Unix time in milliseconds at which a key expires.",
            "2.6.0",
            "O(1)",
            "key unix-time-milliseconds:unix-time [condition<NX | XX | GT | LT>@7.0.0]",
        ),
    CommandSpec::data("ttl", Group::Generic, Exactly(2), ttl)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc("Returns a key's time to live in seconds.", "1.0.0", "O(1)", "key"),
    CommandSpec::data("pttl", Group::Generic, Exactly(2), pttl)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .tips(&["nondeterministic_output"])
        .doc("Returns a key's time to live in milliseconds.", "2.6.0", "O(1)", "key"),
    CommandSpec::data("expiretime", Group::Generic, Exactly(2), expiretime)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .doc("Returns the Unix time at which a key expires.", "7.0.0", "O(1)", "key"),
    CommandSpec::data("pexpiretime", Group::Generic, Exactly(2), pexpiretime)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS)])
        .doc("Returns the Unix time in milliseconds at which a key expires.", "7.0.0", "O(1)", "key"),
    CommandSpec::data("persist", Group::Generic, Exactly(2), persist)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | UPDATE)])
        .doc("Takes a key's expiry away.", "2.2.0", "O(1)", "key"),
    CommandSpec::data("rename", Group::Generic, Exactly(3), rename)
        .shrink()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, OW | UPDATE)])
        .doc("Gives a key another name.", "1.0.0", "O(1)", "key newkey:key"),
    CommandSpec::data("renamenx", Group::Generic, Exactly(3), renamenx)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, OW | INSERT)])
        .doc("Gives a key another name, if nothing has it.", "1.0.0", "O(1)", "key newkey:key"),
    CommandSpec::data("copy", Group::Generic, AtLeast(3), copy)
        .write()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RO | ACCESS), key_at(2, OW | UPDATE)])
        .doc(
            "Copies a key.",
            "6.2.0",
            "O(N) in the size of the value",
            "source:key destination:key [DB destination-db:integer] [REPLACE]",
        ),
    CommandSpec::data("move", Group::Generic, Exactly(3), move_)
        .shrink()
        .fast()
        .categories(KEYSPACE)
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Moves a key to another database.", "1.0.0", "O(1)", "key db:integer"),
    CommandSpec::data("randomkey", Group::Generic, Exactly(1), randomkey)
        .readonly()
        .categories(KEYSPACE)
        .scope(Scope::Each)
        .tips(&["request_policy:all_shards", "response_policy:special", "nondeterministic_output"])
        .doc("Returns any key.", "1.0.0", "O(1)", ""),
    CommandSpec::data("keys", Group::Generic, Exactly(2), keys)
        .readonly()
        .with(flag::OFFLOAD)
        .categories(DANGEROUS)
        .scope(Scope::Each)
        .tips(&["request_policy:all_shards", "nondeterministic_output_order"])
        .doc(
            "Returns the keys that match a pattern.",
            "1.0.0",
            "O(N) in the number of keys",
            "pattern:pattern",
        ),
    CommandSpec::data("scan", Group::Generic, AtLeast(2), scan)
        .readonly()
        .categories(KEYSPACE)
        .scope(Scope::Each)
        .tips(&["nondeterministic_output", "request_policy:special", "response_policy:special"])
        .doc(
            "Walks over the keys, a few at a time.",
            "2.8.0",
            "O(1) per call",
            "cursor:integer [MATCH pattern:pattern] [COUNT count:integer] [TYPE type@6.0.0]",
        ),
    CommandSpec::data("dbsize", Group::Server, Exactly(1), dbsize)
        .readonly()
        .fast()
        .categories(KEYSPACE)
        .scope(Scope::Each)
        .tips(&["request_policy:all_shards", "response_policy:agg_sum"])
        .doc("Counts the keys.", "1.0.0", "O(1)", ""),
    CommandSpec::data("flushdb", Group::Server, AtLeast(1), flushdb)
        .shrink()
        .with(flag::OFFLOAD)
        .categories(DANGEROUS)
        .scope(Scope::All)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc(
            "Removes all keys of the database.",
            "1.0.0",
            "O(N) in the number of keys",
            "[flush-type<ASYNC@4.0.0 | SYNC@6.2.0>]",
        ),
    CommandSpec::data("flushall", Group::Server, AtLeast(1), flushall)
        .shrink()
        .with(flag::OFFLOAD)
        .categories(DANGEROUS)
        .scope(Scope::All)
        .tips(&["request_policy:all_shards", "response_policy:all_succeeded"])
        .doc(
            "Removes all keys of all databases.",
            "1.0.0",
            "O(N) in the number of keys",
            "[flush-type<ASYNC@4.0.0 | SYNC@6.2.0>]",
        ),
    CommandSpec::data("swapdb", Group::Server, Exactly(3), swapdb)
        .shrink()
        .fast()
        .categories(DANGEROUS)
        .scope(Scope::All)
        .doc(
            "Exchanges two databases.",
            "4.0.0",
            "O(N) in the number of watched keys",
            "index1:integer index2:integer",
        ),
    CommandSpec::container("object", Group::Generic, OBJECT).doc(
        "Commands on how values are kept.",
        "2.2.3",
        "Depends on subcommand.",
        "",
    ),
];

const OBJECT: &[CommandSpec] = &[
    CommandSpec::data("encoding", Group::Generic, Exactly(3), object_encoding)
        .readonly()
        .categories(KEYSPACE)
        .keys(&[key_at(2, RO)])
        .tips(&["nondeterministic_output"])
        .doc("Names the encoding of a key's value.", "2.2.3", "O(1)", "key"),
    CommandSpec::data("freq", Group::Generic, Exactly(3), object_freq)
        .readonly()
        .categories(KEYSPACE)
        .keys(&[key_at(2, RO)])
        .tips(&["nondeterministic_output"])
        .doc("Returns how often a key was used, on a logarithmic scale.", "4.0.0", "O(1)", "key"),
    CommandSpec::data("idletime", Group::Generic, Exactly(3), object_idletime)
        .readonly()
        .categories(KEYSPACE)
        .keys(&[key_at(2, RO)])
        .tips(&["nondeterministic_output"])
        .doc("Returns for how many seconds a key was not used.", "2.2.3", "O(1)", "key"),
    CommandSpec::data("refcount", Group::Generic, Exactly(3), object_refcount)
        .readonly()
        .categories(KEYSPACE)
        .keys(&[key_at(2, RO)])
        .tips(&["nondeterministic_output"])
        .doc("Returns the number of references to a key's value.", "2.2.3", "O(1)", "key"),
    CommandSpec::data("help", Group::Generic, Exactly(2), object_help)
        .with(flag::LOADING | flag::STALE)
        .scope(Scope::Each)
        .categories(KEYSPACE)
        .doc("Lists the subcommands.", "6.2.0", "O(1)", ""),
];

fn del(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let removed = args.skip(1).iter().filter(|key| view.delete(key, Event::DEL)).count();
    reply.count(removed);
    Ok(())
}

fn unlink(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let removed = args.skip(1).iter().filter(|key| view.unlink(key)).count();
    reply.count(removed);
    Ok(())
}

fn exists(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let found = args.skip(1).iter().filter(|key| view.touch(key)).count();
    reply.count(found);
    Ok(())
}

fn type_(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.simple(view.peek(args.at(1)).map_or("none", |value| value.type_name()));
    Ok(())
}

fn expire(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire_in(view, args, reply, TimeUnit::Seconds, "expire")
}

fn pexpire(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire_in(view, args, reply, TimeUnit::Millis, "pexpire")
}

fn expireat(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire_in(view, args, reply, TimeUnit::UnixSeconds, "expireat")
}

fn pexpireat(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire_in(view, args, reply, TimeUnit::UnixMillis, "pexpireat")
}

/// When `EXPIRE` may change a deadline.
#[derive(Default)]
struct ExpireConditions {
    if_none: bool,
    if_some: bool,
    if_later: bool,
    if_earlier: bool,
}

impl ExpireConditions {
    fn parse(args: Args<'_>) -> Result<Self, ReplyError> {
        let mut conditions = Self::default();
        for option in args.skip(3).iter() {
            match option.to_ascii_lowercase().as_slice() {
                b"nx" => conditions.if_none = true,
                b"xx" => conditions.if_some = true,
                b"gt" => conditions.if_later = true,
                b"lt" => conditions.if_earlier = true,
                _ => {
                    return Err(ReplyError::showing("ERR Unsupported option ", option, ""));
                }
            }
        }
        if conditions.if_none && (conditions.if_some || conditions.if_later || conditions.if_earlier) {
            return Err(ReplyError::fixed(
                "ERR NX and XX, GT or LT options at the same time are not compatible",
            ));
        }
        if conditions.if_later && conditions.if_earlier {
            return Err(ReplyError::fixed("ERR GT and LT options at the same time are not compatible"));
        }
        Ok(conditions)
    }

    /// No deadline counts as infinitely late.
    fn allow(&self, current: Option<u64>, new: i64) -> bool {
        let is_later = current.is_some_and(|current| new > current as i64);
        let is_earlier = current.is_none_or(|current| new < current as i64);
        !(self.if_none && current.is_some()
            || self.if_some && current.is_none()
            || self.if_later && !is_later
            || self.if_earlier && !is_earlier)
    }
}

fn expire_in(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    unit: TimeUnit,
    name: &str,
) -> CommandResult {
    let key = args.at(1);
    let conditions = ExpireConditions::parse(args)?;
    let now_ms = view.now_ms();
    let deadline = unit.deadline(args.at(2), now_ms, name)?;
    let Some(info) = view.info(key) else {
        reply.integer(0);
        return Ok(());
    };
    if !conditions.allow(info.deadline, deadline) {
        reply.integer(0);
        return Ok(());
    }
    if deadline <= now_ms as i64 {
        view.delete(key, Event::DEL);
    } else {
        view.set_deadline(key, Some(deadline as u64), Event::generic("expire"));
    }
    reply.integer(1);
    Ok(())
}

/// -2 without the key, -1 without a deadline, else what `shown` makes of it.
fn write_deadline(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    shown: impl FnOnce(i64, i64) -> i64,
) -> CommandResult {
    let now_ms = view.now_ms() as i64;
    reply.integer(match view.info(args.at(1)) {
        None => -2,
        Some(info) => info.deadline.map_or(-1, |deadline| shown(deadline as i64, now_ms)),
    });
    Ok(())
}

fn ttl(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadline(view, args, reply, |deadline, now| ((deadline - now).max(0) + 500) / 1000)
}

fn pttl(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadline(view, args, reply, |deadline, now| (deadline - now).max(0))
}

fn expiretime(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadline(view, args, reply, |deadline, _| (deadline + 500) / 1000)
}

fn pexpiretime(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadline(view, args, reply, |deadline, _| deadline)
}

fn persist(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = args.at(1);
    let has_deadline = view.info(key).is_some_and(|info| info.deadline.is_some());
    if has_deadline {
        view.set_deadline(key, None, Event::generic("persist"));
    }
    reply.integer(has_deadline.into());
    Ok(())
}

fn rename(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, name) = (args.at(1), args.at(2));
    if !view.contains(key) {
        return Err(ReplyError::NO_SUCH_KEY);
    }
    if key != name {
        give_name(view, key, name);
    }
    reply.ok();
    Ok(())
}

fn renamenx(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, name) = (args.at(1), args.at(2));
    if !view.contains(key) {
        return Err(ReplyError::NO_SUCH_KEY);
    }
    let free = !view.contains(name);
    if free {
        give_name(view, key, name);
    }
    reply.integer(free.into());
    Ok(())
}

fn give_name(view: &mut View<'_>, key: &[u8], name: &[u8]) {
    if let Some(entry) = view.take(key, Event::generic("rename_from")) {
        view.put_entry(entry.renamed(name), Event::generic("rename_to"));
    }
}

fn copy(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (source, destination) = (args.at(1), args.at(2));
    let from = view.db();
    let (mut to, mut replaces) = (from, false);
    let mut options = Options::new(args, 3);
    while !options.is_done() {
        if options.take("replace") {
            replaces = true;
        } else if options.take_with("db", 1) {
            let argument = options.value()?;
            integer(argument)?;
            to = database(argument, view.databases())?;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    if from == to && source == destination {
        return Err(ReplyError::fixed("ERR source and destination objects are the same"));
    }
    let Some(entry) = view.copy_of(source, destination) else {
        reply.integer(0);
        return Ok(());
    };
    view.select(to);
    let allowed = replaces || !view.contains(destination);
    if allowed {
        view.put_entry(entry, Event::generic("copy_to"));
    }
    view.select(from);
    reply.integer(allowed.into());
    Ok(())
}

fn move_(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = args.at(1);
    integer(args.at(2)).map_err(|_| ReplyError::NOT_INTEGER)?;
    let (from, to) = (view.db(), database(args.at(2), view.databases())?);
    if from == to {
        return Err(ReplyError::fixed("ERR source and destination objects are the same"));
    }
    view.select(to);
    let free = !view.contains(key);
    view.select(from);
    let entry = if free { view.take(key, Event::generic("move_from")) } else { None };
    let moved = entry.is_some();
    if let Some(entry) = entry {
        view.select(to);
        view.put_entry(entry, Event::generic("move_to"));
        view.select(from);
    }
    reply.integer(moved.into());
    Ok(())
}

fn randomkey(view: &mut View<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.bulk_or_null(view.random_key().as_deref());
    Ok(())
}

fn keys(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let pattern = args.at(1);
    let (list, mut count) = (reply.deferred(), 0);
    view.each_key(|key, _| {
        if pattern == b"*" || glob::matches(pattern, key) {
            reply.bulk(key);
            count += 1;
        }
    });
    reply.end_array(list, count);
    Ok(())
}

fn scan(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = scanning::cursor(args.at(1))?;
    let options = ScanOptions::parse(args, 2, true)?;
    let mut found: Vec<Box<[u8]>> = Vec::new();
    let next = view.scan(cursor, options.count, |key, value| {
        if options.wants(key) && options.wants_type(value.type_name()) {
            found.push(key.into());
        }
    });
    scanning::write_header(reply, next, found.len());
    found.iter().for_each(|key| reply.bulk(key));
    Ok(())
}

fn dbsize(view: &mut View<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(view.key_count());
    Ok(())
}

/// Whether a flush frees memory on another thread.
fn flushes_lazily(view: &View<'_>, args: Args<'_>) -> Result<bool, ReplyError> {
    match args.len() {
        1 => Ok(view.settings().int(Id::LazyfreeLazyUserFlush) == 1),
        2 if args.is(1, "sync") => Ok(false),
        2 if args.is(1, "async") => Ok(true),
        _ => Err(ReplyError::SYNTAX),
    }
}

fn flushdb(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let lazily = flushes_lazily(view, args)?;
    view.flush(view.db()..view.db() + 1, lazily);
    reply.ok();
    Ok(())
}

fn flushall(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let lazily = flushes_lazily(view, args)?;
    view.flush(0..view.databases(), lazily);
    reply.ok();
    Ok(())
}

fn swapdb(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let databases = view.databases();
    let int = i64::from(i32::MIN)..=i64::from(i32::MAX);
    integer_in(args.at(1), int.clone(), "ERR invalid first DB index")?;
    integer_in(args.at(2), int, "ERR invalid second DB index")?;
    let (first, second) = (database(args.at(1), databases)?, database(args.at(2), databases)?);
    if first != second {
        view.swap_databases(first, second);
    }
    reply.ok();
    Ok(())
}

fn object_encoding(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let edited = view.info(args.at(2)).is_some_and(|info| info.edited);
    let Some(value) = view.peek(args.at(2)) else {
        reply.null();
        return Ok(());
    };
    reply.bulk(encoding(value, edited).as_bytes());
    Ok(())
}

/// The name of a value's encoding.
pub fn encoding(value: ValueRef<'_>, edited: bool) -> &'static str {
    match value {
        ValueRef::String(Item::Int(_)) => "int",
        ValueRef::String(Item::Bytes(bytes)) if bytes.len() <= 44 && !edited => "embstr",
        ValueRef::String(Item::Bytes(_)) => "raw",
        ValueRef::List(list) => list.encoding(),
        ValueRef::Hash(hash) => hash.encoding(),
        ValueRef::Set(set) => set.encoding(),
        ValueRef::SortedSet(set) => set.encoding(),
        ValueRef::Stream(_) => "stream",
    }
}

fn object_freq(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (settings, now_ms) = (view.settings(), view.now_ms());
    let Some(info) = view.info(args.at(2)) else {
        reply.null();
        return Ok(());
    };
    if !settings.maxmemory_policy().is_lfu() {
        return Err(ReplyError::fixed(
            "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    reply.integer(frequency(info.access, settings, now_ms).into());
    Ok(())
}

fn object_idletime(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let now_ms = view.now_ms();
    let is_lfu = view.settings().maxmemory_policy().is_lfu();
    let Some(info) = view.info(args.at(2)) else {
        reply.null();
        return Ok(());
    };
    if is_lfu {
        return Err(ReplyError::fixed(
            "ERR An LFU maxmemory policy is selected, idle time not tracked. Please note that when switching between policies at runtime LRU and LFU data will take some time to adjust.",
        ));
    }
    reply.integer(idle_seconds(info.access, now_ms) as i64);
    Ok(())
}

fn object_refcount(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    match view.peek(args.at(2)) {
        None => reply.null(),
        // Redis shares the objects of small integers and counts no references to them.
        Some(ValueRef::String(Item::Int(0..10_000))) => reply.integer(i32::MAX.into()),
        Some(_) => reply.integer(1),
    }
    Ok(())
}

fn object_help(_: &mut View<'_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    super::write_help(
        reply,
        "OBJECT",
        &[
            "ENCODING <key>",
            "    Return the name of the representation in which the value at <key> is kept.",
            "FREQ <key>",
            "    Return how often <key> was used lately, as the logarithmic counter of LFU.",
            "IDLETIME <key>",
            "    Return for how many seconds <key> was not used.",
            "REFCOUNT <key>",
            "    Return the number of references to the value at <key>.",
        ],
    );
    Ok(())
}
