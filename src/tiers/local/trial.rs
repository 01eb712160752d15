//! Commands that are tried: they run, their changes are taken back, and are made for good later, or never.
//!
//! A write-through rule needs it: the cache keeps the old value until the database has the new one. A trial tells nobody
//! of its changes: no watcher, no waiter, no other tier. Whoever tries sees to it that nothing else changes the keys in
//! between.

use super::entry::Entry;
use super::mirror::{Columns, DATABASE};
use super::places::{Keyed, Places};
use super::view::View;
use crate::types::hasher::hash_bytes;

/// The changes of a trial that goes on.
#[derive(Default)]
pub(super) struct Trial {
    /// Every key that the commands may change, as it was.
    before: Vec<Before>,
    places: Places,
}

struct Before {
    db: usize,
    hash: u64,
    key: Box<[u8]>,
    entry: Option<Entry>,
    is_changed: bool,
}

impl Keyed for Before {
    fn key(&self) -> (usize, u64, &[u8]) {
        (self.db, self.hash, &self.key)
    }
}

/// The changes that a trial would have made.
#[derive(Default)]
pub struct Tried {
    changes: Vec<TriedChange>,
}

/// A key and what it would hold.
pub struct TriedChange {
    /// The database.
    pub db: usize,
    hash: u64,
    /// The key.
    pub key: Box<[u8]>,
    /// The key's new entry; none if it would be gone.
    pub entry: Option<Entry>,
    /// What its columns are now, if another tier tells single ones from one another.
    pub before: Option<Columns>,
}

impl Trial {
    pub(super) fn note(&mut self, db: usize, hash: u64, key: &[u8]) {
        // Others only expire: that they are gone is told by whoever looks for them next.
        if let Some(place) = self.places.find(&self.before, db, hash, key) {
            self.before[place].is_changed = true;
        }
    }
}

impl Tried {
    /// The changes, each key once.
    pub fn changes(&self) -> &[TriedChange] {
        &self.changes
    }
}

impl View<'_> {
    /// From here on changes are tried. `keys` are all that may change, with their databases; they are held locked.
    pub fn begin_trial<'k>(&mut self, keys: impl Iterator<Item = (usize, &'k [u8])>) {
        let db = self.db;
        let (mut before, mut places) = (Vec::new(), Places::default());
        for (of, key) in keys {
            let hash = hash_bytes(key);
            // A command that names no database there is fails.
            if of >= self.databases() || places.find(&before, of, hash, key).is_some() {
                continue;
            }
            self.db = of;
            let entry = self.copy_of(key, key);
            before.push(Before { db: of, hash, key: key.into(), entry, is_changed: false });
            places.added(&before);
        }
        self.db = db;
        self.follow_trial(Trial { before, places });
    }

    /// Takes the changes back, and returns them.
    pub fn end_trial(&mut self) -> Tried {
        let Some(trial) = self.follow.as_mut().and_then(|follow| follow.trial.take()) else {
            return Tried::default();
        };
        let db = self.db;
        let mut changes = Vec::new();
        for Before { db: of, hash, key, entry: old, .. } in
            trial.before.into_iter().filter(|it| it.is_changed)
        {
            self.db = of;
            let entry = self.database(hash).remove(hash, &key);
            let before = old.and_then(|old| {
                let mirror = self.mirror.filter(|_| of == DATABASE);
                let before = mirror.and_then(|mirror| mirror.columns(mirror.rule(&key)?, old.value()));
                self.insert(hash, old);
                before
            });
            changes.push(TriedChange { db: of, hash, key, entry, before });
        }
        self.db = db;
        Tried { changes }
    }

    /// Makes tried changes for good, which other tiers have already. The keys are held locked.
    pub fn make(&mut self, tried: Tried) {
        let (db, mirror, follow) = (self.db, self.mirror.take(), self.follow.take());
        for TriedChange { db: of, hash, key, entry, .. } in tried.changes {
            self.db = of;
            self.remove(hash, &key);
            if let Some(entry) = entry {
                self.insert(hash, entry);
            }
            // Its events were collected when it was tried.
            self.tell_observers(hash, &key);
        }
        self.db = db;
        (self.mirror, self.follow) = (mirror, follow);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::Settings;
    use crate::tiers::local::{Effects, Event, Expiry, Keyspace, LockPlan, WatchFlag};
    use crate::types::listpack::Item;

    fn text(view: &mut View<'_>, key: &[u8]) -> Option<Vec<u8>> {
        view.string(key).unwrap().map(|item: Item<'_>| item.to_vec())
    }

    #[test]
    fn what_is_tried_is_taken_back_tells_nobody_and_can_be_made() {
        let keyspace = Keyspace::new(2, Arc::new(Settings::default()));
        let mut effects = Effects::default();
        let mut view = View::new(&keyspace, &LockPlan::All, 0, 1000, &mut effects);
        view.set_string(b"old", b"1", Expiry::At(5000), Event::string("set"));
        view.set_string(b"gone", b"1", Expiry::Never, Event::string("set"));
        let flag = WatchFlag::default();
        view.watch(b"old", &flag);
        let keys: [(usize, &[u8]); 5] = [(0, b"old"), (0, b"gone"), (0, b"new"), (0, b"same"), (9, b"old")];
        view.begin_trial(keys.into_iter());
        view.set_string(b"old", b"2", Expiry::Never, Event::string("set"));
        view.set_string(b"new", b"2", Expiry::Never, Event::string("set"));
        assert!(view.delete(b"gone", Event::DEL));
        assert_eq!(text(&mut view, b"old"), Some(b"2".to_vec()));
        let tried = view.end_trial();
        let mut changed: Vec<_> =
            tried.changes().iter().map(|change| (&*change.key, change.entry.is_some())).collect();
        changed.sort_unstable();
        assert_eq!(changed, [(&b"gone"[..], false), (b"new", true), (b"old", true)]);
        assert_eq!(text(&mut view, b"old"), Some(b"1".to_vec()));
        assert_eq!(view.info(b"old").unwrap().deadline, Some(5000));
        assert!(view.contains(b"gone") && !view.contains(b"new") && !flag.is_raised());
        view.make(tried);
        assert_eq!(text(&mut view, b"old"), Some(b"2".to_vec()));
        assert_eq!(view.info(b"old").unwrap().deadline, None);
        assert!(!view.contains(b"gone") && view.contains(b"new") && flag.is_raised());
        assert_eq!(view.key_counts(0), (2, 0));
    }
}
