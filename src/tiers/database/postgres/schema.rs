//! The tables of our own, and the rules' tables as they are in the live schema.

use std::collections::{BTreeMap, BTreeSet};

use deadpool_postgres::Object;
use tokio_postgres::types::Type;

use super::classify::text_of;
use super::connect::Connections;
use crate::tiers::database::rules::{Content, DEFAULT_TABLE, Rule, RuleColumns, Rules, Target};
use crate::tiers::database::store::SetupError;

const VERSIONS: &str = "CREATE TABLE IF NOT EXISTS anteroom_versions (\
    tbl text NOT NULL, key bytea NOT NULL, version bigint NOT NULL, PRIMARY KEY (tbl, key))";
const LETTERS: &str = "CREATE TABLE IF NOT EXISTS anteroom_dead_letter (\
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, key bytea NOT NULL, rule text NOT NULL, version bigint NOT NULL, \
    payload text NOT NULL, error text NOT NULL, at timestamptz NOT NULL DEFAULT now(), UNIQUE (rule, key, version))";
const ENTRIES: &str = "CREATE TABLE IF NOT EXISTS anteroom_entries (\
    key bytea PRIMARY KEY, kind text NOT NULL, value bytea NOT NULL, expires_at bigint, version bigint NOT NULL)";

const COLUMNS: &str = "SELECT a.attname, n.nspname, t.typname, a.attnotnull AND NOT a.atthasdef \
    AND a.attidentity = '' AS is_required, a.attgenerated <> '' AS is_generated, \
    coalesce(b.typname, t.typname) AS base \
    FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid JOIN pg_namespace n ON n.oid = t.typnamespace \
    LEFT JOIN pg_type b ON b.oid = nullif(t.typbasetype, 0) \
    WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped";
const UNIQUE: &str = "SELECT array(SELECT a.attname::text FROM pg_attribute a \
    WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1])) \
    FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique AND i.indisvalid AND i.indimmediate \
    AND i.indpred IS NULL AND i.indexprs IS NULL";

/// A column as statements need it.
#[derive(Debug, Clone)]
pub(super) struct Column {
    /// Quoted.
    pub(super) name: String,
    /// Its type, quoted and with its schema.
    pub(super) kind: String,
    /// The type's name; for a domain, the one under it.
    pub(super) base: String,
}

impl Column {
    /// Whether it takes any bytes.
    pub(super) fn is_bytes(&self) -> bool {
        self.base == "bytea"
    }
}

/// A rule's table.
#[derive(Debug)]
pub(super) struct Table {
    /// As the rule names it.
    pub(super) name: String,
    /// Quoted.
    pub(super) quoted: String,
    pub(super) key: Vec<Column>,
    pub(super) columns: Vec<Column>,
    /// Quoted.
    pub(super) version: Option<String>,
}

/// Quotes an identifier.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a table's name, with its schema if it has one.
pub(super) fn quote_table(name: &str) -> String {
    name.split('.').map(quote).collect::<Vec<_>>().join(".")
}

struct Found {
    column: Column,
    is_required: bool,
    is_generated: bool,
}

/// Creates what is missing of our own, and checks the rest.
pub(super) async fn check(
    connections: &Connections,
    rules: &Rules,
    auto_create: bool,
) -> Result<Vec<Table>, SetupError> {
    let client = connections.get().await.map_err(SetupError::unreachable)?;
    create(&client, "anteroom_versions", VERSIONS).await?;
    create(&client, "anteroom_dead_letter", LETTERS).await?;
    let mut tables = Vec::new();
    for rule in rules.all() {
        if rule.target == Target::Default && auto_create {
            create(&client, DEFAULT_TABLE, ENTRIES).await?;
        }
        tables.push(table(&client, rule).await?);
    }
    for (name, query) in rules.queries() {
        let text = super::load::query_text(&query.sql);
        client
            .prepare(&text)
            .await
            .map_err(|error| SetupError::Query { query: name.clone(), reason: text_of(&error) })?;
    }
    Ok(tables)
}

/// Creates a table unless it is there; several hosts may do so at once, and a user who may not create needs not.
async fn create(client: &Object, name: &str, statement: &str) -> Result<(), SetupError> {
    let error = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(_) => SetupError::Table { table: name.to_owned(), reason: text_of(&error) },
        None => SetupError::Unreachable(text_of(&error)),
    };
    let is_there = "SELECT to_regclass($1) IS NOT NULL";
    for attempt in 0.. {
        let row = client.query_typed(is_there, &[(&name, Type::TEXT)]).await.map_err(error)?;
        if row.first().is_some_and(|row| row.get(0)) {
            break;
        }
        match client.batch_execute(statement).await {
            Ok(()) => break,
            Err(failed) if attempt > 3 => return Err(error(failed)),
            // Another host's creation at the same time shows as a violated key of the catalogue.
            Err(failed)
                if failed.code().is_some_and(|code| matches!(code.code(), "23505" | "42P07" | "42710")) => {}
            Err(failed) => return Err(error(failed)),
        }
    }
    Ok(())
}

async fn table(client: &Object, rule: &Rule) -> Result<Table, SetupError> {
    let fault = |reason: String| SetupError::Rule { rule: rule.pattern.text().to_owned(), reason };
    let name = rule.table();
    let quoted = quote_table(name);
    let trouble = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(_) => fault(text_of(&error)),
        None => SetupError::Unreachable(text_of(&error)),
    };
    let found = columns(client, &quoted).await.map_err(trouble)?;
    if found.is_empty() {
        return Err(fault(rule.missing_table()));
    }
    let RuleColumns { key, columns, version } = rule.columns();
    let column = |wanted: &str| {
        let column =
            found.get(wanted).ok_or_else(|| fault(format!("the table '{name}' has no column '{wanted}'")))?;
        if column.is_generated && rule.writes() {
            return Err(fault(format!("the column '{wanted}' is generated, and cannot be written")));
        }
        Ok(column.column.clone())
    };
    let kind_of = |wanted: &str, column: &Column, allowed: &[&str]| {
        if allowed.contains(&column.base.as_str()) {
            return Ok(());
        }
        let reason = format!("the column '{wanted}' is of type {}, not {}", column.base, allowed.join(", "));
        Err(fault(reason))
    };
    let mut key_columns = Vec::new();
    for wanted in &key {
        let column = column(wanted)?;
        kind_of(wanted, &column, &["int2", "int4", "int8", "text", "varchar", "uuid", "bytea"])?;
        key_columns.push(column);
    }
    let value_columns = columns.iter().map(|wanted| column(wanted)).collect::<Result<Vec<_>, _>>()?;
    if let (Some(Content::Json(wanted)), Some(column)) = (rule.content(), value_columns.first()) {
        kind_of(wanted, column, &["jsonb"])?;
    }
    if rule.target == Target::Default {
        for (wanted, column, kind) in [
            ("key", &key_columns[0], "bytea"),
            ("kind", &value_columns[0], "text"),
            ("value", &value_columns[1], "bytea"),
            ("expires_at", &value_columns[2], "int8"),
        ] {
            kind_of(wanted, column, &[kind])?;
        }
    }
    if let Some(wanted) = version {
        kind_of(wanted, &column(wanted)?, &["int8"])?;
    }
    if rule.writes() {
        let wanted: BTreeSet<&str> = key.iter().copied().collect();
        if !unique_keys(client, &quoted)
            .await
            .map_err(trouble)?
            .iter()
            .any(|key| key.iter().map(String::as_str).collect::<BTreeSet<_>>() == wanted)
        {
            let list = key.join(", ");
            return Err(fault(format!("the table '{name}' has no unique key of exactly ({list})")));
        }
        let is_mapped = |name: &str| key.contains(&name) || columns.contains(&name) || version == Some(name);
        if let Some((required, _)) = found.iter().find(|(name, found)| found.is_required && !is_mapped(name))
        {
            return Err(fault(format!(
                "the column '{required}' is NOT NULL without a default, and not mapped"
            )));
        }
    }
    Ok(Table {
        name: name.to_owned(),
        quoted,
        key: key_columns,
        columns: value_columns,
        version: version.map(quote),
    })
}

async fn columns(client: &Object, table: &str) -> Result<BTreeMap<String, Found>, tokio_postgres::Error> {
    let rows = client.query_typed(COLUMNS, &[(&table, Type::TEXT)]).await?;
    let found = |row: tokio_postgres::Row| {
        let (name, schema, kind): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let kind = format!("{}.{}", quote(&schema), quote(&kind));
        let column = Column { name: quote(&name), kind, base: row.get(5) };
        (name, Found { column, is_required: row.get(3), is_generated: row.get(4) })
    };
    Ok(rows.into_iter().map(found).collect())
}

async fn unique_keys(client: &Object, table: &str) -> Result<Vec<Vec<String>>, tokio_postgres::Error> {
    let rows = client.query_typed(UNIQUE, &[(&table, Type::TEXT)]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
