//! Which keys left a queue lately: fingerprints with their time, in a table of fixed buckets.
//!
//! Time is counted in departures. A fingerprint older than what the caller regards as recent is as good as absent,
//! and is overwritten when its bucket needs the room, so nothing is ever removed by a queue of its own. Four bytes for
//! each remembered key. False positives: 8 in 65536 look-ups at most.

/// Slots in a bucket: half a cache line.
const WAYS: usize = 8;
const MIN_BUCKETS: usize = 2;
/// A table of up to this many slots keeps exact times; bigger ones round them.
const EXACT_SLOTS_LOG2: u32 = 13;

/// A slot: 0 if empty, otherwise the fingerprint (never 0) above the time.
type Slot = u32;

/// The table; allocates at the first departure.
#[derive(Debug, Default, Clone)]
pub(super) struct Ghost {
    buckets: Vec<[Slot; WAYS]>,
    /// Departures so far.
    clock: u64,
}

impl Ghost {
    /// Remembers a key; `capacity` is how many are to be remembered, about.
    pub(super) fn add(&mut self, hash: u64, capacity: usize) {
        self.fit(capacity);
        self.clock += 1;
        let (now, shift) = (self.clock, self.shift());
        let bucket = self.bucket(hash);
        let fingerprint = fingerprint(hash);
        let age = |slot: Slot| match slot {
            0 => usize::MAX,
            _ if slot >> 16 == fingerprint => usize::MAX,
            _ => age(slot, now, shift),
        };
        if let Some(oldest) = bucket.iter_mut().max_by_key(|slot| age(**slot)) {
            *oldest = stamp(fingerprint, now, shift);
        }
    }

    /// Forgets a key; returns after how many other departures, about.
    #[inline]
    pub(super) fn take(&mut self, hash: u64) -> Option<usize> {
        if self.buckets.is_empty() {
            return None;
        }
        let (now, shift, fingerprint) = (self.clock, self.shift(), fingerprint(hash));
        let slot = self.bucket(hash).iter_mut().find(|slot| **slot >> 16 == fingerprint)?;
        Some(age(std::mem::take(slot), now, shift))
    }

    pub(super) fn memory(&self) -> usize {
        self.buckets.capacity() * size_of::<[Slot; WAYS]>()
    }

    fn slots(&self) -> usize {
        self.buckets.len() * WAYS
    }

    /// Times are kept in units of two to this power, such that sixteen bits span several times the capacity.
    fn shift(&self) -> u32 {
        self.slots().ilog2().saturating_sub(EXACT_SLOTS_LOG2)
    }

    fn bucket(&mut self, hash: u64) -> &mut [Slot; WAYS] {
        let mask = self.buckets.len() - 1;
        &mut self.buckets[hash as usize & mask]
    }

    /// Grows by doubling; starts anew, far smaller, when the number of keys has fallen to an eighth.
    fn fit(&mut self, capacity: usize) {
        if self.buckets.is_empty() || capacity < self.slots() / 16 {
            let wanted = capacity.div_ceil(WAYS).next_power_of_two().max(MIN_BUCKETS);
            if wanted != self.buckets.len() {
                self.buckets = vec![[0; WAYS]; wanted];
            }
        }
        while self.slots() < capacity {
            self.double();
        }
    }

    /// A key of bucket i may now belong into i or into its twin; its fingerprint does not tell, so it is put into both.
    fn double(&mut self) {
        let old = self.shift();
        self.buckets.reserve_exact(self.buckets.len());
        self.buckets.extend_from_within(..);
        let new = self.shift();
        if old != new {
            for slot in self.buckets.as_flattened_mut().iter_mut().filter(|slot| **slot != 0) {
                let left = self.clock.wrapping_sub(age(*slot, self.clock, old) as u64);
                *slot = stamp(*slot >> 16, left, new);
            }
        }
    }
}

/// Bits that choose neither bucket nor shard; never 0.
#[inline]
fn fingerprint(hash: u64) -> u32 {
    ((hash >> 48) as u32).max(1)
}

#[inline]
fn stamp(fingerprint: u32, time: u64, shift: u32) -> Slot {
    (fingerprint << 16) | u32::from((time >> shift) as u16)
}

/// Departures since the slot was written, less than one unit off; after 65536 units it starts at 0 again.
#[inline]
fn age(slot: Slot, now: u64, shift: u32) -> usize {
    usize::from(((now >> shift) as u16).wrapping_sub(slot as u16)) << shift
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(n: u64) -> u64 {
        let mixed = (n + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (mixed ^ (mixed >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
    }

    #[test]
    fn remembers_about_its_capacity_and_says_how_long_ago() {
        let mut ghost = Ghost::default();
        let count = if cfg!(miri) { 300 } else { 50_000 };
        let capacity = count as usize / 10;
        (0..count).for_each(|n| ghost.add(hash(n), capacity));
        let recent = count - capacity as u64;
        let found = (recent..count)
            .filter(|&n| match ghost.take(hash(n)) {
                Some(age) => {
                    let exact = (count - 1 - n) as usize;
                    assert!(age.abs_diff(exact) <= 1 << ghost.shift(), "{age} instead of {exact}");
                    true
                }
                None => false,
            })
            .count();
        assert!(found * 100 >= capacity * 85, "{found} of {capacity}");
        assert!((recent..count).all(|n| ghost.take(hash(n)).is_none()), "taken twice");
        assert!(ghost.memory() <= 8 * capacity);
    }

    #[test]
    fn forgets_nothing_recent_while_it_grows_and_keeps_the_times() {
        let mut ghost = Ghost::default();
        let count = if cfg!(miri) { 200 } else { 5_000 };
        (0..count).for_each(|n| ghost.add(hash(n), count as usize));
        let before = {
            let mut copy = ghost.clone();
            (0..count).filter(|&n| copy.take(hash(n)).is_some()).count()
        };
        ghost.add(hash(count), 8 * count as usize);
        let after = (0..count).filter(|&n| ghost.take(hash(n)).is_some()).count();
        assert!(after * 100 >= count as usize * 85 && after + 2 >= before, "{after} of {before}");

        let mut ghost = Ghost::default();
        ghost.add(hash(1), 8);
        (10..100).for_each(|n| ghost.add(hash(n), 100_000));
        let age = ghost.take(hash(1)).expect("just added");
        assert!(age.abs_diff(90) <= 1 << ghost.shift(), "{age}");
    }

    #[test]
    fn unknown_keys_are_rarely_found() {
        let mut ghost = Ghost::default();
        let count = if cfg!(miri) { 100 } else { 20_000 };
        (0..count).for_each(|n| ghost.add(hash(n), count as usize));
        let wrong = (count..2 * count).filter(|&n| ghost.take(hash(n)).is_some()).count();
        assert!(wrong * 1000 <= count as usize, "{wrong} of {count}");
    }

    #[test]
    fn gives_memory_back_when_few_keys_are_left() {
        let mut ghost = Ghost::default();
        (0..100).for_each(|n| ghost.add(hash(n), 4096));
        ghost.add(hash(200), 100);
        assert!(ghost.memory() <= 1024, "{}", ghost.memory());
        assert!(ghost.take(hash(200)).is_some());
    }
}
