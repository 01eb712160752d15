//! The sorted-set type: member-score pairs in a listpack while they are few and short; beyond that a dictionary and an
//! order-statistic tree that share the members. The log of a rate limiter has a form of its own.

mod log;
mod permits;
mod tree;

pub use log::Log;
use tree::{Member, Ranked, Tree};

use super::hasher::hash_bytes;
use super::listpack::{Item, Listpack, NumBuf, Pos};
use super::number::{FloatBuf, format_f64, parse_f64, parse_i64};
use super::prefetch::Part;
use super::relocate::Wants;
use super::table::{Element, Table};

/// When a sorted set leaves its compact encoding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most members (`zset-max-listpack-entries`).
    pub entries: usize,
    /// The longest member in bytes (`zset-max-listpack-value`).
    pub value: usize,
}

/// An end of a range of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoreBound {
    /// The score.
    pub score: f64,
    /// Whether the score itself lies outside.
    pub exclusive: bool,
}

/// An end of a range of members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    /// Before all members.
    Min,
    /// Behind all members.
    Max,
    /// At this member, which lies inside.
    Included(&'a [u8]),
    /// At this member, which lies outside.
    Excluded(&'a [u8]),
}

/// A range by score or by member, from the lower to the upper end.
#[derive(Debug, Clone, Copy)]
pub enum Bounds<'a> {
    /// By score.
    Score(ScoreBound, ScoreBound),
    /// By member, all scores being equal.
    Lex(LexBound<'a>, LexBound<'a>),
}

/// A sorted set.
pub struct SortedSet(Form);

enum Form {
    /// Member, score, member, score …, in order.
    Packed(Listpack),
    Full(Box<Full>),
    /// Permits of a rate limiter and nothing else.
    Log(Log),
}

struct Full {
    dictionary: Table<Member>,
    tree: Tree,
}

impl Element for Member {
    fn hash(&self) -> u64 {
        hash_bytes(self.bytes())
    }

    #[inline]
    fn prefetch(&self) {
        Member::prefetch(self);
    }
}

impl Default for SortedSet {
    fn default() -> Self {
        Self(Form::Packed(Listpack::new()))
    }
}

impl std::fmt::Debug for SortedSet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(self.iter(0, false)).finish()
    }
}

impl Clone for SortedSet {
    fn clone(&self) -> Self {
        match &self.0 {
            Form::Packed(pack) => Self(Form::Packed(pack.clone())),
            Form::Full(full) => {
                let mut copy = Full::with_capacity(full.dictionary.len());
                full.tree.iter_from(0).for_each(|entry| copy.add(entry.member.bytes(), entry.score));
                Self(Form::Full(Box::new(copy)))
            }
            Form::Log(log) => Self(Form::Log(log.clone())),
        }
    }
}

fn score_item<'a>(score: f64, buffer: &'a mut FloatBuf) -> Item<'a> {
    // The common case without printing and parsing.
    if score.fract() == 0.0 && score.abs() < 1e15 && !(score == 0.0 && score.is_sign_negative()) {
        return Item::Int(score as i64);
    }
    Item::Bytes(format_f64(score, buffer))
}

fn item_score(item: Item<'_>) -> f64 {
    match item {
        Item::Int(integer) => integer as f64,
        Item::Bytes(text) => parse_f64(text).unwrap_or(0.0),
    }
}

fn below(score: f64, bound: ScoreBound) -> bool {
    if bound.exclusive { score <= bound.score } else { score < bound.score }
}

fn above(score: f64, bound: ScoreBound) -> bool {
    if bound.exclusive { score >= bound.score } else { score > bound.score }
}

impl Bounds<'_> {
    /// Whether a member lies before the range.
    fn is_before(&self, score: f64, member: &[u8]) -> bool {
        match self {
            Self::Score(min, _) => below(score, *min),
            Self::Lex(min, _) => match min {
                LexBound::Min => false,
                LexBound::Max => true,
                LexBound::Included(bound) => member < *bound,
                LexBound::Excluded(bound) => member <= *bound,
            },
        }
    }

    /// Whether a member lies before the range's end: inside it, or before it.
    fn is_not_behind(&self, score: f64, member: &[u8]) -> bool {
        match self {
            Self::Score(_, max) => !above(score, *max),
            Self::Lex(_, max) => match max {
                LexBound::Min => false,
                LexBound::Max => true,
                LexBound::Included(bound) => member <= *bound,
                LexBound::Excluded(bound) => member < *bound,
            },
        }
    }
}

impl Full {
    fn with_capacity(members: usize) -> Self {
        Self { dictionary: Table::with_capacity(members), tree: Tree::new() }
    }

    fn add(&mut self, member: &[u8], score: f64) {
        let entry = Member::new(member, score);
        self.dictionary.insert_unique(hash_bytes(member), entry.clone());
        self.tree.insert(Ranked { score, member: entry });
    }

    fn find(&self, member: &[u8]) -> Option<&Member> {
        self.dictionary.find(hash_bytes(member), |other| other.bytes() == member)
    }
}

impl SortedSet {
    /// How many members there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.len() / 2,
            Form::Full(full) => full.dictionary.len(),
            Form::Log(log) => log.len(),
        }
    }

    /// Starts what a look at a member, or a call of a rate limiter, reads on its way into the cache.
    #[inline]
    pub fn prefetch(&self, part: Part) {
        match (&self.0, part) {
            (Form::Full(full), _) => full.dictionary.prefetch_part(part),
            (Form::Log(log), Part::Log) => log.prefetch(),
            _ => {}
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The listpack that it is, if it is one.
    pub(in crate::types) fn listpack(&self) -> Option<&Listpack> {
        if let Form::Packed(pack) = &self.0 { Some(pack) } else { None }
    }

    /// The name of the encoding, as `OBJECT ENCODING` replies it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            // To clients a log is just compact.
            Form::Packed(_) | Form::Log(_) => "listpack",
            Form::Full(_) => "skiplist",
        }
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.allocated(),
            Form::Full(full) => {
                let bytes = |member: &Member| 24 + member.bytes().len();
                let sampled: Vec<usize> = full.dictionary.iter().take(64).map(bytes).collect();
                let average = sampled.iter().sum::<usize>() / sampled.len().max(1);
                size_of::<Full>() + full.dictionary.memory() + full.tree.memory() + average * self.len()
            }
            Form::Log(log) => log.allocated(),
        }
    }

    /// Whether a look for a member goes through all of them.
    pub fn is_packed(&self) -> bool {
        matches!(self.0, Form::Packed(_))
    }

    /// A set of members that are all different, without a look for each among those before it.
    pub fn of_distinct(mut pairs: Vec<(Item<'_>, f64)>, limits: &Limits) -> Self {
        sort_pairs(&mut pairs);
        if pairs.len() <= limits.entries && pairs.iter().all(|(member, _)| member.text_len() <= limits.value)
        {
            let mut pack = Listpack::new();
            for (member, score) in pairs {
                pack.push_back_item(member.canonical());
                pack.push_back_item(score_item(score, &mut FloatBuf::new()));
            }
            return Self(Form::Packed(pack));
        }
        let mut full = Full::with_capacity(pairs.len());
        for (member, score) in pairs {
            full.add(member.to_bytes(&mut NumBuf::new()), score);
        }
        Self(Form::Full(Box::new(full)))
    }

    /// Moves it to another allocation if it has just one and `wants` says so; how many were moved.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> usize {
        match &mut self.0 {
            Form::Packed(pack) => usize::from(pack.relocate(wants)),
            Form::Log(log) => usize::from(log.relocate(wants)),
            Form::Full(_) => 0,
        }
    }

    /// A member's score.
    #[inline]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.0 {
            Form::Packed(pack) => {
                let at = pack.find(pack.first()?, member, 1)?;
                Some(item_score(pack.get(pack.next(at)?)))
            }
            Form::Full(full) => full.find(member).map(Member::score),
            Form::Log(log) => Some(log.time(log_rank(log, member)?) as f64),
        }
    }

    /// Sets a member's score; returns the one it had.
    pub fn insert(&mut self, member: &[u8], score: f64, limits: &Limits) -> Option<f64> {
        if let Form::Log(_) = self.0 {
            let old = self.score(member);
            if old == Some(score) {
                return old;
            }
            self.convert();
            self.compact(limits);
        }
        match &mut self.0 {
            Form::Packed(pack) => {
                let found = pack.first().and_then(|first| pack.find(first, member, 1));
                let old = found.and_then(|at| pack.next(at)).map(|at| item_score(pack.get(at)));
                if old == Some(score) {
                    return old;
                }
                if let Some(at) = found {
                    pack.remove_range(at, 2);
                } else if pack.len() / 2 >= limits.entries || member.len() > limits.value {
                    self.convert().add(member, score);
                    return None;
                }
                insert_packed(pack, member, score);
                old
            }
            Form::Full(full) => {
                let hash = hash_bytes(member);
                let Some(found) = full.dictionary.find(hash, |other| other.bytes() == member) else {
                    full.add(member, score);
                    return None;
                };
                let old = found.score();
                if old != score
                    && let Some(entry) = full.tree.take(old, member)
                {
                    entry.member.set_score(score);
                    full.tree.insert(Ranked { score, member: entry.member });
                }
                Some(old)
            }
            Form::Log(_) => unreachable!("just converted"),
        }
    }

    /// Removes a member; returns its score.
    pub fn remove(&mut self, member: &[u8]) -> Option<f64> {
        if let Form::Log(log) = &self.0 {
            let rank = log_rank(log, member)?;
            let score = log.time(rank) as f64;
            self.remove_ranks(rank..rank + 1, |_, _| ());
            return Some(score);
        }
        match &mut self.0 {
            Form::Packed(pack) => {
                let at = pack.find(pack.first()?, member, 1)?;
                let score = item_score(pack.get(pack.next(at)?));
                pack.remove_range(at, 2);
                Some(score)
            }
            Form::Full(full) => {
                let removed = full.dictionary.remove(hash_bytes(member), |other| other.bytes() == member)?;
                let score = removed.score();
                full.tree.take(score, member);
                Some(score)
            }
            Form::Log(_) => unreachable!("done above"),
        }
    }

    /// A member's rank, from the highest score down if `reverse`, with its score.
    pub fn rank(&self, member: &[u8], reverse: bool) -> Option<(usize, f64)> {
        let (rank, score) = match &self.0 {
            Form::Packed(pack) => {
                let wanted = pack.find(pack.first()?, member, 1)?;
                let keys = std::iter::successors(pack.first(), |pos| pack.next(pack.next(*pos)?));
                let rank = keys.take_while(|pos| *pos != wanted).count();
                (rank, item_score(pack.get(pack.next(wanted)?)))
            }
            Form::Full(full) => {
                let score = full.find(member)?.score();
                (full.tree.rank_of(score, member), score)
            }
            Form::Log(log) => {
                let rank = log_rank(log, member)?;
                (rank, log.time(rank) as f64)
            }
        };
        Some((if reverse { self.len() - 1 - rank } else { rank }, score))
    }

    /// The ranks, lowest score first, of the members within bounds.
    pub fn ranks_within(&self, bounds: &Bounds<'_>) -> std::ops::Range<usize> {
        let start = self.rank_where(|score, member| bounds.is_before(score, member));
        let end = self.rank_where(|score, member| bounds.is_not_behind(score, member));
        start..end.max(start)
    }

    /// The first rank that is not `before`, which holds for a first part of the members and for none behind.
    fn rank_where(&self, before: impl Fn(f64, &[u8]) -> bool) -> usize {
        let mut buffer = NumBuf::new();
        match &self.0 {
            Form::Packed(_) => self
                .iter(0, false)
                .take_while(|(item, score)| before(*score, item.to_bytes(&mut buffer)))
                .count(),
            Form::Full(full) => full.tree.rank_where(|entry| before(entry.score, entry.member.bytes())),
            Form::Log(log) => {
                log.rank_where(|time, member| before(time as f64, NumBuf::new().format(member)))
            }
        }
    }

    /// The members from a rank on with their scores; backwards from it if `reverse`. The rank counts from the lowest.
    pub fn iter(&self, rank: usize, reverse: bool) -> Box<dyn Iterator<Item = (Item<'_>, f64)> + '_> {
        match (&self.0, reverse) {
            (Form::Packed(pack), false) => {
                let start = pack.seek(rank as i64 * 2);
                let next = |pos: &Pos| pack.next(pack.next(*pos)?);
                Box::new(std::iter::successors(start, next).map(|pos| packed_pair(pack, pos)))
            }
            (Form::Packed(pack), true) => {
                let start = pack.seek(rank as i64 * 2);
                let previous = |pos: &Pos| pack.prev(pack.prev(*pos)?);
                Box::new(std::iter::successors(start, previous).map(|pos| packed_pair(pack, pos)))
            }
            (Form::Full(full), false) => Box::new(full.tree.iter_from(rank).map(ranked_pair)),
            (Form::Full(full), true) => Box::new(full.tree.iter_back_from(rank).map(ranked_pair)),
            (Form::Log(log), false) => Box::new((rank..log.len()).map(|rank| log_pair(log, rank))),
            (Form::Log(log), true) => {
                Box::new((0..log.len().min(rank.saturating_add(1))).rev().map(|rank| log_pair(log, rank)))
            }
        }
    }

    /// Removes the members of these ranks, lowest first, handing each to `visit`.
    pub fn remove_ranks(
        &mut self,
        ranks: std::ops::Range<usize>,
        mut visit: impl FnMut(Item<'_>, f64),
    ) -> usize {
        let count = ranks.len();
        if let Form::Log(log) = &self.0
            && count > 0
            && ranks.start > 0
            && ranks.end < log.len()
        {
            self.convert();
        }
        match &mut self.0 {
            Form::Packed(pack) => {
                if let Some(start) = pack.seek(ranks.start as i64 * 2) {
                    let next = |pos: &Pos| pack.next(pack.next(*pos)?);
                    for pos in std::iter::successors(Some(start), next).take(count) {
                        let (member, score) = packed_pair(pack, pos);
                        visit(member, score);
                    }
                    pack.remove_range(start, count * 2);
                }
            }
            Form::Full(full) => {
                for _ in 0..count {
                    let entry = full.tree.remove(ranks.start);
                    let member = entry.member.bytes();
                    full.dictionary.remove(hash_bytes(member), |other| other.bytes() == member);
                    visit(Item::Bytes(member), entry.score);
                }
            }
            Form::Log(log) => {
                for rank in ranks.clone() {
                    let (member, score) = log_pair(log, rank);
                    visit(member, score);
                }
                if ranks.start == 0 {
                    log.drop_oldest(count);
                } else {
                    log.drop_newest(count);
                }
            }
        }
        count
    }

    /// Visits some of the members and returns the cursor to go on with; see [`Table::scan`].
    pub fn scan(&self, cursor: u64, mut visit: impl FnMut(Item<'_>, f64)) -> u64 {
        match &self.0 {
            Form::Packed(_) | Form::Log(_) => {
                self.iter(0, false).for_each(|(member, score)| visit(member, score));
                0
            }
            Form::Full(full) => {
                full.dictionary.scan(cursor, |member| visit(Item::Bytes(member.bytes()), member.score()))
            }
        }
    }

    /// A member at random, with its score.
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<(Item<'_>, f64)> {
        if self.is_empty() {
            return None;
        }
        self.iter(rng.usize(..self.len()), false).next()
    }

    /// Takes the compact encoding if the set fits it now (results that are stored).
    pub fn compact(&mut self, limits: &Limits) {
        if let Form::Full(full) = &self.0
            && full.dictionary.len() <= limits.entries
            && full.dictionary.iter().all(|member| member.bytes().len() <= limits.value)
        {
            let mut pack = Listpack::new();
            for entry in full.tree.iter_from(0) {
                pack.push_back(entry.member.bytes());
                pack.push_back_item(score_item(entry.score, &mut FloatBuf::new()));
            }
            self.0 = Form::Packed(pack);
        }
    }

    fn convert(&mut self) -> &mut Full {
        if !matches!(self.0, Form::Full(_)) {
            let mut full = Full::with_capacity(self.len() + 1);
            for (member, score) in self.iter(0, false) {
                full.add(member.to_bytes(&mut NumBuf::new()), score);
            }
            self.0 = Form::Full(Box::new(full));
        }
        match &mut self.0 {
            Form::Full(full) => full,
            Form::Packed(_) | Form::Log(_) => unreachable!("just converted"),
        }
    }
}

/// Puts members with scores in the order that they have in a sorted set.
pub fn sort_pairs(pairs: &mut [(Item<'_>, f64)]) {
    pairs.sort_unstable_by(|(member, score), (other, other_score)| {
        let texts = || {
            let (mut first, mut second) = (NumBuf::new(), NumBuf::new());
            member.to_bytes(&mut first).cmp(other.to_bytes(&mut second))
        };
        // A score is never NaN.
        score.partial_cmp(other_score).unwrap_or(std::cmp::Ordering::Equal).then_with(texts)
    });
}

fn packed_pair(pack: &Listpack, pos: Pos) -> (Item<'_>, f64) {
    let score = pack.next(pos).map_or(0.0, |at| item_score(pack.get(at)));
    (pack.get(pos), score)
}

fn log_pair(log: &Log, rank: usize) -> (Item<'static>, f64) {
    (Item::Int(log.member(rank)), log.time(rank) as f64)
}

fn log_rank(log: &Log, member: &[u8]) -> Option<usize> {
    parse_i64(member).and_then(|member| log.rank_of(member))
}

fn ranked_pair(entry: &Ranked) -> (Item<'_>, f64) {
    (Item::Bytes(entry.member.bytes()), entry.score)
}

/// Adds an absent member where it belongs.
fn insert_packed(pack: &mut Listpack, member: &[u8], score: f64) {
    let mut float = FloatBuf::new();
    let score_item = score_item(score, &mut float);
    let is_behind = |pack: &Listpack, pos: Pos| {
        let (other, other_score) = packed_pair(pack, pos);
        other_score > score || other_score == score && other.to_bytes(&mut NumBuf::new()) > member
    };
    // Ascending scores go to the end, without a look at the others.
    let last = pack.last().and_then(|pos| pack.prev(pos));
    let place = match last {
        Some(last) if is_behind(pack, last) => {
            let mut keys = std::iter::successors(pack.first(), |pos| pack.next(pack.next(*pos)?));
            keys.find(|pos| is_behind(pack, *pos))
        }
        _ => None,
    };
    match place {
        Some(pos) => {
            pack.insert_item_before(pos, score_item);
            pack.insert_before(pos, member);
        }
        None => {
            pack.push_back(member);
            pack.push_back_item(score_item);
        }
    }
}

#[cfg(test)]
mod tests;
