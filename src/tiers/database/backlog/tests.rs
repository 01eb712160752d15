//! The backlog: order, units, what is held up.

use smallvec::smallvec;

use super::*;

const ALL: Due = Due { batch_size: 100, interval: Duration::ZERO, hurry: u64::MAX, at_once: true };

fn of(rule: usize, key: &str, version: i64) -> RowChange {
    let state = RowState::Value(version.to_string().into_bytes());
    RowChange { rule, key: key.as_bytes().into(), version, state }
}

fn change(key: &str, version: i64) -> RowChange {
    of(0, key, version)
}

fn versions(batch: &Batch) -> Vec<i64> {
    batch.changes.iter().map(|change| change.version).collect()
}

fn take(backlog: &mut Backlog, batch_size: usize) -> Option<(Vec<i64>, Slots)> {
    let (batch, slots) = backlog.take(Due { batch_size, ..ALL })?.split();
    Some((versions(&batch), slots))
}

fn finish(backlog: &mut Backlog, slots: &Slots, settled: impl FnMut(&[u8])) -> Vec<u64> {
    backlog.finish(slots, &HashSet::<_>::new(), settled)
}

#[test]
fn a_hot_key_costs_one_state_and_completes_all_its_sequences() {
    let mut backlog = Backlog::with_lines(vec![0]);
    assert!(backlog.push(1, smallvec![change("a", 1)], 2));
    (2..=3).for_each(|version| assert!(!backlog.push(version, smallvec![change("a", version as i64)], 2)));
    assert_eq!((backlog.depth(), backlog.end()), (1, 1));
    let (taken, slots) = take(&mut backlog, 10).unwrap();
    assert_eq!(taken, [3]);
    // A batch has it: what comes now is another record, and has to wait for the batch.
    assert!(backlog.push(4, smallvec![change("a", 4)], 2), "the line is full");
    assert_eq!(backlog.state(b"a"), Some(&RowState::Value(b"4".to_vec())));
    assert!(take(&mut backlog, 10).is_none());
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [1, 2, 3]);
    assert!(backlog.contains(b"a"));
    let (taken, slots) = take(&mut backlog, 10).unwrap();
    assert_eq!(taken, [4]);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [4]);
    assert!(!backlog.contains(b"a"));
    assert_eq!((backlog.depth(), backlog.done(), backlog.under_way()), (0, 2, 0));
}

/// As when a host takes over what another had accepted before.
#[test]
fn an_older_state_that_comes_later_does_not_win() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("a", 5)], 9);
    backlog.push(2, smallvec![change("a", 4)], 9);
    backlog.push(3, smallvec![change("b", 7), change("c", 7)], 9);
    backlog.push(4, smallvec![change("c", 6), change("b", 6)], 9);
    let (batch, slots) = backlog.take(ALL).unwrap().split();
    assert_eq!(batch.changes, [change("a", 5), change("b", 7), change("c", 7)]);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [1, 2, 3, 4]);
}

#[test]
fn a_transaction_is_never_split_and_the_last_state_wins() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("a", 1)], 9);
    backlog.push(2, smallvec![change("a", 2), change("b", 2), change("c", 2)], 9);
    backlog.push(3, smallvec![change("b", 3)], 9);
    let (taken, slots) = take(&mut backlog, 2).unwrap();
    assert_eq!(taken, [1]);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [1]);
    let (taken, slots) = take(&mut backlog, 2).unwrap();
    assert_eq!(taken, [2, 3, 2]);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [2, 3]);
}

#[test]
fn a_batch_is_bounded_in_bytes_but_takes_one_record_whatever_its_size() {
    let mut backlog = Backlog::with_lines(vec![0]);
    for (version, bytes) in [(1, MOST_BYTES * 2), (2, MOST_BYTES / 2), (3, MOST_BYTES / 2), (4, 1)] {
        let state = RowState::Value(vec![0; bytes]);
        let change = RowChange { rule: 0, key: vec![version as u8].into(), version, state };
        backlog.push(version as u64, smallvec![change], 9);
    }
    for expected in [vec![1], vec![2, 3], vec![4]] {
        let (taken, slots) = take(&mut backlog, 100).unwrap();
        assert_eq!(taken, expected);
        finish(&mut backlog, &slots, |_| ());
    }
}

#[test]
fn transactions_that_share_keys_stay_together() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("a", 1), change("b", 1)], 99);
    backlog.push(2, smallvec![change("x", 2)], 99);
    backlog.push(3, smallvec![change("c", 3), change("d", 3)], 99);
    backlog.push(4, smallvec![change("y", 4), change("z", 4)], 99);
    backlog.push(5, smallvec![change("d", 5), change("b", 5)], 99);
    let (batch, _) = backlog.take(ALL).unwrap().split();
    let keys: Vec<&[u8]> = batch.changes.iter().map(|change| &*change.key).collect();
    assert_eq!((keys, batch.units.clone()), (b"abcdxyz".chunks(1).collect(), vec![4, 1, 2]));
    let (one, other) = batch.halves().unwrap();
    assert_eq!((versions(&one), one.units.len()), (vec![1, 5, 3, 5], 1));
    assert_eq!((versions(&other), other.units.clone()), (vec![2, 4, 4], vec![1, 2]));
    assert_eq!(one.clone().halves(), Err(one));
}

#[test]
fn a_transaction_is_a_unit_with_what_came_to_one_of_its_keys_before() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("b", 1)], 9);
    backlog.push(2, smallvec![change("x", 2), change("b", 2)], 9);
    // Two records and two changes, and yet not one change of each.
    let (batch, _) = backlog.take(ALL).unwrap().split();
    assert_eq!((versions(&batch), batch.units), (vec![2, 2], vec![2]));
}

#[test]
fn of_a_key_that_comes_twice_in_a_record_the_last_state_counts() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("a", 1), change("b", 1), of(0, "a", 9)], 9);
    backlog.prefetch([hash_bytes(b"a"), hash_bytes(b"other")].into_iter());
    assert_eq!(backlog.state(b"a"), Some(&RowState::Value(b"9".to_vec())));
    let (_, slots) = take(&mut backlog, 100).unwrap();
    let mut settled = Vec::new();
    finish(&mut backlog, &slots, |key| settled.push(key.to_vec()));
    settled.sort();
    assert_eq!(settled, [b"a", b"b"]);
    assert!(!backlog.contains(b"a"));
}

#[test]
fn one_batch_has_each_key_once() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("a", 1)], 9);
    backlog.push(2, smallvec![change("a", 2), change("b", 2)], 9);
    let (taken, slots) = take(&mut backlog, 100).unwrap();
    assert_eq!(taken, [2, 2]);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [1, 2]);
    assert_eq!(backlog.depth(), 0);
}

#[test]
fn a_table_that_is_held_up_holds_up_no_other_but_for_transactions_on_both() {
    // Two rules of one table, and one of another.
    let mut backlog = Backlog::with_lines(vec![0, 0, 1]);
    backlog.push(1, smallvec![of(0, "a", 1)], 9);
    backlog.push(2, smallvec![of(1, "b", 2)], 9);
    let (first, held) = take(&mut backlog, 9).unwrap();
    assert_eq!(first, [1, 2]);
    backlog.push(3, smallvec![of(2, "x", 3)], 9);
    backlog.push(4, smallvec![of(2, "y", 4), of(0, "c", 4)], 9);
    backlog.push(5, smallvec![of(2, "z", 5)], 9);
    let (second, slots) = take(&mut backlog, 9).unwrap();
    assert_eq!(second, [3], "not the transaction, and nothing behind it");
    assert!(take(&mut backlog, 9).is_none());
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [3]);
    assert!(take(&mut backlog, 9).is_none());
    assert_eq!((backlog.done(), backlog.end()), (0, 5));
    assert_eq!(finish(&mut backlog, &held, |_| ()), [1, 2]);
    let (third, slots) = take(&mut backlog, 9).unwrap();
    assert_eq!(third, [4, 4, 5]);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [4, 5]);
    assert_eq!((backlog.done(), backlog.depth()), (5, 0));
}

#[test]
fn what_stands_before_a_transaction_in_any_of_its_lines_goes_with_it() {
    let mut backlog = Backlog::with_lines(vec![0, 1]);
    backlog.push(1, smallvec![of(1, "x", 1)], 9);
    backlog.push(2, smallvec![of(0, "a", 2)], 9);
    backlog.push(3, smallvec![of(0, "a", 3), of(1, "x", 3)], 9);
    backlog.push(4, smallvec![of(1, "y", 4)], 9);
    let (taken, slots) = take(&mut backlog, 9).unwrap();
    assert_eq!(taken, [3, 3, 4]);
    let mut settled = Vec::new();
    assert_eq!(finish(&mut backlog, &slots, |key| settled.push(key.to_vec())).len(), 4);
    assert_eq!((settled.len(), backlog.depth(), backlog.done()), (3, 0, 4));
}

fn locked(keys: &[&str]) -> HashSet<Box<[u8]>> {
    keys.iter().map(|key| key.as_bytes().into()).collect()
}

/// Waits until what is held up is to be tried again.
fn take_again(backlog: &mut Backlog) -> Taken {
    loop {
        if let Some(taken) = backlog.take(ALL).filter(Taken::is_of_the_held_up) {
            return taken;
        }
    }
}

#[test]
fn a_row_that_is_locked_holds_up_what_comes_to_it_later_and_nothing_else() {
    let mut backlog = Backlog::with_lines(vec![0]);
    backlog.push(1, smallvec![change("a", 1)], 9);
    backlog.push(2, smallvec![change("b", 2)], 9);
    let (_, slots) = take(&mut backlog, 9).unwrap();
    backlog.push(3, smallvec![change("b", 3), change("c", 3)], 9);
    backlog.push(4, smallvec![change("d", 4)], 9);
    assert_eq!(backlog.finish(&slots, &locked(&["b"]), |_| ()), [1]);
    assert_eq!((backlog.held_up(), backlog.done(), backlog.depth()), (1, 1, 4));
    // The transaction has to wait behind it, and what comes to the other key of that, too.
    let (taken, slots) = take(&mut backlog, 9).unwrap();
    assert_eq!(taken, [4]);
    backlog.push(5, smallvec![change("c", 5)], 9);
    assert_eq!(finish(&mut backlog, &slots, |_| ()), [4]);
    assert!(backlog.contains(b"b") && backlog.contains(b"c") && !backlog.contains(b"d"));
    let (batch, slots) = take_again(&mut backlog).split();
    assert_eq!((versions(&batch), batch.units.clone()), (vec![3, 5], vec![2]));
    assert_eq!(backlog.finish(&slots, &locked(&["b", "c"]), |_| ()), [0; 0]);
    assert_eq!((backlog.held_up(), backlog.depth()), (2, 3));
    let (_, slots) = take_again(&mut backlog).split();
    // A batch has it: a change of the same key is one of its own, and waits.
    backlog.push(6, smallvec![change("b", 6)], 9);
    assert!(take(&mut backlog, 9).is_none());
    let mut settled = Vec::new();
    assert_eq!(finish(&mut backlog, &slots, |key| settled.push(key.to_vec())), [2, 3, 5]);
    assert_eq!((settled, backlog.depth()), (vec![b"c".to_vec()], 1));
    let (batch, slots) = take_again(&mut backlog).split();
    assert_eq!(versions(&batch), [6]);
    finish(&mut backlog, &slots, |_| ());
    assert_eq!((backlog.held_up(), backlog.depth(), backlog.done()), (0, 0, backlog.end()));
    assert_eq!(backlog.until_due(ALL), None);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    /// Batches of two tables come and go in any order, and whatever is locked meanwhile: each key gets its states in
    /// their order and ends with the last, no transaction is split, and every record is complete exactly once.
    #[test]
    fn locks_change_no_order(
        steps in proptest::collection::vec((0u8..6, 0usize..8, 0usize..8, 0u8..=255), 1..120),
    ) {
        const KEYS: [&str; 8] = ["a", "b", "c", "d", "w", "x", "y", "z"];
        let rule = |at: usize| at / 4;
        let mut backlog = Backlog::with_lines(vec![0, 1]);
        let mut under_way: Vec<(Batch, Slots)> = Vec::new();
        let (mut rows, mut last) = (HashMap::new(), HashMap::new());
        let (mut sequence, mut complete) = (0, Vec::new());
        let mut end = |backlog: &mut Backlog, (batch, slots): (Batch, Slots), locks: &[&str]| {
            let mut held = locked(&[]);
            for unit in batch.apart() {
                if unit.changes.iter().any(|change| locks.iter().any(|key| key.as_bytes() == &*change.key)) {
                    held.extend(unit.changes.into_iter().map(|change| change.key));
                    continue;
                }
                for change in unit.changes {
                    let before = rows.insert(change.key.clone(), change.version);
                    assert!(before < Some(change.version), "an older state came later");
                }
            }
            complete.extend(backlog.finish(&slots, &held, |_| ()));
        };
        for (kind, one, other, locks) in steps {
            match kind {
                0..3 => {
                    sequence += 1;
                    let mut changes: Changes = smallvec![of(rule(one), KEYS[one], sequence as i64)];
                    if kind == 2 && one != other {
                        changes.push(of(rule(other), KEYS[other], sequence as i64));
                    }
                    for change in &changes {
                        last.insert(change.key.clone(), change.version);
                    }
                    backlog.push(sequence, changes, 2);
                }
                3 | 4 => under_way.extend(backlog.take(Due { batch_size: one + 1, ..ALL }).map(Taken::split)),
                _ if under_way.is_empty() => {}
                _ => {
                    let locks: Vec<&str> =
                        (0..8).filter(|at| locks >> at & 1 == 1).map(|at| KEYS[at]).collect();
                    let ended = under_way.swap_remove(one % under_way.len());
                    end(&mut backlog, ended, &locks);
                }
            }
        }
        while backlog.depth() > 0 {
            under_way.extend(backlog.take(ALL).map(Taken::split));
            if let Some(ended) = under_way.pop() {
                end(&mut backlog, ended, &[]);
            }
        }
        assert_eq!(rows, last);
        complete.sort_unstable();
        assert_eq!(complete, (1..=sequence).collect::<Vec<_>>());
        assert_eq!((backlog.held_up(), backlog.done(), backlog.under_way()), (0, backlog.end(), 0));
    }
}
