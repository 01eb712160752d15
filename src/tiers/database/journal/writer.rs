//! The thread `journal`: writes what has gathered, and syncs it if it has to be before it is acknowledged.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crc32fast::Hasher;

use super::checkpoint::Orderly;
use super::error::is_shortage;
use super::format::{self, FRAME_LEN, HEADER_LEN, MARK};
use super::options::Fsync;
use super::segment::{self, Closed};
use super::shared::{Shared, Work, empty_batch};
use super::statistics::Counters;
use super::storage::Handle;
use super::{JournalError, Sequence, Shortage};
use crate::clock;

/// Memory that a batch may keep for the next.
const SPARE_CAPACITY: usize = 4 << 20;

/// The state of the thread.
pub struct Writer {
    shared: Arc<Shared>,
    current: Option<Current>,
    /// The last sequence recorded.
    end: Sequence,
    /// The sequence that the next segment begins with.
    next: Sequence,
    batch: Vec<u8>,
}

/// The segment being written.
struct Current {
    file: Arc<dyn Handle>,
    id: u64,
    seed: Hasher,
    first: Sequence,
    len: u64,
    /// What its last mark says, or its being there.
    marked: Sequence,
}

/// Why writing stopped; the journal knows already.
pub struct Stopped;

impl Writer {
    /// A writer that goes on behind `end`, with the sequence `next`.
    pub fn new(shared: Arc<Shared>, end: Sequence, next: Sequence) -> Self {
        Self { shared, current: None, end, next, batch: empty_batch() }
    }

    /// Makes the first segment. Until there is one, no sequence is handed out: the next start has to know of them.
    pub fn start(&mut self) -> io::Result<()> {
        match self.begin_segment() {
            Err(error) if is_shortage(&error) => {
                Counters::count(&self.shared.counters.errors);
                self.shared.set_full(true);
                Ok(())
            }
            result => result,
        }
    }

    /// Runs until it is told to stop and all is written, or until nothing can be written.
    pub fn run(mut self) -> Result<(), JournalError> {
        match self.work() {
            Ok(()) => Ok(()),
            Err(Stopped) if self.shared.has_failed() => {
                Err(self.shared.trouble().unwrap_or(JournalError::Closed))
            }
            Err(Stopped) => Err(JournalError::Full(Shortage::Disk)),
        }
    }

    fn work(&mut self) -> Result<(), Stopped> {
        while self.current.is_none() {
            self.retrying(Self::begin_segment)?;
        }
        loop {
            match self.shared.take(&mut self.batch) {
                Work::Batch => self.commit()?,
                Work::Idle => self.mark()?,
                Work::Stop => break,
            }
        }
        self.end_in_order()
    }

    /// Writes the batch, syncs it if need be, and tells who waits.
    fn commit(&mut self) -> Result<(), Stopped> {
        self.note_time();
        let mut at = FRAME_LEN;
        while at < self.batch.len() {
            self.next = format::sequence(&self.batch[at..]);
            if self.is_full(at) {
                self.end_segment()?;
            }
            while self.current.is_none() {
                self.retrying(Self::begin_segment)?;
            }
            let until = self.seal(at);
            match self.write(at, until) {
                Ok(()) => self.shared.set_full(false),
                Err(error) if is_shortage(&error) && self.has_records() => {
                    // Closed, the segment can be removed as soon as all of it is done, which makes space.
                    self.end_segment()?;
                    continue;
                }
                Err(error) if is_shortage(&error) => self.retrying(|writer| writer.write(at, until))?,
                Err(error) => return self.fail("write", error),
            }
            at = until;
            self.shared.publish(&self.shared.written, self.end);
        }
        if self.shared.options.fsync == Fsync::Always {
            self.sync()?;
        }
        self.shared.announce();
        self.batch.truncate(FRAME_LEN);
        self.batch.shrink_to(SPARE_CAPACITY);
        Ok(())
    }

    fn note_time(&self) {
        let first = format::sequence(&self.batch[FRAME_LEN..]);
        self.shared.ledger.lock().note_time(first, clock::monotonic());
    }

    /// Whether there are records in the segment.
    fn has_records(&self) -> bool {
        self.current.as_ref().is_some_and(|current| self.end >= current.first)
    }

    /// Whether the frame at this place of the batch belongs into a new segment.
    fn is_full(&self, at: usize) -> bool {
        let limit = self.shared.options.effective_segment_size();
        let frame = format::record_len(&self.batch[at..]) as u64;
        self.current.as_ref().is_some_and(|current| {
            self.end >= current.first && current.len + FRAME_LEN as u64 + frame > limit
        })
    }

    /// Puts the checksums into as many frames as the segment takes, at least one; returns where they end.
    fn seal(&mut self, from: usize) -> usize {
        let Some(current) = &self.current else { return from };
        let room =
            self.shared.options.effective_segment_size().saturating_sub(current.len + FRAME_LEN as u64);
        let mut at = from;
        while at < self.batch.len() {
            let len = format::record_len(&self.batch[at..]);
            if at > from && (at + len - from) as u64 > room {
                break;
            }
            format::seal(&current.seed, &mut self.batch[at..at + len]);
            self.next = format::sequence(&self.batch[at..]) + 1;
            at += len;
        }
        at
    }

    /// Writes these frames, and before the first of a batch a mark if there is something new to say.
    fn write(&mut self, from: usize, until: usize) -> io::Result<()> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let durable = self.shared.durable.load(Ordering::Acquire);
        let marks = from == FRAME_LEN && durable > current.marked;
        let start = if marks { 0 } else { from };
        if marks {
            let mut mark = format::head(MARK, durable);
            format::seal(&current.seed, &mut mark);
            self.batch[..FRAME_LEN].copy_from_slice(&mark);
        }
        current.put(&self.batch[start..until])?;
        if marks {
            current.marked = durable;
        }
        self.end = self.next - 1;
        self.shared.count_written((until - from) as u64, (until - start) as u64);
        Ok(())
    }

    /// Says in the segment what is durable, so that damage before can be told from what a crash does.
    fn mark(&mut self) -> Result<(), Stopped> {
        let Some(current) = &mut self.current else { return Ok(()) };
        let durable = self.shared.durable.load(Ordering::Acquire);
        if durable <= current.marked {
            return Ok(());
        }
        let mut mark = format::head(MARK, durable);
        format::seal(&current.seed, &mut mark);
        match current.put(&mark) {
            Ok(()) => {
                current.marked = durable;
                self.shared.disk.fetch_add(FRAME_LEN as u64, Ordering::Relaxed);
                Ok(())
            }
            // It can be done without.
            Err(error) if is_shortage(&error) => Ok(()),
            Err(error) => self.fail("write", error),
        }
    }

    /// Tries until it is done; while only space lacks, what was accepted waits.
    fn retrying(&mut self, mut action: impl FnMut(&mut Self) -> io::Result<()>) -> Result<(), Stopped> {
        loop {
            match action(self) {
                Ok(()) => {
                    self.shared.set_full(false);
                    return Ok(());
                }
                Err(error) if is_shortage(&error) => {
                    Counters::count(&self.shared.counters.errors);
                    self.shared.set_full(true);
                    if !self.shared.pause() {
                        return Err(Stopped);
                    }
                    if self.shared.has_failed() {
                        return Err(Stopped);
                    }
                }
                Err(error) => return self.fail("write", error),
            }
        }
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        let header = segment::header(self.next, self.end);
        let file = segment::create(&*self.shared.storage, &header, &[])?;
        *self.shared.current.lock() = Some(Arc::clone(&file));
        self.shared.disk.fetch_add(HEADER_LEN as u64, Ordering::Relaxed);
        let (seed, len, marked) = (header.seed(), HEADER_LEN as u64, header.first - 1);
        self.current = Some(Current { file, id: header.id, seed, first: header.first, len, marked });
        Ok(())
    }

    /// Syncs the segment and gives it away: the next one says that it is whole.
    fn end_segment(&mut self) -> Result<(), Stopped> {
        self.sync()?;
        // While it is open, its removal makes no space.
        *self.shared.current.lock() = None;
        if let Some(Current { first, len, .. }) = self.current.take() {
            let closed = Closed { name: segment::name(first), end: self.end, bytes: len };
            self.shared.closed.lock().push_back(closed);
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Stopped> {
        let Some(current) = &self.current else { return Ok(()) };
        let started = clock::monotonic();
        let result = current.file.sync();
        self.shared.counters.count_sync(clock::monotonic().saturating_duration_since(started));
        match result {
            Ok(()) => {
                self.shared.publish(&self.shared.durable, self.end);
                Ok(())
            }
            Err(error) => self.fail("sync", error),
        }
    }

    fn end_in_order(&mut self) -> Result<(), Stopped> {
        if self.shared.has_failed() {
            return Err(Stopped);
        }
        self.sync()?;
        self.mark()?;
        self.shared.announce();
        let next = self.shared.next();
        *self.shared.orderly.lock() = self.current.as_ref().map(|current| Orderly { id: current.id, next });
        Ok(())
    }

    fn fail<T>(&self, action: &'static str, error: io::Error) -> Result<T, Stopped> {
        self.shared.fail(action, error);
        Err(Stopped)
    }
}

impl Current {
    /// Writes all bytes, or leaves the segment as it was.
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_at(self.len, bytes) {
            self.file.truncate(self.len)?;
            return Err(error);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }
}
