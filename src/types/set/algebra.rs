//! Intersections, unions and differences of sets, as their distinct members.
//!
//! Nothing is copied but references. A listpack that is to be asked often is read once into an index: to look through it each
//! time would take as long as both sets' sizes multiplied.

use std::collections::HashSet;

use super::Set;
use crate::types::listpack::Item;

/// Whether an index of a listpack of so many members is worth its making, if it is asked so many times.
pub fn is_worth_an_index(members: usize, questions: usize) -> bool {
    const MANY: usize = 16;
    members.min(questions) >= MANY
}

/// A set that is asked for members.
enum Asked<'a> {
    Set(&'a Set),
    Index(HashSet<Item<'a>, ahash::RandomState>),
}

impl<'a> Asked<'a> {
    /// Some set that will be asked so many times.
    fn new(set: &'a Set, questions: usize) -> Self {
        if set.is_packed() && is_worth_an_index(set.len(), questions) {
            return Self::Index(set.iter().map(Item::canonical).collect());
        }
        Self::Set(set)
    }

    fn contains(&self, member: Item<'_>) -> bool {
        match self {
            Self::Index(index) => index.contains(&member.canonical()),
            Self::Set(set) => set.contains_item(member),
        }
    }
}

/// The members that all of the sets have, at most `limit` of them, in the order of the smallest.
pub fn intersection<'a>(sets: &[&'a Set], limit: usize) -> Vec<Item<'a>> {
    let Some((at, smallest)) = sets.iter().enumerate().min_by_key(|(_, set)| set.len()) else {
        return Vec::new();
    };
    let others: Vec<Asked<'_>> = (sets.iter().enumerate())
        .filter(|(other, set)| *other != at && !std::ptr::eq(**set, *smallest))
        .map(|(_, set)| Asked::new(set, smallest.len()))
        .collect();
    smallest.iter().filter(|member| others.iter().all(|set| set.contains(*member))).take(limit).collect()
}

/// The members that any of the sets has, each once.
pub fn union<'a>(sets: &[&'a Set]) -> Vec<Item<'a>> {
    if let [set] = sets {
        return set.iter().collect();
    }
    let room = sets.iter().map(|set| set.len()).max().unwrap_or(0);
    let mut seen = HashSet::with_capacity_and_hasher(room, ahash::RandomState::new());
    sets.iter()
        .flat_map(|set| set.iter())
        .map(Item::canonical)
        .filter(|member| seen.insert(*member))
        .collect()
}

/// The members of the first set that none of the others has.
pub fn difference<'a>(first: &'a Set, others: &[&'a Set]) -> Vec<Item<'a>> {
    let others: Vec<Asked<'_>> = others.iter().map(|set| Asked::new(set, first.len())).collect();
    first.iter().filter(|member| !others.iter().any(|set| set.contains(*member))).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::types::set::Limits;

    type Model = BTreeSet<Vec<u8>>;

    fn set_of(members: &Model, limits: &Limits) -> Set {
        let mut set = Set::default();
        members.iter().for_each(|member| {
            set.insert(member, limits);
        });
        set
    }

    /// The members, which must be distinct.
    fn model_of(members: &[Item<'_>]) -> Model {
        let model: Model = members.iter().map(Item::to_vec).collect();
        assert_eq!(model.len(), members.len());
        model
    }

    proptest! {
        /// In all encodings, alone and mixed.
        #[test]
        fn results_are_those_of_plain_sets(
            sets in prop::collection::vec(
                (prop::collection::btree_set((0u8..60, 0u8..3), 0..50), prop::sample::select(vec![0, 20, 100]), 0u8..3),
                1..5,
            ),
            limit in 0usize..9,
        ) {
            let models: Vec<Model> = sets
                .iter()
                .map(|(members, _, kinds)| {
                    let text = |(value, kind): &(u8, u8)| match kind.min(kinds) {
                        0 => value.to_string(),
                        1 => format!("m{value}"),
                        _ => format!("0{value}"),
                    };
                    members.iter().map(|member| text(member).into_bytes()).collect()
                })
                .collect();
            let limits = |entries| Limits { integers: entries, entries, value: 64 };
            let sets: Vec<Set> =
                models.iter().zip(&sets).map(|(model, (_, entries, _))| set_of(model, &limits(*entries))).collect();
            let sets: Vec<&Set> = sets.iter().collect();
            let all = models.iter().skip(1).fold(models[0].clone(), |all, model| &all & model);
            prop_assert_eq!(model_of(&intersection(&sets, usize::MAX)), all.clone());
            prop_assert_eq!(intersection(&sets, limit).len(), all.len().min(limit));
            let any = models.iter().fold(Model::new(), |any, model| &any | model);
            prop_assert_eq!(model_of(&union(&sets)), any);
            let rest = models.iter().skip(1).fold(models[0].clone(), |rest, model| &rest - model);
            let members = difference(sets[0], &sets[1..]);
            prop_assert_eq!(model_of(&members), rest.clone());
            // A set of distinct members is what one by one would have made.
            for entries in [0, 10, 100] {
                let (at_once, by_one) =
                    (Set::of_distinct(&members, &limits(entries)), set_of(&rest, &limits(entries)));
                prop_assert_eq!(at_once.encoding(), by_one.encoding());
                prop_assert_eq!(model_of(&at_once.iter().collect::<Vec<_>>()), rest.clone());
            }
        }
    }
}
