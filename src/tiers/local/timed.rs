//! Strings that are changed together with their deadline, in one look at the table: what rate limiters keep.

use super::effects::Event;
use super::entry::Entry;
use super::value::Value;
use super::view::View;
use crate::protocol::ReplyError;
use crate::types::listpack::Item;

impl View<'_> {
    /// Changes the bytes of the string at a key where they are, and its deadline; says whether there was such a string
    /// and `change` knew what to do with it. If not, nothing was changed.
    ///
    /// `change` returns `None` if it did not, and otherwise the deadline; without one, it has changed nothing.
    #[inline]
    pub fn edit_bytes_until(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(&mut [u8]) -> Option<Option<u64>>,
    ) -> bool {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        let Some(entry) = self.live(hash, key) else { return false };
        let had = entry.deadline();
        let Some(changed) = entry.as_inline_mut().filter(|_| had.is_some()).and_then(change) else {
            return false;
        };
        super::eviction::touch(entry, settings, now_ms);
        if let Some(deadline) = changed {
            entry.set_deadline(Some(deadline));
            self.database(hash).deadline_changed(hash, had, Some(deadline));
            self.record(hash, key, event);
        }
        true
    }

    /// Puts another string in the place of the one at a key, if there is one, and sets its deadline.
    ///
    /// `change` sees the string, and returns its result and what to put there; without that, nothing is changed and
    /// nothing recorded. Without a deadline, the one that the key has stays.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type; what `change` says.
    pub fn replace_string<R, S: AsRef<[u8]>>(
        &mut self,
        key: &[u8],
        event: Event,
        change: impl FnOnce(Option<&[u8]>) -> Result<(R, Option<(S, Option<u64>)>), ReplyError>,
    ) -> Result<R, ReplyError> {
        let hash = self.hash(key);
        let (settings, now_ms) = (self.settings(), self.now_ms());
        let Some(entry) = self.live(hash, key) else {
            let (result, new) = change(None)?;
            if let Some((bytes, deadline)) = new {
                self.insert(hash, Entry::string(key, bytes.as_ref(), deadline));
                self.record(hash, key, event);
            }
            return Ok(result);
        };
        let (result, new) = match entry.value() {
            super::value::ValueRef::String(Item::Bytes(bytes)) => change(Some(bytes))?,
            _ => return Err(ReplyError::WRONG_TYPE),
        };
        super::eviction::touch(entry, settings, now_ms);
        if let Some((bytes, deadline)) = new {
            let had = entry.deadline();
            let deadline = deadline.or(had);
            let replaced = entry.set_string(bytes.as_ref(), deadline);
            if deadline.is_some() {
                self.database(hash).deadline_changed(hash, had, deadline);
            }
            self.effects.garbage.extend(replaced.filter(Value::is_expensive_to_free));
            self.record(hash, key, event);
        }
        Ok(result)
    }
}
