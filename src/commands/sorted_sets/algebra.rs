//! Unions, intersections and differences of sorted sets; plain sets take part with scores of 1.

use std::collections::HashMap;

use super::{limits, write_header, write_pair};
use crate::commands::arguments::{Options, integer, integer_in};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, ValueRef, View};
use crate::types::listpack::{Item, NumBuf};
use crate::types::number::parse_f64;
use crate::types::set::Set;
use crate::types::set::algebra::is_worth_an_index;
use crate::types::sorted_set::{SortedSet, sort_pairs};

/// How scores of one member in several sets come together.
#[derive(Clone, Copy)]
enum Aggregate {
    Sum,
    Min,
    Max,
}

impl Aggregate {
    fn of(self, left: f64, right: f64) -> f64 {
        match self {
            // Infinities of both signs cancel out.
            Self::Sum => Some(left + right).filter(|sum| !sum.is_nan()).unwrap_or(0.0),
            Self::Min => left.min(right),
            Self::Max => left.max(right),
        }
    }
}

/// One operand.
#[derive(Clone, Copy)]
enum Operand<'v> {
    Sorted(&'v SortedSet),
    Plain(&'v Set),
}

impl<'v> Operand<'v> {
    fn len(self) -> usize {
        match self {
            Self::Sorted(set) => set.len(),
            Self::Plain(set) => set.len(),
        }
    }

    fn iter(self) -> Box<dyn Iterator<Item = (Item<'v>, f64)> + 'v> {
        match self {
            Self::Sorted(set) => set.iter(0, false),
            Self::Plain(set) => Box::new(set.iter().map(|member| (member, 1.0))),
        }
    }

    fn is_packed(self) -> bool {
        match self {
            Self::Sorted(set) => set.is_packed(),
            Self::Plain(set) => set.is_packed(),
        }
    }
}

/// Scores by member.
type Scores<'v> = HashMap<Item<'v>, f64, ahash::RandomState>;

/// An operand that is asked for scores: a listpack that is asked often is read once into an index.
enum Asked<'v> {
    Operand(Operand<'v>),
    Index(Scores<'v>),
}

impl<'v> Asked<'v> {
    /// Some operand that will be asked so many times.
    fn new(operand: Operand<'v>, questions: usize) -> Self {
        if operand.is_packed() && is_worth_an_index(operand.len(), questions) {
            return Self::Index(operand.iter().map(|(member, score)| (member.canonical(), score)).collect());
        }
        Self::Operand(operand)
    }

    fn score(&self, member: Item<'_>) -> Option<f64> {
        let mut buffer = NumBuf::new();
        match self {
            Self::Index(index) => index.get(&member.canonical()).copied(),
            Self::Operand(Operand::Sorted(set)) => set.score(member.to_bytes(&mut buffer)),
            Self::Operand(Operand::Plain(set)) => set.contains(member.to_bytes(&mut buffer)).then_some(1.0),
        }
    }
}

/// A parsed command.
struct Query<'v> {
    operands: Vec<Option<Operand<'v>>>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// Distinct members with their scores.
type Pairs<'v> = Vec<(Item<'v>, f64)>;

/// Which options a command takes.
#[derive(Clone, Copy, PartialEq)]
struct Takes {
    weights: bool,
    scores: bool,
}

impl<'v> Query<'v> {
    /// Reads `numkeys key … options` from argument `first` on.
    fn parse(
        view: &'v mut View<'_>,
        args: Args<'_>,
        first: usize,
        name: &str,
        takes: Takes,
    ) -> Result<Self, ReplyError> {
        let count = integer(args.at(first))?;
        if count < 1 {
            return Err(ReplyError::new(format!("ERR at least 1 input key is needed for '{name}' command")));
        }
        if count > (args.len() - first - 1) as i64 {
            return Err(ReplyError::SYNTAX);
        }
        let end = first + 1 + count as usize;
        let operands = operands(view, args.take(end).skip(first + 1))?;
        let mut query = Self {
            weights: vec![1.0; operands.len()],
            operands,
            aggregate: Aggregate::Sum,
            with_scores: false,
        };
        let mut options = Options::new(args, end);
        while !options.is_done() {
            if takes.weights && options.take_with("weights", query.weights.len()) {
                for weight in &mut query.weights {
                    *weight = parse_f64(options.value()?)
                        .filter(|weight| !weight.is_nan())
                        .ok_or(ReplyError::fixed("ERR weight value is not a float"))?;
                }
            } else if takes.weights && options.take_with("aggregate", 1) {
                query.aggregate = match options.value()?.to_ascii_lowercase().as_slice() {
                    b"sum" => Aggregate::Sum,
                    b"min" => Aggregate::Min,
                    b"max" => Aggregate::Max,
                    _ => return Err(ReplyError::SYNTAX),
                };
            } else if takes.scores && options.take("withscores") {
                query.with_scores = true;
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        Ok(query)
    }

    fn weighted(&self, index: usize, score: f64) -> f64 {
        Some(score * self.weights[index]).filter(|score| !score.is_nan()).unwrap_or(0.0)
    }

    fn union(&self) -> Pairs<'v> {
        let mut scores = Scores::default();
        for (index, operand) in self.operands.iter().enumerate() {
            for (member, score) in operand.iter().flat_map(|operand| operand.iter()) {
                let score = self.weighted(index, score);
                scores
                    .entry(member.canonical())
                    .and_modify(|other| *other = self.aggregate.of(*other, score))
                    .or_insert(score);
            }
        }
        scores.into_iter().collect()
    }

    fn intersection(&self, limit: usize) -> Pairs<'v> {
        let Some(operands) = self.operands.iter().copied().collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        let Some(smallest) = operands.iter().min_by_key(|operand| operand.len()) else {
            return Vec::new();
        };
        let asked: Vec<Asked<'_>> =
            operands.iter().map(|operand| Asked::new(*operand, smallest.len())).collect();
        let total = |member| {
            let mut total: Option<f64> = None;
            for (index, operand) in asked.iter().enumerate() {
                let score = self.weighted(index, operand.score(member)?);
                total = Some(total.map_or(score, |other| self.aggregate.of(other, score)));
            }
            total
        };
        smallest.iter().filter_map(|(member, _)| Some((member, total(member)?))).take(limit).collect()
    }

    fn difference(&self) -> Pairs<'v> {
        let Some((Some(first), others)) = self.operands.split_first() else { return Vec::new() };
        let others: Vec<Asked<'_>> =
            others.iter().flatten().map(|other| Asked::new(*other, first.len())).collect();
        let is_left = |member| !others.iter().any(|other| other.score(member).is_some());
        first.iter().filter(|(member, _)| is_left(*member)).collect()
    }
}

fn operands<'v>(view: &'v mut View<'_>, keys: Args<'_>) -> Result<Vec<Option<Operand<'v>>>, ReplyError> {
    fn operand(value: ValueRef<'_>) -> Option<Operand<'_>> {
        match value {
            ValueRef::SortedSet(set) => Some(Operand::Sorted(set)),
            ValueRef::Set(set) => Some(Operand::Plain(set)),
            _ => None,
        }
    }
    let values = view.read_all(keys.iter(), |value| operand(value).is_some())?;
    Ok(values.into_iter().map(|value| value.and_then(operand)).collect())
}

/// Puts a result at a key, or removes the key if the result is empty.
pub(super) fn store(
    view: &mut View<'_>,
    key: &[u8],
    set: SortedSet,
    event: &'static str,
    reply: &mut Reply<'_>,
) -> CommandResult {
    reply.count(set.len());
    if set.is_empty() {
        view.delete(key, Event::DEL);
    } else {
        view.store(key, set, Event::sorted_set(event));
    }
    Ok(())
}

fn write(mut pairs: Pairs<'_>, with_scores: bool, reply: &mut Reply<'_>) -> CommandResult {
    sort_pairs(&mut pairs);
    write_header(reply, pairs.len(), with_scores);
    for (member, score) in pairs {
        write_pair(reply, member, score, with_scores);
    }
    Ok(())
}

const READS: Takes = Takes { weights: true, scores: true };
const STORES: Takes = Takes { weights: true, scores: false };

pub(super) fn zunion(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 1, "zunion", READS)?;
    write(query.union(), query.with_scores, reply)
}

pub(super) fn zunionstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let query = Query::parse(view, args, 2, "zunionstore", STORES)?;
    let result = SortedSet::of_distinct(query.union(), &limits);
    store(view, args.at(1), result, "zunionstore", reply)
}

pub(super) fn zinter(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 1, "zinter", READS)?;
    write(query.intersection(usize::MAX), query.with_scores, reply)
}

pub(super) fn zinterstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let query = Query::parse(view, args, 2, "zinterstore", STORES)?;
    let result = SortedSet::of_distinct(query.intersection(usize::MAX), &limits);
    store(view, args.at(1), result, "zinterstore", reply)
}

pub(super) fn zintercard(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let count = integer(args.at(1))?;
    if count < 1 {
        return Err(ReplyError::fixed("ERR at least 1 input key is needed for 'zintercard' command"));
    }
    if count > args.len() as i64 - 2 {
        return Err(ReplyError::SYNTAX);
    }
    let end = 2 + count as usize;
    let operands = operands(view, args.take(end).skip(2))?;
    let mut limit = 0;
    let mut options = Options::new(args, end);
    while !options.is_done() {
        if options.take_with("limit", 1) {
            limit = integer_in(options.value()?, 0..=i64::MAX, "ERR LIMIT can't be negative")?;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    let weights = vec![1.0; operands.len()];
    let query = Query { operands, weights, aggregate: Aggregate::Sum, with_scores: false };
    reply.count(query.intersection(if limit == 0 { usize::MAX } else { limit as usize }).len());
    Ok(())
}

pub(super) fn zdiff(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 1, "zdiff", Takes { weights: false, scores: true })?;
    write(query.difference(), query.with_scores, reply)
}

pub(super) fn zdiffstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let limits = limits(view);
    let query = Query::parse(view, args, 2, "zdiffstore", Takes { weights: false, scores: false })?;
    let result = SortedSet::of_distinct(query.difference(), &limits);
    store(view, args.at(1), result, "zdiffstore", reply)
}
