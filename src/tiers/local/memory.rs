//! The allocator: jemalloc, with every allocated byte counted as it happens.
//!
//! Counts are kept per thread (one cache line each), so that counting costs no shared write and reading the
//! total costs a handful of loads: cheap enough to ask before every write command.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::OnceLock;
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

/// What the allocator says of the pages that an allocation lies in, in its order: `query` of `experimental.utilization`.
#[repr(C)]
#[derive(Default)]
struct Utilization {
    /// Where the pages begin that are being filled with allocations of this size.
    filling: usize,
    /// Places for an allocation in these pages, free and all.
    free: usize,
    places: usize,
    /// Bytes of these pages.
    bytes: usize,
    /// The same sums of all pages for this size.
    all_free: usize,
    all_places: usize,
}

/// A control of the allocator that takes a value and returns one; `None` if it does not do so.
fn control<In, Out: Default>(name: &std::ffi::CStr, mut given: Option<In>) -> Option<Out> {
    let (mut told, mut size) = (Out::default(), size_of::<Out>());
    let (from, length) = match &mut given {
        Some(given) => ((&raw mut *given).cast(), size_of::<In>()),
        None => (std::ptr::null_mut(), 0),
    };
    // SAFETY: both point to values of the sizes that are said; the allocator refuses others than the control has.
    let error = unsafe {
        tikv_jemalloc_sys::mallctl(name.as_ptr(), (&raw mut told).cast(), &raw mut size, from, length)
    };
    (error == 0).then_some(told)
}

/// Moving allocations together, on this thread, until it is dropped.
///
/// What is moved goes to where more of its size lies already, in the arena that it is in: elsewhere it would take new pages
/// long before the old ones are free. The thread keeps no free places of its own meanwhile, as those are as bad.
pub struct Compaction {
    had_cache: bool,
    arena_before: u32,
    arena: Cell<u32>,
}

impl Compaction {
    /// Begins.
    pub fn begin() -> Self {
        let had_cache = control(c"thread.tcache.enabled", Some(false)).unwrap_or(true);
        let arena = control::<u32, u32>(c"thread.arena", None).unwrap_or(0);
        Self { had_cache, arena_before: arena, arena: Cell::new(arena) }
    }

    /// Whether an allocation lies in pages of which more is free than on average of its size: moved, it leaves them freer
    /// still, until they can be given back. If so, this thread allocates in the same arena from now on.
    ///
    /// # Safety
    /// It is an allocation, and stays one during the call: the allocator looks its pages up without a check.
    pub unsafe fn wants(&self, allocation: *const u8) -> bool {
        // SAFETY: as for this function.
        if !unsafe { lies_sparsely(allocation) } {
            return false;
        }
        match control(c"arenas.lookup", Some(allocation)) {
            Some(arena) if arena == self.arena.get() => true,
            Some(arena) => {
                self.arena.set(arena);
                control::<u32, u32>(c"thread.arena", Some(arena)).is_some()
            }
            None => false,
        }
    }
}

impl Drop for Compaction {
    fn drop(&mut self) {
        if self.arena.get() != self.arena_before {
            control::<u32, u32>(c"thread.arena", Some(self.arena_before));
        }
        control::<bool, bool>(c"thread.tcache.enabled", Some(self.had_cache));
    }
}

/// Whether more is free of the pages of an allocation than on average of its size.
///
/// # Safety
/// As of [`Compaction::wants`].
unsafe fn lies_sparsely(allocation: *const u8) -> bool {
    static MIB: OnceLock<Option<[usize; 3]>> = OnceLock::new();
    let Some(mib) = MIB.get_or_init(|| {
        let (mut mib, mut parts) = ([0; 3], 3);
        let name = c"experimental.utilization.query".as_ptr();
        // SAFETY: the name is of three parts, and `mib` has room for three.
        let error = unsafe { tikv_jemalloc_sys::mallctlnametomib(name, mib.as_mut_ptr(), &raw mut parts) };
        (error == 0 && parts == 3).then_some(mib)
    }) else {
        return false;
    };
    let (mut told, mut size) = (Utilization::default(), size_of::<Utilization>());
    let mut asked = allocation;
    // SAFETY: the control takes a pointer to an allocation, as the caller says it is, and returns what `Utilization` has room
    // for.
    let error = unsafe {
        let (told, asked) = ((&raw mut told).cast(), (&raw mut asked).cast());
        tikv_jemalloc_sys::mallctlbymib(mib.as_ptr(), 3, told, &raw mut size, asked, size_of::<*const u8>())
    };
    let is_filling = (told.filling..told.filling + told.bytes).contains(&allocation.addr());
    if error != 0 || told.free == 0 || told.places == 0 || is_filling {
        return false;
    }
    let (used, all_used) = (told.places - told.free, told.all_places - told.all_free);
    let pages = told.all_places / told.places;
    // Not worth its while where nearly all is used; a little above the average too, or all would stay if all are alike.
    told.all_free * 16 > told.all_places && used * pages * 32 <= all_used * 33
}

/// What the allocator counts: bytes in use, bytes of pages with something in use, bytes of physical memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct AllocatorFigures {
    /// Bytes in use.
    pub allocated: usize,
    /// Bytes of pages that hold something.
    pub active: usize,
    /// Bytes of physical memory.
    pub resident: usize,
}

/// Asks the allocator for its figures; zeros if it keeps none.
pub fn allocator_figures() -> AllocatorFigures {
    let mut epoch = 1u64;
    let size = size_of::<u64>();
    // SAFETY: `epoch` takes a u64 and returns none; it makes the allocator sum up.
    unsafe {
        let new = (&raw mut epoch).cast();
        tikv_jemalloc_sys::mallctl(c"epoch".as_ptr(), std::ptr::null_mut(), std::ptr::null_mut(), new, size);
    }
    let figure = |name: &std::ffi::CStr| {
        let (mut value, mut size) = (0usize, size_of::<usize>());
        let to = (&raw mut value).cast();
        // SAFETY: the statistics read here are of the size of usize, and `size` says so.
        let error =
            unsafe { tikv_jemalloc_sys::mallctl(name.as_ptr(), to, &raw mut size, std::ptr::null_mut(), 0) };
        if error == 0 { value } else { 0 }
    };
    AllocatorFigures {
        allocated: figure(c"stats.allocated"),
        active: figure(c"stats.active"),
        resident: figure(c"stats.resident"),
    }
}

/// The allocator's own report.
pub fn allocator_report() -> String {
    const ROOM: usize = 512 * 1024;

    unsafe extern "C" fn append(report: *mut std::ffi::c_void, text: *const std::ffi::c_char) {
        // SAFETY: the allocator hands back the pointer it was given, and a text that ends with a zero.
        let (report, text) = unsafe { (&mut *report.cast::<Vec<u8>>(), std::ffi::CStr::from_ptr(text)) };
        // The allocator must not be called from here: what does not fit is left out.
        let room = report.capacity() - report.len();
        report.extend_from_slice(&text.to_bytes()[..text.count_bytes().min(room)]);
    }

    let mut report: Vec<u8> = Vec::with_capacity(ROOM);
    let to = (&raw mut report).cast();
    // SAFETY: `append` takes the vector that `to` points to, which outlives the call.
    unsafe { tikv_jemalloc_sys::malloc_stats_print(Some(append), to, std::ptr::null()) };
    String::from_utf8_lossy(&report).into_owned()
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
