//! The sections `[database]`, `[[database.rules]]` and `[database.queries.NAME]`, as they are written.
//!
//! Only what a file can be wrong about by itself is found here; patterns are compiled, and rules held against each other,
//! in `tiers::database::rules`, and against the schema by the database's `check`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::units::{parse_duration, parse_memory};

/// The section `[database]`, with its rules and queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// `postgres://…` or `sqlite:PATH`.
    pub url: String,
    /// The most connections.
    pub pool_max: usize,
    /// Connections kept open though idle.
    pub pool_min: usize,
    /// After how long an idle connection above `pool-min` is closed.
    pub pool_idle: Span,
    /// How long connecting may take.
    pub pool_connect_timeout: Span,
    /// How often connecting is tried, 200 ms apart.
    pub pool_retries: u32,
    /// Changes in a batch.
    pub batch_size: usize,
    /// How long a change waits for its batch to fill.
    pub flush_interval: Span,
    /// Where the journal is: `local` (under `dir`) or `upstream`.
    pub journal: JournalPlace,
    /// The name of a journal upstream: hosts with the same one flush for each other.
    pub journal_name: String,
    /// When the journal is synced.
    pub journal_fsync: JournalFsync,
    /// The journal's bound in bytes; at it, writes are refused.
    pub journal_max_size: Size,
    /// How long a change may wait for the database before writes are refused; 0 for ever.
    pub journal_max_age: Span,
    /// Whether the default table is created if it is missing.
    pub auto_create: bool,
    /// How long a statement may take.
    pub statement_timeout: Span,
    /// Whether statements are prepared by name; `false` behind pgbouncer's transaction pooling.
    pub prepared_statements: bool,
    /// Which keys are rows; the first that matches wins.
    pub rules: Vec<RuleConfig>,
    /// Queries by name.
    pub queries: BTreeMap<String, QueryConfig>,
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            pool_max: 20,
            pool_min: 5,
            pool_idle: Span(Duration::from_secs(30)),
            pool_connect_timeout: Span(Duration::from_secs(2)),
            pool_retries: 3,
            batch_size: 100,
            flush_interval: Span(Duration::from_secs(5)),
            journal: JournalPlace::Local,
            journal_name: "journal".to_owned(),
            journal_fsync: JournalFsync::EverySecond,
            journal_max_size: Size(1 << 30),
            journal_max_age: Span(Duration::ZERO),
            auto_create: false,
            statement_timeout: Span(Duration::from_secs(30)),
            prepared_statements: true,
            rules: Vec::new(),
            queries: BTreeMap::new(),
        }
    }
}

/// A rule as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct RuleConfig {
    /// The keys that it concerns, as `user:{id}`.
    pub pattern: String,
    /// How the database takes part.
    #[serde(default)]
    pub mode: Mode,
    /// The table; the default table if absent.
    pub table: Option<String>,
    /// Captures to columns.
    #[serde(default)]
    pub key: BTreeMap<String, String>,
    /// Hash fields to columns.
    #[serde(default)]
    pub columns: BTreeMap<String, String>,
    /// The column of a string's value.
    pub value: Option<String>,
    /// The `jsonb` column that holds a hash as an object.
    pub json: Option<String>,
    /// The `bigint` column of the row's version.
    pub version: Option<String>,
    /// How long a loaded row stays in the cache; for ever if absent.
    pub ttl: Option<Span>,
    /// How long it is remembered that a row is absent; not at all if absent.
    pub negative_ttl: Option<Span>,
    /// What a TTL or an eviction does to the row.
    #[serde(default)]
    pub on_expire: OnExpire,
}

/// A named query as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct QueryConfig {
    /// The statement, with `$1`, `$2`, … for parameters.
    pub sql: String,
    /// How long its rows are cached; not at all if absent.
    pub ttl: Option<Span>,
    /// The tables whose change drops it from the cache.
    #[serde(default)]
    pub tables: Vec<String>,
}

/// How the database takes part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Rows are loaded at a miss, and never written.
    ReadThrough,
    /// A write is answered once the database committed it.
    WriteThrough,
    /// A write is answered once the journal has it.
    #[default]
    WriteBehind,
}

/// What a TTL or an eviction does to the row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnExpire {
    /// Nothing.
    #[default]
    Keep,
    /// It is deleted.
    Delete,
}

/// Where the journal is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalPlace {
    /// On this host's disk.
    #[default]
    Local,
    /// On the upstream.
    Upstream,
}

/// When the journal is synced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum JournalFsync {
    /// Before each reply.
    #[serde(rename = "always")]
    Always,
    /// Once a second.
    #[default]
    #[serde(rename = "everysec")]
    EverySecond,
    /// When the system does.
    #[serde(rename = "no")]
    No,
}

/// A time, as `"5s"`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A size, as `"64mb"`; a bare number is bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl Written {
    fn text(self) -> String {
        match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written =
            Written::deserialize(deserializer).map_err(|_| D::Error::custom("must be a time, as 10s"))?;
        parse_duration(&written.text()).map(Self).ok_or_else(|| D::Error::custom("must be a time, as 10s"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written =
            Written::deserialize(deserializer).map_err(|_| D::Error::custom("must be a size, as 64mb"))?;
        let bytes = parse_memory(&written.text()).and_then(|bytes| u64::try_from(bytes).ok());
        bytes.map(Self).ok_or_else(|| D::Error::custom("must be a size, as 64mb"))
    }
}

/// What is wrong in the section: the key with its place, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SectionError {
    /// As `database.rules 'user:{id}'` or `database.batch-size`.
    pub place: String,
    /// What is wrong.
    pub reason: String,
}

impl DatabaseConfig {
    /// Reads the section.
    ///
    /// # Errors
    /// The first thing that is wrong, and where.
    pub fn read(section: &toml::Table) -> Result<Self, SectionError> {
        let mut config = Self::default();
        for (key, value) in section {
            match key.as_str() {
                "rules" => config.rules = rules(value)?,
                "queries" => config.queries = queries(value)?,
                _ => config
                    .scalar(key, value.clone())
                    .map_err(|reason| fault(format!("database.{key}"), reason))?,
            }
        }
        config.sane()?;
        Ok(config)
    }

    /// Takes another address.
    ///
    /// # Errors
    /// It is none.
    pub fn set_url(&mut self, url: String) -> Result<(), SectionError> {
        self.url = url;
        self.sane()
    }

    fn scalar(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        match key {
            "url" => self.url = of(value)?,
            "pool-max" => self.pool_max = of(value)?,
            "pool-min" => self.pool_min = of(value)?,
            "pool-idle" => self.pool_idle = of(value)?,
            "pool-connect-timeout" => self.pool_connect_timeout = of(value)?,
            "pool-retries" => self.pool_retries = of(value)?,
            "batch-size" => self.batch_size = of(value)?,
            "flush-interval" => self.flush_interval = of(value)?,
            "journal" => self.journal = of(value)?,
            "journal-name" => self.journal_name = of(value)?,
            "journal-fsync" => self.journal_fsync = of(value)?,
            "journal-max-size" => self.journal_max_size = of(value)?,
            "journal-max-age" => self.journal_max_age = of(value)?,
            "auto-create" => self.auto_create = of(value)?,
            "statement-timeout" => self.statement_timeout = of(value)?,
            "prepared-statements" => self.prepared_statements = of(value)?,
            _ => return Err("unknown key".to_owned()),
        }
        Ok(())
    }

    fn sane(&self) -> Result<(), SectionError> {
        let zero = Duration::ZERO;
        for (key, is_bad, reason) in [
            ("pool-max", self.pool_max == 0, "must be at least 1"),
            ("pool-min", self.pool_min > self.pool_max, "must not be above pool-max"),
            ("pool-connect-timeout", self.pool_connect_timeout.0 == zero, "must not be 0"),
            ("pool-retries", self.pool_retries == 0, "must be at least 1"),
            ("batch-size", self.batch_size == 0 || self.batch_size > 100_000, "must be from 1 to 100000"),
            ("statement-timeout", self.statement_timeout.0 == zero, "must not be 0"),
            ("journal-max-size", self.journal_max_size.0 < 1 << 20, "must be at least 1mb"),
            ("url", !names_a_database(&self.url), "must begin with postgres:// or sqlite:"),
        ] {
            if is_bad {
                return Err(fault(format!("database.{key}"), reason.to_owned()));
            }
        }
        Ok(())
    }
}

fn names_a_database(url: &str) -> bool {
    ["postgres://", "postgresql://", "sqlite:"].iter().any(|scheme| url.starts_with(scheme))
}

fn of<T: serde::de::DeserializeOwned>(value: toml::Value) -> Result<T, String> {
    value.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn rules(value: &toml::Value) -> Result<Vec<RuleConfig>, SectionError> {
    let Some(list) = value.as_array() else {
        return Err(fault("database.rules".to_owned(), "must be written [[database.rules]]".to_owned()));
    };
    let read = |(index, rule): (usize, &toml::Value)| {
        let pattern = rule.get("pattern").and_then(toml::Value::as_str);
        let name = pattern.map_or_else(|| format!("number {}", index + 1), |pattern| format!("'{pattern}'"));
        // Key by key first, as an error of the whole would not tell which key it is about.
        of(rule.clone()).map_err(|reason| fault(format!("database.rules {name}{}", key_of(rule)), reason))
    };
    list.iter().enumerate().map(read).collect()
}

/// The first key of a rule that cannot be read by itself.
fn key_of(rule: &toml::Value) -> String {
    let Some(rule) = rule.as_table() else { return String::new() };
    let bad = rule.iter().find(|(key, value)| {
        if key.as_str() == "pattern" {
            return !value.is_str();
        }
        let mut alone = toml::Table::new();
        alone.insert("pattern".to_owned(), toml::Value::String("x".to_owned()));
        alone.insert((*key).clone(), (*value).clone());
        toml::Value::Table(alone).try_into::<RuleConfig>().is_err()
    });
    bad.map_or_else(String::new, |(key, _)| format!(", {key}"))
}

fn queries(value: &toml::Value) -> Result<BTreeMap<String, QueryConfig>, SectionError> {
    let Some(table) = value.as_table() else {
        return Err(fault(
            "database.queries".to_owned(),
            "must be written [database.queries.NAME]".to_owned(),
        ));
    };
    let read = |(name, query): (&String, &toml::Value)| {
        let query = of(query.clone()).map_err(|reason| fault(format!("database.queries.{name}"), reason))?;
        Ok((name.clone(), query))
    };
    table.iter().map(read).collect()
}

fn fault(place: String, reason: String) -> SectionError {
    SectionError { place, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<DatabaseConfig, SectionError> {
        let table: toml::Table = text.parse().unwrap();
        DatabaseConfig::read(&table)
    }

    #[test]
    fn a_full_section_is_read() {
        let config = read(
            r#"
            url = "postgres://localhost/app"
            pool-max = 10
            flush-interval = "250ms"
            journal-fsync = "always"
            journal-max-size = "64mb"
            journal-max-age = "1h"
            statement-timeout = 5
            [[rules]]
            pattern = "user:{id}"
            mode = "write-through"
            table = "users"
            key = { id = "id" }
            columns = { name = "name" }
            version = "ver"
            ttl = "5m"
            on-expire = "delete"
            [queries.top]
            sql = "select 1"
            tables = ["users"]
            "#,
        )
        .unwrap();
        assert_eq!((config.pool_max, config.pool_min), (10, 5));
        assert_eq!(config.flush_interval.0, Duration::from_millis(250));
        assert_eq!(config.journal_fsync, JournalFsync::Always);
        assert_eq!(config.journal_max_size.0, 64 << 20);
        assert_eq!(config.journal_max_age.0, Duration::from_secs(3600));
        assert_eq!(config.statement_timeout.0, Duration::from_secs(5));
        assert_eq!(config.rules[0].mode, Mode::WriteThrough);
        assert_eq!(config.rules[0].ttl.unwrap().0, Duration::from_secs(300));
        assert_eq!(config.rules[0].on_expire, OnExpire::Delete);
        assert_eq!(config.queries["top"].tables, ["users"]);
    }

    #[test]
    fn errors_name_rule_and_key() {
        for (text, place, reason) in [
            ("polo = 1", "database.polo", "unknown key"),
            ("pool-max = 'x'", "database.pool-max", "invalid type"),
            ("pool-max = 2", "database.pool-min", "above pool-max"),
            ("url = 'mysql://h'", "database.url", "must begin with"),
            ("pool-min = 1", "database.url", "must begin with"),
            ("batch-size = 0", "database.batch-size", "from 1"),
            ("flush-interval = 'soon'", "database.flush-interval", "a time"),
            ("journal-max-size = 'much'", "database.journal-max-size", "a size"),
            ("journal-fsync = 'maybe'", "database.journal-fsync", "unknown variant"),
            ("[[rules]]\npattern = 'a'\nmodus = 'x'", "database.rules 'a', modus", "unknown field"),
            ("[[rules]]\npattern = 'a'\nmode = 'x'", "database.rules 'a', mode", "unknown variant"),
            ("[[rules]]\npattern = 'a'\nttl = 'x'", "database.rules 'a', ttl", "a time"),
            ("[[rules]]\nmode = 'write-behind'", "database.rules number 1", "missing field `pattern`"),
            ("[queries.q]\nttl = 1", "database.queries.q", "missing field `sql`"),
            ("rules = 1", "database.rules", "[[database.rules]]"),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.place, place, "{text}");
            assert!(error.reason.contains(reason), "{text}: {}", error.reason);
        }
    }
}
