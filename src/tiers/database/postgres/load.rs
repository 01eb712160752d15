//! Reading: rows by key, the highest version, named queries.

use tokio_postgres::Row;
use tokio_postgres::types::{Format, IsNull, ToSql, Type, private::BytesMut};

use super::Postgres;
use super::parameters::is_key;
use super::schema::Table;
use super::session::{Parameter, read};
use crate::tiers::database::grouping::{captures, identity, members};
use crate::tiers::database::rules::{Content, Rule, Target};
use crate::tiers::database::store::{Failure, Loaded, RowState};

impl Postgres {
    pub(super) async fn load_row(&self, rule: usize, key: &[u8]) -> Result<Loaded, Failure> {
        let tables = self.tables()?;
        let (Some(table), Some(rule)) = (tables.get(rule), self.rules.get(rule)) else {
            return Err(Failure::Refused("there is no such rule".to_owned()));
        };
        let Some(captures) = captures(rule, key) else { return Ok(Loaded::Absent) };
        if !table.key.iter().zip(&captures).all(|(column, capture)| is_key(column, capture)) {
            return Ok(Loaded::Absent);
        }
        let identity = identity(&captures);
        let texts: Vec<&str> =
            captures.iter().map(|capture| std::str::from_utf8(capture).unwrap_or_default()).collect();
        let mut parameters: Vec<Parameter<'_>> = Vec::new();
        for ((column, capture), text) in table.key.iter().zip(&captures).zip(&texts) {
            parameters.push(if column.is_bytes() { (capture, Type::BYTEA) } else { (text, Type::TEXT) });
        }
        if table.version.is_none() {
            parameters.push((&table.name, Type::TEXT));
            parameters.push((&identity, Type::BYTEA));
        }
        let rows = read(&self.connections, &self.statistics, &statement(table), &parameters).await?;
        rows.first().map_or(Ok(Loaded::Absent), |row| loaded(rule, table, row))
    }

    pub(super) async fn find_highest_version(&self) -> Result<i64, Failure> {
        let mut sources = vec![
            "(SELECT max(version) FROM anteroom_versions)".to_owned(),
            "(SELECT max(version) FROM anteroom_dead_letter)".to_owned(),
        ];
        for table in self.tables()?.iter() {
            let of = |column| format!("(SELECT max({column}) FROM {})", table.quoted);
            sources.extend(table.version.as_ref().map(of));
        }
        sources.dedup();
        let statement = format!("SELECT coalesce(greatest({}), 0)::bigint", sources.join(", "));
        let rows = read(&self.connections, &self.statistics, &statement, &[]).await?;
        rows.first().map_or(Ok(0), |row| column(row, 0))
    }

    pub(super) async fn run_query(&self, name: &str, values: &[&[u8]]) -> Result<Vec<u8>, Failure> {
        let Some(query) = self.rules.queries().get(name) else {
            return Err(Failure::Refused("there is no query of this name".to_owned()));
        };
        let text = |value: &&[u8]| match std::str::from_utf8(value) {
            Ok(text) => Ok(Text(text.to_owned())),
            Err(_) => Err(Failure::Refused("a parameter is no UTF-8".to_owned())),
        };
        let values = values.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let parameters: Vec<Parameter<'_>> =
            values.iter().map(|value| (value as &(dyn ToSql + Sync), Type::UNKNOWN)).collect();
        let rows = read(&self.connections, &self.statistics, &query_text(&query.sql), &parameters).await?;
        let json: String = rows.first().map_or_else(|| Ok("[]".to_owned()), |row| column(row, 0))?;
        Ok(json.into_bytes())
    }
}

/// A named query as it is sent: its rows as one JSON array.
pub(super) fn query_text(sql: &str) -> String {
    let sql = sql.trim().trim_end_matches(';');
    // On a line of its own, as the query may end with a comment.
    format!("SELECT coalesce(json_agg(t), '[]')::text FROM (\n{sql}\n) AS t")
}

fn statement(table: &Table) -> String {
    let mut columns: Vec<String> = Vec::new();
    for column in &table.columns {
        let cast = if column.is_bytes() { "" } else { "::text" };
        columns.push(format!("t.{}{cast}", column.name));
    }
    let key = table.key.len();
    columns.push(match &table.version {
        Some(column) => format!("coalesce(t.{column}, 0)"),
        None => format!(
            "coalesce((SELECT a.version FROM anteroom_versions AS a WHERE a.tbl = ${} AND a.key = ${}), 0)",
            key + 1,
            key + 2
        ),
    });
    let mut filter = Vec::new();
    for (index, column) in table.key.iter().enumerate() {
        filter.push(format!("t.{} = ${}::{}", column.name, index + 1, column.kind));
    }
    format!("SELECT {} FROM {} AS t WHERE {}", columns.join(", "), table.quoted, filter.join(" AND "))
}

fn loaded(rule: &Rule, table: &Table, row: &Row) -> Result<Loaded, Failure> {
    let version: i64 = column(row, table.columns.len())?;
    let cell = |index: usize| -> Result<Option<Vec<u8>>, Failure> {
        if table.columns[index].is_bytes() {
            return column(row, index);
        }
        Ok(column::<Option<String>>(row, index)?.map(String::into_bytes))
    };
    let state = match &rule.target {
        Target::Default => {
            let kind = column::<String>(row, 0)?.into();
            let expires: Option<String> = column(row, 2)?;
            let expires_ms = expires.and_then(|ms| ms.parse().ok());
            RowState::Dump { kind, payload: column(row, 1)?, expires_ms }
        }
        Target::Table { content: Content::Value(_), .. } => match cell(0)? {
            Some(value) => RowState::Value(value),
            None => return Ok(Loaded::Absent),
        },
        Target::Table { content: Content::Json(_), .. } => match column::<Option<String>>(row, 0)? {
            Some(text) => members(&text)?,
            None => return Ok(Loaded::Absent),
        },
        Target::Table { content: Content::Columns(columns), .. } => {
            let mut fields = Vec::new();
            for index in 0..columns.len() {
                if let Some(value) = cell(index)? {
                    fields.push((index, Some(value)));
                }
            }
            RowState::Fields { fields, whole: true }
        }
    };
    Ok(Loaded::Row(state, version))
}

/// A column's value; its type is known from the statement's text.
pub(super) fn column<'a, T: tokio_postgres::types::FromSql<'a>>(
    row: &'a Row,
    index: usize,
) -> Result<T, Failure> {
    row.try_get(index).map_err(|error| Failure::Refused(error.to_string()))
}

/// A parameter as text, of whatever type the server takes it for.
#[derive(Debug)]
struct Text(String);

impl ToSql for Text {
    fn to_sql(
        &self,
        _: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        out.extend_from_slice(self.0.as_bytes());
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    fn encode_format(&self, _: &Type) -> Format {
        Format::Text
    }

    tokio_postgres::types::to_sql_checked!();
}
