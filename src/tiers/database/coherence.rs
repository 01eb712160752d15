//! The cache follows the database: rows that others changed are dropped from it.
//!
//! What waits for the database stays until it is there: it is newer than what the others wrote, as far as anybody here can
//! tell. Then the row is loaded anew, as it may have more columns, or a higher version, than what was written.

use std::sync::Arc;
use std::time::Duration;

use super::store::Notification;
use super::tier::Tier;
use crate::clock;
use crate::tiers::local::{DATABASE, Effects, Keyspace, LockPlan, View};
use crate::types::hasher::hash_bytes;

/// The pause between two looks at a row after a commit of unknown outcome.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

impl Tier {
    /// Listens to the database for as long as the process lives.
    pub fn follow(&'static self, keyspace: &'static Keyspace) {
        self.keyspace.get_or_init(|| keyspace);
        let listener = Arc::new(move |notification| self.notified(keyspace, notification));
        self.backend.runtime.spawn(async move {
            self.backend.readiness.ready().await;
            self.backend.store.listen(listener).await;
        });
    }

    fn notified(&self, keyspace: &Keyspace, notification: Notification) {
        match notification {
            Notification::Changed { rule, key } => {
                self.backend.invalidate_queries([rule].into_iter());
                self.forget(keyspace, &key);
            }
            Notification::TableChanged { table } => {
                self.backend.table_changed(Some(&table));
                self.forget_all(keyspace, Some(&table));
            }
            // Its rows are in the cache that all hosts have.
            Notification::Flushed { table } => self.backend.table_changed(Some(&table)),
            // Rows stay until the link is back: a database that is away is changed by nobody, and is not to take the
            // cache with it. What changed in between is unknown.
            Notification::Lost => tracing::warn!("changes in the database are not told at the moment"),
            Notification::Listening => {
                tracing::info!(
                    "listening for changes in the database: its rows in the cache are loaded anew"
                );
                self.backend.table_changed(None);
                self.forget_all(keyspace, None);
            }
        }
    }

    /// Drops a row from the cache: at once, or, if its latest state is not in the database yet, as soon as that is.
    pub fn forget(&self, keyspace: &Keyspace, key: &[u8]) {
        let plan = LockPlan::Keys([hash_bytes(key)].into_iter().collect());
        let mut effects = Effects::default();
        let mut view = View::new(keyspace, &plan, DATABASE, clock::wall_ms(), &mut effects);
        self.changed(key);
        // Noted before it is asked whether the row waits: whoever ends its wait looks here afterwards.
        self.stale.lock().insert(key.into());
        if !self.pins_row(key) && self.lanes.of(DATABASE, key).is_none() {
            self.stale.lock().remove(key);
            view.forget(key);
        }
    }

    /// Drops those of these rows that others have changed while they waited for the database.
    pub fn forget_stale<'k>(&self, keys: impl Iterator<Item = &'k Box<[u8]>>) {
        let Some(keyspace) = self.keyspace.get() else { return };
        for key in keys {
            if self.stale.lock().contains(key) {
                self.forget(keyspace, key);
            }
        }
    }

    /// Drops all rows, or those of a table, from the cache.
    fn forget_all(&self, keyspace: &Keyspace, table: Option<&str>) {
        self.flights.void_all();
        self.forget_absences();
        let mut cursor = 0;
        loop {
            let mut effects = Effects::default();
            let mut view = View::new(keyspace, &LockPlan::Each, DATABASE, clock::wall_ms(), &mut effects);
            let mut keys: Vec<Box<[u8]>> = Vec::new();
            cursor = view.scan(cursor, 1000, |key, _| {
                let rule = self.backend.rules.find(key).and_then(|rule| self.backend.rules.get(rule));
                if rule.is_some_and(|rule| table.is_none_or(|table| rule.table() == table)) {
                    keys.push(key.into());
                }
            });
            drop(view);
            keys.iter().for_each(|key| self.forget(keyspace, key));
            if cursor == 0 {
                return;
            }
        }
    }

    /// A commit ended without the database saying how: as soon as it answers again, the row is dropped from the cache,
    /// to be loaded as it is.
    pub async fn look_again(&'static self, keyspace: &'static Keyspace, rule: usize, key: Box<[u8]>) {
        while self.backend.store.load(rule, &key).await.is_err() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        self.lanes.free(&[(DATABASE, key.clone())]).await;
        self.forget(keyspace, &key);
    }
}
