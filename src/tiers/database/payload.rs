//! A change as the dead-letter table keeps it: JSON, with fields and columns by name, so that a letter can be read with
//! psql and survives a change of the rules' order. Bytes that are no UTF-8 stand as `{"hex": "…"}`.

use serde_json::{Map, Value, json};

use super::rules::{Content, Rule};
use super::store::{Failure, RowState};

/// The state as JSON.
pub fn encode(rule: &Rule, state: &RowState) -> String {
    let value = match state {
        RowState::Absent => json!({"absent": true}),
        RowState::Value(bytes) => json!({"value": text(bytes)}),
        RowState::Dump { kind, payload, expires_ms } => {
            json!({"kind": kind, "dump": hex(payload), "expires_ms": expires_ms})
        }
        RowState::Fields { fields, whole } => {
            let names = match rule.content() {
                Some(Content::Columns(columns)) => &columns[..],
                _ => &[],
            };
            let entry = |(index, value): &(usize, Option<Vec<u8>>)| {
                let name = names.get(*index).map_or(&b"?"[..], |column| &column.field);
                json!([text(name), value.as_deref().map(text)])
            };
            json!({"fields": fields.iter().map(entry).collect::<Vec<_>>(), "whole": whole})
        }
        RowState::Document { members, whole } => {
            let entry =
                |(name, value): &(Vec<u8>, Option<Vec<u8>>)| json!([text(name), value.as_deref().map(text)]);
            json!({"members": members.iter().map(entry).collect::<Vec<_>>(), "whole": whole})
        }
    };
    value.to_string()
}

/// The state that [`encode`] wrote.
///
/// # Errors
/// `Refused`, if it is none for this rule.
pub fn decode(rule: &Rule, payload: &str) -> Result<RowState, Failure> {
    let refused = |reason: &str| Failure::Refused(format!("the dead letter's payload {reason}"));
    let value: Value = serde_json::from_str(payload).map_err(|_| refused("is no JSON"))?;
    let value = value.as_object().ok_or_else(|| refused("is no object"))?;
    read(rule, value).ok_or_else(|| refused("does not fit the rule, which may have changed"))
}

fn read(rule: &Rule, value: &Map<String, Value>) -> Option<RowState> {
    if value.contains_key("absent") {
        return Some(RowState::Absent);
    }
    let whole = value.get("whole").and_then(Value::as_bool);
    match rule.content() {
        Some(Content::Value(_)) => bytes(value.get("value")?).map(RowState::Value),
        Some(Content::Columns(_)) => {
            let field = |(name, value): (Vec<u8>, _)| Some((rule.column_of(&name)?, value));
            let fields = pairs(value.get("fields")?)?.into_iter().map(field).collect::<Option<_>>()?;
            Some(RowState::Fields { fields, whole: whole? })
        }
        Some(Content::Json(_)) => {
            Some(RowState::Document { members: pairs(value.get("members")?)?, whole: whole? })
        }
        None => Some(RowState::Dump {
            kind: value.get("kind")?.as_str()?.to_owned().into(),
            payload: bytes(value.get("dump")?)?,
            expires_ms: value.get("expires_ms")?.as_u64(),
        }),
    }
}

type Pair = (Vec<u8>, Option<Vec<u8>>);

fn pairs(value: &Value) -> Option<Vec<Pair>> {
    let pair = |pair: &Value| {
        let [name, value] = &pair.as_array()?[..] else { return None };
        let value = if value.is_null() { None } else { Some(bytes(value)?) };
        Some((bytes(name)?, value))
    };
    value.as_array()?.iter().map(pair).collect()
}

fn text(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| hex(bytes), Value::from)
}

fn hex(bytes: &[u8]) -> Value {
    use std::fmt::Write;
    let mut digits = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    json!({"hex": digits})
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    match value {
        Value::String(text) => Some(text.clone().into_bytes()),
        Value::Object(object) => unhex(object.get("hex")?.as_str()?),
        _ => None,
    }
}

/// Bytes from hexadecimal digits.
pub(super) fn unhex(digits: &str) -> Option<Vec<u8>> {
    let digits = digits.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte =
        |pair: &[u8]| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok());
    digits.chunks(2).map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    #[test]
    fn every_state_is_read_back() {
        let rules = Rules::of_each_kind();
        let odd = vec![0, 255, b'"'];
        let dump = |expires_ms| RowState::Dump { kind: "list".into(), payload: odd.clone(), expires_ms };
        let members = vec![(b"m".to_vec(), Some(b"1".to_vec())), (odd.clone(), None)];
        for (rule, state) in [
            (0, dump(None)),
            (0, dump(Some(u64::from(u32::MAX) << 8))),
            (0, RowState::Absent),
            (1, RowState::Fields { fields: vec![(1, Some(odd.clone())), (0, None)], whole: false }),
            (1, RowState::Fields { fields: vec![], whole: true }),
            (2, RowState::Value(b"text".to_vec())),
            (2, RowState::Value(odd.clone())),
            (3, RowState::Document { members, whole: true }),
        ] {
            let rule = rules.get(rule).unwrap();
            assert_eq!(decode(rule, &encode(rule, &state)).unwrap(), state);
        }
        let value = encode(rules.get(2).unwrap(), &RowState::Value(b"x".to_vec()));
        assert!(decode(rules.get(1).unwrap(), &value).is_err());
        assert!(decode(rules.get(1).unwrap(), "no").is_err());
    }
}
