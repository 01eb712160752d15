//! An order-statistic B+tree: members by score, then by bytes, with the number of members below each branch.
//!
//! Positions are ranks: everything is found, taken and walked by rank, in O(log n).

use std::cmp::Ordering;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use triomphe::ThinArc;

use crate::types::prefetch::prefetch_two;

/// Members of a leaf, and children of a branch.
const WIDTH: usize = 64;

/// A member in one allocation: its score's bits, then its bytes. The tree and the dictionary share it.
#[derive(Clone)]
pub(super) struct Member(ThinArc<AtomicU64, u8>);

impl Member {
    pub(super) fn new(member: &[u8], score: f64) -> Self {
        Self(ThinArc::from_header_and_slice(AtomicU64::new(score.to_bits()), member))
    }

    #[inline]
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0.slice
    }

    #[inline]
    pub(super) fn score(&self) -> f64 {
        f64::from_bits(self.0.header.header.load(Relaxed))
    }

    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch_two(self.0.as_ptr());
    }

    pub(super) fn set_score(&self, score: f64) {
        self.0.header.header.store(score.to_bits(), Relaxed);
    }
}

/// A member as the tree orders it.
#[derive(Clone)]
pub(super) struct Ranked {
    pub(super) score: f64,
    pub(super) member: Member,
}

impl Ranked {
    /// The order of sorted sets; scores are never NaN.
    #[inline]
    pub(super) fn order(&self, score: f64, member: &[u8]) -> Ordering {
        match self.score.partial_cmp(&score) {
            Some(Ordering::Equal) | None => self.member.bytes().cmp(member),
            Some(order) => order,
        }
    }
}

enum Node {
    Leaf(Vec<Ranked>),
    Branch(Box<Branch>),
}

struct Branch {
    children: Vec<Node>,
    counts: Vec<usize>,
    /// `separators[i]` is above all of child `i` and not above any of child `i + 1`.
    separators: Vec<Ranked>,
}

/// The tree.
pub(super) struct Tree {
    root: Node,
    len: usize,
}

/// A node that was split off to the right, with what separates it.
type Split = Option<(Ranked, Node)>;

impl Node {
    fn count(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(branch) => branch.counts.iter().sum(),
        }
    }

    fn width(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Branch(branch) => branch.children.len(),
        }
    }

    fn insert(&mut self, entry: Ranked) -> Split {
        let branch = match self {
            Self::Leaf(entries) => {
                let at =
                    entries.partition_point(|other| other.order(entry.score, entry.member.bytes()).is_lt());
                let is_last = at == entries.len();
                entries.insert(at, entry);
                if entries.len() <= WIDTH {
                    return None;
                }
                // Ascending inserts leave full leaves behind.
                let right = entries.split_off(if is_last { WIDTH - 4 } else { WIDTH / 2 });
                return Some((right[0].clone(), Self::Leaf(right)));
            }
            Self::Branch(branch) => branch,
        };
        let child = branch
            .separators
            .partition_point(|separator| separator.order(entry.score, entry.member.bytes()).is_le());
        branch.counts[child] += 1;
        let (separator, right) = branch.children[child].insert(entry)?;
        branch.counts[child] = branch.children[child].count();
        branch.counts.insert(child + 1, right.count());
        branch.children.insert(child + 1, right);
        branch.separators.insert(child, separator);
        branch.split()
    }

    fn remove(&mut self, mut rank: usize) -> Ranked {
        let branch = match self {
            Self::Leaf(entries) => return entries.remove(rank),
            Self::Branch(branch) => branch,
        };
        let child = branch.child_of(&mut rank);
        let removed = branch.children[child].remove(rank);
        branch.counts[child] -= 1;
        branch.mend(child);
        removed
    }

    fn take(&mut self, score: f64, member: &[u8]) -> Option<Ranked> {
        let branch = match self {
            Self::Leaf(entries) => {
                let at = entries.partition_point(|entry| entry.order(score, member).is_lt());
                let is_there = entries.get(at).is_some_and(|entry| entry.order(score, member).is_eq());
                return is_there.then(|| entries.remove(at));
            }
            Self::Branch(branch) => branch,
        };
        let child = branch.separators.partition_point(|separator| separator.order(score, member).is_le());
        let taken = branch.children[child].take(score, member)?;
        branch.counts[child] -= 1;
        branch.mend(child);
        Some(taken)
    }

    fn rank_where(&self, before: &impl Fn(&Ranked) -> bool) -> usize {
        match self {
            Self::Leaf(entries) => entries.partition_point(before),
            Self::Branch(branch) => {
                let child = branch.separators.partition_point(before);
                branch.counts[..child].iter().sum::<usize>() + branch.children[child].rank_where(before)
            }
        }
    }

    fn leaf_at(&self, mut rank: usize) -> (&[Ranked], usize) {
        match self {
            Self::Leaf(entries) => (entries, rank),
            Self::Branch(branch) => {
                let child = branch.child_of(&mut rank);
                branch.children[child].leaf_at(rank)
            }
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.capacity() * size_of::<Ranked>(),
            Self::Branch(branch) => {
                size_of::<Branch>()
                    + branch.children.capacity() * size_of::<Self>()
                    + branch.counts.capacity() * 8
                    + branch.separators.capacity() * size_of::<Ranked>()
                    + branch.children.iter().map(Self::memory).sum::<usize>()
            }
        }
    }
}

impl Branch {
    /// The child in which a rank lies; the rank becomes relative to it.
    fn child_of(&self, rank: &mut usize) -> usize {
        for (child, count) in self.counts.iter().enumerate() {
            if *rank < *count {
                return child;
            }
            *rank -= count;
        }
        // Only the rank behind the last member gets here.
        let last = self.counts.len() - 1;
        *rank += self.counts[last];
        last
    }

    fn split(&mut self) -> Split {
        if self.children.len() <= WIDTH {
            return None;
        }
        let half = self.children.len() / 2;
        let children = self.children.split_off(half);
        let counts = self.counts.split_off(half);
        let separators = self.separators.split_off(half);
        let separator = self.separators.pop()?;
        Some((separator, Node::Branch(Box::new(Self { children, counts, separators }))))
    }

    /// Removes a child that became empty, or joins it with a neighbour if both are small.
    fn mend(&mut self, child: usize) {
        if self.children[child].width() == 0 && self.children.len() > 1 {
            self.children.remove(child);
            self.counts.remove(child);
            self.separators.remove(child.saturating_sub(1));
            return;
        }
        if self.children[child].width() > WIDTH / 4 || self.children.len() == 1 {
            return;
        }
        let left = if child + 1 < self.children.len() { child } else { child - 1 };
        if self.children[left].width() + self.children[left + 1].width() > WIDTH * 3 / 4 {
            return;
        }
        let right = self.children.remove(left + 1);
        self.counts[left] += self.counts.remove(left + 1);
        let separator = self.separators.remove(left);
        match (&mut self.children[left], right) {
            (Node::Leaf(entries), Node::Leaf(more)) => entries.extend(more),
            (Node::Branch(branch), Node::Branch(more)) => {
                branch.separators.push(separator);
                branch.separators.extend(more.separators);
                branch.children.extend(more.children);
                branch.counts.extend(more.counts);
            }
            _ => unreachable!("all leaves are on one level"),
        }
    }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { root: Node::Leaf(Vec::new()), len: 0 }
    }

    pub(super) fn insert(&mut self, entry: Ranked) {
        self.len += 1;
        let Some((separator, right)) = self.root.insert(entry) else { return };
        let left = std::mem::replace(&mut self.root, Node::Leaf(Vec::new()));
        let counts = vec![left.count(), right.count()];
        let children = vec![left, right];
        self.root = Node::Branch(Box::new(Branch { children, counts, separators: vec![separator] }));
    }

    pub(super) fn remove(&mut self, rank: usize) -> Ranked {
        self.len -= 1;
        let removed = self.root.remove(rank);
        self.lower();
        removed
    }

    /// Takes a member of this score out, if it is there.
    pub(super) fn take(&mut self, score: f64, member: &[u8]) -> Option<Ranked> {
        let taken = self.root.take(score, member)?;
        self.len -= 1;
        self.lower();
        Some(taken)
    }

    /// Takes levels away whose only branch leads to one child.
    fn lower(&mut self) {
        while let Node::Branch(branch) = &mut self.root
            && branch.children.len() == 1
            && let Some(only) = branch.children.pop()
        {
            self.root = only;
        }
    }

    /// How many members `before` accepts: it must accept all up to some rank and none from there on.
    pub(super) fn rank_where(&self, before: impl Fn(&Ranked) -> bool) -> usize {
        self.root.rank_where(&before)
    }

    pub(super) fn rank_of(&self, score: f64, member: &[u8]) -> usize {
        self.rank_where(|entry| entry.order(score, member).is_lt())
    }

    /// The members from a rank on.
    pub(super) fn iter_from(&self, rank: usize) -> impl Iterator<Item = &Ranked> {
        let mut rank = rank;
        std::iter::from_fn(move || {
            (rank < self.len).then(|| {
                let (leaf, at) = self.root.leaf_at(rank);
                rank += leaf.len() - at;
                &leaf[at..]
            })
        })
        .flatten()
    }

    /// The members from a rank backwards.
    pub(super) fn iter_back_from(&self, rank: usize) -> impl Iterator<Item = &Ranked> {
        let mut next = (rank < self.len).then_some(rank);
        std::iter::from_fn(move || {
            let rank = next?;
            let (leaf, at) = self.root.leaf_at(rank);
            next = rank.checked_sub(at + 1);
            Some(leaf[..=at].iter().rev())
        })
        .flatten()
    }

    pub(super) fn memory(&self) -> usize {
        self.root.memory()
    }
}
