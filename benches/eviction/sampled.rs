//! Policies that evict the best of a few samples: Redis's, and ours under the same names.

use ahash::AHashMap;
use fastrand::Rng;

use crate::ours::{next_full, spread};
use crate::{Policy, RATE};

/// Redis's defaults.
const SAMPLES: usize = 5;
const POOL: usize = 16;
const LOG_FACTOR: f64 = 10.0;
const DECAY_MINUTES: u64 = 1;
const FIRST_COUNT: u8 = 5;

/// Ours.
const SHARD_SAMPLES: usize = 16;

/// What makes a key a good victim.
#[derive(Clone, Copy)]
pub enum Score {
    /// Seconds since its last use.
    Idle,
    /// 255 less its logarithmic, decaying use counter.
    Rarity,
}

/// The access record of a key: what Redis keeps in 24 bits.
#[derive(Clone, Copy)]
struct Access {
    second: u64,
    count: u8,
    minute: u64,
}

/// The clock, in requests, and the dice.
struct World {
    requests: u64,
    random: Rng,
    score: Score,
}

impl World {
    fn new(score: Score) -> Self {
        World { requests: 0, random: Rng::with_seed(7), score }
    }

    fn second(&self) -> u64 {
        self.requests / RATE
    }

    fn minute(&self) -> u64 {
        self.second() / 60
    }

    fn fresh(&self) -> Access {
        Access { second: self.second(), count: FIRST_COUNT, minute: self.minute() }
    }

    fn decayed(&self, access: &Access) -> u8 {
        let periods = (self.minute() - access.minute) / DECAY_MINUTES;
        access.count.saturating_sub(periods.min(255) as u8)
    }

    fn touch(&mut self, access: &mut Access) {
        let count = self.decayed(access);
        let above = f64::from(count.saturating_sub(FIRST_COUNT));
        let chance = 1.0 / (above * LOG_FACTOR + 1.0);
        let count = if count < 255 && self.random.f64() < chance { count + 1 } else { count };
        *access = Access { second: self.second(), count, minute: self.minute() };
    }

    fn score(&self, access: &Access) -> u64 {
        match self.score {
            Score::Idle => self.second() - access.second,
            Score::Rarity => 255 - u64::from(self.decayed(access)),
        }
    }
}

/// A chained hash table, sampled as Redis samples its own: neighbouring buckets from a random one on.
struct Buckets {
    chains: Vec<Vec<(u32, Access)>>,
}

impl Buckets {
    fn new(capacity: usize) -> Self {
        Buckets { chains: vec![Vec::new(); capacity.next_power_of_two()] }
    }

    fn chain(&mut self, key: u32) -> &mut Vec<(u32, Access)> {
        let mask = self.chains.len() - 1;
        &mut self.chains[spread(key) as usize & mask]
    }

    fn get(&mut self, key: u32) -> Option<&mut Access> {
        self.chain(key).iter_mut().find(|(other, _)| *other == key).map(|(_, access)| access)
    }

    fn remove(&mut self, key: u32) -> bool {
        let chain = self.chain(key);
        let found = chain.iter().position(|(other, _)| *other == key);
        found.map(|at| chain.swap_remove(at)).is_some()
    }

    /// Up to [`SAMPLES`] keys; gives up after ten times as many buckets, jumps when too many are empty.
    fn sample(&self, random: &mut Rng) -> Vec<(u32, Access)> {
        let mask = self.chains.len() - 1;
        let (mut at, mut empty, mut found) = (random.usize(..=mask), 0, Vec::with_capacity(SAMPLES));
        let mut seen = 0;
        for _ in 0..10 * SAMPLES {
            if self.chains[at].is_empty() {
                empty += 1;
                if empty > SAMPLES {
                    (at, empty) = (random.usize(..=mask), 0);
                    continue;
                }
            } else {
                empty = 0;
            }
            // A chain that exceeds what is still wanted replaces earlier samples at random.
            for &candidate in &self.chains[at] {
                if found.len() < SAMPLES {
                    found.push(candidate);
                } else if let Some(place) = found.get_mut(random.usize(..=seen)) {
                    *place = candidate;
                }
                seen += 1;
            }
            if found.len() == SAMPLES {
                break;
            }
            at = (at + 1) & mask;
        }
        found
    }
}

/// Redis's approximated LRU or LFU.
pub struct Redis {
    capacity: usize,
    len: usize,
    keys: Buckets,
    /// Ascending by score; the last is the next victim if it still exists.
    pool: Vec<(u64, u32)>,
    world: World,
}

impl Redis {
    pub fn new(capacity: usize, score: Score) -> Self {
        Redis { capacity, len: 0, keys: Buckets::new(capacity), pool: Vec::new(), world: World::new(score) }
    }

    fn populate(&mut self) {
        for (key, access) in self.keys.sample(&mut self.world.random) {
            let score = self.world.score(&access);
            let at = self.pool.iter().take_while(|(other, _)| *other < score).count();
            if self.pool.len() < POOL {
                self.pool.insert(at, (score, key));
            } else if at > 0 {
                self.pool.remove(0);
                self.pool.insert(at - 1, (score, key));
            }
        }
    }

    fn evict(&mut self) {
        loop {
            self.populate();
            while let Some((_, key)) = self.pool.pop() {
                if self.keys.remove(key) {
                    self.len -= 1;
                    return;
                }
            }
        }
    }
}

impl Policy for Redis {
    fn access(&mut self, key: u32) -> bool {
        self.world.requests += 1;
        if let Some(access) = self.keys.get(key) {
            self.world.touch(access);
            return true;
        }
        if self.len == self.capacity {
            self.evict();
        }
        let fresh = self.world.fresh();
        self.keys.chain(key).push((key, fresh));
        self.len += 1;
        false
    }
}

/// The best of a number of samples from one shard, without a pool.
pub struct Sharded {
    capacity: usize,
    len: usize,
    shards: Vec<Shard>,
    turn: usize,
    world: World,
}

#[derive(Default)]
struct Shard {
    keys: Vec<(u32, Access)>,
    places: AHashMap<u32, usize>,
}

impl Sharded {
    pub fn new(capacity: usize, shards: usize, score: Score) -> Self {
        let shards = (0..shards).map(|_| Shard::default()).collect();
        Sharded { capacity, len: 0, shards, turn: 0, world: World::new(score) }
    }

    fn evict(&mut self) {
        let shards = &mut self.shards;
        let count = shards.len();
        self.turn = next_full(self.turn, count, self.len, |shard| shards[shard].keys.len());
        let shard = &mut shards[self.turn];
        let mut best = (0, 0);
        for _ in 0..SHARD_SAMPLES {
            let at = self.world.random.usize(..shard.keys.len());
            best = best.max((self.world.score(&shard.keys[at].1), at));
        }
        let (key, _) = shard.keys.swap_remove(best.1);
        shard.places.remove(&key);
        if let Some((moved, _)) = shard.keys.get(best.1) {
            shard.places.insert(*moved, best.1);
        }
        self.len -= 1;
    }
}

impl Policy for Sharded {
    fn access(&mut self, key: u32) -> bool {
        self.world.requests += 1;
        let at = (spread(key) >> 32) as usize % self.shards.len();
        let shard = &mut self.shards[at];
        if let Some(&place) = shard.places.get(&key) {
            self.world.touch(&mut shard.keys[place].1);
            return true;
        }
        if self.len == self.capacity {
            self.evict();
        }
        let fresh = self.world.fresh();
        let shard = &mut self.shards[at];
        shard.places.insert(key, shard.keys.len());
        shard.keys.push((key, fresh));
        self.len += 1;
        false
    }
}
