//! The hash type: fields with their values, and the deadlines of those fields that have one (as of Redis 7.4).
//!
//! The deadlines are a sorted set of fields, so the next to pass is at hand, and that of each field; a hash that never had
//! any has no such set. Fields past their deadline stay until they are removed ([`Hash::remove_due`]): who holds a hash sees to it.

mod fields;

pub use fields::Fields;

use super::listpack::{Item, NumBuf};
use super::relocate::Wants;
use super::sorted_set::{self, SortedSet};

/// When a hash leaves its compact encoding.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The most fields (`hash-max-listpack-entries`).
    pub entries: usize,
    /// The longest field or value in bytes (`hash-max-listpack-value`).
    pub value: usize,
}

/// The latest deadline of a field, in milliseconds since the Unix epoch: what Redis's format has room for.
pub const LAST_DEADLINE: u64 = (1 << 48) - 1;

/// When the set of deadlines leaves its compact encoding.
const DEADLINE_LIMITS: sorted_set::Limits = sorted_set::Limits { entries: 128, value: 64 };

/// A hash. It is read as its fields.
#[derive(Clone)]
pub struct Hash(Form);

#[derive(Clone)]
enum Form {
    Plain(Fields),
    Expiring(Box<Expiring>),
}

#[derive(Clone, Default)]
struct Expiring {
    fields: Fields,
    /// Fields by deadline, which a number of 53 bits holds exactly.
    deadlines: SortedSet,
}

impl Default for Hash {
    fn default() -> Self {
        Self(Form::Plain(Fields::default()))
    }
}

impl std::ops::Deref for Hash {
    type Target = Fields;

    #[inline]
    fn deref(&self) -> &Fields {
        match &self.0 {
            Form::Plain(fields) => fields,
            Form::Expiring(expiring) => &expiring.fields,
        }
    }
}

impl std::fmt::Debug for Hash {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_map().entries(self.iter()).finish()
    }
}

impl Hash {
    #[inline]
    fn fields_mut(&mut self) -> &mut Fields {
        match &mut self.0 {
            Form::Plain(fields) => fields,
            Form::Expiring(expiring) => &mut expiring.fields,
        }
    }

    #[inline]
    fn deadlines(&self) -> Option<&SortedSet> {
        if let Form::Expiring(expiring) = &self.0 { Some(&expiring.deadlines) } else { None }
    }

    /// The name of the encoding, as `OBJECT ENCODING` replies it.
    pub fn encoding(&self) -> &'static str {
        match &self.0 {
            Form::Expiring(expiring) if expiring.fields.listpack().is_some() => "listpackex",
            _ => Fields::encoding(self),
        }
    }

    /// Bytes allocated.
    pub fn memory(&self) -> usize {
        let expiring = self.deadlines().map_or(0, |deadlines| size_of::<Expiring>() + deadlines.memory());
        Fields::memory(self) + expiring
    }

    /// Leaves the compact encoding if what is to be stored is too long for it.
    pub fn prepare<'a>(&mut self, strings: impl Iterator<Item = &'a [u8]>, limits: &Limits) {
        self.fields_mut().prepare(strings, limits);
    }

    /// Sets a field, which has no deadline then; says whether it is new.
    #[inline]
    pub fn set(&mut self, field: &[u8], value: &[u8], limits: &Limits) -> bool {
        self.clear_deadline(field);
        self.fields_mut().set(field, value, limits)
    }

    /// Sets a field, which keeps its deadline.
    pub fn update(&mut self, field: &[u8], value: &[u8], limits: &Limits) {
        self.fields_mut().set(field, value, limits);
    }

    /// Moves its fields as [`Fields::relocate`] does.
    pub fn relocate(&mut self, wants: &Wants<'_>, most: usize) -> usize {
        self.fields_mut().relocate(wants, most)
    }

    /// Removes a field; says whether there was one.
    pub fn remove(&mut self, field: &[u8]) -> bool {
        self.clear_deadline(field);
        self.fields_mut().remove(field)
    }

    /// The deadline of a field, in milliseconds since the Unix epoch.
    pub fn deadline(&self, field: &[u8]) -> Option<u64> {
        self.deadlines()?.score(field).map(|deadline| deadline as u64)
    }

    /// The earliest deadline of its fields.
    #[inline]
    pub fn earliest(&self) -> Option<u64> {
        self.deadlines()?.iter(0, false).next().map(|(_, deadline)| deadline as u64)
    }

    /// Makes room for deadlines, which shows in the encoding from here on.
    pub fn prepare_deadlines(&mut self) {
        if let Form::Plain(fields) = &mut self.0 {
            let fields = std::mem::take(fields);
            self.0 = Form::Expiring(Box::new(Expiring { fields, deadlines: SortedSet::default() }));
        }
    }

    /// Gives a field that there is a deadline of at most [`LAST_DEADLINE`].
    pub fn set_deadline(&mut self, field: &[u8], deadline: u64) {
        self.prepare_deadlines();
        if let Form::Expiring(expiring) = &mut self.0 {
            debug_assert!(expiring.fields.contains(field));
            expiring.deadlines.insert(field, deadline as f64, &DEADLINE_LIMITS);
        }
    }

    /// Takes a field's deadline from it; says whether it had one.
    #[inline]
    pub fn clear_deadline(&mut self, field: &[u8]) -> bool {
        let Form::Expiring(expiring) = &mut self.0 else { return false };
        expiring.deadlines.remove(field).is_some()
    }

    /// Removes the fields whose deadline has passed at `now_ms`; returns how many those were.
    pub fn remove_due(&mut self, now_ms: u64) -> usize {
        let Form::Expiring(expiring) = &mut self.0 else { return 0 };
        let Expiring { fields, deadlines } = &mut **expiring;
        let passed = |(_, deadline): &(Item<'_>, f64)| (*deadline as u64) < now_ms;
        let due = deadlines.iter(0, false).take_while(passed).count();
        deadlines.remove_ranks(0..due, |field, _| {
            fields.remove(field.to_bytes(&mut NumBuf::new()));
        });
        due
    }

    /// Whether every field has a deadline, and that has passed at `now_ms`.
    pub fn is_past(&self, now_ms: u64) -> bool {
        let Some(deadlines) = self.deadlines().filter(|deadlines| deadlines.len() == self.len()) else {
            return false;
        };
        let last = deadlines.iter(deadlines.len().saturating_sub(1), true).next();
        last.is_some_and(|(_, last)| (last as u64) < now_ms)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]
        #[test]
        fn behaves_like_a_map(steps in prop::collection::vec((0u8..3, 0u16..40, 0usize..3, any::<i32>()), 1..300)) {
            let limits = Limits { entries: 16, value: 20 };
            let (mut hash, mut model) = (Hash::default(), HashMap::new());
            for (kind, field, size, value) in steps {
                let field = format!("f{field}").into_bytes();
                let value = match size {
                    0 => value.to_string().into_bytes(),
                    1 => vec![b'x'; 19],
                    _ => vec![b'y'; (value & 63) as usize],
                };
                if kind == 0 {
                    prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some());
                } else {
                    prop_assert_eq!(hash.set(&field, &value, &limits), model.insert(field, value).is_none());
                }
                prop_assert_eq!(hash.len(), model.len());
            }
            for (field, value) in &model {
                prop_assert_eq!(hash.get(field).map(|item| item.to_vec()), Some(value.clone()));
            }
            let all: HashMap<_, _> = hash.iter().map(|(field, value)| (field.to_vec(), value.to_vec())).collect();
            prop_assert_eq!(all, model);
        }

        #[test]
        fn deadlines_are_those_of_the_fields_that_are_there(
            steps in prop::collection::vec((0u8..6, 0u16..30, 1u64..50), 1..300),
        ) {
            let limits = Limits { entries: 16, value: 20 };
            let mut hash = Hash::default();
            let mut model: HashMap<Vec<u8>, Option<u64>> = HashMap::new();
            for (kind, field, time) in steps {
                let field = format!("f{field}").into_bytes();
                match kind {
                    0 => prop_assert_eq!(hash.remove(&field), model.remove(&field).is_some()),
                    1 => prop_assert_eq!(hash.set(&field, b"v", &limits), model.insert(field, None).is_none()),
                    2 => {
                        hash.update(&field, b"w", &limits);
                        model.entry(field).or_default();
                    }
                    3 if model.contains_key(&field) => {
                        hash.set_deadline(&field, time);
                        model.insert(field, Some(time));
                    }
                    4 => {
                        let had_one = model.get_mut(&field).and_then(Option::take).is_some();
                        prop_assert_eq!(hash.clear_deadline(&field), had_one);
                    }
                    5 => {
                        let before = model.len();
                        let is_past = |deadline: &Option<u64>| deadline.is_some_and(|deadline| deadline < time);
                        prop_assert_eq!(hash.is_past(time), before > 0 && model.values().all(is_past));
                        model.retain(|_, deadline| !is_past(deadline));
                        prop_assert_eq!(hash.remove_due(time), before - model.len());
                    }
                    _ => {}
                }
                prop_assert_eq!(hash.earliest(), model.values().flatten().min().copied());
                let copy = hash.clone();
                let all: HashMap<_, _> = copy
                    .iter()
                    .map(|(field, _)| (field.to_vec(), copy.deadline(&field.to_vec())))
                    .collect();
                prop_assert_eq!(&all, &model);
            }
        }
    }
}
