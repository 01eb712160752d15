//! Changes on their way to another tier that holds what the keys hold, and what comes from there.
//!
//! Invariants:
//! - The rows that a command or transaction changed are told at once, with their values at its end, before its locks are
//!   released: whatever ends the view, [`Drop`] sees to it.
//! - Only keys of database 0 are rows. `FLUSHALL`, `FLUSHDB` and `SWAPDB` concern the cache alone: rows stay.
//!
//! Not here: what becomes of the changes ([`Mirror`]'s business), and what is a row.

use smallvec::SmallVec;

use super::effects::Event;
use super::entry::Entry;
use super::keyspace::Keyspace;
use super::places::{Keyed, Places};
use super::trial::Trial;
use super::value::ValueRef;
use super::view::View;
use crate::protocol::ReplyError;
use crate::types::hasher::hash_bytes;

/// The database whose keys can be rows.
pub const DATABASE: usize = 0;

/// The fields of a hash that are columns, in the rule's order.
pub type Columns = Box<[Option<Vec<u8>>]>;

/// A row that changed.
pub struct Change<'a> {
    /// Which rule made the key a row.
    pub rule: usize,
    /// The key.
    pub key: &'a [u8],
    /// What the columns were before, if it is a hash that was merely edited.
    pub before: Option<&'a Columns>,
    /// The value and its deadline; nothing if the key is gone.
    pub value: Option<(ValueRef<'a>, Option<u64>)>,
}

/// Another tier that holds what the keys hold. It is called with locks of the keyspace held, and must be quick.
pub trait Mirror: Sync {
    /// The rule that makes a key a row.
    fn rule(&self, key: &[u8]) -> Option<usize>;

    /// Whether it is to be told of this change of a row. If not, what it knows of the key is void.
    fn wants(&self, rule: usize, key: &[u8], event: Event) -> bool;

    /// The columns of a value, if changes of single ones are told from one another.
    fn columns(&self, rule: usize, value: ValueRef<'_>) -> Option<Columns>;

    /// Takes changes that were made; returns what has to be acknowledged before the client is answered.
    ///
    /// # Errors
    /// They were not taken, and what the client is to be told of that.
    fn accept(&self, changes: &[Change<'_>]) -> Result<Option<u64>, ReplyError>;

    /// Whether the key must not be evicted.
    fn pins(&self, key: &[u8]) -> bool;

    /// A key was evicted or its time has come.
    fn gone(&self, key: &[u8]);
}

/// A change to be told at the end of the view.
pub(super) struct Mirrored {
    rule: usize,
    hash: u64,
    key: Box<[u8]>,
    before: Option<Columns>,
    is_recorded: bool,
}

impl Keyed for Mirrored {
    fn key(&self) -> (usize, u64, &[u8]) {
        (DATABASE, self.hash, &self.key)
    }
}

/// What a view has to do for other tiers.
#[derive(Default)]
pub(super) struct Follow {
    mirrored: SmallVec<[Mirrored; 1]>,
    places: Places,
    pub(super) trial: Option<Trial>,
}

impl Follow {
    fn mirrored(&mut self, hash: u64, key: &[u8]) -> Option<&mut Mirrored> {
        let place = self.places.find(&self.mirrored, DATABASE, hash, key)?;
        self.mirrored.get_mut(place)
    }

    fn mirror(&mut self, mirrored: Mirrored) {
        self.mirrored.push(mirrored);
        self.places.added(&self.mirrored);
    }
}

impl Keyspace {
    /// Has changes told to another tier from now on; only the first call counts.
    pub fn attach(&self, mirror: &'static dyn Mirror) {
        self.mirror.get_or_init(|| mirror);
    }

    /// The other tier, for keys of this database.
    #[inline]
    pub(super) fn mirror_of(&self, db: usize) -> Option<&'static dyn Mirror> {
        if db == DATABASE { self.mirror.get().copied() } else { None }
    }
}

impl View<'_> {
    /// A key is about to be edited, not replaced.
    #[cold]
    pub(super) fn note_before(&mut self, hash: u64, key: &[u8]) {
        let Some(mirror) = self.mirror.filter(|_| self.db == DATABASE) else { return };
        if self.follow.as_mut().is_some_and(|follow| follow.mirrored(hash, key).is_some()) {
            return;
        }
        let Some(rule) = mirror.rule(key) else { return };
        let now_ms = self.now_ms();
        // With fields that are past their deadline, if they are about to be removed.
        let live = self.database(hash).find(hash, key).filter(|entry| !entry.is_expired(now_ms));
        let before = live.and_then(|entry| mirror.columns(rule, entry.value()));
        if before.is_some() {
            let key = key.into();
            let follow = self.follow.get_or_insert_default();
            follow.mirror(Mirrored { rule, hash, key, before, is_recorded: false });
        }
    }

    /// Keeps a recorded change for the end of the view; says whether it is only tried.
    #[cold]
    pub(super) fn keep(&mut self, hash: u64, key: &[u8], event: Event) -> bool {
        if let Some(follow) = &mut self.follow
            && let Some(trial) = &mut follow.trial
        {
            trial.note(self.db, hash, key);
            return true;
        }
        let Some(mirror) = self.mirror.filter(|_| self.db == DATABASE) else { return false };
        let Some(rule) = mirror.rule(key) else { return false };
        if !mirror.wants(rule, key, event) {
            return false;
        }
        let follow = self.follow.get_or_insert_default();
        match follow.mirrored(hash, key) {
            Some(noted) => noted.is_recorded = true,
            None => {
                let (before, is_recorded, key) = (None, true, key.into());
                follow.mirror(Mirrored { rule, hash, key, before, is_recorded });
            }
        }
        false
    }

    #[cold]
    fn tell(&mut self, follow: Follow) {
        let Some(mirror) = self.mirror else { return };
        let mirrored = follow.mirrored;
        let change = |mirrored: &'_ Mirrored| {
            let entry = self.held(mirrored.hash)?.databases[DATABASE].find(mirrored.hash, &mirrored.key);
            Some(entry.map(|entry| (entry.value(), entry.deadline())))
        };
        let recorded = mirrored.iter().filter(|mirrored| mirrored.is_recorded);
        let changes: SmallVec<[Change<'_>; 1]> = recorded
            .map(|noted| Change {
                rule: noted.rule,
                key: &noted.key,
                before: noted.before.as_ref(),
                value: change(noted).flatten(),
            })
            .collect();
        if changes.is_empty() {
            return;
        }
        let accepted = mirror.accept(&changes);
        drop(changes);
        match accepted {
            Ok(Some(sequence)) => self.effects.journaled = Some(sequence),
            Ok(None) => {}
            Err(error) => self.effects.unaccepted = Some(error),
        }
    }

    /// Puts an entry whose key is absent into the cache, as another tier has it: that is no change.
    pub fn adopt(&mut self, entry: Entry) {
        let hash = hash_bytes(entry.key());
        self.insert(hash, entry);
    }
}

impl View<'_> {
    /// Drops a key from the cache because another tier has a newer value: watchers are told, that tier is not.
    pub fn forget(&mut self, key: &[u8]) {
        let hash = hash_bytes(key);
        // Who has read that it is absent may be wrong, too.
        self.keyspace.tell_listener(key, true);
        if self.live(hash, key).is_some() {
            self.remove(hash, key);
            self.tell_observers(hash, key);
        }
    }
}

impl Drop for View<'_> {
    #[inline]
    fn drop(&mut self) {
        if let Some(follow) = self.follow.take() {
            self.tell(*follow);
        }
    }
}
