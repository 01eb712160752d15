//! S3-FIFO: which key to evict next, from three first-in-first-out queues and two bits in each key.
//!
//! After Yang, Zhang, Qiu, Yue, Vigfusson: "FIFO queues are all you need for cache eviction", SOSP 2023. New keys
//! wait in a *small* queue; those that were used again meanwhile go on to the *main* queue, the others leave and
//! are remembered by a fingerprint in a *ghost* list; a remembered key that comes back enters main at once. Keys
//! used while in main go round again. A hit costs its owner one saturating counter and moves nothing.
//!
//! Where this differs from the paper, each shown to help by `benches/eviction`:
//! - one use is enough to pass from small to main (the paper asks for two), and the counter stops at
//!   [`MAX_FREQUENCY`] = 2 (the paper: 3): a popularity that has moved away is forgotten sooner;
//! - small's share is not fixed at 10 % but follows what the ghosts tell, as in the paper's S3-FIFO-D: keys missed
//!   soon after leaving small make it grow, keys missed soon after leaving main make it shrink;
//! - shares are shares of *bytes*, estimated from the sizes seen at the queues' ends.
//!
//! The entries belong to somebody else, the owner. It keeps for each key the counter and the [`Ticket`] given at its
//! insertion, and is asked about both through a closure. A deleted key needs no call: its element is recognised
//! as gone when its turn comes, because no key has its hash and ticket any more, or by [`S3Fifo::sweep`].
//!
//! Invariant: every key for which [`S3Fifo::on_insert`] was called and which its owner still has under that ticket is
//! in exactly one queue. Not here: locks, clocks, the keys themselves, the decision *when* to evict.

mod ghost;
mod queue;

#[cfg(test)]
mod tests;

use ghost::Ghost;
use queue::Queue;

/// Where an owner's use counter stops; it starts at 0 and each use adds one.
pub const MAX_FREQUENCY: u8 = 2;

/// Which bits of a hash are the same for all keys of one [`S3Fifo`], from this one on: the shard's number. Queue
/// elements keep the ticket in their place.
pub const TICKET_SHIFT: u32 = 40;
/// How many bits a [`Ticket`] has.
pub const TICKET_BITS: u32 = 6;

const TICKET_MASK: u64 = ((1 << TICKET_BITS) - 1) << TICKET_SHIFT;

/// Small's share of the bytes at first, and its limits, in thousandths.
const SHARE: u32 = 100;
const SHARE_RANGE: std::ops::RangeInclusive<u32> = 10..=500;
const SHARE_STEP: u32 = 20;
/// The part of the resident keys' number (one in so many) within which a return counts as "soon after leaving".
const SOON: usize = 5;
/// So many returns are weighed before the share changes once; fewer in a queue of few keys.
const RETURNS: std::ops::RangeInclusive<usize> = 4..=100;

/// Keys that one eviction sends round again at most; then the next one goes whatever its counter says.
const MAX_REPRIEVES: usize = 64;
/// Queue elements that one eviction looks at, at most.
const MAX_STEPS: usize = 1024;
/// Elements beyond twice the number of keys that are not worth a sweep.
const SLACK: usize = 256;
/// The weight of a new size in the running mean of sizes.
const SIZE_WEIGHT: f32 = 1.0 / 64.0;

/// Tells the queue elements of one hash apart: a key that is deleted and created again gets another. 1 to 63;
/// 0 is never given, and can mean "in no queue".
pub type Ticket = u8;

/// The name of a key in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id {
    /// The whole hash of the key.
    pub hash: u64,
    /// What `on_insert` returned for it.
    pub ticket: Ticket,
}

/// What the owner says of a key whose turn has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resident {
    /// No key has this hash and ticket.
    Gone,
    /// The key must not be evicted now.
    Pinned,
    /// The key can be evicted.
    Live {
        /// Its counter, *before* the owner took one off (as it must, unless it was 0).
        frequency: u8,
        /// The bytes that its removal would free, more or less.
        size: usize,
    },
}

/// The queues of one shard. See the module's text.
#[derive(Debug)]
pub struct S3Fifo {
    small: Queue,
    main: Queue,
    left_small: Ghost,
    left_main: Ghost,
    /// Running means of the bytes per element; 0 until one was seen.
    small_size: f32,
    main_size: f32,
    /// Small's share of the bytes, in thousandths.
    share: u32,
    returns_to_small: u16,
    returns_to_main: u16,
    next_ticket: Ticket,
    /// The bits that all hashes have in common.
    shard: u64,
}

impl Default for S3Fifo {
    fn default() -> Self {
        Self::new()
    }
}

impl S3Fifo {
    /// Empty queues; allocates nothing yet.
    pub fn new() -> Self {
        Self {
            small: Queue::default(),
            main: Queue::default(),
            left_small: Ghost::default(),
            left_main: Ghost::default(),
            small_size: 0.0,
            main_size: 0.0,
            share: SHARE,
            returns_to_small: 0,
            returns_to_main: 0,
            next_ticket: 1,
            shard: 0,
        }
    }

    /// Takes a new key in; its owner keeps the ticket and sets the counter to 0.
    ///
    /// All hashes must agree in the [`TICKET_BITS`] bits from [`TICKET_SHIFT`] on.
    #[inline]
    pub fn on_insert(&mut self, hash: u64) -> Ticket {
        if self.is_empty() {
            self.shard = hash & TICKET_MASK;
        }
        debug_assert_eq!(self.shard, hash & TICKET_MASK, "a hash of another shard");
        let ticket = self.next_ticket;
        self.next_ticket = if ticket == (1 << TICKET_BITS) - 1 { 1 } else { ticket + 1 };
        let element = (hash & !TICKET_MASK) | (u64::from(ticket) << TICKET_SHIFT);
        if self.returned(hash) {
            self.main.push(element);
        } else {
            self.small.push(element);
        }
        ticket
    }

    /// Takes the next victim out of the queues; the caller removes the key itself.
    ///
    /// `ask` is called with the keys whose turn has come, and takes one off the counter of a live one. `None`: the
    /// queues are empty, or the first thousand elements were all gone or pinned: then it can be called again.
    pub fn evict(&mut self, mut ask: impl FnMut(Id) -> Resident) -> Option<Id> {
        let mut reprieves = 0;
        for _ in 0..MAX_STEPS {
            let from_small = self.small_is_due();
            let (queue, mean) = match from_small {
                true => (&mut self.small, &mut self.small_size),
                false => (&mut self.main, &mut self.main_size),
            };
            let element = queue.pop()?;
            let id = identify(element, self.shard);
            match ask(id) {
                Resident::Gone => *mean -= *mean * SIZE_WEIGHT,
                Resident::Pinned => self.main.push(element),
                Resident::Live { frequency, size } => {
                    let weight = if *mean == 0.0 { 1.0 } else { SIZE_WEIGHT };
                    *mean += (size as f32 - *mean) * weight;
                    if frequency == 0 || reprieves == MAX_REPRIEVES {
                        self.remember(id.hash, from_small);
                        return Some(id);
                    }
                    reprieves += 1;
                    self.main.push(element);
                }
            }
        }
        None
    }

    /// Whether so many elements belong to deleted keys that [`S3Fifo::sweep`] should be called; `keys` is the number
    /// of keys that the owner has. Asking after each insertion bounds the memory to two elements per key.
    #[inline]
    pub fn wants_sweep(&self, keys: usize) -> bool {
        self.len() > 2 * keys + SLACK
    }

    /// Drops elements of deleted keys from a small piece of the queues, the next one each time.
    pub fn sweep(&mut self, mut exists: impl FnMut(Id) -> bool) {
        let shard = self.shard;
        let mut keep = |element| exists(identify(element, shard));
        if !self.small.sweep(&mut keep) {
            self.main.sweep(&mut keep);
        }
    }

    /// Elements in the queues: the keys, and those deleted ones that were not noticed yet.
    #[inline]
    pub fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        self.small.memory() + self.main.memory() + self.left_small.memory() + self.left_main.memory()
    }

    /// Whether the next victim is to come from small: it has its share, or there is nothing else.
    fn small_is_due(&self) -> bool {
        if self.main.len() == 0 || self.small.len() == 0 {
            return self.main.len() == 0;
        }
        // A queue that nothing is known of is taken to hold what the other holds.
        let known = self.small_size.max(self.main_size).max(1.0);
        let mean = |mean: f32| if mean == 0.0 { known } else { mean };
        let small = self.small.len() as f32 * mean(self.small_size);
        let main = self.main.len() as f32 * mean(self.main_size);
        small * 1000.0 >= (small + main) * self.share as f32
    }

    /// Puts a victim among the ghosts.
    fn remember(&mut self, hash: u64, from_small: bool) {
        // As many as main holds when small has the share the paper gives it.
        let keys = self.len() + 1;
        if from_small {
            self.left_small.add(hash, keys - keys / 10);
        } else {
            self.left_main.add(hash, keys / SOON);
        }
    }

    /// Whether a new key left small so recently that it belongs into main; learns from it what share is right.
    #[inline]
    fn returned(&mut self, hash: u64) -> bool {
        let keys = self.len();
        let from_small = self.left_small.take(hash);
        let from_main = self.left_main.take(hash);
        let soon = |age: Option<usize>| age.is_some_and(|age| age <= keys / SOON);
        if soon(from_small) || soon(from_main) {
            self.returns_to_small += u16::from(soon(from_small));
            self.returns_to_main += u16::from(soon(from_main));
            self.adapt(keys);
        }
        from_small.is_some_and(|age| age <= keys - keys / 10)
    }

    /// Moves small's share after enough returns, if one kind clearly prevails.
    fn adapt(&mut self, keys: usize) {
        let (small, main) = (u32::from(self.returns_to_small), u32::from(self.returns_to_main));
        if (small + main) as usize <= (keys / 16).clamp(*RETURNS.start(), *RETURNS.end()) {
            return;
        }
        if small * 5 > main * 6 {
            self.share = (self.share + SHARE_STEP).min(*SHARE_RANGE.end());
        } else if main * 5 > small * 6 {
            self.share = self.share.saturating_sub(SHARE_STEP).max(*SHARE_RANGE.start());
        }
        (self.returns_to_small, self.returns_to_main) = (0, 0);
    }
}

/// What an element says, with the shard's bits in place of the ticket again.
#[inline]
fn identify(element: u64, shard: u64) -> Id {
    Id { hash: (element & !TICKET_MASK) | shard, ticket: ((element & TICKET_MASK) >> TICKET_SHIFT) as Ticket }
}
