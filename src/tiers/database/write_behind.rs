//! The database tier in either form: with the journal of this host, behind the local keyspace, or with one that all hosts
//! have upstream, behind the Redis there.

use std::time::{Duration, Instant};

use super::backend::{Backend, Journaled};
use super::shared::Shared;
use super::status::Status;
use super::store::Failure;
use super::tier::{StartError, Tier};
use crate::clock;

/// A form of the tier.
#[derive(Clone, Copy)]
pub enum WriteBehind {
    /// This host's own.
    Local(&'static Tier),
    /// All hosts'.
    Shared(&'static Shared),
}

impl WriteBehind {
    /// This host's own. It lives as long as the process.
    pub fn local(tier: Tier) -> Self {
        Self::Local(Box::leak(Box::new(tier)))
    }

    /// All hosts'. It lives as long as the process.
    pub fn shared(shared: Shared) -> Self {
        Self::Shared(Box::leak(Box::new(shared)))
    }

    /// The database, and what of this host's waits for it.
    pub fn backend(self) -> &'static Backend {
        match self {
            Self::Local(tier) => &tier.backend,
            Self::Shared(shared) => &shared.backend,
        }
    }

    fn journaled(self) -> &'static dyn Journaled {
        match self {
            Self::Local(tier) => tier,
            Self::Shared(shared) => shared,
        }
    }

    /// Flushes what was accepted until now, by any host; says whether it was done in time.
    ///
    /// # Errors
    /// It cannot be known: upstream is away.
    pub async fn flush(self, timeout: Option<Duration>) -> Result<bool, Failure> {
        match self {
            Self::Local(tier) => Ok(tier.backend.flush(timeout).await),
            Self::Shared(shared) => shared.flush(timeout).await,
        }
    }

    /// How many changes wait.
    pub fn depth(self) -> usize {
        match self {
            Self::Local(tier) => tier.backend.depth().0,
            Self::Shared(shared) => shared.depth(),
        }
    }

    /// How it is.
    pub fn status(self) -> Status {
        match self {
            Self::Local(tier) => tier.status(),
            Self::Shared(shared) => shared.status(),
        }
    }
}

/// A running tier.
pub struct Running {
    /// The tier.
    pub tier: WriteBehind,
    thread: std::thread::JoinHandle<()>,
}

impl Running {
    /// Starts the thread `flusher` with its runtime, opens the tier on it, and flushes until [`Running::stop`].
    ///
    /// # Errors
    /// Why the tier cannot start.
    pub fn start<F>(open: impl FnOnce() -> F + Send + 'static) -> Result<Self, StartError>
    where
        F: Future<Output = Result<WriteBehind, StartError>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (opened, result) = std::sync::mpsc::channel();
        let thread = std::thread::Builder::new().name("flusher".to_owned()).spawn(move || {
            runtime.block_on(async move {
                let tier = open().await;
                let running = tier.as_ref().ok().copied();
                // Its receiver waits right below.
                drop(opened.send(tier));
                if let Some(tier) = running {
                    let backend = tier.backend();
                    match tier {
                        WriteBehind::Local(tier) => drop(tokio::spawn(tier.watch_age())),
                        WriteBehind::Shared(shared) => drop(tokio::spawn(shared.run())),
                    }
                    tokio::spawn(backend.readiness.seek(&*backend.store));
                    backend.run_flusher(tier.journaled()).await;
                }
            });
        })?;
        match result.recv() {
            Ok(tier) => Ok(Self { tier: tier?, thread }),
            Err(_) => Err(std::io::Error::other("the flusher's thread panicked").into()),
        }
    }

    /// Flushes what is left, until the deadline, and closes the journal, which keeps the rest.
    pub fn stop(self, deadline: Instant) {
        let backend = self.tier.backend();
        match self.tier {
            WriteBehind::Local(_) => backend.stop_flusher(),
            WriteBehind::Shared(shared) => drop(backend.runtime.spawn(shared.finish())),
        }
        while !self.thread.is_finished() && clock::monotonic() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let (left, _) = self.tier.backend().depth();
        if left > 0 {
            tracing::warn!(changes = left, "not flushed in time: they stay in the journal");
        }
        if let WriteBehind::Local(tier) = self.tier
            && let Err(error) = tier.journal.close()
        {
            tracing::error!(%error, "the journal did not end in order");
        }
    }
}
