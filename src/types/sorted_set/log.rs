//! The permits of a rate limiter, while they are all that a sorted set holds: a ring of times, 8 bytes each.
//!
//! ```text
//! number of the oldest | how many (high half), where the oldest lies (low half) | newest time | oldest time
//!                      | times in microseconds, as a ring
//! ```
//! A call that is refused, and most that are not, read the first cache line alone.
//!
//! Times never descend. The members are not stored: they count up from the oldest's number, which has 19 digits, so that
//! their order as texts is that of their times, and a permit keeps its member for as long as it is there.

use thin_vec::ThinVec;

use crate::types::prefetch::prefetch;

/// The numbers before the ring.
const HEAD: usize = 4;
const NEWEST: usize = 2;
const OLDEST: usize = 3;
/// Slots at the beginning: 64 bytes with the vector's own header.
const FIRST_SLOTS: usize = 2;
/// Bytes that the vector keeps before its data.
const VECTOR_HEADER: usize = 16;
/// The smallest number of 19 digits.
const FIRST_NUMBER: u64 = 1_000_000_000_000_000_000;
/// Leaves room to count up from.
const LAST_NUMBER: u64 = 9_000_000_000_000_000_000;

/// The ring.
#[derive(Clone)]
pub(super) struct Log(ThinVec<u64>);

/// The member of the first permit given at a time: unlike those of logs that began earlier.
pub(super) fn first_number(time: u64) -> u64 {
    time.saturating_mul(1000).clamp(FIRST_NUMBER, LAST_NUMBER)
}

impl Log {
    /// An empty log that begins at `time`.
    pub(super) fn new(time: u64) -> Self {
        let mut words = with_slots(FIRST_SLOTS);
        words[0] = first_number(time);
        Self(words)
    }

    #[inline]
    pub(super) fn len(&self) -> usize {
        (self.0[1] >> 32) as usize
    }

    #[inline]
    fn oldest(&self) -> usize {
        self.0[1] as u32 as usize
    }

    #[inline]
    fn slots(&self) -> usize {
        self.0.len() - HEAD
    }

    #[inline]
    fn set_place(&mut self, len: usize, oldest: usize) {
        self.0[1] = (len as u64) << 32 | oldest as u64;
    }

    #[inline]
    fn slot(&self, rank: usize) -> usize {
        let at = self.oldest() + rank;
        HEAD + if at >= self.slots() { at - self.slots() } else { at }
    }

    /// The time of the permit of a rank, the oldest first.
    #[inline]
    pub(super) fn time(&self, rank: usize) -> u64 {
        self.0[self.slot(rank)]
    }

    /// The time of the oldest permit, if there is one.
    #[inline]
    pub(super) fn oldest_time(&self) -> Option<u64> {
        (self.len() > 0).then(|| self.0[OLDEST])
    }

    /// The time of the newest permit, if there is one.
    #[inline]
    pub(super) fn newest_time(&self) -> Option<u64> {
        (self.len() > 0).then(|| self.0[NEWEST])
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
        prefetch(self.0.as_ptr());
    }

    /// The same for the places where permits come and go, which are read once the oldest have left the window.
    #[inline]
    pub(super) fn prefetch_ends(&self) {
        let (oldest, behind) = (self.slot(0), self.slot(self.len().min(self.slots() - 1)));
        prefetch(&raw const self.0[oldest]);
        prefetch(&raw const self.0[behind]);
    }

    /// Its member, as the integer that it spells.
    #[inline]
    pub(super) fn member(&self, rank: usize) -> i64 {
        (self.0[0] + rank as u64) as i64
    }

    /// The rank of a member.
    pub(super) fn rank_of(&self, member: i64) -> Option<usize> {
        let rank = u64::try_from(member).ok()?.checked_sub(self.0[0])?;
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

    /// Adds permits; their time is not before the newest's.
    #[inline]
    pub(super) fn push(&mut self, time: u64, count: usize) {
        let len = self.len();
        if len + count > self.slots() {
            self.resize(len + count);
        }
        for rank in len..len + count {
            let slot = self.slot(rank);
            self.0[slot] = time;
        }
        if count > 0 {
            self.0[NEWEST] = time;
            if len == 0 {
                self.0[OLDEST] = time;
            }
        }
        self.set_place(len + count, self.oldest());
    }

    /// Removes the oldest permits, so many of those that there are.
    #[inline]
    pub(super) fn drop_oldest(&mut self, count: usize) {
        if count > 0 {
            let (oldest, len) = (self.slot(count) - HEAD, self.len() - count);
            self.0[0] += count as u64;
            self.set_place(len, oldest);
            if len > 0 {
                self.0[OLDEST] = self.0[HEAD + oldest];
            }
            self.shrink();
        }
    }

    /// Removes the newest permits.
    pub(super) fn drop_newest(&mut self, count: usize) {
        self.set_place(self.len() - count, self.oldest());
        if let Some(last) = self.len().checked_sub(1) {
            self.0[NEWEST] = self.time(last);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.slots() > 64 && self.len() < self.slots() / 4 {
            self.resize(self.len());
        }
    }

    /// Another ring with an eighth more slots than that.
    #[cold]
    fn resize(&mut self, slots: usize) {
        let mut words = with_slots(slots + (slots / 8).max(4));
        words[..HEAD].copy_from_slice(&self.0[..HEAD]);
        for rank in 0..self.len() {
            words[HEAD + rank] = self.time(rank);
        }
        let len = self.len();
        self.0 = words;
        self.set_place(len, 0);
    }

    /// Bytes allocated.
    pub(super) fn allocated(&self) -> usize {
        VECTOR_HEADER + self.0.capacity() * size_of::<u64>()
    }
}

fn with_slots(slots: usize) -> ThinVec<u64> {
    let mut words = ThinVec::new();
    words.reserve_exact(HEAD + slots);
    words.resize(HEAD + slots, 0);
    words
}
