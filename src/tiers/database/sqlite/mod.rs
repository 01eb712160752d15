//! SQLite behind [`Store`]: a file beside the server, written by a thread of its own, one thing at a time.
//!
//! Invariants: the connection lives on its thread alone; a commit is on disk when it is acknowledged
//! (`synchronous = FULL`), as the journal lets go of what was committed.

mod letters;
mod rows;
mod schema;

use std::sync::Arc;

use parking_lot::RwLock;
use rusqlite::{Connection, ErrorCode};
use tokio::sync::oneshot;

use super::rules::Rules;
use super::statistics::Statistics;
use super::store::{
    Batch, BoxFuture, DeadLetter, Failure, Listener, Loaded, RowChange, SetupError, StatementStatistics,
    Store,
};
use crate::clock::monotonic;
use crate::config::database::DatabaseConfig;
use schema::Table;

type Work = Box<dyn FnOnce(&mut Connection) + Send>;

/// A SQLite file.
pub struct Sqlite {
    rules: Arc<Rules>,
    work: std::sync::mpsc::Sender<Work>,
    tables: RwLock<Option<Arc<[Table]>>>,
    statistics: Arc<Statistics>,
    auto_create: bool,
}

impl Sqlite {
    /// Opens the file, making it and its directory if they are missing, and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(config: &DatabaseConfig, rules: Arc<Rules>) -> Result<Self, SetupError> {
        let path = config.url.strip_prefix("sqlite:").unwrap_or(&config.url);
        if path.is_empty() {
            return Err(SetupError::Address("sqlite: needs a path".to_owned()));
        }
        let fault = |error: &dyn std::fmt::Display| SetupError::Address(format!("{path}: {error}"));
        let directory = std::path::Path::new(path).parent().filter(|parent| !parent.as_os_str().is_empty());
        if let Some(directory) = directory {
            std::fs::create_dir_all(directory).map_err(|error| fault(&error))?;
        }
        let mut connection = Connection::open(path).map_err(|error| fault(&error))?;
        connection
            .execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;")
            .and_then(|()| connection.busy_timeout(config.statement_timeout.0))
            .map_err(|error| fault(&error))?;
        connection.set_prepared_statement_cache_capacity(256);
        let (work, queue) = std::sync::mpsc::channel::<Work>();
        std::thread::Builder::new()
            .name("sqlite".to_owned())
            .spawn(move || queue.into_iter().for_each(|work| work(&mut connection)))
            .map_err(|error| fault(&error))?;
        Ok(Self {
            rules,
            work,
            tables: RwLock::new(None),
            statistics: Arc::default(),
            auto_create: config.auto_create,
        })
    }

    fn tables(&self) -> Result<Arc<[Table]>, Failure> {
        self.tables
            .read()
            .clone()
            .ok_or_else(|| Failure::Transient("its schema is not checked yet".to_owned()))
    }

    /// Runs on the thread.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection, &Statistics) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (done, answer) = oneshot::channel();
        let statistics = self.statistics.clone();
        let work: Work = Box::new(move |connection| {
            // Whoever asked may have gone; the work is done all the same.
            let _ = done.send(work(connection, &statistics));
        });
        let ended = || Failure::Transient("its thread has ended".to_owned());
        self.work.send(work).map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    async fn prepare(&self) -> Result<(), SetupError> {
        let (rules, auto_create) = (self.rules.clone(), self.auto_create);
        let checked = self.run(move |connection, _| Ok(schema::check(connection, &rules, auto_create))).await;
        let tables = checked.map_err(SetupError::unreachable)??;
        *self.tables.write() = Some(tables.into());
        Ok(())
    }
}

/// Runs a statement's work and counts it.
fn measured<T>(
    statistics: &Statistics,
    statement: &str,
    work: impl FnOnce() -> rusqlite::Result<T>,
) -> Result<T, Failure> {
    let start = monotonic();
    let result = work();
    statistics.record(statement, start.elapsed(), result.is_ok());
    result.map_err(|error| failure(&error))
}

/// What an error means. Its text is the code's and what of the schema it names; never a value.
fn failure(error: &rusqlite::Error) -> Failure {
    let rusqlite::Error::SqliteFailure(code, message) = error else {
        return Failure::Refused(match error {
            rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
            rusqlite::Error::InvalidParameterCount(given, wanted) => {
                format!("{given} parameters were given, {wanted} are needed")
            }
            _ => "a statement could not be run".to_owned(),
        });
    };
    let text = match (code.code, message) {
        // These name tables and columns only.
        (ErrorCode::ConstraintViolation | ErrorCode::Unknown, Some(message)) => message.clone(),
        _ => code.to_string(),
    };
    match code.code {
        ErrorCode::DatabaseBusy
        | ErrorCode::DatabaseLocked
        | ErrorCode::OutOfMemory
        | ErrorCode::OperationInterrupted
        | ErrorCode::SystemIoFailure
        | ErrorCode::DiskFull
        | ErrorCode::CannotOpen
        | ErrorCode::ReadOnly
        | ErrorCode::FileLockingProtocolFailed
        | ErrorCode::SchemaChanged => Failure::Transient(text),
        _ => Failure::Refused(text),
    }
}

impl Store for Sqlite {
    fn check(&self) -> BoxFuture<'_, Result<(), SetupError>> {
        Box::pin(self.prepare())
    }

    fn load<'a>(&'a self, rule: usize, key: &'a [u8]) -> BoxFuture<'a, Result<Loaded, Failure>> {
        Box::pin(async move {
            let (rules, tables, key) = (self.rules.clone(), self.tables()?, key.to_vec());
            self.run(move |connection, counts| rows::load(connection, counts, &rules, &tables, rule, &key))
                .await
        })
    }

    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (rules, tables, batch) = (self.rules.clone(), self.tables()?, batch.clone());
            self.run(move |connection, counts| rows::apply(connection, counts, &rules, &tables, &batch)).await
        })
    }

    fn apply_apart<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<(usize, String)>, Failure>> {
        Box::pin(async move {
            let (rules, tables, batch) = (self.rules.clone(), self.tables()?, batch.clone());
            self.run(move |connection, counts| rows::apply_apart(connection, counts, &rules, &tables, &batch))
                .await
        })
    }

    fn bury<'a>(&'a self, change: &'a RowChange, error: &'a str) -> BoxFuture<'a, Result<(), Failure>> {
        Box::pin(async move {
            let (rules, change, error) = (self.rules.clone(), change.clone(), error.to_owned());
            self.run(move |connection, counts| letters::bury(connection, counts, &rules, &change, &error))
                .await
        })
    }

    fn dead_letters(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, Failure>> {
        Box::pin(self.run(move |connection, counts| letters::list(connection, counts, after, limit)))
    }

    fn dead_letter_count(&self) -> BoxFuture<'_, Result<u64, Failure>> {
        Box::pin(self.run(letters::count))
    }

    fn dead_letter(&self, id: i64) -> BoxFuture<'_, Result<Option<RowChange>, Failure>> {
        let rules = self.rules.clone();
        Box::pin(self.run(move |connection, counts| letters::change(connection, counts, &rules, id)))
    }

    fn drop_dead_letters<'a>(&'a self, ids: &'a [i64]) -> BoxFuture<'a, Result<u64, Failure>> {
        let ids = ids.to_vec();
        Box::pin(self.run(move |connection, counts| letters::remove(connection, counts, &ids)))
    }

    fn highest_version(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(async {
            let tables = self.tables()?;
            self.run(move |connection, counts| rows::highest_version(connection, counts, &tables)).await
        })
    }

    fn query<'a>(&'a self, name: &'a str, params: &'a [&'a [u8]]) -> BoxFuture<'a, Result<Vec<u8>, Failure>> {
        Box::pin(async move {
            let Some(query) = self.rules.queries().get(name) else {
                return Err(Failure::Refused("there is no query of this name".to_owned()));
            };
            let sql = query.sql.clone();
            let params: Vec<Vec<u8>> = params.iter().map(|value| value.to_vec()).collect();
            self.run(move |connection, counts| rows::query(connection, counts, &sql, &params)).await
        })
    }

    fn listen(&self, listener: Listener) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            listener(super::store::Notification::Listening);
            std::future::pending().await
        })
    }

    fn statements(&self) -> Vec<StatementStatistics> {
        self.statistics.all()
    }
}
