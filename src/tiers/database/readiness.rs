//! Whether the database was seen to be as the rules want it. At a first start it must be; at a later one it may be away, so
//! that a host which ends during an outage comes back and goes on taking writes.
//!
//! Invariant: until then nothing is read from it or written to it, and what was accepted stays in the journal.

use std::time::Duration;

use parking_lot::RwLock;
use tokio::sync::watch;

use super::store::{SetupError, Store};
use super::tier::StartError;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Versions given while the database could not be asked for its highest are this many to a millisecond, from the epoch on:
/// above all that were counted up, whoever did so.
const VERSIONS_EACH_MS: u64 = 1 << 12;

/// The lowest version to be given at `now_ms` while the database's highest is unknown.
pub fn version_floor(now_ms: u64) -> u64 {
    now_ms * VERSIONS_EACH_MS
}

/// Whether the database is as it should be, or why it is not known to be.
#[derive(Debug)]
pub struct Readiness {
    ready: watch::Sender<bool>,
    fault: RwLock<Option<String>>,
}

impl Readiness {
    /// It is as it should be.
    pub fn checked() -> Self {
        Self { ready: watch::channel(true).0, fault: RwLock::new(None) }
    }

    /// It could not be asked.
    pub fn away(fault: String) -> Self {
        Self { ready: watch::channel(false).0, fault: RwLock::new(Some(fault)) }
    }

    /// Why it is not known to be as it should be.
    pub fn fault(&self) -> Option<String> {
        self.fault.read().clone()
    }

    /// Whether it is as it should be.
    pub fn is_ready(&self) -> bool {
        *self.ready.borrow()
    }

    /// Resolves when it is.
    pub async fn ready(&self) {
        // The sender lives as long as this.
        drop(self.ready.subscribe().wait_for(|ready| *ready).await);
    }

    /// Keeps why it is not known to be as it should be; says whether that is news.
    fn note(&self, why: &str) -> bool {
        let mut fault = self.fault.write();
        let is_news = fault.as_deref() != Some(why);
        *fault = Some(why.to_owned());
        is_news
    }

    /// Asks until it is as it should be. A schema that does not fit the rules is said, and looked at again.
    pub async fn seek(&self, store: &dyn Store) {
        let mut pause = FIRST_PAUSE;
        while !self.is_ready() {
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            match store.check().await {
                Ok(()) => {
                    *self.fault.write() = None;
                    self.ready.send_replace(true);
                    tracing::info!("the database is there, and as the rules want it");
                }
                Err(SetupError::Unreachable(why)) => {
                    if self.note(&why) {
                        tracing::warn!("the database is not available: {why}; trying again");
                    }
                }
                Err(error) => {
                    if self.note(&error.to_string()) {
                        tracing::error!(
                            "{error}; what was accepted stays in the journal until this is mended"
                        );
                    }
                }
            }
        }
    }
}

/// Asks the database whether it is as it should be: the version above which new ones start, or why it cannot be reached.
///
/// # Errors
/// It is there, and not as it should be.
pub async fn ask(store: &dyn Store) -> Result<Result<u64, String>, StartError> {
    match store.check().await {
        Ok(()) => {}
        Err(SetupError::Unreachable(why)) => return Ok(Err(why)),
        Err(error) => return Err(error.into()),
    }
    Ok(Ok(store.highest_version().await?.max(0) as u64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_a_later_time_are_higher_and_fit_the_column() {
        let now_ms = 1_800_000_000_000;
        assert!(version_floor(now_ms) > 1 << 50 && version_floor(now_ms + 1) > version_floor(now_ms));
        // In the year 9999.
        assert!(version_floor(253_402_300_799_000) < i64::MAX as u64);
    }
}
