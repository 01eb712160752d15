//! What is counted: per worker thread and per command, with plain stores on cache lines of their own.
//!
//! Only the owning thread writes its counters; readers sum over all threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crossbeam_utils::CachePadded;
use parking_lot::Mutex;

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning thread may.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(by), Relaxed);
    }

    /// The count.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Relaxed);
    }
}

/// What one thread counts of one command.
#[derive(Debug, Default)]
pub struct CommandCounters {
    /// Executions.
    pub calls: Counter,
    /// Their time in nanoseconds.
    pub nanos: Counter,
    /// Refused before they ran.
    pub rejected: Counter,
    /// Ran and replied an error.
    pub failed: Counter,
}

/// What one thread counts.
#[derive(Debug)]
pub struct WorkerCounters {
    /// By the command's place in the table.
    pub commands: Box<[CommandCounters]>,
    /// Latencies by the command's place: how many fell into each power of two of nanoseconds, four steps a doubling.
    pub latencies: Box<[LatencyHistogram]>,
    /// Bytes read from clients.
    pub input_bytes: Counter,
    /// Bytes written to clients.
    pub output_bytes: Counter,
    /// Connections accepted.
    pub connections: Counter,
    /// Error replies.
    pub errors: Counter,
    /// Commands that panicked.
    pub panics: Counter,
}

/// Steps of a histogram: four a doubling, up to 2^36 ns (about a minute).
pub const LATENCY_STEPS: usize = 144;

/// A histogram of latencies with one writer.
#[derive(Debug)]
pub struct LatencyHistogram([Counter; LATENCY_STEPS]);

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self([const { Counter(AtomicU64::new(0)) }; LATENCY_STEPS])
    }
}

impl LatencyHistogram {
    /// Counts one latency.
    #[inline]
    pub fn record(&self, nanos: u64) {
        self.0[step_of(nanos)].add(1);
    }

    /// Adds these counts to `sums`.
    pub fn add_to(&self, sums: &mut [u64; LATENCY_STEPS]) {
        for (sum, counter) in sums.iter_mut().zip(&self.0) {
            *sum += counter.get();
        }
    }
}

/// The step that a latency falls into.
#[inline]
fn step_of(nanos: u64) -> usize {
    let nanos = nanos.max(4);
    let doubling = 63 - nanos.leading_zeros() as usize;
    let quarter = (nanos >> (doubling - 2)) as usize & 3;
    (doubling * 4 + quarter).min(LATENCY_STEPS - 1)
}

/// The upper end of a step, in nanoseconds.
pub fn step_limit(step: usize) -> u64 {
    let (doubling, quarter) = (step / 4, step % 4);
    if doubling < 2 { 4 } else { (1 << doubling) + (quarter as u64 + 1) * (1 << (doubling - 2)) - 1 }
}

/// The counters of all threads.
#[derive(Debug, Default)]
pub struct Telemetry {
    workers: Mutex<Vec<Arc<CachePadded<WorkerCounters>>>>,
    /// Error replies by their code.
    errors: Mutex<std::collections::BTreeMap<String, u64>>,
    /// Connections refused at the limit.
    pub rejected_connections: AtomicU64,
    /// The most memory seen, in bytes.
    pub peak_memory: AtomicU64,
    /// Whether memory is being defragmented.
    pub defrag_running: AtomicBool,
    /// Allocations that defragmentation moved.
    pub defrag_moved: AtomicU64,
    /// Keys that it looked at.
    pub defrag_keys: AtomicU64,
    /// Samples of the rates of the last second: commands, bytes in, bytes out.
    pub rates: Mutex<Rates>,
}

/// What happened per second lately.
#[derive(Debug, Default, Clone, Copy)]
pub struct Rates {
    /// Commands per second.
    pub commands: u64,
    /// Bytes read per second.
    pub input_bytes: u64,
    /// Bytes written per second.
    pub output_bytes: u64,
    last: (u64, u64, u64),
}

/// Sums over all threads.
#[derive(Debug, Default, Clone, Copy)]
pub struct Totals {
    /// Commands executed.
    pub commands: u64,
    /// Bytes read.
    pub input_bytes: u64,
    /// Bytes written.
    pub output_bytes: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Error replies.
    pub errors: u64,
    /// Commands that panicked.
    pub panics: u64,
}

impl Telemetry {
    /// Nothing counted yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counters for a new thread, for a table of so many commands.
    pub fn register(&self, commands: usize) -> Arc<CachePadded<WorkerCounters>> {
        let counters = Arc::new(CachePadded::new(WorkerCounters {
            commands: (0..commands).map(|_| CommandCounters::default()).collect(),
            latencies: (0..commands).map(|_| LatencyHistogram::default()).collect(),
            input_bytes: Counter::default(),
            output_bytes: Counter::default(),
            connections: Counter::default(),
            errors: Counter::default(),
            panics: Counter::default(),
        }));
        self.workers.lock().push(counters.clone());
        counters
    }

    /// Calls `visit` for each thread's counters.
    pub fn each(&self, mut visit: impl FnMut(&WorkerCounters)) {
        for worker in self.workers.lock().iter() {
            visit(worker);
        }
    }

    /// Sums over all threads.
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.each(|worker| {
            totals.commands += worker.commands.iter().map(|command| command.calls.get()).sum::<u64>();
            totals.input_bytes += worker.input_bytes.get();
            totals.output_bytes += worker.output_bytes.get();
            totals.connections += worker.connections.get();
            totals.errors += worker.errors.get();
            totals.panics += worker.panics.get();
        });
        totals
    }

    /// Counts an error reply by its code; codes are few, but a client can make them up with scripts.
    pub fn count_error(&self, code: &str) {
        const MAX_CODES: usize = 128;
        let mut errors = self.errors.lock();
        if let Some(count) = errors.get_mut(code) {
            *count += 1;
        } else if errors.len() < MAX_CODES {
            errors.insert(code.to_owned(), 1);
        }
    }

    /// Error replies by code.
    pub fn errors(&self) -> Vec<(String, u64)> {
        self.errors.lock().iter().map(|(code, count)| (code.clone(), *count)).collect()
    }

    /// Takes the rates since the last call, a tenth of a second ago or so.
    pub fn sample_rates(&self, elapsed: std::time::Duration) {
        let totals = self.totals();
        let now = (totals.commands, totals.input_bytes, totals.output_bytes);
        let mut rates = self.rates.lock();
        let per_second = |now: u64, before: u64| {
            (now.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1e-3)) as u64
        };
        *rates = Rates {
            commands: per_second(now.0, rates.last.0),
            input_bytes: per_second(now.1, rates.last.1),
            output_bytes: per_second(now.2, rates.last.2),
            last: now,
        };
    }

    /// `CONFIG RESETSTAT`: counts from nothing again.
    pub fn reset(&self) {
        self.errors.lock().clear();
        self.rejected_connections.store(0, Relaxed);
        self.rates.lock().last = (0, 0, 0);
        self.each(|worker| {
            for command in &worker.commands {
                for counter in [&command.calls, &command.nanos, &command.rejected, &command.failed] {
                    counter.reset();
                }
            }
            for histogram in &worker.latencies {
                histogram.0.iter().for_each(Counter::reset);
            }
            for counter in [&worker.input_bytes, &worker.output_bytes, &worker.connections, &worker.errors] {
                counter.reset();
            }
        });
    }
}
