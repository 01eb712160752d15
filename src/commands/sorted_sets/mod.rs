//! Sorted sets: the rows, and the commands on single members.

mod algebra;
mod pop;
mod range;

use super::arguments::{Options, float, random_count};
use super::keys::{KeySpec, access::*, counted_keys, key_at, keys_in};
use super::routing::Rewriting;
use super::scanning::{self, ScanOptions};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group, flag};
use super::strings::write_item;
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::listpack::{Item, NumBuf};
use crate::types::sorted_set::{Limits, SortedSet};

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const POP: &[KeySpec] = &[key_at(1, RW | ACCESS | DELETE)];
const DELETES: &[KeySpec] = &[key_at(1, RW | DELETE)];
const READ_COUNTED: &[KeySpec] = &[counted_keys(1, RO | ACCESS)];
const STORE: &[KeySpec] = &[key_at(1, OW | UPDATE), counted_keys(2, RO | ACCESS)];
const LOG: &str = "O(log(N)+M): the set and the members returned";

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("zadd", Group::SortedSet, AtLeast(4), zadd)
        .write()
        .fast()
        .keys(&[key_at(1, RW | UPDATE)])
        .member(3)
        .doc(
            "Adds members or changes their scores.",
            "1.2.0",
            "O(log(N)) per member",
            "key [condition<NX | XX>@3.0.2] [comparison<GT | LT>@6.2.0] [CH=change@3.0.2] \
            [INCR=increment@3.0.2] data(score:double member)...",
        ),
    CommandSpec::data("zincrby", Group::SortedSet, Exactly(4), zincrby)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .member(3)
        .doc("Adds to a member's score.", "1.2.0", "O(log(N))", "key increment:integer member"),
    CommandSpec::data("zrem", Group::SortedSet, AtLeast(3), zrem)
        .shrink()
        .fast()
        .keys(DELETES)
        .member(2)
        .doc("Removes members.", "1.2.0", "O(log(N)) per member", "key member..."),
    CommandSpec::data("zcard", Group::SortedSet, Exactly(2), zcard)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO)])
        .doc("Counts the members.", "1.2.0", "O(1)", "key"),
    CommandSpec::data("zscore", Group::SortedSet, Exactly(3), zscore)
        .readonly()
        .fast()
        .keys(READ)
        .member(2)
        .doc("Returns a member's score.", "1.2.0", "O(1)", "key member"),
    CommandSpec::data("zmscore", Group::SortedSet, AtLeast(3), zmscore).readonly().fast().keys(READ).doc(
        "Returns the scores of members.",
        "6.2.0",
        "O(1) per member",
        "key member...",
    ),
    CommandSpec::data("zrank", Group::SortedSet, AtLeast(3), zrank)
        .rewriting(Rewriting::NullArrayAbove(3))
        .readonly()
        .fast()
        .keys(READ)
        .member(2)
        .doc(
            "Returns a member's rank, from the lowest score.",
            "2.0.0",
            "O(log(N))",
            "key member [WITHSCORE]",
        ),
    CommandSpec::data("zrevrank", Group::SortedSet, AtLeast(3), zrevrank)
        .rewriting(Rewriting::NullArrayAbove(3))
        .readonly()
        .fast()
        .keys(READ)
        .doc(
            "Returns a member's rank, from the highest score.",
            "2.0.0",
            "O(log(N))",
            "key member [WITHSCORE]",
        ),
    CommandSpec::data("zcount", Group::SortedSet, Exactly(4), range::zcount)
        .readonly()
        .fast()
        .keys(READ)
        .doc("Counts the members within scores.", "2.0.0", "O(log(N))", "key min:double max:double"),
    CommandSpec::data("zlexcount", Group::SortedSet, Exactly(4), range::zlexcount)
        .readonly()
        .fast()
        .keys(READ)
        .doc("Counts the members between two.", "2.8.9", "O(log(N))", "key min max"),
    CommandSpec::data("zrange", Group::SortedSet, AtLeast(4), range::zrange)
        .rewriting(Rewriting::Flat)
        .readonly()
        .keys(READ)
        .doc(
            "Returns members by rank, score or name.",
            "1.2.0",
            LOG,
            "key start stop [sortby<BYSCORE | BYLEX>@6.2.0] [REV@6.2.0] [LIMIT \
            limit(offset:integer count:integer)@6.2.0] [WITHSCORES]",
        ),
    CommandSpec::data("zrangestore", Group::SortedSet, AtLeast(5), range::zrangestore)
        .write()
        .keys(&[key_at(1, OW | UPDATE), key_at(2, RO | ACCESS)])
        .doc(
            "Stores members by rank, score or name.",
            "6.2.0",
            LOG,
            "dst:key src:key min max [sortby<BYSCORE | BYLEX>] [REV] [LIMIT limit(offset:integer \
            count:integer)]",
        ),
    CommandSpec::data("zrevrange", Group::SortedSet, AtLeast(4), range::zrevrange)
        .rewriting(Rewriting::Flat)
        .readonly()
        .keys(READ)
        .doc(
            "Returns members by rank, from the highest score.",
            "1.2.0",
            LOG,
            "key start:integer stop:integer [WITHSCORES]",
        )
        .deprecated("6.2.0", "`ZRANGE` with the `REV` argument"),
    CommandSpec::data("zrangebyscore", Group::SortedSet, AtLeast(4), range::zrangebyscore)
        .rewriting(Rewriting::Flat)
        .readonly()
        .keys(READ)
        .doc(
            "Returns members within scores.",
            "1.0.5",
            LOG,
            "key min:double max:double [WITHSCORES@2.0.0] [LIMIT limit(offset:integer \
            count:integer)]",
        )
        .deprecated("6.2.0", "`ZRANGE` with the `BYSCORE` argument"),
    CommandSpec::data("zrevrangebyscore", Group::SortedSet, AtLeast(4), range::zrevrangebyscore)
        .rewriting(Rewriting::Flat)
        .readonly()
        .keys(READ)
        .doc(
            "Returns members within scores, from the highest.",
            "2.2.0",
            LOG,
            "key max:double min:double [WITHSCORES] [LIMIT limit(offset:integer count:integer)]",
        )
        .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYSCORE` arguments"),
    CommandSpec::data("zrangebylex", Group::SortedSet, AtLeast(4), range::zrangebylex)
        .readonly()
        .keys(READ)
        .doc(
            "Returns members between two.",
            "2.8.9",
            LOG,
            "key min max [LIMIT limit(offset:integer count:integer)]",
        )
        .deprecated("6.2.0", "`ZRANGE` with the `BYLEX` argument"),
    CommandSpec::data("zrevrangebylex", Group::SortedSet, AtLeast(4), range::zrevrangebylex)
        .readonly()
        .keys(READ)
        .doc(
            "Returns members between two, from the last.",
            "2.8.9",
            LOG,
            "key max min [LIMIT limit(offset:integer count:integer)]",
        )
        .deprecated("6.2.0", "`ZRANGE` with the `REV` and `BYLEX` arguments"),
    CommandSpec::data("zremrangebyrank", Group::SortedSet, Exactly(4), range::zremrangebyrank)
        .shrink()
        .keys(DELETES)
        .doc("Removes members by rank.", "2.0.0", LOG, "key start:integer stop:integer"),
    CommandSpec::data("zremrangebyscore", Group::SortedSet, Exactly(4), range::zremrangebyscore)
        .shrink()
        .keys(DELETES)
        .doc("Removes members within scores.", "1.2.0", LOG, "key min:double max:double"),
    CommandSpec::data("zremrangebylex", Group::SortedSet, Exactly(4), range::zremrangebylex)
        .shrink()
        .keys(DELETES)
        .doc("Removes members between two.", "2.8.9", LOG, "key min max"),
    CommandSpec::data("zpopmin", Group::SortedSet, AtLeast(2), pop::zpopmin)
        .rewriting(Rewriting::Flat)
        .shrink()
        .fast()
        .keys(POP)
        .doc("Takes the members with the lowest scores.", "5.0.0", LOG, "key [count:integer]"),
    CommandSpec::data("zpopmax", Group::SortedSet, AtLeast(2), pop::zpopmax)
        .rewriting(Rewriting::Flat)
        .shrink()
        .fast()
        .keys(POP)
        .doc("Takes the members with the highest scores.", "5.0.0", LOG, "key [count:integer]"),
    CommandSpec::waiting("bzpopmin", Group::SortedSet, AtLeast(3), pop::bzpopmin)
        .shrink()
        .fast()
        .keys(&[keys_in(1, -2, 1, RW | ACCESS | DELETE)])
        .doc(
            "Takes the member with the lowest score, waiting for one.",
            "5.0.0",
            "O(log(N))",
            "key... timeout:double",
        ),
    CommandSpec::waiting("bzpopmax", Group::SortedSet, AtLeast(3), pop::bzpopmax)
        .shrink()
        .fast()
        .keys(&[keys_in(1, -2, 1, RW | ACCESS | DELETE)])
        .doc(
            "Takes the member with the highest score, waiting for one.",
            "5.0.0",
            "O(log(N))",
            "key... timeout:double",
        ),
    CommandSpec::data("zmpop", Group::SortedSet, AtLeast(4), pop::zmpop)
        .rewriting(Rewriting::NullArrayAbove(0))
        .shrink()
        .with(flag::MOVABLEKEYS)
        .keys(&[counted_keys(1, RW | ACCESS | DELETE)])
        .doc(
            "Takes members from the first set that has some.",
            "7.0.0",
            LOG,
            "numkeys:integer key... where<MIN | MAX> [COUNT count:integer]",
        ),
    CommandSpec::waiting("bzmpop", Group::SortedSet, AtLeast(5), pop::bzmpop)
        .shrink()
        .with(flag::MOVABLEKEYS)
        .keys(&[counted_keys(2, RW | ACCESS | DELETE)])
        .doc(
            "Takes members from the first set that has some, waiting for one.",
            "7.0.0",
            LOG,
            "timeout:double numkeys:integer key... where<MIN | MAX> [COUNT count:integer]",
        ),
    CommandSpec::data("zrandmember", Group::SortedSet, AtLeast(2), zrandmember)
        .rewriting(Rewriting::Flat)
        .readonly()
        .keys(READ)
        .tips(&["nondeterministic_output"])
        .doc(
            "Returns members at random.",
            "6.2.0",
            "O(N) in the members returned",
            "key [options(count:integer [WITHSCORES])]",
        ),
    CommandSpec::data("zscan", Group::SortedSet, AtLeast(3), zscan)
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
    CommandSpec::data("zunion", Group::SortedSet, AtLeast(3), algebra::zunion)
        .rewriting(Rewriting::Flat)
        .readonly()
        .with(flag::MOVABLEKEYS)
        .keys(READ_COUNTED)
        .doc(
            "Returns the members that any set has.",
            "6.2.0",
            "O(N*log(N)) in the size of all sets",
            "numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE aggregate<SUM | MIN | \
            MAX>] [WITHSCORES]",
        ),
    CommandSpec::data("zunionstore", Group::SortedSet, AtLeast(4), algebra::zunionstore)
        .write()
        .with(flag::MOVABLEKEYS)
        .keys(STORE)
        .doc(
            "Stores the members that any set has.",
            "2.0.0",
            "O(N*log(N)) in the size of all sets",
            "destination:key numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE \
            aggregate<SUM | MIN | MAX>]",
        ),
    CommandSpec::data("zinter", Group::SortedSet, AtLeast(3), algebra::zinter)
        .rewriting(Rewriting::Flat)
        .readonly()
        .with(flag::MOVABLEKEYS)
        .keys(READ_COUNTED)
        .doc(
            "Returns the members that all sets have.",
            "6.2.0",
            "O(N*K): the smallest set and the number of sets",
            "numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE aggregate<SUM | MIN | \
            MAX>] [WITHSCORES]",
        ),
    CommandSpec::data("zinterstore", Group::SortedSet, AtLeast(4), algebra::zinterstore)
        .write()
        .with(flag::MOVABLEKEYS)
        .keys(STORE)
        .doc(
            "Stores the members that all sets have.",
            "2.0.0",
            "O(N*K): the smallest set and the number of sets",
            "destination:key numkeys:integer key... [WEIGHTS weight:integer...] [AGGREGATE \
            aggregate<SUM | MIN | MAX>]",
        ),
    CommandSpec::data("zintercard", Group::SortedSet, AtLeast(3), algebra::zintercard)
        .readonly()
        .with(flag::MOVABLEKEYS)
        .keys(READ_COUNTED)
        .doc(
            "Counts the members that all sets have.",
            "7.0.0",
            "O(N*K): the smallest set and the number of sets",
            "numkeys:integer key... [LIMIT limit:integer]",
        ),
    CommandSpec::data("zdiff", Group::SortedSet, AtLeast(3), algebra::zdiff)
        .rewriting(Rewriting::Flat)
        .readonly()
        .with(flag::MOVABLEKEYS)
        .keys(READ_COUNTED)
        .doc(
            "Returns the members of the first set that no other has.",
            "6.2.0",
            "O(N) in the size of all sets",
            "numkeys:integer key... [WITHSCORES]",
        ),
    CommandSpec::data("zdiffstore", Group::SortedSet, AtLeast(4), algebra::zdiffstore)
        .write()
        .with(flag::MOVABLEKEYS)
        .keys(STORE)
        .doc(
            "Stores the members of the first set that no other has.",
            "6.2.0",
            "O(N) in the size of all sets",
            "destination:key numkeys:integer key...",
        ),
];

fn limits(view: &View<'_>) -> Limits {
    let settings = view.settings();
    Limits {
        entries: settings.int(Id::ZsetMaxListpackEntries) as usize,
        value: settings.int(Id::ZsetMaxListpackValue) as usize,
    }
}

/// Writes members with their scores: pairs in RESP3, flat in RESP2.
fn write_pair(reply: &mut Reply<'_>, member: Item<'_>, score: f64, with_scores: bool) {
    if with_scores && reply.is_resp3() {
        reply.array(2);
    }
    write_item(reply, member);
    if with_scores {
        reply.double(score);
    }
}

/// Writes the header of an array of so many members.
fn write_header(reply: &mut Reply<'_>, members: usize, with_scores: bool) {
    reply.array(if with_scores && !reply.is_resp3() { members * 2 } else { members });
}

/// The options of `ZADD`.
#[derive(Default)]
struct AddOptions {
    if_absent: bool,
    if_present: bool,
    if_greater: bool,
    if_less: bool,
    counts_changes: bool,
    increments: bool,
}

impl AddOptions {
    /// The score that a member gets, `None` if it stays as it is.
    fn apply(&self, old: Option<f64>, given: f64) -> Result<Option<f64>, ReplyError> {
        let Some(old) = old else { return Ok((!self.if_present).then_some(given)) };
        if self.if_absent {
            return Ok(None);
        }
        let new = if self.increments { old + given } else { given };
        if new.is_nan() {
            return Err(ReplyError::fixed("ERR resulting score is not a number (NaN)"));
        }
        let refused = self.if_greater && new <= old || self.if_less && new >= old;
        Ok((!refused).then_some(new))
    }
}

fn zadd(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut added = AddOptions::default();
    let mut options = Options::new(args, 2);
    loop {
        if options.take("nx") {
            added.if_absent = true;
        } else if options.take("xx") {
            added.if_present = true;
        } else if options.take("gt") {
            added.if_greater = true;
        } else if options.take("lt") {
            added.if_less = true;
        } else if options.take("ch") {
            added.counts_changes = true;
        } else if options.take("incr") {
            added.increments = true;
        } else {
            break;
        }
    }
    if options.is_done() || !options.remaining().is_multiple_of(2) {
        return Err(ReplyError::SYNTAX);
    }
    if added.if_absent && added.if_present {
        return Err(ReplyError::fixed("ERR XX and NX options at the same time are not compatible"));
    }
    if [added.if_absent, added.if_greater, added.if_less].iter().filter(|set| **set).count() > 1 {
        return Err(ReplyError::fixed("ERR GT, LT, and/or NX options at the same time are not compatible"));
    }
    if added.increments && options.remaining() > 2 {
        return Err(ReplyError::fixed("ERR INCR option supports a single increment-element pair"));
    }
    let pairs = args.skip(args.len() - options.remaining());
    if pairs.len() == 2 {
        let score = float(pairs.at(0))?;
        return add(view, args.at(1), &added, std::iter::once((score, pairs.at(1))), reply);
    }
    let scores: Vec<f64> = pairs.iter().step_by(2).map(float).collect::<Result<_, _>>()?;
    let members = pairs.iter().skip(1).step_by(2);
    add(view, args.at(1), &added, scores.into_iter().zip(members), reply)
}

fn add<'a>(
    view: &mut View<'_>,
    key: &[u8],
    options: &AddOptions,
    pairs: impl Iterator<Item = (f64, &'a [u8])>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let limits = limits(view);
    let event = Event::sorted_set(if options.increments { "zincr" } else { "zadd" });
    let (added, changed, last) = view.upsert(key, event, |set: &mut SortedSet| {
        let (mut added, mut changed, mut last) = (0, 0, None);
        for (given, member) in pairs {
            let unconditional = !(options.if_absent
                || options.if_present
                || options.increments
                || options.if_greater
                || options.if_less);
            let old = if unconditional {
                set.insert(member, given, &limits)
            } else {
                let old = set.score(member);
                let new = match options.apply(old, given) {
                    Ok(new) => new,
                    Err(error) => return (Err(error), added + changed > 0),
                };
                last = new;
                let Some(new) = new else { continue };
                set.insert(member, new, &limits);
                if old == Some(new) {
                    continue;
                }
                old
            };
            match old {
                None => added += 1,
                Some(old) if unconditional && old == given => {}
                Some(_) => changed += 1,
            }
        }
        (Ok((added, changed, last)), added + changed > 0)
    })??;
    match (options.increments, last) {
        (true, Some(score)) => reply.double(score),
        (true, None) => reply.null(),
        (false, _) => reply.count(if options.counts_changes { added + changed } else { added }),
    }
    Ok(())
}

fn zincrby(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let by = float(args.at(2))?;
    let options = AddOptions { increments: true, ..AddOptions::default() };
    add(view, args.at(1), &options, std::iter::once((by, args.at(3))), reply)
}

fn zrem(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let removed = view.edit(args.at(1), Event::sorted_set("zrem"), |set: &mut SortedSet| {
        let removed = args.skip(2).iter().filter(|member| set.remove(member).is_some()).count();
        (removed, removed > 0)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn zcard(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(view.get::<SortedSet>(args.at(1))?.map_or(0, SortedSet::len));
    Ok(())
}

fn zscore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    match view.get::<SortedSet>(args.at(1))?.and_then(|set| set.score(args.at(2))) {
        Some(score) => reply.double(score),
        None => reply.null(),
    }
    Ok(())
}

fn zmscore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let set = view.get::<SortedSet>(args.at(1))?;
    reply.array(args.len() - 2);
    for member in args.skip(2).iter() {
        match set.and_then(|set| set.score(member)) {
            Some(score) => reply.double(score),
            None => reply.null(),
        }
    }
    Ok(())
}

fn zrank(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    rank(view, args, reply, false, "zrank")
}

fn zrevrank(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    rank(view, args, reply, true, "zrevrank")
}

fn rank(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    reverse: bool,
    name: &str,
) -> CommandResult {
    let with_score = match args.len() {
        3 => false,
        4 if args.is(3, "withscore") => true,
        4 => return Err(ReplyError::SYNTAX),
        _ => return Err(ReplyError::wrong_arity(name)),
    };
    match view.get::<SortedSet>(args.at(1))?.and_then(|set| set.rank(args.at(2), reverse)) {
        Some((rank, score)) => {
            if with_score {
                reply.array(2);
            }
            reply.count(rank);
            if with_score {
                reply.double(score);
            }
        }
        None if with_score => reply.null_array(),
        None => reply.null(),
    }
    Ok(())
}

fn zrandmember(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut rng = fastrand::Rng::new();
    if args.len() == 2 {
        match view.get::<SortedSet>(args.at(1))?.and_then(|set| set.random(&mut rng)) {
            Some((member, _)) => write_item(reply, member),
            None => reply.null(),
        }
        return Ok(());
    }
    random_count(args.at(2), false)?;
    let mut options = Options::new(args, 3);
    let with_scores = options.take("withscores");
    if !options.is_done() {
        return Err(ReplyError::SYNTAX);
    }
    let count = random_count(args.at(2), with_scores)?;
    let Some(set) = view.get::<SortedSet>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    if count < 0 {
        write_header(reply, count.unsigned_abs() as usize, with_scores);
        for _ in 0..count.unsigned_abs() {
            if let Some((member, score)) = set.random(&mut rng) {
                write_pair(reply, member, score, with_scores);
            }
        }
        return Ok(());
    }
    let chosen = super::random::distinct(set.len(), count as usize, &mut rng);
    write_header(reply, chosen.len(), with_scores);
    for (member, score) in super::random::pick(set.iter(0, false), &chosen) {
        write_pair(reply, member, score, with_scores);
    }
    Ok(())
}

fn zscan(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let cursor = scanning::cursor(args.at(2))?;
    let options = ScanOptions::parse(args, 3, false)?;
    let Some(set) = view.get::<SortedSet>(args.at(1))? else {
        scanning::write_header(reply, 0, 0);
        return Ok(());
    };
    let mut found: Vec<(Vec<u8>, f64)> = Vec::new();
    let next = scanning::run(cursor, options.count, |cursor| {
        let mut visited = 0;
        let next = set.scan(cursor, |member, score| {
            visited += 1;
            if options.wants(member.to_bytes(&mut NumBuf::new())) {
                found.push((member.to_vec(), score));
            }
        });
        (next, visited)
    });
    scanning::write_header(reply, next, found.len() * 2);
    for (member, score) in &found {
        reply.bulk(member);
        let mut buffer = crate::types::number::FloatBuf::new();
        reply.bulk(crate::types::number::format_f64(*score, &mut buffer));
    }
    Ok(())
}
