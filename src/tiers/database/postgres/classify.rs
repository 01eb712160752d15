//! What an error of the server or of the link means: to try all of it again, or that a row or a statement is wrong.
//!
//! The server's messages about data quote the data, so for those only the condition's name is told, and where.

use std::error::Error as _;

use tokio_postgres::error::{DbError, SqlState};

use crate::tiers::database::store::Failure;

/// Classes of SQLSTATE that ask to try again: connection, serialisation and deadlock, resources, operator, system.
const TRANSIENT: [&str; 4] = ["08", "40", "53", "58"];

/// What an error means.
pub(super) fn failure(error: &tokio_postgres::Error) -> Failure {
    match error.as_db_error() {
        Some(of_server) if *of_server.code() == SqlState::LOCK_NOT_AVAILABLE => {
            Failure::Locked(describe(of_server))
        }
        Some(of_server) if !is_transient(of_server.code()) => Failure::Refused(describe(of_server)),
        Some(of_server) => Failure::Transient(describe(of_server)),
        // What the library cannot encode never left.
        None if is_misuse(error) => Failure::Refused(text_of(error)),
        None => Failure::Transient(text_of(error)),
    }
}

/// What the library itself finds wrong with parameters.
fn is_misuse(error: &tokio_postgres::Error) -> bool {
    let text = error.to_string();
    text.starts_with("error serializing") || (text.starts_with("expected ") && text.contains("parameters"))
}

fn is_transient(code: &SqlState) -> bool {
    let text = code.code();
    // A wrong number of parameters is of the class of lost connections.
    if *code == SqlState::PROTOCOL_VIOLATION {
        return false;
    }
    TRANSIENT.contains(&text.get(..2).unwrap_or_default())
        || text.starts_with("57P0")
        || *code == SqlState::QUERY_CANCELED
        // A standby that is not promoted yet; a pooler that gave another server connection; a login being changed.
        || *code == SqlState::READ_ONLY_SQL_TRANSACTION
        || *code == SqlState::INVALID_SQL_STATEMENT_NAME
        || *code == SqlState::IN_FAILED_SQL_TRANSACTION
        || text.starts_with("28")
}

/// An error of the server without values.
fn describe(error: &DbError) -> String {
    let code = error.code();
    let class = code.code().get(..2).unwrap_or_default();
    let mut text = if matches!(class, "22" | "23" | "P0") {
        format!("{} ({})", name(code), code.code())
    } else {
        format!("{} ({})", error.message(), code.code())
    };
    for (what, place) in [
        ("table", error.table()),
        ("column", error.column()),
        ("type", error.datatype()),
        ("constraint", error.constraint()),
    ] {
        if let Some(place) = place {
            text.push_str(&format!(", {what} {place}"));
        }
    }
    text
}

fn name(code: &SqlState) -> &'static str {
    match code.code() {
        "22001" => "a value is too long for its column",
        "22003" => "a number is out of its type's range",
        "22007" | "22008" => "a value is no date or time",
        "22021" => "a value holds bytes that are no text",
        "22P02" | "22P03" => "a value does not fit its column's type",
        "22P05" => "a character has no counterpart in the database's encoding",
        "23502" => "a column must not be NULL",
        "23503" => "a foreign key is violated",
        "23505" => "a unique key is violated",
        "23514" => "a check constraint is violated",
        "P0001" => "a trigger or function raised an error",
        _ => "a value was refused",
    }
}

/// An error of the library, with its causes, as these say what happened.
pub(super) fn text_of(error: &tokio_postgres::Error) -> String {
    if let Some(of_server) = error.as_db_error() {
        return describe(of_server);
    }
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_classified() {
        for code in ["08006", "40001", "40P01", "57P01", "57P03", "53300", "57014", "25006", "58030", "28P01"]
        {
            assert!(is_transient(&SqlState::from_code(code)), "{code}");
        }
        for code in [
            "22P02", "22001", "23505", "23502", "42703", "42P01", "42501", "P0001", "0A000", "21000", "08P01",
        ] {
            assert!(!is_transient(&SqlState::from_code(code)), "{code}");
        }
    }
}
