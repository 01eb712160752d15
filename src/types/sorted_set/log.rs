//! The permits of a rate limiter, while they are all that a sorted set holds: a ring of times, 8 bytes each.
//!
//! Where the permits lie in the ring is written in the value itself, so a call goes from the key to the permits without a
//! stop between; in a ring that is full, as it is where calls are refused, the oldest and the newest lie side by side.
//!
//! Times never descend. The members are not stored: they count up from the oldest's number, which has 19 digits, so that
//! their order as texts is that of their times, and a permit keeps its member for as long as it is there.

use std::ptr::NonNull;

use crate::types::prefetch::prefetch;

/// The smallest number of 19 digits.
const FIRST_NUMBER: u64 = 1_000_000_000_000_000_000;
/// Leaves room to count up from.
const LAST_NUMBER: u64 = 9_000_000_000_000_000_000;
/// Slots of a log that begins.
const FIRST_SLOTS: usize = 3;

/// The log of a rate limiter. Packed, as the value that it is part of would be 8 bytes larger otherwise.
#[repr(Rust, packed(4))]
pub struct Log {
    /// A boxed slice of `slots + 1` numbers: first, the member that a permit in the first slot would have if the
    /// numbers went on from there; then the slots, each the time of a permit.
    ring: NonNull<u64>,
    slots: u32,
    /// The slot of the oldest.
    oldest: u32,
    len: u32,
}

// SAFETY: a log owns its ring alone, and that holds plain numbers.
unsafe impl Send for Log {}
// SAFETY: shared access only reads.
unsafe impl Sync for Log {}

/// The member of the first permit given at a time: unlike those of logs that began earlier.
pub(super) fn first_number(time: u64) -> u64 {
    time.saturating_mul(1000).clamp(FIRST_NUMBER, LAST_NUMBER)
}

impl Drop for Log {
    fn drop(&mut self) {
        let ring = std::ptr::slice_from_raw_parts_mut(self.ring.as_ptr(), self.slots as usize + 1);
        // SAFETY: `ring` came from a box of a slice of this length, and is given back once.
        drop(unsafe { Box::from_raw(ring) });
    }
}

impl Clone for Log {
    fn clone(&self) -> Self {
        Self::of(self.numbers().into(), self.oldest as usize, self.len())
    }
}

impl Log {
    /// An empty log that begins at `time`.
    pub(super) fn new(time: u64) -> Self {
        let mut numbers = [0; FIRST_SLOTS + 1];
        numbers[0] = first_number(time);
        Self::of(Box::new(numbers), 0, 0)
    }

    /// A log of these numbers; there is at least one slot behind the first of them.
    fn of(numbers: Box<[u64]>, oldest: usize, len: usize) -> Self {
        let slots = (numbers.len() - 1) as u32;
        // SAFETY: a box is never null.
        let ring = unsafe { NonNull::new_unchecked(Box::into_raw(numbers).cast::<u64>()) };
        Self { ring, slots, oldest: oldest as u32, len: len as u32 }
    }

    #[inline]
    fn numbers(&self) -> &[u64] {
        // SAFETY: `slots + 1` initialised numbers lie there, and `self` is borrowed for as long.
        unsafe { std::slice::from_raw_parts(self.ring.as_ptr(), self.slots as usize + 1) }
    }

    #[inline]
    fn numbers_mut(&mut self) -> &mut [u64] {
        // SAFETY: as in `numbers`, and nobody else has the ring.
        unsafe { std::slice::from_raw_parts_mut(self.ring.as_ptr(), self.slots as usize + 1) }
    }

    /// Whether there is no permit.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many permits there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    #[inline]
    fn slots(&self) -> &[u64] {
        &self.numbers()[1..]
    }

    /// The member of the oldest permit.
    #[inline]
    fn first(&self) -> u64 {
        self.numbers()[0] + u64::from(self.oldest)
    }

    /// The slot of a rank.
    #[inline]
    fn slot(&self, rank: usize) -> usize {
        let (at, slots) = (self.oldest as usize + rank, self.slots as usize);
        if at >= slots { at - slots } else { at }
    }

    /// The time of the permit of a rank, the oldest first.
    #[inline]
    pub fn time(&self, rank: usize) -> u64 {
        self.slots()[self.slot(rank)]
    }

    /// The time of the newest permit, if there is one.
    #[inline]
    pub fn newest_time(&self) -> Option<u64> {
        self.len().checked_sub(1).map(|last| self.time(last))
    }

    /// How many permits were given up to a time, that time included. Mostly few or none were, of those that are asked for.
    #[inline]
    pub fn count_until(&self, time: u64) -> usize {
        if self.is_empty() || self.time(0) > time {
            return 0;
        }
        if self.len == 1 || self.time(1) > time {
            return 1;
        }
        self.count_more_until(time)
    }

    fn count_more_until(&self, time: u64) -> usize {
        const NEAR: usize = 8;
        match (2..self.len().min(NEAR)).find(|rank| self.time(*rank) > time) {
            Some(rank) => rank,
            None => self.rank_where(|given, _| given <= time),
        }
    }

    /// Starts what nearly every call reads on its way into the cache: where permits go and where they come.
    #[inline]
    pub(super) fn prefetch(&self) {
        let slots = self.slots();
        prefetch(&raw const slots[self.oldest as usize]);
        prefetch(&raw const slots[self.slot(self.len().saturating_sub(1))]);
    }

    /// Its member, as the integer that it spells.
    #[inline]
    pub(super) fn member(&self, rank: usize) -> i64 {
        (self.first() + rank as u64) as i64
    }

    /// The rank of a member.
    pub(super) fn rank_of(&self, member: i64) -> Option<usize> {
        let rank = u64::try_from(member).ok()?.checked_sub(self.first())?;
        (rank < self.len() as u64).then_some(rank as usize)
    }

    /// The first rank that is not `before`, which holds for a first part of the permits and for none behind.
    pub(super) fn rank_where(&self, before: impl Fn(u64, i64) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            if before(self.time(middle), self.member(middle)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Adds permits; their time is not before the newest's. There will be no more than `most` of them at a time, mostly:
    /// a ring of just so many has the places where they come and go side by side.
    #[inline]
    pub fn push(&mut self, time: u64, count: usize, most: usize) {
        let len = self.len();
        if len + count > self.slots as usize {
            self.resize(len + count, most);
        }
        for rank in len..len + count {
            let slot = self.slot(rank);
            self.numbers_mut()[1 + slot] = time;
        }
        self.len = (len + count) as u32;
    }

    /// Removes the oldest permits, so many of those that there are.
    #[inline]
    pub fn drop_oldest(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let (oldest, slots) = (self.oldest as usize + count, self.slots);
        self.len -= count as u32;
        if oldest < slots as usize {
            self.oldest = oldest as u32;
        } else {
            self.oldest = oldest as u32 - slots;
            self.numbers_mut()[0] += u64::from(slots);
        }
        self.shrink();
    }

    /// Removes the newest permits.
    pub(super) fn drop_newest(&mut self, count: usize) {
        self.len -= count as u32;
        self.shrink();
    }

    #[inline]
    fn shrink(&mut self) {
        let slots = self.slots as usize;
        if slots > 64 && self.len() < slots / 4 {
            self.resize(self.len(), usize::MAX);
        }
    }

    /// Another ring: with an eighth more slots than needed, but not more than `most` if these are enough.
    #[cold]
    fn resize(&mut self, needed: usize, most: usize) {
        let slots = (needed + (needed / 8).max(4)).min(most.max(needed));
        let mut numbers = vec![0; slots + 1].into_boxed_slice();
        numbers[0] = self.first();
        for (rank, slot) in numbers[1..].iter_mut().enumerate().take(self.len()) {
            *slot = self.time(rank);
        }
        *self = Self::of(numbers, 0, self.len());
    }

    /// Bytes allocated.
    pub(super) fn allocated(&self) -> usize {
        size_of_val(self.numbers())
    }
}
