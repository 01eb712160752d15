//! Postgres behind [`Store`]: a pool of connections, one statement a table and kind, advisory locks between hosts.
//!
//! Invariants:
//! - A deletion holds its table's advisory lock alone, writes share it. Else a late write whose snapshot is older than
//!   a deletion would not see the tombstone, and bring the row back.
//! - A connection whose transaction did not end is closed, never given back to the pool.
//! - All identifiers are quoted; all values are parameters.

mod classify;
mod connect;
mod letters;
mod listen;
mod load;
mod parameters;
mod schema;
mod session;
mod statements;
mod tls;
pub mod triggers;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::grouping::{self, Group};
use super::rules::Rules;
use super::statistics::Statistics;
use super::store::{
    Batch, BoxFuture, DeadLetter, Failure, Listener, Loaded, RowChange, SetupError, StatementStatistics,
    Store,
};
use crate::config::database::DatabaseConfig;
use connect::Connections;
use parameters::Parameters;
use schema::Table;
use session::{Locks, Transaction};

/// A Postgres database.
pub struct Postgres {
    rules: Arc<Rules>,
    connections: Connections,
    /// By the rule's index; there once [`Store::check`] succeeded.
    tables: RwLock<Option<Arc<[Table]>>>,
    statistics: Statistics,
    auto_create: bool,
}

impl Postgres {
    /// Prepares to connect; nothing is sent before [`Store::check`].
    ///
    /// # Errors
    /// The address or its TLS settings make no sense.
    pub fn new(config: &DatabaseConfig, rules: Arc<Rules>) -> Result<Self, SetupError> {
        Ok(Self {
            rules,
            connections: Connections::new(config)?,
            tables: RwLock::new(None),
            statistics: Statistics::default(),
            auto_create: config.auto_create,
        })
    }

    fn tables(&self) -> Result<Arc<[Table]>, Failure> {
        self.tables
            .read()
            .clone()
            .ok_or_else(|| Failure::Transient("its schema is not checked yet".to_owned()))
    }

    async fn write_apart(&self, batch: &Batch) -> Result<Vec<(usize, String)>, Failure> {
        let tables = self.tables()?;
        let singles: Vec<Batch> =
            batch.changes.iter().map(|change| Batch::of_one(vec![change.clone()])).collect();
        let groups: Vec<_> = singles.iter().map(|single| grouping::group(&self.rules, single)).collect();
        // All locks before the first row, in their order.
        let sound = groups.iter().flatten().flatten();
        let locks = Locks { first: statements::locks(&tables, sound), patience: None };
        let transaction = Transaction::begin(&self.connections, &locks, &self.statistics).await?;
        let mut refused = Vec::new();
        for (place, groups) in groups.iter().enumerate() {
            let written = match groups {
                Err(failure) => Err(failure.clone()),
                Ok(groups) => transaction.savepoint(self.write_groups(&transaction, &tables, groups)).await,
            };
            match written {
                Ok(()) => {}
                Err(Failure::Refused(reason)) => refused.push((place, reason)),
                Err(failure) => return Err(failure),
            }
        }
        transaction.commit().await?;
        Ok(refused)
    }

    async fn write_groups(
        &self,
        transaction: &Transaction<'_>,
        tables: &[Table],
        groups: &[Group<'_>],
    ) -> Result<(), Failure> {
        for group in groups {
            let table = &tables[group.rule];
            let parameters = Parameters::of(table, group)?;
            transaction.execute(&statements::write(table, &group.kind), &parameters.list()).await?;
        }
        Ok(())
    }

    async fn write(&self, batch: &Batch, patience: Option<Duration>) -> Result<(), Failure> {
        let tables = self.tables()?;
        let groups = grouping::group(&self.rules, batch)?;
        let mut prepared = Vec::with_capacity(groups.len());
        for group in &groups {
            let table = &tables[group.rule];
            prepared.push((statements::write(table, &group.kind), Parameters::of(table, group)?));
        }
        let locks = Locks { first: statements::locks(&tables, &groups), patience };
        if let [(statement, parameters)] = &prepared[..] {
            let only = (statement.as_str(), &parameters.list()[..]);
            return Transaction::of_one(&self.connections, &locks, &self.statistics, only).await;
        }
        let transaction = Transaction::begin(&self.connections, &locks, &self.statistics).await?;
        for (statement, parameters) in &prepared {
            transaction.execute(statement, &parameters.list()).await?;
        }
        transaction.commit().await
    }
}

impl Store for Postgres {
    fn check(&self) -> BoxFuture<'_, Result<(), SetupError>> {
        Box::pin(async {
            let tables = schema::check(&self.connections, &self.rules, self.auto_create).await?;
            *self.tables.write() = Some(tables.into());
            self.connections.keep();
            Ok(())
        })
    }

    fn load<'a>(&'a self, rule: usize, key: &'a [u8]) -> BoxFuture<'a, Result<Loaded, Failure>> {
        Box::pin(self.load_row(rule, key))
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.write(batch, None))
    }

    fn apply_unless_locked<'a>(
        &'a self,
        batch: &'a Batch,
        patience: Duration,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.write(batch, Some(patience)))
    }

    fn apply_apart<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<(usize, String)>, Failure>> {
        Box::pin(self.write_apart(batch))
    }

    fn bury<'a>(&'a self, change: &'a RowChange, error: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(self.bury_change(change, error))
    }

    fn dead_letters(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, Failure>> {
        Box::pin(self.list_letters(after, limit))
    }

    fn dead_letter_count(&self) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(self.count_letters())
    }

    fn dead_letter(&self, id: i64) -> BoxFuture<'_, Result<Option<RowChange>, Failure>> {
        Box::pin(self.letter_change(id))
    }

    fn drop_dead_letters<'a>(&'a self, ids: &'a [i64]) -> BoxFuture<'a, Result<u64, Failure>> {
        Box::pin(self.drop_letters(ids))
    }

    fn highest_version(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(self.find_highest_version())
    }

    fn query<'a>(&'a self, name: &'a str, params: &'a [&'a [u8]]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(self.run_query(name, params))
    }

    fn listen(&self, listener: Listener) -> BoxFuture<'static, ()> {
        let tables = self.tables.read().clone();
        Box::pin(listen::listen(self.connections.clone(), self.rules.clone(), tables, listener))
    }

    fn statements(&self) -> Vec<StatementStatistics> {
        self.statistics.all()
    }
}
