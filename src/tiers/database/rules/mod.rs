//! Which keys the database concerns, and how: rules compiled from `[[database.rules]]`.
//!
//! The first rule that matches a key wins. A key whose first byte no pattern begins with costs one look.

mod compile;
mod pattern;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::database::DatabaseConfig;
pub use crate::config::database::{Mode, OnExpire, QueryConfig};

pub use pattern::{Captures, Pattern};

/// The table of rules without one.
pub const DEFAULT_TABLE: &str = "anteroom_entries";

/// What is wrong with a rule by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("database rule '{rule}': {key}: {reason}")]
pub struct RuleError {
    /// The rule's pattern.
    pub rule: String,
    /// The key of the section.
    pub key: &'static str,
    /// What is wrong.
    pub reason: String,
}

/// A compiled rule.
#[derive(Debug, Clone)]
pub struct Rule {
    /// The keys that it concerns.
    pub pattern: Pattern,
    /// How the database takes part.
    pub mode: Mode,
    /// Where the rows are.
    pub target: Target,
    /// How long a loaded row stays in the cache.
    pub ttl: Option<Duration>,
    /// How long it is remembered that a row is absent.
    pub negative_ttl: Option<Duration>,
    /// What a TTL or an eviction does to the row.
    pub on_expire: OnExpire,
}

/// Where rows are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// In [`DEFAULT_TABLE`].
    Default,
    /// In a table.
    Table {
        /// `NAME` or `SCHEMA.NAME`.
        table: String,
        /// The column of each capture, in the pattern's order.
        key: Box<[String]>,
        /// What of a row is the value.
        content: Content,
        /// The column of the version; without one, versions are in `anteroom_versions`.
        version: Option<String>,
    },
}

/// What of a row is the value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A hash: a column for each of these fields.
    Columns(Box<[Column]>),
    /// A string in this column.
    Value(String),
    /// A hash, as an object in this `jsonb` column.
    Json(String),
}

/// A hash's field and its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The field.
    pub field: Box<[u8]>,
    /// The column.
    pub column: String,
}

impl Content {
    /// The columns.
    pub fn columns(&self) -> Vec<&str> {
        match self {
            Self::Columns(columns) => columns.iter().map(|column| &*column.column).collect(),
            Self::Value(column) | Self::Json(column) => vec![column],
        }
    }
}

/// The columns that a rule needs its table to have.
pub struct RuleColumns<'a> {
    /// Those that name the row, together a unique key.
    pub key: Vec<&'a str>,
    /// Those of the value.
    pub columns: Vec<&'a str>,
    /// That of the version, if it is in the table.
    pub version: Option<&'a str>,
}

impl Rule {
    /// The columns that its table must have.
    pub fn columns(&self) -> RuleColumns<'_> {
        match &self.target {
            Target::Default => RuleColumns {
                key: vec!["key"],
                columns: vec!["kind", "value", "expires_at"],
                version: Some("version"),
            },
            Target::Table { key, content, version, .. } => RuleColumns {
                key: key.iter().map(String::as_str).collect(),
                columns: content.columns(),
                version: version.as_deref(),
            },
        }
    }

    /// What is wrong if its table is not there.
    pub fn missing_table(&self) -> String {
        let hint = if self.target == Target::Default { "; auto-create = true creates it" } else { "" };
        format!("there is no table '{}'{hint}", self.table())
    }

    /// The table's name.
    pub fn table(&self) -> &str {
        match &self.target {
            Target::Default => DEFAULT_TABLE,
            Target::Table { table, .. } => table,
        }
    }

    /// What of a row is the value; nothing for the default table, which holds any type.
    pub fn content(&self) -> Option<&Content> {
        match &self.target {
            Target::Default => None,
            Target::Table { content, .. } => Some(content),
        }
    }

    /// The index of a hash field's column.
    pub fn column_of(&self, field: &[u8]) -> Option<usize> {
        let Some(Content::Columns(columns)) = self.content() else { return None };
        columns.iter().position(|column| &*column.field == field)
    }

    /// Whether writes go to the database.
    pub fn writes(&self) -> bool {
        self.mode != Mode::ReadThrough
    }
}

/// All rules and named queries.
#[derive(Debug, Clone)]
pub struct Rules {
    rules: Box<[Rule]>,
    queries: BTreeMap<String, QueryConfig>,
    /// By a key's first byte, whether any rule can match.
    first_bytes: Box<[bool; 256]>,
    write_through: bool,
}

impl Rules {
    /// Compiles the rules of a section.
    ///
    /// # Errors
    /// The first rule that is wrong.
    pub fn compile(config: &DatabaseConfig) -> Result<Self, RuleError> {
        let rules = config.rules.iter().map(compile::compile).collect::<Result<Box<[Rule]>, _>>()?;
        let mut first_bytes = Box::new([false; 256]);
        for rule in &rules {
            match rule.pattern.prefix().first() {
                Some(byte) => first_bytes[usize::from(*byte)] = true,
                None => first_bytes.fill(true),
            }
        }
        for (index, rule) in rules.iter().enumerate() {
            let twin = rules[..index].iter().any(|other| other.pattern.text() == rule.pattern.text());
            if twin {
                let reason = "another rule has the same".to_owned();
                return Err(RuleError { rule: rule.pattern.text().to_owned(), key: "pattern", reason });
            }
        }
        let write_through = rules.iter().any(|rule| rule.mode == Mode::WriteThrough);
        Ok(Self { rules, queries: config.queries.clone(), first_bytes, write_through })
    }

    /// The index of the first rule that matches a key.
    #[inline]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        let first = key.first()?;
        if !self.first_bytes[usize::from(*first)] {
            return None;
        }
        self.rules.iter().position(|rule| rule.pattern.matches(key))
    }

    /// Whether any rule is written through.
    #[inline]
    pub fn write_through(&self) -> bool {
        self.write_through
    }

    /// A rule by its index.
    pub fn get(&self, rule: usize) -> Option<&Rule> {
        self.rules.get(rule)
    }

    /// All rules, in order.
    pub fn all(&self) -> &[Rule] {
        &self.rules
    }

    /// A rule's index by its pattern's text.
    pub fn named(&self, pattern: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.pattern.text() == pattern)
    }

    /// The named queries.
    pub fn queries(&self) -> &BTreeMap<String, QueryConfig> {
        &self.queries
    }
}

#[cfg(test)]
impl Rules {
    /// One of each kind, for tests: `any:{i}`, `row:{i}` with columns, `one:{i}` with a value, `doc:{i}` with a document.
    pub(super) fn of_each_kind() -> Self {
        let table: toml::Table = r#"
            url = "sqlite:a.db"
            [[rules]]
            pattern = "any:{i}"
            [[rules]]
            pattern = "row:{i}"
            table = "t"
            key = { i = "i" }
            columns = { x = "cx", y = "cy" }
            [[rules]]
            pattern = "one:{i}"
            table = "t"
            key = { i = "i" }
            value = "v"
            [[rules]]
            pattern = "doc:{i}"
            table = "t"
            key = { i = "i" }
            json = "j"
        "#
        .parse()
        .unwrap();
        Self::compile(&DatabaseConfig::read(&table).unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, RuleError> {
        let table: toml::Table = format!("url = 'sqlite:a.db'\n{text}").parse().unwrap();
        Rules::compile(&DatabaseConfig::read(&table).unwrap())
    }

    const TWO: &str = r#"
        [[rules]]
        pattern = "user:{id}:cart"
        [[rules]]
        pattern = "user:{id}"
        mode = "read-through"
        table = "app.users"
        key = { id = "uid" }
        columns = { name = "full_name", mail = "email" }
        version = "ver"
    "#;

    #[test]
    fn the_first_rule_that_matches_wins() {
        let rules = rules(TWO).unwrap();
        assert_eq!(rules.find(b"user:7:cart"), Some(0));
        assert_eq!(rules.find(b"user:7"), Some(1));
        assert_eq!(rules.find(b"other:7"), None);
        assert_eq!(rules.find(b""), None);
        assert_eq!(rules.named("user:{id}"), Some(1));
        let rule = rules.get(1).unwrap();
        assert_eq!((rule.table(), rule.writes()), ("app.users", false));
        assert_eq!(rule.column_of(b"mail"), Some(0));
        assert_eq!(rule.column_of(b"name"), Some(1));
        assert_eq!(rule.column_of(b"full_name"), None);
        assert_eq!(rules.get(0).unwrap().table(), DEFAULT_TABLE);
    }

    #[test]
    fn a_pattern_without_prefix_can_match_anything() {
        let rules = rules("[[rules]]\npattern = '{t}:x'").unwrap();
        assert_eq!(rules.find(b"\xff:x"), Some(0));
    }

    #[test]
    fn bad_rules_say_rule_and_key() {
        for (text, key, reason) in [
            ("pattern = 'a{'", "pattern", "without"),
            ("pattern = 'a:{i}'\nkey = { i = 'i' }", "key", "needs a table"),
            ("pattern = 'a:{i}'\nversion = 'v'", "version", "needs a table"),
            ("pattern = 'a'\ntable = 't'\nvalue = 'v'", "pattern", "captures nothing"),
            ("pattern = 'a:{i}'\ntable = 't'\nvalue = 'v'", "key", "no column for"),
            ("pattern = 'a:{i}'\ntable = 't.u.v'\nkey = { i = 'i' }\nvalue = 'v'", "table", "SCHEMA"),
            (
                "pattern = 'a:{i}'\ntable = 't'\nkey = { i = 'i', j = 'j' }\nvalue = 'v'",
                "key",
                "not captured",
            ),
            ("pattern = 'a:{i}'\ntable = 't'\nkey = { i = 'i' }", "columns", "is needed"),
            (
                "pattern = 'a:{i}'\ntable = 't'\nkey = { i = 'i' }\nvalue = 'v'\njson = 'j'",
                "columns",
                "only one",
            ),
            ("pattern = 'a:{i}'\ntable = 't'\nkey = { i = 'i' }\nvalue = 'i'", "columns", "twice"),
            ("pattern = 'a:{i}'\ntable = 't'\nkey = { i = 'i' }\nvalue = ''", "columns", "empty"),
            (
                "pattern = 'a:{i}'\ntable = 't'\nkey = { i = 'i' }\nvalue = 'v'\nversion = 'v'",
                "version",
                "twice",
            ),
            ("pattern = 'a'\n[[rules]]\npattern = 'a'", "pattern", "same"),
        ] {
            let error = rules(&format!("[[rules]]\n{text}")).unwrap_err();
            assert_eq!(error.key, key, "{text}: {error}");
            assert!(error.reason.contains(reason), "{text}: {error}");
            assert!(error.to_string().contains("database rule 'a"));
        }
    }
}
