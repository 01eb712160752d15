//! The tables of our own, and the rules' tables as they are in the file.

use std::collections::BTreeSet;

use rusqlite::Connection;

use super::failure;
use crate::tiers::database::rules::{DEFAULT_TABLE, Rule, RuleColumns, Rules, Target};
use crate::tiers::database::store::SetupError;

const OWN: [(&str, &str); 2] = [
    (
        "anteroom_versions",
        "CREATE TABLE IF NOT EXISTS anteroom_versions (tbl TEXT NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, \
         PRIMARY KEY (tbl, key)) WITHOUT ROWID",
    ),
    (
        "anteroom_dead_letter",
        "CREATE TABLE IF NOT EXISTS anteroom_dead_letter (id INTEGER PRIMARY KEY AUTOINCREMENT, key BLOB NOT NULL, \
         rule TEXT NOT NULL, version INTEGER NOT NULL, payload TEXT NOT NULL, error TEXT NOT NULL, at INTEGER NOT NULL, \
         UNIQUE (rule, key, version))",
    ),
];
const ENTRIES: &str = "CREATE TABLE IF NOT EXISTS anteroom_entries (key BLOB PRIMARY KEY, kind TEXT NOT NULL, \
    value BLOB NOT NULL, expires_at INTEGER, version INTEGER NOT NULL)";

/// How a column takes text. SQLite itself takes anything anywhere; we refuse what does not fit, as Postgres does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    Integer,
    Real,
    Text,
    Blob,
}

/// A column.
#[derive(Debug)]
pub(super) struct Column {
    /// Quoted.
    pub(super) name: String,
    pub(super) affinity: Affinity,
}

/// A rule's table.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Quoted.
    pub(super) quoted: String,
    pub(super) key: Vec<Column>,
    pub(super) columns: Vec<Column>,
    /// Quoted.
    pub(super) version: Option<String>,
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

struct Found {
    name: String,
    kind: String,
    is_required: bool,
    in_primary_key: bool,
}

/// Creates what is missing of our own, and checks the rest.
pub(super) fn check(
    connection: &Connection,
    rules: &Rules,
    auto_create: bool,
) -> Result<Vec<Table>, SetupError> {
    let create = |(name, statement): (&str, &str)| {
        let trouble =
            |error| SetupError::Table { table: name.to_owned(), reason: failure(&error).to_string() };
        connection.execute_batch(statement).map_err(trouble)
    };
    OWN.into_iter().try_for_each(create)?;
    if auto_create && rules.all().iter().any(|rule| rule.target == Target::Default) {
        create((DEFAULT_TABLE, ENTRIES))?;
    }
    for (name, query) in rules.queries() {
        let trouble = |error| SetupError::Query { query: name.clone(), reason: failure(&error).to_string() };
        connection.prepare(&query.sql).map_err(trouble)?;
    }
    rules.all().iter().map(|rule| table(connection, rule)).collect()
}

fn table(connection: &Connection, rule: &Rule) -> Result<Table, SetupError> {
    let fault = |reason: String| SetupError::Rule { rule: rule.pattern.text().to_owned(), reason };
    let name = rule.table();
    if name.contains('.') {
        return Err(fault("SQLite has no schemas".to_owned()));
    }
    let trouble = |error: rusqlite::Error| fault(failure(&error).to_string());
    let found = columns(connection, name).map_err(trouble)?;
    if found.is_empty() {
        return Err(fault(rule.missing_table()));
    }
    let RuleColumns { key, columns, version } = rule.columns();
    let column = |wanted: &str| {
        let found = found.iter().find(|found| found.name.eq_ignore_ascii_case(wanted));
        let found = found.ok_or_else(|| fault(format!("the table '{name}' has no column '{wanted}'")))?;
        Ok(Column { name: quote(&found.name), affinity: affinity(&found.kind) })
    };
    let key_columns = key.iter().map(|wanted| column(wanted)).collect::<Result<Vec<_>, _>>()?;
    let value_columns = columns.iter().map(|wanted| column(wanted)).collect::<Result<Vec<_>, _>>()?;
    if let Some(position) = key_columns.iter().position(|column| column.affinity == Affinity::Real) {
        return Err(fault(format!("the column '{}' is a number with a fraction, and no key", key[position])));
    }
    if let Some(wanted) = version
        && column(wanted)?.affinity != Affinity::Integer
    {
        return Err(fault(format!("the column '{wanted}' is not of type INTEGER")));
    }
    if rule.writes() {
        let wanted: BTreeSet<String> = key.iter().map(|name| name.to_ascii_lowercase()).collect();
        let primary: BTreeSet<String> = found
            .iter()
            .filter(|found| found.in_primary_key)
            .map(|found| found.name.to_ascii_lowercase())
            .collect();
        if primary != wanted && !unique_keys(connection, name).map_err(trouble)?.contains(&wanted) {
            let list = key.join(", ");
            return Err(fault(format!("the table '{name}' has no unique key of exactly ({list})")));
        }
        let is_mapped = |name: &str| {
            key.iter().chain(&columns).chain(&version).any(|mapped| mapped.eq_ignore_ascii_case(name))
        };
        if let Some(required) = found.iter().find(|found| found.is_required && !is_mapped(&found.name)) {
            let name = &required.name;
            return Err(fault(format!("the column '{name}' is NOT NULL without a default, and not mapped")));
        }
    }
    Ok(Table {
        name: name.to_owned(),
        quoted: quote(name),
        key: key_columns,
        columns: value_columns,
        version: version.map(quote),
    })
}

/// By SQLite's rules for declared types, but for dates and JSON, which are text.
fn affinity(kind: &str) -> Affinity {
    let kind = kind.to_ascii_uppercase();
    let has = |part| kind.contains(part);
    if has("INT") {
        Affinity::Integer
    } else if kind.is_empty() || has("BLOB") || has("BYTEA") {
        Affinity::Blob
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Affinity::Real
    } else {
        Affinity::Text
    }
}

fn columns(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Found>> {
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\" AND dflt_value IS NULL, pk > 0 FROM pragma_table_info(?1)",
    )?;
    let found = |row: &rusqlite::Row<'_>| {
        Ok(Found {
            name: row.get(0)?,
            kind: row.get(1)?,
            is_required: row.get(2)?,
            in_primary_key: row.get(3)?,
        })
    };
    statement.query_map([table], found)?.collect()
}

fn unique_keys(connection: &Connection, table: &str) -> rusqlite::Result<Vec<BTreeSet<String>>> {
    let mut indexes =
        connection.prepare("SELECT name FROM pragma_index_list(?1) WHERE \"unique\" AND NOT partial")?;
    let mut columns = connection.prepare("SELECT coalesce(lower(name), '') FROM pragma_index_info(?1)")?;
    let names = indexes.query_map([table], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
    names.iter().map(|index| columns.query_map([index], |row| row.get(0))?.collect()).collect()
}
