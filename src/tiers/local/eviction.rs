//! Eviction: what an access leaves in an entry's record, and which keys go when memory runs out.
//!
//! LRU and LFU sample as Redis does (`evict.c`): a few entries of a random shard, the worst goes. S3-FIFO asks its
//! queues. Eviction runs *before* a write, with one shard locked at a time.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::effects::{Effects, Event};
use super::entry::Entry;
use super::keyspace::Keyspace;
use super::memory;
use super::shard::Shard;
use super::view::View;
use crate::config::{Id, Policy, Settings};
use crate::types::s3fifo::{Id as Queued, MAX_FREQUENCY, Resident, S3Fifo, Ticket};
use crate::types::table::{Element, Table};

/// The counter that a new key starts with, so that it is not evicted before it could be used.
const LFU_INITIAL: u32 = 5;
/// Fewer candidates make a choice no better than chance; Redis's default of 5 samples fills a pool of 16 over time.
const MIN_SAMPLES: usize = 16;
/// Shards to try before giving up: all of them, a few times, since sampling may miss.
const ROUNDS: usize = 4;

/// Which shard eviction looks at next.
#[derive(Debug, Default)]
pub struct EvictionState {
    next_shard: AtomicUsize,
}

/// The result of an attempt to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Evicted {
    /// Memory is below the limit.
    Enough,
    /// Nothing (more) may be evicted.
    Exhausted,
}

/// Seconds, as the access record of LRU counts them.
#[inline]
fn lru_clock(now_ms: u64) -> u32 {
    (now_ms / 1000) as u32
}

/// Minutes in 24 bits above the 8 bits of the logarithmic counter.
#[inline]
fn lfu_minutes(now_ms: u64) -> u32 {
    (now_ms / 60_000) as u32 & 0xff_ffff
}

/// Notes that an entry was used.
#[inline]
pub(super) fn touch(entry: &mut Entry, settings: &Settings, now_ms: u64) {
    match settings.maxmemory_policy() {
        Policy::AllkeysLfu | Policy::VolatileLfu => touch_lfu(entry, settings, now_ms),
        Policy::AllkeysS3fifo => {
            if entry.mark() & FREQUENCY < MAX_FREQUENCY {
                entry.set_mark(entry.mark() + 1);
            }
            entry.set_access(lru_clock(now_ms));
        }
        _ => entry.set_access(lru_clock(now_ms)),
    }
}

fn touch_lfu(entry: &mut Entry, settings: &Settings, now_ms: u64) {
    let counter = frequency(entry.access(), settings, now_ms);
    let base = counter.saturating_sub(LFU_INITIAL);
    let chance = 1.0 / (f64::from(base) * settings.int(Id::LfuLogFactor) as f64 + 1.0);
    let counter = if counter < 255 && fastrand::f64() < chance { counter + 1 } else { counter };
    entry.set_access(lfu_minutes(now_ms) << 8 | counter);
}

/// Gives a new entry its first access record.
pub(super) fn created(entry: &mut Entry, settings: &Settings, now_ms: u64) {
    entry.set_mark(0);
    entry.set_access(match settings.maxmemory_policy() {
        Policy::AllkeysLfu | Policy::VolatileLfu => lfu_minutes(now_ms) << 8 | LFU_INITIAL,
        _ => lru_clock(now_ms),
    });
}

/// The frequency counter of an access record after its decay (`OBJECT FREQ`).
pub fn frequency(access: u32, settings: &Settings, now_ms: u64) -> u32 {
    let decay = settings.int(Id::LfuDecayTime) as u32;
    let elapsed = lfu_minutes(now_ms).wrapping_sub(access >> 8) & 0xff_ffff;
    let periods = elapsed.checked_div(decay).unwrap_or(0);
    (access & 0xff).saturating_sub(periods)
}

/// The access record of a key that was not used for so many seconds, or has this frequency: what the policy counts.
pub fn access_record(
    settings: &Settings,
    now_ms: u64,
    idle: Option<u64>,
    frequency: Option<u8>,
) -> Option<u32> {
    if settings.maxmemory_policy().is_lfu() {
        return frequency.map(|frequency| lfu_minutes(now_ms) << 8 | u32::from(frequency));
    }
    idle.map(|idle| lru_clock(now_ms).saturating_sub(u32::try_from(idle).unwrap_or(u32::MAX)))
}

/// Seconds since an access record of LRU was written (`OBJECT IDLETIME`).
pub fn idle_seconds(access: u32, now_ms: u64) -> u64 {
    u64::from(lru_clock(now_ms).saturating_sub(access))
}

impl Keyspace {
    /// Whether memory is above the limit.
    #[inline]
    pub fn is_over_limit(&self) -> bool {
        let limit = self.settings().int(Id::Maxmemory);
        limit > 0 && memory::used() > limit as usize
    }

    /// Evicts until memory is below the limit.
    pub fn make_room(&self, now_ms: u64, effects: &mut Effects) -> Evicted {
        let policy = self.settings().maxmemory_policy();
        if policy == Policy::Noeviction {
            return if self.is_over_limit() { Evicted::Exhausted } else { Evicted::Enough };
        }
        let mut fruitless = 0;
        while self.is_over_limit() {
            // Values on their way to the freeing thread count as used: free them here instead.
            effects.garbage.clear();
            let shard = self.eviction.next_shard.fetch_add(1, Relaxed) % self.shards();
            if self.evict_one(shard, policy, now_ms, effects) {
                fruitless = 0;
            } else {
                fruitless += 1;
                if fruitless > self.shards() * ROUNDS {
                    return Evicted::Exhausted;
                }
            }
        }
        Evicted::Enough
    }

    fn evict_one(&self, index: usize, policy: Policy, now_ms: u64, effects: &mut Effects) -> bool {
        let settings = self.settings();
        let Some(mut shard) = self.lock_unless_held(index) else { return false };
        let pins = |db: usize, key: &[u8]| self.mirror_of(db).is_some_and(|mirror| mirror.pins(key));
        let victim = victim(&mut shard, policy, settings, now_ms, &pins);
        let Some((db, hash, key)) = victim else { return false };
        if let Some(mirror) = self.mirror_of(db) {
            mirror.gone(&key);
        }
        let Some(entry) = shard.databases[db].remove(hash, &key) else { return false };
        shard.counters.evicted += 1;
        drop(entry);
        self.tell_listener(&key, true);
        if let Some(observers) = &shard.observers
            && observers.changed(db, &key)
        {
            effects.ready.push((db, key.clone()));
        }
        if settings.notifies(Event::EVICTED.class as u32) {
            effects.events.push((db, Event::EVICTED, key));
        }
        true
    }
}

impl View<'_> {
    /// Builds or drops the queues of S3-FIFO after the policy changed.
    pub fn policy_changed(&mut self) {
        let queued = self.settings().maxmemory_policy() == Policy::AllkeysS3fifo;
        for index in 0..self.keyspace.shards() {
            self.with_shard(index, |shard| {
                for database in &mut shard.databases {
                    if !queued {
                        database.queues = None;
                    } else if database.queues.is_none() {
                        let mut queues = S3Fifo::default();
                        database.keys.each_mut(|entry| {
                            let ticket = queues.on_insert(Element::hash(entry));
                            entry.set_mark(first_mark(ticket));
                        });
                        database.queues = Some(Box::new(queues));
                    }
                }
            });
        }
    }
}

/// The bits of an entry's mark that count its uses; those above are its ticket.
const FREQUENCY: u8 = 3;

/// The mark of an entry that was not used yet.
pub(super) fn first_mark(ticket: Ticket) -> u8 {
    ticket << 2
}

/// The entry that a queue's element stands for, if it is still there.
pub(super) fn resident(keys: &Table<Entry>, id: Queued) -> Option<&Entry> {
    keys.find(id.hash, |entry| entry.mark() >> 2 == id.ticket && Element::hash(entry) == id.hash)
}

type Victim = (usize, u64, Box<[u8]>);

type Pins<'a> = &'a dyn Fn(usize, &[u8]) -> bool;

fn victim(
    shard: &mut Shard,
    policy: Policy,
    settings: &Settings,
    now_ms: u64,
    pins: Pins<'_>,
) -> Option<Victim> {
    if policy == Policy::AllkeysS3fifo {
        return s3fifo_victim(shard, pins);
    }
    let samples = (settings.int(Id::MaxmemorySamples) as usize).max(MIN_SAMPLES);
    let mut best: Option<(u64, Victim)> = None;
    for (db, database) in shard.databases.iter().enumerate().filter(|(_, database)| !database.keys.is_empty())
    {
        let table = &database.keys;
        let mut consider = |entry: &Entry| {
            if pins(db, entry.key()) {
                return;
            }
            let score = score(entry, policy, settings, now_ms);
            if best.as_ref().is_none_or(|(other, _)| score > *other) {
                best = Some((score, (db, Element::hash(entry), entry.key().into())));
            }
        };
        let mut rng = fastrand::Rng::new();
        if policy.is_volatile() {
            table.sample_volatile(&mut rng, samples, |entry| {
                if entry.deadline().is_some() {
                    consider(entry);
                }
            });
        } else {
            table.sample(&mut rng, samples, &mut consider);
        }
    }
    best.map(|(_, victim)| victim)
}

/// How much an entry deserves to go: the highest does.
fn score(entry: &Entry, policy: Policy, settings: &Settings, now_ms: u64) -> u64 {
    match policy {
        Policy::AllkeysLfu | Policy::VolatileLfu => {
            255 - u64::from(frequency(entry.access(), settings, now_ms))
        }
        Policy::AllkeysRandom | Policy::VolatileRandom => fastrand::u64(..),
        Policy::VolatileTtl => u64::MAX - entry.deadline().unwrap_or(u64::MAX),
        _ => idle_seconds(entry.access(), now_ms),
    }
}

fn s3fifo_victim(shard: &mut Shard, pins: Pins<'_>) -> Option<Victim> {
    // The fullest database pays first.
    let (db, database) =
        shard.databases.iter_mut().enumerate().max_by_key(|(_, database)| database.keys.len())?;
    let keys = &mut database.keys;
    let id = database.queues.as_mut()?.evict(|id| {
        let found =
            keys.find_mut(id.hash, |entry| entry.mark() >> 2 == id.ticket && Element::hash(entry) == id.hash);
        let Some(entry) = found else { return Resident::Gone };
        if pins(db, entry.key()) {
            return Resident::Pinned;
        }
        let frequency = entry.mark() & FREQUENCY;
        if frequency > 0 {
            entry.set_mark(entry.mark() - 1);
        }
        Resident::Live { frequency, size: entry.memory() }
    })?;
    let key = resident(keys, id)?.key().into();
    Some((db, id.hash, key))
}
