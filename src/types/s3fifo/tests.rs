//! The rules one by one, and the invariant against a model of the owner.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// Keys with their counters, as a keyspace would keep them.
#[derive(Default)]
struct Owner {
    queues: S3Fifo,
    keys: HashMap<u64, Key>,
}

struct Key {
    ticket: Ticket,
    frequency: u8,
    size: usize,
    pinned: bool,
}

fn hash(key: u64) -> u64 {
    let mixed = (key + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed ^ (mixed >> 32)) & !TICKET_MASK | (0b10_0101 << TICKET_SHIFT)
}

impl Owner {
    fn insert_sized(&mut self, key: u64, size: usize) {
        let ticket = self.queues.on_insert(hash(key));
        let old = self.keys.insert(hash(key), Key { ticket, frequency: 0, size, pinned: false });
        assert!(old.is_none());
    }

    fn insert(&mut self, key: u64) {
        self.insert_sized(key, 100);
    }

    fn touch(&mut self, key: u64) {
        let key = self.keys.get_mut(&hash(key)).expect("present");
        key.frequency = (key.frequency + 1).min(MAX_FREQUENCY);
    }

    fn delete(&mut self, key: u64) -> bool {
        self.keys.remove(&hash(key)).is_some()
    }

    fn has(&self, key: u64) -> bool {
        self.keys.contains_key(&hash(key))
    }

    fn evict(&mut self) -> Option<u64> {
        let keys = &mut self.keys;
        let id = self.queues.evict(|id| match keys.get_mut(&id.hash) {
            Some(key) if key.ticket == id.ticket && key.pinned => Resident::Pinned,
            Some(key) if key.ticket == id.ticket => {
                let frequency = key.frequency;
                key.frequency = frequency.saturating_sub(1);
                Resident::Live { frequency, size: key.size }
            }
            _ => Resident::Gone,
        })?;
        let key = self.keys.remove(&id.hash).expect("a victim exists");
        assert_eq!(key.ticket, id.ticket);
        assert!(!key.pinned);
        Some(id.hash)
    }

    fn sweep_if_wanted(&mut self) {
        if self.queues.wants_sweep(self.keys.len()) {
            let keys = &self.keys;
            self.queues.sweep(|id| keys.get(&id.hash).is_some_and(|key| key.ticket == id.ticket));
        }
    }
}

#[test]
fn unused_keys_leave_in_order_and_used_ones_stay() {
    let mut owner = Owner::default();
    (0..10).for_each(|key| owner.insert(key));
    owner.touch(0);
    owner.touch(3);
    assert_eq!(owner.evict(), Some(hash(1)));
    assert_eq!(owner.evict(), Some(hash(2)));
    assert_eq!(owner.evict(), Some(hash(4)));
    assert!(owner.has(0) && owner.has(3));
}

#[test]
fn a_key_that_returns_soon_enters_main_and_survives_a_scan() {
    let mut owner = Owner::default();
    (0..100).for_each(|key| owner.insert(key));
    assert_eq!(owner.evict(), Some(hash(0)));
    owner.insert(0);
    assert_eq!(owner.queues.main.len(), 1);
    for key in 1000..1050 {
        owner.insert(key);
        owner.evict();
    }
    assert!(owner.has(0));
}

#[test]
fn main_keys_are_evicted_when_small_has_less_than_its_share() {
    let mut owner = Owner::default();
    (0..100).for_each(|key| owner.insert(key));
    (0..99).for_each(|key| owner.touch(key));
    // The first eviction passes the used ones on to main until it may not any longer.
    owner.evict();
    while owner.queues.small.len() > 5 {
        owner.evict();
    }
    let small = owner.queues.small.len();
    owner.evict();
    assert_eq!(owner.queues.small.len(), small);
}

#[test]
fn shares_are_shares_of_bytes() {
    // Small keys are big: ten of them weigh as much as a thousand others.
    let mut owner = Owner::default();
    (0..1000).for_each(|key| owner.insert_sized(key, 10));
    (0..1000).for_each(|key| owner.touch(key));
    for _ in 0..8 {
        owner.evict();
    }
    while owner.queues.small.len() > 0 {
        owner.evict();
    }
    let in_main = owner.keys.len();
    (2000..2100).for_each(|key| owner.insert_sized(key, 10_000));
    for _ in 0..99 {
        owner.evict();
    }
    let big = owner.keys.values().filter(|key| key.size == 10_000).count();
    assert!(big <= 2, "{big} big ones are left");
    assert!(owner.keys.len() - big >= in_main - 2);
}

#[test]
fn pinned_keys_are_passed_over_and_not_lost() {
    let mut owner = Owner::default();
    (0..20).for_each(|key| owner.insert(key));
    owner.keys.values_mut().for_each(|key| key.pinned = true);
    owner.keys.get_mut(&hash(7)).expect("present").pinned = false;
    assert_eq!(owner.evict(), Some(hash(7)));
    assert_eq!(owner.evict(), None);
    owner.keys.values_mut().for_each(|key| key.pinned = false);
    assert_eq!(std::iter::from_fn(|| owner.evict()).count(), 19);
}

#[test]
fn one_eviction_is_bounded_when_every_key_is_in_use() {
    let mut owner = Owner::default();
    let keys = 5 * MAX_REPRIEVES as u64;
    (0..keys).for_each(|key| owner.insert(key));
    (0..keys).for_each(|key| owner.touch(key));
    let mut asked = 0;
    let victim = owner.queues.evict(|_| {
        asked += 1;
        Resident::Live { frequency: 1, size: 1 }
    });
    assert!(victim.is_some());
    assert_eq!(asked, MAX_REPRIEVES + 1);
}

#[test]
fn deleting_and_creating_the_same_keys_for_ever_does_not_fill_the_queues() {
    let mut owner = Owner::default();
    let rounds = if cfg!(miri) { 2_000 } else { 100_000 };
    for n in 0..rounds {
        let key = n % 50;
        owner.delete(key);
        owner.insert(key);
        owner.sweep_if_wanted();
        assert!(owner.queues.len() <= 2 * owner.keys.len() + SLACK + 1);
    }
    assert!(owner.queues.memory() <= 8 * 1024, "{}", owner.queues.memory());
    assert_eq!(std::iter::from_fn(|| owner.evict()).count(), 50);
}

#[test]
fn the_share_follows_the_returns() {
    let mut queues = S3Fifo::new();
    (0..1000).for_each(|key| _ = queues.on_insert(hash(key)));
    for key in 5000..6000 {
        queues.remember(hash(key), true);
        queues.returned(hash(key));
    }
    assert!(queues.share > SHARE);
    for key in 5000..9000 {
        queues.remember(hash(key), false);
        queues.returned(hash(key));
    }
    assert_eq!(queues.share, *SHARE_RANGE.start());
}

#[derive(Debug, Clone)]
enum Step {
    Use(u64),
    Delete(u64),
    Pin(u64, bool),
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0..300u64).prop_map(Step::Use),
        2 => (0..300u64).prop_map(Step::Delete),
        1 => (0..300u64, any::<bool>()).prop_map(|(key, pinned)| Step::Pin(key, pinned)),
        2 => Just(Step::Evict),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 200 }, ..ProptestConfig::default() })]

    /// Every key is in the queues exactly once, whatever happened: each comes out as a victim once, and none else.
    #[test]
    fn every_key_can_be_evicted_once(steps in prop::collection::vec(step(), 1..if cfg!(miri) { 60 } else { 1500 })) {
        let mut owner = Owner::default();
        for step in steps {
            match step {
                Step::Use(key) if owner.has(key) => owner.touch(key),
                Step::Use(key) => owner.insert(key),
                Step::Delete(key) => _ = owner.delete(key),
                Step::Pin(key, pinned) => if let Some(key) = owner.keys.get_mut(&hash(key)) {
                    key.pinned = pinned;
                },
                Step::Evict => {
                    let evictable = owner.keys.values().any(|key| !key.pinned);
                    prop_assert_eq!(owner.evict().is_some(), evictable);
                }
            }
            owner.sweep_if_wanted();
            prop_assert!(owner.queues.len() <= 2 * owner.keys.len() + SLACK + 1);
        }
        owner.keys.values_mut().for_each(|key| key.pinned = false);
        let left = owner.keys.len();
        prop_assert_eq!(std::iter::from_fn(|| owner.evict()).count(), left);
        prop_assert!(owner.keys.is_empty());
        prop_assert!(owner.queues.is_empty());
    }
}
