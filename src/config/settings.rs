//! The directives' values: numbers as atomics that the hot path reads, texts behind a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};

use parking_lot::RwLock;

use super::directives::{DIRECTIVES, IDS, Id, Kind, Policy, format_events, parse_events};
use super::limits::{OutputLimits, SavePoint, parse_percentiles, parse_save_points};
use super::units::parse_memory;
use crate::types::glob;

/// Why a value is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// No directive has this name.
    #[error("Unknown option or number of arguments for CONFIG SET - '{0}'")]
    Unknown(String),
    /// A directive was named twice.
    #[error("CONFIG SET failed (possibly related to argument '{0}') - duplicate parameter")]
    Duplicate(String),
    /// The value does not fit, or the directive cannot be changed any more.
    #[error("CONFIG SET failed (possibly related to argument '{name}') - {reason}")]
    Refused {
        /// The directive as it was named.
        name: String,
        /// What is wrong.
        reason: String,
    },
}

/// The values of all directives.
pub struct Settings {
    numbers: Box<[AtomicI64]>,
    texts: RwLock<Vec<Arc<str>>>,
    /// What was changed since the start.
    was_set: Box<[AtomicBool]>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Settings")
    }
}

enum Value {
    Number(i64),
    Text(Arc<str>),
}

impl Default for Settings {
    fn default() -> Self {
        let settings = Self {
            numbers: DIRECTIVES.iter().map(|_| AtomicI64::new(0)).collect(),
            texts: RwLock::new(vec![Arc::from(""); DIRECTIVES.len()]),
            was_set: DIRECTIVES.iter().map(|_| AtomicBool::new(false)).collect(),
        };
        for id in IDS {
            match parse(id.directive().kind, id.directive().default) {
                Ok(value) => settings.put(*id, value),
                Err(reason) => unreachable!("the default of {}: {reason}", id.directive().name),
            }
        }
        settings
    }
}

impl Settings {
    /// The value as a number: bytes, a count, 0 or 1, the index of a word.
    #[inline]
    pub fn int(&self, id: Id) -> i64 {
        self.numbers[id as usize].load(Relaxed)
    }

    /// The value as a text.
    pub fn text(&self, id: Id) -> Arc<str> {
        self.texts.read()[id as usize].clone()
    }

    /// Which keys go when memory runs out.
    #[inline]
    pub fn maxmemory_policy(&self) -> Policy {
        Policy::of(self.int(Id::MaxmemoryPolicy))
    }

    /// What clients may leave unread, by class.
    pub fn output_limits(&self) -> OutputLimits {
        OutputLimits::of(&self.text(Id::ClientOutputBufferLimit))
    }

    /// The percentiles that `INFO latencystats` shows.
    pub fn info_percentiles(&self) -> Vec<f64> {
        parse_percentiles(&self.text(Id::LatencyTrackingInfoPercentiles)).unwrap_or_default()
    }

    /// Whether keyspace events of a class are to be published.
    #[inline]
    pub fn notifies(&self, class: u32) -> bool {
        let bits = self.int(Id::NotifyKeyspaceEvents) as u32;
        bits & class != 0 && bits & 3 != 0
    }

    /// The schedule of snapshots.
    pub fn save_points(&self) -> Vec<SavePoint> {
        parse_save_points(&self.text(Id::Save)).unwrap_or_default()
    }

    /// The directives whose names match one of the patterns, with their values as `CONFIG GET` shows them.
    pub fn matching(&self, patterns: &[&[u8]]) -> Vec<(&'static str, String)> {
        let wanted =
            |name: &str| patterns.iter().any(|pattern| glob::matches_ignoring_case(pattern, name.as_bytes()));
        let mut found = Vec::new();
        for id in IDS {
            let directive = id.directive();
            for name in [Some(directive.name), directive.alias].into_iter().flatten() {
                if wanted(name) {
                    found.push((name, self.shown(*id)));
                }
            }
        }
        found
    }

    /// The value as `CONFIG GET` shows it.
    pub fn shown(&self, id: Id) -> String {
        let number = self.int(id);
        match id.directive().kind {
            Kind::Bool => if number == 1 { "yes" } else { "no" }.to_owned(),
            Kind::Int(..) | Kind::Memory(..) => number.to_string(),
            Kind::Octal(..) => format!("{number:o}"),
            Kind::Word(words) => words.get(number as usize).copied().unwrap_or_default().to_owned(),
            Kind::Text | Kind::OutputLimits | Kind::Percentiles | Kind::SavePoints | Kind::FileName => {
                self.text(id).to_string()
            }
            Kind::Events => format_events(number as u32),
        }
    }

    /// Changes several directives, all or none; returns those named.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn set(&self, pairs: &[(&str, &str)]) -> Result<Vec<Id>, SetError> {
        let mut changes: Vec<(Id, Value)> = Vec::new();
        for (name, text) in pairs {
            let id = Id::named(name).ok_or_else(|| SetError::Unknown((*name).to_owned()))?;
            if changes.iter().any(|(other, _)| *other == id) {
                return Err(SetError::Duplicate((*name).to_owned()));
            }
            let refused = |reason: String| SetError::Refused { name: (*name).to_owned(), reason };
            if !id.directive().mutable {
                return Err(refused("can't set immutable config".to_owned()));
            }
            let whole;
            let text = match id.directive().kind {
                // Classes that are not named stay as they are.
                Kind::OutputLimits => {
                    OutputLimits::of(&self.text(id)).with(text).map_err(refused)?;
                    whole = format!("{} {text}", self.text(id));
                    &whole
                }
                _ => *text,
            };
            changes.push((id, parse(id.directive().kind, text).map_err(refused)?));
        }
        let ids = changes.iter().map(|(id, _)| *id).collect();
        for (id, value) in changes {
            self.put(id, value);
            self.was_set[id as usize].store(true, Relaxed);
        }
        Ok(ids)
    }

    /// Whether it was changed since the start.
    pub(super) fn was_set(&self, id: Id) -> bool {
        self.was_set[id as usize].load(Relaxed)
    }

    /// Whether its value is what this text says.
    pub(super) fn holds(&self, id: Id, text: &str) -> bool {
        match parse(id.directive().kind, text) {
            Ok(Value::Number(number)) => number == self.int(id),
            Ok(Value::Text(text)) => text == self.text(id),
            Err(_) => false,
        }
    }

    /// Sets a directive at start, mutable or not.
    ///
    /// # Errors
    /// What is wrong with the value.
    pub(super) fn load(&self, id: Id, text: &str) -> Result<(), String> {
        self.put(id, parse(id.directive().kind, text)?);
        Ok(())
    }

    fn put(&self, id: Id, value: Value) {
        match value {
            Value::Number(number) => self.numbers[id as usize].store(number, Relaxed),
            Value::Text(text) => self.texts.write()[id as usize] = text,
        }
    }
}

fn parse(kind: Kind, text: &str) -> Result<Value, String> {
    let bounded = |number: Option<i64>, low: i64, high: i64, what: &str| match number {
        None => Err(format!("argument couldn't be parsed into {what}")),
        Some(number) if !(low..=high).contains(&number) => {
            Err(format!("argument must be between {low} and {high} inclusive"))
        }
        Some(number) => Ok(Value::Number(number)),
    };
    match kind {
        Kind::Bool => match text.to_ascii_lowercase().as_str() {
            "yes" => Ok(Value::Number(1)),
            "no" => Ok(Value::Number(0)),
            _ => Err("argument must be 'yes' or 'no'".to_owned()),
        },
        Kind::Int(low, high) => bounded(text.parse().ok(), low, high, "an integer"),
        Kind::Octal(low, high) => bounded(i64::from_str_radix(text, 8).ok(), low, high, "an integer"),
        Kind::Memory(low, high) => match parse_memory(text) {
            None => Err("argument must be a memory value".to_owned()),
            number => bounded(number, low, high, "an integer"),
        },
        Kind::Word(words) => match words.iter().position(|word| word.eq_ignore_ascii_case(text)) {
            Some(index) => Ok(Value::Number(index as i64)),
            None => Err(format!("argument(s) must be one of the following: {}", words.join(", "))),
        },
        Kind::Text => Ok(Value::Text(text.into())),
        Kind::OutputLimits => OutputLimits::of(super::limits::DEFAULT)
            .with(text)
            .map(|limits| Value::Text(limits.to_string().into())),
        Kind::SavePoints => parse_save_points(text).map(|_| Value::Text(text.into())),
        Kind::FileName if text.contains('/') || text.is_empty() => {
            Err("dbfilename can't be a path, just a filename".to_owned())
        }
        Kind::FileName => Ok(Value::Text(text.into())),
        Kind::Percentiles => parse_percentiles(text).map(|_| Value::Text(text.into())),
        Kind::Events => parse_events(text)
            .map(|bits| Value::Number(bits.into()))
            .ok_or_else(|| "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_or_nothing() {
        let settings = Settings::default();
        let pairs = [("maxmemory", "10mb"), ("hash-max-ziplist-entries", "nonsense")];
        assert!(matches!(settings.set(&pairs), Err(SetError::Refused { .. })));
        assert_eq!(settings.int(Id::Maxmemory), 0);
        settings.set(&[("maxmemory", "10mb"), ("maxmemory-policy", "ALLKEYS-lru")]).unwrap();
        assert_eq!(
            (settings.int(Id::Maxmemory), settings.maxmemory_policy()),
            (10 << 20, Policy::AllkeysLru)
        );
    }

    #[test]
    fn refuses_in_redis_words() {
        let settings = Settings::default();
        let text = |name, value| settings.set(&[(name, value)]).unwrap_err().to_string();
        assert_eq!(text("nope", "1"), "Unknown option or number of arguments for CONFIG SET - 'nope'");
        assert_eq!(
            text("port", "1"),
            "CONFIG SET failed (possibly related to argument 'port') - can't set immutable config"
        );
        assert_eq!(
            text("maxmemory-samples", "0"),
            "CONFIG SET failed (possibly related to argument 'maxmemory-samples') - argument must be between 1 and 64 inclusive"
        );
    }

    #[test]
    fn events_read_back() {
        for (given, shown) in [("", ""), ("KEA", "AKE"), ("Kg$", "g$K"), ("AKEn", "AnKE")] {
            assert_eq!(format_events(parse_events(given).unwrap()), shown, "{given}");
        }
        assert_eq!(parse_events("Q"), None);
    }
}
