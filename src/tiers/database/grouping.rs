//! A batch taken apart into what one statement can write: changes of one rule, of one kind, to one set of columns.
//!
//! Within a group, rows are in the order of their identities, so that two hosts that write the same rows lock them in
//! the same order.

use std::collections::BTreeMap;

use super::rules::{Captures, Content, Rule, Rules, Target};
use super::store::{Batch, Failure, RowChange, RowState};

/// What a group's statement does. A delete comes first in the order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Deletes.
    Delete,
    /// Sets these of the rule's columns; all of them if `whole`.
    Columns {
        /// Their indexes, rising.
        columns: Vec<usize>,
        /// Whether these are all of the rule's.
        whole: bool,
    },
    /// Sets the value's column.
    Value,
    /// Sets or merges the object of the `jsonb` column.
    Document {
        /// Whether it is set.
        whole: bool,
    },
    /// Writes the default table.
    Dump,
}

/// Changes for one statement.
#[derive(Debug)]
pub struct Group<'a> {
    /// The rule's index.
    pub rule: usize,
    /// What the statement does.
    pub kind: Kind,
    /// The changes.
    pub rows: Vec<Row<'a>>,
}

/// One change, taken apart.
#[derive(Debug)]
pub struct Row<'a> {
    /// What tells the row from others of its table: see [`identity`].
    pub identity: Vec<u8>,
    /// The key columns' values.
    pub captures: Captures<'a>,
    /// The change's version.
    pub version: i64,
    /// What it becomes.
    pub state: &'a RowState,
}

/// Groups a batch.
///
/// # Errors
/// `Refused` for a change that does not fit its rule.
pub fn group<'a>(rules: &Rules, batch: &'a Batch) -> Result<Vec<Group<'a>>, Failure> {
    let mut groups: BTreeMap<(usize, Kind), Vec<Row<'a>>> = BTreeMap::new();
    for change in &batch.changes {
        let rule =
            rules.get(change.rule).ok_or_else(|| Failure::Refused("there is no such rule".to_owned()))?;
        let kind = kind_of(rule, &change.state).ok_or_else(|| misfit(rule))?;
        let row = row(rule, change)
            .ok_or_else(|| Failure::Refused("the key does not match its rule".to_owned()))?;
        groups.entry((change.rule, kind)).or_default().push(row);
    }
    let group = |((rule, kind), mut rows): (_, Vec<Row<'a>>)| {
        rows.sort_unstable_by(|a, b| a.identity.cmp(&b.identity));
        Group { rule, kind, rows }
    };
    Ok(groups.into_iter().map(group).collect())
}

fn misfit(rule: &Rule) -> Failure {
    Failure::Refused(format!("the value's type does not fit the rule '{}'", rule.pattern.text()))
}

fn kind_of(rule: &Rule, state: &RowState) -> Option<Kind> {
    match (state, rule.content()) {
        (RowState::Absent, _) => Some(Kind::Delete),
        (RowState::Fields { fields, whole }, Some(Content::Columns(known))) => {
            let mut columns: Vec<usize> = fields.iter().map(|(index, _)| *index).collect();
            columns.sort_unstable();
            let is_valid = columns.windows(2).all(|pair| pair[0] < pair[1])
                && columns.last().is_none_or(|last| *last < known.len());
            let whole = *whole || columns.len() == known.len();
            let columns = if whole { (0..known.len()).collect() } else { columns };
            is_valid.then_some(Kind::Columns { columns, whole })
        }
        (RowState::Document { whole, .. }, Some(Content::Json(_))) => Some(Kind::Document { whole: *whole }),
        (RowState::Value(_), Some(Content::Value(_))) => Some(Kind::Value),
        (RowState::Dump { .. }, None) => Some(Kind::Dump),
        _ => None,
    }
}

fn row<'a>(rule: &Rule, change: &'a RowChange) -> Option<Row<'a>> {
    let captures = captures(rule, &change.key)?;
    let identity = identity(&captures);
    Some(Row { identity, captures, version: change.version, state: &change.state })
}

/// The key columns' values: the captures, or the whole key for the default table.
pub fn captures<'a>(rule: &Rule, key: &'a [u8]) -> Option<Captures<'a>> {
    let captures = rule.pattern.captures(key)?;
    Some(match rule.target {
        Target::Default => Captures::from_slice(&[key]),
        Target::Table { .. } => captures,
    })
}

/// What tells a row from others of its table: the only capture as it is, or several with their lengths before them.
pub fn identity(captures: &[&[u8]]) -> Vec<u8> {
    if let [only] = captures {
        return only.to_vec();
    }
    let mut identity = Vec::new();
    for capture in captures {
        identity.extend_from_slice(&(capture.len() as u32).to_be_bytes());
        identity.extend_from_slice(capture);
    }
    identity
}

impl Row<'_> {
    /// The new value of a column, by its index in the rule.
    pub fn field(&self, column: usize) -> Option<&[u8]> {
        let RowState::Fields { fields, .. } = self.state else { return None };
        fields.iter().find(|(index, _)| *index == column).and_then(|(_, value)| value.as_deref())
    }
}

/// Members of an object as JSON text, those that are set, and the names of those that are removed.
///
/// # Errors
/// `Refused` if a name or value is no UTF-8, or holds a NUL, which no database's JSON can.
pub fn document(state: &RowState) -> Result<(String, Vec<String>), Failure> {
    let RowState::Document { members, .. } = state else {
        return Err(Failure::Refused("the change is no document".to_owned()));
    };
    let mut set = serde_json::Map::new();
    let mut removed = Vec::new();
    for (name, value) in members {
        let name = json_text(name)?;
        match value {
            Some(value) => drop(set.insert(name, json_text(value)?.into())),
            None => removed.push(name),
        }
    }
    Ok((serde_json::Value::Object(set).to_string(), removed))
}

fn json_text(bytes: &[u8]) -> Result<String, Failure> {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.map(str::to_owned)
        .ok_or_else(|| Failure::Refused("a member of a document is no UTF-8 text without NUL".to_owned()))
}

/// The members of an object that a database returned. What is no string is given as JSON text.
///
/// # Errors
/// `Refused` if it is no object.
pub fn members(text: &str) -> Result<RowState, Failure> {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else {
        return Err(Failure::Refused("the document's column holds no object".to_owned()));
    };
    let member = |(name, value): (String, serde_json::Value)| {
        let value = match value {
            serde_json::Value::Null => return None,
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        Some((name.into_bytes(), Some(value.into_bytes())))
    };
    Ok(RowState::Document { members: object.into_iter().filter_map(member).collect(), whole: true })
}
