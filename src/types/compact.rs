//! A byte string, or a pair of them, in one allocation behind an 8-byte pointer: what hashes and sets hold.

use super::prefetch::prefetch_two;
use super::relocate::Wants;
use super::thin_bytes::ThinBytes;

/// One string.
#[derive(Clone)]
pub struct Compact(ThinBytes);

impl Compact {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(ThinBytes::of_parts([bytes, &[], &[]]))
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.0.bytes()
    }

    /// Starts it on its way into the cache.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_two(self.0.address());
    }

    /// Moves to another allocation if `wants` says so; says whether it did.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> bool {
        self.0.relocate(wants)
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        self.0.allocated()
    }
}

/// Bytes of the first string's length.
const PREFIX: usize = 4;

/// A name with a value.
#[derive(Clone)]
pub struct CompactPair(ThinBytes);

impl CompactPair {
    /// A copy of these.
    pub fn new(name: &[u8], value: &[u8]) -> Self {
        Self(ThinBytes::of_parts([&(name.len() as u32).to_le_bytes(), name, value]))
    }

    #[inline]
    fn split(&self) -> (&[u8], &[u8]) {
        let bytes = self.0.bytes();
        let (len, rest) = bytes.split_at(PREFIX);
        rest.split_at(u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize)
    }

    /// The name.
    #[inline]
    pub fn name(&self) -> &[u8] {
        self.split().0
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        self.split().1
    }

    /// Puts another value in, in place if it fits.
    #[inline]
    pub fn set_value(&mut self, value: &[u8]) {
        let (name, old) = self.split();
        let (start, removed) = (PREFIX + name.len(), old.len());
        self.0.splice(start, removed, [value, &[], &[]]);
    }

    /// Starts it on its way into the cache.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_two(self.0.address());
    }

    /// Moves to another allocation if `wants` says so; says whether it did.
    pub fn relocate(&mut self, wants: &Wants<'_>) -> bool {
        self.0.relocate(wants)
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        self.0.allocated()
    }
}
