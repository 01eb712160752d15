//! Unions, intersections and differences of sorted sets; plain sets take part with scores of 1.

use std::collections::HashMap;

use super::{limits, write_header, write_pair};
use crate::commands::arguments::{Options, integer, integer_in};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, ValueRef, View};
use crate::types::listpack::{Item, NumBuf};
use crate::types::number::parse_f64;
use crate::types::set::Set;
use crate::types::sorted_set::SortedSet;

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

/// A copy of one operand.
enum Operand {
    Sorted(SortedSet),
    Plain(Set),
}

impl Operand {
    fn len(&self) -> usize {
        match self {
            Self::Sorted(set) => set.len(),
            Self::Plain(set) => set.len(),
        }
    }

    fn score(&self, member: &[u8]) -> Option<f64> {
        match self {
            Self::Sorted(set) => set.score(member),
            Self::Plain(set) => set.contains(member).then_some(1.0),
        }
    }

    fn iter(&self) -> Box<dyn Iterator<Item = (Item<'_>, f64)> + '_> {
        match self {
            Self::Sorted(set) => set.iter(0, false),
            Self::Plain(set) => Box::new(set.iter().map(|member| (member, 1.0))),
        }
    }
}

/// A parsed command.
struct Query {
    operands: Vec<Option<Operand>>,
    weights: Vec<f64>,
    aggregate: Aggregate,
    with_scores: bool,
}

/// Which options a command takes.
#[derive(Clone, Copy, PartialEq)]
struct Takes {
    weights: bool,
    scores: bool,
}

impl Query {
    /// Reads `numkeys key … options` from argument `first` on.
    fn parse(
        view: &mut View<'_>,
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

    fn union(&self) -> Vec<(Vec<u8>, f64)> {
        let mut scores: HashMap<Vec<u8>, f64> = HashMap::new();
        for (index, operand) in self.operands.iter().enumerate() {
            for (member, score) in operand.iter().flat_map(Operand::iter) {
                let score = self.weighted(index, score);
                scores
                    .entry(member.to_vec())
                    .and_modify(|other| *other = self.aggregate.of(*other, score))
                    .or_insert(score);
            }
        }
        scores.into_iter().collect()
    }

    fn intersection(&self, limit: usize) -> Vec<(Vec<u8>, f64)> {
        let Some(operands) = self.operands.iter().map(Option::as_ref).collect::<Option<Vec<_>>>() else {
            return Vec::new();
        };
        let Some(smallest) = (0..operands.len()).min_by_key(|index| operands[*index].len()) else {
            return Vec::new();
        };
        let mut result = Vec::new();
        for (member, _) in operands[smallest].iter() {
            let mut buffer = NumBuf::new();
            let name = member.to_bytes(&mut buffer);
            let mut total: Option<f64> = None;
            let everywhere = operands.iter().enumerate().all(|(index, operand)| {
                let Some(score) = operand.score(name) else { return false };
                let score = self.weighted(index, score);
                total = Some(total.map_or(score, |other| self.aggregate.of(other, score)));
                true
            });
            if let (true, Some(score)) = (everywhere, total) {
                result.push((name.to_vec(), score));
                if result.len() >= limit {
                    break;
                }
            }
        }
        result
    }

    fn difference(&self) -> Vec<(Vec<u8>, f64)> {
        let Some((Some(first), others)) = self.operands.split_first() else { return Vec::new() };
        let members = first.iter().map(|(member, score)| (member.to_vec(), score));
        members
            .filter(|(member, _)| !others.iter().flatten().any(|set| set.score(member).is_some()))
            .collect()
    }
}

fn operands(view: &mut View<'_>, keys: Args<'_>) -> Result<Vec<Option<Operand>>, ReplyError> {
    keys.iter()
        .map(|key| match view.read(key) {
            None => Ok(None),
            Some(ValueRef::SortedSet(set)) => Ok(Some(Operand::Sorted(set.clone()))),
            Some(ValueRef::Set(set)) => Ok(Some(Operand::Plain(set.clone()))),
            Some(_) => Err(ReplyError::WRONG_TYPE),
        })
        .collect()
}

fn collect(view: &View<'_>, pairs: Vec<(Vec<u8>, f64)>) -> SortedSet {
    let limits = limits(view);
    let mut result = SortedSet::default();
    for (member, score) in pairs {
        result.insert(&member, score, &limits);
    }
    result
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

fn write(
    view: &View<'_>,
    pairs: Vec<(Vec<u8>, f64)>,
    with_scores: bool,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let result = collect(view, pairs);
    write_header(reply, result.len(), with_scores);
    for (member, score) in result.iter(0, false) {
        write_pair(reply, member, score, with_scores);
    }
    Ok(())
}

const READS: Takes = Takes { weights: true, scores: true };
const STORES: Takes = Takes { weights: true, scores: false };

pub(super) fn zunion(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 1, "zunion", READS)?;
    write(view, query.union(), query.with_scores, reply)
}

pub(super) fn zunionstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 2, "zunionstore", STORES)?;
    let result = collect(view, query.union());
    store(view, args.at(1), result, "zunionstore", reply)
}

pub(super) fn zinter(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 1, "zinter", READS)?;
    write(view, query.intersection(usize::MAX), query.with_scores, reply)
}

pub(super) fn zinterstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 2, "zinterstore", STORES)?;
    let result = collect(view, query.intersection(usize::MAX));
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
    write(view, query.difference(), query.with_scores, reply)
}

pub(super) fn zdiffstore(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let query = Query::parse(view, args, 2, "zdiffstore", Takes { weights: false, scores: false })?;
    let result = collect(view, query.difference());
    store(view, args.at(1), result, "zdiffstore", reply)
}
