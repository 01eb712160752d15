//! Lists, with the forms that wait.

use super::arguments::{Options, integer, integer_in, timeout};
use super::keys::{KeySpec, access::*, counted_keys, key_at, keys_in};
use super::routing::Rewriting;
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{Attempt, CommandSpec, Group, OnTimeout, flag};
use super::strings::write_item;
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::list::{End, List};

const POP: &[KeySpec] = &[key_at(1, RW | ACCESS | DELETE)];
const PUSH: &[KeySpec] = &[key_at(1, RW | INSERT)];
const MOVE: &[KeySpec] = &[key_at(1, RW | ACCESS | DELETE), key_at(2, RW | INSERT)];
const SEVERAL: &[KeySpec] = &[keys_in(1, -2, 1, RW | ACCESS | DELETE)];

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::data("lpush", Group::List, AtLeast(3), lpush).write().fast().keys(PUSH).doc(
        "Adds elements at the left.",
        "1.0.0",
        "O(1) per element",
        "key element...",
    ),
    CommandSpec::data("rpush", Group::List, AtLeast(3), rpush).write().fast().keys(PUSH).doc(
        "Adds elements at the right.",
        "1.0.0",
        "O(1) per element",
        "key element...",
    ),
    CommandSpec::data("lpushx", Group::List, AtLeast(3), lpushx).write().fast().keys(PUSH).doc(
        "Adds elements at the left of a list that exists.",
        "2.2.0",
        "O(1) per element",
        "key element...",
    ),
    CommandSpec::data("rpushx", Group::List, AtLeast(3), rpushx).write().fast().keys(PUSH).doc(
        "Adds elements at the right of a list that exists.",
        "2.2.0",
        "O(1) per element",
        "key element...",
    ),
    CommandSpec::data("lpop", Group::List, AtLeast(2), lpop)
        .rewriting(Rewriting::NullArrayAbove(2))
        .shrink()
        .fast()
        .keys(POP)
        .doc(
            "Takes elements from the left.",
            "1.0.0",
            "O(N) in the elements taken",
            "key [count:integer@6.2.0]",
        ),
    CommandSpec::data("rpop", Group::List, AtLeast(2), rpop)
        .rewriting(Rewriting::NullArrayAbove(2))
        .shrink()
        .fast()
        .keys(POP)
        .doc(
            "Takes elements from the right.",
            "1.0.0",
            "O(N) in the elements taken",
            "key [count:integer@6.2.0]",
        ),
    CommandSpec::data("llen", Group::List, Exactly(2), llen).readonly().fast().keys(&[key_at(1, RO)]).doc(
        "Counts the elements.",
        "1.0.0",
        "O(1)",
        "key",
    ),
    CommandSpec::data("lindex", Group::List, Exactly(3), lindex)
        .readonly()
        .keys(&[key_at(1, RO | ACCESS)])
        .doc(
            "Returns the element at an index.",
            "1.0.0",
            "O(N) in the distance from the nearer end",
            "key index:integer",
        ),
    CommandSpec::data("lset", Group::List, Exactly(4), lset).write().keys(&[key_at(1, RW | UPDATE)]).doc(
        "Replaces the element at an index.",
        "1.0.0",
        "O(N) in the distance from the nearer end",
        "key index:integer element",
    ),
    CommandSpec::data("linsert", Group::List, Exactly(5), linsert).write().keys(PUSH).doc(
        "Adds an element beside another.",
        "2.2.0",
        "O(N) in the distance from the left",
        "key where<BEFORE | AFTER> pivot element",
    ),
    CommandSpec::data("lrange", Group::List, Exactly(4), lrange)
        .readonly()
        .keys(&[key_at(1, RO | ACCESS)])
        .doc(
            "Returns a range of elements.",
            "1.0.0",
            "O(S+N): the distance to the start and the elements returned",
            "key start:integer stop:integer",
        ),
    CommandSpec::data("lrem", Group::List, Exactly(4), lrem).shrink().keys(&[key_at(1, RW | DELETE)]).doc(
        "Removes elements equal to one given.",
        "1.0.0",
        "O(N) in the length of the list",
        "key count:integer element",
    ),
    CommandSpec::data("ltrim", Group::List, Exactly(4), ltrim).shrink().keys(&[key_at(1, RW | DELETE)]).doc(
        "Keeps only a range of elements.",
        "1.0.0",
        "O(N) in the elements removed",
        "key start:integer stop:integer",
    ),
    CommandSpec::data("lpos", Group::List, AtLeast(3), lpos).readonly().keys(&[key_at(1, RO | ACCESS)]).doc(
        "Finds the index of elements.",
        "6.0.6",
        "O(N) in the length of the list",
        "key element [RANK rank:integer] [COUNT num-matches:integer] [MAXLEN len:integer]",
    ),
    CommandSpec::data("lmove", Group::List, Exactly(5), lmove).write().keys(MOVE).doc(
        "Moves an element from one list to another.",
        "6.2.0",
        "O(1)",
        "source:key destination:key wherefrom<LEFT | RIGHT> whereto<LEFT | RIGHT>",
    ),
    CommandSpec::data("rpoplpush", Group::List, Exactly(3), rpoplpush)
        .write()
        .keys(MOVE)
        .doc(
            "Moves an element from the right of one list to the left of another.",
            "1.2.0",
            "O(1)",
            "source:key destination:key",
        )
        .deprecated("6.2.0", "`LMOVE` with the `RIGHT` and `LEFT` arguments"),
    CommandSpec::data("lmpop", Group::List, AtLeast(4), lmpop)
        .rewriting(Rewriting::NullArrayAbove(0))
        .shrink()
        .keys(&[counted_keys(1, RW | ACCESS | DELETE)])
        .with(flag::MOVABLEKEYS)
        .doc(
            "Takes elements from the first list that has some.",
            "7.0.0",
            "O(N+M): keys and elements taken",
            "numkeys:integer key... where<LEFT | RIGHT> [COUNT count:integer]",
        ),
    CommandSpec::waiting("blpop", Group::List, AtLeast(3), blpop).shrink().keys(SEVERAL).doc(
        "Takes an element from the left, waiting for one.",
        "2.0.0",
        "O(N) in the number of keys",
        "key... timeout:double",
    ),
    CommandSpec::waiting("brpop", Group::List, AtLeast(3), brpop).shrink().keys(SEVERAL).doc(
        "Takes an element from the right, waiting for one.",
        "2.0.0",
        "O(N) in the number of keys",
        "key... timeout:double",
    ),
    CommandSpec::waiting("blmove", Group::List, Exactly(6), blmove).write().keys(MOVE).doc(
        "Moves an element from one list to another, waiting for one.",
        "6.2.0",
        "O(1)",
        "source:key destination:key wherefrom<LEFT | RIGHT> whereto<LEFT | RIGHT> \
            timeout:double",
    ),
    CommandSpec::waiting("brpoplpush", Group::List, Exactly(4), brpoplpush)
        .write()
        .keys(MOVE)
        .doc(
            "Moves an element from the right of one list to the left of another, waiting for one.",
            "2.2.0",
            "O(1)",
            "source:key destination:key timeout:double",
        )
        .deprecated("6.2.0", "`BLMOVE` with the `RIGHT` and `LEFT` arguments"),
    CommandSpec::waiting("blmpop", Group::List, AtLeast(5), blmpop)
        .shrink()
        .keys(&[counted_keys(2, RW | ACCESS | DELETE)])
        .with(flag::MOVABLEKEYS)
        .doc(
            "Takes elements from the first list that has some, waiting for one.",
            "7.0.0",
            "O(N+M): keys and elements taken",
            "timeout:double numkeys:integer key... where<LEFT | RIGHT> [COUNT count:integer]",
        ),
];

fn node_limit(view: &View<'_>) -> i32 {
    view.settings().int(Id::ListMaxListpackSize) as i32
}

fn push_event(end: End) -> Event {
    Event::list(if end == End::Head { "lpush" } else { "rpush" })
}

fn pop_event(end: End) -> Event {
    Event::list(if end == End::Head { "lpop" } else { "rpop" })
}

fn parse_end(argument: &[u8]) -> Result<End, ReplyError> {
    if argument.eq_ignore_ascii_case(b"left") {
        Ok(End::Head)
    } else if argument.eq_ignore_ascii_case(b"right") {
        Ok(End::Tail)
    } else {
        Err(ReplyError::SYNTAX)
    }
}

fn lpush(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push(view, args, reply, End::Head)
}

fn rpush(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push(view, args, reply, End::Tail)
}

fn push(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>, end: End) -> CommandResult {
    let limit = node_limit(view);
    let len = view.upsert(args.at(1), push_event(end), |list: &mut List| {
        push_all(list, args, end, limit);
        (list.len(), true)
    })?;
    reply.count(len);
    Ok(())
}

fn push_all(list: &mut List, args: Args<'_>, end: End, limit: i32) {
    list.prepare(args.skip(2).iter(), limit);
    args.skip(2).iter().for_each(|element| list.push(end, element, limit));
}

fn lpushx(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push_existing(view, args, reply, End::Head)
}

fn rpushx(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    push_existing(view, args, reply, End::Tail)
}

fn push_existing(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>, end: End) -> CommandResult {
    let limit = node_limit(view);
    let len = view.edit(args.at(1), push_event(end), |list: &mut List| {
        push_all(list, args, end, limit);
        (list.len(), true)
    })?;
    reply.count(len.unwrap_or(0));
    Ok(())
}

fn lpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(view, args, reply, End::Head, "lpop")
}

fn rpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(view, args, reply, End::Tail, "rpop")
}

fn pop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>, end: End, name: &str) -> CommandResult {
    if args.len() > 3 {
        return Err(ReplyError::wrong_arity(name));
    }
    let count = args.get(2).map(super::arguments::positive).transpose()?;
    let Some(count) = count else {
        if !pop_one(view, args.at(1), end, reply)? {
            reply.null();
        }
        return Ok(());
    };
    let key = args.at(1);
    match view.peek_as::<List>(key)? {
        None => reply.null_array(),
        Some(_) if count == 0 => reply.array(0),
        Some(_) => pop_many(view, key, end, count as usize, reply)?,
    }
    Ok(())
}

/// Takes one element and writes it; says whether there was one.
fn pop_one(view: &mut View<'_>, key: &[u8], end: End, reply: &mut Reply<'_>) -> Result<bool, ReplyError> {
    let limit = node_limit(view);
    let popped = view.edit(key, pop_event(end), |list: &mut List| {
        list.pop(end, |item| write_item(reply, item));
        list.shrink(limit);
        ((), true)
    })?;
    Ok(popped.is_some())
}

/// Takes up to `count` elements of a list that exists and writes them as an array.
fn pop_many(
    view: &mut View<'_>,
    key: &[u8],
    end: End,
    count: usize,
    reply: &mut Reply<'_>,
) -> Result<(), ReplyError> {
    let limit = node_limit(view);
    view.edit(key, pop_event(end), |list: &mut List| {
        let count = count.min(list.len());
        reply.array(count);
        for _ in 0..count {
            list.pop(end, |item| write_item(reply, item));
        }
        list.shrink(limit);
        ((), true)
    })?;
    Ok(())
}

fn llen(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(view.get::<List>(args.at(1))?.map_or(0, List::len));
    Ok(())
}

fn lindex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(list) = view.get::<List>(args.at(1))? else {
        reply.null();
        return Ok(());
    };
    match list.get(integer(args.at(2))?) {
        Some(item) => write_item(reply, item),
        None => reply.null(),
    }
    Ok(())
}

fn lset(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limit = node_limit(view);
    let Some(_) = view.peek_as::<List>(args.at(1))? else { return Err(ReplyError::NO_SUCH_KEY) };
    let index = integer(args.at(2))?;
    let found = view.edit(args.at(1), Event::list("lset"), |list: &mut List| {
        let found = list.set(index, args.at(3), limit);
        list.shrink(limit);
        (found, found)
    })?;
    if found != Some(true) {
        return Err(ReplyError::INDEX_OUT_OF_RANGE);
    }
    reply.ok();
    Ok(())
}

fn linsert(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let before = match args.at(2) {
        word if word.eq_ignore_ascii_case(b"before") => true,
        word if word.eq_ignore_ascii_case(b"after") => false,
        _ => return Err(ReplyError::SYNTAX),
    };
    let limit = node_limit(view);
    let len = view.edit(args.at(1), Event::list("linsert"), |list: &mut List| {
        let found = list.insert(args.at(3), before, args.at(4), limit);
        (if found { list.len() as i64 } else { -1 }, found)
    })?;
    reply.integer(len.unwrap_or(0));
    Ok(())
}

/// The first index and the number of elements of a range that may count from the end.
pub fn index_range(len: usize, start: i64, stop: i64) -> (usize, usize) {
    let len = len as i64;
    let from_end = |index: i64| if index < 0 { index.saturating_add(len) } else { index };
    let (start, stop) = (from_end(start).max(0), from_end(stop).min(len - 1));
    if start > stop || start >= len { (0, 0) } else { (start as usize, (stop - start + 1) as usize) }
}

fn lrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, stop) = (integer(args.at(2))?, integer(args.at(3))?);
    let Some(list) = view.get::<List>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let (start, count) = index_range(list.len(), start, stop);
    reply.array(count);
    list.iter_from(start).take(count).for_each(|item| write_item(reply, item));
    Ok(())
}

fn lrem(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = integer(args.at(2))?;
    let limit = node_limit(view);
    let removed = view.edit(args.at(1), Event::list("lrem"), |list: &mut List| {
        let removed = list.remove(count, args.at(3));
        list.shrink(limit);
        (removed, removed > 0)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

fn ltrim(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, stop) = (integer(args.at(2))?, integer(args.at(3))?);
    let limit = node_limit(view);
    view.edit(args.at(1), Event::list("ltrim"), |list: &mut List| {
        let (start, count) = index_range(list.len(), start, stop);
        list.trim(start, count);
        list.shrink(limit);
        ((), true)
    })?;
    reply.ok();
    Ok(())
}

fn lpos(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (mut rank, mut count, mut max_len) = (1, None, 0);
    let mut options = Options::new(args, 3);
    while !options.is_done() {
        if options.take_with("rank", 1) {
            rank = integer(options.value()?)?;
            if rank == i64::MIN {
                return Err(ReplyError::fixed(
                    "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807",
                ));
            }
            if rank == 0 {
                return Err(ReplyError::fixed(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... or use negative to start from the end of the list",
                ));
            }
        } else if options.take_with("count", 1) {
            count = Some(integer_in(options.value()?, 0..=i64::MAX, "ERR COUNT can't be negative")?);
        } else if options.take_with("maxlen", 1) {
            max_len = integer_in(options.value()?, 0..=i64::MAX, "ERR MAXLEN can't be negative")?;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    let Some(list) = view.get::<List>(args.at(1))? else {
        match count {
            None => reply.null(),
            Some(_) => reply.array(0),
        }
        return Ok(());
    };
    let len = list.len();
    let wanted = match count {
        None => 1,
        Some(0) => usize::MAX,
        Some(count) => count as usize,
    };
    let compared = if max_len == 0 { usize::MAX } else { max_len as usize };
    let skipped = rank.unsigned_abs() as usize - 1;
    let matches = |(_, item): &(usize, crate::types::listpack::Item<'_>)| item.eq_bytes(args.at(2));
    let found: Vec<usize> = if rank > 0 {
        let positions = list.iter().take(compared).enumerate().filter(matches);
        positions.skip(skipped).take(wanted).map(|(index, _)| index).collect()
    } else {
        let positions = list.iter_back_from(len - 1).take(compared).enumerate().filter(matches);
        positions.skip(skipped).take(wanted).map(|(index, _)| len - 1 - index).collect()
    };
    match count {
        None => match found.first() {
            Some(index) => reply.count(*index),
            None => reply.null(),
        },
        Some(_) => {
            reply.array(found.len());
            found.iter().for_each(|index| reply.count(*index));
        }
    }
    Ok(())
}

fn lmove(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (from, to) = (parse_end(args.at(3))?, parse_end(args.at(4))?);
    if !move_element(view, args.at(1), args.at(2), from, to, reply)? {
        reply.null();
    }
    Ok(())
}

fn rpoplpush(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    if !move_element(view, args.at(1), args.at(2), End::Tail, End::Head, reply)? {
        reply.null();
    }
    Ok(())
}

/// Moves an element and writes it; says whether there was one.
fn move_element(
    view: &mut View<'_>,
    source: &[u8],
    destination: &[u8],
    from: End,
    to: End,
    reply: &mut Reply<'_>,
) -> Result<bool, ReplyError> {
    if view.peek_as::<List>(source)?.is_none() {
        return Ok(false);
    }
    view.peek_as::<List>(destination)?;
    let limit = node_limit(view);
    if source == destination {
        // One edit, so that a list of one element does not vanish in between.
        view.edit(source, push_event(to), |list: &mut List| {
            if let Some(element) = list.pop(from, |item| item.to_vec()) {
                list.push(to, &element, limit);
                reply.bulk(&element);
            }
            ((), true)
        })?;
        view.announce(source, pop_event(from));
        return Ok(true);
    }
    // It is there before it is gone, as Redis announces it.
    let place = if from == End::Head { 0 } else { -1 };
    let list = view.peek_as::<List>(source)?;
    let Some(element) = list.and_then(|list| list.get(place)).map(|item| item.to_vec()) else {
        return Ok(false);
    };
    view.upsert(destination, push_event(to), |list: &mut List| {
        list.push(to, &element, limit);
        ((), true)
    })?;
    view.edit(source, pop_event(from), |list: &mut List| {
        list.pop(from, |_| ());
        list.shrink(limit);
        ((), true)
    })?;
    view.count_as_one_change(destination);
    reply.bulk(&element);
    Ok(true)
}

/// Keys, end and count of `LMPOP`, whose number of keys is at `first`.
fn parse_lmpop(args: Args<'_>, first: usize) -> Result<(Args<'_>, End, usize), ReplyError> {
    let count = integer_in(args.at(first), 1..=i64::MAX, "ERR numkeys should be greater than 0")? as usize;
    let end_at = first.saturating_add(1).saturating_add(count);
    let end = parse_end(args.get(end_at).ok_or(ReplyError::SYNTAX)?)?;
    let mut options = Options::new(args, end_at + 1);
    let mut wanted = None;
    while !options.is_done() {
        if wanted.is_none() && options.take_with("count", 1) {
            let count = integer_in(options.value()?, 1..=i64::MAX, "ERR count should be greater than 0")?;
            wanted = Some(count as usize);
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    Ok((args.take(end_at).skip(first + 1), end, wanted.unwrap_or(1)))
}

/// Takes elements from the first list that has some; says whether one had.
fn pop_first(
    view: &mut View<'_>,
    keys: Args<'_>,
    end: End,
    count: usize,
    reply: &mut Reply<'_>,
) -> Result<bool, ReplyError> {
    for key in keys.iter() {
        if view.peek_as::<List>(key)?.is_some() {
            reply.array(2);
            reply.bulk(key);
            pop_many(view, key, end, count, reply)?;
            return Ok(true);
        }
    }
    Ok(false)
}

fn lmpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (keys, end, count) = parse_lmpop(args, 1)?;
    if !pop_first(view, keys, end, count, reply)? {
        reply.null_array();
    }
    Ok(())
}

fn blpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<Attempt, ReplyError> {
    pop_or_wait(view, args, reply, End::Head)
}

fn brpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<Attempt, ReplyError> {
    pop_or_wait(view, args, reply, End::Tail)
}

fn pop_or_wait(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    end: End,
) -> Result<Attempt, ReplyError> {
    let timeout_ms = timeout(args.at(args.len() - 1))?;
    for key in args.take(args.len() - 1).skip(1).iter() {
        if view.peek_as::<List>(key)?.is_some() {
            reply.array(2);
            reply.bulk(key);
            pop_one(view, key, end, reply)?;
            return Ok(Attempt::Done);
        }
    }
    Ok(Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArray })
}

fn blmove(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<Attempt, ReplyError> {
    let (from, to) = (parse_end(args.at(3))?, parse_end(args.at(4))?);
    let timeout_ms = timeout(args.at(5))?;
    if move_element(view, args.at(1), args.at(2), from, to, reply)? {
        return Ok(Attempt::Done);
    }
    Ok(Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArrayOrNull })
}

fn brpoplpush(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<Attempt, ReplyError> {
    let timeout_ms = timeout(args.at(3))?;
    if move_element(view, args.at(1), args.at(2), End::Tail, End::Head, reply)? {
        return Ok(Attempt::Done);
    }
    Ok(Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArrayOrNull })
}

fn blmpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> Result<Attempt, ReplyError> {
    let timeout_ms = timeout(args.at(1))?;
    let (keys, end, count) = parse_lmpop(args, 2)?;
    if pop_first(view, keys, end, count, reply)? {
        return Ok(Attempt::Done);
    }
    Ok(Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArray })
}

#[cfg(test)]
mod tests {
    use super::index_range;

    #[test]
    fn ranges_count_from_both_ends() {
        for (len, start, stop, expected) in [
            (5, 0, -1, (0, 5)),
            (5, -2, -1, (3, 2)),
            (5, 3, 1, (0, 0)),
            (5, -100, 100, (0, 5)),
            (5, 5, 9, (0, 0)),
            (0, 0, -1, (0, 0)),
            (5, i64::MIN, i64::MAX, (0, 5)),
        ] {
            assert_eq!(index_range(len, start, stop), expected, "{len} {start} {stop}");
        }
    }
}
