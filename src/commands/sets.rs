//! Sets.

use super::arguments::{Options, integer_in, random_count};
use super::keys::{KeySpec, access::*, counted_keys, key_at, keys_in};
use super::scanning::{self, ScanOptions};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group, flag};
use super::strings::write_item;
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, ValueRef, View};
use crate::types::listpack::{Item, NumBuf};
use crate::types::set::{Limits, Set, algebra};

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const READ_ALL: &[KeySpec] = &[keys_in(1, -1, 1, RO | ACCESS)];
const STORE: &[KeySpec] = &[key_at(1, OW | UPDATE), keys_in(2, -1, 1, RO | ACCESS)];

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("sadd", Group::Set, AtLeast(3), sadd)
        .write()
        .fast()
        .keys(&[key_at(1, RW | INSERT)])
        .member(2)
        .doc("Adds members.", "1.0.0", "O(1) per member", "key member..."),
    CommandSpec::data("srem", Group::Set, AtLeast(3), srem)
        .shrink()
        .fast()
        .keys(&[key_at(1, RW | DELETE)])
        .member(2)
        .doc("Removes members.", "1.0.0", "O(1) per member", "key member..."),
    CommandSpec::data("smove", Group::Set, Exactly(4), smove)
        .shrink()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)])
        .doc("Moves a member to another set.", "1.0.0", "O(1)", "source:key destination:key member"),
    CommandSpec::data("sismember", Group::Set, Exactly(3), sismember)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO)])
        .member(2)
        .doc("Says whether something is a member.", "1.0.0", "O(1)", "key member"),
    CommandSpec::data("smismember", Group::Set, AtLeast(3), smismember)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO | ACCESS)])
        .member(2)
        .doc("Says of several things whether they are members.", "6.2.0", "O(1) per member", "key member..."),
    CommandSpec::data("scard", Group::Set, Exactly(2), scard).readonly().fast().keys(&[key_at(1, RO)]).doc(
        "Counts the members.",
        "1.0.0",
        "O(1)",
        "key",
    ),
    CommandSpec::data("smembers", Group::Set, Exactly(2), smembers)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output_order"])
        .doc("Returns all members.", "1.0.0", "O(N) in the size of the set", "key"),
    CommandSpec::data("spop", Group::Set, AtLeast(2), spop)
        .shrink()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | DELETE)])
        .tips(&["nondeterministic_output"])
        .doc("Takes members at random.", "1.0.0", "O(N) in the members taken", "key [count:integer@3.2.0]"),
    CommandSpec::data("srandmember", Group::Set, AtLeast(2), srandmember)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc(
            "Returns members at random.",
            "1.0.0",
            "O(N) in the members returned",
            "key [count:integer@2.6.0]",
        ),
    CommandSpec::data("sinter", Group::Set, AtLeast(2), sinter)
        .readonly()
        .keys(READ_ALL)
        .tips(&["nondeterministic_output_order"])
        .doc(
            "Returns the members that all sets have.",
            "1.0.0",
            "O(N*M): the smallest set and the number of sets",
            "key...",
        ),
    CommandSpec::data("sinterstore", Group::Set, AtLeast(3), sinterstore)
        .write()
        .keys(&[key_at(1, RW | UPDATE), keys_in(2, -1, 1, RO | ACCESS)])
        .doc(
            "Stores the members that all sets have.",
            "1.0.0",
            "O(N*M): the smallest set and the number of sets",
            "destination:key key...",
        ),
    CommandSpec::data("sintercard", Group::Set, AtLeast(3), sintercard)
        .readonly()
        .keys(&[counted_keys(1, RO | ACCESS)])
        .with(flag::MOVABLEKEYS)
        .doc(
            "Counts the members that all sets have.",
            "7.0.0",
            "O(N*M): the smallest set and the number of sets",
            "numkeys:integer key... [LIMIT limit:integer]",
        ),
    CommandSpec::data("sunion", Group::Set, AtLeast(2), sunion)
        .readonly()
        .keys(READ_ALL)
        .tips(&["nondeterministic_output_order"])
        .doc("Returns the members that any set has.", "1.0.0", "O(N) in the size of all sets", "key..."),
    CommandSpec::data("sunionstore", Group::Set, AtLeast(3), sunionstore).write().keys(STORE).doc(
        "Stores the members that any set has.",
        "1.0.0",
        "O(N) in the size of all sets",
        "destination:key key...",
    ),
    CommandSpec::data("sdiff", Group::Set, AtLeast(2), sdiff)
        .readonly()
        .keys(READ_ALL)
        .tips(&["nondeterministic_output_order"])
        .doc(
            "Returns the members of the first set that no other has.",
            "1.0.0",
            "O(N) in the size of all sets",
            "key...",
        ),
    CommandSpec::data("sdiffstore", Group::Set, AtLeast(3), sdiffstore).write().keys(STORE).doc(
        "Stores the members of the first set that no other has.",
        "1.0.0",
        "O(N) in the size of all sets",
        "destination:key key...",
    ),
    CommandSpec::data("sscan", Group::Set, AtLeast(3), sscan)
        .uncached()
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc(
            "Walks over the members, a few at a time.",
            "2.8.0",
            "O(1) per call",
            "key cursor:integer [MATCH pattern:pattern] [COUNT count:integer]",
        ),
];

fn limits(view: &View<'_>) -> Limits {
    let settings = view.settings();
    Limits {
        integers: settings.int(Id::SetMaxIntsetEntries) as usize,
        entries: settings.int(Id::SetMaxListpackEntries) as usize,
        value: settings.int(Id::SetMaxListpackValue) as usize,
    }
}

fn sadd(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let added = view.upsert(args.at(1), Event::set("sadd"), |set: &mut Set| {
        let added = args.skip(2).iter().filter(|member| set.insert(member, &limits)).count();
        (added, added > 0)
    })?;
    reply.count(added);
    Ok(())
}

fn srem(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let removed = view.edit(args.at(1), Event::set("srem"), |set: &mut Set| {
        let removed = args.skip(2).iter().filter(|member| set.remove(member)).count();
        (removed, removed > 0)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn smove(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (source, destination, member) = (args.at(1), args.at(2), args.at(3));
    let Some(is_member) = view.peek_as::<Set>(source)?.map(|set| set.contains(member)) else {
        reply.integer(0);
        return Ok(());
    };
    view.peek_as::<Set>(destination)?;
    if source == destination || !is_member {
        reply.integer(is_member.into());
        return Ok(());
    }
    view.edit(source, Event::set("srem"), |set: &mut Set| ((), set.remove(member)))?;
    let limits = limits(view);
    view.upsert(destination, Event::set("sadd"), |set: &mut Set| ((), set.insert(member, &limits)))?;
    reply.integer(1);
    Ok(())
}

fn sismember(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let found = view.get::<Set>(args.at(1))?.is_some_and(|set| set.contains(args.at(2)));
    reply.integer(found.into());
    Ok(())
}

fn smismember(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let set = view.get::<Set>(args.at(1))?;
    reply.array(args.len() - 2);
    for member in args.skip(2).iter() {
        reply.integer(set.is_some_and(|set| set.contains(member)).into());
    }
    Ok(())
}

fn scard(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(view.get::<Set>(args.at(1))?.map_or(0, Set::len));
    Ok(())
}

fn smembers(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(set) = view.get::<Set>(args.at(1))? else {
        reply.set(0);
        return Ok(());
    };
    reply.set(set.len());
    set.iter().for_each(|member| write_item(reply, member));
    Ok(())
}

fn spop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut rng = fastrand::Rng::new();
    let event = Event::set("spop");
    if args.len() > 3 {
        return Err(ReplyError::SYNTAX);
    }
    let Some(count) = args.get(2) else {
        let popped = view.edit(args.at(1), event, |set: &mut Set| {
            let member = set.random(&mut rng).map(|member| member.to_vec());
            if let Some(member) = &member {
                set.remove(member);
            }
            (member, true)
        })?;
        reply.bulk_or_null(popped.flatten().as_deref());
        return Ok(());
    };
    let count = super::arguments::positive(count)? as usize;
    let popped = view.edit(args.at(1), event, |set: &mut Set| {
        let chosen = super::random::distinct(set.len(), count, &mut rng);
        let members: Vec<Vec<u8>> =
            super::random::pick(set.iter(), &chosen).map(|member| member.to_vec()).collect();
        if members.len() == set.len() {
            *set = Set::default();
        } else {
            for member in &members {
                set.remove(member);
            }
        }
        let changed = !members.is_empty();
        (members, changed)
    })?;
    let popped = popped.unwrap_or_default();
    reply.set(popped.len());
    popped.iter().for_each(|member| reply.bulk(member));
    Ok(())
}

fn srandmember(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut rng = fastrand::Rng::new();
    if args.len() > 3 {
        return Err(ReplyError::SYNTAX);
    }
    let Some(count) = args.get(2) else {
        match view.get::<Set>(args.at(1))?.and_then(|set| set.random(&mut rng)) {
            Some(member) => write_item(reply, member),
            None => reply.null(),
        }
        return Ok(());
    };
    let count = random_count(count, false)?;
    let Some(set) = view.get::<Set>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    if count < 0 {
        reply.array(count.unsigned_abs() as usize);
        for _ in 0..count.unsigned_abs() {
            if let Some(member) = set.random(&mut rng) {
                write_item(reply, member);
            }
        }
        return Ok(());
    }
    let chosen = super::random::distinct(set.len(), count as usize, &mut rng);
    reply.array(chosen.len());
    for member in super::random::pick(set.iter(), &chosen) {
        write_item(reply, member);
    }
    Ok(())
}

/// The sets at these keys, `None` where there is no key.
fn operands<'v>(view: &'v mut View<'_>, keys: Args<'_>) -> Result<Vec<Option<&'v Set>>, ReplyError> {
    let values = view.read_all(keys.iter(), |value| matches!(value, ValueRef::Set(_)))?;
    let set = |value| if let Some(ValueRef::Set(set)) = value { Some(set) } else { None };
    Ok(values.into_iter().map(set).collect())
}

/// The members that the sets at all of these keys have, at most `limit` of them.
fn intersection<'v>(
    view: &'v mut View<'_>,
    keys: Args<'_>,
    limit: usize,
) -> Result<Vec<Item<'v>>, ReplyError> {
    // Where there is no key, there is nothing in common.
    let sets: Option<Vec<&Set>> = operands(view, keys)?.into_iter().collect();
    Ok(sets.map_or_else(Vec::new, |sets| algebra::intersection(&sets, limit)))
}

fn union<'v>(view: &'v mut View<'_>, keys: Args<'_>) -> Result<Vec<Item<'v>>, ReplyError> {
    let sets: Vec<&Set> = operands(view, keys)?.into_iter().flatten().collect();
    Ok(algebra::union(&sets))
}

fn difference<'v>(view: &'v mut View<'_>, keys: Args<'_>) -> Result<Vec<Item<'v>>, ReplyError> {
    let sets = operands(view, keys)?;
    let Some((Some(first), others)) = sets.split_first() else { return Ok(Vec::new()) };
    Ok(algebra::difference(first, &others.iter().copied().flatten().collect::<Vec<_>>()))
}

fn write_set(reply: &mut Reply<'_>, members: &[Item<'_>]) -> CommandResult {
    reply.set(members.len());
    members.iter().for_each(|member| write_item(reply, *member));
    Ok(())
}

/// Puts a result at a key, or removes the key if the result is empty.
fn store(
    view: &mut View<'_>,
    key: &[u8],
    set: Set,
    event: &'static str,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.count(set.len());
    if set.is_empty() {
        view.delete(key, Event::DEL);
    } else {
        view.store(key, set, Event::set(event));
    }
    Ok(())
}

fn sinter(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_set(reply, &intersection(view, args.skip(1), usize::MAX)?)
}

fn sinterstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let result = Set::of_distinct(&intersection(view, args.skip(2), usize::MAX)?, &limits);
    store(view, args.at(1), result, "sinterstore", reply)
}

fn sintercard(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = integer_in(args.at(1), 1..=i64::MAX, "ERR numkeys should be greater than 0")?;
    if count > args.len() as i64 - 2 {
        return Err(ReplyError::fixed("ERR Number of keys can't be greater than number of args"));
    }
    let end = 2 + count as usize;
    let mut limit = 0;
    let mut options = Options::new(args, end);
    while !options.is_done() {
        if options.take_with("limit", 1) {
            limit = integer_in(options.value()?, 0..=i64::MAX, "ERR LIMIT can't be negative")?;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    let limit = if limit == 0 { usize::MAX } else { limit as usize };
    reply.count(intersection(view, args.take(end).skip(2), limit)?.len());
    Ok(())
}

fn sunion(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_set(reply, &union(view, args.skip(1))?)
}

fn sunionstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let result = Set::of_distinct(&union(view, args.skip(2))?, &limits);
    store(view, args.at(1), result, "sunionstore", reply)
}

fn sdiff(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_set(reply, &difference(view, args.skip(1))?)
}

fn sdiffstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let result = Set::of_distinct(&difference(view, args.skip(2))?, &limits);
    store(view, args.at(1), result, "sdiffstore", reply)
}

fn sscan(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = scanning::cursor(args.at(2))?;
    let options = ScanOptions::parse(args, 3, false)?;
    let Some(set) = view.get::<Set>(args.at(1))? else {
        scanning::write_header(reply, 0, 0);
        return Ok(());
    };
    let mut found: Vec<Vec<u8>> = Vec::new();
    let next = scanning::run(cursor, options.count, |cursor| {
        let mut visited = 0;
        let next = set.scan(cursor, |member| {
            visited += 1;
            if options.wants(member.to_bytes(&mut NumBuf::new())) {
                found.push(member.to_vec());
            }
        });
        (next, visited)
    });
    scanning::write_header(reply, next, found.len());
    found.iter().for_each(|member| reply.bulk(member));
    Ok(())
}
