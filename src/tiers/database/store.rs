//! What the tier asks of a database, whichever it is: rows by rule and key, batches that commit whole, and versions.
//!
//! Invariants of every backend:
//! - A change with an older (or equal) version than what the row has, or had when it was deleted, changes nothing.
//! - A batch commits whole or not at all, so that it can be sent again after any failure.
//! - A change is a state, never a delta; sending it twice is sending it once.
//! - No text of a [`Failure`] holds a value of a row.
//!
//! What this does not do: order the changes of a key (the flusher does), retry, or bisect.

use std::borrow::Cow;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;

/// A future in a box, so that [`Store`] is object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What a row is to become, or is. Absolute, never a delta.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RowState {
    /// There is no row.
    Absent,
    /// Of a rule with `columns`: these change, by their index in the rule's columns; `None` is NULL.
    Fields {
        /// The columns and their values. A loaded row has those that are not NULL.
        fields: Vec<(usize, Option<Vec<u8>>)>,
        /// Whether the rule's other columns become NULL; else they stay as they are.
        whole: bool,
    },
    /// Of a rule with `json`: these members of the object in that column, by name; `None` removes one.
    Document {
        /// The members and their values, both UTF-8, or the change is refused.
        members: Vec<(Vec<u8>, Option<Vec<u8>>)>,
        /// Whether the object holds nothing else; else its other members stay as they are.
        whole: bool,
    },
    /// Of a rule with `value`: the column's value.
    Value(Vec<u8>),
    /// Of a rule without a table: any type of Redis, in the default table.
    Dump {
        /// The type, as `TYPE` names it.
        kind: Cow<'static, str>,
        /// The value as `DUMP` serialises it.
        payload: Vec<u8>,
        /// When it expires, in milliseconds since the epoch.
        expires_ms: Option<u64>,
    },
}

impl RowState {
    /// This state and then a later one, as one.
    #[must_use]
    pub fn then(self, later: Self) -> Self {
        match (self, later) {
            (Self::Fields { mut fields, whole }, Self::Fields { fields: changed, whole: false }) => {
                for (index, value) in changed {
                    match fields.iter_mut().find(|(other, _)| *other == index) {
                        Some((_, before)) => *before = value,
                        None => fields.push((index, value)),
                    }
                }
                Self::Fields { fields, whole }
            }
            // On top of no row, single columns are all there is.
            (Self::Absent, Self::Fields { fields, .. }) => Self::Fields { fields, whole: true },
            (_, later) => later,
        }
    }

    /// About how many bytes it says the row has.
    pub fn bytes(&self) -> usize {
        /// For what tells one column from another.
        const EACH: usize = 9;
        let len = |value: &Option<Vec<u8>>| value.as_ref().map_or(0, Vec::len) + EACH;
        match self {
            Self::Absent => 0,
            Self::Value(value) => value.len(),
            Self::Dump { kind, payload, .. } => kind.len() + payload.len(),
            Self::Fields { fields, .. } => fields.iter().map(|(_, value)| len(value)).sum(),
            Self::Document { members, .. } => {
                members.iter().map(|(name, value)| name.len() + len(value)).sum()
            }
        }
    }

    /// Whether it says nothing of a part of the row.
    pub fn is_partial(&self) -> bool {
        matches!(self, Self::Fields { whole: false, .. } | Self::Document { whole: false, .. })
    }
}

/// A row's new state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowChange {
    /// The rule's index in the rules.
    pub rule: usize,
    /// The key as the client wrote it.
    pub key: Box<[u8]>,
    /// The journal's sequence, rising and unique.
    pub version: i64,
    /// What the row becomes.
    pub state: RowState,
}

/// The changes of one command or transaction: mostly a single one.
pub type Changes = SmallVec<[RowChange; 1]>;

/// Changes that commit together, each key once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Batch {
    /// The changes, of any rules, in any order.
    pub changes: Vec<RowChange>,
    /// How many of them after one another come from one transaction, or from several that share keys: they are not to be
    /// committed apart.
    pub units: Vec<usize>,
}

impl Batch {
    /// The changes of one transaction.
    pub fn of_one(changes: Vec<RowChange>) -> Self {
        let units = vec![changes.len()];
        Self { changes, units }
    }

    /// A batch for each unit.
    pub fn apart(self) -> Vec<Self> {
        let mut changes = self.changes.into_iter();
        self.units.into_iter().map(|unit| Self::of_one(changes.by_ref().take(unit).collect())).collect()
    }

    /// Two batches of about as many units; the batch itself if it has only one.
    ///
    /// # Errors
    /// It has only one unit, and is given back.
    pub fn halves(mut self) -> Result<(Self, Self), Self> {
        if self.units.len() < 2 {
            return Err(self);
        }
        let units = self.units.split_off(self.units.len() / 2);
        let changes = self.changes.split_off(self.units.iter().sum());
        Ok((self, Self { changes, units }))
    }
}

/// A row as it is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// There is none.
    Absent,
    /// `Fields` or `Document` (whole), `Value` or `Dump`, and its version; 0 if it was never written from here.
    Row(RowState, i64),
}

/// Why the database did not do something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It is away, or asks to be tried again (deadlock, serialisation, shutdown, timeout): all of it, later.
    #[error("the database is not available: {0}")]
    Transient(String),
    /// Somebody holds a lock on something of it for longer than was to be waited: a batch is to be bisected, and what is
    /// locked tried again later.
    #[error("rows are locked in the database: {0}")]
    Locked(String),
    /// It refused a statement for its data or its schema: a batch is to be bisected.
    #[error("the database refused: {0}")]
    Refused(String),
}

/// Why the tier cannot start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// The database cannot be reached, for this reason.
    #[error("the database is not available: {0}")]
    Unreachable(String),
    /// Its address or its TLS settings make no sense.
    #[error("database.url: {0}")]
    Address(String),
    /// A rule does not fit the schema.
    #[error("database rule '{rule}': {reason}")]
    Rule {
        /// The rule's pattern.
        rule: String,
        /// What does not fit.
        reason: String,
    },
    /// A named query is none.
    #[error("database query '{query}': {reason}")]
    Query {
        /// Its name.
        query: String,
        /// What is wrong.
        reason: String,
    },
    /// A table of our own is missing or cannot be made.
    #[error("database table '{table}': {reason}")]
    Table {
        /// Its name.
        table: String,
        /// What is wrong.
        reason: String,
    },
}

impl SetupError {
    /// That the database did not do what was asked of it first.
    pub fn unreachable(failure: Failure) -> Self {
        match failure {
            Failure::Transient(why) | Failure::Locked(why) | Failure::Refused(why) => Self::Unreachable(why),
        }
    }
}

/// A change that the database refused, kept in the table `anteroom_dead_letter`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// Its number.
    pub id: i64,
    /// The key.
    pub key: Box<[u8]>,
    /// The rule's pattern.
    pub rule: String,
    /// The change's version.
    pub version: i64,
    /// Why it was refused.
    pub error: String,
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
}

/// That something else changed the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notification {
    /// A row, and so this key of this rule.
    Changed {
        /// The rule's index.
        rule: usize,
        /// The key.
        key: Box<[u8]>,
    },
    /// Something in this table that cannot be told as a key (`TRUNCATE`, or too long a key): all keys of its rules.
    TableChanged {
        /// The table, as the rules name it.
        table: String,
    },
    /// Another host brought something that all hosts had accepted into this table.
    Flushed {
        /// The table, as the rules name it.
        table: String,
    },
    /// The link was lost, and changes with it.
    Lost,
    /// The link is there: from now on, changes are told. What changed before is unknown.
    Listening,
}

/// Who is told of notifications. It must not block.
pub type Listener = Arc<dyn Fn(Notification) + Send + Sync>;

/// What was measured of one statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementStatistics {
    /// Its text; values are parameters, so there are none in it.
    pub statement: Arc<str>,
    /// How often it ran.
    pub count: u64,
    /// How often it succeeded.
    pub succeeded: u64,
    /// The mean time.
    pub mean: Duration,
    /// The shortest time.
    pub min: Duration,
    /// The longest time.
    pub max: Duration,
}

/// A database. All that is sent at once may run at once; SQLite runs one at a time.
pub trait Store: Send + Sync {
    /// Connects, creates the tables of our own that are missing (the default table with `auto-create` alone), and
    /// holds the rules and queries against the schema. To be called once, before anything else.
    fn check(&self) -> BoxFuture<'_, Result<(), SetupError>>;

    /// The row of a key that matches the rule.
    fn load<'a>(&'a self, rule: usize, key: &'a [u8]) -> BoxFuture<'a, Result<Loaded, Failure>>;

    /// Commits a batch, in one transaction, with one statement a table, kind and set of columns.
    fn apply<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<(), Failure>>;

    /// The same, but waits no longer than that for what others have locked. SQLite has no locks on rows.
    fn apply_unless_locked<'a>(
        &'a self,
        batch: &'a Batch,
        _patience: Duration,
    ) -> BoxFuture<'a, Result<(), Failure>> {
        self.apply(batch)
    }

    /// Commits in one transaction what of a batch is not refused; returns the places of what is, and why. Slower.
    fn apply_apart<'a>(&'a self, batch: &'a Batch) -> BoxFuture<'a, Result<Vec<(usize, String)>, Failure>>;

    /// Puts a refused change among the dead letters; the same change twice is one letter.
    fn bury<'a>(&'a self, change: &'a RowChange, error: &'a str) -> BoxFuture<'a, Result<(), Failure>>;

    /// The oldest dead letters, at most so many, with an id above `after`.
    fn dead_letters(&self, after: i64, limit: usize) -> BoxFuture<'_, Result<Vec<DeadLetter>, Failure>>;

    /// How many dead letters there are.
    fn dead_letter_count(&self) -> BoxFuture<'_, Result<u64, Failure>>;

    /// The change of a dead letter, to try it again: give it a new version only if it is to win over what came since.
    /// The letter stays until it is dropped, so that nothing is lost in between. `None` if there is no such letter;
    /// refused if its rule or columns are no longer configured.
    fn dead_letter(&self, id: i64) -> BoxFuture<'_, Result<Option<RowChange>, Failure>>;

    /// Deletes dead letters; tells how many there were.
    fn drop_dead_letters<'a>(&'a self, ids: &'a [i64]) -> BoxFuture<'a, Result<u64, Failure>>;

    /// The highest version in any table of the rules and in `anteroom_versions`; 0 if there is none. New versions have to start above.
    fn highest_version(&self) -> BoxFuture<'_, Result<i64, Failure>>;

    /// Runs a named query; its rows as a JSON array of objects. Refused if the name or the parameters do not fit.
    fn query<'a>(&'a self, name: &'a str, params: &'a [&'a [u8]]) -> BoxFuture<'a, Result<Vec<u8>, Failure>>;

    /// Tells of changes made by others until the future is dropped; it reconnects by itself and does not end.
    /// SQLite is embedded, and tells nothing.
    fn listen(&self, listener: Listener) -> BoxFuture<'static, ()>;

    /// What was measured of each statement.
    fn statements(&self) -> Vec<StatementStatistics>;
}
