//! Segments as files: their names, and how one comes into being.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;

use super::Sequence;
use super::format::Header;
use super::storage::{Handle, Storage};
use crate::clock;

/// A file that has not got its name yet; one that is found at a start is left over from a crash.
pub const UNFINISHED: &str = "journal.tmp";

/// A segment that is not written any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Closed {
    /// The file.
    pub name: String,
    /// The last sequence in it, or before it if it is empty.
    pub end: Sequence,
    /// Its length.
    pub bytes: u64,
}

/// The name of the segment that begins with this sequence.
pub fn name(first: Sequence) -> String {
    format!("journal-{first:020}.log")
}

/// The sequence with which the segment of this name begins, if it is the name of one.
pub fn first_of(name: &str) -> Option<Sequence> {
    let digits = name.strip_prefix("journal-")?.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|digit| digit.is_ascii_digit()))
        .then(|| digits.parse().ok())
        .flatten()
}

/// A header for a new segment.
pub fn header(first: Sequence, follows: Sequence) -> Header {
    // A hasher's keys are random, and differ for each.
    Header { id: RandomState::new().hash_one(first), first, follows, created: clock::wall_ms() }
}

/// Makes a segment with these frames, which have their checksums. It is durable, name and all, when this returns.
pub fn create(storage: &dyn Storage, header: &Header, frames: &[u8]) -> io::Result<Arc<dyn Handle>> {
    let write = || -> io::Result<Arc<dyn Handle>> {
        let file = storage.create(UNFINISHED)?;
        let encoded = header.encode();
        file.write_at(0, &encoded)?;
        if !frames.is_empty() {
            file.write_at(encoded.len() as u64, frames)?;
        }
        file.sync()?;
        Ok(file)
    };
    let file = write().inspect_err(|_| {
        // It may hold space that is wanted; if it stays, the next attempt empties it.
        let _ = storage.remove(UNFINISHED);
    })?;
    storage.rename(UNFINISHED, &name(header.first))?;
    storage.sync()?;
    Ok(file)
}
