//! The permits of a rate limiter, while they are all that a sorted set holds: a ring of times, 8 bytes each.
//!
//! A head of one cache line says how many there are, and when the oldest and the newest were given: a call that is refused,
//! and most that are not, read nothing else. Heads lie side by side, apart from the rings, so that those of ten thousand
//! logs take a hundred and sixty pages of memory rather than thousands.
//!
//! Times never descend. The members are not stored: they count up from the oldest's number, which has 19 digits, so that
//! their order as texts is that of their times, and a permit keeps its member for as long as it is there.

use crate::types::prefetch::prefetch;

/// Slots in the head itself, before there is a ring.
const FIRST_SLOTS: usize = 2;
/// The smallest number of 19 digits.
const FIRST_NUMBER: u64 = 1_000_000_000_000_000_000;
/// Leaves room to count up from.
const LAST_NUMBER: u64 = 9_000_000_000_000_000_000;

/// The head.
#[derive(Clone)]
pub(super) struct Log(Box<Head>);

#[derive(Clone)]
struct Head {
    /// The member of the oldest permit.
    first: u64,
    len: u32,
    /// The slot of the oldest.
    oldest: u32,
    newest_time: u64,
    oldest_time: u64,
    /// Empty as long as the slots of the head are enough.
    ring: Box<[u64]>,
    near: [u64; FIRST_SLOTS],
}

const _: () = assert!(size_of::<Head>() == 64);

/// The member of the first permit given at a time: unlike those of logs that began earlier.
pub(super) fn first_number(time: u64) -> u64 {
    time.saturating_mul(1000).clamp(FIRST_NUMBER, LAST_NUMBER)
}

impl Log {
    /// An empty log that begins at `time`.
    pub(super) fn new(time: u64) -> Self {
        Self(Box::new(Head {
            first: first_number(time),
            len: 0,
            oldest: 0,
            newest_time: 0,
            oldest_time: 0,
            ring: Box::default(),
            near: [0; FIRST_SLOTS],
        }))
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        self.0.len as usize
    }

    #[inline]
    fn slots(&self) -> &[u64] {
        if self.0.ring.is_empty() { &self.0.near } else { &self.0.ring }
    }

    #[inline]
    fn slots_mut(&mut self) -> &mut [u64] {
        let head = &mut *self.0;
        if head.ring.is_empty() { &mut head.near } else { &mut head.ring }
    }

    /// The slot of a rank in a ring of so many.
    #[inline]
    fn slot(&self, rank: usize, slots: usize) -> usize {
        let at = self.0.oldest as usize + rank;
        if at >= slots { at - slots } else { at }
    }

    /// The time of the permit of a rank, the oldest first.
    #[inline]
    pub(super) fn time(&self, rank: usize) -> u64 {
        let slots = self.slots();
        slots[self.slot(rank, slots.len())]
    }

    /// The time of the oldest permit, if there is one.
    #[inline]
    pub(super) fn oldest_time(&self) -> Option<u64> {
        (self.0.len > 0).then_some(self.0.oldest_time)
    }

    /// The time of the newest permit, if there is one.
    #[inline]
    pub(super) fn newest_time(&self) -> Option<u64> {
        (self.0.len > 0).then_some(self.0.newest_time)
    }

    /// How many permits were given up to a time, that time included. Mostly few or none were, of those that are asked for.
    #[inline]
    pub(super) fn count_until(&self, time: u64) -> usize {
        const NEAR: usize = 8;
        if self.oldest_time().is_none_or(|oldest| oldest > time) {
            return 0;
        }
        match (1..self.len().min(NEAR)).find(|rank| self.time(*rank) > time) {
            Some(rank) => rank,
            None => self.rank_where(|given, _| given <= time),
        }
    }

    /// Starts what nearly every call reads on its way into the cache.
    #[inline]
    pub(super) fn prefetch(&self) {
        prefetch(&raw const *self.0);
    }

    /// The same for the places where permits come and go, which are read once the oldest have left the window.
    #[inline]
    pub(super) fn prefetch_ends(&self) {
        let ring = &self.0.ring;
        if !ring.is_empty() {
            prefetch(&raw const ring[self.0.oldest as usize]);
            prefetch(&raw const ring[self.slot(self.len().min(ring.len() - 1), ring.len())]);
        }
    }

    /// Its member, as the integer that it spells.
    #[inline]
    pub(super) fn member(&self, rank: usize) -> i64 {
        (self.0.first + rank as u64) as i64
    }

    /// The rank of a member.
    pub(super) fn rank_of(&self, member: i64) -> Option<usize> {
        let rank = u64::try_from(member).ok()?.checked_sub(self.0.first)?;
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
    pub(super) fn push(&mut self, time: u64, count: usize, most: usize) {
        let len = self.len();
        if len + count > self.slots().len() {
            self.resize(len + count, most);
        }
        let slots = self.slots().len();
        for rank in len..len + count {
            let slot = self.slot(rank, slots);
            self.slots_mut()[slot] = time;
        }
        if count > 0 {
            self.0.newest_time = time;
            if len == 0 {
                self.0.oldest_time = time;
            }
        }
        self.0.len = (len + count) as u32;
    }

    /// Removes the oldest permits, so many of those that there are.
    #[inline]
    pub(super) fn drop_oldest(&mut self, count: usize) {
        if count > 0 {
            self.0.oldest = self.slot(count, self.slots().len()) as u32;
            self.0.first += count as u64;
            self.0.len -= count as u32;
            if self.0.len > 0 {
                self.0.oldest_time = self.time(0);
            }
            self.shrink();
        }
    }

    /// Removes the newest permits.
    pub(super) fn drop_newest(&mut self, count: usize) {
        self.0.len -= count as u32;
        if let Some(last) = self.len().checked_sub(1) {
            self.0.newest_time = self.time(last);
        }
        self.shrink();
    }

    #[inline]
    fn shrink(&mut self) {
        let slots = self.0.ring.len();
        if slots > 64 && self.len() < slots / 4 {
            self.resize(self.len(), usize::MAX);
        }
    }

    /// Another ring: with an eighth more slots than needed, but not more than `most` if these are enough.
    #[cold]
    fn resize(&mut self, needed: usize, most: usize) {
        let slots = (needed + (needed / 8).max(4)).min(most.max(needed));
        let mut ring = vec![0; slots].into_boxed_slice();
        for (rank, slot) in ring.iter_mut().enumerate().take(self.len()) {
            *slot = self.time(rank);
        }
        self.0.ring = ring;
        self.0.oldest = 0;
    }

    /// Bytes allocated.
    pub(super) fn allocated(&self) -> usize {
        size_of::<Head>() + size_of_val(&*self.0.ring)
    }
}
