//! Bytes with a small number beside them, in one allocation behind an 8-byte pointer, whose header takes 8 bytes.
//!
//! `ThinVec` keeps 16 bytes before its data, and zeroes what it is about to overwrite; small collections are made of
//! these, so both count. Allocations fill size classes of the allocator: 16-byte steps to 128, then four a doubling,
//! so the capacity fits in a byte as the number of its class.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error, realloc};
use std::ptr::NonNull;

use super::relocate::Wants;

/// What lies before the bytes.
#[repr(C)]
struct Header {
    len: u32,
    /// The number beside the bytes in the upper 24 bits, the size class in the lower 8.
    number_and_class: u32,
}

/// Bytes before the data.
pub const HEADER: usize = size_of::<Header>();
/// The largest number beside the bytes.
pub const MAX_NUMBER: u32 = (1 << 24) - 1;

/// A growing string of bytes.
pub struct ThinBytes(NonNull<Header>);

// SAFETY: it owns its allocation alone, and that holds plain bytes.
unsafe impl Send for ThinBytes {}
// SAFETY: shared access only reads.
unsafe impl Sync for ThinBytes {}

/// The class of the smallest allocation that holds so many bytes, header included.
fn class_of(size: usize) -> u8 {
    if size <= 128 {
        return size.div_ceil(16).max(1) as u8;
    }
    let doubling = (size - 1).ilog2() as usize;
    let quarters = size.div_ceil(1 << (doubling - 2)) - 4;
    (8 + (doubling - 7) * 4 + quarters) as u8
}

/// The bytes of an allocation of this class.
fn size_of_class(class: u8) -> usize {
    let class = class as usize;
    if class <= 8 {
        return class * 16;
    }
    let (doubling, quarters) = (7 + (class - 9) / 4, (class - 9) % 4 + 1);
    (4 + quarters) << (doubling - 2)
}

fn layout(class: u8) -> Layout {
    match Layout::from_size_align(size_of_class(class), align_of::<Header>()) {
        Ok(layout) => layout,
        Err(_) => unreachable!("a class is at most 8 GiB"),
    }
}

impl ThinBytes {
    /// Empty, with room for at least so many bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        assert!(capacity <= u32::MAX as usize, "more than 4 GiB in one allocation of a collection");
        let class = class_of(HEADER + capacity);
        // SAFETY: a class has at least 16 bytes.
        let pointer = unsafe { alloc(layout(class)) };
        let Some(pointer) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout(class)) };
        // SAFETY: the allocation holds a header and is aligned for it.
        unsafe { pointer.write(Header { len: 0, number_and_class: u32::from(class) }) };
        Self(pointer)
    }

    /// The parts, one behind the other.
    #[inline]
    pub fn of_parts(parts: [&[u8]; 3]) -> Self {
        let mut bytes = Self::with_capacity(parts.iter().map(|part| part.len()).sum());
        bytes.splice(0, 0, parts);
        bytes
    }

    /// Where its allocation begins.
    #[inline]
    pub fn address(&self) -> *const u8 {
        self.0.as_ptr().cast()
    }

    /// Moves to another allocation if `wants` says so of the one it has; says whether it did.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> bool {
        let moves = wants(self.address());
        if moves {
            *self = self.clone();
        }
        moves
    }

    /// Bytes allocated.
    pub fn allocated(&self) -> usize {
        size_of_class(self.class())
    }

    #[inline]
    fn header(&self) -> &Header {
        // SAFETY: the header was written when it was allocated.
        unsafe { self.0.as_ref() }
    }

    #[inline]
    fn data(&self) -> *mut u8 {
        // SAFETY: the data begins behind the header, inside the allocation.
        unsafe { self.0.cast::<u8>().add(HEADER).as_ptr() }
    }

    fn class(&self) -> u8 {
        (self.header().number_and_class & 0xff) as u8
    }

    /// How many bytes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.header().len as usize
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many bytes fit without another allocation.
    #[inline]
    pub fn capacity(&self) -> usize {
        size_of_class(self.class()) - HEADER
    }

    /// The number beside the bytes.
    #[inline]
    pub fn number(&self) -> u32 {
        self.header().number_and_class >> 8
    }

    /// Sets the number beside the bytes; at most [`MAX_NUMBER`].
    pub fn set_number(&mut self, number: u32) {
        debug_assert!(number <= MAX_NUMBER);
        let class = u32::from(self.class());
        // SAFETY: the header is initialised, and borrowed by nobody else.
        unsafe { self.0.as_mut() }.number_and_class = number << 8 | class;
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `len` bytes behind the header are initialised.
        unsafe { std::slice::from_raw_parts(self.data(), self.len()) }
    }

    /// Puts the parts in the place of `removed` bytes from `at` on. Memory is given back when half would do.
    pub fn splice(&mut self, at: usize, removed: usize, parts: [&[u8]; 3]) {
        let old_len = self.len();
        assert!(at <= old_len && removed <= old_len - at, "a range within the bytes");
        let added: usize = parts.iter().map(|part| part.len()).sum();
        let (new_len, tail) = (old_len - removed + added, old_len - at - removed);
        if new_len > self.capacity() {
            self.reallocate(new_len);
        }
        // SAFETY: the capacity is at least `new_len`, `at + added + tail == new_len` and `at + removed + tail ==
        // old_len`, so both ranges of the move lie in the allocation. The parts are other allocations or static: nobody
        // can hold a borrow of our bytes beside `&mut self`. All bytes up to `new_len` are initialised afterwards.
        unsafe {
            let gap = self.data().add(at);
            if added != removed {
                std::ptr::copy(gap.add(removed), gap.add(added), tail);
            }
            let mut to = gap;
            for part in parts {
                to.copy_from_nonoverlapping(part.as_ptr(), part.len());
                to = to.add(part.len());
            }
            self.0.as_mut().len = new_len as u32;
        }
        if added < removed && size_of_class(class_of(HEADER + new_len)) * 2 <= size_of_class(self.class()) {
            self.reallocate(new_len);
        }
    }

    /// Keeps the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        let old_len = self.len();
        if len < old_len {
            self.splice(len, old_len - len, [&[]; 3]);
        }
    }

    /// Moves into an allocation that holds so many bytes, not fewer than there are.
    fn reallocate(&mut self, capacity: usize) {
        assert!(capacity <= u32::MAX as usize, "more than 4 GiB in one allocation of a collection");
        let (old, new) = (layout(self.class()), class_of(HEADER + capacity));
        let size = size_of_class(new);
        // SAFETY: the pointer came from the allocator with the layout `old`, and `size` is not zero.
        let pointer = unsafe { realloc(self.0.as_ptr().cast(), old, size) };
        let Some(pointer) = NonNull::new(pointer.cast::<Header>()) else { handle_alloc_error(layout(new)) };
        self.0 = pointer;
        let number = self.number();
        // SAFETY: the header moved along with the bytes.
        unsafe { self.0.as_mut() }.number_and_class = number << 8 | u32::from(new);
    }
}

impl Clone for ThinBytes {
    fn clone(&self) -> Self {
        let mut copy = Self::of_parts([self.bytes(), &[], &[]]);
        copy.set_number(self.number());
        copy
    }
}

impl Drop for ThinBytes {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, and not used again.
        unsafe { dealloc(self.0.as_ptr().cast(), layout(self.class())) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_what_they_are_for_and_little_more() {
        let sizes =
            (1..5000).chain((13..33).flat_map(|bits| [(1usize << bits) - 1, 1 << bits, (1 << bits) + 1]));
        for size in sizes {
            let class = class_of(size);
            assert!(size_of_class(class) >= size, "{size}");
            assert!(class == 1 || size_of_class(class - 1) < size, "{size}");
            assert_eq!(class_of(size_of_class(class)), class, "{size}");
        }
    }

    /// Short enough for Miri.
    #[test]
    fn behaves_like_a_vector() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut bytes, mut model) = (ThinBytes::with_capacity(0), Vec::new());
        for step in 0..if cfg!(miri) { 200 } else { 20_000 } {
            let at = rng.usize(..=model.len());
            let most = if step % 500 < 250 { 3 } else { 60 };
            let removed = rng.usize(..=(model.len() - at).min(most));
            let parts: Vec<Vec<u8>> = (0..3).map(|_| vec![rng.u8(..); rng.usize(..12)]).collect();
            bytes.set_number(step as u32);
            bytes.splice(at, removed, [&parts[0], &parts[1], &parts[2]]);
            model.splice(at..at + removed, parts.concat());
            assert_eq!(bytes.bytes(), model);
            assert_eq!(bytes.number(), step as u32);
            assert!(bytes.capacity() >= bytes.len());
            if step % 97 == 0 {
                bytes = bytes.clone();
                let len = rng.usize(..=model.len());
                bytes.truncate(len);
                model.truncate(len);
            }
        }
    }
}
