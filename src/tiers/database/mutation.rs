//! From a key's value to its row's state, and back.
//!
//! A hash's fields that have no column live in the cache alone. A value whose type the rule cannot hold is handed on as a
//! dump, which the database refuses: it ends among the dead letters.

use super::rules::{Content, Rule};
use super::store::RowState;
use crate::config::Settings;
use crate::tiers::local::{Columns, Entry, Value, ValueRef, rdb_limits};
use crate::types::hash;
use crate::types::rdb;

/// The state that a row of the rule is to have for this value.
pub fn state_of(rule: &Rule, value: ValueRef<'_>, deadline: Option<u64>) -> RowState {
    match (rule.content(), value) {
        (Some(Content::Value(_)), ValueRef::String(item)) => RowState::Value(item.to_vec()),
        (Some(Content::Columns(columns)), ValueRef::Hash(hash)) => {
            let field = |(index, column): (usize, &super::rules::Column)| {
                hash.get(&column.field).map(|item| (index, Some(item.to_vec())))
            };
            RowState::Fields { fields: columns.iter().enumerate().filter_map(field).collect(), whole: true }
        }
        (Some(Content::Json(_)), ValueRef::Hash(hash)) => {
            let member =
                |(name, value): (crate::types::listpack::Item<'_>, crate::types::listpack::Item<'_>)| {
                    (name.to_vec(), Some(value.to_vec()))
                };
            RowState::Document { members: hash.iter().map(member).collect(), whole: true }
        }
        (_, value) => {
            let payload = rdb::encode(value.source());
            // The deadline of a row that is cached for a time says nothing of the row.
            let expires_ms = deadline.filter(|_| rule.ttl.is_none());
            RowState::Dump { kind: value.type_name().into(), payload, expires_ms }
        }
    }
}

/// The columns of a hash, by the rule.
pub fn columns_of(rule: &Rule, value: ValueRef<'_>) -> Option<Columns> {
    let (Some(Content::Columns(columns)), ValueRef::Hash(hash)) = (rule.content(), value) else {
        return None;
    };
    Some(columns.iter().map(|column| hash.get(&column.field).map(|item| item.to_vec())).collect())
}

/// What changed of a hash whose columns were these before; `None` if no column did.
pub fn changed_columns(before: &Columns, after: &Columns) -> Option<RowState> {
    let differ = before.iter().zip(after).enumerate().filter(|(_, (before, after))| before != after);
    let fields: Vec<_> = differ.map(|(index, (_, after))| (index, after.clone())).collect();
    (!fields.is_empty()).then_some(RowState::Fields { fields, whole: false })
}

/// The entry that a row makes; `None` if there is no row, or nothing in it, or its time has come.
///
/// # Errors
/// A dump that cannot be read.
pub fn entry_of(
    key: &[u8],
    state: &RowState,
    deadline: Option<u64>,
    now_ms: u64,
    settings: &Settings,
    columns: Option<&Content>,
) -> Result<Option<Entry>, rdb::Invalid> {
    let limits = rdb_limits(settings);
    let hash_of = |pairs: &mut dyn Iterator<Item = (&[u8], &[u8])>| {
        let mut hash = hash::Hash::default();
        for (field, value) in pairs {
            hash.set(field, value, &limits.hash);
        }
        (!hash.is_empty()).then(|| Entry::object(key, Value::Hash(hash), deadline))
    };
    Ok(match state {
        RowState::Absent => None,
        RowState::Value(value) => Some(Entry::string(key, value, deadline)),
        RowState::Fields { fields, .. } => {
            let Some(Content::Columns(columns)) = columns else { return Err(rdb::Invalid::Data) };
            let mut pairs = fields
                .iter()
                .filter_map(|(index, value)| Some((&*columns.get(*index)?.field, value.as_deref()?)));
            hash_of(&mut pairs)
        }
        RowState::Document { members, .. } => {
            let mut pairs = members.iter().filter_map(|(name, value)| Some((&**name, value.as_deref()?)));
            hash_of(&mut pairs)
        }
        RowState::Dump { payload, expires_ms, .. } => {
            if expires_ms.is_some_and(|expires| expires <= now_ms) {
                return Ok(None);
            }
            let deadline = match (*expires_ms, deadline) {
                (Some(own), Some(rule)) => Some(own.min(rule)),
                (own, rule) => own.or(rule),
            };
            Some(Entry::decoded(key, rdb::decode(payload, &limits)?, deadline))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiers::database::rules::Rules;
    use crate::types::listpack::Item;

    fn hash(pairs: &[(&str, &str)]) -> hash::Hash {
        let mut hash = hash::Hash::default();
        let limits = hash::Limits { entries: 128, value: 64 };
        for (field, value) in pairs {
            hash.set(field.as_bytes(), value.as_bytes(), &limits);
        }
        hash
    }

    #[test]
    fn every_kind_of_row_makes_the_value_it_was_made_of() {
        let (rules, settings) = (Rules::of_each_kind(), Settings::default());
        let value = hash(&[("x", "1"), ("y", "2")]);
        for (rule, value) in [
            (0, ValueRef::Hash(&value)),
            (0, ValueRef::String(Item::Bytes(b"text"))),
            (0, ValueRef::String(Item::Int(7))),
            (1, ValueRef::Hash(&value)),
            (2, ValueRef::String(Item::Bytes(b"text"))),
            (3, ValueRef::Hash(&value)),
        ] {
            let rule = rules.get(rule).unwrap();
            let state = state_of(rule, value, Some(5000));
            let entry = entry_of(b"k", &state, Some(9000), 1000, &settings, rule.content()).unwrap().unwrap();
            let own = if rule.content().is_none() { 5000 } else { 9000 };
            assert_eq!((entry.key(), entry.deadline()), (&b"k"[..], Some(own)));
            // As bytes, since order and encoding do not matter.
            assert_eq!(state_of(rule, entry.value(), Some(5000)), state);
        }
        let dump = state_of(rules.get(0).unwrap(), ValueRef::Hash(&value), Some(5000));
        assert!(entry_of(b"k", &dump, None, 5000, &settings, None).unwrap().is_none(), "its time has come");
        let bad = RowState::Dump { kind: "string".into(), payload: b"no".to_vec(), expires_ms: None };
        assert!(entry_of(b"k", &bad, None, 0, &settings, None).is_err());
    }

    #[test]
    fn only_columns_that_changed_are_told() {
        let rules = Rules::of_each_kind();
        let rule = rules.get(1).unwrap();
        let columns = |pairs: &[(&str, &str)]| columns_of(rule, ValueRef::Hash(&hash(pairs))).unwrap();
        let before = columns(&[("x", "1"), ("other", "a")]);
        assert_eq!(changed_columns(&before, &columns(&[("x", "1"), ("other", "b")])), None);
        let fields = |fields| Some(RowState::Fields { fields, whole: false });
        let after = columns(&[("x", "1"), ("y", "2")]);
        assert_eq!(changed_columns(&before, &after), fields(vec![(1, Some(b"2".to_vec()))]));
        let after = columns(&[("y", "2")]);
        assert_eq!(changed_columns(&before, &after), fields(vec![(0, None), (1, Some(b"2".to_vec()))]));
    }

    #[test]
    fn partial_states_add_up() {
        let fields = |fields: &[(usize, &str)], whole| RowState::Fields {
            fields: fields.iter().map(|(index, value)| (*index, Some(value.as_bytes().to_vec()))).collect(),
            whole,
        };
        let (a, b) = (fields(&[(0, "1"), (1, "1")], true), fields(&[(1, "2"), (2, "2")], false));
        assert_eq!(a.clone().then(b.clone()), fields(&[(0, "1"), (1, "2"), (2, "2")], true));
        assert_eq!(
            b.clone().then(fields(&[(0, "3")], false)),
            fields(&[(1, "2"), (2, "2"), (0, "3")], false)
        );
        assert_eq!(b.clone().then(a.clone()), a);
        assert_eq!(RowState::Absent.then(b.clone()), fields(&[(1, "2"), (2, "2")], true));
        assert_eq!(b.then(RowState::Absent), RowState::Absent);
    }
}
