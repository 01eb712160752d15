//! A transaction on a connection of the pool, and how its statements are sent, measured and bounded in time.

use std::future::Future;
use std::time::Duration;

use deadpool_postgres::Object;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};

use super::classify::failure;
use super::connect::Connections;
use crate::clock::monotonic;
use crate::tiers::database::statistics::Statistics;
use crate::tiers::database::store::Failure;

/// A parameter with its type.
pub(super) type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// From when on it is asked whether the server answers at all.
const PATIENCE: Duration = Duration::from_secs(5);
/// Statements that a connection keeps prepared; as columns change in many combinations, they are bounded.
const MOST_PREPARED: usize = 256;

/// A transaction. Dropped before its end, it closes its connection, and so is rolled back.
pub(super) struct Transaction<'a> {
    client: Option<Object>,
    connections: &'a Connections,
    statistics: &'a Statistics,
}

impl<'a> Transaction<'a> {
    /// Begins, and takes locks.
    pub(super) async fn begin(
        connections: &'a Connections,
        locks: &Locks,
        statistics: &'a Statistics,
    ) -> Result<Self, Failure> {
        let client = connections.get().await?;
        let transaction = Self { client: Some(client), connections, statistics };
        transaction.simple("BEGIN", &begin(connections, locks)).await?;
        Ok(transaction)
    }

    /// Begins, takes locks, runs the only statement and commits, all sent at once: one round trip. A transaction in which
    /// something failed is rolled back by its `COMMIT`; one whose statement could not be sent has changed nothing.
    pub(super) async fn of_one(
        connections: &'a Connections,
        locks: &Locks,
        statistics: &'a Statistics,
        (statement, parameters): (&str, &[Parameter<'_>]),
    ) -> Result<(), Failure> {
        let mut transaction = Self { client: Some(connections.get().await?), connections, statistics };
        let client = transaction.client()?;
        let prepared = if connections.is_prepared() {
            let preparing = prepare(client, statement, parameters);
            Some(measured(connections, statistics, "PREPARE", preparing).await?)
        } else {
            None
        };
        let text = begin(connections, locks);
        let run = async {
            match &prepared {
                Some(prepared) => {
                    client.execute_raw(prepared, parameters.iter().map(|(value, _)| *value)).await
                }
                None => client.execute_typed(statement, parameters).await,
            }
        };
        // Sent in this order, as each sends what it has when it is first looked at.
        let (begun, done, ended) = tokio::join!(
            biased;
            transaction.simple("BEGIN", &text),
            measured(connections, statistics, statement, run),
            transaction.simple("COMMIT", "COMMIT"),
        );
        // The first error is the cause of those behind it.
        begun?;
        done?;
        ended?;
        // Back to the pool, now that there is no transaction on it.
        drop(transaction.client.take());
        Ok(())
    }

    fn client(&self) -> Result<&Object, Failure> {
        self.client.as_ref().ok_or_else(|| Failure::Transient("the transaction has ended".to_owned()))
    }

    async fn simple(&self, name: &str, text: &str) -> Result<(), Failure> {
        let client = self.client()?;
        measured(self.connections, self.statistics, name, client.batch_execute(text)).await
    }

    /// Runs a statement, and tells how many rows it concerned.
    pub(super) async fn execute(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, Failure> {
        let client = self.client()?;
        let running = async {
            if !self.connections.is_prepared() {
                return client.execute_typed(statement, parameters).await;
            }
            let prepared = prepare(client, statement, parameters).await?;
            client.execute_raw(&prepared, parameters.iter().map(|(value, _)| *value)).await
        };
        measured(self.connections, self.statistics, statement, running).await
    }

    /// Runs a statement that returns rows.
    pub(super) async fn query(
        &self,
        statement: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, Failure> {
        let client = self.client()?;
        measured(
            self.connections,
            self.statistics,
            statement,
            rows(self.connections, client, statement, parameters),
        )
        .await
    }

    /// Takes back what `steps` have done, if they are refused, and nothing else.
    pub(super) async fn savepoint(
        &self,
        steps: impl Future<Output = Result<(), Failure>>,
    ) -> Result<(), Failure> {
        self.simple("SAVEPOINT", "SAVEPOINT one").await?;
        let result = steps.await;
        match &result {
            Ok(()) => self.simple("RELEASE SAVEPOINT", "RELEASE SAVEPOINT one").await?,
            Err(Failure::Refused(_)) => {
                let back = "ROLLBACK TO SAVEPOINT one; RELEASE SAVEPOINT one";
                self.simple("ROLLBACK TO SAVEPOINT", back).await?;
            }
            Err(Failure::Transient(_) | Failure::Locked(_)) => {}
        }
        result
    }

    /// Ends it.
    pub(super) async fn commit(mut self) -> Result<(), Failure> {
        self.simple("COMMIT", "COMMIT").await?;
        // Back to the pool, now that there is no transaction on it.
        drop(self.client.take());
        Ok(())
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if let Some(client) = self.client.take() {
            drop(Object::take(client));
        }
    }
}

/// The locks of a transaction.
#[derive(Default)]
pub(super) struct Locks {
    /// Those that it takes first, as a list of function calls.
    pub(super) first: String,
    /// How long it waits for any that others have, if not as long as for all else.
    pub(super) patience: Option<Duration>,
}

/// The text that begins a transaction, with its settings and locks.
fn begin(connections: &Connections, locks: &Locks) -> String {
    let settings = connections.local_settings();
    let patience = locks
        .patience
        .map_or_else(String::new, |patience| format!("SET LOCAL lock_timeout = {};", patience.as_millis()));
    let first = if locks.first.is_empty() { String::new() } else { format!("SELECT {}", locks.first) };
    format!("BEGIN; {settings} {patience} {first}")
}

/// Runs one reading statement. If the connection turns out to be dead, or its prepared statement out of date, it is
/// tried once more.
pub(super) async fn read(
    connections: &Connections,
    statistics: &Statistics,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, Failure> {
    if !connections.is_prepared() {
        // The settings hold for a transaction only.
        let transaction = Transaction::begin(connections, &Locks::default(), statistics).await?;
        let rows = transaction.query(statement, parameters).await?;
        transaction.commit().await?;
        return Ok(rows);
    }
    let mut is_again = false;
    loop {
        let client = connections.get().await?;
        let mut is_stale = false;
        let running = async {
            let result = rows(connections, &client, statement, parameters).await;
            if let Err(error) = &result {
                let code = error.code().map(|code| code.code());
                is_stale = client.is_closed() || matches!(code, Some("0A000" | "26000"));
            }
            result
        };
        let result = measured(connections, statistics, statement, running).await;
        if result.is_err() {
            client.statement_cache.clear();
        }
        match result {
            Err(_) if is_stale && !is_again => is_again = true,
            Err(failure @ (Failure::Transient(_) | Failure::Locked(_))) => {
                // It may still be under way on this connection.
                drop(Object::take(client));
                return Err(failure);
            }
            result => return result,
        }
    }
}

async fn rows(
    connections: &Connections,
    client: &Object,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    if !connections.is_prepared() {
        return client.query_typed(statement, parameters).await;
    }
    let prepared = prepare(client, statement, parameters).await?;
    let values: Vec<_> = parameters.iter().map(|(value, _)| *value).collect();
    client.query(&prepared, &values).await
}

async fn prepare(
    client: &Object,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<tokio_postgres::Statement, tokio_postgres::Error> {
    if client.statement_cache.size() >= MOST_PREPARED {
        client.statement_cache.clear();
    }
    let types: Vec<Type> = parameters.iter().map(|(_, kind)| kind.clone()).collect();
    client.prepare_typed_cached(statement, &types).await
}

/// Measures a statement, and gives it up when the server does not answer others either, or well after its timeout.
async fn measured<T>(
    connections: &Connections,
    statistics: &Statistics,
    statement: &str,
    running: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T, Failure> {
    let start = monotonic();
    let silence = async {
        let bound = connections.statement_timeout() + PATIENCE;
        while start.elapsed() < bound {
            tokio::time::sleep(PATIENCE).await;
            if !connections.answers().await {
                break;
            }
        }
    };
    let result = tokio::select! {
        biased;
        result = running => result.map_err(|error| failure(&error)),
        () = silence => Err(Failure::Transient("the server does not answer".to_owned())),
    };
    statistics.record(statement, start.elapsed(), result.is_ok());
    result
}
