//! A byte string, or a pair of them, in one allocation behind an 8-byte pointer: what hashes and sets hold.

use thin_vec::ThinVec;

use super::prefetch::prefetch_two;

/// Bytes that the vector keeps before its data.
const VECTOR_HEADER: usize = 16;

/// One string.
#[derive(Clone)]
pub struct Compact(ThinVec<u8>);

impl Compact {
    /// A copy of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut copy = ThinVec::new();
        copy.reserve_exact(bytes.len());
        copy.extend_from_slice(bytes);
        Self(copy)
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Starts it on its way into the cache.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_two(self.0.as_ptr().wrapping_sub(VECTOR_HEADER));
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        VECTOR_HEADER + self.0.capacity()
    }
}

/// Bytes of the first string's length.
const PREFIX: usize = 4;

/// A name with a value.
#[derive(Clone)]
pub struct CompactPair(ThinVec<u8>);

impl CompactPair {
    /// A copy of these.
    pub fn new(name: &[u8], value: &[u8]) -> Self {
        let mut copy = ThinVec::new();
        copy.reserve_exact(PREFIX + name.len() + value.len());
        copy.extend_from_slice(&(name.len() as u32).to_le_bytes());
        copy.extend_from_slice(name);
        copy.extend_from_slice(value);
        Self(copy)
    }

    fn value_start(&self) -> usize {
        PREFIX + u32::from_le_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]) as usize
    }

    /// The name.
    #[inline]
    pub fn name(&self) -> &[u8] {
        &self.0[PREFIX..self.value_start()]
    }

    /// The value.
    #[inline]
    pub fn value(&self) -> &[u8] {
        &self.0[self.value_start()..]
    }

    /// Puts another value in, in place if it fits.
    pub fn set_value(&mut self, value: &[u8]) {
        let (start, capacity) = (self.value_start(), self.0.capacity());
        let len = start + value.len();
        if len > capacity || len < capacity / 2 {
            *self = Self::new(self.name(), value);
        } else {
            self.0.truncate(start);
            self.0.extend_from_slice(value);
        }
    }

    /// Starts it on its way into the cache.
    #[inline]
    pub fn prefetch(&self) {
        prefetch_two(self.0.as_ptr().wrapping_sub(VECTOR_HEADER));
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        VECTOR_HEADER + self.0.capacity()
    }
}
