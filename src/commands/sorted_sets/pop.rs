//! Taking members from the ends of sorted sets, with the forms that wait.

use super::write_pair;
use crate::commands::arguments::{Options, integer_in, timeout};
use crate::commands::spec::{Attempt, OnTimeout};
use crate::commands::strings::write_item;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::listpack::Item;
use crate::types::sorted_set::SortedSet;

fn event(highest: bool) -> Event {
    Event::sorted_set(if highest { "zpopmax" } else { "zpopmin" })
}

/// Takes up to `count` members, the outermost first.
fn take(set: &mut SortedSet, highest: bool, count: usize, mut visit: impl FnMut(Item<'_>, f64)) {
    if highest {
        for _ in 0..count.min(set.len()) {
            let last = set.len() - 1;
            set.remove_ranks(last..last + 1, &mut visit);
        }
    } else {
        let count = count.min(set.len());
        set.remove_ranks(0..count, visit);
    }
}

pub(super) fn zpopmin(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(view, args, reply, false)
}

pub(super) fn zpopmax(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    pop(view, args, reply, true)
}

fn pop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>, highest: bool) -> CommandResult {
    if args.len() > 3 {
        return Err(ReplyError::SYNTAX);
    }
    let count = args.get(2).map(crate::commands::arguments::positive).transpose()?;
    let nested = count.is_some() && reply.is_resp3();
    let count = count.unwrap_or(1) as usize;
    let popped = view.edit(args.at(1), event(highest), |set: &mut SortedSet| {
        let count = count.min(set.len());
        reply.array(if nested { count } else { count * 2 });
        take(set, highest, count, |member, score| {
            if nested {
                reply.array(2);
            }
            write_item(reply, member);
            reply.double(score);
        });
        ((), count > 0)
    })?;
    if popped.is_none() {
        reply.array(0);
    }
    Ok(())
}

pub(super) fn bzpopmin(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Attempt, ReplyError> {
    pop_or_wait(view, args, reply, false)
}

pub(super) fn bzpopmax(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Attempt, ReplyError> {
    pop_or_wait(view, args, reply, true)
}

fn pop_or_wait(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    highest: bool,
) -> Result<Attempt, ReplyError> {
    let timeout_ms = timeout(args.at(args.len() - 1))?;
    for key in args.take(args.len() - 1).skip(1).iter() {
        if view.peek_as::<SortedSet>(key)?.is_some() {
            view.edit(key, event(highest), |set: &mut SortedSet| {
                take(set, highest, 1, |member, score| {
                    reply.array(3);
                    reply.bulk(key);
                    write_item(reply, member);
                    reply.double(score);
                });
                ((), true)
            })?;
            return Ok(Attempt::Done);
        }
    }
    Ok(Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArray })
}

/// Keys, end and count of `ZMPOP`, whose number of keys is at `first`.
fn parse_zmpop(args: Args<'_>, first: usize) -> Result<(Args<'_>, bool, usize), ReplyError> {
    let count = integer_in(args.at(first), 1..=i64::MAX, "ERR numkeys should be greater than 0")? as usize;
    let end_at = first.saturating_add(1).saturating_add(count);
    let highest = match args.get(end_at) {
        Some(word) if word.eq_ignore_ascii_case(b"min") => false,
        Some(word) if word.eq_ignore_ascii_case(b"max") => true,
        _ => return Err(ReplyError::SYNTAX),
    };
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
    Ok((args.take(end_at).skip(first + 1), highest, wanted.unwrap_or(1)))
}

/// Takes members from the first set that has some; says whether one had.
fn pop_first(
    view: &mut View<'_>,
    keys: Args<'_>,
    highest: bool,
    count: usize,
    reply: &mut Reply<'_>,
) -> Result<bool, ReplyError> {
    for key in keys.iter() {
        if view.peek_as::<SortedSet>(key)?.is_none() {
            continue;
        }
        view.edit(key, event(highest), |set: &mut SortedSet| {
            let count = count.min(set.len());
            reply.array(2);
            reply.bulk(key);
            reply.array(count);
            take(set, highest, count, |member, score| {
                if reply.is_resp3() {
                    write_pair(reply, member, score, true);
                } else {
                    reply.array(2);
                    write_pair(reply, member, score, true);
                }
            });
            ((), true)
        })?;
        return Ok(true);
    }
    Ok(false)
}

pub(super) fn zmpop(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (keys, highest, count) = parse_zmpop(args, 1)?;
    if !pop_first(view, keys, highest, count, reply)? {
        reply.null_array();
    }
    Ok(())
}

pub(super) fn bzmpop(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Attempt, ReplyError> {
    let timeout_ms = timeout(args.at(1))?;
    let (keys, highest, count) = parse_zmpop(args, 2)?;
    if pop_first(view, keys, highest, count, reply)? {
        return Ok(Attempt::Done);
    }
    Ok(Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArray })
}
