//! From a rule as it is written to a rule that is used, with what is wrong with it.

use std::collections::BTreeSet;

use crate::config::database::RuleConfig;

use super::{Column, Content, Pattern, Rule, RuleError, Target};

/// Compiles one rule.
pub(super) fn compile(config: &RuleConfig) -> Result<Rule, RuleError> {
    let fault = |key: &'static str, reason: String| RuleError { rule: config.pattern.clone(), key, reason };
    let pattern = Pattern::compile(&config.pattern).map_err(|reason| fault("pattern", reason))?;
    let target = match &config.table {
        Some(table) => table_target(config, table, &pattern).map_err(|(key, reason)| fault(key, reason))?,
        None => default_target(config).map_err(|key| fault(key, "needs a table".to_owned()))?,
    };
    Ok(Rule {
        pattern,
        mode: config.mode,
        target,
        ttl: config.ttl.map(|span| span.0),
        negative_ttl: config.negative_ttl.map(|span| span.0),
        on_expire: config.on_expire,
    })
}

fn default_target(config: &RuleConfig) -> Result<Target, &'static str> {
    let given = [
        ("key", !config.key.is_empty()),
        ("columns", !config.columns.is_empty()),
        ("value", config.value.is_some()),
        ("json", config.json.is_some()),
        ("version", config.version.is_some()),
    ];
    given.iter().find(|(_, is_given)| *is_given).map_or(Ok(Target::Default), |(key, _)| Err(*key))
}

fn table_target(
    config: &RuleConfig,
    table: &str,
    pattern: &Pattern,
) -> Result<Target, (&'static str, String)> {
    if table.split('.').any(str::is_empty) || table.split('.').count() > 2 || table.contains('\0') {
        return Err(("table", "must be NAME or SCHEMA.NAME".to_owned()));
    }
    let mut key = Vec::new();
    for name in pattern.names() {
        let Some(column) = config.key.get(name) else {
            return Err(("key", format!("no column for '{{{name}}}'")));
        };
        key.push(column.clone());
    }
    if key.is_empty() {
        return Err(("pattern", "captures nothing, so it cannot tell rows apart".to_owned()));
    }
    if let Some(name) = config.key.keys().find(|name| !pattern.names().any(|known| known == name.as_str())) {
        return Err(("key", format!("'{name}' is not captured by the pattern")));
    }
    let content = match (&config.columns, &config.value, &config.json) {
        (columns, None, None) if !columns.is_empty() => {
            let column = |(field, column): (&String, &String)| Column {
                field: field.as_bytes().into(),
                column: column.clone(),
            };
            Content::Columns(columns.iter().map(column).collect())
        }
        (columns, Some(value), None) if columns.is_empty() => Content::Value(value.clone()),
        (columns, None, Some(json)) if columns.is_empty() => Content::Json(json.clone()),
        (columns, None, None) if columns.is_empty() => {
            return Err(("columns", "one of columns, value and json is needed".to_owned()));
        }
        _ => return Err(("columns", "only one of columns, value and json can be given".to_owned())),
    };
    let mut seen = BTreeSet::new();
    let parts = [("key", key.iter().map(String::as_str).collect()), ("columns", content.columns())];
    let version = config.version.iter().map(String::as_str).collect();
    for (name, columns) in parts.into_iter().chain([("version", version)]) {
        for column in columns {
            if column.is_empty() || column.contains('\0') {
                return Err((name, "a column's name must not be empty".to_owned()));
            }
            if !seen.insert(column) {
                return Err((name, format!("the column '{column}' is used twice")));
            }
        }
    }
    Ok(Target::Table { table: table.to_owned(), key: key.into(), content, version: config.version.clone() })
}
