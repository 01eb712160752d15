//! An entry of the journal upstream, and the changes of rows that it tells of.

use super::super::mutation::state_of;
use super::super::rules::Rules;
use super::super::store::{Changes, RowChange, RowState};
use crate::config::Settings;
use crate::tiers::local::{Entry as Kept, rdb_limits};
use crate::tiers::upstream::{elements, text};
use crate::types::number::parse_i64;
use crate::types::rdb;

/// What one command or transaction left.
#[derive(Debug)]
pub struct Entry {
    /// Its version.
    pub version: i64,
    keys: Vec<Key>,
}

/// An entry by its id; none if it was deleted meanwhile.
pub type Listed = (Box<[u8]>, Option<Entry>);

/// A key, and what it held.
#[derive(Debug)]
struct Key {
    name: Box<[u8]>,
    kind: String,
    expires_ms: Option<u64>,
    dump: Vec<u8>,
}

/// The entries of a page of the stream, `[[id, [field, value, …]], …]`; one that was deleted has no fields. `None` if it is no
/// page.
pub fn read_page(page: &[u8]) -> Option<Vec<Listed>> {
    elements(page)?.into_iter().map(read).collect()
}

fn read(frame: &[u8]) -> Option<Listed> {
    let parts = elements(frame)?;
    let [id, fields] = parts[..] else { return None };
    let fields: Option<Vec<&[u8]>> =
        elements(fields).and_then(|fields| fields.into_iter().map(text).collect());
    Some((text(id)?.into(), fields.and_then(|fields| entry(&fields))))
}

fn entry(fields: &[&[u8]]) -> Option<Entry> {
    let [b"v", version, rest @ ..] = fields else { return None };
    let version = parse_i64(version)?;
    let packed = match rest {
        [b"packed", packed] => unpack(packed)?,
        _ => Vec::new(),
    };
    let rest = if packed.is_empty() { rest } else { &packed };
    let key = |parts: &[&[u8]]| {
        let [name, kind, expires, dump] = parts else { return None };
        let expires_ms = parse_i64(expires).filter(|at| *at > 0).map(|at| at as u64);
        let kind = String::from_utf8_lossy(kind).into_owned();
        Some(Key { name: (*name).into(), kind, expires_ms, dump: dump.to_vec() })
    };
    let keys = rest.chunks(4).map(key).collect::<Option<_>>()?;
    Some(Entry { version, keys })
}

/// The strings of an array of MessagePack, as Redis's `cmsgpack` packs it.
fn unpack(bytes: &[u8]) -> Option<Vec<&[u8]>> {
    fn number(bytes: &[u8]) -> usize {
        bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
    }
    fn head(bytes: &[u8], size: usize) -> Option<(usize, &[u8])> {
        let (head, rest) = bytes.get(1..)?.split_at_checked(size)?;
        Some((number(head), rest))
    }
    let (count, mut rest) = match *bytes.first()? {
        mark @ 0x90..=0x9f => (usize::from(mark & 15), bytes.get(1..)?),
        0xdc => head(bytes, 2)?,
        0xdd => head(bytes, 4)?,
        _ => return None,
    };
    let mut strings = Vec::new();
    for _ in 0..count {
        let (length, behind) = match *rest.first()? {
            mark @ 0xa0..=0xbf => (usize::from(mark & 31), rest.get(1..)?),
            0xd9 | 0xc4 => head(rest, 1)?,
            0xda | 0xc5 => head(rest, 2)?,
            0xdb | 0xc6 => head(rest, 4)?,
            _ => return None,
        };
        let (string, behind) = behind.split_at_checked(length)?;
        strings.push(string);
        rest = behind;
    }
    Some(strings)
}

impl Entry {
    /// Its bytes, as the script that wrote it counts them.
    pub fn size(&self) -> usize {
        self.keys.iter().map(|key| key.name.len() + key.dump.len()).sum()
    }

    /// The changes of rows.
    ///
    /// # Errors
    /// A key that no rule of this host writes.
    pub fn changes(&self, rules: &Rules, settings: &Settings) -> Result<Changes, String> {
        let change = |key: &Key| {
            let rule =
                rules.find(&key.name).filter(|rule| rules.get(*rule).is_some_and(|rule| rule.writes()));
            let rule = rule.ok_or_else(|| key.name.escape_ascii().to_string())?;
            let state = key.state(rules, rule, settings);
            Ok(RowChange { rule, key: key.name.clone(), version: self.version, state })
        };
        self.keys.iter().map(change).collect()
    }
}

impl Key {
    fn state(&self, rules: &Rules, rule: usize, settings: &Settings) -> RowState {
        if self.kind == "none" {
            return RowState::Absent;
        }
        let raw = |expires_ms| RowState::Dump {
            kind: self.kind.clone().into(),
            payload: self.dump.clone(),
            expires_ms,
        };
        let Some(rule) = rules.get(rule) else { return raw(None) };
        if rule.content().is_none() {
            // As upstream wrote it: nothing is lost of a type that is not known here.
            return raw(self.expires_ms.filter(|_| rule.ttl.is_none()));
        }
        match rdb::decode(&self.dump, &rdb_limits(settings)) {
            Ok(decoded) => state_of(rule, Kept::decoded(&self.name, decoded, None).value(), None),
            // Of a type that no table holds: the database refuses it, and it becomes a dead letter.
            Err(_) => raw(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::database::DatabaseConfig;

    fn page(entries: &[&[&str]]) -> Vec<u8> {
        let mut page = format!("*{}\r\n", entries.len());
        for words in entries {
            page.push_str(&format!("*2\r\n$3\r\n1-0\r\n*{}\r\n", words.len()));
            words.iter().for_each(|word| page.push_str(&format!("${}\r\n{word}\r\n", word.len())));
        }
        page.into_bytes()
    }

    #[test]
    fn entries_are_read_as_changes() {
        let table = "url = 'sqlite:a.db'\n[[rules]]\npattern = 'a:{i}'\n[[rules]]\npattern = 'r:{i}'\nmode = 'read-through'";
        let config = DatabaseConfig::read(&table.parse().unwrap()).unwrap();
        let (rules, settings) = (Rules::compile(&config).unwrap(), Settings::default());
        let words = ["v", "42", "a:1", "string", "99", "x", "a:2", "none", "0", ""];
        let entry = read_page(&page(&[&words])).unwrap().pop().unwrap().1.unwrap();
        let changes = entry.changes(&rules, &settings).unwrap();
        let state = RowState::Dump { kind: "string".into(), payload: b"x".to_vec(), expires_ms: Some(99) };
        assert_eq!((&*changes[0].key, changes[0].version, &changes[0].state), (&b"a:1"[..], 42, &state));
        assert_eq!((&*changes[1].key, &changes[1].state), (&b"a:2"[..], &RowState::Absent));
        assert_eq!(entry.size(), 7);
        for key in ["b", "r:1"] {
            let words = ["v", "42", key, "none", "0", ""];
            let entry = read_page(&page(&[&words])).unwrap().pop().unwrap().1.unwrap();
            assert!(entry.changes(&rules, &settings).is_err(), "{key}");
        }
        let (id, gone) = read_page(b"*1\r\n*2\r\n$3\r\n1-1\r\n*-1\r\n").unwrap().pop().unwrap();
        assert!(&*id == b"1-1" && gone.is_none());
    }

    #[test]
    fn packed_strings_are_unpacked() {
        let long = [b"\xda\x01\x00".to_vec(), vec![b'x'; 256]].concat();
        let packed = [b"\x92\xa2ab".to_vec(), long].concat();
        let strings = unpack(&packed).unwrap();
        assert!(strings[0] == b"ab" && strings[1].len() == 256);
        assert!(unpack(&packed[..10]).is_none());
    }
}
