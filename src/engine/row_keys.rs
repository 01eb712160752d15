//! The rows of a database behind the upstream that requests touch, and what is to become of them.

use super::rows::depends;
use super::touch::Touch;
use crate::commands::keys::{self, access};
use crate::commands::table::Command;
use crate::protocol::Args;
use crate::tiers::database::shared::Shared;
use crate::tiers::local::DATABASE;
use crate::types::number::parse_i64;

/// A row that a request touches.
pub(super) struct Row {
    pub key: Box<[u8]>,
    pub rule: usize,
    /// Whether what the request does depends on what the key holds.
    pub depends: bool,
    /// What the database learns if the key is absent afterwards.
    pub absence: Absence,
}

/// What it means that a key is absent after a request. A key that the request depends on is at hand before it, or known to be
/// absent, so that it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Absence {
    /// The database learns nothing of what the request does to the key.
    Unwritten,
    /// Nothing: the request puts a value there, or does nothing.
    Nothing,
    /// That it was deleted, if it was there before.
    Deleted,
}

impl Absence {
    /// As the scripts know it.
    pub fn mark(self) -> u8 {
        match self {
            Self::Unwritten => b'-',
            Self::Nothing => b'p',
            Self::Deleted => b'm',
        }
    }
}

/// The rows that a request touches, each once.
pub(super) fn rows_of(shared: &Shared, command: Option<&Command>, touch: &Touch, args: Args<'_>) -> Vec<Row> {
    let (touched, writes) = match touch {
        Touch::Writes(keys) => (keys, true),
        Touch::Reads(keys) => (keys, false),
        Touch::Nothing | Touch::Everything => return Vec::new(),
    };
    let rules = &shared.backend.rules;
    if !touched.iter().any(|(_, key)| rules.find(key).is_some()) {
        return Vec::new();
    }
    let mut rows = Vec::new();
    match command {
        None => touched.iter().for_each(|(_, key)| add(shared, &mut rows, key, true, writes)),
        Some(command) => {
            let found = keys::extract(command.spec, args).unwrap_or_default();
            for (index, flags) in found.iter().filter(|(_, flags)| flags & access::NOT_KEY == 0) {
                let needs = depends(command, args, *flags);
                add(shared, &mut rows, args.at(*index), needs, writes && flags & access::RO == 0);
            }
        }
    }
    unique(rows)
}

/// Adds a key's row, if it is one.
pub(super) fn add(shared: &Shared, rows: &mut Vec<Row>, key: &[u8], depends: bool, writes: bool) {
    let Some(rule) = shared.backend.rules.find(key) else { return };
    let is_written = writes && shared.backend.rules.get(rule).is_some_and(|rule| rule.writes());
    let absence = match (is_written, depends) {
        (false, _) => Absence::Unwritten,
        (true, false) => Absence::Nothing,
        (true, true) => Absence::Deleted,
    };
    rows.push(Row { key: key.into(), rule, depends, absence });
}

/// Each of these rows once, with all that is done to it.
pub(super) fn unique(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by(|one, other| one.key.cmp(&other.key));
    rows.dedup_by(|later, first| {
        let is_same = later.key == first.key;
        if is_same {
            first.depends |= later.depends;
            first.absence = first.absence.max(later.absence);
        }
        is_same
    });
    rows
}

/// Whether any of the rows is written.
pub(super) fn is_written(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.absence != Absence::Unwritten)
}

/// Whether nothing that is done depends on what a row holds.
pub(super) fn is_blind(rows: &[Row]) -> bool {
    !rows.iter().any(|row| row.depends)
}

/// Whether a request would take the journal away with the keys of database 0.
pub(super) fn takes_journal(command: Option<&Command>, db: usize, args: Args<'_>) -> bool {
    let is_first = |index| args.get(index).and_then(parse_i64) == Some(DATABASE as i64);
    match command.map_or("", |command| command.spec.name) {
        "flushall" => true,
        "flushdb" => db == DATABASE,
        "swapdb" => is_first(1) || is_first(2),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_named_twice_is_one() {
        let row = |key: &str, depends, absence| Row { key: key.as_bytes().into(), rule: 0, depends, absence };
        let rows = unique(vec![
            row("b", false, Absence::Nothing),
            row("a", false, Absence::Unwritten),
            row("b", true, Absence::Deleted),
        ]);
        let told: Vec<_> = rows.iter().map(|row| (&*row.key, row.depends, row.absence)).collect();
        assert_eq!(told, [(&b"a"[..], false, Absence::Unwritten), (b"b", true, Absence::Deleted)]);
        assert!(is_written(&rows) && !is_blind(&rows));
    }
}
