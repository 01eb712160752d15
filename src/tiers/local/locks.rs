//! The locks of shards that a view holds.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::keyspace::Keyspace;
use super::shard::Shard;

/// What to lock before a command runs.
#[derive(Debug, Clone)]
pub enum LockPlan {
    /// Nothing: the command visits shard after shard, locking each in turn.
    Each,
    /// The shards of these keys' hashes.
    Keys(SmallVec<[u64; 4]>),
    /// Every shard.
    All,
}

/// What was locked.
pub struct Locks<'a>(Held<'a>);

enum Held<'a> {
    Each,
    One(usize, MutexGuard<'a, Shard>),
    Many(SmallVec<[(usize, MutexGuard<'a, Shard>); 4]>),
    All(Vec<MutexGuard<'a, Shard>>),
}

impl<'a> Locks<'a> {
    /// Locks the shard of one key, unless a script holds it beyond its time: the common case.
    #[inline]
    pub fn of_hash(keyspace: &'a Keyspace, hash: u64) -> Option<Self> {
        let shard = Keyspace::shard_of(hash);
        Some(Self(Held::One(shard, keyspace.lock_unless_held(shard)?)))
    }

    /// Locks what the plan says, in ascending order, unless a script holds one of the shards beyond its time.
    pub fn unless_held(keyspace: &'a Keyspace, plan: &LockPlan) -> Option<Self> {
        Self::taken(keyspace, plan, |shard| keyspace.lock_unless_held(shard))
    }

    /// Locks what the plan says, in ascending order, however long that takes.
    pub(super) fn patiently(keyspace: &'a Keyspace, plan: &LockPlan) -> Self {
        match Self::taken(keyspace, plan, |shard| Some(keyspace.lock(shard))) {
            Some(locks) => locks,
            None => unreachable!("a lock that waits does not give up"),
        }
    }

    fn taken(
        keyspace: &'a Keyspace,
        plan: &LockPlan,
        mut lock: impl FnMut(usize) -> Option<MutexGuard<'a, Shard>>,
    ) -> Option<Self> {
        let hashes = match plan {
            LockPlan::Each => return Some(Self(Held::Each)),
            LockPlan::All => {
                return Some(Self(Held::All((0..keyspace.shards()).map(lock).collect::<Option<_>>()?)));
            }
            LockPlan::Keys(hashes) => hashes,
        };
        let mut shards: SmallVec<[usize; 16]> = hashes.iter().map(|&hash| Keyspace::shard_of(hash)).collect();
        shards.sort_unstable();
        shards.dedup();
        Some(Self(match shards[..] {
            [] => Held::Each,
            [shard] => Held::One(shard, lock(shard)?),
            _ => {
                let lock = |&shard: &usize| lock(shard).map(|guard| (shard, guard));
                Held::Many(shards.iter().map(lock).collect::<Option<_>>()?)
            }
        }))
    }

    /// Whether nothing is held: shards are locked when they are visited.
    pub(super) fn is_each(&self) -> bool {
        matches!(self.0, Held::Each)
    }

    /// A shard that is held.
    #[inline]
    pub(super) fn get_mut(&mut self, shard: usize) -> Option<&mut Shard> {
        match &mut self.0 {
            Held::One(held, guard) if *held == shard => Some(guard),
            Held::Many(guards) => {
                let at = guards.binary_search_by_key(&shard, |(held, _)| *held).ok()?;
                Some(&mut guards[at].1)
            }
            Held::All(guards) => Some(&mut guards[shard]),
            Held::One(..) | Held::Each => None,
        }
    }

    /// The same for reading.
    pub(super) fn get(&self, shard: usize) -> Option<&Shard> {
        match &self.0 {
            Held::One(held, guard) if *held == shard => Some(guard),
            Held::Many(guards) => {
                guards.binary_search_by_key(&shard, |(held, _)| *held).ok().map(|at| &*guards[at].1)
            }
            Held::All(guards) => Some(&guards[shard]),
            Held::One(..) | Held::Each => None,
        }
    }
}
