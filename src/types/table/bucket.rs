//! A bucket: one cache line of seven elements with a byte of hash each, and a chain of more such lines if it overflows.

use std::mem::ManuallyDrop;

use crate::types::relocate::{self, Wants};

/// Elements of a bucket without a child.
pub(super) const SLOTS: usize = 7;
const LOW_BITS: u64 = 0x7f7f_7f7f_7f7f_7f7f;
const ONES: u64 = 0x0101_0101_0101_0101;
/// Bit of `used` that says the last slot is a child bucket.
const CHAINED: u8 = 1 << 7;

union Slot<E> {
    element: ManuallyDrop<E>,
    child: ManuallyDrop<Box<Bucket<E>>>,
    empty: (),
}

/// Seven slots; bytes 0 to 6 of `tags` are the tops of their hashes, byte 7 says which are used.
#[repr(C, align(64))]
pub(super) struct Bucket<E> {
    tags: [u8; 8],
    slots: [Slot<E>; SLOTS],
}

impl<E> Bucket<E> {
    const FITS: () = assert!(size_of::<E>() == 8 && align_of::<E>() <= 8);

    pub(super) const fn new() -> Self {
        const { Self::FITS };
        Self { tags: [0; 8], slots: [const { Slot { empty: () } }; SLOTS] }
    }

    #[inline]
    fn used(&self) -> u8 {
        self.tags[7]
    }

    fn is_chained(&self) -> bool {
        self.used() & CHAINED != 0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.used() == 0
    }

    /// Bits of the slots that hold elements.
    #[inline]
    fn elements(&self) -> u8 {
        self.used() & if self.is_chained() { 0x3f } else { 0x7f }
    }

    #[inline]
    pub(super) fn child(&self) -> Option<&Self> {
        // SAFETY: the bit says that the last slot is a child.
        self.is_chained().then(|| unsafe { &**self.slots[SLOTS - 1].child })
    }

    fn child_mut(&mut self) -> Option<&mut Self> {
        // SAFETY: the bit says that the last slot is a child.
        self.is_chained().then(|| unsafe { &mut **self.slots[SLOTS - 1].child })
    }

    /// Bits of the used slots whose tag is this one.
    #[inline]
    fn candidates(&self, tag: u8) -> u8 {
        let different = u64::from_le_bytes(self.tags) ^ (ONES * u64::from(tag));
        let equal = !(((different & LOW_BITS) + LOW_BITS) | different | LOW_BITS);
        // Gathers the top bits of the bytes into one byte.
        let bits = ((equal >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u8;
        bits & self.elements()
    }

    #[inline]
    fn element(&self, slot: usize) -> &E {
        debug_assert!(self.elements() >> slot & 1 == 1);
        // SAFETY: callers pass slots whose bit in `elements` is set.
        unsafe { &self.slots[slot].element }
    }

    #[inline]
    fn element_mut(&mut self, slot: usize) -> &mut E {
        debug_assert!(self.elements() >> slot & 1 == 1);
        // SAFETY: callers pass slots whose bit in `elements` is set.
        unsafe { &mut self.slots[slot].element }
    }

    /// Calls `visit` for each element of this line that has the tag.
    #[inline]
    pub(super) fn each_candidate(&self, tag: u8, visit: impl Fn(&E)) {
        for slot in bits(self.candidates(tag)) {
            visit(self.element(slot));
        }
    }

    #[inline]
    pub(super) fn find(&self, tag: u8, mut eq: impl FnMut(&E) -> bool) -> Option<&E> {
        let mut bucket = self;
        loop {
            for slot in bits(bucket.candidates(tag)) {
                if eq(bucket.element(slot)) {
                    return Some(bucket.element(slot));
                }
            }
            bucket = bucket.child()?;
        }
    }

    #[inline]
    pub(super) fn find_mut(&mut self, tag: u8, mut eq: impl FnMut(&E) -> bool) -> Option<&mut E> {
        let mut bucket = self;
        loop {
            for slot in bits(bucket.candidates(tag)) {
                if eq(bucket.element(slot)) {
                    return Some(bucket.element_mut(slot));
                }
            }
            bucket = bucket.child_mut()?;
        }
    }

    /// Adds an element; says whether a bucket was added to the chain.
    pub(super) fn insert(&mut self, tag: u8, element: E) -> (&mut E, bool) {
        let free = !self.used() & 0x7f;
        if free != 0 && !(self.is_chained() && free & 0x3f == 0) {
            let slot = (if self.is_chained() { free & 0x3f } else { free }).trailing_zeros() as usize;
            self.put(slot, tag, element);
            return (self.element_mut(slot), false);
        }
        if self.is_chained() {
            let Some(child) = self.child_mut() else { unreachable!("it is chained") };
            return child.insert(tag, element);
        }
        let mut child = Box::new(Self::new());
        let last_tag = self.tags[SLOTS - 1];
        let last = self.take(SLOTS - 1);
        child.put(0, last_tag, last);
        child.put(1, tag, element);
        self.slots[SLOTS - 1] = Slot { child: ManuallyDrop::new(child) };
        self.tags[7] |= CHAINED;
        let Some(child) = self.child_mut() else { unreachable!("just chained") };
        (child.element_mut(1), true)
    }

    fn put(&mut self, slot: usize, tag: u8, element: E) {
        self.tags[slot] = tag;
        self.slots[slot] = Slot { element: ManuallyDrop::new(element) };
        self.tags[7] |= 1 << slot;
    }

    fn take(&mut self, slot: usize) -> E {
        debug_assert!(self.elements() >> slot & 1 == 1);
        self.tags[7] &= !(1 << slot);
        // SAFETY: the slot's bit was set, so it holds an element; the bit is cleared, so nobody takes it again.
        unsafe { ManuallyDrop::take(&mut self.slots[slot].element) }
    }

    /// Takes the first element that `pick` wants; says also whether a bucket was removed from the chain.
    pub(super) fn remove(&mut self, tag: u8, mut eq: impl FnMut(&E) -> bool) -> Option<(E, bool)> {
        for slot in bits(self.candidates(tag)) {
            if eq(self.element(slot)) {
                return Some((self.take(slot), false));
            }
        }
        let (element, shortened) = self.child_mut()?.remove(tag, eq)?;
        Some((element, self.drop_empty_child() || shortened))
    }

    /// Takes every element that `due` wants, in the whole chain; returns how many, and how many buckets that freed.
    pub(super) fn drain_due(
        &mut self,
        due: &mut impl FnMut(&E) -> bool,
        taken: &mut impl FnMut(E),
    ) -> (usize, usize) {
        let (mut count, mut freed) = (0, 0);
        for slot in bits(self.elements()) {
            if due(self.element(slot)) {
                let element = self.take(slot);
                count += 1;
                taken(element);
            }
        }
        if let Some(child) = self.child_mut() {
            let (more, freed_below) = child.drain_due(due, taken);
            count += more;
            freed = freed_below + usize::from(self.drop_empty_child());
        }
        (count, freed)
    }

    fn drop_empty_child(&mut self) -> bool {
        if !self.child().is_some_and(Self::is_empty) {
            return false;
        }
        self.tags[7] &= !CHAINED;
        // SAFETY: the bit was set, so the slot holds a child; the bit is cleared, so nobody takes it again.
        drop(unsafe { ManuallyDrop::take(&mut self.slots[SLOTS - 1].child) });
        true
    }

    /// Calls `visit` for each element of the chain.
    #[inline]
    pub(super) fn each(&self, visit: &mut impl FnMut(&E)) {
        let mut bucket = self;
        loop {
            bits(bucket.elements()).for_each(|slot| visit(bucket.element(slot)));
            match bucket.child() {
                Some(child) => bucket = child,
                None => return,
            }
        }
    }

    /// Moves the buckets down the chain to other allocations where `wants` says so; how many were moved.
    pub(super) fn relocate_children(&mut self, wants: &Wants<'_>) -> usize {
        let (mut bucket, mut moved) = (self, 0);
        while bucket.is_chained() {
            // SAFETY: the bit says that the last slot is a child.
            let child: &mut Box<Self> = unsafe { &mut bucket.slots[SLOTS - 1].child };
            moved += usize::from(relocate::boxed(child, wants, Self::new));
            bucket = child;
        }
        moved
    }

    /// Calls `visit` for each element of the chain, to change it.
    pub(super) fn each_mut(&mut self, visit: &mut impl FnMut(&mut E)) {
        let mut bucket = self;
        loop {
            bits(bucket.elements()).for_each(|slot| visit(bucket.element_mut(slot)));
            match bucket.child_mut() {
                Some(child) => bucket = child,
                None => return,
            }
        }
    }

    /// The element at a slot of a bucket down the chain, if there is one.
    pub(super) fn nth(&self, depth: usize, slot: usize) -> Option<&E> {
        let mut bucket = self;
        for _ in 0..depth {
            bucket = bucket.child()?;
        }
        (bucket.elements() >> slot & 1 == 1).then(|| bucket.element(slot))
    }

    /// Slots that hold elements, from `from` on, in this bucket alone.
    pub(super) fn next_used(&self, from: usize) -> Option<usize> {
        bits(self.elements()).find(|slot| *slot >= from)
    }

    pub(super) fn at(&self, slot: usize) -> &E {
        self.element(slot)
    }
}

impl<E> Drop for Bucket<E> {
    fn drop(&mut self) {
        if self.is_empty() {
            return;
        }
        for slot in bits(self.elements()) {
            drop(self.take(slot));
        }
        if self.is_chained() {
            self.tags[7] &= !CHAINED;
            // SAFETY: the bit was set, so the slot holds a child; the bit is cleared.
            drop(unsafe { ManuallyDrop::take(&mut self.slots[SLOTS - 1].child) });
        }
    }
}

/// The indices of the set bits.
#[inline]
fn bits(mut mask: u8) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        Some(bit)
    })
}
