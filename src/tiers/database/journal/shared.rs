//! What the workers, the two threads and the flusher share.
//!
//! Locks, each held for moments and never while the disk is waited for: `buffer` by who appends, `progress` by who
//! waits, `ledger` by the flusher. Of these only `progress` is held while another is taken: `buffer`. The writer has a lock
//! of its own, which is taken before these.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex, RwLock};

use super::checkpoint::Orderly;
use super::error::{Failure, JournalError, Shortage};
use super::format::{FRAME_LEN, MAX_PAYLOAD, push_head, push_record};
use super::ledger::Ledger;
use super::options::{Fsync, Options};
use super::segment::Closed;
use super::statistics::Counters;
use super::storage::{Handle, Storage};
use super::{Sequence, format};
use crate::clock;

/// With more than this in memory the writer does not wait until somebody wants it written.
const SOON: usize = 256 << 10;

/// Instead of times that are too long to be computed with.
const LONG: Duration = Duration::from_secs(1 << 30);

type Callback = Box<dyn Fn() + Send + Sync>;

/// The state of a journal.
pub struct Shared {
    pub storage: Arc<dyn Storage>,
    pub options: Options,
    /// The first sequence since it was opened.
    pub first: Sequence,
    pub counters: Counters,
    pub ledger: Mutex<Ledger>,
    /// Segments that are not written any more, in order.
    pub closed: Mutex<VecDeque<Closed>>,
    /// The segment being written, for the keeper to sync.
    pub current: Mutex<Option<Arc<dyn Handle>>>,
    /// Set by the writer when it has ended in order.
    pub orderly: Mutex<Option<Orderly>>,
    pub written: AtomicU64,
    pub durable: AtomicU64,
    /// The mark that is on disk.
    pub checkpoint: AtomicU64,
    /// Bytes on disk.
    pub disk: AtomicU64,
    buffer: Mutex<Buffer>,
    more: Condvar,
    buffered: AtomicU64,
    reserved: AtomicU64,
    /// Whether the state is another than open; for a look without the lock.
    troubled: AtomicBool,
    /// Both threads have ended: what is not acknowledged now never will be.
    ended: AtomicBool,
    progress: Mutex<()>,
    progressed: Condvar,
    callbacks: RwLock<Vec<Callback>>,
}

struct Buffer {
    /// Room for a mark, then frames without checksums.
    bytes: Vec<u8>,
    next: Sequence,
    state: State,
    writer_sleeps: bool,
    /// The writer is wanted: there is something that its thread alone does.
    called: bool,
    stopping: bool,
}

#[derive(Clone)]
enum State {
    Open,
    /// The disk has no space; what is in the buffer waits for some.
    Full,
    Failed(Arc<Failure>),
    Closed,
}

/// What the writer's thread is to do.
pub enum Work {
    /// Write what has gathered.
    Write,
    /// Nothing came for a while.
    Idle,
    /// End: nothing more will come.
    Stop,
}

impl Shared {
    pub fn new(storage: Arc<dyn Storage>, options: Options, ledger: Ledger, next: Sequence) -> Self {
        let (writer_sleeps, called, stopping) = (false, false, false);
        let buffer =
            Buffer { bytes: empty_batch(), next, state: State::Open, writer_sleeps, called, stopping };
        Self {
            storage,
            options,
            first: next,
            counters: Counters::default(),
            ledger: Mutex::new(ledger),
            closed: Mutex::default(),
            current: Mutex::default(),
            orderly: Mutex::default(),
            written: AtomicU64::new(next - 1),
            durable: AtomicU64::new(next - 1),
            checkpoint: AtomicU64::new(0),
            disk: AtomicU64::new(0),
            buffer: Mutex::new(buffer),
            more: Condvar::new(),
            buffered: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            troubled: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            progress: Mutex::default(),
            progressed: Condvar::new(),
            callbacks: RwLock::default(),
        }
    }

    /// Sets this many bytes aside, if there is room.
    pub fn reserve(&self, bytes: usize) -> Result<(), JournalError> {
        let refuse = |error| {
            Counters::count(&self.counters.refused);
            Err(error)
        };
        if bytes > MAX_PAYLOAD || bytes as u64 > self.options.max_size {
            return refuse(JournalError::TooLarge(bytes));
        }
        if let Some(error) = self.trouble() {
            return refuse(error);
        }
        let reserved = self.reserved.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64;
        let waiting = self.buffered.load(Ordering::Relaxed) + reserved;
        let Options { max_size: limit, buffer_size, .. } = self.options;
        let shortage = if waiting + self.disk.load(Ordering::Relaxed) > limit {
            Shortage::Size { limit }
        } else if waiting > buffer_size && waiting > bytes as u64 {
            Shortage::Buffer
        } else {
            return Ok(());
        };
        self.release(bytes as u64);
        refuse(JournalError::Full(shortage))
    }

    /// Gives back what was reserved.
    pub fn release(&self, bytes: u64) {
        self.reserved.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes a record. A full disk is no reason to refuse: whoever had reserved has changed the cache since.
    pub fn append(&self, parts: &[&[u8]]) -> Result<Sequence, JournalError> {
        let payload: usize = parts.iter().map(|part| part.len()).sum();
        if payload > MAX_PAYLOAD {
            return Err(JournalError::TooLarge(payload));
        }
        let mut buffer = self.buffer.lock();
        if let State::Failed(_) | State::Closed = buffer.state {
            Counters::count(&self.counters.refused);
            return Err(buffer.state.error().unwrap_or(JournalError::Closed));
        }
        let sequence = buffer.next;
        buffer.next += 1;
        push_record(&mut buffer.bytes, sequence, parts);
        self.buffered.fetch_add((FRAME_LEN + payload) as u64, Ordering::Relaxed);
        let is_due = self.options.fsync == Fsync::Always || buffer.bytes.len() > SOON;
        let wake = is_due && mem::take(&mut buffer.writer_sleeps);
        drop(buffer);
        if wake {
            self.more.notify_one();
        }
        Ok(sequence)
    }

    /// Has the writer's thread write what there is.
    pub fn call_writer(&self) {
        let mut buffer = self.buffer.lock();
        buffer.called = true;
        let wake = mem::take(&mut buffer.writer_sleeps);
        drop(buffer);
        if wake {
            self.more.notify_one();
        }
    }

    /// Whether there is something to be written.
    pub fn has_records(&self) -> bool {
        self.buffer.lock().bytes.len() > FRAME_LEN
    }

    /// The sequence that the next record will get.
    pub fn next(&self) -> Sequence {
        self.buffer.lock().next
    }

    pub fn buffered(&self) -> u64 {
        self.buffered.load(Ordering::Relaxed)
    }

    /// Up to where clients may be answered.
    pub fn acknowledged(&self) -> Sequence {
        match self.options.fsync {
            Fsync::Always => self.durable.load(Ordering::Acquire),
            Fsync::EverySecond | Fsync::No => self.written.load(Ordering::Acquire),
        }
    }

    /// Why nothing is taken, if so.
    pub fn trouble(&self) -> Option<JournalError> {
        if self.troubled.load(Ordering::Acquire) { self.buffer.lock().state.error() } else { None }
    }

    /// Whether this sequence is acknowledged.
    pub fn status(&self, sequence: Sequence) -> Result<bool, JournalError> {
        if self.acknowledged() >= sequence {
            return Ok(true);
        }
        let trouble = self.trouble();
        // It may have become so just before the trouble.
        match trouble {
            _ if self.acknowledged() >= sequence => Ok(true),
            Some(JournalError::Closed) if !self.ended.load(Ordering::Acquire) => Ok(false),
            Some(error) => Err(error),
            None => Ok(false),
        }
    }

    /// Waits until this sequence is acknowledged.
    pub fn wait_for(&self, sequence: Sequence, timeout: Duration) -> Result<(), JournalError> {
        let now = clock::monotonic();
        let deadline = now.checked_add(timeout).unwrap_or(now + LONG);
        self.call_writer();
        let mut progress = self.progress.lock();
        while !self.status(sequence)? {
            if self.progressed.wait_until(&mut progress, deadline).timed_out() {
                return if self.status(sequence)? { Ok(()) } else { Err(JournalError::TimedOut) };
            }
        }
        Ok(())
    }

    pub fn on_progress(&self, callback: Callback) {
        self.callbacks.write().push(callback);
    }

    /// Tells who waits that something has changed.
    pub fn announce(&self) {
        drop(self.progress.lock());
        self.progressed.notify_all();
        self.callbacks.read().iter().for_each(|callback| callback());
    }

    /// Moves `written` or `durable` on; not after a failure, since then nothing is acknowledged.
    pub fn publish(&self, which: &AtomicU64, sequence: Sequence) {
        let buffer = self.buffer.lock();
        if !matches!(buffer.state, State::Failed(_)) {
            which.fetch_max(sequence, Ordering::Release);
        }
    }

    /// Bytes went from the buffer to the disk.
    pub fn count_written(&self, frames: u64, bytes: u64) {
        // In this order, so that the sum is never too low.
        self.disk.fetch_add(bytes, Ordering::Relaxed);
        self.buffered.fetch_sub(frames, Ordering::Relaxed);
        Counters::count(&self.counters.writes);
    }

    /// The end of this journal, but for telling so.
    pub fn fail(&self, action: &'static str, source: io::Error) {
        Counters::count(&self.counters.errors);
        let mut buffer = self.buffer.lock();
        if !matches!(buffer.state, State::Failed(_)) {
            tracing::error!("the journal has failed and takes no more writes: {action}: {source}");
            buffer.state = State::Failed(Arc::new(Failure { action, source }));
            self.troubled.store(true, Ordering::Release);
        }
        buffer.writer_sleeps = false;
        drop(buffer);
        self.more.notify_one();
        self.announce();
    }

    pub fn has_failed(&self) -> bool {
        self.troubled.load(Ordering::Acquire) && matches!(self.buffer.lock().state, State::Failed(_))
    }

    /// The disk has no space, or has some again.
    pub fn set_full(&self, full: bool) {
        if !full && !self.troubled.load(Ordering::Acquire) {
            return;
        }
        let mut buffer = self.buffer.lock();
        match (&buffer.state, full) {
            (State::Open, true) => {
                tracing::error!("the disk of the journal is full: writes are refused until there is space");
                buffer.state = State::Full;
            }
            (State::Full, false) => {
                tracing::info!("the disk of the journal has space again");
                buffer.state = State::Open;
            }
            _ => return,
        }
        self.troubled.store(full, Ordering::Release);
        drop(buffer);
        self.announce();
    }

    /// Waits for something that the writer's thread has to do.
    pub fn wait(&self) -> Work {
        let mut buffer = self.buffer.lock();
        loop {
            if matches!(buffer.state, State::Failed(_)) {
                return Work::Stop;
            }
            let waiting = buffer.bytes.len() - FRAME_LEN;
            let is_due = waiting > SOON || self.options.fsync == Fsync::Always || buffer.stopping;
            if mem::take(&mut buffer.called) || waiting > 0 && is_due {
                return Work::Write;
            }
            if buffer.stopping {
                return Work::Stop;
            }
            buffer.writer_sleeps = true;
            if self.more.wait_for(&mut buffer, self.options.interval).timed_out() {
                buffer.writer_sleeps = false;
                return if buffer.bytes.len() == FRAME_LEN { Work::Idle } else { Work::Write };
            }
        }
    }

    /// Swaps what has gathered against the empty batch, if there is anything.
    pub fn take(&self, batch: &mut Vec<u8>) -> bool {
        let mut buffer = self.buffer.lock();
        let any = buffer.bytes.len() > FRAME_LEN && !matches!(buffer.state, State::Failed(_));
        if any {
            mem::swap(&mut buffer.bytes, batch);
        }
        any
    }

    /// Waits before something is tried again; false if it is time to stop.
    pub fn pause(&self) -> bool {
        let mut buffer = self.buffer.lock();
        let deadline = clock::monotonic() + self.options.retry;
        while !buffer.stopping && !self.more.wait_until(&mut buffer, deadline).timed_out() {}
        !buffer.stopping
    }

    /// Takes no more records, and lets the writer end.
    pub fn stop(&self) {
        let mut buffer = self.buffer.lock();
        buffer.stopping = true;
        if !matches!(buffer.state, State::Failed(_)) {
            buffer.state = State::Closed;
            self.troubled.store(true, Ordering::Release);
        }
        drop(buffer);
        self.more.notify_one();
    }

    /// Nothing will be acknowledged any more.
    pub fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.announce();
    }
}

impl State {
    fn error(&self) -> Option<JournalError> {
        match self {
            Self::Open => None,
            Self::Full => Some(JournalError::Full(Shortage::Disk)),
            Self::Failed(failure) => Some(JournalError::Failed(Arc::clone(failure))),
            Self::Closed => Some(JournalError::Closed),
        }
    }
}

/// A batch without records: room for a mark.
pub fn empty_batch() -> Vec<u8> {
    let mut bytes = Vec::new();
    push_head(&mut bytes, format::MARK, 0);
    bytes
}
