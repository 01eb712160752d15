//! Groups of consumers: who was given which entries and has not acknowledged them.

use std::collections::btree_map::Entry as Place;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::id::StreamId;

/// What tree nodes cost for each entry, about.
const PENDING_BYTES: usize = 80;

/// An entry that was given to a consumer and is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// To whom.
    pub consumer: Arc<[u8]>,
    /// When last, in milliseconds since the Unix epoch.
    pub delivered_ms: u64,
    /// How often.
    pub deliveries: u64,
}

/// A consumer of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    /// Its name, which what is pending refers to.
    pub name: Arc<[u8]>,
    /// When it last asked for something, in milliseconds since the Unix epoch.
    pub seen_ms: u64,
    /// When it last got something.
    pub active_ms: Option<u64>,
    /// What it was given and has not acknowledged.
    pub pending: BTreeSet<StreamId>,
}

/// A group of consumers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Group {
    /// The last entry that was given to one of them.
    pub last_id: StreamId,
    /// How many entries of all that ever were added that one is, if that is known.
    pub entries_read: Option<u64>,
    pending: BTreeMap<StreamId, Pending>,
    consumers: BTreeMap<Box<[u8]>, Consumer>,
}

impl Group {
    /// A group that begins behind an entry.
    pub fn new(last_id: StreamId, entries_read: Option<u64>) -> Self {
        Self { last_id, entries_read, ..Self::default() }
    }

    /// What is pending, by id.
    pub fn pending(&self) -> &BTreeMap<StreamId, Pending> {
        &self.pending
    }

    /// The consumers, by name.
    pub fn consumers(&self) -> impl ExactSizeIterator<Item = &Consumer> {
        self.consumers.values()
    }

    /// A consumer.
    pub fn consumer(&self, name: &[u8]) -> Option<&Consumer> {
        self.consumers.get(name)
    }

    /// A consumer to be changed, who asks for something now; says too whether it is new.
    pub fn see(&mut self, name: &[u8], now_ms: u64) -> (&mut Consumer, bool) {
        match self.consumers.entry(name.into()) {
            Place::Occupied(place) => {
                let consumer = place.into_mut();
                consumer.seen_ms = now_ms;
                (consumer, false)
            }
            Place::Vacant(place) => {
                let pending = BTreeSet::new();
                (
                    place.insert(Consumer { name: name.into(), seen_ms: now_ms, active_ms: None, pending }),
                    true,
                )
            }
        }
    }

    /// Creates a consumer; says whether it is new.
    pub fn create_consumer(&mut self, name: &[u8], now_ms: u64) -> bool {
        !self.consumers.contains_key(name) && self.see(name, now_ms).1
    }

    /// Adds a consumer that was read; says whether it is new and what it has is pending with nobody else.
    pub(in crate::types) fn add_read(&mut self, consumer: Consumer) -> bool {
        let is_sound = consumer.pending.iter().all(|id| match self.pending.get_mut(id) {
            Some(pending) if pending.consumer.is_empty() => {
                pending.consumer = consumer.name.clone();
                true
            }
            _ => false,
        });
        is_sound && self.consumers.insert(consumer.name[..].into(), consumer).is_none()
    }

    /// Adds what is pending with a consumer that is read later; says whether it is new.
    pub(in crate::types) fn add_read_pending(&mut self, id: StreamId, pending: Pending) -> bool {
        self.pending.insert(id, pending).is_none()
    }

    /// Removes a consumer with what is pending for it; how much that was.
    pub fn remove_consumer(&mut self, name: &[u8]) -> Option<usize> {
        let consumer = self.consumers.remove(name)?;
        for id in &consumer.pending {
            self.pending.remove(id);
        }
        Some(consumer.pending.len())
    }

    /// Notes that an entry is given to a consumer, whoever had it before.
    pub fn give(&mut self, id: StreamId, name: &[u8], delivered_ms: u64, deliveries: u64) {
        let Some(consumer) = self.consumers.get_mut(name) else { return };
        consumer.pending.insert(id);
        let pending = Pending { consumer: consumer.name.clone(), delivered_ms, deliveries };
        let before = self.pending.insert(id, pending);
        if let Some(before) = before.filter(|before| *before.consumer != *name)
            && let Some(consumer) = self.consumers.get_mut(&before.consumer[..])
        {
            consumer.pending.remove(&id);
        }
    }

    /// Notes that a consumer got something.
    pub fn note_active(&mut self, name: &[u8], now_ms: u64) {
        if let Some(consumer) = self.consumers.get_mut(name) {
            consumer.active_ms = Some(now_ms);
        }
    }

    /// Notes that a pending entry was given to its consumer again.
    pub fn give_again(&mut self, id: StreamId, now_ms: u64) {
        if let Some(pending) = self.pending.get_mut(&id) {
            pending.delivered_ms = now_ms;
            pending.deliveries += 1;
        }
    }

    /// Nobody waits for an entry any more; says whether somebody did.
    pub fn acknowledge(&mut self, id: StreamId) -> bool {
        let Some(pending) = self.pending.remove(&id) else { return false };
        if let Some(consumer) = self.consumers.get_mut(&pending.consumer[..]) {
            consumer.pending.remove(&id);
        }
        true
    }

    /// Bytes allocated, about: what a tree keeps for an entry is not told.
    pub(super) fn memory(&self) -> usize {
        let names: usize = self.consumers.keys().map(|name| 2 * name.len() + size_of::<Consumer>()).sum();
        names + self.pending.len() * PENDING_BYTES * 2
    }
}
