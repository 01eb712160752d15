//! The database tier's own commands: the rows; the bodies are the engine's, as they wait for the database.

use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{CommandSpec, Control, Database, Group, flag};

const fn row(name: &'static str, arity: super::spec::Arity, what: Database) -> CommandSpec {
    CommandSpec::control(name, Group::Database, arity, Control::Database(what))
        .with(flag::NOSCRIPT | flag::NO_MULTI)
}

/// The rows.
pub const COMMANDS: &[CommandSpec] = &[
    row("db.flush", AtLeast(1), Database::Flush).with(flag::ADMIN).doc(
        "Waits until all that was accepted before is in the database or among the dead letters.",
        "7.2.0",
        "O(N) in the changes that wait",
        "[TIMEOUT milliseconds:integer]",
    ),
    row("db.status", Exactly(1), Database::Status).with(flag::ADMIN).doc(
        "Returns how the database tier is.",
        "7.2.0",
        "O(1)",
        "",
    ),
    row("db.deadletter", AtLeast(2), Database::DeadLetter).with(flag::ADMIN).doc(
        "Lists, retries or drops changes that the database refused.",
        "7.2.0",
        "O(N) in the dead letters",
        "operation<list([COUNT count:integer] [AFTER id:integer]) | retry(id) | drop(id)>",
    ),
    row("db.query", AtLeast(2), Database::Query).with(flag::READONLY).doc(
        "Returns the rows of a named query as JSON.",
        "7.2.0",
        "That of the query",
        "name [parameter...]",
    ),
];
