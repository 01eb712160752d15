//! The way to the server: its address, the pool, and what each connection is told at its start.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Hook, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::classify::{failure, text_of};
use super::tls::{self, Verify};
use crate::config::database::{DatabaseConfig, JournalPlace};
use crate::tiers::database::store::{Failure, SetupError};

/// Between two attempts to connect.
const PAUSE: Duration = Duration::from_millis(200);

/// How to reach the server; cheap to clone.
#[derive(Clone)]
pub(super) struct Connections(Arc<Inner>);

struct Inner {
    pool: Pool,
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
    origin: String,
    connect_timeout: Duration,
    statement_timeout: Duration,
    retries: u32,
    is_prepared: bool,
    idle: Duration,
    min: usize,
    is_kept: AtomicBool,
}

impl Connections {
    pub(super) fn new(section: &DatabaseConfig) -> Result<Self, SetupError> {
        let (config, tls) = address(section).map_err(SetupError::Address)?;
        // Hosts that flush for each other begin with the same name.
        let group = (section.journal == JournalPlace::Upstream).then(|| format!("{}/", section.journal_name));
        let mut nonce = format!("{}anteroom-", group.unwrap_or_default());
        nonce.extend(std::iter::repeat_with(fastrand::alphanumeric).take(16));
        let settings = settings(section.statement_timeout.0, &nonce, "SESSION");
        let manager_config = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), tls.clone(), manager_config);
        let mut builder = Pool::builder(manager)
            .max_size(section.pool_max)
            .runtime(Runtime::Tokio1)
            .create_timeout(Some(section.pool_connect_timeout.0))
            .recycle_timeout(Some(section.pool_connect_timeout.0))
            .wait_timeout(Some(section.statement_timeout.0));
        if section.prepared_statements {
            builder = builder.post_create(Hook::async_fn(move |client, _| {
                let settings = settings.clone();
                Box::pin(async move {
                    client.batch_execute(&settings).await.map_err(deadpool_postgres::HookError::Backend)
                })
            }));
        }
        let pool = builder.build().map_err(|error| SetupError::Address(error.to_string()))?;
        Ok(Self(Arc::new(Inner {
            pool,
            config,
            tls,
            origin: nonce,
            connect_timeout: section.pool_connect_timeout.0,
            statement_timeout: section.statement_timeout.0,
            retries: section.pool_retries,
            is_prepared: section.prepared_statements,
            idle: section.pool_idle.0,
            min: section.pool_min,
            is_kept: AtomicBool::new(false),
        })))
    }

    /// A connection of the pool.
    pub(super) async fn get(&self) -> Result<Object, Failure> {
        let mut left = self.0.retries.max(1);
        loop {
            left -= 1;
            let why = match self.0.pool.get().await {
                Ok(client) => return Ok(client),
                Err(PoolError::Timeout(kind)) => format!("no connection in time ({kind:?})"),
                Err(PoolError::Backend(error)) => text_of(&error),
                Err(error) => error.to_string(),
            };
            if left == 0 {
                return Err(Failure::Transient(why));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// A connection outside of the pool, with what brings its messages.
    pub(super) async fn alone(
        &self,
    ) -> Result<(tokio_postgres::Client, tokio_postgres::Connection<tokio_postgres::Socket, Stream>), Failure>
    {
        let connecting = self.0.config.connect(self.0.tls.clone());
        match tokio::time::timeout(self.0.connect_timeout, connecting).await {
            Ok(connected) => connected.map_err(|error| failure(&error)),
            Err(_) => Err(Failure::Transient("no connection in time".to_owned())),
        }
    }

    /// Whether the server answers a new connection in time: what a statement that takes long asks, as a server that
    /// hangs keeps its connections open.
    pub(super) async fn answers(&self) -> bool {
        let probe = async {
            let (client, connection) = self.0.config.connect(self.0.tls.clone()).await?;
            tokio::select! {
                ended = connection => ended,
                answer = client.simple_query("SELECT 1") => answer.map(drop),
            }
        };
        // An error is an answer too, as "too many connections"; silence and a dead link are not.
        match tokio::time::timeout(self.0.connect_timeout, probe).await {
            Ok(Ok(())) => true,
            Ok(Err(error)) => error.as_db_error().is_some(),
            Err(_) => false,
        }
    }

    /// Opens the connections that are kept, and closes those above that are idle, as long as the pool is there.
    pub(super) fn keep(&self) {
        if self.0.is_kept.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, idle, min) = (self.0.pool.weak(), self.0.idle, self.0.min);
        tokio::spawn(async move {
            let Some(strong) = pool.upgrade() else { return };
            let mut kept = Vec::new();
            for _ in 0..min {
                // Those that fail are opened when they are needed.
                if let Ok(client) = strong.get().await {
                    kept.push(client);
                }
            }
            drop(kept);
            drop(strong);
            loop {
                tokio::time::sleep(idle.max(Duration::from_secs(2)) / 2).await;
                let Some(pool) = pool.upgrade() else { return };
                let mut surplus = pool.status().size.saturating_sub(min);
                pool.retain(|_, metrics| {
                    let is_idle = surplus > 0 && metrics.last_used() >= idle;
                    surplus -= usize::from(is_idle);
                    !is_idle
                });
            }
        });
    }

    /// What every transaction is told, where a session cannot be.
    pub(super) fn local_settings(&self) -> String {
        if self.0.is_prepared {
            String::new()
        } else {
            settings(self.0.statement_timeout, &self.0.origin, "LOCAL")
        }
    }

    /// Whether statements are prepared by name.
    pub(super) fn is_prepared(&self) -> bool {
        self.0.is_prepared
    }

    /// What our own writes are known by.
    pub(super) fn origin(&self) -> &str {
        &self.0.origin
    }

    pub(super) fn statement_timeout(&self) -> Duration {
        self.0.statement_timeout
    }
}

/// The stream under a TLS connection.
pub(super) type Stream =
    <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<tokio_postgres::Socket>>::Stream;

/// Dates and floats as text have to be the same whatever the server's defaults are.
fn settings(timeout: Duration, origin: &str, scope: &str) -> String {
    let millis = timeout.as_millis();
    format!(
        "SET {scope} statement_timeout = {millis}; SET {scope} \"anteroom.origin\" = '{origin}'; \
         SET {scope} datestyle = 'ISO, YMD'; SET {scope} timezone = 'UTC'; SET {scope} bytea_output = 'hex'; \
         SET {scope} extra_float_digits = 1; SET {scope} intervalstyle = 'postgres';"
    )
}

/// The address, with the parameters that the client library does not know taken out.
fn address(section: &DatabaseConfig) -> Result<(tokio_postgres::Config, MakeRustlsConnect), String> {
    let (base, query) = section.url.split_once('?').unwrap_or((&section.url, ""));
    let (mut mode, mut root_file, mut kept) = (None, None, Vec::new());
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=') {
            Some(("sslmode", value)) => mode = Some(value),
            Some(("sslrootcert", value)) => root_file = Some(value),
            _ => kept.push(parameter),
        }
    }
    let url = if kept.is_empty() { base.to_owned() } else { format!("{base}?{}", kept.join("&")) };
    let mut config: tokio_postgres::Config =
        url.parse().map_err(|error: tokio_postgres::Error| text_of(&error))?;
    let is_here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    let (ssl_mode, verify) = match mode {
        None if config.get_hosts().iter().all(is_here) => (SslMode::Disable, Verify::Full),
        None | Some("require" | "verify-full") => (SslMode::Require, Verify::Full),
        Some("disable") => (SslMode::Disable, Verify::Full),
        Some("prefer") => (SslMode::Prefer, Verify::Full),
        Some("verify-ca") => (SslMode::Require, Verify::Issuer),
        Some("no-verify") => (SslMode::Require, Verify::Nothing),
        Some(other) => {
            return Err(format!(
                "sslmode={other} is none of disable, prefer, require, verify-ca, verify-full and no-verify"
            ));
        }
    };
    config.ssl_mode(ssl_mode).connect_timeout(section.pool_connect_timeout.0);
    config
        .keepalives(true)
        .keepalives_idle(Duration::from_secs(5))
        .keepalives_interval(Duration::from_secs(2));
    config.keepalives_retries(3).tcp_user_timeout(Duration::from_secs(10));
    if config.get_application_name().is_none() {
        config.application_name("anteroom");
    }
    Ok((config, MakeRustlsConnect::new(tls::config(verify, root_file)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(url: &str) -> Result<SslMode, String> {
        let section = DatabaseConfig { url: url.to_owned(), ..DatabaseConfig::default() };
        address(&section).map(|(config, _)| config.get_ssl_mode())
    }

    #[test]
    fn other_hosts_are_verified_by_default() {
        assert_eq!(mode("postgres://db.example.com/app"), Ok(SslMode::Require));
        assert_eq!(mode("postgres://127.0.0.1/app"), Ok(SslMode::Disable));
        assert_eq!(mode("postgres://localhost/app?sslmode=verify-full"), Ok(SslMode::Require));
        assert_eq!(mode("postgres://a/app?sslmode=prefer&application_name=x"), Ok(SslMode::Prefer));
        assert_eq!(mode("postgres:///app?host=/run/postgresql"), Ok(SslMode::Disable));
        assert!(mode("postgres://a/app?sslmode=maybe").unwrap_err().contains("none of"));
        assert!(mode("postgres://a/app?sslrootcert=/missing.pem").unwrap_err().contains("/missing.pem"));
        assert!(mode("mysql://a/app").is_err());
    }
}
