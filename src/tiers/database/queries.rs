//! Named queries: their rows as JSON, cached for a while, one run for all who ask at the same time.
//!
//! Invariant: what is cached, or handed to who asks, was read after the last change of the query's tables that was known
//! when it was asked. A change makes all results of its queries void, those under way too: they are handed to who asked
//! before it, and are not kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::backend::Backend;
use super::rules::Rules;
use super::store::Failure;
use crate::clock;

/// Bytes of results kept at most; beyond it all are dropped.
const MAX_BYTES: usize = 64 << 20;

/// Rows as JSON.
pub type Rows = Result<Arc<[u8]>, Failure>;

type Asked = (String, Vec<Vec<u8>>);

enum Slot {
    Running(watch::Receiver<Option<Rows>>),
    Kept(Arc<[u8]>, Instant),
}

/// What is cached.
#[derive(Default)]
pub struct Results {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<Asked, Slot, ahash::RandomState>,
    bytes: usize,
    hits: u64,
    runs: u64,
}

impl Results {
    /// Drops the results of queries on one of these tables.
    fn drop_of(&self, rules: &Rules, tables: &[&str]) {
        let mut inner = self.inner.lock();
        if inner.slots.is_empty() {
            return;
        }
        let is_of = |name: &str| {
            let query = rules.queries().get(name);
            query.is_none_or(|query| query.tables.iter().any(|table| tables.contains(&table.as_str())))
        };
        inner.slots.retain(|(name, _), _| !is_of(name));
        inner.bytes = inner.slots.values().map(Slot::bytes).sum();
    }

    /// Drops all.
    fn clear(&self) {
        let mut inner = self.inner.lock();
        inner.slots.clear();
        inner.bytes = 0;
    }

    /// Answers from the cache, and runs.
    pub fn counts(&self) -> (u64, u64) {
        let inner = self.inner.lock();
        (inner.hits, inner.runs)
    }
}

impl Slot {
    fn bytes(&self) -> usize {
        match self {
            Self::Running(_) => 0,
            Self::Kept(rows, _) => rows.len(),
        }
    }
}

impl Backend {
    /// The rows of a named query.
    ///
    /// # Errors
    /// There is no such query, its parameters do not fit, or the database cannot be asked.
    pub async fn query(&'static self, name: String, parameters: Vec<Vec<u8>>) -> Rows {
        let Some(query) = self.rules.queries().get(&name) else {
            return Err(Failure::Refused("there is no query of this name".to_owned()));
        };
        let (asked, ttl) = ((name, parameters), query.ttl.map(|ttl| ttl.0));
        let mut running = {
            let mut inner = self.results.inner.lock();
            match inner.slots.get(&asked) {
                Some(Slot::Kept(rows, until)) if clock::monotonic() < *until => {
                    let rows = Arc::clone(rows);
                    inner.hits += 1;
                    return Ok(rows);
                }
                Some(Slot::Running(running)) => running.clone(),
                _ => {
                    let (done, running) = watch::channel(None);
                    inner.slots.insert(asked.clone(), Slot::Running(running.clone()));
                    inner.runs += 1;
                    let mine = running.clone();
                    self.runtime.spawn(async move {
                        let parameters: Vec<&[u8]> = asked.1.iter().map(Vec::as_slice).collect();
                        let rows: Rows = self.store.query(&asked.0, &parameters).await.map(Arc::from);
                        self.keep(asked, &mine, &rows, ttl);
                        // Nobody may wait any more.
                        done.send_replace(Some(rows));
                    });
                    running
                }
            }
        };
        let ended = running.wait_for(Option::is_some).await;
        match ended.as_deref() {
            Ok(Some(rows)) => rows.clone(),
            _ => Err(Failure::Transient("the server is ending".to_owned())),
        }
    }

    /// Puts a result in the place of its run, unless a change has dropped that.
    fn keep(
        &self,
        asked: Asked,
        mine: &watch::Receiver<Option<Rows>>,
        rows: &Rows,
        ttl: Option<std::time::Duration>,
    ) {
        let mut inner = self.results.inner.lock();
        let is_mine = |slot: &Slot| matches!(slot, Slot::Running(running) if running.same_channel(mine));
        if !inner.slots.get(&asked).is_some_and(is_mine) {
            return;
        }
        inner.slots.remove(&asked);
        if let (Ok(rows), Some(ttl)) = (rows, ttl) {
            if inner.bytes + rows.len() > MAX_BYTES {
                inner.slots.retain(|_, slot| matches!(slot, Slot::Running(_)));
                inner.bytes = 0;
            }
            if rows.len() <= MAX_BYTES {
                inner.bytes += rows.len();
                inner.slots.insert(asked, Slot::Kept(Arc::clone(rows), clock::monotonic() + ttl));
            }
        }
    }

    /// Rows of these rules changed in the database.
    pub fn invalidate_queries(&self, rules: impl Iterator<Item = usize>) {
        if self.rules.queries().is_empty() {
            return;
        }
        let mut tables: Vec<&str> = rules.filter_map(|rule| Some(self.rules.get(rule)?.table())).collect();
        tables.sort_unstable();
        tables.dedup();
        self.results.drop_of(&self.rules, &tables);
    }

    /// A table changed, or, without one, any may have.
    pub(super) fn table_changed(&self, table: Option<&str>) {
        match table {
            Some(table) => self.results.drop_of(&self.rules, &[table]),
            None => self.results.clear(),
        }
    }
}
