//! The command line; every flag has an environment variable too.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// A Redis-compatible caching server that runs beside an application.
#[derive(Debug, Parser)]
#[command(name = "anteroom", version)]
pub struct Arguments {
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// What to serve.
    #[command(flatten)]
    pub serve: Serve,
}

/// What to do instead of serving.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Validate a configuration file: exit 0, or say what is wrong and exit 1.
    Check {
        /// The file.
        #[arg(long)]
        config: PathBuf,
    },
    /// Look at the journal of what the database has yet to get.
    Journal {
        /// What to do.
        #[command(subcommand)]
        what: JournalWork,
    },
    /// Print SQL for the database of a configuration file.
    Sql {
        /// What to print.
        #[command(subcommand)]
        what: Sql,
    },
}

/// What to do with a journal.
#[derive(Debug, Subcommand)]
pub enum JournalWork {
    /// Print what is in it: the keys of its records, not their values. Exit 2 if places cannot be read.
    Inspect {
        /// Its directory.
        dir: PathBuf,
    },
    /// Have a damaged journal go on without what is lost, which is told; copies of the damaged files are kept. The server
    /// must not run.
    Repair {
        /// Its directory.
        dir: PathBuf,
    },
}

/// SQL to print.
#[derive(Debug, Subcommand)]
pub enum Sql {
    /// The triggers that tell the cache of rows that others change.
    Triggers {
        /// The configuration file.
        #[arg(long)]
        config: PathBuf,
    },
}

/// The flags.
#[derive(Debug, Default, Args)]
pub struct Serve {
    /// The configuration file.
    #[arg(long, env = "ANTEROOM_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// An address to listen on; may be repeated.
    #[arg(long, env = "ANTEROOM_BIND", value_name = "ADDR", value_delimiter = ' ')]
    pub bind: Vec<String>,
    /// The TCP port; 0 for none.
    #[arg(long, env = "ANTEROOM_PORT")]
    pub port: Option<String>,
    /// A Unix socket to listen on.
    #[arg(long, env = "ANTEROOM_UNIXSOCKET", value_name = "PATH")]
    pub unixsocket: Option<String>,
    /// Worker threads.
    #[arg(long, env = "ANTEROOM_THREADS", value_name = "N")]
    pub threads: Option<String>,
    /// How sockets are read and written: auto, io_uring or epoll.
    #[arg(long, env = "ANTEROOM_IO", value_name = "auto|io_uring|epoll")]
    pub io: Option<String>,
    /// The memory limit, as 100mb; 0 for none.
    #[arg(long, env = "ANTEROOM_MAXMEMORY", value_name = "SIZE")]
    pub maxmemory: Option<String>,
    /// Which keys go when the limit is reached.
    #[arg(long, env = "ANTEROOM_MAXMEMORY_POLICY", value_name = "P")]
    pub maxmemory_policy: Option<String>,
    /// The password clients must give.
    #[arg(long, env = "ANTEROOM_REQUIREPASS", value_name = "S", hide_env_values = true)]
    pub requirepass: Option<String>,
    /// Where files are kept.
    #[arg(long, env = "ANTEROOM_DIR")]
    pub dir: Option<String>,
    /// The database behind the cache.
    #[arg(long, env = "ANTEROOM_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: Option<String>,
    /// The Redis behind the near cache, as redis://host:6379.
    #[arg(long, env = "ANTEROOM_UPSTREAM", value_name = "URL", hide_env_values = true)]
    pub upstream: Option<String>,
    /// Where the admin HTTP server listens.
    #[arg(long, env = "ANTEROOM_ADMIN", value_name = "ADDR:PORT|off")]
    pub admin: Option<String>,
    /// error, warn, info, debug or trace.
    #[arg(long, env = "ANTEROOM_LOG_LEVEL", value_name = "L")]
    pub log_level: Option<String>,
    /// text or json.
    #[arg(long, env = "ANTEROOM_LOG_FORMAT", value_name = "F")]
    pub log_format: Option<String>,
}
