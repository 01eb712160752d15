//! The admin HTTP server:
//!
//! - `/healthz`: the process is alive; `/readyz`: clients are served
//! - `/metrics`: for Prometheus
//! - `/admin/performance`: figures as JSON; `/`: a page that shows them live
//! - `/ratelimit/POLICY/SUBJECT`: a rate limit check for proxies
//!
//! It has a thread of its own, so that it answers however busy the workers are. Whatever takes locks of the keyspace runs
//! on a few threads beside it, so that health does not wait for a command that takes long.

mod check;
mod figures;
mod metrics;
mod performance;
mod ratelimit;
mod routes;
mod socket;

use anyhow::Context;

use crate::instance::Instance;

/// Descriptors that its connections may take.
pub const DESCRIPTORS: usize = socket::MAX_CONNECTIONS;

/// Threads that gather figures and check limits.
const THREADS: usize = 4;

/// Starts it, if it is not off.
///
/// # Errors
/// If it cannot listen or a thread cannot be started.
pub fn start(instance: &'static Instance) -> anyhow::Result<()> {
    let admin = &instance.config.admin;
    let Some(address) = admin.listen else { return Ok(()) };
    let socket = std::net::TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address} for the admin server (--admin)"))?;
    socket.set_nonblocking(true)?;
    if !address.ip().is_loopback() && admin.token.is_none() {
        tracing::warn!(%address, "the admin server is open to other hosts and wants no token");
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .thread_name("admin-work")
        .build()?;
    std::thread::Builder::new().name("admin".to_owned()).spawn(move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(socket)?;
            axum::serve(socket::Bounded::new(listener), routes::router(instance)).await
        });
        if let Err(error) = served {
            tracing::error!(%error, "the admin server ended");
        }
    })?;
    tracing::info!(%address, "admin server");
    Ok(())
}
