//! From a key's value to its row's state, and back.
//!
//! A hash's fields that have no column live in the cache alone. A value whose type the rule cannot hold is handed on as a
//! dump, which the database refuses: it ends among the dead letters.

use super::rules::{Content, Rule};
use super::store::RowState;
use crate::config::{Id, Settings};
use crate::tiers::local::{Columns, Entry, Value, ValueRef};
use crate::types::rdb::{self, Decoded, Limits, Source};
use crate::types::{hash, set, sorted_set};

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
            let payload = rdb::encode(match value {
                ValueRef::String(item) => Source::String(item),
                ValueRef::List(list) => Source::List(list),
                ValueRef::Hash(hash) => Source::Hash(hash),
                ValueRef::Set(set) => Source::Set(set),
                ValueRef::SortedSet(set) => Source::SortedSet(set),
            });
            RowState::Dump { kind: value.type_name().to_owned(), payload, expires_ms: deadline }
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
    let limits = limits(settings);
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
            Some(match rdb::decode(payload, &limits)? {
                Decoded::String(bytes) => Entry::string(key, &bytes, deadline),
                Decoded::List(list) => Entry::object(key, Value::List(list), deadline),
                Decoded::Hash(hash) => Entry::object(key, Value::Hash(hash), deadline),
                Decoded::Set(set) => Entry::object(key, Value::Set(set), deadline),
                Decoded::SortedSet(set) => Entry::object(key, Value::SortedSet(set), deadline),
            })
        }
    })
}

fn limits(settings: &Settings) -> Limits {
    let size = |id: Id| settings.int(id) as usize;
    Limits {
        list: settings.int(Id::ListMaxListpackSize) as i32,
        hash: hash::Limits {
            entries: size(Id::HashMaxListpackEntries),
            value: size(Id::HashMaxListpackValue),
        },
        set: set::Limits {
            integers: size(Id::SetMaxIntsetEntries),
            entries: size(Id::SetMaxListpackEntries),
            value: size(Id::SetMaxListpackValue),
        },
        sorted_set: sorted_set::Limits {
            entries: size(Id::ZsetMaxListpackEntries),
            value: size(Id::ZsetMaxListpackValue),
        },
    }
}
