//! Deadlines of a hash's fields, as of Redis 7.4.

use smallvec::SmallVec;

use super::arguments::{integer, integer_in};
use super::deadline::{TimeUnit, invalid};
use super::keys::{KeySpec, access::*, key_at};
use super::spec::Arity::AtLeast;
use super::spec::{CommandSpec, Group};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::hash::Hash;

const READ: &[KeySpec] = &[key_at(1, RO | ACCESS)];
const CHANGE: &[KeySpec] = &[key_at(1, RW | UPDATE)];

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("hexpire", Group::Hash, AtLeast(6), hexpire).write().fast().keys(CHANGE).doc(
        "Sets the time to live of fields in seconds.",
        "7.4.0",
        "O(log N) per field",
        "key seconds:integer [condition<NX | XX | GT | LT>] FIELDS fields(numfields:integer field...)",
    ),
    CommandSpec::data("hpexpire", Group::Hash, AtLeast(6), hpexpire).write().fast().keys(CHANGE).doc(
        "Sets the time to live of fields in milliseconds.",
        "7.4.0",
        "O(log N) per field",
        "key milliseconds:integer [condition<NX | XX | GT | LT>] FIELDS fields(numfields:integer field...)",
    ),
    CommandSpec::data("hexpireat", Group::Hash, AtLeast(6), hexpireat).write().fast().keys(CHANGE).doc(
        "Sets the Unix time at which fields expire.",
        "7.4.0",
        "O(log N) per field",
        "key unix-time-seconds:unix-time [condition<NX | XX | GT | LT>] \
            FIELDS fields(numfields:integer field...)",
    ),
    CommandSpec::data("hpexpireat", Group::Hash, AtLeast(6), hpexpireat).write().fast().keys(CHANGE).doc(
        "Sets the Unix time in milliseconds at which fields expire.",
        "7.4.0",
        "O(log N) per field",
        "key unix-time-milliseconds:unix-time [condition<NX | XX | GT | LT>] \
            FIELDS fields(numfields:integer field...)",
    ),
    CommandSpec::data("httl", Group::Hash, AtLeast(5), httl).uncached().readonly().fast().keys(READ).doc(
        "Returns the time to live of fields in seconds.",
        "7.4.0",
        "O(1) per field",
        "key FIELDS fields(numfields:integer field...)",
    ),
    CommandSpec::data("hpttl", Group::Hash, AtLeast(5), hpttl).uncached().readonly().fast().keys(READ).doc(
        "Returns the time to live of fields in milliseconds.",
        "7.4.0",
        "O(1) per field",
        "key FIELDS fields(numfields:integer field...)",
    ),
    CommandSpec::data("hexpiretime", Group::Hash, AtLeast(5), hexpiretime)
        .uncached()
        .readonly()
        .fast()
        .keys(READ)
        .doc(
            "Returns the Unix time at which fields expire.",
            "7.4.0",
            "O(1) per field",
            "key FIELDS fields(numfields:integer field...)",
        ),
    CommandSpec::data("hpexpiretime", Group::Hash, AtLeast(5), hpexpiretime)
        .uncached()
        .readonly()
        .fast()
        .keys(READ)
        .doc(
            "Returns the Unix time in milliseconds at which fields expire.",
            "7.4.0",
            "O(1) per field",
            "key FIELDS fields(numfields:integer field...)",
        ),
    CommandSpec::data("hpersist", Group::Hash, AtLeast(5), hpersist).shrink().fast().keys(CHANGE).doc(
        "Takes the deadlines of fields from them.",
        "7.4.0",
        "O(log N) per field",
        "key FIELDS fields(numfields:integer field...)",
    ),
];

/// What is replied for a field that is not there.
const NO_FIELD: i64 = -2;
/// For one without a deadline.
const NO_DEADLINE: i64 = -1;

/// The latest deadline that may be asked for, in milliseconds since the Unix epoch: a quarter of what a hash can hold, as in
/// Redis.
const LAST_DEADLINE: i64 = (crate::types::hash::LAST_DEADLINE >> 2) as i64;

/// One reply for each field, mostly of a few.
type Replies = SmallVec<[i64; 8]>;

fn hexpire(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire(view, args, reply, TimeUnit::Seconds, "hexpire")
}

fn hpexpire(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire(view, args, reply, TimeUnit::Millis, "hpexpire")
}

fn hexpireat(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire(view, args, reply, TimeUnit::UnixSeconds, "hexpireat")
}

fn hpexpireat(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    expire(view, args, reply, TimeUnit::UnixMillis, "hpexpireat")
}

/// When a deadline may be changed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    Always,
    IfNone,
    IfSome,
    IfLater,
    IfEarlier,
}

impl Condition {
    fn named(word: &[u8]) -> Option<Self> {
        Some(match word.to_ascii_lowercase().as_slice() {
            b"nx" => Self::IfNone,
            b"xx" => Self::IfSome,
            b"gt" => Self::IfLater,
            b"lt" => Self::IfEarlier,
            _ => return None,
        })
    }

    /// A field without a deadline counts as one that expires infinitely late.
    fn allows(self, current: Option<u64>, new: u64) -> bool {
        match self {
            Self::Always => true,
            Self::IfNone => current.is_none(),
            Self::IfSome => current.is_some(),
            Self::IfLater => current.is_some_and(|current| new > current),
            Self::IfEarlier => current.is_none_or(|current| new < current),
        }
    }
}

/// The fields named from `at` on: `FIELDS numfields field ...`, up to the end.
fn fields<'a>(args: Args<'a>, at: usize, count_error: &'static str) -> Result<Args<'a>, ReplyError> {
    if !args.get(at).is_some_and(|word| word.eq_ignore_ascii_case(b"fields")) {
        return Err(ReplyError::fixed(
            "ERR Mandatory argument FIELDS is missing or not at the right position",
        ));
    }
    let count = integer_in(args.get(at + 1).unwrap_or_default(), 1..=i64::MAX, count_error)?;
    let fields = args.skip(at + 2);
    if count as u64 != fields.len() as u64 {
        return Err(ReplyError::fixed("ERR The `numfields` parameter must match the number of arguments"));
    }
    Ok(fields)
}

const NOT_A_COUNT: &str = "ERR Number of fields must be a positive integer";

fn write_all(reply: &mut Reply<'_>, replies: &[i64]) {
    reply.array(replies.len());
    replies.iter().for_each(|value| reply.integer(*value));
}

/// The deadline that is asked for, in milliseconds since the Unix epoch.
fn deadline(unit: TimeUnit, argument: &[u8], now_ms: u64, name: &str) -> Result<u64, ReplyError> {
    if integer(argument)? < 0 {
        return Err(ReplyError::fixed("ERR invalid expire time, must be >= 0"));
    }
    let deadline = unit.deadline(argument, now_ms, name)?;
    if deadline > LAST_DEADLINE { Err(invalid(name)) } else { Ok(deadline as u64) }
}

fn expire(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    unit: TimeUnit,
    name: &str,
) -> CommandResult {
    let (key, now_ms) = (args.at(1), view.now_ms());
    // That the key holds another type is said before all else.
    view.peek_as::<Hash>(key)?;
    let deadline = deadline(unit, args.at(2), now_ms, name)?;
    let condition = Condition::named(args.at(3));
    let at = if condition.is_some() { 4 } else { 3 };
    let condition = condition.unwrap_or(Condition::Always);
    let fields = fields(args, at, "ERR Parameter `numFields` should be greater than 0")?;
    // Whoever asks for a time that is over wants the fields gone.
    let is_over = deadline <= now_ms;
    let event = Event::hash(if is_over { "hdel" } else { "hexpire" });
    let replies = view.edit(key, event, |hash: &mut Hash| {
        hash.prepare_deadlines();
        let set = |field: &[u8]| {
            if !hash.contains(field) {
                return NO_FIELD;
            }
            if !condition.allows(hash.deadline(field), deadline) {
                return 0;
            }
            if is_over {
                hash.remove(field);
                return 2;
            }
            hash.set_deadline(field, deadline);
            1
        };
        let replies: Replies = fields.iter().map(set).collect();
        let changed = replies.iter().any(|reply| *reply > 0);
        (replies, changed)
    })?;
    write_all(reply, &replies.unwrap_or_else(|| fields.iter().map(|_| NO_FIELD).collect()));
    Ok(())
}

fn httl(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadlines(view, args, reply, |deadline, now| deadline.saturating_sub(now).div_ceil(1000))
}

fn hpttl(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadlines(view, args, reply, u64::saturating_sub)
}

fn hexpiretime(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadlines(view, args, reply, |deadline, _| deadline.div_ceil(1000))
}

fn hpexpiretime(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_deadlines(view, args, reply, |deadline, _| deadline)
}

/// For each field what `shown` makes of its deadline and of now.
fn write_deadlines(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    shown: impl Fn(u64, u64) -> u64,
) -> CommandResult {
    let now_ms = view.now_ms();
    let hash = view.get::<Hash>(args.at(1))?;
    let fields = fields(args, 2, NOT_A_COUNT)?;
    let show = |field: &[u8]| match hash.filter(|hash| hash.contains(field)) {
        None => NO_FIELD,
        Some(hash) => hash.deadline(field).map_or(NO_DEADLINE, |deadline| shown(deadline, now_ms) as i64),
    };
    let replies: Replies = fields.iter().map(show).collect();
    write_all(reply, &replies);
    Ok(())
}

fn hpersist(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let key = args.at(1);
    view.peek_as::<Hash>(key)?;
    let fields = fields(args, 2, NOT_A_COUNT)?;
    let replies = view.edit(key, Event::hash("hpersist"), |hash: &mut Hash| {
        let clear = |field: &[u8]| match (hash.contains(field), hash.clear_deadline(field)) {
            (false, _) => NO_FIELD,
            (true, false) => NO_DEADLINE,
            (true, true) => 1,
        };
        let replies: Replies = fields.iter().map(clear).collect();
        let changed = replies.contains(&1);
        (replies, changed)
    })?;
    write_all(reply, &replies.unwrap_or_else(|| fields.iter().map(|_| NO_FIELD).collect()));
    Ok(())
}
