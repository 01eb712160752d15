//! Rows: written by one prepared statement a group, executed for each row within one transaction (in an embedded
//! database nothing is won by sending arrays), and read by key.

use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params_from_iter};

use super::schema::{Affinity, Column, Table};
use super::{failure, measured};
use crate::tiers::database::grouping::{Group, Kind, Row, captures, document, group, identity, members};
use crate::tiers::database::rules::{Content, Rule, Rules, Target};
use crate::tiers::database::statistics::Statistics;
use crate::tiers::database::store::{Batch, Failure, Loaded, RowState};

const TOMBSTONE: &str = "SELECT version FROM anteroom_versions WHERE tbl = ?1 AND key = ?2";
const MOVE_ON: &str = "INSERT INTO anteroom_versions AS a (tbl, key, version) VALUES (?1, ?2, ?3) \
    ON CONFLICT (tbl, key) DO UPDATE SET version = excluded.version WHERE a.version < excluded.version";

/// Commits a batch.
pub(super) fn apply(
    connection: &mut Connection,
    statistics: &Statistics,
    rules: &Rules,
    tables: &[Table],
    batch: &Batch,
) -> Result<(), Failure> {
    let groups = group(rules, batch)?;
    let transaction = begin(connection)?;
    for group in &groups {
        write(&transaction, statistics, &tables[group.rule], group)?;
    }
    measured(statistics, "COMMIT", || transaction.commit())
}

/// Commits what of a batch is not refused; returns the places of what is, and why.
pub(super) fn apply_apart(
    connection: &mut Connection,
    statistics: &Statistics,
    rules: &Rules,
    tables: &[Table],
    batch: &Batch,
) -> Result<Vec<(usize, String)>, Failure> {
    let mut transaction = begin(connection)?;
    let mut refused = Vec::new();
    for (place, change) in batch.changes.iter().enumerate() {
        let single = Batch::of_one(vec![change.clone()]);
        let savepoint = transaction.savepoint().map_err(|error| failure(&error))?;
        let written = group(rules, &single).and_then(|groups| {
            groups.iter().try_for_each(|group| write(&savepoint, statistics, &tables[group.rule], group))
        });
        match written {
            Ok(()) => savepoint.commit().map_err(|error| failure(&error))?,
            // Dropped, the savepoint takes back what was done since.
            Err(Failure::Refused(reason)) => refused.push((place, reason)),
            Err(failure) => return Err(failure),
        }
    }
    measured(statistics, "COMMIT", || transaction.commit())?;
    Ok(refused)
}

/// Immediate: a transaction that reads first and writes then can fail for good when another process writes.
fn begin(connection: &mut Connection) -> Result<Transaction<'_>, Failure> {
    connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| failure(&error))
}

fn write(
    transaction: &Connection,
    statistics: &Statistics,
    table: &Table,
    group: &Group<'_>,
) -> Result<(), Failure> {
    let text = statement(table, &group.kind);
    let mut rows = Vec::with_capacity(group.rows.len());
    for row in &group.rows {
        rows.push((row, parameters(table, &group.kind, row)?));
    }
    measured(statistics, &text, || {
        let mut statement = transaction.prepare_cached(&text)?;
        let mut tombstone = transaction.prepare_cached(TOMBSTONE)?;
        let mut move_on = transaction.prepare_cached(MOVE_ON)?;
        for (row, parameters) in &rows {
            let is_delete = group.kind == Kind::Delete;
            if is_delete || table.version.is_none() {
                let changed = move_on.execute((&table.name, &row.identity, row.version))?;
                if changed == 0 && table.version.is_none() {
                    continue;
                }
            } else {
                let deleted: Option<i64> =
                    tombstone.query_row((&table.name, &row.identity), |row| row.get(0)).optional()?;
                if deleted.is_some_and(|deleted| deleted >= row.version) {
                    continue;
                }
            }
            if statement.execute(params_from_iter(parameters))? == 0 && is_merge(&group.kind) {
                insert_missing(transaction, table, &group.kind, parameters)?;
            }
        }
        Ok(())
    })
}

fn is_merge(kind: &Kind) -> bool {
    matches!(kind, Kind::Columns { whole: false, .. } | Kind::Document { whole: false })
}

fn columns<'a>(table: &'a Table, kind: &Kind) -> Vec<&'a Column> {
    match kind {
        Kind::Delete => Vec::new(),
        Kind::Columns { columns, .. } => columns.iter().map(|index| &table.columns[*index]).collect(),
        _ => table.columns.iter().collect(),
    }
}

/// Parameters are the key columns, the version, then the values.
fn statement(table: &Table, kind: &Kind) -> String {
    let key = filter(table);
    let first = table.key.len() + 2;
    let version = table.key.len() + 1;
    let older = |column: &String| format!(" AND ({column} IS NULL OR {column} < ?{version})");
    let older = table.version.as_ref().map_or_else(|| format!(" AND ?{version} IS NOT NULL"), older);
    if *kind == Kind::Delete {
        return format!("DELETE FROM {} WHERE {key}{older}", table.quoted);
    }
    if !is_merge(kind) {
        return insert(table, kind, true);
    }
    let mut set: Vec<String> = match kind {
        Kind::Document { .. } => {
            let column = &table.columns[0].name;
            vec![format!("{column} = json_patch(coalesce({column}, '{{}}'), ?{first})")]
        }
        _ => {
            let pair = |(index, column): (usize, &&Column)| format!("{} = ?{}", column.name, first + index);
            columns(table, kind).iter().enumerate().map(pair).collect()
        }
    };
    set.extend(table.version.iter().map(|column| format!("{column} = ?{version}")));
    if set.is_empty() {
        set.push(format!("{} = ?1", table.key[0].name));
    }
    format!("UPDATE {} SET {} WHERE {key}{older}", table.quoted, set.join(", "))
}

fn filter(table: &Table) -> String {
    let pair = |(index, column): (usize, &Column)| format!("{} = ?{}", column.name, index + 1);
    table.key.iter().enumerate().map(pair).collect::<Vec<_>>().join(" AND ")
}

/// An insertion; if the row is there, it is overwritten unless it is newer, or left as it is.
fn insert(table: &Table, kind: &Kind, overwrites: bool) -> String {
    let version = table.key.len() + 1;
    let columns = columns(table, kind);
    let mut names: Vec<&str> = table.key.iter().map(|column| column.name.as_str()).collect();
    let key = names.join(", ");
    let mut places: Vec<String> = (1..=table.key.len()).map(|number| format!("?{number}")).collect();
    names.extend(table.version.as_deref());
    places.extend(table.version.iter().map(|_| format!("?{version}")));
    let mut set: Vec<String> = Vec::new();
    for (index, column) in columns.iter().enumerate() {
        names.push(&column.name);
        let place = format!("?{}", version + 1 + index);
        // A merge of nothing and the patch: what it removes is not there.
        places.push(if is_merge(kind) && matches!(kind, Kind::Document { .. }) {
            format!("json_patch('{{}}', {place})")
        } else {
            place
        });
        set.push(format!("{0} = excluded.{0}", column.name));
    }
    set.extend(table.version.iter().map(|column| format!("{column} = excluded.{column}")));
    let conflict = if overwrites {
        let older = |column: &String| format!(" WHERE t.{column} IS NULL OR t.{column} < excluded.{column}");
        format!("DO UPDATE SET {}{}", set.join(", "), table.version.as_ref().map_or_else(String::new, older))
    } else {
        "DO NOTHING".to_owned()
    };
    // `WHERE` keeps the parameter of the version in use where there is no such column.
    format!(
        "INSERT INTO {} AS t ({}) SELECT {} WHERE ?{version} IS NOT NULL ON CONFLICT ({key}) {conflict}",
        table.quoted,
        names.join(", "),
        places.join(", ")
    )
}

fn insert_missing(
    transaction: &Connection,
    table: &Table,
    kind: &Kind,
    parameters: &[Value],
) -> rusqlite::Result<()> {
    let is_there = format!("SELECT 1 FROM {} WHERE {}", table.quoted, filter(table));
    // It may be there, and newer; and inserting would fail for columns that must not be NULL.
    let found =
        transaction.prepare_cached(&is_there)?.exists(params_from_iter(&parameters[..table.key.len()]))?;
    if !found {
        transaction.prepare_cached(&insert(table, kind, false))?.execute(params_from_iter(parameters))?;
    }
    Ok(())
}

fn parameters(table: &Table, kind: &Kind, row: &Row<'_>) -> Result<Vec<Value>, Failure> {
    let mut values = Vec::new();
    for (column, capture) in table.key.iter().zip(&row.captures) {
        let value = key_value(column, capture);
        values.push(
            value.ok_or_else(|| Failure::Refused("the key is not as its column is written".to_owned()))?,
        );
    }
    values.push(Value::Integer(row.version));
    match (kind, row.state) {
        (Kind::Delete, _) => {}
        (Kind::Columns { columns, .. }, _) => {
            for index in columns {
                values.push(
                    row.field(*index)
                        .map_or(Ok(Value::Null), |bytes| value(&table.columns[*index], bytes))?,
                );
            }
        }
        (Kind::Document { whole }, state) => {
            let (set, removed) = document(state)?;
            values.push(Value::Text(if *whole { set } else { patch(&set, &removed)? }));
        }
        (_, RowState::Value(bytes)) => values.push(value(&table.columns[0], bytes)?),
        (_, RowState::Dump { kind, payload, expires_ms }) => values.extend([
            Value::Text(kind.clone().into_owned()),
            Value::Blob(payload.clone()),
            expires_ms.map_or(Value::Null, |ms| Value::Integer(ms as i64)),
        ]),
        _ => return Err(Failure::Refused("the value's type does not fit its rule".to_owned())),
    }
    Ok(values)
}

/// A merge patch: what is set, and `null` for what is removed.
fn patch(set: &str, removed: &[String]) -> Result<String, Failure> {
    let mut object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(set).map_err(|error| Failure::Refused(error.to_string()))?;
    object.extend(removed.iter().map(|name| (name.clone(), serde_json::Value::Null)));
    Ok(serde_json::Value::Object(object).to_string())
}

fn value(column: &Column, bytes: &[u8]) -> Result<Value, Failure> {
    if column.affinity == Affinity::Blob {
        return Ok(Value::Blob(bytes.to_vec()));
    }
    let refused = |what| Failure::Refused(format!("a value for the column {} is no {what}", column.name));
    let text = std::str::from_utf8(bytes).map_err(|_| refused("UTF-8"))?;
    match column.affinity {
        Affinity::Integer => text.parse().map(Value::Integer).map_err(|_| refused("integer")),
        Affinity::Real => text.parse().map(Value::Real).map_err(|_| refused("number")),
        _ => Ok(Value::Text(text.to_owned())),
    }
}

/// A key column's value, if the capture is as the column is written.
fn key_value(column: &Column, capture: &[u8]) -> Option<Value> {
    let value = value(column, capture).ok()?;
    match &value {
        Value::Integer(number) => (number.to_string().as_bytes() == capture).then_some(value),
        _ => Some(value),
    }
}

/// The row of a key.
pub(super) fn load(
    connection: &Connection,
    statistics: &Statistics,
    rules: &Rules,
    tables: &[Table],
    rule: usize,
    key: &[u8],
) -> Result<Loaded, Failure> {
    let (Some(table), Some(rule)) = (tables.get(rule), rules.get(rule)) else {
        return Err(Failure::Refused("there is no such rule".to_owned()));
    };
    let Some(captures) = captures(rule, key) else { return Ok(Loaded::Absent) };
    let values: Option<Vec<Value>> =
        table.key.iter().zip(&captures).map(|(column, capture)| key_value(column, capture)).collect();
    let Some(values) = values else { return Ok(Loaded::Absent) };
    let columns: Vec<&str> = table.columns.iter().map(|column| column.name.as_str()).collect();
    let version = table.version.as_deref().unwrap_or("0");
    let text = format!(
        "SELECT {}, coalesce({version}, 0) FROM {} WHERE {}",
        columns.join(", "),
        table.quoted,
        filter(table)
    );
    let row = measured(statistics, &text, || {
        let mut statement = connection.prepare_cached(&text)?;
        let read = |row: &rusqlite::Row<'_>| {
            let cells = (0..columns.len()).map(|index| row.get_ref(index).map(bytes_of));
            Ok((cells.collect::<rusqlite::Result<Vec<_>>>()?, row.get(columns.len())?))
        };
        statement.query_row(params_from_iter(&values), read).optional()
    })?;
    let Some((cells, mut version)) = row else { return Ok(Loaded::Absent) };
    if table.version.is_none() {
        let found: Option<i64> = measured(statistics, TOMBSTONE, || {
            let mut statement = connection.prepare_cached(TOMBSTONE)?;
            statement.query_row((&table.name, identity(&captures)), |row| row.get(0)).optional()
        })?;
        version = found.unwrap_or(0);
    }
    loaded(rule, cells, version)
}

fn bytes_of(value: ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(bytes.to_vec()),
    }
}

fn loaded(rule: &Rule, mut cells: Vec<Option<Vec<u8>>>, version: i64) -> Result<Loaded, Failure> {
    let state = match &rule.target {
        Target::Default => {
            let text = |cell: Option<Vec<u8>>| cell.and_then(|bytes| String::from_utf8(bytes).ok());
            let expires_ms = text(cells[2].take()).and_then(|ms| ms.parse().ok());
            let kind = text(cells[0].take()).unwrap_or_default().into();
            RowState::Dump { kind, payload: cells[1].take().unwrap_or_default(), expires_ms }
        }
        Target::Table { content: Content::Columns(_), .. } => {
            let field = |(index, cell): (usize, Option<Vec<u8>>)| cell.map(|value| (index, Some(value)));
            RowState::Fields {
                fields: cells.into_iter().enumerate().filter_map(field).collect(),
                whole: true,
            }
        }
        Target::Table { content, .. } => match (content, cells[0].take()) {
            (_, None) => return Ok(Loaded::Absent),
            (Content::Json(_), Some(text)) => members(&String::from_utf8_lossy(&text))?,
            (_, Some(value)) => RowState::Value(value),
        },
    };
    Ok(Loaded::Row(state, version))
}

/// The highest version anywhere.
pub(super) fn highest_version(
    connection: &Connection,
    statistics: &Statistics,
    tables: &[Table],
) -> Result<i64, Failure> {
    let mut sources = vec![
        "SELECT max(version) FROM anteroom_versions".to_owned(),
        "SELECT max(version) FROM anteroom_dead_letter".to_owned(),
    ];
    for table in tables {
        sources
            .extend(table.version.iter().map(|column| format!("SELECT max({column}) FROM {}", table.quoted)));
    }
    let text =
        format!("SELECT coalesce(max(v), 0) FROM (SELECT 0 AS v UNION ALL {})", sources.join(" UNION ALL "));
    measured(statistics, &text, || connection.query_row(&text, [], |row| row.get(0)))
}

/// A named query's rows as JSON.
pub(super) fn query(
    connection: &Connection,
    statistics: &Statistics,
    sql: &str,
    params: &[Vec<u8>],
) -> Result<Vec<u8>, Failure> {
    let Ok(params) = params.iter().map(|value| std::str::from_utf8(value)).collect::<Result<Vec<_>, _>>()
    else {
        return Err(Failure::Refused("a parameter is no UTF-8".to_owned()));
    };
    // SQLite infers no types: what is written as an integer is one.
    let param = |text: &str| match text.parse::<i64>() {
        Ok(number) if number.to_string() == text => Value::Integer(number),
        _ => Value::Text(text.to_owned()),
    };
    let rows = measured(statistics, sql, || {
        let mut statement = connection.prepare_cached(sql)?;
        let names: Vec<String> = statement.column_names().map(str::to_owned).collect();
        let mut rows = statement.query(params_from_iter(params.iter().map(|text| param(text))))?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            let mut object = serde_json::Map::new();
            for (index, name) in names.iter().enumerate() {
                object.insert(name.clone(), json(row.get_ref(index)?));
            }
            list.push(serde_json::Value::Object(object));
        }
        Ok(list)
    })?;
    Ok(serde_json::Value::Array(rows).to_string().into_bytes())
}

fn json(value: ValueRef<'_>) -> serde_json::Value {
    match value {
        ValueRef::Null => serde_json::Value::Null,
        ValueRef::Integer(number) => number.into(),
        ValueRef::Real(number) => number.into(),
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => String::from_utf8_lossy(bytes).into_owned().into(),
    }
}
