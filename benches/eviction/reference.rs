//! Policies to measure the others by: exact LRU, random, and S3-FIFO with the paper's constants.

use std::collections::VecDeque;

use ahash::AHashMap;
use fastrand::Rng;

use crate::Policy;

/// Exact LRU: a queue of all uses, in which only the last one of each key counts.
pub struct Lru {
    capacity: usize,
    clock: u64,
    used: AHashMap<u32, u64>,
    uses: VecDeque<(u32, u64)>,
}

impl Lru {
    pub fn new(capacity: usize) -> Self {
        Lru { capacity, clock: 0, used: AHashMap::new(), uses: VecDeque::new() }
    }
}

impl Policy for Lru {
    fn access(&mut self, key: u32) -> bool {
        self.clock += 1;
        let hit = self.used.insert(key, self.clock).is_some();
        self.uses.push_back((key, self.clock));
        while self.used.len() > self.capacity {
            if let Some((key, clock)) = self.uses.pop_front()
                && self.used.get(&key) == Some(&clock)
            {
                self.used.remove(&key);
            }
        }
        if self.uses.len() > 8 * self.capacity {
            let used = &self.used;
            self.uses.retain(|(key, clock)| used.get(key) == Some(clock));
        }
        hit
    }
}

/// Any key goes.
pub struct Random {
    capacity: usize,
    keys: Vec<u32>,
    places: AHashMap<u32, ()>,
    random: Rng,
}

impl Random {
    pub fn new(capacity: usize) -> Self {
        Random { capacity, keys: Vec::new(), places: AHashMap::new(), random: Rng::with_seed(9) }
    }
}

impl Policy for Random {
    fn access(&mut self, key: u32) -> bool {
        if self.places.contains_key(&key) {
            return true;
        }
        if self.keys.len() == self.capacity {
            let at = self.random.usize(..self.keys.len());
            self.places.remove(&self.keys.swap_remove(at));
        }
        self.keys.push(key);
        self.places.insert(key, ());
        false
    }
}

/// S3-FIFO by the paper: a tenth for small, two uses to pass, counters up to 3, exact ghosts as many as main's keys.
pub struct PaperS3Fifo {
    capacity: usize,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    counts: AHashMap<u32, u8>,
    ghosts: VecDeque<(u32, u64)>,
    left: AHashMap<u32, u64>,
    clock: u64,
}

impl PaperS3Fifo {
    pub fn new(capacity: usize) -> Self {
        PaperS3Fifo {
            capacity,
            small: VecDeque::new(),
            main: VecDeque::new(),
            counts: AHashMap::new(),
            ghosts: VecDeque::new(),
            left: AHashMap::new(),
            clock: 0,
        }
    }

    fn evict(&mut self) {
        loop {
            if self.small.len() * 10 >= self.capacity || self.main.is_empty() {
                let Some(key) = self.small.pop_front() else { return };
                if self.counts.insert(key, 0).is_some_and(|count| count > 1) {
                    self.main.push_back(key);
                    continue;
                }
                self.counts.remove(&key);
                self.haunt(key);
                return;
            }
            let Some(key) = self.main.pop_front() else { return };
            match self.counts.get_mut(&key) {
                Some(count) if *count > 0 => {
                    *count -= 1;
                    self.main.push_back(key);
                }
                _ => {
                    self.counts.remove(&key);
                    return;
                }
            }
        }
    }

    fn haunt(&mut self, key: u32) {
        self.clock += 1;
        self.ghosts.push_back((key, self.clock));
        self.left.insert(key, self.clock);
        while self.ghosts.len() * 10 > self.capacity * 9 {
            if let Some((key, clock)) = self.ghosts.pop_front()
                && self.left.get(&key) == Some(&clock)
            {
                self.left.remove(&key);
            }
        }
    }
}

impl Policy for PaperS3Fifo {
    fn access(&mut self, key: u32) -> bool {
        if let Some(count) = self.counts.get_mut(&key) {
            *count = (*count + 1).min(3);
            return true;
        }
        if self.counts.len() == self.capacity {
            self.evict();
        }
        let queue = if self.left.remove(&key).is_some() { &mut self.main } else { &mut self.small };
        queue.push_back(key);
        self.counts.insert(key, 0);
        false
    }
}
