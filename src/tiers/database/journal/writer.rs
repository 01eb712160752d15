//! The writer: writes what has gathered, and syncs it if it has to be before it is acknowledged.
//!
//! Who waits for a record writes it himself with all that has gathered ([`write_out`]), if a write is all it takes: that
//! spares two switches between threads. What may take longer (a sync, a new segment, a disk that is full) is done by the
//! thread `journal`, and so is what nobody waits for. Whoever gives up the writer's lock looks once more for records:
//! those that were appended meanwhile, by who did not get the lock, are written by him.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crc32fast::Hasher;
use parking_lot::Mutex;

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

/// Its state.
pub struct Writer {
    shared: Arc<Shared>,
    current: Option<Current>,
    /// The last sequence recorded.
    end: Sequence,
    /// The sequence that the next segment begins with.
    next: Sequence,
    batch: Vec<u8>,
    /// Where in the batch that begins which is not written.
    at: usize,
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

/// The thread: runs until it is told to stop and all is written, or until nothing can be written.
pub fn run(shared: &Shared, writer: &Mutex<Writer>) -> Result<(), JournalError> {
    match work(shared, writer) {
        Ok(()) => Ok(()),
        Err(Stopped) if shared.has_failed() => Err(shared.trouble().unwrap_or(JournalError::Closed)),
        Err(Stopped) => Err(JournalError::Full(Shortage::Disk)),
    }
}

fn work(shared: &Shared, writer: &Mutex<Writer>) -> Result<(), Stopped> {
    loop {
        let work = shared.wait();
        {
            let mut writer = writer.lock();
            while writer.current.is_none() {
                writer.retrying(Writer::begin_segment)?;
            }
            match work {
                Work::Write => writer.commit_all()?,
                Work::Idle => writer.mark()?,
                Work::Stop => {
                    writer.commit_all()?;
                    return writer.end_in_order();
                }
            }
        }
        if shared.has_records() {
            shared.call_writer();
        }
    }
}

/// Writes what has gathered on the caller's thread, or sees to it that somebody does. Not for [`Fsync::Always`], under
/// which the thread does it all.
pub fn write_out(shared: &Shared, writer: &Mutex<Writer>) {
    while let Some(mut held) = writer.try_lock() {
        let is_done = held.commit_at_once();
        drop(held);
        if !is_done {
            return shared.call_writer();
        }
        shared.announce();
        if !shared.has_records() {
            return;
        }
    }
}

impl Writer {
    /// A writer that goes on behind `end`, with the sequence `next`.
    pub fn new(shared: Arc<Shared>, end: Sequence, next: Sequence) -> Self {
        Self { shared, current: None, end, next, batch: empty_batch(), at: FRAME_LEN }
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

    /// Writes what is left of the batch, and all that gathers meanwhile.
    fn commit_all(&mut self) -> Result<(), Stopped> {
        while self.at < self.batch.len() || self.take() {
            self.commit()?;
        }
        Ok(())
    }

    /// Takes what has gathered as the next batch.
    fn take(&mut self) -> bool {
        self.batch.truncate(FRAME_LEN);
        self.batch.shrink_to(SPARE_CAPACITY);
        self.at = FRAME_LEN;
        let any = self.shared.take(&mut self.batch);
        if any {
            self.note_time();
        }
        any
    }

    /// Writes the batch, syncs it if need be, and tells who waits.
    fn commit(&mut self) -> Result<(), Stopped> {
        while self.at < self.batch.len() {
            self.next = format::sequence(&self.batch[self.at..]);
            if self.is_full(self.at) {
                self.end_segment()?;
            }
            while self.current.is_none() {
                self.retrying(Self::begin_segment)?;
            }
            let (at, until) = (self.at, self.seal(self.at));
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
            self.at = until;
            self.shared.publish(&self.shared.written, self.end);
        }
        if self.shared.options.fsync == Fsync::Always {
            self.sync()?;
        }
        self.shared.announce();
        Ok(())
    }

    /// Writes what has gathered, if that is a matter of one write and it succeeds; else says that the thread has to.
    fn commit_at_once(&mut self) -> bool {
        if self.at < self.batch.len() || self.current.is_none() {
            return false;
        }
        if !self.take() {
            return true;
        }
        if self.is_full(self.at) || self.seal(self.at) < self.batch.len() {
            return false;
        }
        // Of an error the thread learns when it tries the same again.
        if self.write(self.at, self.batch.len()).is_err() {
            return false;
        }
        self.at = self.batch.len();
        self.shared.publish(&self.shared.written, self.end);
        true
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
