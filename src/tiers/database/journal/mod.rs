//! The journal: what was accepted for the database and has not reached it yet, on disk.
//!
//! Payloads are opaque bytes. A worker appends a record under its shard lock, which costs a copy into memory and gives
//! the record its sequence. Who waits for a record writes all that has gathered with one call; where that is not enough
//! (a sync, a new segment, a full disk), or nobody waits, the thread `journal` does (group commit, `writer`); the flusher
//! says which sequences the database has. The thread `journal-keeper` syncs once a second, writes the checkpoint and
//! removes segments of which nothing is wanted any more.
//!
//! ```text
//! reserve → change the cache → append → Sequence …… acknowledged() ≥ Sequence → answer the client
//!                                         …… the database committed → complete(Sequence) → checkpoint → removal
//! ```
//!
//! # What holds
//!
//! - **Acknowledged is safe**: under [`Fsync::Always`] synced, otherwise written to the file.
//! - **Sequences rise and are never used twice.** They are contiguous, but for a jump after every start that did not
//!   follow an orderly [`Journal::close`]: sequences that were handed out may have been lost, and may already be
//!   versions of rows.
//! - **The first failed sync, or write that failed for another reason than space, is the last**: from then on every
//!   call answers [`JournalError::Failed`], and nothing more is acknowledged, since the kernel may have dropped the
//!   pages and would report the next sync as fine.
//! - **Without space it refuses and waits.** [`Journal::reserve`], asked before the cache changes, answers
//!   [`JournalError::Full`]. What had been accepted when the disk became full stays in memory, and goes to the disk as
//!   soon as there is space: the cache has it already, so dropping it would leave cache and database different for
//!   good. Who waits for it gets the error at once, meaning that the outcome is open; later it may be acknowledged.
//! - **The checkpoint may lag, and never leads**: a replay repeats records, which versions make harmless.
//! - **Nothing is skipped in silence**, see [`Report`].
//!
//! # Torn or damaged
//!
//! A crash leaves the end of the last segment torn, possibly with whole records behind the tear, since the kernel
//! writes pages in any order. That is cut off and reported ([`Torn`]); if whole records were cut, a copy of the segment
//! is kept as `….damaged-N`. Where later bytes prove that the torn record had been synced (a further segment, or a mark
//! that the journal writes after each sync), it is no crash but damage to the file: then [`Journal::open`] stops with
//! [`OpenError::Damaged`] and changes nothing, unless [`Options::repair`] is set. A repair keeps a copy of the segment,
//! recovers every whole record before and after, and writes down which sequences are lost, so that the next start does
//! not stumble over them again. Damage that concerns only what the database has already is reported and stops nothing.
//!
//! Not here: what payloads mean, and when a record is complete.

mod checkpoint;
mod error;
mod format;
mod handle;
mod inspect;
mod keeper;
mod ledger;
mod options;
mod recover;
mod repair;
mod report;
mod scan;
mod segment;
mod shared;
mod statistics;
mod storage;
#[cfg(test)]
mod tests;
mod writer;

pub use error::{Failure, JournalError, OpenError, Shortage};
pub use handle::{Journal, Reservation};
pub use inspect::{Contents, inspect};
pub use options::{Fsync, Options};
pub use report::{Damage, Report, Torn};
pub use statistics::Statistics;
pub use storage::{Directory, Handle, Storage};

/// The number of a record: its place in the order of all records, from 1.
pub type Sequence = u64;
