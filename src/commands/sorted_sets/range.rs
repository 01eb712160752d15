//! Sorted sets by range: ranks, scores and names.

use super::{limits, write_header, write_pair};
use crate::commands::arguments::{Options, integer};
use crate::commands::lists::index_range;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::number::parse_f64_lenient;
use crate::types::sorted_set::{Bounds, LexBound, ScoreBound, SortedSet};

/// Reads an end of a range of scores: `(` excludes it.
fn score_bound(argument: &[u8]) -> Result<ScoreBound, ReplyError> {
    let (text, exclusive) = match argument {
        [b'(', text @ ..] => (text, true),
        text => (text, false),
    };
    match parse_f64_lenient(text) {
        Some(score) => Ok(ScoreBound { score, exclusive }),
        None => Err(ReplyError::fixed("ERR min or max is not a float")),
    }
}

/// Reads an end of a range of names: `-`, `+`, `[name` or `(name`.
fn lex_bound(argument: &[u8]) -> Result<LexBound<'_>, ReplyError> {
    match argument {
        b"-" => Ok(LexBound::Min),
        b"+" => Ok(LexBound::Max),
        [b'[', name @ ..] => Ok(LexBound::Included(name)),
        [b'(', name @ ..] => Ok(LexBound::Excluded(name)),
        _ => Err(ReplyError::fixed("ERR min or max not valid string range item")),
    }
}

fn score_bounds<'a>(min: &[u8], max: &[u8]) -> Result<Bounds<'a>, ReplyError> {
    Ok(Bounds::Score(score_bound(min)?, score_bound(max)?))
}

fn lex_bounds<'a>(min: &'a [u8], max: &'a [u8]) -> Result<Bounds<'a>, ReplyError> {
    Ok(Bounds::Lex(lex_bound(min)?, lex_bound(max)?))
}

fn count_within(
    view: &mut View<'_>,
    key: &[u8],
    bounds: &Bounds<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let count = view.get::<SortedSet>(key)?.map_or(0, |set| set.ranks_within(bounds).len());
    reply.count(count);
    Ok(())
}

pub(super) fn zcount(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    count_within(view, args.at(1), &score_bounds(args.at(2), args.at(3))?, reply)
}

pub(super) fn zlexcount(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    count_within(view, args.at(1), &lex_bounds(args.at(2), args.at(3))?, reply)
}

/// What a range is measured in.
#[derive(Clone, Copy, PartialEq)]
enum Measure {
    Rank,
    Score,
    Lex,
}

/// A parsed range command.
struct RangeQuery<'a> {
    selection: Selection<'a>,
    reverse: bool,
    offset: i64,
    count: i64,
    with_scores: bool,
}

enum Selection<'a> {
    Ranks(i64, i64),
    Within(Bounds<'a>),
}

/// What the command's name fixes; `None` where options decide.
#[derive(Clone, Copy)]
struct Fixed {
    measure: Option<Measure>,
    reverse: Option<bool>,
    stores: bool,
}

impl<'a> RangeQuery<'a> {
    /// Reads `min max options…` from argument `first` on.
    fn parse(args: Args<'a>, first: usize, fixed: Fixed) -> Result<Self, ReplyError> {
        let (mut measure, mut reverse) =
            (fixed.measure.unwrap_or(Measure::Rank), fixed.reverse.unwrap_or(false));
        let (mut limit, mut with_scores) = (None, false);
        let mut options = Options::new(args, first + 2);
        while !options.is_done() {
            if !fixed.stores && options.take("withscores") {
                with_scores = true;
            } else if options.take_with("limit", 2) {
                limit = Some((integer(options.value()?)?, integer(options.value()?)?));
            } else if fixed.measure.is_none() && options.take("byscore") {
                measure = Measure::Score;
            } else if fixed.measure.is_none() && options.take("bylex") {
                measure = Measure::Lex;
            } else if fixed.reverse.is_none() && options.take("rev") {
                reverse = true;
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        if limit.is_some() && measure == Measure::Rank {
            return Err(ReplyError::fixed(
                "ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX",
            ));
        }
        if with_scores && measure == Measure::Lex {
            return Err(ReplyError::fixed(
                "ERR syntax error, WITHSCORES not supported in combination with BYLEX",
            ));
        }
        let (low, high) = if reverse { (first + 1, first) } else { (first, first + 1) };
        let selection = match measure {
            Measure::Rank => Selection::Ranks(integer(args.at(first))?, integer(args.at(first + 1))?),
            Measure::Score => Selection::Within(score_bounds(args.at(low), args.at(high))?),
            Measure::Lex => Selection::Within(lex_bounds(args.at(low), args.at(high))?),
        };
        let (offset, count) = limit.unwrap_or((0, -1));
        Ok(Self { selection, reverse, offset, count, with_scores })
    }

    /// The first rank (counted from the lowest) and the number of members.
    fn resolve(&self, set: &SortedSet) -> (usize, usize) {
        let (skipped, available, first) = match &self.selection {
            Selection::Ranks(start, stop) => {
                let (start, count) = index_range(set.len(), *start, *stop);
                let first = if self.reverse && count > 0 { set.len() - 1 - start } else { start };
                return (first, count);
            }
            Selection::Within(bounds) => {
                let ranks = set.ranks_within(bounds);
                let len = ranks.len();
                if self.offset < 0 || self.offset as u64 >= len as u64 {
                    return (0, 0);
                }
                let skipped = self.offset as usize;
                let first = if self.reverse { ranks.end - 1 - skipped } else { ranks.start + skipped };
                (skipped, len, first)
            }
        };
        let left = available - skipped;
        (first, if self.count < 0 { left } else { left.min(self.count as usize) })
    }
}

fn write_range(view: &mut View<'_>, args: Args<'_>, fixed: Fixed, reply: &mut Reply<'_>) -> CommandResult {
    let query = RangeQuery::parse(args, 2, fixed)?;
    let Some(set) = view.get::<SortedSet>(args.at(1))? else {
        reply.array(0);
        return Ok(());
    };
    let (first, count) = query.resolve(set);
    write_header(reply, count, query.with_scores);
    for (member, score) in set.iter(first, query.reverse).take(count) {
        write_pair(reply, member, score, query.with_scores);
    }
    Ok(())
}

pub(super) fn zrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_range(view, args, Fixed { measure: None, reverse: None, stores: false }, reply)
}

pub(super) fn zrevrange(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_range(view, args, Fixed { measure: Some(Measure::Rank), reverse: Some(true), stores: false }, reply)
}

pub(super) fn zrangebyscore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_range(
        view,
        args,
        Fixed { measure: Some(Measure::Score), reverse: Some(false), stores: false },
        reply,
    )
}

pub(super) fn zrevrangebyscore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_range(
        view,
        args,
        Fixed { measure: Some(Measure::Score), reverse: Some(true), stores: false },
        reply,
    )
}

pub(super) fn zrangebylex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_range(view, args, Fixed { measure: Some(Measure::Lex), reverse: Some(false), stores: false }, reply)
}

pub(super) fn zrevrangebylex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_range(view, args, Fixed { measure: Some(Measure::Lex), reverse: Some(true), stores: false }, reply)
}

pub(super) fn zrangestore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = RangeQuery::parse(args, 3, Fixed { measure: None, reverse: None, stores: true })?;
    let limits = limits(view);
    let mut result = SortedSet::default();
    if let Some(set) = view.get::<SortedSet>(args.at(2))? {
        let (first, count) = query.resolve(set);
        for (member, score) in set.iter(first, query.reverse).take(count) {
            result.insert(member.to_bytes(&mut crate::types::listpack::NumBuf::new()), score, &limits);
        }
    }
    super::algebra::store(view, args.at(1), result, "zrangestore", reply)
}

fn remove_within(
    view: &mut View<'_>,
    key: &[u8],
    event: &'static str,
    reply: &mut Reply<'_>,
    ranks: impl FnOnce(&SortedSet) -> std::ops::Range<usize>,
) -> CommandResult {
    let removed = view.edit(key, Event::sorted_set(event), |set: &mut SortedSet| {
        let ranks = ranks(set);
        let removed = set.remove_ranks(ranks, |_, _| ());
        (removed, removed > 0)
    })?;
    reply.count(removed.unwrap_or(0));
    Ok(())
}

pub(super) fn zremrangebyrank(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (start, stop) = (integer(args.at(2))?, integer(args.at(3))?);
    remove_within(view, args.at(1), "zremrangebyrank", reply, |set| {
        let (start, count) = index_range(set.len(), start, stop);
        start..start + count
    })
}

pub(super) fn zremrangebyscore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let bounds = score_bounds(args.at(2), args.at(3))?;
    remove_within(view, args.at(1), "zremrangebyscore", reply, |set| set.ranks_within(&bounds))
}

pub(super) fn zremrangebylex(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let bounds = lex_bounds(args.at(2), args.at(3))?;
    remove_within(view, args.at(1), "zremrangebylex", reply, |set| set.ranks_within(&bounds))
}
