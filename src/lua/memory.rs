//! The memory of a Lua machine: from the server's allocator, up to a limit.

use std::alloc::{Layout, alloc, dealloc, realloc};
use std::cell::Cell;
use std::ffi::c_void;

/// Luau wants no more than this.
const ALIGNMENT: usize = 16;

/// What a machine has taken, and how much it may.
pub struct Memory {
    used: Cell<usize>,
    limit: Cell<usize>,
}

impl Memory {
    pub(super) fn new(limit: usize) -> Self {
        Self { used: Cell::new(0), limit: Cell::new(limit) }
    }

    /// Bytes taken.
    pub fn used(&self) -> usize {
        self.used.get()
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.set(limit);
    }

    /// What Luau calls for memory: `context` is the [`Memory`].
    ///
    /// # Safety
    /// Luau alone calls it, with the context it was given and a block that it has from here, of `old` bytes.
    pub(super) unsafe extern "C" fn allocate(
        context: *mut c_void,
        block: *mut c_void,
        old: usize,
        new: usize,
    ) -> *mut c_void {
        // SAFETY: the machine keeps it at its place for as long as it lives, and changes it through cells only.
        let memory = unsafe { &*context.cast::<Self>() };
        let used = memory.used.get();
        if new > old && used + (new - old) > memory.limit.get() {
            return std::ptr::null_mut();
        }
        let layout = |size| Layout::from_size_align(size, ALIGNMENT);
        let (Ok(old_layout), Ok(new_layout)) = (layout(old), layout(new)) else {
            return std::ptr::null_mut();
        };
        // SAFETY: a block that is there was made here with the size that Luau says it has.
        let result = unsafe {
            match (block.is_null(), new) {
                (true, 0) => std::ptr::null_mut(),
                (false, 0) => {
                    dealloc(block.cast(), old_layout);
                    std::ptr::null_mut()
                }
                (true, _) => alloc(new_layout),
                (false, _) => realloc(block.cast(), old_layout, new),
            }
        };
        if new == 0 || !result.is_null() {
            let old = if block.is_null() { 0 } else { old };
            memory.used.set(used + new - old);
        }
        result.cast()
    }
}
