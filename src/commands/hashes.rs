//! Hashes.

use super::arguments::{Options, integer, random_count};
use super::keys::{KeySpec, access::*, key_at};
use super::routing::Rewriting;
use super::scanning::{self, ScanOptions};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group};
use super::strings::write_item;
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::hash::{Hash, Limits};
use crate::types::listpack::{Item, NumBuf};
use crate::types::number::{LongDouble, LongDoubleError, parse_i64};

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const LOOK: &[KeySpec] = &[key_at(1, RO)];

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("hset", Group::Hash, AtLeast(4), hset)
        .write()
        .fast()
        .keys(&[key_at(1, RW | UPDATE)])
        .member(2)
        .doc("Sets fields of a hash.", "2.0.0", "O(1) per field", "key data(field value)..."),
    CommandSpec::data("hmset", Group::Hash, AtLeast(4), hmset)
        .write()
        .fast()
        .keys(&[key_at(1, RW | UPDATE)])
        .member(2)
        .doc("The old form of HSET.", "2.0.0", "O(1) per field", "key data(field value)...")
        .deprecated("4.0.0", "`HSET` with multiple field-value pairs"),
    CommandSpec::data("hsetnx", Group::Hash, Exactly(4), hsetnx)
        .write()
        .fast()
        .keys(&[key_at(1, RW | INSERT)])
        .member(2)
        .doc("Sets a field of a hash if there is no such field.", "2.0.0", "O(1)", "key field value"),
    CommandSpec::data("hget", Group::Hash, Exactly(3), hget).readonly().fast().keys(READ).member(2).doc(
        "Returns the value of a field.",
        "2.0.0",
        "O(1)",
        "key field",
    ),
    CommandSpec::data("hmget", Group::Hash, AtLeast(3), hmget).readonly().fast().keys(READ).member(2).doc(
        "Returns the values of fields.",
        "2.0.0",
        "O(1) per field",
        "key field...",
    ),
    CommandSpec::data("hdel", Group::Hash, AtLeast(3), hdel)
        .shrink()
        .fast()
        .keys(&[key_at(1, RW | DELETE)])
        .member(2)
        .doc("Removes fields.", "2.0.0", "O(1) per field", "key field..."),
    CommandSpec::data("hlen", Group::Hash, Exactly(2), hlen).readonly().fast().keys(LOOK).doc(
        "Counts the fields.",
        "2.0.0",
        "O(1)",
        "key",
    ),
    CommandSpec::data("hstrlen", Group::Hash, Exactly(3), hstrlen)
        .readonly()
        .fast()
        .keys(LOOK)
        .member(2)
        .doc("Returns the length of a field's value.", "3.2.0", "O(1)", "key field"),
    CommandSpec::data("hexists", Group::Hash, Exactly(3), hexists)
        .readonly()
        .fast()
        .keys(LOOK)
        .member(2)
        .doc("Says whether a field exists.", "2.0.0", "O(1)", "key field"),
    CommandSpec::data("hkeys", Group::Hash, Exactly(2), hkeys)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output_order"])
        .doc("Returns all fields.", "2.0.0", "O(N) in the size of the hash", "key"),
    CommandSpec::data("hvals", Group::Hash, Exactly(2), hvals)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output_order"])
        .doc("Returns all values.", "2.0.0", "O(N) in the size of the hash", "key"),
    CommandSpec::data("hgetall", Group::Hash, Exactly(2), hgetall)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output_order"])
        .doc("Returns all fields with their values.", "2.0.0", "O(N) in the size of the hash", "key"),
    CommandSpec::data("hincrby", Group::Hash, Exactly(4), hincrby)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .member(2)
        .doc("Adds to the integer of a field.", "2.0.0", "O(1)", "key field increment:integer"),
    CommandSpec::data("hincrbyfloat", Group::Hash, Exactly(4), hincrbyfloat)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .member(2)
        .doc("Adds to the floating point number of a field.", "2.6.0", "O(1)", "key field increment:double"),
    CommandSpec::data("hrandfield", Group::Hash, AtLeast(2), hrandfield)
        .rewriting(Rewriting::Flat)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc(
            "Returns fields at random.",
            "6.2.0",
            "O(N) in the fields returned",
            "key [options(count:integer [WITHVALUES])]",
        ),
    CommandSpec::data("hscan", Group::Hash, AtLeast(3), hscan)
        .uncached()
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc(
            "Walks over the fields, a few at a time.",
            "2.8.0",
            "O(1) per call",
            "key cursor:integer [MATCH pattern:pattern] [COUNT count:integer]",
        ),
];

fn limits(view: &View<'_>) -> Limits {
    let settings = view.settings();
    Limits {
        entries: settings.int(Id::HashMaxListpackEntries) as usize,
        value: settings.int(Id::HashMaxListpackValue) as usize,
    }
}

fn hset(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(set_fields(view, args, "hset")?);
    Ok(())
}

fn hmset(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_fields(view, args, "hmset")?;
    reply.ok();
    Ok(())
}

fn set_fields(view: &mut View<'_>, args: Args<'_>, name: &str) -> Result<usize, ReplyError> {
    if !args.len().is_multiple_of(2) {
        return Err(ReplyError::wrong_arity(name));
    }
    let limits = limits(view);
    view.upsert(args.at(1), Event::hash("hset"), |hash: &mut Hash| {
        hash.prepare(args.skip(2).iter(), &limits);
        let pairs = (2..args.len()).step_by(2);
        (pairs.filter(|index| hash.set(args.at(*index), args.at(index + 1), &limits)).count(), true)
    })
}

fn hsetnx(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let added = view.upsert(args.at(1), Event::hash("hset"), |hash: &mut Hash| {
        let absent = !hash.contains(args.at(2));
        if absent {
            hash.set(args.at(2), args.at(3), &limits);
        }
        (absent, absent)
    })?;
    reply.integer(added.into());
    Ok(())
}

fn hget(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    match view.get::<Hash>(args.at(1))?.and_then(|hash| hash.get(args.at(2))) {
        Some(item) => write_item(reply, item),
        None => reply.null(),
    }
    Ok(())
}

fn hmget(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let hash = view.get::<Hash>(args.at(1))?;
    reply.array(args.len() - 2);
    for field in args.skip(2).iter() {
        match hash.and_then(|hash| hash.get(field)) {
            Some(item) => write_item(reply, item),
            None => reply.null(),
        }
    }
    Ok(())
}

fn hdel(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let removed = view.edit(args.at(1), Event::hash("hdel"), |hash: &mut Hash| {
        let removed = args.skip(2).iter().filter(|field| hash.remove(field)).count();
        (removed, removed > 0)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn hlen(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(view.get::<Hash>(args.at(1))?.map_or(0, |hash| hash.len()));
    Ok(())
}

fn hstrlen(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let value = view.get::<Hash>(args.at(1))?.and_then(|hash| hash.get(args.at(2)));
    reply.count(value.map_or(0, |item| item.text_len()));
    Ok(())
}

fn hexists(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let found = view.get::<Hash>(args.at(1))?.is_some_and(|hash| hash.contains(args.at(2)));
    reply.integer(found.into());
    Ok(())
}

fn hkeys(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(hash) = view.get::<Hash>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    reply.array(hash.len());
    hash.iter().for_each(|(field, _)| write_item(reply, field));
    Ok(())
}

fn hvals(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(hash) = view.get::<Hash>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    reply.array(hash.len());
    hash.iter().for_each(|(_, value)| write_item(reply, value));
    Ok(())
}

fn hgetall(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(hash) = view.get::<Hash>(args.at(1))? else {
        reply.map(0);
        return Ok(());
    };
    reply.map(hash.len());
    for (field, value) in hash.iter() {
        write_item(reply, field);
        write_item(reply, value);
    }
    Ok(())
}

fn hincrby(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let by = integer(args.at(3))?;
    let limits = limits(view);
    let sum = view.upsert(args.at(1), Event::hash("hincrby"), |hash: &mut Hash| {
        let current = match hash.get(args.at(2)) {
            None => Ok(0),
            Some(Item::Int(value)) => Ok(value),
            Some(Item::Bytes(text)) => {
                parse_i64(text).ok_or(ReplyError::fixed("ERR hash value is not an integer"))
            }
        };
        let sum = current.and_then(|current| current.checked_add(by).ok_or(ReplyError::OVERFLOW));
        if let Ok(sum) = sum {
            hash.update(args.at(2), NumBuf::new().format(sum), &limits);
        }
        (sum.clone(), sum.is_ok())
    })??;
    reply.integer(sum);
    Ok(())
}

fn hincrbyfloat(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if LongDouble::is_infinity(args.at(3)) {
        return Err(ReplyError::fixed("ERR value is NaN or Infinity"));
    }
    let by = LongDouble::parse(args.at(3)).ok_or(ReplyError::NOT_FLOAT)?;
    let limits = limits(view);
    let text = view.upsert(args.at(1), Event::hash("hincrbyfloat"), |hash: &mut Hash| {
        let current = match hash.get(args.at(2)) {
            None => Ok(LongDouble::ZERO),
            Some(item) => LongDouble::parse(item.to_bytes(&mut NumBuf::new()))
                .ok_or(ReplyError::fixed("ERR hash value is not a float")),
        };
        let sum = current
            .and_then(|current| current.plus(by).map_err(|LongDoubleError| ReplyError::NAN_OR_INFINITY));
        let text = sum.map(LongDouble::to_text);
        if let Ok(text) = &text {
            hash.update(args.at(2), text, &limits);
        }
        let changed = text.is_ok();
        (text, changed)
    })??;
    reply.bulk(&text);
    Ok(())
}

fn hrandfield(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut rng = fastrand::Rng::new();
    if args.len() == 2 {
        match view.get::<Hash>(args.at(1))?.and_then(|hash| hash.random(&mut rng)) {
            Some((field, _)) => write_item(reply, field),
            None => reply.null(),
        }
        return Ok(());
    }
    random_count(args.at(2), false)?;
    let mut options = Options::new(args, 3);
    let with_values = options.take("withvalues");
    if !options.is_done() {
        return Err(ReplyError::SYNTAX);
    }
    let count = random_count(args.at(2), with_values)?;
    let Some(hash) = view.get::<Hash>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let write = |reply: &mut Reply<'_>, (field, value): (Item<'_>, Item<'_>)| {
        if with_values && reply.is_resp3() {
            reply.array(2);
        }
        write_item(reply, field);
        if with_values {
            write_item(reply, value);
        }
    };
    let header = |reply: &mut Reply<'_>, fields: usize| {
        reply.array(if with_values && !reply.is_resp3() { fields * 2 } else { fields });
    };
    if count < 0 {
        let wanted = count.unsigned_abs() as usize;
        header(reply, wanted);
        for _ in 0..wanted {
            if let Some(pair) = hash.random(&mut rng) {
                write(reply, pair);
            }
        }
        return Ok(());
    }
    let chosen = super::random::distinct(hash.len(), count as usize, &mut rng);
    header(reply, chosen.len());
    for pair in super::random::pick(hash.iter(), &chosen) {
        write(reply, pair);
    }
    Ok(())
}

fn hscan(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = scanning::cursor(args.at(2))?;
    let options = ScanOptions::parse(args, 3, false)?;
    let Some(hash) = view.get::<Hash>(args.at(1))? else {
        scanning::write_header(reply, 0, 0);
        return Ok(());
    };
    let mut found: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let next = scanning::run(cursor, options.count, |cursor| {
        let mut visited = 0;
        let next = hash.scan(cursor, |field, value| {
            visited += 1;
            if options.wants(field.to_bytes(&mut NumBuf::new())) {
                found.push((field.to_vec(), value.to_vec()));
            }
        });
        (next, visited)
    });
    scanning::write_header(reply, next, found.len() * 2);
    for (field, value) in &found {
        reply.bulk(field);
        reply.bulk(value);
    }
    Ok(())
}
