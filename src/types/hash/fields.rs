//! Fields with their values: pairs in a listpack while they are few and short, a hash table beyond that.

use super::Limits;
use crate::types::compact::CompactPair;
use crate::types::hasher::hash_bytes;
use crate::types::listpack::{Item, Listpack, Pos};
use crate::types::prefetch::Part;
use crate::types::relocate::{self, Wants};
use crate::types::table::{Element, Table};

/// The fields of a hash.
#[derive(Clone)]
pub struct Fields(Form);

#[derive(Clone)]
enum Form {
    Packed(Listpack),
    Table(Box<Table<CompactPair>>),
}

impl Element for CompactPair {
    fn hash(&self) -> u64 {
        hash_bytes(self.name())
    }

    #[inline]
    fn prefetch(&self) {
        CompactPair::prefetch(self);
    }
}

impl Default for Fields {
    fn default() -> Self {
        Self(Form::Packed(Listpack::new()))
    }
}

fn find_packed(pack: &Listpack, field: &[u8]) -> Option<(Pos, Pos)> {
    let at = pack.find(pack.first()?, field, 1)?;
    Some((at, pack.next(at)?))
}

impl Fields {
    /// How many fields there are.
    #[inline]
    pub fn len(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.len() / 2,
            Form::Table(table) => table.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The listpack that it is, if it is one.
    pub(in crate::types) fn listpack(&self) -> Option<&Listpack> {
        if let Form::Packed(pack) = &self.0 { Some(pack) } else { None }
    }

    /// The name of the encoding, as `OBJECT ENCODING` replies it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Packed(_) => "listpack",
            Form::Table(_) => "hashtable",
        }
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        match &self.0 {
            Form::Packed(pack) => pack.allocated(),
            Form::Table(table) => {
                let sampled: Vec<usize> = table.iter().take(64).map(CompactPair::memory).collect();
                let average = sampled.iter().sum::<usize>() / sampled.len().max(1);
                size_of::<Table<CompactPair>>() + table.memory() + average * table.len()
            }
        }
    }

    /// The value of a field.
    #[inline]
    pub fn get(&self, field: &[u8]) -> Option<Item<'_>> {
        match &self.0 {
            Form::Packed(pack) => find_packed(pack, field).map(|(_, value)| pack.get(value)),
            Form::Table(table) => table
                .find(hash_bytes(field), |pair| pair.name() == field)
                .map(|pair| Item::Bytes(pair.value())),
        }
    }

    /// Starts what a look at a field reads on its way into the cache.
    #[inline]
    pub fn prefetch(&self, part: Part) {
        if let Form::Table(table) = &self.0 {
            table.prefetch_part(part);
        }
    }

    /// Whether there is such a field.
    pub fn contains(&self, field: &[u8]) -> bool {
        self.get(field).is_some()
    }

    /// Leaves the compact encoding if what is to be stored is too long for it.
    pub fn prepare<'a>(&mut self, mut strings: impl Iterator<Item = &'a [u8]>, limits: &Limits) {
        if matches!(self.0, Form::Packed(_)) && strings.any(|string| string.len() > limits.value) {
            self.convert(0);
        }
    }

    /// Sets a field; says whether it is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        if field.len() > limits.value || value.len() > limits.value {
            self.convert(0);
        }
        match &mut self.0 {
            Form::Packed(pack) => {
                if let Some((_, at)) = find_packed(pack, field) {
                    pack.replace(at, value);
                    return false;
                }
                pack.push_back(field);
                pack.push_back(value);
                if pack.len() / 2 > limits.entries {
                    self.convert(limits.entries);
                }
                true
            }
            Form::Table(table) => {
                let hash = hash_bytes(field);
                if let Some(pair) = table.find_mut(hash, |pair| pair.name() == field) {
                    pair.set_value(value);
                    return false;
                }
                table.insert_unique(hash, CompactPair::new(field, value));
                true
            }
        }
    }

    fn convert(&mut self, expected: usize) {
        let Form::Packed(pack) = &self.0 else { return };
        let mut table = Table::with_capacity(expected.max(pack.len() / 2));
        for (field, value) in pack.pairs() {
            let pair = CompactPair::new(&field.to_vec(), &value.to_vec());
            table.insert_unique(pair.hash(), pair);
        }
        self.0 = Form::Table(Box::new(table));
    }

    /// Removes a field; says whether there was one.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        match &mut self.0 {
            Form::Packed(pack) => {
                let Some((at, _)) = find_packed(pack, field) else { return false };
                pack.remove_range(at, 2);
                true
            }
            Form::Table(table) => table.remove(hash_bytes(field), |pair| pair.name() == field).is_some(),
        }
    }

    /// Moves what `wants` says so of to other allocations, unless there is more of it than `most`; how much that was.
    pub fn relocate(&mut self, wants: &Wants<'_>, most: usize) -> usize {
        let mut moved = 0;
        match &mut self.0 {
            Form::Packed(pack) => moved += usize::from(pack.relocate(wants)),
            Form::Table(table) if table.len() <= most => {
                let relocate = |pair: &mut CompactPair| usize::from(pair.relocate(wants));
                moved += table.relocate_some(&mut 0, usize::MAX, wants, relocate);
                moved += usize::from(relocate::boxed(table, wants, Table::new));
            }
            Form::Table(_) => {}
        }
        moved
    }

    /// All fields with their values.
    pub fn iter(&self) -> Box<dyn Iterator<Item = (Item<'_>, Item<'_>)> + '_> {
        match &self.0 {
            Form::Packed(pack) => Box::new(pack.pairs()),
            Form::Table(table) => {
                Box::new(table.iter().map(|pair| (Item::Bytes(pair.name()), Item::Bytes(pair.value()))))
            }
        }
    }

    /// Visits some of the fields and returns the cursor to go on with; see [`Table::scan`].
    pub fn scan(&self, cursor: u64, mut visit: impl FnMut(Item<'_>, Item<'_>)) -> u64 {
        match &self.0 {
            Form::Packed(pack) => {
                pack.pairs().for_each(|(field, value)| visit(field, value));
                0
            }
            Form::Table(table) => {
                table.scan(cursor, |pair| visit(Item::Bytes(pair.name()), Item::Bytes(pair.value())))
            }
        }
    }

    /// A field at random, with its value.
    pub fn random(&self, rng: &mut fastrand::Rng) -> Option<(Item<'_>, Item<'_>)> {
        match &self.0 {
            Form::Packed(pack) if pack.is_empty() => None,
            Form::Packed(pack) => {
                let field = pack.seek(rng.usize(..pack.len() / 2) as i64 * 2)?;
                Some((pack.get(field), pack.get(pack.next(field)?)))
            }
            Form::Table(table) => {
                table.random(rng).map(|pair| (Item::Bytes(pair.name()), Item::Bytes(pair.value())))
            }
        }
    }
}

impl<E: Element + Clone> Clone for Table<E> {
    fn clone(&self) -> Self {
        let mut copy = Self::with_capacity(self.len());
        for element in self.iter() {
            copy.insert_unique(element.hash(), element.clone());
        }
        copy
    }
}
