//! Changes to whole keys and to collections, made through a view.

use super::effects::Event;
use super::entry::Entry;
use super::value::{Stored, Value, ValueRef};
use super::view::View;
use crate::protocol::ReplyError;
use crate::types::hash::Hash;
use crate::types::listpack::Item;

impl View<'_> {
    /// Changes the collection at a key; `None` if there is no such key.
    ///
    /// `change` returns its result and whether anything changed; a change is recorded as `event`, and a collection
    /// that became empty takes its key with it.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    pub fn edit<T: Stored, R>(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(&mut T) -> (R, bool),
    ) -> Result<Option<R>, ReplyError> {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        self.before_edit(hash, key);
        let Some(entry) = self.live(hash, key) else { return Ok(None) };
        super::eviction::touch(entry, settings, now_ms);
        let collection = entry.as_object_mut().and_then(T::of_mut).ok_or(ReplyError::WRONG_TYPE)?;
        let (result, changed) = change(collection);
        let is_empty = collection.elements() == 0;
        if T::HAS_DEADLINES
            && let Some(due) = entry.note_fields()
        {
            self.database(hash).fields_expire(hash, due);
        }
        self.edited(hash, key, event, changed, is_empty);
        Ok(Some(result))
    }

    /// Removes the fields of a hash whose deadlines have passed, and the key with the last.
    #[cold]
    pub(super) fn remove_due_fields(&mut self, hash: u64, key: &[u8]) {
        let now_ms = self.now_ms();
        self.before_edit(hash, key);
        let Some(entry) = self.database(hash).find_mut(hash, key) else { return };
        let Some(fields) = entry.as_object_mut().and_then(Hash::of_mut) else { return };
        let removed = fields.remove_due(now_ms);
        let is_empty = fields.is_empty();
        if let Some(due) = entry.note_fields() {
            self.database(hash).fields_expire(hash, due);
        }
        self.shard(hash).counters.expired_fields += removed as u64;
        self.edited(hash, key, Event::hash("hexpired"), removed > 0, is_empty);
    }

    /// What follows when a collection was, or was not, changed.
    #[inline]
    fn edited(&mut self, hash: u64, key: &[u8], event: Event, changed: bool, is_empty: bool) {
        if is_empty {
            self.remove(hash, key);
        }
        if changed {
            self.record(hash, key, event);
        }
        if changed && is_empty {
            self.announce(key, Event::DEL);
        }
    }

    /// Changes the collection at a key, which is created if there is none.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    pub fn upsert<T: Stored, R>(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(&mut T) -> (R, bool),
    ) -> Result<R, ReplyError> {
        self.change_or_create(key, event, |collection| {
            let (result, changed) = change(collection);
            (result, changed, None)
        })
    }

    /// Changes the collection at a key, which is created if there is none, and sets its deadline, in one look at the
    /// table: what rate limiters keep.
    ///
    /// `change` returns the deadline; without one, it has changed nothing, and nothing is recorded.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    #[inline]
    pub fn upsert_until<T: Stored>(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(&mut T) -> Option<u64>,
    ) -> Result<(), ReplyError> {
        self.change_or_create(key, event, |collection| {
            let deadline = change(collection);
            ((), deadline.is_some(), deadline)
        })
    }

    /// `change` returns its result, whether anything changed, and the deadline if that is to be another.
    #[inline]
    fn change_or_create<T: Stored, R>(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(&mut T) -> (R, bool, Option<u64>),
    ) -> Result<R, ReplyError> {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        self.before_edit(hash, key);
        let Some(entry) = self.live(hash, key) else {
            let mut collection = T::default();
            let (result, changed, deadline) = change(&mut collection);
            if collection.elements() > 0 {
                self.insert(hash, Entry::object(key, collection.into_value(), deadline));
                if changed {
                    self.record(hash, key, event);
                }
            }
            return Ok(result);
        };
        super::eviction::touch(entry, settings, now_ms);
        let collection = entry.as_object_mut().and_then(T::of_mut).ok_or(ReplyError::WRONG_TYPE)?;
        let (result, changed, deadline) = change(collection);
        let is_empty = collection.elements() == 0;
        let due = if T::HAS_DEADLINES { entry.note_fields() } else { None };
        if deadline.is_some() {
            let had = entry.deadline();
            entry.set_deadline(deadline);
            self.database(hash).deadline_changed(hash, had, deadline);
        }
        if let Some(due) = due {
            self.database(hash).fields_expire(hash, due);
        }
        self.edited(hash, key, event, changed, is_empty);
        Ok(result)
    }

    /// Puts a collection at a key, in place of whatever was there, without a deadline.
    pub fn store<T: Stored>(&mut self, key: &[u8], collection: T, event: Event) {
        self.put(key, collection.into_value(), None, event);
    }

    /// Puts a value at a key, in place of whatever was there.
    pub fn put(&mut self, key: &[u8], value: Value, deadline: Option<u64>, event: Event) {
        let hash = self.hash(key);
        self.remove(hash, key);
        self.insert(hash, Entry::object(key, value, deadline));
        self.record(hash, key, event);
    }

    /// Puts a whole entry, which carries its key, in place of whatever was there.
    pub fn put_entry(&mut self, entry: Entry, event: Event) {
        let key: Box<[u8]> = entry.key().into();
        let hash = self.hash(&key);
        self.remove(hash, &key);
        self.insert(hash, entry);
        self.record(hash, &key, event);
    }

    /// Removes a key; says whether there was one.
    pub fn delete(&mut self, key: &[u8], event: Event) -> bool {
        let hash = self.hash(key);
        if self.live(hash, key).is_none() {
            return false;
        }
        self.remove(hash, key);
        self.record(hash, key, event);
        true
    }

    /// Removes a key and frees its value on another thread, however small.
    pub fn unlink(&mut self, key: &[u8]) -> bool {
        let hash = self.hash(key);
        if self.live(hash, key).is_none() {
            return false;
        }
        if let Some(entry) = self.database(hash).remove(hash, key) {
            self.effects.garbage.extend(entry.into_object());
        }
        self.record(hash, key, Event::DEL);
        true
    }

    /// Takes a key out, to put it elsewhere.
    pub fn take(&mut self, key: &[u8], event: Event) -> Option<Entry> {
        let hash = self.hash(key);
        self.live(hash, key)?;
        let entry = self.database(hash).remove(hash, key);
        self.record(hash, key, event);
        entry
    }

    /// A copy of the entry at `key` under the name `name`.
    pub fn copy_of(&mut self, key: &[u8], name: &[u8]) -> Option<Entry> {
        let hash = self.hash(key);
        let entry = self.live(hash, key)?;
        let deadline = entry.deadline();
        let edited = entry.is_edited();
        let mut copy = match (entry.value(), entry.as_object()) {
            (ValueRef::String(Item::Int(integer)), _) => Entry::integer(name, integer, deadline),
            (ValueRef::String(Item::Bytes(bytes)), None) => Entry::inline(name, bytes, deadline),
            (_, Some(value)) => Entry::object(name, value.clone(), deadline),
            (_, None) => unreachable!("only strings lie in the entry"),
        };
        if edited {
            copy.set_edited();
        }
        Some(copy)
    }

    /// Sets or clears a key's deadline; says whether there is such a key.
    pub fn set_deadline(&mut self, key: &[u8], deadline: Option<u64>, event: Event) -> bool {
        let hash = self.hash(key);
        let Some(entry) = self.live(hash, key) else { return false };
        let had = entry.deadline();
        entry.set_deadline(deadline);
        self.database(hash).deadline_changed(hash, had, deadline);
        self.record(hash, key, event);
        true
    }

    /// Notes an access without reading (`TOUCH`); says whether there is such a key.
    pub fn touch(&mut self, key: &[u8]) -> bool {
        self.read(key).is_some()
    }

    /// Writes a key's access record (`RESTORE`, `DEBUG`).
    pub fn set_access(&mut self, key: &[u8], access: u32) {
        let hash = self.hash(key);
        if let Some(entry) = self.live(hash, key) {
            entry.set_access(access);
        }
    }

    /// Adds an entry whose key is absent.
    pub(super) fn insert(&mut self, hash: u64, mut entry: Entry) {
        let (settings, now_ms, db) = (self.settings(), self.now_ms(), self.db);
        super::eviction::created(&mut entry, settings, now_ms);
        let notify_new = settings.notifies(super::effects::EventClass::New as u32);
        let entry = self.database(hash).insert(hash, entry);
        if notify_new {
            let key: Box<[u8]> = entry.key().into();
            let event = Event { class: super::effects::EventClass::New, name: "new" };
            self.effects.events.push((db, event, key));
        }
    }

    /// Removes an entry without a record.
    pub(super) fn remove(&mut self, hash: u64, key: &[u8]) {
        if let Some(entry) = self.database(hash).remove(hash, key) {
            self.discard(entry);
        }
    }
}
