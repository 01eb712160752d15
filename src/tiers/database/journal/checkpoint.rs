//! The file `checkpoint`: up to where everything is done, and whether the journal was closed in an orderly way.
//!
//! Two slots of one page each, written in turn and in place: a write that is torn leaves the other slot, which only
//! lags, and no write needs space, so that segments can be removed when the disk is full.
//!
//! ```text
//! slot: 0 magic "ANTECKPT"  8 version u32  12 crc u32 (of the rest)  16 generation u64  24 mark u64
//!       32 id u64  40 next u64 (of the last segment and the next sequence, if closed in order; else zeros)
//! ```

use std::io;
use std::sync::Arc;

use crc32fast::Hasher;

use super::Sequence;
use super::format::u64_at;
use super::storage::{Handle, Storage};

const NAME: &str = "checkpoint";
const UNFINISHED: &str = "checkpoint.tmp";
const MAGIC: &[u8; 8] = b"ANTECKPT";
const VERSION: u32 = 1;
const SLOT_LEN: usize = 48;
const SLOT_DISTANCE: usize = 4096;

/// How an orderly shutdown left the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Orderly {
    /// The id of the last segment.
    pub id: u64,
    /// The next sequence.
    pub next: Sequence,
}

/// What a slot holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Everything up to here is done.
    pub mark: Sequence,
    /// Present if the journal was closed.
    pub orderly: Option<Orderly>,
}

/// The file.
pub struct CheckpointFile {
    handle: Option<Arc<dyn Handle>>,
    generation: u64,
    /// What it holds.
    pub content: Checkpoint,
    /// It is not as it was written, and may lag more than it should.
    pub damaged: bool,
}

impl CheckpointFile {
    /// Reads the newest whole slot.
    pub fn read(storage: &dyn Storage) -> io::Result<Self> {
        let mut file = Self { handle: None, generation: 0, content: Checkpoint::default(), damaged: false };
        let mut bytes = Vec::new();
        match storage.read(NAME, 2 * SLOT_DISTANCE as u64, &mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(file),
            Err(error) => return Err(error),
        }
        let slots = [0, SLOT_DISTANCE].map(|at| bytes.get(at..at + SLOT_LEN).and_then(decode));
        file.damaged = slots.contains(&None);
        if let Some((generation, content)) = slots.into_iter().flatten().max_by_key(|slot| slot.0) {
            (file.generation, file.content) = (generation, content);
            // A file that has lost its end is written anew.
            file.handle = if bytes.len() == 2 * SLOT_DISTANCE { Some(storage.open(NAME)?) } else { None };
        }
        Ok(file)
    }

    /// Whether there is a file, so that a journal without segments is not a new one.
    pub fn exists(&self) -> bool {
        self.generation > 0 || self.damaged
    }

    /// Replaces the content; it is durable when this returns.
    pub fn write(&mut self, storage: &dyn Storage, content: Checkpoint) -> io::Result<()> {
        let generation = self.generation + 1;
        match &self.handle {
            Some(handle) => {
                let at = generation as usize % 2 * SLOT_DISTANCE;
                handle.write_at(at as u64, &encode(generation, content))?;
                handle.sync()?;
            }
            None => self.handle = Some(create(storage, generation, content)?),
        }
        (self.generation, self.content) = (generation, content);
        Ok(())
    }
}

fn create(storage: &dyn Storage, generation: u64, content: Checkpoint) -> io::Result<Arc<dyn Handle>> {
    let mut bytes = vec![0; 2 * SLOT_DISTANCE];
    for at in [0, SLOT_DISTANCE] {
        bytes[at..at + SLOT_LEN].copy_from_slice(&encode(generation, content));
    }
    let handle = storage.create(UNFINISHED)?;
    handle.write_at(0, &bytes)?;
    handle.sync()?;
    storage.rename(UNFINISHED, NAME)?;
    storage.sync()?;
    Ok(handle)
}

fn encode(generation: u64, content: Checkpoint) -> [u8; SLOT_LEN] {
    let orderly = content.orderly.unwrap_or(Orderly { id: 0, next: 0 });
    let mut bytes = [0; SLOT_LEN];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    for (at, field) in [(16, generation), (24, content.mark), (32, orderly.id), (40, orderly.next)] {
        bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
    }
    let crc = crc(&bytes);
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<(u64, Checkpoint)> {
    let whole = &bytes[..8] == MAGIC && bytes[8..12] == VERSION.to_le_bytes();
    if !whole || bytes[12..16] != crc(bytes).to_le_bytes() {
        return None;
    }
    let orderly = Orderly { id: u64_at(bytes, 32), next: u64_at(bytes, 40) };
    let content = Checkpoint { mark: u64_at(bytes, 24), orderly: (orderly.next > 0).then_some(orderly) };
    Some((u64_at(bytes, 16), content))
}

fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    hasher.finalize()
}
