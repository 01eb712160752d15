//! Records whose rows others have locked in the database, and what came later to the same keys.
//!
//! They are tried again after a pause, which grows as long as none of them gets through.

use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::backlog::Record;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The slots of the records, and their keys.
#[derive(Default)]
pub(super) struct HeldUp {
    slots: BTreeSet<u64>,
    /// With how many changes of these records each has.
    keys: HashMap<Box<[u8]>, usize>,
    pause: Duration,
    /// When they are tried again; `None` while they are, and if there is none.
    next: Option<Instant>,
    is_under_way: bool,
}

impl HeldUp {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// The slot of the oldest.
    pub(super) fn first(&self) -> Option<&u64> {
        self.slots.first()
    }

    /// Whether a record has to wait behind these.
    #[inline]
    pub(super) fn concerns(&self, record: &Record) -> bool {
        !self.keys.is_empty() && record.changes.iter().any(|change| self.keys.contains_key(&change.key))
    }

    /// Adds a record.
    pub(super) fn add(&mut self, slot: u64, record: &Record) {
        if !self.slots.insert(slot) {
            return;
        }
        for change in &record.changes {
            *self.keys.entry(change.key.clone()).or_default() += 1;
        }
        if self.next.is_none() && !self.is_under_way {
            self.pause = FIRST_PAUSE;
            self.next = Some(crate::clock::monotonic() + self.pause);
        }
    }

    /// A record got through.
    pub(super) fn remove(&mut self, slot: u64, record: &Record) {
        if !self.slots.remove(&slot) {
            return;
        }
        for change in &record.changes {
            if let Some(count) = self.keys.get_mut(&change.key) {
                *count -= 1;
                if *count == 0 {
                    self.keys.remove(&change.key);
                }
            }
        }
    }

    /// How long it is until they are tried again, if they wait for that.
    pub(super) fn left(&self, now: Instant) -> Option<Duration> {
        self.next.map(|next| next.saturating_duration_since(now))
    }

    /// They are tried now; returns their slots in order.
    pub(super) fn begin(&mut self) -> Vec<u64> {
        (self.next, self.is_under_way) = (None, true);
        self.slots.iter().copied().collect()
    }

    /// They were tried; `is_progress` if any got through.
    pub(super) fn end(&mut self, is_progress: bool, now: Instant) {
        self.is_under_way = false;
        self.pause = if is_progress { FIRST_PAUSE } else { (self.pause * 2).min(LONGEST_PAUSE) };
        self.next = (!self.slots.is_empty()).then(|| now + self.pause);
    }
}
