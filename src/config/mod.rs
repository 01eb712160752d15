//! Configuration: flags, environment, file, and the directives that `CONFIG GET` and `CONFIG SET` know.

mod admin;
pub mod arguments;
pub mod database;
mod directives;
mod file;
mod limits;
mod policies;
mod replace;
mod rewrite;
mod settings;
mod sharing;
mod together;
pub mod units;
pub mod upstream;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use admin::{Admin, Secret};
pub use directives::{Id, Policy};
pub use file::{ConfigError, read_policies};
pub use limits::{OutputLimit, OutputLimits, SavePoint};
pub use policies::{Algorithm, Policies, Policy as RatePolicy, Rule, RuleError, Rules};
pub use replace::replace_file;
pub use rewrite::{RewriteError, rewrite};
pub use settings::{SetError, Settings};
pub use sharing::{LimitScope, OnLimitFailure, Sharing};

/// How client sockets are read and written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Io {
    /// By io_uring where this system has it and lets the server use it, or else as `Epoll`.
    #[default]
    Auto,
    /// By io_uring, or not at all.
    Uring,
    /// By epoll, and a call for each read and write.
    Epoll,
}

/// What the server is started with.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses to listen on.
    pub bind: Vec<IpAddr>,
    /// The TCP port; 0 for none.
    pub port: u16,
    /// The Unix socket's path.
    pub unixsocket: Option<PathBuf>,
    /// Worker threads.
    pub threads: usize,
    /// How sockets are read and written.
    pub io: Io,
    /// Where files are kept.
    pub dir: PathBuf,
    /// How long stopping may take.
    pub shutdown_timeout: Duration,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: String,
    /// Whether the log is JSON.
    pub log_json: bool,
    /// The file it came from.
    pub file: Option<PathBuf>,
    /// The section `[database]`, if the file has one.
    pub database: Option<database::DatabaseConfig>,
    /// The section `[upstream]`, if there is one.
    pub upstream: Option<upstream::UpstreamConfig>,
    /// Keys that live elsewhere than the others.
    pub keys: Vec<upstream::KeyRule>,
    /// The directives.
    pub settings: Arc<Settings>,
    /// The admin HTTP server.
    pub admin: Admin,
    /// The rate limits' policies.
    pub policies: Policies,
    /// Whom rate limits count.
    pub sharing: Sharing,
}
