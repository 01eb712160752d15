//! The set type: sorted integers, a listpack, or a hash table, by what it holds.

pub mod algebra;
mod intset;

use intset::IntSet;

use super::compact::Compact;
use super::hasher::hash_bytes;
use super::listpack::{Item, Listpack, NumBuf};
use super::prefetch::Part;
use super::relocate::{self, Wants};
use super::table::{Element, Table};

/// When a set leaves its compact encodings.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most integers in an integer set (`set-max-intset-entries`).
    pub integers: usize,
    /// The most members in a listpack (`set-max-listpack-entries`).
    pub entries: usize,
    /// The longest member in a listpack (`set-max-listpack-value`).
    pub value: usize,
}

/// A set of strings.
#[derive(Clone)]
pub struct Set(Form);

#[derive(Clone)]
enum Form {
    Integers(IntSet),
    Packed(Listpack),
    Table(Box<Table<Compact>>),
}

impl Element for Compact {
    fn hash(&self) -> u64 {
        hash_bytes(self.bytes())
    }

    #[inline]
    fn prefetch(&self) {
        Compact::prefetch(self);
    }
}

impl Default for Set {
    fn default() -> Self {
        Self(Form::Integers(IntSet::new()))
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_set().entries(self.iter()).finish()
    }
}

impl Set {
    /// A set of members that are all different, without a look for each among those before it.
    pub fn of_distinct(members: &[Item<'_>], limits: &Limits) -> Self {
        let integers = members.iter().map(|member| match member.canonical() {
            Item::Int(value) => Some(value),
            Item::Bytes(_) => None,
        });
        if members.len() <= limits.integers.min(1 << 30)
            && let Some(mut integers) = integers.collect::<Option<Vec<_>>>()
        {
            // In order, each goes to the end.
            integers.sort_unstable();
            let mut set = IntSet::new();
            for value in integers {
                set.insert(value);
            }
            return Self(Form::Integers(set));
        }
        if members.len() <= limits.entries && members.iter().all(|member| member.text_len() <= limits.value) {
            let mut pack = Listpack::new();
            members.iter().for_each(|member| pack.push_back_item(member.canonical()));
            return Self(Form::Packed(pack));
        }
        let mut table = Table::with_capacity(members.len());
        for member in members {
            let member = Compact::new(member.to_bytes(&mut NumBuf::new()));
            table.insert_unique(member.hash(), member);
        }
        Self(Form::Table(Box::new(table)))
    }

    /// How many members there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Integers(integers) => integers.len(),
            Form::Packed(pack) => pack.len(),
            Form::Table(table) => table.len(),
        }
    }

    /// Starts what a look at a member reads on its way into the cache.
    #[inline]
    pub fn prefetch(&self, part: Part) {
        if let Form::Table(table) = &self.0 {
            table.prefetch_part(part);
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a look for a member goes through all of them.
    pub fn is_packed(&self) -> bool {
        matches!(self.0, Form::Packed(_))
    }

    /// The listpack that it is, if it is one.
    pub(in crate::types) fn listpack(&self) -> Option<&Listpack> {
        if let Form::Packed(pack) = &self.0 { Some(pack) } else { None }
    }

    /// Bytes of a member, if it is a set of integers.
    pub(in crate::types) fn integer_width(&self) -> Option<usize> {
        if let Form::Integers(integers) = &self.0 { Some(integers.width()) } else { None }
    }

    /// The name of the encoding, as `OBJECT ENCODING` replies it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Integers(_) => "intset",
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Integers(integers) => integers.memory(),
            Form::Packed(pack) => pack.allocated(),
            Form::Table(table) => {
                let sampled: Vec<usize> = table.iter().take(64).map(Compact::memory).collect();
                let average = sampled.iter().sum::<usize>() / sampled.len().max(1);
                size_of::<Table<Compact>>() + table.memory() + average * table.len()
            }
        }
    }

    /// Whether it is a member.
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.0 {
            Form::Integers(integers) => match Item::of(member) {
                Item::Int(value) => integers.contains(value),
                Item::Bytes(_) => false,
            },
            Form::Packed(pack) => pack.first().and_then(|first| pack.find(first, member, 0)).is_some(),
            Form::Table(table) => table.find(hash_bytes(member), |other| other.bytes() == member).is_some(),
        }
    }

    /// The same for a member of another set; integers are not spelt out to be looked for among integers.
    fn contains_item(&self, member: Item<'_>) -> bool {
        match (&self.0, member.canonical()) {
            (Form::Integers(integers), Item::Int(value)) => integers.contains(value),
            (Form::Integers(_), Item::Bytes(_)) => false,
            _ => self.contains(member.to_bytes(&mut NumBuf::new())),
        }
    }

    /// Adds a member; says whether it is new.
    pub fn insert(&mut self, member: &[u8], limits: &Limits) -> bool {
        match &mut self.0 {
            Form::Integers(integers) => {
                if let Item::Int(value) = Item::of(member) {
                    let added = integers.insert(value);
                    if integers.len() > limits.integers.min(1 << 30) {
                        self.leave_integers(limits);
                    }
                    return added;
                }
                self.leave_integers_for(member, limits);
                self.insert(member, limits)
            }
            Form::Packed(pack) => {
                if pack.first().and_then(|first| pack.find(first, member, 0)).is_some() {
                    return false;
                }
                if pack.len() < limits.entries && member.len() <= limits.value {
                    pack.push_back(member);
                } else {
                    self.become_table().insert_unique(hash_bytes(member), Compact::new(member));
                }
                true
            }
            Form::Table(table) => {
                let hash = hash_bytes(member);
                let absent = table.find(hash, |other| other.bytes() == member).is_none();
                if absent {
                    table.insert_unique(hash, Compact::new(member));
                }
                absent
            }
        }
    }

    /// The integers became too many: they are a hash table from now on, if a listpack would hold even fewer.
    fn leave_integers(&mut self, limits: &Limits) {
        let longest = self.iter().map(|item| item.text_len()).max().unwrap_or(0);
        if self.len() <= limits.entries && longest <= limits.value {
            self.become_pack();
        } else {
            self.become_table();
        }
    }

    /// Something that is no integer is to be added.
    fn leave_integers_for(&mut self, member: &[u8], limits: &Limits) {
        let longest = self.iter().map(|item| item.text_len()).max().unwrap_or(0).max(member.len());
        if self.len() < limits.entries && longest <= limits.value {
            self.become_pack();
        } else {
            self.become_table();
        }
    }

    fn become_pack(&mut self) {
        let mut pack = Listpack::new();
        self.iter().for_each(|item| pack.push_back_item(item));
        self.0 = Form::Packed(pack);
    }

    fn become_table(&mut self) -> &mut Table<Compact> {
        if !matches!(self.0, Form::Table(_)) {
            let mut table = Table::with_capacity(self.len() + 1);
            for item in self.iter() {
                let member = Compact::new(&item.to_vec());
                table.insert_unique(member.hash(), member);
            }
            self.0 = Form::Table(Box::new(table));
        }
        match &mut self.0 {
            Form::Table(table) => table,
            _ => unreachable!("just converted"),
        }
    }

    /// Removes a member; says whether it was one.
    pub fn remove(&mut self, member: &[u8]) -> bool {
        match &mut self.0 {
            Form::Integers(integers) => match Item::of(member) {
                Item::Int(value) => integers.remove(value),
                Item::Bytes(_) => false,
            },
            Form::Packed(pack) => {
                let found = pack.first().and_then(|first| pack.find(first, member, 0));
                found.map(|pos| pack.remove(pos)).is_some()
            }
            Form::Table(table) => table.remove(hash_bytes(member), |other| other.bytes() == member).is_some(),
        }
    }

    /// Moves what `wants` says so of to other allocations, unless there is more of it than `most`; how much that was.
    pub fn relocate(&mut self, wants: &Wants<'_>, most: usize) -> usize {
        let mut moved = 0;
        match &mut self.0 {
            Form::Packed(pack) => moved += usize::from(pack.relocate(wants)),
            Form::Table(table) if table.len() <= most => {
                let relocate = |member: &mut Compact| usize::from(member.relocate(wants));
                moved += table.relocate_some(&mut 0, usize::MAX, wants, relocate);
                moved += usize::from(relocate::boxed(table, wants, Table::new));
            }
            Form::Integers(_) | Form::Table(_) => {}
        }
        moved
    }

    /// All members.
    pub fn iter(&self) -> Box<dyn Iterator<Item = Item<'_>> + '_> {
        match &self.0 {
            Form::Integers(integers) => Box::new(integers.iter().map(Item::Int)),
            Form::Packed(pack) => Box::new(pack.iter()),
            Form::Table(table) => Box::new(table.iter().map(|member| Item::Bytes(member.bytes()))),
        }
    }

    /// Visits some of the members and returns the cursor to go on with; see [`Table::scan`].
    pub fn scan(&self, cursor: u64, mut visit: impl FnMut(Item<'_>)) -> u64 {
        if let Form::Table(table) = &self.0 {
            return table.scan(cursor, |member| visit(Item::Bytes(member.bytes())));
        }
        self.iter().for_each(visit);
        0
    }

    /// A member at random.
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<Item<'_>> {
        if self.is_empty() {
            return None;
        }
        match &self.0 {
            Form::Integers(integers) => Some(Item::Int(integers.get(rng.usize(..integers.len())))),
            Form::Packed(pack) => pack.seek(rng.usize(..pack.len()) as i64).map(|pos| pack.get(pos)),
            Form::Table(table) => table.random(rng).map(|member| Item::Bytes(member.bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn behaves_like_a_set(steps in prop::collection::vec((0u8..3, 0u16..60, 0u8..8), 1..300)) {
            let limits = Limits { integers: 12, entries: 20, value: 12 };
            let (mut set, mut model) = (Set::default(), HashSet::new());
            for (kind, value, form) in steps {
                let member = match form {
                    0..=5 => value.to_string().into_bytes(),
                    6 => format!("m{value}").into_bytes(),
                    _ => format!("a longer member {value}").into_bytes(),
                };
                if kind == 0 {
                    prop_assert_eq!(set.remove(&member), model.remove(&member));
                } else {
                    prop_assert_eq!(set.insert(&member, &limits), model.insert(member));
                }
                prop_assert_eq!(set.len(), model.len());
            }
            prop_assert!(model.iter().all(|member| set.contains(member)));
            prop_assert_eq!(set.iter().map(|item| item.to_vec()).collect::<HashSet<_>>(), model);
        }
    }
}
