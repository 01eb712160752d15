//! The texts of the statements that write.
//!
//! All have the same head: `u` is the batch as rows, its parameters the key columns' arrays, then versions, identities
//! and the table's name, then the values' arrays. `w` is what of it is newer than what was deleted (or, for tables
//! without a version column, than what `anteroom_versions` has, which moves on in the same statement).

use std::collections::BTreeMap;

use super::schema::{Column, Table};
use crate::tiers::database::grouping::{Group, Kind};

/// The advisory locks for these groups, as calls in the order of the tables.
pub(super) fn locks<'g, 'r: 'g>(tables: &[Table], groups: impl IntoIterator<Item = &'g Group<'r>>) -> String {
    let mut needed: BTreeMap<&str, bool> = BTreeMap::new();
    for group in groups {
        *needed.entry(&tables[group.rule].name).or_default() |= group.kind == Kind::Delete;
    }
    let call = |(table, is_alone): (&&str, &bool)| {
        let shared = if *is_alone { "" } else { "_shared" };
        format!("pg_advisory_xact_lock{shared}({})", lock_number(table))
    };
    needed.iter().map(call).collect::<Vec<_>>().join(", ")
}

/// FNV-1a: the same on every host, today and later.
fn lock_number(table: &str) -> i64 {
    let fold = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = "anteroom:".bytes().chain(table.bytes()).fold(0xcbf2_9ce4_8422_2325, fold);
    i64::from_ne_bytes(hash.to_ne_bytes())
}

/// The statement of a group.
pub(super) fn write(table: &Table, kind: &Kind) -> String {
    let statement = Statement { table, kind, columns: columns(table, kind) };
    match kind {
        Kind::Delete => statement.delete(),
        Kind::Columns { whole: false, .. } | Kind::Document { whole: false } => statement.merge(),
        _ => statement.upsert(),
    }
}

/// The columns that a group writes.
pub(super) fn columns<'a>(table: &'a Table, kind: &Kind) -> Vec<&'a Column> {
    match kind {
        Kind::Delete => Vec::new(),
        Kind::Columns { columns, .. } => columns.iter().map(|index| &table.columns[*index]).collect(),
        _ => table.columns.iter().collect(),
    }
}

struct Statement<'a> {
    table: &'a Table,
    kind: &'a Kind,
    columns: Vec<&'a Column>,
}

impl Statement<'_> {
    fn head(&self) -> String {
        let (mut arrays, mut names, mut casts) = (Vec::new(), Vec::new(), Vec::new());
        let mut number = 0;
        let mut add = |name: String, array: &str, cast: &str| {
            number += 1;
            arrays.push(format!("${number}::{array}[]"));
            casts.push(format!("x.{name}{cast} AS {name}"));
            names.push(name);
        };
        let array_of = |column: &Column| if column.is_bytes() { "bytea" } else { "text" };
        for (index, column) in self.table.key.iter().enumerate() {
            add(format!("k{index}"), array_of(column), &format!("::{}", column.kind));
        }
        add("v".to_owned(), "bigint", "");
        add("i".to_owned(), "bytea", "");
        // The table's name comes here.
        number = self.name_parameter();
        let mut add = |name: String, array: &str, cast: &str| {
            number += 1;
            arrays.push(format!("${number}::{array}[]"));
            casts.push(format!("x.{name}{cast} AS {name}"));
            names.push(name);
        };
        for (index, column) in self.columns.iter().enumerate() {
            add(format!("c{index}"), array_of(column), &format!("::{}", column.kind));
        }
        if *self.kind == (Kind::Document { whole: false }) {
            add("r".to_owned(), "text", "::jsonb");
        }
        let (arrays, names, casts) = (arrays.join(", "), names.join(", "), casts.join(", "));
        format!("WITH u AS (SELECT {casts} FROM unnest({arrays}) AS x({names}))")
    }

    fn name_parameter(&self) -> usize {
        self.table.key.len() + 3
    }

    /// `v`, which moves `anteroom_versions` on.
    fn versions(&self) -> String {
        format!(
            "v AS (INSERT INTO anteroom_versions AS a (tbl, key, version) SELECT ${}::text, u.i, u.v FROM u \
             ON CONFLICT (tbl, key) DO UPDATE SET version = excluded.version WHERE a.version < excluded.version \
             RETURNING a.key)",
            self.name_parameter()
        )
    }

    fn newer(&self) -> String {
        if self.table.version.is_none() {
            return format!("{}, w AS (SELECT u.* FROM u JOIN v ON v.key = u.i)", self.versions());
        }
        format!(
            "w AS (SELECT u.* FROM u WHERE NOT EXISTS (SELECT 1 FROM anteroom_versions AS d \
             WHERE d.tbl = ${}::text AND d.key = u.i AND d.version >= u.v))",
            self.name_parameter()
        )
    }

    fn same_key(&self, left: &str, right: &str) -> String {
        let pair = |(index, column): (usize, &Column)| format!("{left}.{} = {right}.k{index}", column.name);
        self.table.key.iter().enumerate().map(pair).collect::<Vec<_>>().join(" AND ")
    }

    fn older(&self, version: &str) -> String {
        let Some(column) = &self.table.version else { return "TRUE".to_owned() };
        format!("(t.{column} IS NULL OR t.{column} < {version})")
    }

    fn insert(&self, filter: &str) -> String {
        let key = self.table.key.iter().map(|column| column.name.as_str());
        let values = self.columns.iter().map(|column| column.name.as_str());
        let names: Vec<&str> = key.clone().chain(values).chain(self.table.version.as_deref()).collect();
        let mut from: Vec<String> = (0..self.table.key.len()).map(|index| format!("w.k{index}")).collect();
        from.extend((0..self.columns.len()).map(|index| format!("w.c{index}")));
        from.extend(self.table.version.iter().map(|_| "w.v".to_owned()));
        let mut set: Vec<String> = match self.kind {
            Kind::Document { whole: false } => vec![self.merged("excluded", &self.removed_of_excluded())],
            _ => self.columns.iter().map(|column| format!("{0} = excluded.{0}", column.name)).collect(),
        };
        set.extend(self.table.version.iter().map(|column| format!("{column} = excluded.{column}")));
        if set.is_empty() {
            set.push(format!("{0} = excluded.{0}", self.table.key[0].name));
        }
        let older = self.table.version.as_ref().map(|column| self.older(&format!("excluded.{column}")));
        format!(
            "INSERT INTO {} AS t ({}) SELECT {} FROM w{filter} ON CONFLICT ({}) DO UPDATE SET {} WHERE {}",
            self.table.quoted,
            names.join(", "),
            from.join(", "),
            key.collect::<Vec<_>>().join(", "),
            set.join(", "),
            older.as_deref().unwrap_or("TRUE"),
        )
    }

    /// The assignment that merges a document's members.
    fn merged(&self, set: &str, removed: &str) -> String {
        let column = &self.columns[0].name;
        let value = if set == "w" { "w.c0".to_owned() } else { format!("excluded.{column}") };
        format!("{column} = (coalesce(t.{column}, '{{}}') - {removed}) || {value}")
    }

    fn removed_of_excluded(&self) -> String {
        let key = self.same_key("excluded", "w");
        format!("ARRAY(SELECT jsonb_array_elements_text(w.r) FROM w WHERE {key})")
    }

    fn upsert(&self) -> String {
        format!("{}, {} {}", self.head(), self.newer(), self.insert(""))
    }

    /// Updates the rows that are there, as inserting some of the columns would be refused for those that must not be
    /// NULL; inserts the others.
    fn merge(&self) -> String {
        let mut set: Vec<String> = match self.kind {
            Kind::Document { .. } => {
                vec![self.merged("w", "ARRAY(SELECT jsonb_array_elements_text(w.r))")]
            }
            _ => {
                let pair = |(index, column): (usize, &&Column)| format!("{} = w.c{index}", column.name);
                self.columns.iter().enumerate().map(pair).collect()
            }
        };
        set.extend(self.table.version.iter().map(|column| format!("{column} = w.v")));
        if set.is_empty() {
            set.push(format!("{} = w.k0", self.table.key[0].name));
        }
        let update = format!(
            "p AS (UPDATE {} AS t SET {} FROM w WHERE {} AND {})",
            self.table.quoted,
            set.join(", "),
            self.same_key("t", "w"),
            self.older("w.v"),
        );
        let is_missing = format!(
            " WHERE NOT EXISTS (SELECT 1 FROM {} AS o WHERE {})",
            self.table.quoted,
            self.same_key("o", "w")
        );
        format!("{}, {}, {update} {}", self.head(), self.newer(), self.insert(&is_missing))
    }

    fn delete(&self) -> String {
        let (using, filter) = match &self.table.version {
            Some(_) => ("u", self.older("u.v")),
            None => ("u, v", "v.key = u.i".to_owned()),
        };
        format!(
            "{}, {} DELETE FROM {} AS t USING {using} WHERE {} AND {filter}",
            self.head(),
            self.versions(),
            self.table.quoted,
            self.same_key("t", "u"),
        )
    }
}
