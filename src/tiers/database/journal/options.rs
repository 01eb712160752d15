//! What can be chosen.

use std::time::Duration;

use super::Sequence;
use super::format::{FRAME_LEN, HEADER_LEN};

/// When what was written is synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before it is acknowledged.
    Always,
    /// Once a second, beside the writing; acknowledged when written, as Redis does with its own file.
    EverySecond,
    /// When a segment is full; acknowledged when written.
    No,
}

/// How a journal works.
#[derive(Debug, Clone)]
pub struct Options {
    /// When to sync.
    pub fsync: Fsync,
    /// The size at which a new segment is begun; at most a quarter of `max_size` is used.
    pub segment_size: u64,
    /// Beyond this [`super::Journal::reserve`] refuses.
    pub max_size: u64,
    /// Bytes that may wait in memory to be written.
    pub buffer_size: u64,
    /// How often [`Fsync::EverySecond`] syncs, and how often at most the checkpoint is written.
    pub interval: Duration,
    /// How often a full disk is tried again.
    pub retry: Duration,
    /// The next sequence is not lower: the caller may know of versions that the directory does not.
    pub first_sequence: Sequence,
    /// Whether to go on when records are lost to damage.
    pub repair: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fsync: Fsync::EverySecond,
            segment_size: 64 << 20,
            max_size: 1 << 30,
            buffer_size: 64 << 20,
            interval: Duration::from_secs(1),
            retry: Duration::from_millis(500),
            first_sequence: 1,
            repair: false,
        }
    }
}

impl Options {
    /// The size that segments get: some of them have to fit into the maximum, or none could ever be removed.
    pub(super) fn effective_segment_size(&self) -> u64 {
        self.segment_size.clamp((HEADER_LEN + FRAME_LEN) as u64, MAX_SEGMENT).min(self.max_size / 4)
    }
}

/// Segments are read as a whole.
const MAX_SEGMENT: u64 = 1 << 30;
