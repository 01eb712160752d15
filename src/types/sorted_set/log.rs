//! The permits of a rate limiter, while they are all that a sorted set holds: 4 bytes each beside one cache line, or 8 where
//! they spread over more than 71 minutes.
//!
//! That line, the head, has what nearly every call asks for: how many permits there are, the times of the oldest and of the
//! newest, and room for the next few. Behind it lies a ring, where they go together once that room is full. So a call waits
//! for one line, and for another only when a permit leaves. Measured in `benches/ratelimit`, case `take-log`.
//!
//! Times never descend. Of each, its low bits are kept, which the newest's time makes whole. The members are not stored:
//! they count up from the oldest's number, which has 19 digits, so that their order as texts is that of their times, and a
//! permit keeps its member for as long as it is there.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use crate::types::prefetch::prefetch;
use crate::types::relocate::Wants;

/// The smallest number of 19 digits.
const FIRST_NUMBER: u64 = 1_000_000_000_000_000_000;
/// Leaves room to count up from.
const LAST_NUMBER: u64 = 9_000_000_000_000_000_000;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes of the head that permits lie in before they go to the ring.
const TAIL: usize = 24;

/// The log of a rate limiter: a head, and a ring of `slots` low parts of times behind it.
pub struct Log(NonNull<Head>);

#[repr(C, align(64))]
struct Head {
    newest: u64,
    /// As the others' times, it means something only while there are permits.
    oldest: u64,
    /// The oldest's member.
    member: u64,
    slots: u32,
    /// The slot of the oldest in the ring.
    begin: u32,
    in_ring: u32,
    /// Newer than those in the ring.
    in_tail: u16,
    width: Width,
    tail: [u32; TAIL / 4],
}

const _: () = assert!(size_of::<Head>() == LINE);

/// Bytes kept of each time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Width {
    Four,
    Eight,
}

impl Width {
    /// That of permits which lie so far apart.
    fn of(span: u64) -> Self {
        if span <= Self::Four.mask() { Self::Four } else { Self::Eight }
    }

    #[inline]
    fn bytes(self) -> usize {
        if self == Self::Four { 4 } else { 8 }
    }

    #[inline]
    fn mask(self) -> u64 {
        if self == Self::Four { u32::MAX.into() } else { u64::MAX }
    }

    /// How many permits the head has room for.
    #[inline]
    fn in_tail(self) -> usize {
        TAIL / self.bytes()
    }
}

// SAFETY: a log owns its memory alone, and that holds plain numbers.
unsafe impl Send for Log {}
// SAFETY: shared access only reads.
unsafe impl Sync for Log {}

/// The member of the first permit given at a time: unlike those of logs that began earlier.
pub(super) fn first_number(time: u64) -> u64 {
    time.saturating_mul(1000).clamp(FIRST_NUMBER, LAST_NUMBER)
}

impl Drop for Log {
    fn drop(&mut self) {
        let layout = self.head().layout();
        // SAFETY: it was allocated with this layout, and is given back once.
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
    }
}

impl Clone for Log {
    fn clone(&self) -> Self {
        let head = self.head();
        let copy = Self::of(head.slots, head.width);
        // SAFETY: both are of the same layout, initialised as a whole, and apart.
        unsafe {
            let (from, to) = (self.0.as_ptr().cast::<u8>(), copy.0.as_ptr().cast::<u8>());
            from.copy_to_nonoverlapping(to, head.layout().size());
        }
        copy
    }
}

impl Head {
    fn layout(&self) -> Layout {
        layout(self.slots, self.width)
    }

    #[inline]
    fn len(&self) -> usize {
        self.in_ring as usize + usize::from(self.in_tail)
    }

    #[inline]
    fn tail(&self, at: usize) -> u64 {
        match self.width {
            Width::Four => self.tail[at].into(),
            Width::Eight => u64::from(self.tail[2 * at]) | u64::from(self.tail[2 * at + 1]) << 32,
        }
    }

    #[inline]
    fn set_tail(&mut self, at: usize, time: u64) {
        match self.width {
            Width::Four => self.tail[at] = time as u32,
            Width::Eight => {
                self.tail[2 * at] = time as u32;
                self.tail[2 * at + 1] = (time >> 32) as u32;
            }
        }
    }

    /// Adds permits to the tail, which has room for them.
    #[inline]
    fn push(&mut self, time: u64, count: usize) {
        let tail = usize::from(self.in_tail);
        (tail..tail + count).for_each(|at| self.set_tail(at, time));
        self.in_tail += count as u16;
    }

    /// Forgets all permits.
    fn clear(&mut self) {
        (self.begin, self.in_ring, self.in_tail) = (0, 0, 0);
    }

    /// The slot of a rank.
    #[inline]
    fn slot(&self, rank: usize) -> usize {
        let (at, slots) = (self.begin as usize + rank, self.slots as usize);
        if at >= slots { at - slots } else { at }
    }
}

fn layout(slots: u32, width: Width) -> Layout {
    match Layout::from_size_align(LINE + slots as usize * width.bytes(), LINE) {
        Ok(layout) => layout,
        Err(_) => unreachable!("2^32 permits are no more than 2^35 bytes"),
    }
}

impl Log {
    /// An empty log that begins at `time`.
    pub(super) fn new(time: u64) -> Self {
        let mut log = Self::of(0, Width::Four);
        log.head_mut().member = first_number(time);
        log
    }

    /// An empty log with a ring of so many slots.
    fn of(slots: u32, width: Width) -> Self {
        let layout = layout(slots, width);
        // SAFETY: the layout's size is not zero.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(head) = NonNull::new(memory.cast::<Head>()) else { handle_alloc_error(layout) };
        let mut log = Self(head);
        // All bytes are zero, which is a head of no permits.
        (log.head_mut().slots, log.head_mut().width) = (slots, width);
        log
    }

    #[inline]
    fn head(&self) -> &Head {
        // SAFETY: a head lies there, initialised, and `self` is borrowed for as long.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn head_mut(&mut self) -> &mut Head {
        // SAFETY: as in `head`, and nobody else has it.
        unsafe { self.0.as_mut() }
    }

    /// Where the ring begins.
    #[inline]
    fn ring(&self) -> *mut u8 {
        self.0.as_ptr().cast::<u8>().wrapping_add(LINE)
    }

    /// What is kept in a slot of the ring.
    #[inline]
    fn slot(&self, slot: usize) -> u64 {
        let head = self.head();
        assert!(slot < head.slots as usize);
        // SAFETY: `slots` initialised numbers of the width lie behind the head, aligned for it; this is one of them.
        unsafe {
            match head.width {
                Width::Four => self.ring().cast::<u32>().add(slot).read().into(),
                Width::Eight => self.ring().cast::<u64>().add(slot).read(),
            }
        }
    }

    #[inline]
    fn set_slot(&mut self, slot: usize, time: u64) {
        let head = self.head();
        assert!(slot < head.slots as usize);
        // SAFETY: as in `slot`, and nobody else reads it.
        unsafe {
            match head.width {
                Width::Four => self.ring().cast::<u32>().add(slot).write(time as u32),
                Width::Eight => self.ring().cast::<u64>().add(slot).write(time),
            }
        }
    }

    /// Whether there is no permit.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many permits there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.head().len()
    }

    /// The time of the permit of a rank, the oldest first.
    #[inline]
    pub fn time(&self, rank: usize) -> u64 {
        let head = self.head();
        if rank == 0 { head.oldest } else { self.read(rank) }
    }

    fn read(&self, rank: usize) -> u64 {
        let head = self.head();
        let low = match rank.checked_sub(head.in_ring as usize) {
            None => self.slot(head.slot(rank)),
            Some(at) => head.tail(at),
        };
        head.newest - (head.newest.wrapping_sub(low) & head.width.mask())
    }

    /// The time of the newest permit, if there is one.
    #[inline]
    pub fn newest_time(&self) -> Option<u64> {
        let head = self.head();
        (head.len() > 0).then_some(head.newest)
    }

    /// How many permits were given up to a time, that time included. Mostly few or none were, of those that are asked for.
    #[inline]
    pub fn count_until(&self, time: u64) -> usize {
        let head = self.head();
        if head.len() == 0 || head.oldest > time {
            return 0;
        }
        if head.newest <= time {
            return head.len();
        }
        self.count_more_until(time)
    }

    #[inline(never)]
    fn count_more_until(&self, time: u64) -> usize {
        const NEAR: usize = 8;
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

    /// The member of the permit of a rank, as the integer that it spells.
    #[inline]
    pub(super) fn member(&self, rank: usize) -> i64 {
        (self.head().member + rank as u64) as i64
    }

    /// The rank of a member.
    pub(super) fn rank_of(&self, member: i64) -> Option<usize> {
        let rank = u64::try_from(member).ok()?.checked_sub(self.head().member)?;
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

    /// Adds permits; their time is not before the newest's. There will be no more than `most` of them at a time, mostly.
    #[inline]
    pub fn push(&mut self, time: u64, count: usize, most: usize) {
        let head = self.head_mut();
        if head.len() == 0 {
            head.oldest = time;
        }
        let is_full = usize::from(head.in_tail) + count > head.width.in_tail();
        if is_full || time - head.oldest > head.width.mask() {
            return self.push_behind(time, count, most);
        }
        head.push(time, count);
        head.newest = time;
    }

    /// The same if the head has no room: what is in it goes to the ring first.
    #[inline(never)]
    fn push_behind(&mut self, time: u64, count: usize, most: usize) {
        let (head, len) = (self.head(), self.len());
        if len + count > head.slots as usize || time - head.oldest > head.width.mask() {
            self.resize(len + count, most, time);
        } else {
            self.empty_tail();
        }
        let head = self.head_mut();
        if usize::from(head.in_tail) + count <= head.width.in_tail() {
            head.push(time, count);
        } else {
            for rank in len..len + count {
                self.set_slot(self.head().slot(rank), time);
            }
            self.head_mut().in_ring += count as u32;
        }
        self.head_mut().newest = time;
    }

    /// Moves what is in the head to the ring, which has room for it.
    fn empty_tail(&mut self) {
        for at in 0..usize::from(self.head().in_tail) {
            let head = self.head();
            let (slot, low) = (head.slot(head.in_ring as usize), head.tail(at));
            self.set_slot(slot, low);
            self.head_mut().in_ring += 1;
        }
        self.head_mut().in_tail = 0;
    }

    /// Removes the oldest permits, so many of those that there are.
    #[inline]
    pub fn drop_oldest(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let head = self.head_mut();
        head.member += count as u64;
        if count == head.len() {
            head.clear();
            return self.shrink();
        }
        let of_ring = count.min(head.in_ring as usize);
        head.begin = head.slot(of_ring) as u32;
        head.in_ring -= of_ring as u32;
        let of_tail = count - of_ring;
        if of_tail > 0 {
            head.in_tail -= of_tail as u16;
            head.tail.copy_within(of_tail * head.width.bytes() / 4.., 0);
        }
        self.head_mut().oldest = self.read(0);
        self.shrink();
    }

    /// Removes the newest permits.
    pub(super) fn drop_newest(&mut self, count: usize) {
        let len = self.len() - count;
        if len > 0 {
            let newest = self.time(len - 1);
            let head = self.head_mut();
            let of_tail = count.min(usize::from(head.in_tail));
            head.in_tail -= of_tail as u16;
            head.in_ring -= (count - of_tail) as u32;
            head.newest = newest;
        } else {
            self.head_mut().clear();
        }
        self.shrink();
    }

    #[inline]
    fn shrink(&mut self) {
        let (slots, len) = (self.head().slots as usize, self.len());
        if slots > 256 && len < slots / 4 {
            self.resize(len, usize::MAX, self.head().newest);
        }
    }

    /// Another ring, for so many permits up to a time: with an eighth more slots than needed and what a line has left, but
    /// not more than `most` if these are enough.
    #[cold]
    fn resize(&mut self, needed: usize, most: usize, time: u64) {
        let (old, len) = (self.head(), self.len());
        let width = if len == 0 { Width::Four } else { Width::of(time - old.oldest) };
        let slots = if needed <= width.in_tail() {
            0
        } else {
            let wanted = (needed + needed / 8).min(most.max(needed)) * width.bytes();
            wanted.next_multiple_of(LINE) / width.bytes()
        };
        let mut new = Self::of(slots as u32, width);
        for rank in 0..len {
            let time = self.time(rank);
            match slots {
                0 => new.head_mut().set_tail(rank, time),
                _ => new.set_slot(rank, time),
            }
        }
        let head = new.head_mut();
        (head.newest, head.oldest, head.member) = (old.newest, old.oldest, old.member);
        match slots {
            0 => head.in_tail = len as u16,
            _ => head.in_ring = len as u32,
        }
        *self = new;
    }

    /// Moves it to another allocation if `wants` says so; says whether it did.
    pub(super) fn relocate(&mut self, wants: &Wants<'_>) -> bool {
        let moves = wants(self.0.as_ptr().cast());
        if moves {
            *self = self.clone();
        }
        moves
    }

    /// Bytes allocated.
    pub(super) fn allocated(&self) -> usize {
        self.head().layout().size()
    }
}
