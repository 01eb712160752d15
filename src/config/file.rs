//! The configuration file, and how flags, environment, file and defaults come together.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::admin::Admin;
use super::arguments::Serve;
use super::database::DatabaseConfig;
use super::directives::Id;
use super::policies::{self, Policies};
use super::together::clash;
use super::units::parse_duration;
use super::upstream::{KeyRule, UpstreamConfig, read_keys};
use super::{Config, Io, LimitScope, Settings, Sharing};

/// What is wrong with the configuration: where, which key, and why.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}", path = path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no TOML.
    #[error("{path}: {message}", path = path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with the line.
        message: String,
    },
    /// A key or section that does not exist here.
    #[error("{path}, line {line}: unknown key '{key}'", path = path.display())]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The key, with its section.
        key: String,
    },
    /// A value that does not fit.
    #[error("{origin}: {key}: {reason}")]
    BadValue {
        /// File and line, or the flag.
        origin: String,
        /// The key.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// The sections, with the directives that belong to each.
pub(super) const SECTIONS: &[(&str, &[&str])] = &[
    (
        "server",
        &[
            "bind",
            "port",
            "unixsocket",
            "unixsocketperm",
            "threads",
            "io",
            "timeout",
            "maxclients",
            "requirepass",
            "aclfile",
            "tls-port",
            "tls-cert-file",
            "tls-key-file",
            "tls-ca-cert-file",
            "tls-auth-clients",
            "protected-mode",
            "tcp-keepalive",
            "tcp-backlog",
            "dir",
            "save",
            "dbfilename",
            "databases",
            "shutdown-timeout",
            "log-level",
            "log-format",
        ],
    ),
    (
        "memory",
        &[
            "maxmemory",
            "maxmemory-policy",
            "maxmemory-samples",
            "lfu-log-factor",
            "lfu-decay-time",
            "activedefrag",
            "active-defrag-ignore-bytes",
            "active-defrag-threshold-lower",
            "active-defrag-cycle-max",
        ],
    ),
    ("admin", &["listen", "token"]),
];

/// Collects values, the later ones over the earlier.
struct Loader {
    settings: Settings,
    log_json: bool,
    threads: Option<usize>,
    io: Io,
    shutdown_timeout: Duration,
    admin: Admin,
    policies: Policies,
    sharing: Sharing,
    /// Where the file says so.
    sharing_origin: String,
    database: Option<DatabaseConfig>,
    /// The URL of the flag, which wins over the file's.
    upstream_url: Option<String>,
    upstream: Option<UpstreamConfig>,
    keys: Vec<KeyRule>,
}

impl Config {
    /// Brings flags (which include the environment) and the file together.
    ///
    /// # Errors
    /// What is wrong, and where.
    pub fn load(flags: &Serve) -> Result<Self, ConfigError> {
        let mut loader = Loader::new();
        loader.upstream_url.clone_from(&flags.upstream);
        if let Some(path) = &flags.config {
            loader.file(path)?;
        }
        loader.flags(flags)?;
        loader.finish(flags.config.clone())
    }
}

/// The policies of a file, all of which must be right.
///
/// # Errors
/// What is wrong, and where.
pub fn read_policies(path: &Path) -> Result<Policies, ConfigError> {
    let mut loader = Loader::new();
    loader.file(path)?;
    Ok(loader.policies)
}

impl Loader {
    fn new() -> Self {
        Self {
            settings: Settings::default(),
            log_json: false,
            threads: None,
            io: Io::Auto,
            shutdown_timeout: Duration::from_secs(10),
            admin: Admin::default(),
            policies: Policies::new(),
            sharing: Sharing::default(),
            sharing_origin: String::new(),
            database: None,
            upstream_url: None,
            upstream: None,
            keys: Vec::new(),
        }
    }

    fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        for (section, content) in &table {
            let line = line_of(&text, section, None);
            let unknown = |key: String, line| ConfigError::UnknownKey { path: path.to_owned(), line, key };
            if section == "keys" {
                let line = text.lines().position(|line| line.trim() == "[[keys]]").map_or(line, |at| at + 1);
                let origin = format!("{}, line {line}", path.display());
                self.keys = read_keys(content).map_err(|reason| ConfigError::BadValue {
                    origin,
                    key: "keys".to_owned(),
                    reason,
                })?;
                continue;
            }
            let Some(entries) = content.as_table() else { return Err(unknown(section.clone(), line)) };
            if section == "ratelimit" {
                (self.policies, self.sharing) = policies::read(entries, &text, path)?;
                let line = line_of(&text, section, Some("scope"));
                self.sharing_origin = format!("{}, line {line}", path.display());
                continue;
            }
            if section == "upstream" {
                let read = UpstreamConfig::read(entries, self.upstream_url.as_deref());
                self.upstream = Some(read.map_err(|(key, reason)| {
                    let line = line_of(&text, section, entries.contains_key(&key).then_some(key.as_str()));
                    let origin = format!("{}, line {line}", path.display());
                    ConfigError::BadValue { origin, key: format!("upstream.{key}"), reason }
                })?);
                continue;
            }
            if section == "database" {
                self.database(path, &text, entries)?;
                continue;
            }
            let known = SECTIONS.iter().find(|(name, _)| name == section);
            if known.is_none() && section != "redis" {
                return Err(unknown(format!("[{section}]"), line));
            }
            for (key, value) in entries {
                let line = line_of(&text, section, Some(key));
                let fits = match known {
                    Some((_, keys)) => keys.contains(&key.as_str()),
                    None => Id::named(key).is_some(),
                };
                if !fits {
                    return Err(unknown(format!("{section}.{key}"), line));
                }
                let origin = format!("{}, line {line}", path.display());
                self.value(&origin, key, &as_text(value))?;
            }
        }
        Ok(())
    }

    fn database(&mut self, path: &Path, text: &str, entries: &toml::Table) -> Result<(), ConfigError> {
        let config = DatabaseConfig::read(entries).map_err(|error| {
            let key = error.place.strip_prefix("database.").filter(|key| entries.contains_key(*key));
            let line = line_of(text, "database", key);
            let origin = format!("{}, line {line}", path.display());
            ConfigError::BadValue { origin, key: error.place, reason: error.reason }
        })?;
        self.database = Some(config);
        Ok(())
    }

    fn flags(&mut self, flags: &Serve) -> Result<(), ConfigError> {
        if let Some(url) = &flags.database {
            let mut section = self.database.take().unwrap_or_default();
            section.set_url(url.clone()).map_err(|error| ConfigError::BadValue {
                origin: "flag or environment".to_owned(),
                key: "database".to_owned(),
                reason: error.reason,
            })?;
            self.database = Some(section);
        }
        if let Some(url) = &flags.upstream
            && self.upstream.is_none()
        {
            self.upstream = Some(UpstreamConfig::at(url).map_err(|reason| ConfigError::BadValue {
                origin: "--upstream".to_owned(),
                key: "upstream".to_owned(),
                reason,
            })?);
        }
        let bind = (!flags.bind.is_empty()).then(|| flags.bind.join(" "));
        for (key, value) in [
            ("bind", &bind),
            ("port", &flags.port),
            ("unixsocket", &flags.unixsocket),
            ("threads", &flags.threads),
            ("io", &flags.io),
            ("maxmemory", &flags.maxmemory),
            ("maxmemory-policy", &flags.maxmemory_policy),
            ("requirepass", &flags.requirepass),
            ("dir", &flags.dir),
            ("admin", &flags.admin),
            ("log-level", &flags.log_level),
            ("log-format", &flags.log_format),
        ] {
            if let Some(value) = value {
                self.value(&format!("--{key}"), key, value)?;
            }
        }
        Ok(())
    }

    fn value(&mut self, origin: &str, key: &str, value: &str) -> Result<(), ConfigError> {
        self.try_value(key, value).map_err(|reason| ConfigError::BadValue {
            origin: origin.to_owned(),
            key: key.to_owned(),
            reason,
        })
    }

    fn try_value(&mut self, key: &str, value: &str) -> Result<(), String> {
        let id = match key {
            "log-format" => {
                self.log_json = match value {
                    "text" => false,
                    "json" => true,
                    _ => return Err("must be text or json".to_owned()),
                };
                return Ok(());
            }
            "io" => {
                self.io = match value {
                    "auto" => Io::Auto,
                    "io_uring" => Io::Uring,
                    "epoll" => Io::Epoll,
                    _ => return Err("must be auto, io_uring or epoll".to_owned()),
                };
                return Ok(());
            }
            "shutdown-timeout" => {
                self.shutdown_timeout = parse_duration(value).ok_or("must be a time, as 10s")?;
                return self.settings.load(Id::ShutdownTimeout, &self.shutdown_timeout.as_secs().to_string());
            }
            "admin" | "listen" => return self.admin.set_listen(value),
            "token" => {
                self.admin.set_token(value);
                return Ok(());
            }
            "log-level" => Id::Loglevel,
            _ => Id::named(key).ok_or("unknown key")?,
        };
        if id == Id::Threads {
            self.threads = value.parse().ok();
        }
        self.settings.load(id, value)
    }

    fn finish(self, file: Option<PathBuf>) -> Result<Config, ConfigError> {
        if self.upstream.is_none() && self.sharing.scope(false) != LimitScope::Local {
            return Err(ConfigError::BadValue {
                origin: self.sharing_origin,
                key: "ratelimit.scope".to_owned(),
                reason: "limits over all hosts need an upstream, and there is none".to_owned(),
            });
        }
        if let Some(database) = &self.database
            && let Some((key, reason)) = clash(database, self.upstream.as_ref())
        {
            let origin = file.as_ref().map_or("flags".to_owned(), |path| path.display().to_string());
            return Err(ConfigError::BadValue { origin, key, reason: reason.to_owned() });
        }
        let settings = self.settings;
        let bind = settings.text(Id::Bind);
        let bind = bind.split_whitespace().map(|address| {
            let plain = address.trim_start_matches('-');
            let plain = if plain == "localhost" {
                "127.0.0.1"
            } else if plain == "*" {
                "0.0.0.0"
            } else {
                plain
            };
            plain.parse().map_err(|_| ConfigError::BadValue {
                origin: "bind".to_owned(),
                key: address.to_owned(),
                reason: "is no IP address".to_owned(),
            })
        });
        let bind = bind.collect::<Result<_, _>>()?;
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = self.threads.unwrap_or(cores);
        if let Err(reason) = settings.load(Id::Threads, &threads.to_string()) {
            return Err(ConfigError::BadValue {
                origin: "threads".to_owned(),
                key: threads.to_string(),
                reason,
            });
        }
        let unixsocket = settings.text(Id::Unixsocket);
        Ok(Config {
            bind,
            port: settings.int(Id::Port) as u16,
            unixsocket: (!unixsocket.is_empty()).then(|| PathBuf::from(&*unixsocket)),
            threads,
            io: self.io,
            dir: PathBuf::from(&*settings.text(Id::Dir)),
            shutdown_timeout: self.shutdown_timeout,
            log_level: settings.shown(Id::Loglevel),
            log_json: self.log_json,
            file,
            database: self.database,
            upstream: self.upstream,
            keys: self.keys,
            settings: Arc::new(settings),
            admin: self.admin,
            policies: self.policies,
            sharing: self.sharing,
        })
    }
}

/// A value of a document being edited, as the text that a flag would give.
pub(super) fn text_of(value: &toml_edit::Value) -> String {
    match value {
        toml_edit::Value::String(text) => text.value().clone(),
        toml_edit::Value::Boolean(value) => if *value.value() { "yes" } else { "no" }.to_owned(),
        toml_edit::Value::Integer(value) => value.value().to_string(),
        toml_edit::Value::Array(values) => values.iter().map(text_of).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// A value as the text that a flag would give.
fn as_text(value: &toml::Value) -> String {
    match value {
        toml::Value::String(text) => text.clone(),
        toml::Value::Boolean(value) => if *value { "yes" } else { "no" }.to_owned(),
        toml::Value::Array(values) => values.iter().map(as_text).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}

/// The line of a section or of a key in it, from 1.
pub(super) fn line_of(text: &str, section: &str, key: Option<&str>) -> usize {
    let mut in_section = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_section = line.trim_matches(['[', ']']).trim() == section;
            if in_section && key.is_none() {
                return index + 1;
            }
        } else if in_section
            && let Some(key) = key
            && line.split('=').next().is_some_and(|name| name.trim().trim_matches('"') == key)
        {
            return index + 1;
        } else if key.is_none() && line.split('=').next().is_some_and(|name| name.trim() == section) {
            return index + 1;
        }
    }
    1
}
