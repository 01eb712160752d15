//! Entries of values that were bytes.

use super::entry::Entry;
use super::value::Value;
use crate::config::{Id, Settings};
use crate::types::rdb::{Decoded, Limits};
use crate::types::{hash, set, sorted_set};

/// Up to where decoded values are packed, as the settings say.
pub fn rdb_limits(settings: &Settings) -> Limits {
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

impl Entry {
    /// An entry of a decoded value.
    pub fn decoded(key: &[u8], value: Decoded, deadline: Option<u64>) -> Self {
        match value {
            Decoded::String(bytes) => Self::string(key, &bytes, deadline),
            Decoded::List(list) => Self::object(key, Value::List(list), deadline),
            Decoded::Hash(hash) => Self::object(key, Value::Hash(hash), deadline),
            Decoded::Set(set) => Self::object(key, Value::Set(set), deadline),
            Decoded::SortedSet(set) => Self::object(key, Value::SortedSet(set), deadline),
            Decoded::Stream(stream) => Self::object(key, Value::Stream(stream), deadline),
        }
    }
}
