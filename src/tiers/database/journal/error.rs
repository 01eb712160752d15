//! What can go wrong.

use std::io;
use std::sync::Arc;

use super::Report;

/// The error that ended a journal.
#[derive(Debug, thiserror::Error)]
#[error("{action}: {source}")]
pub struct Failure {
    /// What was tried.
    pub action: &'static str,
    /// What the system answered.
    pub source: io::Error,
}

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The journal has reached its largest size: the database is not taking what was written.
    #[error("it has reached its maximum of {limit} bytes")]
    Size {
        /// The maximum.
        limit: u64,
    },
    /// The disk has no space left.
    #[error("the disk has no space left")]
    Disk,
    /// More was accepted than the disk takes; it passes as soon as something is written.
    #[error("the disk is slower than the writes")]
    Buffer,
}

/// Why a record was not taken, or is not known to be safe.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// A write or sync failed; this journal takes and acknowledges nothing more.
    #[error("the journal has failed: {0}")]
    Failed(Arc<Failure>),
    /// There is no space; later there may be.
    #[error("the journal is full: {0}")]
    Full(Shortage),
    /// No record can be this long.
    #[error("{0} bytes are too many for one record of the journal")]
    TooLarge(usize),
    /// It was closed.
    #[error("the journal is closed")]
    Closed,
    /// It did not become safe in time.
    #[error("the journal took too long")]
    TimedOut,
}

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the journal is in use by another process")]
    Locked,
    /// Records are lost; see [`super::Options::repair`].
    #[error("the journal is damaged: {}", .0.damage_text())]
    Damaged(Box<Report>),
    /// A later version has written it.
    #[error("{name} has format {version}, which is not known")]
    Version {
        /// The file.
        name: String,
        /// Its version.
        version: u32,
    },
    /// The system refused.
    #[error("{action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

/// Turns an error of the system into one of opening.
pub(super) fn while_opening(action: &'static str) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { action, source }
}

/// Whether it is only space that lacks.
pub(super) fn is_shortage(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
