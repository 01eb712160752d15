//! A group's rows as the arrays that its statement unnests.

use tokio_postgres::types::Type;

use super::schema::{Column, Table};
use super::session::Parameter;
use super::statements;
use crate::tiers::database::grouping::{Group, Kind, Row, document};
use crate::tiers::database::store::{Failure, RowState};

/// One parameter.
#[derive(Debug)]
enum Value<'a> {
    Texts(Vec<Option<&'a str>>),
    Made(Vec<Option<String>>),
    Bytes(Vec<Option<&'a [u8]>>),
    Numbers(Vec<i64>),
    Name(&'a str),
}

/// A group's parameters.
#[derive(Debug)]
pub(super) struct Parameters<'a>(Vec<Value<'a>>);

impl<'a> Parameters<'a> {
    /// Those of a group.
    ///
    /// # Errors
    /// `Refused`, for bytes that are no text in a column of text, and keys that are not as the database writes them.
    pub(super) fn of<'b>(table: &'a Table, group: &'a Group<'b>) -> Result<Self, Failure>
    where
        'b: 'a,
    {
        let rows = &group.rows;
        let mut values = Vec::new();
        for (index, column) in table.key.iter().enumerate() {
            for row in rows {
                check_key(column, row.captures[index])?;
            }
            values.push(array(column, rows, |row| Some(row.captures[index]))?);
        }
        values.push(Value::Numbers(rows.iter().map(|row| row.version).collect()));
        values.push(Value::Bytes(rows.iter().map(|row| Some(&row.identity[..])).collect()));
        values.push(Value::Name(&table.name));
        match &group.kind {
            Kind::Delete => {}
            Kind::Columns { columns, .. } => {
                for (index, column) in columns.iter().zip(statements::columns(table, &group.kind)) {
                    values.push(array(column, rows, |row| row.field(*index))?);
                }
            }
            Kind::Value => {
                let value = |row: &'a Row<'b>| match row.state {
                    RowState::Value(value) => Some(&value[..]),
                    _ => None,
                };
                values.push(array(&table.columns[0], rows, value)?);
            }
            Kind::Document { whole } => {
                let (mut set, mut removed) = (Vec::new(), Vec::new());
                for row in rows {
                    let (object, names) = document(row.state)?;
                    set.push(Some(object));
                    removed.push(Some(serde_json::Value::from(names).to_string()));
                }
                values.push(Value::Made(set));
                if !whole {
                    values.push(Value::Made(removed));
                }
            }
            Kind::Dump => dumps(rows, &mut values),
        }
        Ok(Self(values))
    }

    /// With their types.
    pub(super) fn list(&self) -> Vec<Parameter<'_>> {
        fn parameter<'b>(value: &'b Value<'_>) -> Parameter<'b> {
            match value {
                Value::Texts(list) => (list, Type::TEXT_ARRAY),
                Value::Made(list) => (list, Type::TEXT_ARRAY),
                Value::Bytes(list) => (list, Type::BYTEA_ARRAY),
                Value::Numbers(list) => (list, Type::INT8_ARRAY),
                Value::Name(name) => (name, Type::TEXT),
            }
        }
        self.0.iter().map(parameter).collect()
    }
}

fn dumps<'a>(rows: &'a [Row<'_>], values: &mut Vec<Value<'a>>) {
    let (mut kinds, mut payloads, mut deadlines) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        if let RowState::Dump { kind, payload, expires_ms } = row.state {
            kinds.push(Some(&kind[..]));
            payloads.push(Some(&payload[..]));
            deadlines.push(expires_ms.map(|ms| ms.to_string()));
        }
    }
    values.extend([Value::Texts(kinds), Value::Bytes(payloads), Value::Made(deadlines)]);
}

fn array<'a, 'b: 'a>(
    column: &Column,
    rows: &'a [Row<'b>],
    value: impl Fn(&'a Row<'b>) -> Option<&'a [u8]>,
) -> Result<Value<'a>, Failure> {
    if column.is_bytes() {
        return Ok(Value::Bytes(rows.iter().map(value).collect()));
    }
    let text = |row| match value(row).map(std::str::from_utf8) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text)),
        Some(Err(_)) => {
            Err(Failure::Refused(format!("bytes that are no UTF-8 for the column {}", column.name)))
        }
    };
    rows.iter().map(text).collect::<Result<_, _>>().map(Value::Texts)
}

/// Only the text that the database itself would write of a value is a key. Else `user:7` and `user:07` would be two keys
/// of one row, and a change through one would leave the other in the cache.
fn check_key(column: &Column, capture: &[u8]) -> Result<(), Failure> {
    if is_key(column, capture) {
        return Ok(());
    }
    Err(Failure::Refused(format!("the key is not as a {} is written", column.base)))
}

/// See [`check_key`].
pub(super) fn is_key(column: &Column, capture: &[u8]) -> bool {
    if column.is_bytes() {
        return true;
    }
    let Ok(text) = std::str::from_utf8(capture) else { return false };
    match column.base.as_str() {
        "int2" => text.parse::<i16>().is_ok_and(|number| number.to_string() == text),
        "int4" => text.parse::<i32>().is_ok_and(|number| number.to_string() == text),
        "int8" => text.parse::<i64>().is_ok_and(|number| number.to_string() == text),
        "uuid" => {
            let is_right = |(index, byte): (usize, u8)| match index {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
            };
            text.len() == 36 && text.bytes().enumerate().all(is_right)
        }
        _ => !text.contains('\0'),
    }
}
