//! A command's view of the keyspace: the shards it locked, and the only way to change them.
//!
//! Every change made through a view is recorded here, in one place ([`View::record`]): counted, told to watchers and
//! waiters, announced as a keyspace event. A command cannot forget it. Keys past their deadline are never seen.

use std::ptr::NonNull;

use super::effects::{Effects, Event};
use super::entry::Entry;
use super::keyspace::Keyspace;
use super::locks::{LockPlan, Locks};
use super::mirror::{Follow, Mirror};
use super::shard::{Database, Shard};
use super::trial::Trial;
use super::value::{Stored, ValueRef};
use crate::config::Settings;
use crate::protocol::ReplyError;
use crate::types::hasher::hash_bytes;

/// Shards under lock, one database of them, and the time as of which a command runs.
pub struct View<'a> {
    pub(super) keyspace: &'a Keyspace,
    locks: Locks<'a>,
    pub(super) db: usize,
    now_ms: u64,
    pub(super) effects: &'a mut Effects,
    /// The command's key, already hashed to find its shard: most commands have just this one.
    first: (&'a [u8], u64),
    touches: bool,
    /// Waits for shards that a script holds beyond its time, rather than giving up.
    is_patient: bool,
    /// The other tier that is told of changes, if there is one.
    pub(super) mirror: Option<&'static dyn Mirror>,
    /// What it will be told, or what is only tried; apart, as most commands have neither.
    pub(super) follow: Option<Box<Follow>>,
}

/// Why a visit to a shard unwinds: a script holds it beyond its time, and nobody is to wait for it.
#[derive(Debug, Clone, Copy)]
pub struct ShardHeld;

/// What is known of a key without looking at its value.
#[derive(Debug, Clone, Copy)]
pub struct KeyInfo {
    /// When it expires, in milliseconds since the Unix epoch.
    pub deadline: Option<u64>,
    /// The access record.
    pub access: u32,
    /// Bytes allocated for it.
    pub memory: usize,
    /// Whether it is a string that was edited in place.
    pub edited: bool,
}

impl KeyInfo {
    pub(super) fn of(entry: &Entry) -> Self {
        Self {
            deadline: entry.deadline(),
            access: entry.access(),
            memory: entry.memory(),
            edited: entry.is_edited(),
        }
    }
}

impl<'a> View<'a> {
    /// Locks what the plan says, in ascending order, and looks at `db` as of `now_ms`.
    pub fn new(
        keyspace: &'a Keyspace,
        plan: &LockPlan,
        db: usize,
        now_ms: u64,
        effects: &'a mut Effects,
    ) -> Self {
        let mut view = Self::of_locks(keyspace, Locks::patiently(keyspace, plan), db, now_ms, effects);
        view.is_patient = true;
        view.prefetch(plan);
        view
    }

    /// The same, unless a script holds one of the shards beyond its time. A visit to a shard unwinds with [`ShardHeld`]
    /// then, if the plan is [`LockPlan::Each`].
    pub fn acquire(
        keyspace: &'a Keyspace,
        plan: &LockPlan,
        db: usize,
        now_ms: u64,
        effects: &'a mut Effects,
    ) -> Option<Self> {
        let locks = Locks::unless_held(keyspace, plan)?;
        let mut view = Self::of_locks(keyspace, locks, db, now_ms, effects);
        view.prefetch(plan);
        Some(view)
    }

    /// A view of what is locked.
    #[inline(always)]
    pub fn of_locks(
        keyspace: &'a Keyspace,
        locks: Locks<'a>,
        db: usize,
        now_ms: u64,
        effects: &'a mut Effects,
    ) -> Self {
        let (first, touches, is_patient) = ((&[][..], 0), true, false);
        Self {
            keyspace,
            locks,
            db,
            now_ms,
            effects,
            first,
            touches,
            is_patient,
            mirror: keyspace.mirror.get().copied(),
            follow: None,
        }
    }

    /// Tells the view the hash of the command's only key.
    #[inline]
    pub fn set_first(&mut self, key: &'a [u8], hash: u64) {
        self.first = (key, hash);
    }

    /// Brings locked keys into the cache together, rather than waiting for each in turn.
    pub fn prefetch(&mut self, plan: &LockPlan) {
        // More than this would push out what came first.
        const AT_ONCE: usize = 64;
        let LockPlan::Keys(hashes) = plan else { return };
        if hashes.len() < 2 {
            return;
        }
        let hashes = &hashes[..hashes.len().min(AT_ONCE)];
        hashes.iter().for_each(|&hash| self.database(hash).keys.prefetch(hash));
        hashes.iter().for_each(|&hash| self.database(hash).keys.prefetch_element(hash));
    }

    /// The time as of which the command runs, in milliseconds since the Unix epoch.
    #[inline]
    pub fn now_ms(&self) -> u64 {
        self.now_ms
    }

    /// The database it looks at.
    pub fn db(&self) -> usize {
        self.db
    }

    /// Looks at another database from here on; the caller has checked that there is one.
    pub fn select(&mut self, db: usize) {
        self.db = db;
    }

    /// How many databases there are.
    pub fn databases(&self) -> usize {
        self.keyspace.databases()
    }

    /// Leaves the access records alone from here on (`CLIENT NO-TOUCH`).
    pub fn set_touches(&mut self, touches: bool) {
        self.touches = touches;
    }

    /// The settings.
    #[inline]
    pub fn settings(&self) -> &'a Settings {
        self.keyspace.settings()
    }

    /// Runs `visit` on one shard, locking it if the view does not hold it.
    pub(super) fn with_shard<R>(&mut self, index: usize, visit: impl FnOnce(&mut Shard) -> R) -> R {
        if self.locks.is_each() {
            if self.is_patient {
                return visit(&mut self.keyspace.lock(index));
            }
            return match self.keyspace.lock_unless_held(index) {
                Some(mut guard) => visit(&mut guard),
                // Not a panic: the engine replies that the server is busy.
                None => std::panic::resume_unwind(Box::new(ShardHeld)),
            };
        }
        match self.locks.get_mut(index) {
            Some(shard) => visit(shard),
            None => unreachable!("a shard outside the command's declared keys"),
        }
    }

    /// The hash of a key; that of the command's only key is known.
    #[inline]
    pub fn hash(&self, key: &[u8]) -> u64 {
        // The borrowed key outlives the view, so the same address is the same key.
        let (first, hash) = self.first;
        if first.as_ptr() == key.as_ptr() && first.len() == key.len() && !key.is_empty() {
            return hash;
        }
        hash_bytes(key)
    }

    /// The locked shard of a hash. A key that the command did not declare is a bug in its row of the table.
    #[inline]
    pub(super) fn shard(&mut self, hash: u64) -> &mut Shard {
        match self.locks.get_mut(Keyspace::shard_of(hash)) {
            Some(shard) => shard,
            None => panic!("the command touches a key that its key specs do not declare"),
        }
    }

    /// The same for reading; `None` if it is not held.
    pub(super) fn held(&self, hash: u64) -> Option<&Shard> {
        self.locks.get(Keyspace::shard_of(hash))
    }

    /// Has changes tried from here on.
    pub(super) fn follow_trial(&mut self, trial: Trial) {
        self.follow.get_or_insert_default().trial = Some(trial);
    }

    /// Has changes noted before they are made, if anybody follows them.
    #[inline]
    pub(super) fn before_edit(&mut self, hash: u64, key: &[u8]) {
        if self.mirror.is_some() {
            self.note_before(hash, key);
        }
    }

    #[inline]
    pub(super) fn database(&mut self, hash: u64) -> &mut Database {
        let db = self.db;
        &mut self.shard(hash).databases[db]
    }

    /// The live entry of a key, if there is one; removes it if its deadline has passed, and fields whose has.
    #[inline]
    pub(super) fn live(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let now_ms = self.now_ms;
        let mut entry = NonNull::from(self.database(hash).find_mut(hash, key)?);
        // SAFETY: the entry was just borrowed from `self`, which nothing has touched since. The borrow checker cannot see
        // that it is returned on this path alone, and would have every key looked up twice.
        let entry = unsafe { entry.as_mut() };
        if !entry.is_due(now_ms) {
            return Some(entry);
        }
        self.remove_due(hash, key)
    }

    /// Removes what has expired, the key or fields of a hash; returns the entry if there is still one.
    #[cold]
    fn remove_due(&mut self, hash: u64, key: &[u8]) -> Option<&mut Entry> {
        let now_ms = self.now_ms;
        let deadline = self.database(hash).find(hash, key)?.deadline();
        if deadline.is_none_or(|deadline| deadline >= now_ms) {
            self.remove_due_fields(hash, key);
            return self.database(hash).find_mut(hash, key);
        }
        if let Some(entry) = self.database(hash).remove(hash, key) {
            self.shard(hash).counters.expired += 1;
            self.discard(entry);
            self.keyspace.tell_listener(key, true);
            self.record(hash, key, Event::EXPIRED);
        }
        None
    }

    /// A key as a reader sees it: counts a hit or a miss and notes the access.
    #[inline]
    pub fn read(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        let hash = self.hash(key);
        let (touches, now_ms, settings) = (self.touches, self.now_ms, self.keyspace.settings());
        let db = self.db;
        let Shard { databases, counters, .. } = self.shard(hash);
        match databases[db].find_mut(hash, key) {
            Some(entry) if !entry.is_due(now_ms) => {
                counters.hits += 1;
                if touches {
                    super::eviction::touch(entry, settings, now_ms);
                }
                let value = NonNull::from(&*entry);
                // SAFETY: the entry was just borrowed from `self`, which nothing has touched since; see `live`.
                Some(unsafe { value.as_ref() }.value())
            }
            found => {
                if found.is_some() && self.remove_due(hash, key).is_some() {
                    return self.read(key);
                }
                self.shard(hash).counters.misses += 1;
                self.announce(key, Event::MISSED);
                None
            }
        }
    }

    /// A key's value without counting or noting anything.
    pub fn peek(&mut self, key: &[u8]) -> Option<ValueRef<'_>> {
        let hash = self.hash(key);
        self.live(hash, key).map(|entry| entry.value())
    }

    /// Whether the key exists, without counting or noting anything.
    pub fn contains(&mut self, key: &[u8]) -> bool {
        self.peek(key).is_some()
    }

    /// What is known of a key beside its value, without noting an access.
    pub fn info(&mut self, key: &[u8]) -> Option<KeyInfo> {
        let hash = self.hash(key);
        self.live(hash, key).map(|entry| KeyInfo::of(entry))
    }

    /// Looks at a key from outside a command's declared keys: locks its shard for the moment.
    pub fn describe<R>(&mut self, key: &[u8], look: impl FnOnce(ValueRef<'_>, KeyInfo) -> R) -> Option<R> {
        let (hash, db, now_ms) = (self.hash(key), self.db, self.now_ms);
        self.with_shard(Keyspace::shard_of(hash), |shard| {
            let entry = shard.databases[db].find(hash, key).filter(|entry| !entry.is_expired(now_ms))?;
            Some(look(entry.value(), KeyInfo::of(entry)))
        })
    }

    /// The collection at a key, read as [`View::read`] does.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    #[inline]
    pub fn get<T: Stored>(&mut self, key: &[u8]) -> Result<Option<&T>, ReplyError> {
        let hash = self.hash(key);
        if self.read(key).is_none() {
            return Ok(None);
        }
        self.collection(hash, key)
    }

    /// The collection at a key, without counting or noting anything.
    ///
    /// # Errors
    /// `WRONGTYPE` if the key holds another type.
    pub fn peek_as<T: Stored>(&mut self, key: &[u8]) -> Result<Option<&T>, ReplyError> {
        let hash = self.hash(key);
        if self.live(hash, key).is_none() {
            return Ok(None);
        }
        self.collection(hash, key)
    }

    fn collection<T: Stored>(&mut self, hash: u64, key: &[u8]) -> Result<Option<&T>, ReplyError> {
        match self.database(hash).find(hash, key) {
            None => Ok(None),
            Some(entry) => entry.as_object().and_then(T::of).map(Some).ok_or(ReplyError::WRONG_TYPE),
        }
    }

    /// The values at several keys, each read as [`View::read`] does, all to be looked at together.
    ///
    /// # Errors
    /// `WRONGTYPE` at the first that does not fit.
    pub fn read_all<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]> + Clone,
        fits: impl Fn(ValueRef<'_>) -> bool,
    ) -> Result<Vec<Option<ValueRef<'_>>>, ReplyError> {
        for key in keys.clone() {
            if self.read(key).is_some_and(|value| !fits(value)) {
                return Err(ReplyError::WRONG_TYPE);
            }
        }
        let found = |key| {
            let hash = self.hash(key);
            let entry = self.held(hash)?.databases[self.db].find(hash, key);
            entry.map(Entry::value)
        };
        Ok(keys.map(found).collect())
    }

    /// Records that a key changed: the one place that tells everybody who must know.
    #[inline]
    pub(super) fn record(&mut self, hash: u64, key: &[u8], event: Event) {
        self.shard(hash).counters.changes += 1;
        let is_followed = self.mirror.is_some() || self.follow.is_some();
        if !(is_followed && self.keep(hash, key, event)) {
            self.tell_observers(hash, key);
        }
        if self.keyspace.settings().notifies(event.class as u32) {
            self.effects.events.push((self.db, event, key.into()));
        }
    }

    /// Tells those who watch a key or wait for it.
    #[inline]
    pub(super) fn tell_observers(&mut self, hash: u64, key: &[u8]) {
        let db = self.db;
        self.keyspace.tell_listener(key, false);
        if let Some(observers) = &self.shard(hash).observers
            && observers.changed(db, key)
        {
            self.effects.ready.push((db, key.into()));
        }
    }

    /// Counts the change of `key` just recorded and the one before it as one, as Redis does where an element moves.
    pub fn count_as_one_change(&mut self, key: &[u8]) {
        let hash = self.hash(key);
        self.shard(hash).counters.changes -= 1; // at least the one just recorded is there
    }

    /// Publishes a second event for a change that is recorded already.
    #[inline]
    pub fn announce(&mut self, key: &[u8], event: Event) {
        if self.keyspace.settings().notifies(event.class as u32) {
            self.effects.events.push((self.db, event, key.into()));
        }
    }

    /// Takes the events so far, to publish them now; none of changes that are only tried.
    pub fn take_events(&mut self) -> Vec<(usize, Event, Box<[u8]>)> {
        let is_tried = self.follow.as_ref().is_some_and(|follow| follow.trial.is_some());
        if is_tried { Vec::new() } else { std::mem::take(&mut self.effects.events) }
    }

    /// Frees an entry: at once if that is quick, on another thread if not.
    pub(super) fn discard(&mut self, entry: Entry) {
        if entry.as_object().is_some_and(|value| value.is_expensive_to_free()) {
            self.effects.garbage.extend(entry.into_object());
        }
    }
}
