//! A journal record's payload: the changes of one command or transaction.
//!
//! ```text
//! version 1 | number of changes | each: pattern, key, tag 1, state
//! ```
//! Numbers are 4 bytes, little-endian; strings have their length before them. Rules stand by their pattern and columns by
//! their field, so that a record means the same after the configuration changed; what it names and is no longer
//! configured is an error, never skipped.

use super::rules::{Content, Rules};
use super::store::{Changes, RowChange, RowState};

const VERSION: u8 = 1;

/// Why a payload cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// Its version or its bytes are not known.
    #[error("it is not in a known format")]
    Format,
    /// Its rule is gone.
    #[error("the rule '{0}' is no longer configured")]
    Rule(String),
    /// A field's column is gone.
    #[error("the rule '{0}' no longer has a column for the field '{1}'")]
    Field(String, String),
}

/// Writes the changes; their versions are the record's sequence.
pub fn encode(rules: &Rules, changes: &[RowChange]) -> Vec<u8> {
    /// What a change takes beside its strings, and more.
    const OVERHEAD: usize = 48;
    let pattern = |change: &RowChange| rules.get(change.rule).map_or("", |rule| rule.pattern.text());
    let size =
        |change: &RowChange| pattern(change).len() + change.key.len() + change.state.bytes() + OVERHEAD;
    let mut out = Vec::with_capacity(OVERHEAD + changes.iter().map(size).sum::<usize>());
    out.push(VERSION);
    number(&mut out, changes.len());
    for change in changes {
        let rule = rules.get(change.rule);
        string(&mut out, pattern(change).as_bytes());
        string(&mut out, &change.key);
        match &change.state {
            RowState::Absent => out.push(0),
            RowState::Value(value) => {
                out.push(1);
                string(&mut out, value);
            }
            RowState::Dump { kind, payload, expires_ms } => {
                out.push(2);
                string(&mut out, kind.as_bytes());
                string(&mut out, payload);
                out.extend_from_slice(&expires_ms.unwrap_or(0).to_le_bytes());
            }
            RowState::Fields { fields, whole } => {
                let columns = match rule.and_then(|rule| rule.content()) {
                    Some(Content::Columns(columns)) => &columns[..],
                    _ => &[],
                };
                out.extend([3, u8::from(*whole)]);
                let named = fields.iter().filter_map(|(index, value)| Some((columns.get(*index)?, value)));
                number(&mut out, named.clone().count());
                named.for_each(|(column, value)| pair(&mut out, &column.field, value.as_deref()));
            }
            RowState::Document { members, whole } => {
                out.extend([4, u8::from(*whole)]);
                number(&mut out, members.len());
                members.iter().for_each(|(name, value)| pair(&mut out, name, value.as_deref()));
            }
        }
    }
    out
}

fn number(out: &mut Vec<u8>, value: usize) {
    out.extend_from_slice(&(value as u32).to_le_bytes());
}

fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn pair(out: &mut Vec<u8>, name: &[u8], value: Option<&[u8]>) {
    string(out, name);
    out.push(u8::from(value.is_some()));
    if let Some(value) = value {
        string(out, value);
    }
}

/// Reads the changes of the record with this sequence.
///
/// # Errors
/// What it is that is not known.
pub fn decode(rules: &Rules, sequence: u64, payload: &[u8]) -> Result<Changes, Unreadable> {
    let mut reader = Reader(payload);
    if reader.byte()? != VERSION {
        return Err(Unreadable::Format);
    }
    let count = reader.number()?;
    let mut changes = Changes::new();
    for _ in 0..count {
        let raw = reader.change()?;
        let pattern = raw.pattern;
        let rule = rules.named(&pattern).ok_or_else(|| Unreadable::Rule(pattern.clone()))?;
        let state = match raw.state {
            RawState::Known(state) => state,
            RawState::Fields(fields, whole) => {
                let column = |(name, value): (Vec<u8>, _)| {
                    let index = rules.get(rule).and_then(|rule| rule.column_of(&name));
                    let missing =
                        || Unreadable::Field(pattern.clone(), String::from_utf8_lossy(&name).into_owned());
                    Ok((index.ok_or_else(missing)?, value))
                };
                RowState::Fields { fields: fields.into_iter().map(column).collect::<Result<_, _>>()?, whole }
            }
        };
        changes.push(RowChange { rule, key: raw.key, version: sequence as i64, state });
    }
    Ok(changes)
}

/// One line on a payload: the kinds and keys of its changes, no values.
pub fn describe(payload: &[u8]) -> String {
    let mut reader = Reader(payload);
    let mut parts = Vec::new();
    let mut read = || {
        if reader.byte()? != VERSION {
            return Err(Unreadable::Format);
        }
        for _ in 0..reader.number()? {
            let raw = reader.change()?;
            let verb = if matches!(raw.state, RawState::Known(RowState::Absent)) { "delete" } else { "put" };
            parts.push(format!("{verb} {} ({})", raw.key.escape_ascii(), raw.pattern));
        }
        Ok(())
    };
    match read() {
        Ok(()) => parts.join(", "),
        Err(error) => error.to_string(),
    }
}

type Pairs = Vec<(Vec<u8>, Option<Vec<u8>>)>;

struct Raw {
    pattern: String,
    key: Box<[u8]>,
    state: RawState,
}

enum RawState {
    Known(RowState),
    Fields(Pairs, bool),
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unreadable> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Unreadable::Format)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Unreadable> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn number(&mut self) -> Result<usize, Unreadable> {
        let bytes = self.take(4)?.try_into().map_err(|_| Unreadable::Format)?;
        Ok(u32::from_le_bytes(bytes) as usize)
    }

    fn string(&mut self) -> Result<&'a [u8], Unreadable> {
        let len = self.number()?;
        self.take(len)
    }

    fn text(&mut self) -> Result<String, Unreadable> {
        String::from_utf8(self.string()?.to_vec()).map_err(|_| Unreadable::Format)
    }

    fn pairs(&mut self) -> Result<Pairs, Unreadable> {
        let mut pairs = Vec::new();
        for _ in 0..self.number()? {
            let name = self.string()?.to_vec();
            let value = if self.byte()? == 1 { Some(self.string()?.to_vec()) } else { None };
            pairs.push((name, value));
        }
        Ok(pairs)
    }

    fn change(&mut self) -> Result<Raw, Unreadable> {
        let (pattern, key) = (self.text()?, self.string()?.into());
        let state = match self.byte()? {
            0 => RawState::Known(RowState::Absent),
            1 => RawState::Known(RowState::Value(self.string()?.to_vec())),
            2 => {
                let (kind, payload) = (self.text()?.into(), self.string()?.to_vec());
                let deadline = self.take(8)?.try_into().map_err(|_| Unreadable::Format)?;
                let expires_ms = Some(u64::from_le_bytes(deadline)).filter(|deadline| *deadline > 0);
                RawState::Known(RowState::Dump { kind, payload, expires_ms })
            }
            3 => {
                let whole = self.byte()? == 1;
                RawState::Fields(self.pairs()?, whole)
            }
            4 => {
                let whole = self.byte()? == 1;
                RawState::Known(RowState::Document { members: self.pairs()?, whole })
            }
            _ => return Err(Unreadable::Format),
        };
        Ok(Raw { pattern, key, state })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::database::DatabaseConfig;

    fn rules(text: &str) -> Rules {
        let table: toml::Table = format!("url = 'sqlite:a.db'\n{text}").parse().unwrap();
        Rules::compile(&DatabaseConfig::read(&table).unwrap()).unwrap()
    }

    const TWO: &str = "[[rules]]\npattern = 'a:{i}'\n[[rules]]\npattern = 'b:{i}'\ntable = 't'\n\
        key = { i = 'i' }\ncolumns = { x = 'x', y = 'y' }";

    #[test]
    fn every_state_is_read_back_and_garbage_is_not() {
        let rules = rules(TWO);
        let dump = RowState::Dump { kind: "list".into(), payload: vec![0, 255], expires_ms: Some(9) };
        let states = [
            (0, RowState::Absent),
            (0, dump),
            (0, RowState::Value(b"v".to_vec())),
            (1, RowState::Fields { fields: vec![(1, Some(b"1".to_vec())), (0, None)], whole: true }),
            (1, RowState::Document { members: vec![(b"m".to_vec(), None)], whole: false }),
        ];
        let changes: Vec<_> = states
            .into_iter()
            .map(|(rule, state)| RowChange { rule, key: b"k\x00".as_slice().into(), version: 7, state })
            .collect();
        let payload = encode(&rules, &changes);
        assert_eq!(decode(&rules, 7, &payload).unwrap().to_vec(), changes);
        for len in 0..payload.len() {
            assert_eq!(decode(&rules, 7, &payload[..len]), Err(Unreadable::Format), "{len}");
        }
        assert!(describe(&payload).starts_with("delete k\\x00 (a:{i}), put "));
    }

    #[test]
    fn what_is_no_longer_configured_is_named() {
        let old = rules(TWO);
        let state = RowState::Fields { fields: vec![(1, None)], whole: true };
        let change = RowChange { rule: 1, key: b"b:1".as_slice().into(), version: 1, state };
        let payload = encode(&old, &[change]);
        let without = rules("[[rules]]\npattern = 'a:{i}'");
        assert_eq!(decode(&without, 1, &payload), Err(Unreadable::Rule("b:{i}".into())));
        let narrower = rules(&TWO.replace(", y = 'y'", ""));
        let missing = Unreadable::Field("b:{i}".into(), "y".into());
        assert_eq!(decode(&narrower, 1, &payload), Err(missing));
    }
}
