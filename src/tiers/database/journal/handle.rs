//! The journal as its users see it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;

use super::Sequence;
use super::error::{JournalError, OpenError, while_opening};
use super::keeper::{Keeper, Stop};
use super::options::{Fsync, Options};
use super::recover::{Recovered, recover};
use super::report::Report;
use super::segment;
use super::shared::Shared;
use super::statistics::Statistics;
use super::storage::{Directory, Storage};
use super::writer::{self, Writer};
use crate::clock;

/// An open journal. It is shared by reference; dropping it closes it.
pub struct Journal {
    shared: Arc<Shared>,
    writer: Arc<Mutex<Writer>>,
    threads: Mutex<Option<Threads>>,
}

struct Threads {
    writer: JoinHandle<Result<(), JournalError>>,
    keeper: JoinHandle<()>,
    stop: Arc<Stop>,
    /// Keeps other processes out.
    _lock: Box<dyn std::any::Any + Send + Sync>,
}

/// Room that was set aside for records; what is not used is given back.
pub struct Reservation<'a> {
    shared: &'a Shared,
    left: u64,
}

impl Journal {
    /// Opens the journal in a directory, which is made if need be, and gives `replay` each record that is not known to
    /// be complete, in order. What it got is void if an error is returned.
    pub fn open(
        directory: &Path,
        options: Options,
        replay: impl FnMut(Sequence, &[u8]),
    ) -> Result<(Self, Report), OpenError> {
        let directory =
            Directory::create(directory).map_err(while_opening("make the journal's directory"))?;
        Self::open_on(Arc::new(directory), options, replay)
    }

    /// The same on any storage.
    pub fn open_on(
        storage: Arc<dyn Storage>,
        options: Options,
        mut replay: impl FnMut(Sequence, &[u8]),
    ) -> Result<(Self, Report), OpenError> {
        let lock = storage.lock().map_err(while_opening("lock the journal"))?.ok_or(OpenError::Locked)?;
        let recovered = recover(&*storage, &options, &mut replay)?;
        let Recovered { mut closed, ledger, end, checkpoint, report } = recovered;
        log(&report);
        let shared = Arc::new(Shared::new(storage, options, ledger, report.next));
        // An empty one of this name is replaced.
        closed.retain(|closed| closed.name != segment::name(report.next));
        shared.disk.store(closed.iter().map(|closed| closed.bytes).sum(), Ordering::Relaxed);
        *shared.closed.lock() = closed;

        let mut keeper = Keeper::new(Arc::clone(&shared), checkpoint);
        keeper.prepare().map_err(while_opening("write the checkpoint"))?;
        let mut writer = Writer::new(Arc::clone(&shared), end, report.next);
        writer.start().map_err(while_opening("make a segment"))?;
        let stop = Arc::new(Stop::default());
        let keeper = {
            let stop = Arc::clone(&stop);
            spawn("journal-keeper", &shared, move || keeper.run(&stop))?
        };
        let writer = Arc::new(Mutex::new(writer));
        let thread = {
            let (writer, state) = (Arc::clone(&writer), Arc::clone(&shared));
            spawn("journal", &shared, move || writer::run(&state, &writer)).inspect_err(|_| stop.stop())?
        };
        let threads = Mutex::new(Some(Threads { writer: thread, keeper, stop, _lock: lock }));
        Ok((Self { shared, writer, threads }, report))
    }

    /// Sets room aside for records with payloads of so many bytes in all: to be asked before the cache is changed.
    pub fn reserve(&self, bytes: usize) -> Result<Reservation<'_>, JournalError> {
        self.shared.reserve(bytes)?;
        Ok(Reservation { shared: &self.shared, left: bytes as u64 })
    }

    /// Appends a record whose payload is these parts, if there is room. The order of sequences is that of the calls.
    pub fn append(&self, parts: &[&[u8]]) -> Result<Sequence, JournalError> {
        self.reserve(parts.iter().map(|part| part.len()).sum())?.append(parts)
    }

    /// Appends a record whether or not there is room: of what the cache has already. To be asked for before, see
    /// [`Self::reserve`].
    pub fn append_regardless(&self, parts: &[&[u8]]) -> Result<Sequence, JournalError> {
        self.shared.append(parts)
    }

    /// Up to where clients may be answered.
    pub fn acknowledged(&self) -> Sequence {
        self.shared.acknowledged()
    }

    /// Up to where all is synced.
    pub fn durable(&self) -> Sequence {
        self.shared.durable.load(Ordering::Acquire)
    }

    /// Whether this sequence is acknowledged; the error is why it is not and may never be.
    pub fn status(&self, sequence: Sequence) -> Result<bool, JournalError> {
        self.shared.status(sequence)
    }

    /// Has what was appended written, on the caller's thread if a write is all it takes. Who waits for a record calls
    /// this first: what nobody waits for is written within [`Options::interval`].
    pub fn write_out(&self) {
        if self.shared.options.fsync != Fsync::Always {
            writer::write_out(&self.shared, &self.writer);
        }
    }

    /// Blocks until this sequence is acknowledged.
    pub fn wait_for(&self, sequence: Sequence, timeout: Duration) -> Result<(), JournalError> {
        self.shared.wait_for(sequence, timeout)
    }

    /// Has this called by the journal's threads whenever [`Self::status`] or the room may have changed. It must be
    /// quick, and must not call this method.
    pub fn on_progress(&self, callback: Box<dyn Fn() + Send + Sync>) {
        self.shared.on_progress(callback);
    }

    /// These records are in the database, or are given up: once the checkpoint says so they are not replayed. Any order
    /// will do, and so will saying it twice.
    pub fn complete(&self, sequences: impl IntoIterator<Item = Sequence>) {
        let next = self.shared.next();
        let mut ledger = self.shared.ledger.lock();
        sequences
            .into_iter()
            .filter(|sequence| *sequence < next)
            .for_each(|sequence| ledger.complete(sequence));
        ledger.advance();
    }

    /// Everything up to here is complete.
    pub fn mark(&self) -> Sequence {
        self.shared.ledger.lock().mark()
    }

    /// The sequence of the last record appended.
    pub fn last(&self) -> Sequence {
        self.shared.next() - 1
    }

    /// How it is.
    pub fn statistics(&self) -> Statistics {
        let (shared, counters) = (&self.shared, &self.shared.counters);
        let next = shared.next();
        let (balance, mark, oldest) = {
            let mut ledger = shared.ledger.lock();
            (ledger.balance(), ledger.mark(), ledger.oldest(next))
        };
        let accepted = oldest.and_then(|(_, accepted)| accepted);
        let appended = next - shared.first;
        Statistics {
            segments: shared.closed.lock().len() + usize::from(shared.current.lock().is_some()),
            disk_bytes: shared.disk.load(Ordering::Relaxed),
            buffered_bytes: shared.buffered(),
            appended,
            unfinished: appended.saturating_add_signed(balance),
            oldest: oldest.map(|(sequence, _)| sequence),
            oldest_age: accepted
                .map_or(Duration::ZERO, |accepted| clock::monotonic().saturating_duration_since(accepted)),
            written: shared.written.load(Ordering::Acquire),
            durable: shared.durable.load(Ordering::Acquire),
            mark,
            checkpoint: shared.checkpoint.load(Ordering::Relaxed),
            writes: counters.writes.load(Ordering::Relaxed),
            syncs: counters.syncs.load(Ordering::Relaxed),
            sync_time: Duration::from_nanos(counters.sync_nanos.load(Ordering::Relaxed)),
            longest_sync: Duration::from_nanos(counters.longest_sync_nanos.load(Ordering::Relaxed)),
            errors: counters.errors.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            trouble: shared.trouble(),
        }
    }

    /// Takes no more records, writes and syncs what there is, and ends. An error means that records not yet
    /// acknowledged are lost.
    pub fn close(&self) -> Result<(), JournalError> {
        let mut threads = self.threads.lock();
        let Some(Threads { writer, keeper, stop, _lock }) = threads.take() else { return Ok(()) };
        self.shared.stop();
        let result = writer.join().unwrap_or(Err(JournalError::Closed));
        stop.stop();
        let kept = keeper.join();
        self.shared.set_ended();
        if kept.is_err() { result.and(Err(JournalError::Closed)) } else { result }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if let Err(error) = self.close() {
            tracing::error!("the journal did not end in order: {error}");
        }
    }
}

impl Reservation<'_> {
    /// Appends a record. It is not refused for want of space, whatever its length and however full the disk has become
    /// since.
    pub fn append(&mut self, parts: &[&[u8]]) -> Result<Sequence, JournalError> {
        let sequence = self.shared.append(parts)?;
        let used = parts.iter().map(|part| part.len() as u64).sum::<u64>().min(self.left);
        self.left -= used;
        self.shared.release(used);
        Ok(sequence)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.left > 0 {
            self.shared.release(self.left);
        }
    }
}

/// A thread that panics ends the journal: nobody would write what is appended.
struct FailOnPanic(Arc<Shared>);

impl Drop for FailOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail("run", io::Error::other("a thread panicked"));
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    shared: &Arc<Shared>,
    run: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>, OpenError> {
    let guard = FailOnPanic(Arc::clone(shared));
    let run = move || {
        let _guard = guard;
        run()
    };
    thread::Builder::new().name(name.to_owned()).spawn(run).map_err(while_opening("start a thread"))
}

fn log(report: &Report) {
    if report.has_losses() {
        tracing::error!("the journal was damaged: {}", report.damage_text());
    } else if !report.damage.is_empty() {
        tracing::warn!("the journal cannot be read in places: {}", report.damage_text());
    }
    if let Some(torn) = &report.torn {
        tracing::warn!(
            "cut {} bytes off {}, behind offset {} ({} whole records among them, {} records missing)",
            torn.bytes,
            torn.segment,
            torn.offset,
            torn.records_after,
            torn.missing,
        );
    }
    if report.checkpoint_damaged {
        tracing::warn!("the checkpoint was damaged: more may be replayed than needed");
    }
    tracing::info!("the journal has {} records to replay in {} segments", report.records, report.segments);
}
