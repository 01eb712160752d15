//! Asks the processor to bring memory into its cache while something else is done.

/// A part of a collection. Each is found through the one before, which should have arrived by then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The bucket of a member's hash.
    Bucket(u64),
    /// The member of that hash.
    Member(u64),
    /// Where in the log of a rate limiter permits come and go.
    Log,
}

/// Starts the cache line at `address` on its way; does nothing on processors other than x86-64.
#[inline]
pub fn prefetch<T>(address: *const T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch has no effect on memory and never faults, whatever the address.
        unsafe { _mm_prefetch(address.cast(), _MM_HINT_T0) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// The same for the first two lines from `address` on: where most small allocations end.
#[inline]
pub fn prefetch_two<T>(address: *const T) {
    prefetch(address);
    prefetch(address.cast::<u8>().wrapping_add(64));
}
