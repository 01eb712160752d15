//! The allocator: jemalloc, with every allocated byte counted as it happens.
//!
//! Counts are kept per thread (one cache line each), so that counting costs no shared write and reading the
//! total costs a handful of loads: cheap enough to ask before every write command.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use tikv_jemallocator::Jemalloc;

/// Threads beyond this many share counters, which are atomic all the same.
const SLOTS: usize = 64;

static COUNTERS: [CachePadded<AtomicI64>; SLOTS] = [const { CachePadded::new(AtomicI64::new(0)) }; SLOTS];
static NEXT_SLOT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static SLOT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// jemalloc with counting: install it as the global allocator.
pub struct CountingAllocator;

#[inline]
fn count(bytes: i64) {
    let slot = SLOT.get();
    let slot = if slot == usize::MAX { assign_slot() } else { slot };
    COUNTERS[slot].fetch_add(bytes, Relaxed);
}

#[cold]
fn assign_slot() -> usize {
    let slot = NEXT_SLOT.fetch_add(1, Relaxed) % SLOTS;
    SLOT.set(slot);
    slot
}

/// Bytes in use, as the allocator rounds them: what Redis calls `used_memory`.
pub fn used() -> usize {
    COUNTERS.iter().map(|counter| counter.load(Relaxed)).sum::<i64>().max(0) as usize
}

/// Bytes of physical memory that the process holds.
pub fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Gives free memory back to the system.
///
/// # Errors
/// The allocator's error number.
pub fn purge() -> Result<(), std::io::Error> {
    use std::ptr::null_mut;
    // 4096 is MALLCTL_ARENAS_ALL, as jemalloc's manual has it.
    let name = c"arena.4096.purge";
    // SAFETY: the name is of a control that takes and returns nothing, so that no pointer is followed.
    let error = unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), null_mut(), null_mut(), null_mut(), 0) };
    if error == 0 { Ok(()) } else { Err(std::io::Error::from_raw_os_error(error)) }
}

/// What jemalloc really hands out for a request of `size` bytes: 16-byte steps to 128, then four steps a doubling,
/// pages beyond 32 KiB.
#[inline]
pub const fn size_class(size: usize) -> usize {
    if size <= 8 {
        8
    } else if size <= 128 {
        (size + 15) & !15
    } else if size > 32 * 1024 {
        (size + 4095) & !4095
    } else {
        let step = 1 << (usize::BITS - 1 - (size - 1).leading_zeros() - 2);
        (size + step - 1) & !(step - 1)
    }
}

// SAFETY: every call is passed on unchanged to jemalloc, which upholds the contract; counting has no effect on it.
unsafe impl GlobalAlloc for CountingAllocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as i64);
        // SAFETY: the caller's contract is passed on.
        unsafe { Jemalloc.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(size_class(layout.size()) as i64));
        // SAFETY: the caller's contract is passed on.
        unsafe { Jemalloc.dealloc(pointer, layout) }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(size_class(layout.size()) as i64);
        // SAFETY: the caller's contract is passed on.
        unsafe { Jemalloc.alloc_zeroed(layout) }
    }

    #[inline]
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(size_class(new_size) as i64 - size_class(layout.size()) as i64);
        // SAFETY: the caller's contract is passed on.
        unsafe { Jemalloc.realloc(pointer, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::size_class;

    #[test]
    fn size_classes_are_jemallocs() {
        for size in (1..70_000).chain([1 << 20, (1 << 20) + 1, 3 << 20, (5 << 20) - 7]) {
            // SAFETY: a pure computation on a size that is not zero.
            let real = unsafe { tikv_jemalloc_sys::nallocx(size, 0) };
            assert_eq!(size_class(size), real, "{size}");
        }
    }
}
