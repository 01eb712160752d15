//! The life of the server: listen, serve, end in good order.

use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::cron;
use super::listener::Listeners;
use super::notify;
use super::ring::Ring;
use super::workers::{self, Workers};
use crate::clock;
use crate::config::{self, Config, Io};
use crate::instance::Instance;
use crate::snapshots::Contents;
use crate::tiers::database;
use crate::tiers::database::rules::Rules;
use crate::tiers::database::shared::Shared;
use crate::tiers::database::tier::{StartError, Tier};
use crate::tiers::database::write_behind::{Running, WriteBehind};
use crate::types::rdb;

/// Runs the server until it is told to end.
///
/// # Errors
/// If it cannot start.
pub fn run(config: Config) -> anyhow::Result<()> {
    let threads = config.threads;
    anyhow::ensure!(
        config.keys.is_empty() || config.upstream.is_some(),
        "[[keys]] says which keys are exceptions to what an upstream does, and there is none"
    );
    let instance = Instance::start(config)?;
    if let Some(upstream) = instance.upstream.as_ref().filter(|_| !workers::hosts_links(threads)) {
        upstream.start()?;
    }
    crate::commands::acl::load_users(&instance.acl, &instance.settings)?;
    crate::engine::start_apart(instance)?;
    let database = start_database(instance)?;
    start_snapshots(instance)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        crate::admin::start(instance)?;
        super::descriptors::fit(instance);
        let listeners = Listeners::open(instance)?;
        if uses_io_uring(instance.config.io)? {
            instance.use_io_uring();
        }
        let mut workers = Workers::start(instance, threads)?;
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        let addresses = listeners.addresses().join(", ");
        let io = if instance.uses_io_uring() { "io_uring" } else { "epoll" };
        tracing::info!(%addresses, threads, io, "ready to accept connections");
        instance.begin_serving();
        notify::tell("READY=1");
        let cron = cron::run(instance);
        tokio::pin!(cron);
        loop {
            tokio::select! {
                () = listeners.accept(instance, &mut workers) => {}
                () = &mut cron => {}
                _ = hangup.recv() => reload(instance),
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                () = instance.stopped() => break,
            }
        }
        // Readiness goes off first: no proxy is to send to a port that has closed.
        instance.stop();
        notify::tell("STOPPING=1");
        drop(listeners);
        stop(instance, workers, database);
        if !workers::hosts_links(threads) {
            crate::engine::give_leases_back(instance, true).await;
        }
        anyhow::Ok(())
    })
}

/// Whether sockets are to be read and written by io_uring.
fn uses_io_uring(io: Io) -> anyhow::Result<bool> {
    use anyhow::Context;
    if io == Io::Epoll {
        return Ok(false);
    }
    match (io, Ring::probe()) {
        (_, Ok(())) => Ok(true),
        (Io::Uring, Err(error)) => {
            Err(error).context("io_uring cannot be used here (io = \"epoll\" does without)")
        }
        (_, Err(error)) => {
            tracing::info!(%error, "io_uring cannot be used here: epoll is");
            Ok(false)
        }
    }
}

/// Loads the last snapshot, and has others written. A near cache has none: its Redis knows better.
fn start_snapshots(instance: &'static Instance) -> anyhow::Result<()> {
    if instance.upstream.is_some() {
        return Ok(());
    }
    let contents = Contents {
        keyspace: &instance.keyspace,
        libraries: &instance.libraries,
        settings: instance.settings.clone(),
        redis_version: crate::commands::REDIS_VERSION,
    };
    instance.snapshots.start(contents)?;
    let database = instance.database();
    let libraries = instance.snapshots.load(|key| database.is_some_and(|tier| tier.is_row(key)))?;
    if !libraries.is_empty() {
        let payload = rdb::encode_libraries(libraries.iter().map(|source| &source[..]));
        let reply = crate::engine::run_own(instance, &[b"FUNCTION", b"RESTORE", &payload]);
        let reply = String::from_utf8_lossy(&reply).trim_end().to_owned();
        anyhow::ensure!(reply == "+OK", "the functions of the snapshot cannot be loaded: {reply}");
    }
    Ok(())
}

/// Writes the last snapshot, if `SHUTDOWN` or the schedule wants one.
fn write_last_snapshot(instance: &'static Instance) {
    let is_scheduled = !instance.settings.save_points().is_empty();
    if instance.upstream.is_none()
        && instance.last_snapshot.lock().unwrap_or(is_scheduled)
        && let Err(error) = instance.snapshots.save_last()
    {
        tracing::error!(%error, "no snapshot of the end");
    }
}

/// Starts the database tier, if there is to be one, and puts it behind the keyspace.
fn start_database(instance: &'static Instance) -> Result<Option<Running>, StartError> {
    let Some(section) = instance.config.database.clone() else { return Ok(None) };
    let directory = instance.config.dir.join("journal");
    let upstream = instance.upstream.clone();
    let host = (instance.run_id.clone(), instance.settings.clone());
    let running = Running::start(move || async move {
        let rules = Arc::new(Rules::compile(&section)?);
        let store = database::open(&section, rules.clone())?;
        Ok(match upstream {
            None => WriteBehind::local(Tier::open(&section, &directory, store, rules).await?),
            Some(upstream) => {
                WriteBehind::shared(Shared::open(&section, store, rules, upstream, host).await?)
            }
        })
    })?;
    instance.attach_database(running.tier);
    if let WriteBehind::Local(tier) = running.tier {
        tier.follow(&instance.keyspace);
    }
    Ok(Some(running))
}

/// Puts the policies of the file into force as they are now; a file with a fault changes nothing.
fn reload(instance: &'static Instance) {
    let Some(path) = &instance.config.file else {
        tracing::warn!("there is no configuration file to read again");
        return;
    };
    match config::read_policies(path) {
        Ok(policies) => {
            instance.limits.replace(&policies);
            tracing::info!(policies = policies.len(), "rate limit policies were read again");
        }
        Err(error) => tracing::error!(%error, "rate limit policies stay as they were"),
    }
}

/// Ends the connections, idle ones at once, busy ones when their replies are out, within the time for it.
fn stop(instance: &'static Instance, workers: Workers, database: Option<Running>) {
    tracing::info!("stopping: no new connections, running commands end");
    let deadline = clock::monotonic() + instance.config.shutdown_timeout;
    let finished = std::thread::spawn(move || workers.finish());
    while !finished.is_finished() && clock::monotonic() < deadline {
        // Told again and again: a connection that was being set up may have missed it.
        for client in instance.clients.list() {
            client.wake();
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    if !finished.is_finished() {
        tracing::warn!(clients = instance.clients.len(), "clients did not take their replies in time");
    }
    if let Some(database) = database {
        database.stop(deadline);
    }
    write_last_snapshot(instance);
    tracing::info!("stopped");
}
