//! Strings: `GET`, `SET` and their family.

use super::arguments::{Options, integer};
use super::deadline::TimeUnit;
use super::keys::{access::*, key_at, keys_in};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Group};
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, Expiry, ValueRef, View};
use crate::types::listpack::{Item, NumBuf};

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("get", Group::String, Exactly(2), get)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO | ACCESS)])
        .doc("Returns the string value of a key.", "1.0.0", "O(1)", "key"),
    CommandSpec::data("set", Group::String, AtLeast(3), set)
        .write()
        .keys(&[key_at(1, RW | ACCESS | UPDATE | VARIABLE_FLAGS)])
        .key_flags(set_key_flags)
        .doc(
            "Sets a key to a string, whatever it held before.",
            "1.0.0",
            "O(1)",
            "key value [condition<NX | XX>@2.6.12] [GET@6.2.0] [expiration<EX \
            seconds:integer@2.6.12 | PX milliseconds:integer@2.6.12 | EXAT \
            unix-time-seconds:unix-time@6.2.0 | PXAT unix-time-milliseconds:unix-time@6.2.0 | \
            KEEPTTL@6.0.0>]",
        ),
    CommandSpec::data("setnx", Group::String, Exactly(3), setnx)
        .write()
        .fast()
        .keys(&[key_at(1, OW | INSERT)])
        .doc("Sets a key to a string if there is no such key.", "1.0.0", "O(1)", "key value")
        .deprecated("2.6.12", "`SET` with the `NX` argument"),
    CommandSpec::data("setex", Group::String, Exactly(4), setex)
        .write()
        .keys(&[key_at(1, OW | UPDATE)])
        .doc(
            "Sets a key to a string that expires after some seconds.",
            "2.0.0",
            "O(1)",
            "key seconds:integer value",
        )
        .deprecated("2.6.12", "`SET` with the `EX` argument"),
    CommandSpec::data("psetex", Group::String, Exactly(4), psetex)
        .write()
        .keys(&[key_at(1, OW | UPDATE)])
        .doc(
            "Sets a key to a string that expires after some milliseconds.",
            "2.6.0",
            "O(1)",
            "key milliseconds:integer value",
        )
        .deprecated("2.6.12", "`SET` with the `PX` argument"),
    CommandSpec::data("getset", Group::String, Exactly(3), getset)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Sets a key to a string and returns the one it held.", "1.0.0", "O(1)", "key value")
        .deprecated("6.2.0", "`SET` with the `!GET` argument"),
    CommandSpec::data("getdel", Group::String, Exactly(2), getdel)
        .shrink()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | DELETE)])
        .doc("Returns the string value of a key and removes the key.", "6.2.0", "O(1)", "key"),
    CommandSpec::data("getex", Group::String, AtLeast(2), getex)
        .shrink()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc(
            "Returns the string value of a key and changes its expiry.",
            "6.2.0",
            "O(1)",
            "key [expiration<EX seconds:integer | PX milliseconds:integer | EXAT \
            unix-time-seconds:unix-time | PXAT unix-time-milliseconds:unix-time | PERSIST>]",
        ),
    CommandSpec::data("mget", Group::String, AtLeast(2), mget)
        .readonly()
        .fast()
        .keys(&[keys_in(1, -1, 1, RO | ACCESS)])
        .tips(&["request_policy:multi_shard"])
        .doc("Returns the string values of several keys.", "1.0.0", "O(N) in the number of keys", "key..."),
    CommandSpec::data("mset", Group::String, AtLeast(3), mset)
        .write()
        .keys(&[keys_in(1, -1, 2, OW | UPDATE)])
        .tips(&["request_policy:multi_shard", "response_policy:all_succeeded"])
        .doc(
            "Sets several keys to strings, all at once.",
            "1.0.1",
            "O(N) in the number of keys",
            "data(key value)...",
        ),
    CommandSpec::data("msetnx", Group::String, AtLeast(3), msetnx)
        .write()
        .keys(&[keys_in(1, -1, 2, OW | INSERT)])
        .doc(
            "Sets several keys to strings if none of them exists.",
            "1.0.1",
            "O(N) in the number of keys",
            "data(key value)...",
        ),
    CommandSpec::data("append", Group::String, Exactly(3), append)
        .write()
        .fast()
        .keys(&[key_at(1, RW | INSERT)])
        .doc("Appends to the string at a key.", "2.0.0", "O(1) amortised", "key value"),
    CommandSpec::data("strlen", Group::String, Exactly(2), strlen)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO)])
        .doc("Returns the length of the string at a key.", "2.2.0", "O(1)", "key"),
    CommandSpec::data("setrange", Group::String, Exactly(4), setrange)
        .write()
        .keys(&[key_at(1, RW | UPDATE)])
        .doc(
            "Overwrites part of the string at a key.",
            "2.2.0",
            "O(N) in the length written",
            "key offset:integer value",
        ),
    CommandSpec::data("getrange", Group::String, Exactly(4), getrange)
        .readonly()
        .keys(&[key_at(1, RO | ACCESS)])
        .doc(
            "Returns part of the string at a key.",
            "2.4.0",
            "O(N) in the length returned",
            "key start:integer end:integer",
        ),
    CommandSpec::data("substr", Group::String, Exactly(4), getrange)
        .readonly()
        .keys(&[key_at(1, RO | ACCESS)])
        .doc(
            "The old name of GETRANGE.",
            "1.0.0",
            "O(N) in the length returned",
            "key start:integer end:integer",
        )
        .deprecated("2.0.0", "`GETRANGE`"),
    CommandSpec::data("incr", Group::String, Exactly(2), incr)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Adds one to the integer at a key.", "1.0.0", "O(1)", "key"),
    CommandSpec::data("decr", Group::String, Exactly(2), decr)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Takes one from the integer at a key.", "1.0.0", "O(1)", "key"),
    CommandSpec::data("incrby", Group::String, Exactly(3), incrby)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Adds to the integer at a key.", "1.0.0", "O(1)", "key increment:integer"),
    CommandSpec::data("decrby", Group::String, Exactly(3), decrby)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Takes from the integer at a key.", "1.0.0", "O(1)", "key decrement:integer"),
    CommandSpec::data("incrbyfloat", Group::String, Exactly(3), incrbyfloat)
        .write()
        .fast()
        .keys(&[key_at(1, RW | ACCESS | UPDATE)])
        .doc("Adds to the floating point number at a key.", "2.6.0", "O(1)", "key increment:double"),
    CommandSpec::data("lcs", Group::String, AtLeast(3), lcs)
        .readonly()
        .keys(&[keys_in(1, 1, 1, RO | ACCESS)])
        .doc(
            "Finds the longest common subsequence of two strings.",
            "7.0.0",
            "O(N*M) in the two lengths",
            "key1:key key2:key#0 [LEN] [IDX] [MINMATCHLEN min-match-len:integer] [WITHMATCHLEN]",
        ),
];

#[inline]
pub fn write_item(reply: &mut Reply<'_>, item: Item<'_>) {
    match item {
        Item::Bytes(bytes) => reply.bulk(bytes),
        Item::Int(integer) => reply.bulk_integer(integer),
    }
}

/// `SET` reads what it overwrites only with `GET`.
fn set_key_flags(args: Args<'_>) -> u16 {
    if args.skip(3).iter().any(|option| option.eq_ignore_ascii_case(b"get")) {
        RW | ACCESS | UPDATE
    } else {
        OW | UPDATE
    }
}

/// Writes a string, in whichever form it is kept.
fn write_string(reply: &mut Reply<'_>, item: Option<Item<'_>>) {
    match item {
        Some(item) => write_item(reply, item),
        None => reply.null(),
    }
}

fn get(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_string(reply, view.string(args.at(1))?);
    Ok(())
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Condition {
    #[default]
    Always,
    IfAbsent,
    IfPresent,
}

fn set(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, value) = (args.at(1), args.at(2));
    if args.len() == 3 {
        view.set_string(key, value, Expiry::Never, Event::string("set"));
        reply.ok();
        return Ok(());
    }
    let (mut condition, mut returns_old, mut expiry) = (Condition::Always, false, None);
    let mut options = Options::new(args, 3);
    while !options.is_done() {
        if condition == Condition::Always && options.take("nx") {
            condition = Condition::IfAbsent;
        } else if condition == Condition::Always && options.take("xx") {
            condition = Condition::IfPresent;
        } else if options.take("get") {
            returns_old = true;
        } else if expiry.is_none() && options.take("keepttl") {
            expiry = Some(None);
        } else if expiry.is_none() {
            let unit = time_unit(&mut options).ok_or(ReplyError::SYNTAX)?;
            expiry = Some(Some((unit, options.value()?)));
        } else if repeats(&mut options, condition) {
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    let now_ms = view.now_ms();
    let expiry = match expiry {
        None => Expiry::Never,
        Some(None) => Expiry::Keep,
        Some(Some((unit, time))) => Expiry::At(unit.positive_deadline(time, now_ms, "set")?),
    };
    if returns_old {
        write_string(reply, view.string(key)?);
    }
    let allowed = match condition {
        Condition::Always => true,
        Condition::IfAbsent => !view.contains(key),
        Condition::IfPresent => view.contains(key),
    };
    if allowed {
        view.set_string(key, value, expiry, Event::string("set"));
        if let Expiry::At(_) = expiry {
            view.announce(key, Event::generic("expire"));
        }
    }
    match (returns_old, allowed) {
        (true, _) => {}
        (false, true) => reply.ok(),
        (false, false) => reply.null(),
    }
    Ok(())
}

/// Whether the next word repeats the condition that was given already, which is allowed.
fn repeats(options: &mut Options<'_>, condition: Condition) -> bool {
    match condition {
        Condition::Always => false,
        Condition::IfAbsent => options.take("nx"),
        Condition::IfPresent => options.take("xx"),
    }
}

fn time_unit(options: &mut Options<'_>) -> Option<TimeUnit> {
    [
        ("ex", TimeUnit::Seconds),
        ("px", TimeUnit::Millis),
        ("exat", TimeUnit::UnixSeconds),
        ("pxat", TimeUnit::UnixMillis),
    ]
    .into_iter()
    .find_map(|(word, unit)| options.take_with(word, 1).then_some(unit))
}

fn setnx(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let absent = !view.contains(args.at(1));
    if absent {
        view.set_string(args.at(1), args.at(2), Expiry::Never, Event::string("set"));
    }
    reply.integer(absent.into());
    Ok(())
}

fn setex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_expiring(view, args, reply, TimeUnit::Seconds, "setex")
}

fn psetex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    set_expiring(view, args, reply, TimeUnit::Millis, "psetex")
}

fn set_expiring(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    unit: TimeUnit,
    name: &str,
) -> CommandResult {
    let deadline = unit.positive_deadline(args.at(2), view.now_ms(), name)?;
    view.set_string(args.at(1), args.at(3), Expiry::At(deadline), Event::string("set"));
    view.announce(args.at(1), Event::generic("expire"));
    reply.ok();
    Ok(())
}

fn getset(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_string(reply, view.string(args.at(1))?);
    view.set_string(args.at(1), args.at(2), Expiry::Never, Event::string("set"));
    Ok(())
}

fn getdel(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_string(reply, view.string(args.at(1))?);
    view.delete(args.at(1), Event::DEL);
    Ok(())
}

fn getex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut options = Options::new(args, 2);
    let change = if options.is_done() {
        None
    } else if options.take("persist") {
        Some(None)
    } else {
        Some(Some((time_unit(&mut options).ok_or(ReplyError::SYNTAX)?, options.value()?)))
    };
    if !options.is_done() {
        return Err(ReplyError::SYNTAX);
    }
    let (key, now_ms) = (args.at(1), view.now_ms());
    write_string(reply, view.string(key)?);
    let Some(info) = view.info(key) else { return Ok(()) };
    match change {
        None => {}
        Some(None) if info.deadline.is_none() => {}
        Some(None) => drop(view.set_deadline(key, None, Event::generic("persist"))),
        Some(Some((unit, time))) => {
            let deadline = unit.positive_deadline(time, now_ms, "getex")?;
            if deadline <= now_ms {
                view.delete(key, Event::DEL);
            } else {
                view.set_deadline(key, Some(deadline), Event::generic("expire"));
            }
        }
    }
    Ok(())
}

fn mget(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.array(args.len() - 1);
    for key in args.skip(1).iter() {
        match view.read(key) {
            Some(ValueRef::String(item)) => write_item(reply, item),
            _ => reply.null(),
        }
    }
    Ok(())
}

fn mset(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(ReplyError::wrong_arity("mset"));
    }
    set_all(view, args);
    reply.ok();
    Ok(())
}

fn msetnx(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if args.len().is_multiple_of(2) {
        return Err(ReplyError::wrong_arity("msetnx"));
    }
    let any = args.skip(1).iter().step_by(2).any(|key| view.contains(key));
    if !any {
        set_all(view, args);
    }
    reply.integer((!any).into());
    Ok(())
}

fn set_all(view: &mut View<'_>, args: Args<'_>) {
    for index in (1..args.len()).step_by(2) {
        view.set_string(args.at(index), args.at(index + 1), Expiry::Never, Event::string("set"));
    }
}

fn append(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, value) = (args.at(1), args.at(2));
    let max = view.settings().int(Id::ProtoMaxBulkLen) as usize;
    if !view.contains(key) {
        // A new key takes its value as SET would, an integer as an integer.
        view.set_string(key, value, Expiry::Never, Event::string("append"));
        reply.count(value.len());
        return Ok(());
    }
    let len = view.edit_string(key, Event::string("append"), |bytes| {
        if bytes.len() + value.len() > max {
            return (Err(ReplyError::STRING_TOO_LONG), false);
        }
        bytes.extend_from_slice(value);
        (Ok(bytes.len()), true)
    })??;
    reply.count(len);
    Ok(())
}

fn strlen(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let len = view.string(args.at(1))?.map_or(0, |item| item.to_bytes(&mut NumBuf::new()).len());
    reply.count(len);
    Ok(())
}

fn setrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, value) = (args.at(1), args.at(3));
    let offset = integer(args.at(2))?;
    if offset < 0 {
        return Err(ReplyError::fixed("ERR offset is out of range"));
    }
    let current = match view.peek(key) {
        None => 0,
        Some(ValueRef::String(item)) => item.to_bytes(&mut NumBuf::new()).len(),
        Some(_) => return Err(ReplyError::WRONG_TYPE),
    };
    if value.is_empty() {
        reply.count(current);
        return Ok(());
    }
    let end = (offset as usize).saturating_add(value.len());
    if end > view.settings().int(Id::ProtoMaxBulkLen) as usize {
        return Err(ReplyError::STRING_TOO_LONG);
    }
    let len = view.edit_string(key, Event::string("setrange"), |bytes| {
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(value);
        (bytes.len(), true)
    })?;
    reply.count(len);
    Ok(())
}

fn getrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, end) = (integer(args.at(2))?, integer(args.at(3))?);
    let Some(item) = view.string(args.at(1))? else {
        reply.bulk(b"");
        return Ok(());
    };
    let mut buffer = NumBuf::new();
    let bytes = item.to_bytes(&mut buffer);
    reply.bulk(&bytes[byte_range(bytes.len(), start, end)]);
    Ok(())
}

/// The range between two indices that may count from the end; empty if they cross.
pub fn byte_range(len: usize, start: i64, end: i64) -> std::ops::Range<usize> {
    if start < 0 && end < 0 && start > end {
        return 0..0;
    }
    let len = len as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(len).max(0) } else { index };
    let (start, end) = (from_end(start), from_end(end).min(len - 1));
    if len == 0 || start > end { 0..0 } else { start as usize..end as usize + 1 }
}

fn incr(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.integer(view.increment(args.at(1), 1, Event::string("incrby"))?);
    Ok(())
}

fn decr(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.integer(view.increment(args.at(1), -1, Event::string("incrby"))?);
    Ok(())
}

fn incrby(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let by = integer(args.at(2))?;
    reply.integer(view.increment(args.at(1), by, Event::string("incrby"))?);
    Ok(())
}

fn decrby(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let by = integer(args.at(2))?.checked_neg().ok_or(ReplyError::fixed("ERR decrement would overflow"))?;
    reply.integer(view.increment(args.at(1), by, Event::string("incrby"))?);
    Ok(())
}

fn incrbyfloat(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    use crate::types::number::{LongDouble, LongDoubleError};
    let key = args.at(1);
    let current = match view.peek(key) {
        None => LongDouble::ZERO,
        Some(ValueRef::String(item)) => {
            LongDouble::parse(item.to_bytes(&mut NumBuf::new())).ok_or(ReplyError::NOT_FLOAT)?
        }
        Some(_) => return Err(ReplyError::WRONG_TYPE),
    };
    if LongDouble::is_infinity(args.at(2)) {
        return Err(ReplyError::NAN_OR_INFINITY);
    }
    let by = LongDouble::parse(args.at(2)).ok_or(ReplyError::NOT_FLOAT)?;
    let sum = current.plus(by).map_err(|LongDoubleError| ReplyError::NAN_OR_INFINITY)?.to_text();
    view.set_string(key, &sum, Expiry::Keep, Event::string("incrbyfloat"));
    reply.bulk(&sum);
    Ok(())
}

/// What `LCS` is asked for.
#[derive(Default)]
struct LcsOptions {
    length_only: bool,
    indices: bool,
    min_match: i64,
    with_lengths: bool,
}

fn lcs(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let mut wanted = LcsOptions::default();
    let mut options = Options::new(args, 3);
    while !options.is_done() {
        if options.take("idx") {
            wanted.indices = true;
        } else if options.take("len") {
            wanted.length_only = true;
        } else if options.take("withmatchlen") {
            wanted.with_lengths = true;
        } else if options.take_with("minmatchlen", 1) {
            wanted.min_match = integer(options.value()?)?.max(0);
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    if wanted.indices && wanted.length_only {
        return Err(ReplyError::fixed("ERR If you want both the length and indexes, please just use IDX."));
    }
    let mut operand = |key| match view.read(key) {
        None => Ok(Vec::new()),
        Some(ValueRef::String(item)) => Ok(item.to_vec()),
        Some(_) => Err(ReplyError::fixed("ERR The specified keys must contain string values")),
    };
    let (first, second) = (operand(args.at(1))?, operand(args.at(2))?);
    let cells = (first.len() as u64 + 1).saturating_mul(second.len() as u64 + 1);
    if cells.saturating_mul(4) > 1 << 32 {
        return Err(ReplyError::fixed("ERR Insufficient memory, failed allocating transient memory for LCS"));
    }
    write_lcs(reply, &first, &second, &wanted);
    Ok(())
}

/// One run that both strings share: where it begins in each, and its length.
type Match = (usize, usize, usize);

fn write_lcs(reply: &mut Reply<'_>, first: &[u8], second: &[u8], wanted: &LcsOptions) {
    let (subsequence, matches) = longest_common_subsequence(first, second);
    if wanted.length_only {
        return reply.count(subsequence.len());
    }
    if !wanted.indices {
        return reply.bulk(&subsequence);
    }
    let matches: Vec<Match> =
        matches.into_iter().filter(|(_, _, len)| *len as i64 >= wanted.min_match).collect();
    reply.map(2);
    reply.bulk(b"matches");
    reply.array(matches.len());
    for (in_first, in_second, len) in matches {
        reply.array(if wanted.with_lengths { 3 } else { 2 });
        for start in [in_first, in_second] {
            reply.array(2);
            reply.count(start);
            reply.count(start + len - 1);
        }
        if wanted.with_lengths {
            reply.count(len);
        }
    }
    reply.bulk(b"len");
    reply.count(subsequence.len());
}

/// The textbook table, walked back from its end; the runs come last first.
fn longest_common_subsequence(first: &[u8], second: &[u8]) -> (Vec<u8>, Vec<Match>) {
    let width = second.len() + 1;
    let mut table = vec![0u32; (first.len() + 1) * width];
    for (i, a) in first.iter().enumerate() {
        for (j, b) in second.iter().enumerate() {
            table[(i + 1) * width + j + 1] = if a == b {
                table[i * width + j] + 1
            } else {
                table[i * width + j + 1].max(table[(i + 1) * width + j])
            };
        }
    }
    let (mut i, mut j) = (first.len(), second.len());
    let (mut subsequence, mut matches): (Vec<u8>, Vec<Match>) = (Vec::new(), Vec::new());
    while i > 0 && j > 0 {
        if first[i - 1] == second[j - 1] {
            subsequence.push(first[i - 1]);
            match matches.last_mut() {
                Some(run) if run.0 == i && run.1 == j => *run = (i - 1, j - 1, run.2 + 1),
                _ => matches.push((i - 1, j - 1, 1)),
            }
            (i, j) = (i - 1, j - 1);
        } else if table[(i - 1) * width + j] > table[i * width + j - 1] {
            i -= 1;
        } else {
            j -= 1;
        }
    }
    subsequence.reverse();
    (subsequence, matches)
}
