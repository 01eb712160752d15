//! The cache follows the database: rows that others changed are dropped from upstream.
//!
//! All hosts listen, and each drops what it is told of. What was changed while nobody listened is unknown: a host that
//! begins to listen drops all rows, unless another says that it has been listening all along.

use std::sync::Arc;

use super::keeper::LIFE;
use super::{Shared, ask};
use crate::tiers::database::store::{Failure, Notification};
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{Dedicated, elements, text};

/// Keys that upstream looks at for one page.
const PAGE: &[u8] = b"1000";
/// For so long a host waits for another to say that it has been listening: two signs of life and some.
const WAIT_MS: u64 = 2500;

/// How this host follows the database. Times are upstream's, in milliseconds.
#[derive(Debug, Default)]
pub(super) enum Following {
    /// It is not told of changes.
    #[default]
    Deaf,
    /// It is, and does not know what happened before; since then, once that is known.
    Catching(Option<u64>),
    /// It is, and all changes were followed up to the last look.
    Caught { now_ms: u64 },
}

impl Following {
    /// It is so late.
    pub fn tick(&mut self, at_ms: u64) {
        match self {
            Self::Deaf => {}
            Self::Catching(since) => *since = since.or(Some(at_ms)),
            Self::Caught { now_ms } => *now_ms = at_ms,
        }
    }
}

impl Shared {
    /// Listens to the database for as long as the process lives.
    pub(super) async fn follow(&'static self) {
        let listener = Arc::new(move |notification| self.notified(notification));
        self.backend.readiness.ready().await;
        self.backend.store.listen(listener).await;
    }

    fn notified(&'static self, notification: Notification) {
        match notification {
            Notification::Changed { rule, key } => {
                self.backend.invalidate_queries([rule].into_iter());
                self.flights.void(&key);
                self.finished.lock().changed.push(key);
                self.wake.notify_one();
            }
            Notification::Flushed { table } => self.backend.table_changed(Some(&table)),
            Notification::TableChanged { table } => {
                self.backend.table_changed(Some(&table));
                tokio::spawn(self.forget_all(Some(table)));
            }
            Notification::Lost => {
                *self.following.lock() = Following::Deaf;
                tracing::warn!("changes in the database are not told at the moment");
            }
            Notification::Listening => {
                self.backend.table_changed(None);
                *self.following.lock() = Following::Catching(None);
                tracing::info!("listening for changes in the database");
            }
        }
    }

    /// Says that this host listens, or finds out whether another did all along.
    pub(super) async fn follow_on(&'static self, dedicated: &mut Dedicated) -> Result<(), Failure> {
        let (since, now_ms) = match &*self.following.lock() {
            Following::Deaf | Following::Catching(None) => return Ok(()),
            Following::Catching(Some(since)) => (Some(*since), 0),
            Following::Caught { now_ms } => (None, *now_ms),
        };
        let listening = self.names.listening.as_bytes();
        let Some(since) = since else {
            let (now, life) = (now_ms.to_string(), LIFE.as_millis().to_string());
            let gone = format!("({}", now_ms.saturating_sub(LIFE.as_millis() as u64));
            let requests: &[&[&[u8]]] = &[
                &[b"ZADD", listening, now.as_bytes(), self.host.as_bytes()],
                &[b"ZREMRANGEBYSCORE", listening, b"-inf", gone.as_bytes()],
                &[b"PEXPIRE", listening, life.as_bytes()],
            ];
            return ask(dedicated, requests).await.map(drop);
        };
        let after = format!("({since}");
        let others: &[&[u8]] = &[b"ZRANGEBYSCORE", listening, after.as_bytes(), b"+inf"];
        let replies = ask(dedicated, &[others, &[b"TIME"]]).await?;
        let is_other = |name: &&[u8]| text(name).is_some_and(|name| name != self.host.as_bytes());
        let others = elements(&replies[0]).unwrap_or_default();
        let now_ms = super::keeper::millis(&replies[1]).unwrap_or(0);
        if others.iter().any(is_other) {
            self.caught(since, now_ms);
        } else if now_ms > since + WAIT_MS {
            tracing::info!("nobody listened to the database before: its rows in the cache are loaded anew");
            self.forget_rows(dedicated, None).await?;
            self.caught(since, now_ms);
        }
        Ok(())
    }

    /// Unless the link was lost meanwhile, all changes since then are followed.
    fn caught(&self, since: u64, now_ms: u64) {
        let mut following = self.following.lock();
        if matches!(*following, Following::Catching(Some(other)) if other == since) {
            *following = Following::Caught { now_ms };
        }
    }

    async fn forget_all(&'static self, table: Option<String>) {
        let forgotten = async {
            let pool = self.upstream.pool(None).map_err(|error| Failure::Transient(error.to_string()))?;
            let dedicated = pool.take(false, DATABASE).await;
            let mut dedicated = dedicated.map_err(|error| Failure::Transient(error.to_string()))?;
            self.forget_rows(&mut dedicated, table.as_deref()).await?;
            pool.give_back(dedicated);
            Ok::<_, Failure>(())
        };
        if let Err(error) = forgotten.await {
            tracing::warn!(%error, "rows of a table that others changed are still in the cache: all are dropped");
            // When the connection is there again.
            *self.following.lock() = Following::Catching(None);
        }
    }

    /// Drops all rows, or those of a table, from upstream, and what is known of absent ones.
    async fn forget_rows(
        &'static self,
        dedicated: &mut Dedicated,
        table: Option<&str>,
    ) -> Result<(), Failure> {
        self.flights.void_all();
        let rules = &self.backend.rules;
        let is_of = |key: &[u8]| {
            let rule = rules.find(key).and_then(|rule| rules.get(rule));
            rule.is_some_and(|rule| table.is_none_or(|table| rule.table() == table))
        };
        let mut cursor = b"0".to_vec();
        loop {
            let replies = ask(dedicated, &[&[b"SCAN", &cursor, b"COUNT", PAGE]]).await?;
            let parts = elements(&replies[0]).unwrap_or_default();
            let [next, keys] = parts[..] else {
                return Err(Failure::Transient("upstream's reply to SCAN makes no sense".to_owned()));
            };
            let keys = elements(keys).unwrap_or_default().into_iter().filter_map(text);
            let rows = keys.map(|key| key.strip_prefix(self.names.lease.as_bytes()).unwrap_or(key));
            let keys: Vec<Box<[u8]>> = rows.filter(|key| is_of(key)).map(Box::from).collect();
            if !keys.is_empty() {
                self.forget(dedicated, &keys).await?;
            }
            cursor = text(next).unwrap_or(b"0").to_vec();
            if cursor == b"0" {
                return Ok(());
            }
        }
    }
}
