use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

type Model = BTreeMap<Vec<u8>, f64>;

fn ordered(model: &Model) -> Vec<(Vec<u8>, f64)> {
    let mut pairs: Vec<_> = model.iter().map(|(member, score)| (member.clone(), *score)).collect();
    pairs.sort_by(|a, b| a.1.partial_cmp(&b.1).unwrap().then_with(|| a.0.cmp(&b.0)));
    pairs
}

fn contents(set: &SortedSet) -> Vec<(Vec<u8>, f64)> {
    set.iter(0, false).map(|(member, score)| (member.to_vec(), score)).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn behaves_like_an_ordered_map(
        entries in prop_oneof![Just(0usize), Just(10), Just(1000)],
        steps in prop::collection::vec((0u8..10, 0u16..400, prop_oneof![(-30i32..30).prop_map(f64::from), -2.0f64..2.0]), 1..900),
        low in -30.0f64..30.0,
        high in -30.0f64..30.0,
    ) {
        let limits = Limits { entries, value: 64 };
        let (mut set, mut model) = (SortedSet::default(), Model::new());
        for (kind, member, score) in steps {
            let member = if member % 2 == 0 { member.to_string() } else { format!("m{member}") }.into_bytes();
            if kind < 3 {
                prop_assert_eq!(set.remove(&member), model.remove(&member));
            } else {
                prop_assert_eq!(set.insert(&member, score, &limits), model.insert(member, score));
            }
            prop_assert_eq!(set.len(), model.len());
        }
        let pairs = ordered(&model);
        prop_assert_eq!(contents(&set), pairs.clone());
        prop_assert_eq!(contents(&set.clone()), pairs.clone());
        for (rank, (member, score)) in pairs.iter().enumerate() {
            prop_assert_eq!(set.rank(member, false), Some((rank, *score)));
            prop_assert_eq!(set.score(member), Some(*score));
            let back = set.iter(rank, true).count();
            prop_assert_eq!(back, rank + 1);
        }
        for exclusive in [false, true] {
            let bounds = Bounds::Score(ScoreBound { score: low, exclusive }, ScoreBound { score: high, exclusive });
            let inside = |score: f64| if exclusive { score > low && score < high } else { score >= low && score <= high };
            let expected = pairs.iter().filter(|pair| inside(pair.1)).count();
            prop_assert_eq!(set.ranks_within(&bounds).len(), expected);
        }
        let (start, end) = (pairs.len() / 3, pairs.len() * 2 / 3);
        let mut removed = Vec::new();
        set.remove_ranks(start..end, |member, score| removed.push((member.to_vec(), score)));
        prop_assert_eq!(&removed[..], &pairs[start..end]);
        let mut rest = pairs.clone();
        rest.drain(start..end);
        prop_assert_eq!(contents(&set), rest);
    }
}

#[test]
fn a_large_tree_keeps_ranks() {
    let limits = Limits { entries: 0, value: 0 };
    let mut set = SortedSet::default();
    let count = if cfg!(miri) { 300 } else { 20_000u64 };
    for number in 0..count {
        let scrambled = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        set.insert(scrambled.to_string().as_bytes(), scrambled as f64, &limits);
    }
    let pairs = contents(&set);
    assert!(pairs.is_sorted_by(|a, b| a.1 <= b.1));
    for (rank, (member, score)) in pairs.iter().enumerate().step_by(97) {
        assert_eq!(set.rank(member, false), Some((rank, *score)));
    }
    assert_eq!(set.remove_ranks(0..pairs.len(), |_, _| ()), pairs.len());
    assert!(set.is_empty());
}
