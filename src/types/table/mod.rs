//! A hash table of pointer-sized elements with stable scan cursors and incremental growth.
//!
//! A bucket is one cache line: a lookup that finds nothing costs one, a lookup that finds costs one more for the
//! element. Growing moves a few buckets with each change instead of all at once. The cursor of a scan counts the bits
//! of the bucket's index from the top (the algorithm of Redis's `SCAN`), so it stays valid whatever the size becomes.
//!
//! A side array holds for each bucket a lower bound of its elements' earliest deadline, in 4 bytes: looking for what
//! is due reads that array and touches no element that is not.

mod bucket;

use bucket::{Bucket, SLOTS};

use super::prefetch::{Part, prefetch};
use super::relocate::{self, Wants};

/// What a table holds: 8 bytes wide, mostly an owning pointer.
pub trait Element {
    /// The full hash of its key.
    fn hash(&self) -> u64;
    /// When it is due, in Unix milliseconds.
    fn deadline(&self) -> Option<u64> {
        None
    }
    /// Starts what it points to on its way into the cache.
    fn prefetch(&self) {}
}

/// The table grows when it holds more elements per bucket than this.
const MAX_LOAD: usize = 6;
/// Tables up to this many buckets move at once.
const SMALL: usize = 32;
/// Buckets moved with each change of a table that is moving.
const STEP: usize = 4;
/// Chains are hardly ever longer.
const MAX_DEPTH: usize = 3;

/// Milliseconds of one tick of a hint, as a power of two.
const TICK_SHIFT: u32 = 7;
/// Where ticks are counted from: 2024-01-01.
const TICK_EPOCH: u64 = 1_704_067_200_000;
/// The hint of a bucket without deadlines.
const NEVER: u32 = u32::MAX;

/// One array of buckets.
struct Array<E> {
    buckets: Box<[Bucket<E>]>,
    /// A lower bound of the earliest deadline by bucket; empty while no element has one.
    hints: Vec<u32>,
}

/// The array that elements are moved out of.
struct Moving<E> {
    from: Array<E>,
    /// Buckets before this one are empty.
    next: usize,
}

/// A hash table. See the module's page.
pub struct Table<E: Element> {
    array: Array<E>,
    moving: Option<Box<Moving<E>>>,
    len: usize,
    children: usize,
}

impl<E: Element> Default for Table<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E> Array<E> {
    fn empty() -> Self {
        Self { buckets: Box::default(), hints: Vec::new() }
    }

    fn with_buckets(count: usize) -> Self {
        Self { buckets: (0..count).map(|_| Bucket::new()).collect(), hints: Vec::new() }
    }

    #[inline]
    fn index(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    fn note(&mut self, index: usize, tick: u32) {
        if self.hints.is_empty() {
            self.hints = vec![NEVER; self.buckets.len()];
        }
        self.hints[index] = self.hints[index].min(tick);
    }
}

fn tick_of(deadline_ms: u64) -> u32 {
    (deadline_ms.saturating_sub(TICK_EPOCH) >> TICK_SHIFT).min(u64::from(NEVER - 1)) as u32
}

#[inline]
fn tag(hash: u64) -> u8 {
    (hash >> 56) as u8
}

impl<E: Element> Table<E> {
    /// An empty table, which allocates nothing.
    pub fn new() -> Self {
        Self { array: Array::empty(), moving: None, len: 0, children: 0 }
    }

    /// A table with room for so many elements.
    pub fn with_capacity(elements: usize) -> Self {
        let mut table = Self::new();
        if elements > 0 {
            table.array = Array::with_buckets(elements.div_ceil(MAX_LOAD).next_power_of_two());
        }
        table
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of the arrays and chains.
    pub fn memory(&self) -> usize {
        let array = |array: &Array<E>| array.buckets.len() * 64 + array.hints.capacity() * 4;
        array(&self.array) + self.children * 64 + self.moving.as_ref().map_or(0, |moving| array(&moving.from))
    }

    /// Finds the element of this hash that `eq` accepts.
    #[inline]
    pub fn find(&self, hash: u64, mut eq: impl FnMut(&E) -> bool) -> Option<&E> {
        if self.len == 0 {
            return None;
        }
        if let Some(moving) = &self.moving {
            let index = moving.from.index(hash);
            if index >= moving.next
                && let Some(found) = moving.from.buckets[index].find(tag(hash), &mut eq)
            {
                return Some(found);
            }
        }
        self.array.buckets[self.array.index(hash)].find(tag(hash), eq)
    }

    /// The same, to change the element; its key must stay as it is.
    #[inline]
    pub fn find_mut(&mut self, hash: u64, mut eq: impl FnMut(&E) -> bool) -> Option<&mut E> {
        if self.len == 0 {
            return None;
        }
        if let Some(moving) = &mut self.moving {
            let index = moving.from.index(hash);
            if index >= moving.next
                && let Some(found) = moving.from.buckets[index].find_mut(tag(hash), &mut eq)
            {
                return Some(found);
            }
        }
        let index = self.array.index(hash);
        self.array.buckets[index].find_mut(tag(hash), eq)
    }

    /// Adds an element whose key is absent.
    pub fn insert_unique(&mut self, hash: u64, element: E) -> &mut E {
        if self.moving.is_some() {
            self.move_some(STEP);
        } else if self.len >= self.array.buckets.len() * MAX_LOAD {
            self.resize((self.array.buckets.len() * 2).max(1));
        }
        self.len += 1;
        self.place(hash, element)
    }

    fn place(&mut self, hash: u64, element: E) -> &mut E {
        let index = self.array.index(hash);
        if let Some(deadline) = element.deadline() {
            self.array.note(index, tick_of(deadline));
        }
        let (element, chained) = self.array.buckets[index].insert(tag(hash), element);
        self.children += usize::from(chained);
        element
    }

    /// Takes the element of this hash that `eq` accepts.
    pub fn remove(&mut self, hash: u64, mut eq: impl FnMut(&E) -> bool) -> Option<E> {
        if self.len == 0 {
            return None;
        }
        if self.moving.is_some() {
            self.move_some(STEP);
        }
        let mut removed = None;
        if let Some(moving) = &mut self.moving {
            let index = moving.from.index(hash);
            removed = moving.from.buckets[index].remove(tag(hash), &mut eq);
        }
        let removed = removed.or_else(|| {
            let index = self.array.index(hash);
            self.array.buckets[index].remove(tag(hash), eq)
        });
        let (element, shortened) = removed?;
        self.children -= usize::from(shortened);
        self.len -= 1;
        self.shrink_if_sparse();
        Some(element)
    }

    fn shrink_if_sparse(&mut self) {
        let buckets = self.array.buckets.len();
        if self.moving.is_none() && buckets > 1 && self.len < buckets / 2 {
            self.resize((self.len.div_ceil(MAX_LOAD / 2)).next_power_of_two());
        }
    }

    /// Begins to move to an array of another size, and ends it at once if it is small.
    fn resize(&mut self, buckets: usize) {
        if buckets == self.array.buckets.len() {
            return;
        }
        let from = std::mem::replace(&mut self.array, Array::with_buckets(buckets));
        if from.buckets.is_empty() {
            return;
        }
        let at_once = from.buckets.len() <= SMALL;
        self.moving = Some(Box::new(Moving { from, next: 0 }));
        if at_once {
            self.move_some(usize::MAX);
        }
    }

    /// Moves up to so many buckets, skipping over empty ones at a tenth of the price.
    pub fn move_some(&mut self, buckets: usize) {
        let Some(mut moving) = self.moving.take() else { return };
        let (mut moved, mut skipped) = (0, 0);
        while moving.next < moving.from.buckets.len()
            && moved < buckets
            && skipped < buckets.saturating_mul(10)
        {
            let bucket = &mut moving.from.buckets[moving.next];
            moving.next += 1;
            if bucket.is_empty() {
                skipped += 1;
                continue;
            }
            moved += 1;
            let mut elements: [Option<E>; SLOTS * 2] = [const { None }; SLOTS * 2];
            let mut more = Vec::new();
            let mut count = 0;
            let (_, freed) = bucket.drain_due(&mut |_| true, &mut |element| {
                match elements.get_mut(count) {
                    Some(place) => *place = Some(element),
                    None => more.push(element),
                }
                count += 1;
            });
            self.children -= freed;
            for element in elements.into_iter().flatten().chain(more) {
                self.place(element.hash(), element);
            }
        }
        if moving.next < moving.from.buckets.len() {
            self.moving = Some(moving);
        }
    }

    /// Visits the elements of one bucket index and returns the cursor to go on with, 0 at the end.
    ///
    /// An element that is there from the call with cursor 0 to the one that returns 0 is visited at least once.
    pub fn scan(&self, cursor: u64, mut visit: impl FnMut(&E)) -> u64 {
        if self.len == 0 {
            return 0;
        }
        let mut cursor = cursor;
        let current = &self.array.buckets;
        let Some(moving) = &self.moving else {
            let mask = current.len() as u64 - 1;
            current[(cursor & mask) as usize].each(&mut visit);
            return advance(cursor, mask);
        };
        let other = &moving.from.buckets;
        let (small, large) = if current.len() < other.len() { (current, other) } else { (other, current) };
        let (small_mask, large_mask) = (small.len() as u64 - 1, large.len() as u64 - 1);
        small[(cursor & small_mask) as usize].each(&mut visit);
        loop {
            large[(cursor & large_mask) as usize].each(&mut visit);
            cursor = advance(cursor, large_mask);
            if cursor & (small_mask ^ large_mask) == 0 {
                return cursor;
            }
        }
    }

    fn arrays(&self) -> impl Iterator<Item = &Array<E>> {
        self.moving.iter().map(|moving| &moving.from).chain(std::iter::once(&self.array))
    }

    fn bucket_at(&self, position: usize) -> &Bucket<E> {
        let old = self.moving.as_ref().map_or(0, |moving| moving.from.buckets.len());
        match &self.moving {
            Some(moving) if position < old => &moving.from.buckets[position],
            _ => &self.array.buckets[position - old],
        }
    }

    fn positions(&self) -> usize {
        self.arrays().map(|array| array.buckets.len()).sum()
    }

    /// An element at random, each as likely as the others.
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<&E> {
        if self.len == 0 {
            return None;
        }
        let positions = self.positions();
        let depth = if self.children == 0 { 1 } else { MAX_DEPTH };
        for _ in 0..10_000 {
            let bucket = self.bucket_at(rng.usize(..positions));
            let place = rng.usize(..depth * SLOTS);
            if let Some(element) = bucket.nth(place / SLOTS, place % SLOTS) {
                return Some(element);
            }
        }
        self.iter().next()
    }

    /// Visits about `count` elements of buckets next to one another, beginning anywhere.
    pub fn sample(&self, rng: &mut fastrand::Rng, count: usize, mut visit: impl FnMut(&E)) {
        self.sample_where(rng, count, |_, _| true, &mut visit);
    }

    /// The same for buckets that hold elements with a deadline.
    pub fn sample_volatile(&self, rng: &mut fastrand::Rng, count: usize, mut visit: impl FnMut(&E)) {
        let wanted =
            |array: &Array<E>, index: usize| array.hints.get(index).is_some_and(|hint| *hint != NEVER);
        self.sample_where(rng, count, wanted, &mut visit);
    }

    fn sample_where(
        &self,
        rng: &mut fastrand::Rng,
        count: usize,
        wanted: impl Fn(&Array<E>, usize) -> bool,
        visit: &mut impl FnMut(&E),
    ) {
        let mut seen = 0;
        for array in self.arrays().filter(|array| !array.buckets.is_empty()) {
            let mask = array.buckets.len() - 1;
            let start = rng.usize(..=mask);
            for offset in 0..=mask {
                let index = (start + offset) & mask;
                if wanted(array, index) {
                    array.buckets[index].each(&mut |element| {
                        seen += 1;
                        visit(element);
                    });
                }
                if seen >= count {
                    return;
                }
            }
        }
    }

    /// Notes that the element of this hash now has this deadline.
    pub fn note_deadline(&mut self, hash: u64, deadline_ms: u64) {
        let tick = tick_of(deadline_ms);
        if let Some(moving) = &mut self.moving {
            let index = moving.from.index(hash);
            if index >= moving.next {
                moving.from.note(index, tick);
            }
        }
        if !self.array.buckets.is_empty() {
            let index = self.array.index(hash);
            self.array.note(index, tick);
        }
    }

    /// Removes what `due` wants from the buckets that may hold something due at `now_ms`, looking at up to `buckets`
    /// of them from `position` on, which becomes 0 at the end. Returns how many elements were removed.
    pub fn sweep(
        &mut self,
        position: &mut usize,
        buckets: usize,
        now_ms: u64,
        mut due: impl FnMut(&E) -> bool,
        mut removed: impl FnMut(E),
    ) -> usize {
        let now = tick_of(now_ms);
        let mut count = 0;
        let mut left = buckets;
        let mut base = 0;
        let mut freed_buckets = 0;
        let mut end = 0;
        let arrays =
            self.moving.iter_mut().map(|moving| &mut moving.from).chain(std::iter::once(&mut self.array));
        for array in arrays {
            end += array.buckets.len();
            let start = position.saturating_sub(base).min(array.hints.len());
            let stop = (start + left).min(array.hints.len());
            for index in start..stop {
                if array.hints[index] > now {
                    continue;
                }
                let (swept, freed) = array.buckets[index].drain_due(&mut due, &mut removed);
                count += swept;
                freed_buckets += freed;
                let mut earliest = NEVER;
                array.buckets[index].each(&mut |element| {
                    earliest = earliest.min(element.deadline().map_or(NEVER, tick_of));
                });
                array.hints[index] = earliest;
            }
            left -= stop - start;
            base = end;
            *position = if stop == array.hints.len() {
                (*position).max(base)
            } else {
                base - array.buckets.len() + stop
            };
            if left == 0 {
                break;
            }
        }
        if *position >= end {
            *position = 0;
        }
        self.children -= freed_buckets;
        self.len -= count;
        if count > 0 {
            self.shrink_if_sparse();
        }
        if self.moving.is_some() {
            self.move_some(STEP * 16);
        }
        count
    }

    /// Starts the home bucket of this hash on its way into the cache.
    #[inline]
    pub fn prefetch(&self, hash: u64) {
        if !self.array.buckets.is_empty() {
            prefetch(&raw const self.array.buckets[self.array.index(hash)]);
        }
    }

    /// Starts what may be the element of this hash on its way; its bucket should have arrived.
    #[inline]
    pub fn prefetch_element(&self, hash: u64) {
        self.each_candidate(hash, E::prefetch);
    }

    /// The same for a table that is the value of a key.
    #[inline]
    pub fn prefetch_part(&self, part: Part) {
        match part {
            Part::Bucket(hash) => self.prefetch(hash),
            Part::Member(hash) => self.prefetch_element(hash),
            Part::Log => {}
        }
    }

    /// Calls `visit` for what may be the element of this hash; it may be another, or missing while the table moves.
    #[inline]
    pub fn each_candidate(&self, hash: u64, visit: impl Fn(&E)) {
        if !self.array.buckets.is_empty() {
            self.array.buckets[self.array.index(hash)].each_candidate(tag(hash), visit);
        }
    }

    /// All elements, in no order.
    pub fn iter(&self) -> Iter<'_, E> {
        Iter { table: self, position: 0, bucket: None, slot: 0 }
    }

    /// Calls `visit` for each element, to change it; keys must stay as they are.
    pub fn each_mut(&mut self, mut visit: impl FnMut(&mut E)) {
        let moving = self.moving.iter_mut().map(|moving| &mut moving.from);
        for array in moving.chain(std::iter::once(&mut self.array)) {
            array.buckets.iter_mut().for_each(|bucket| bucket.each_mut(&mut visit));
        }
    }

    /// Moves chained buckets to other allocations where `wants` says so, of some buckets from `position` on, and has
    /// `relocate_element` do the same with their elements; `position` becomes 0 at the end. Returns how much was moved.
    /// What changes its place while the table grows may be missed.
    pub fn relocate_some(
        &mut self,
        position: &mut usize,
        buckets: usize,
        wants: &Wants<'_>,
        mut relocate_element: impl FnMut(&mut E) -> usize,
    ) -> usize {
        let all = &mut self.array.buckets;
        let end = all.len().min(position.saturating_add(buckets));
        let mut moved = usize::from(*position == 0 && relocate::slice(all, wants));
        for bucket in all.get_mut(*position..end).into_iter().flatten() {
            moved += bucket.relocate_children(wants);
            bucket.each_mut(&mut |element| moved += relocate_element(element));
        }
        *position = if end == all.len() { 0 } else { end };
        moved
    }

    /// Removes all elements.
    pub fn clear(&mut self) {
        *self = Self::new();
    }
}

/// The next cursor: one is added to the bits under the mask, counted from the top.
fn advance(cursor: u64, mask: u64) -> u64 {
    (cursor | !mask).reverse_bits().wrapping_add(1).reverse_bits()
}

/// Iterates over a table.
pub struct Iter<'a, E: Element> {
    table: &'a Table<E>,
    position: usize,
    bucket: Option<&'a Bucket<E>>,
    slot: usize,
}

impl<'a, E: Element> Iterator for Iter<'a, E> {
    type Item = &'a E;

    fn next(&mut self) -> Option<&'a E> {
        loop {
            let Some(bucket) = self.bucket else {
                if self.position >= self.table.positions() {
                    return None;
                }
                self.bucket = Some(self.table.bucket_at(self.position));
                self.position += 1;
                self.slot = 0;
                continue;
            };
            match bucket.next_used(self.slot) {
                Some(slot) => {
                    self.slot = slot + 1;
                    return Some(bucket.at(slot));
                }
                None => {
                    self.bucket = bucket.child();
                    self.slot = 0;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
