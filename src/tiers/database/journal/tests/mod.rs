//! The journal on a simulated disk, but for what needs a real one.

mod crash;
mod damage;
mod disk;
mod faults;
mod ordinary;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use disk::{Disk, Image};

use super::{Fsync, Journal, JournalError, OpenError, Options, Report, Sequence, Shortage};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(20);

/// Records by sequence.
type Records = BTreeMap<Sequence, Vec<u8>>;

/// Small segments, short intervals.
fn options(fsync: Fsync) -> Options {
    let interval = Duration::from_millis(2);
    Options { fsync, segment_size: 512, max_size: 1 << 20, interval, retry: interval, ..Options::default() }
}

fn open(disk: &Disk, options: Options) -> Result<(Journal, Report, Records), OpenError> {
    let mut records = Records::new();
    let (journal, report) = Journal::open_on(disk.storage(), options, |sequence, payload| {
        let before = records.insert(sequence, payload.to_vec());
        assert_eq!(before, None, "replayed twice");
        assert_eq!(records.last_key_value().map(|last| *last.0), Some(sequence), "out of order");
    })?;
    Ok((journal, report, records))
}

/// A payload that tells which record it is of; its length depends on the sequence too.
fn payload(sequence: Sequence) -> Vec<u8> {
    let mut bytes = format!("record {sequence} ").into_bytes();
    bytes.resize(bytes.len() + (sequence * 7 % 40) as usize, b'x');
    bytes
}

fn append(journal: &Journal) -> Result<Sequence, JournalError> {
    let mut reservation = journal.reserve(60)?;
    let expected = payload(journal.last() + 1);
    let (head, tail) = expected.split_at(expected.len() / 2);
    reservation.append(&[head, tail])
}

/// Appends this many records and waits for them.
fn fill(journal: &Journal, count: u64) {
    let last = (0..count).map(|_| append(journal).unwrap()).last().unwrap();
    journal.wait_for(last, LONG).unwrap();
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let started = crate::clock::monotonic();
    while !condition() {
        assert!(started.elapsed() < LONG, "{what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// A directory that goes with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self(std::env::temp_dir().join(format!("anteroom-journal-{}-{number}", std::process::id())))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
