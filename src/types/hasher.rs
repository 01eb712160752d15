//! The one hash function of the process, seeded at random so that clients cannot choose collisions.
//!
//! A hash is cut into independent parts: the low bits index a table's buckets, the top byte is the tag
//! inside a bucket, and the bits in between choose the shard.

use std::sync::OnceLock;

use ahash::RandomState;

static STATE: OnceLock<RandomState> = OnceLock::new();

/// Hashes a byte string with this process's seeds.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    STATE.get_or_init(RandomState::new).hash_one(ByteKey(bytes))
}

/// Feeds the bytes alone, without the length prefix that `[u8]: Hash` adds.
struct ByteKey<'a>(&'a [u8]);

impl std::hash::Hash for ByteKey<'_> {
    #[inline]
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(self.0);
    }
}
