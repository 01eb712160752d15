//! What the journal does on the disk of the current directory: appends a second, and how long a start takes.
//!
//! ```text
//! cargo bench --bench journal                       # in a directory that it makes under target/
//! cargo bench --bench journal -- --dir /mnt/other
//! ```
//!
//! `waiting`: each thread appends a record and waits until it is acknowledged, as a client does that does not
//! pipeline. `pipelined`: each waits after 100. `append`: only the call, in nanoseconds, of a single thread.

#![allow(clippy::disallowed_methods, reason = "a harness, not the server")]

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anteroom::tiers::database::journal::{Fsync, Journal, JournalError, Options, Shortage};

const PAYLOAD: [u8; 100] = [b'x'; 100];
const LONG: Duration = Duration::from_secs(60);
const RUN: Duration = Duration::from_secs(2);

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let given =
        arguments.iter().position(|argument| argument == "--dir").and_then(|at| arguments.get(at + 1));
    let root = given.map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let directory = root.join(format!("journal-bench-{}", std::process::id()));
    println!("records of {} bytes, {:?}", PAYLOAD.len(), directory);
    println!(
        "{:<12} {:<10} {:>8} {:>14} {:>14} {:>12}",
        "fsync", "", "threads", "appends/s", "bytes/write", "fsync µs"
    );
    for fsync in [Fsync::Always, Fsync::EverySecond, Fsync::No] {
        for (kind, pipeline) in [("waiting", 1), ("pipelined", 100)] {
            for threads in [1, 8, 64] {
                appends(&directory, fsync, kind, pipeline, threads);
            }
        }
    }
    append_alone(&directory);
    replay(&directory);
}

fn options(fsync: Fsync) -> Options {
    Options { fsync, max_size: 64 << 30, ..Options::default() }
}

fn fresh(directory: &Path, fsync: Fsync) -> Journal {
    let _ = std::fs::remove_dir_all(directory);
    Journal::open(directory, options(fsync), |_, _| {}).expect("open").0
}

fn appends(directory: &Path, fsync: Fsync, kind: &str, pipeline: usize, threads: usize) {
    let journal = fresh(directory, fsync);
    let (count, started) = (AtomicU64::new(0), Instant::now());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while started.elapsed() < RUN {
                    let last = (0..pipeline).map(|_| append(&journal)).last().unwrap_or(0);
                    journal.wait_for(last, LONG).expect("acknowledged");
                    count.fetch_add(pipeline as u64, Ordering::Relaxed);
                }
            });
        }
    });
    let rate = count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    let statistics = journal.statistics();
    let bytes = statistics.disk_bytes / statistics.writes.max(1);
    let sync = statistics.sync_time.as_micros() as u64 / statistics.syncs.max(1);
    println!("{:<12} {kind:<10} {threads:>8} {rate:>14.0} {bytes:>14} {sync:>12}", format!("{fsync:?}"));
}

fn append(journal: &Journal) -> u64 {
    loop {
        match journal.append(&[&PAYLOAD]) {
            Ok(sequence) => return sequence,
            Err(JournalError::Full(Shortage::Buffer)) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
    }
}

fn append_alone(directory: &Path) {
    let journal = fresh(directory, Fsync::EverySecond);
    let (count, started) = (200_000, Instant::now());
    (0..count).for_each(|_| drop(journal.append(&[&PAYLOAD])));
    println!("append       one thread, not waiting: {} ns", started.elapsed().as_nanos() / count);
}

fn replay(directory: &Path) {
    let journal = fresh(directory, Fsync::No);
    let last = (0..1_000_000).map(|_| append(&journal)).last().unwrap_or(0);
    journal.wait_for(last, LONG).expect("written");
    drop(journal);
    let (mut records, mut bytes) = (0, 0);
    let replay = |_, payload: &[u8]| {
        records += 1;
        bytes += payload.len();
    };
    let started = Instant::now();
    let opened = Journal::open(directory, options(Fsync::No), replay).expect("open");
    println!("replay       {records} records, {bytes} bytes: {} ms", started.elapsed().as_millis());
    drop(opened);
    let _ = std::fs::remove_dir_all(directory);
}
