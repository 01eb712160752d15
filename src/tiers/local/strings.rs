//! Reading and changing strings through a view, in whichever form their entry keeps them.

use super::effects::Event;
use super::entry::{Entry, MAX_INLINE};
use super::value::{Value, ValueRef};
use super::view::View;
use crate::protocol::ReplyError;
use crate::types::listpack::Item;

/// What a write does to the key's deadline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// The key lives until it is removed.
    Never,
    /// The deadline stays as it is.
    Keep,
    /// Milliseconds since the Unix epoch.
    At(u64),
}

impl View<'_> {
    /// The string at a key, read as [`View::read`] does.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    #[inline]
    pub fn string(&mut self, key: &[u8]) -> Result<Option<Item<'_>>, ReplyError> {
        match self.read(key) {
            None => Ok(None),
            Some(ValueRef::String(item)) => Ok(Some(item)),
            Some(_) => Err(ReplyError::WRONG_TYPE),
        }
    }

    /// Makes the value at a key this string, whatever it was.
    pub fn set_string(&mut self, key: &[u8], value: &[u8], expiry: Expiry, event: Event) {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        let Some(entry) = self.live(hash, key) else {
            let deadline = if let Expiry::At(deadline) = expiry { Some(deadline) } else { None };
            self.insert(hash, Entry::string(key, value, deadline));
            return self.record(hash, key, event);
        };
        let deadline = match expiry {
            Expiry::Never => None,
            Expiry::Keep => entry.deadline(),
            Expiry::At(deadline) => Some(deadline),
        };
        super::eviction::touch(entry, settings, now_ms);
        let had = entry.deadline();
        let replaced = entry.set_string(value, deadline);
        if had.is_some() || deadline.is_some() {
            self.database(hash).deadline_changed(hash, had, deadline);
        }
        if let Some(value) = replaced
            && value.is_expensive_to_free()
        {
            self.effects.garbage.push(value);
        }
        self.record(hash, key, event);
    }

    /// Makes the string at a key this integer, keeping its deadline.
    pub fn set_integer(&mut self, key: &[u8], value: i64, event: Event) {
        let hash = self.hash(key);
        match self.live(hash, key) {
            Some(entry) => drop(entry.set_integer(value)),
            None => self.insert(hash, Entry::integer(key, value, None)),
        }
        self.record(hash, key, event);
    }

    /// Adds to the integer string at a key, which counts as 0 if there is none; keeps its deadline.
    ///
    /// # Errors
    /// `WRONGTYPE`, or that the value is no integer, or that the sum would overflow.
    pub fn increment(&mut self, key: &[u8], by: i64, event: Event) -> Result<i64, ReplyError> {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        let Some(entry) = self.live(hash, key) else {
            self.insert(hash, Entry::integer(key, by, None));
            self.record(hash, key, event);
            return Ok(by);
        };
        let current = match entry.value() {
            ValueRef::String(Item::Int(integer)) => integer,
            ValueRef::String(Item::Bytes(bytes)) => {
                crate::types::number::parse_i64(bytes).ok_or(ReplyError::NOT_INTEGER)?
            }
            _ => return Err(ReplyError::WRONG_TYPE),
        };
        let sum = current.checked_add(by).ok_or(ReplyError::OVERFLOW)?;
        super::eviction::touch(entry, settings, now_ms);
        drop(entry.set_integer(sum));
        self.record(hash, key, event);
        Ok(sum)
    }

    /// Edits the bytes of the string at a key, which is created empty if there is none; keeps its deadline.
    ///
    /// `change` returns its result and whether anything changed.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    pub fn edit_string<R>(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(&mut Vec<u8>) -> (R, bool),
    ) -> Result<R, ReplyError> {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        let Some(entry) = self.live(hash, key) else {
            let mut bytes = Vec::new();
            let (result, changed) = change(&mut bytes);
            if changed {
                let mut entry = bytes_entry(key, bytes, None);
                entry.set_edited();
                self.insert(hash, entry);
                self.record(hash, key, event);
            }
            return Ok(result);
        };
        super::eviction::touch(entry, settings, now_ms);
        if let Some(Value::String(bytes)) = entry.as_object_mut() {
            let (result, changed) = change(bytes);
            if changed {
                entry.set_edited();
                self.record(hash, key, event);
            }
            return Ok(result);
        }
        let mut bytes = match entry.value() {
            ValueRef::String(item) => item.to_vec(),
            _ => return Err(ReplyError::WRONG_TYPE),
        };
        let (result, changed) = change(&mut bytes);
        if changed {
            match entry.as_inline_mut() {
                Some(inline) if inline.len() == bytes.len() => inline.copy_from_slice(&bytes),
                _ => {
                    let (deadline, access) = (entry.deadline(), entry.access());
                    *entry = bytes_entry(key, bytes, deadline);
                    entry.set_access(access);
                }
            }
            entry.set_edited();
            self.record(hash, key, event);
        }
        Ok(result)
    }
}

/// A string entry that keeps its bytes as they are, even if they spell an integer.
fn bytes_entry(key: &[u8], bytes: Vec<u8>, deadline: Option<u64>) -> Entry {
    if bytes.len() <= MAX_INLINE {
        Entry::inline(key, &bytes, deadline)
    } else {
        Entry::object(key, Value::String(Box::new(bytes)), deadline)
    }
}
