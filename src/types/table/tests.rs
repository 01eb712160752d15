use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::{Element, Table};
use crate::types::hasher::hash_bytes;

/// A key with a deadline, behind a pointer as real elements are.
struct Item(Box<(u32, Option<u64>)>);

impl Item {
    fn new(key: u32, deadline: Option<u64>) -> Self {
        Self(Box::new((key, deadline)))
    }
}

fn hash(key: u32) -> u64 {
    hash_bytes(&key.to_le_bytes())
}

impl Element for Item {
    fn hash(&self) -> u64 {
        hash(self.0.0)
    }

    fn deadline(&self) -> Option<u64> {
        self.0.1
    }
}

fn insert(table: &mut Table<Item>, key: u32, deadline: Option<u64>) -> bool {
    let absent = table.find(hash(key), |item| item.0.0 == key).is_none();
    if absent {
        table.insert_unique(hash(key), Item::new(key, deadline));
    }
    absent
}

fn remove(table: &mut Table<Item>, key: u32) -> bool {
    table.remove(hash(key), |item| item.0.0 == key).is_some()
}

#[test]
fn grows_and_shrinks_without_losing_anything() {
    let count = if cfg!(miri) { 300 } else { 20_000 };
    let mut table = Table::new();
    for key in 0..count {
        assert!(insert(&mut table, key, None));
        assert!(!insert(&mut table, key / 2, None));
    }
    assert_eq!(table.iter().count(), count as usize);
    for key in 0..count {
        assert!(remove(&mut table, key), "{key}");
        assert!(!remove(&mut table, key));
    }
    assert!(table.is_empty() && table.iter().next().is_none());
    assert!(table.memory() < 64 * 1024, "{} bytes for nothing", table.memory());
}

#[test]
fn a_scan_sees_what_stays_while_the_table_changes() {
    let count = if cfg!(miri) { 100 } else { 5000 };
    // A table that grows so fast is scanned for long: too long for the interpreter.
    let fast = if cfg!(miri) { 5 } else { 40 };
    for (add, take) in [(0, 0), (4, 0), (0, 1), (fast, 0), (3, 3)] {
        let mut table = Table::new();
        (0..count).for_each(|key| assert!(insert(&mut table, key, None)));
        let stays = |key: u32| key.is_multiple_of(5);
        let (mut seen, mut cursor, mut next, mut gone) = (HashSet::new(), 0, count, 0);
        loop {
            cursor = table.scan(cursor, |item| seen.extend([item.0.0]));
            if cursor == 0 {
                break;
            }
            for _ in 0..add {
                insert(&mut table, next, None);
                next += 1;
            }
            for _ in 0..take * 8 {
                gone += 1;
                if gone < count && !stays(gone) {
                    remove(&mut table, gone);
                }
            }
        }
        for key in (0..count).filter(|key| stays(*key)) {
            assert!(seen.contains(&key), "{key} was missed (add {add}, take {take})");
        }
    }
}

#[test]
fn a_sweep_finds_all_that_is_due_and_nothing_else() {
    let now = 1_800_000_000_000;
    let count = if cfg!(miri) { 200 } else { 10_000u32 };
    let mut table = Table::new();
    for key in 0..count {
        let deadline = match key % 3 {
            0 => Some(now - 1000 - u64::from(key)),
            1 => Some(now + 1_000_000 + u64::from(key)),
            _ => None,
        };
        insert(&mut table, key, deadline);
    }
    let (mut removed, mut position) = (Vec::new(), 0);
    for _ in 0..3 {
        loop {
            let is_due = |item: &Item| item.0.1.is_some_and(|deadline| deadline < now);
            table.sweep(&mut position, 100, now, is_due, |item| removed.push(item.0.0));
            if position == 0 {
                break;
            }
        }
    }
    removed.sort_unstable();
    assert_eq!(removed, (0..count).filter(|key| key % 3 == 0).collect::<Vec<_>>());
    assert_eq!(table.len(), (0..count).filter(|key| key % 3 != 0).count());
    assert_eq!(table.iter().count(), table.len());
}

#[test]
#[cfg_attr(miri, ignore = "a hundred thousand draws are too many for the interpreter")]
fn random_elements_are_equally_likely() {
    let mut table = Table::new();
    (0..200).for_each(|key| assert!(insert(&mut table, key, None)));
    let (mut counts, mut rng) = (HashMap::new(), fastrand::Rng::with_seed(7));
    for _ in 0..100_000 {
        *counts.entry(table.random(&mut rng).unwrap().0.0).or_insert(0u32) += 1;
    }
    let expected = 500.0;
    let chi_square: f64 = (0..200).map(|key| (f64::from(counts[&key]) - expected).powi(2) / expected).sum();
    assert!(chi_square < 270.0, "{chi_square}");
}

#[derive(Debug, Clone)]
enum Step {
    Insert(u32),
    Remove(u32),
    Move,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(miri) { 3 } else { 64 }))]
    #[test]
    fn behaves_like_a_set(steps in prop::collection::vec(prop_oneof![
        4 => (0u32..600).prop_map(Step::Insert),
        3 => (0u32..600).prop_map(Step::Remove),
        1 => Just(Step::Move),
    ], 1..if cfg!(miri) { 300 } else { 3000 })) {
        let (mut table, mut model) = (Table::new(), HashSet::new());
        for step in steps {
            match step {
                Step::Insert(key) => prop_assert_eq!(insert(&mut table, key, None), model.insert(key)),
                Step::Remove(key) => prop_assert_eq!(remove(&mut table, key), model.remove(&key)),
                Step::Move => table.move_some(1),
            }
            prop_assert_eq!(table.len(), model.len());
        }
        let mut seen: Vec<u32> = table.iter().map(|item| item.0.0).collect();
        let mut all: Vec<u32> = model.into_iter().collect();
        seen.sort_unstable();
        all.sort_unstable();
        prop_assert_eq!(seen, all);
    }
}
