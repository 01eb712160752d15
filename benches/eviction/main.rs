//! Hit ratios of eviction policies over synthetic traces, as a simulation: no server, no memory, only decisions.
//!
//! ```text
//! cargo bench --bench eviction                                        # about half a minute
//! cargo bench --bench eviction -- --keys 1000000 --requests 20000000  # larger; --shards N, --only SUBSTR
//! ```
//!
//! Every cell is the percentage of hits after the first fifth of the trace (the warm-up), for a cache that holds
//! that part of the keys; a miss inserts its key. Seeds are fixed: two runs print the same. The columns:
//!
//! - `s3fifo`: `types::s3fifo`, one queue; `sharded`: one for each of `--shards` shards, as a server has it: shards
//!   pay in turn, those below the average are passed over; `paper`: S3-FIFO with the constants of the paper
//! - `redis-lru`, `redis-lfu`: Redis's policies: 5 samples from neighbouring buckets into a pool of 16, a clock of
//!   one second (LRU), the logarithmic counter with a decay of one a minute (LFU)
//! - `lru-16`, `lfu-16`: Redis's clock and counter, but the best of 16 samples from the shard whose turn it is
//! - `lru`: exact; `random`
//!
//! With many shards and few keys, a shard holds very few: at 256 shards the row "0.5%" of 100,000 keys is a cache of
//! two keys per shard. Give more `--keys` to see what a server of that size does.
//!
//! The clock of the sampled policies advances a second each [`RATE`] requests. Not here: sizes and TTLs (all keys
//! weigh the same) and the cost of a decision.

#![allow(clippy::disallowed_types, reason = "a harness, not the server")]

mod ours;
mod reference;
mod sampled;
mod traces;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use traces::Trace;

/// Requests a second that the simulated clock assumes.
pub const RATE: u64 = 10_000;

/// Cache sizes in thousandths of the number of keys.
const SIZES: [usize; 5] = [5, 10, 50, 100, 250];

/// A cache that holds keys only.
pub trait Policy {
    /// Uses a key, which is inserted if absent; returns whether it was there.
    fn access(&mut self, key: u32) -> bool;
}

/// A column: its name and how to make a cache of so many keys, in so many shards.
type Column = (&'static str, fn(usize, usize) -> Box<dyn Policy>);

const COLUMNS: [Column; 9] = [
    ("s3fifo", |capacity, _| Box::new(ours::Ours::new(capacity, 1))),
    ("sharded", |capacity, shards| Box::new(ours::Ours::new(capacity, shards))),
    ("paper", |capacity, _| Box::new(reference::PaperS3Fifo::new(capacity))),
    ("redis-lru", |capacity, _| Box::new(sampled::Redis::new(capacity, sampled::Score::Idle))),
    ("redis-lfu", |capacity, _| Box::new(sampled::Redis::new(capacity, sampled::Score::Rarity))),
    ("lru-16", |capacity, shards| Box::new(sampled::Sharded::new(capacity, shards, sampled::Score::Idle))),
    ("lfu-16", |capacity, shards| Box::new(sampled::Sharded::new(capacity, shards, sampled::Score::Rarity))),
    ("lru", |capacity, _| Box::new(reference::Lru::new(capacity))),
    ("random", |capacity, _| Box::new(reference::Random::new(capacity))),
];

struct Options {
    keys: usize,
    requests: usize,
    shards: usize,
    only: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --all-targets` starts bench targets without any argument: nothing is simulated then.
    if arguments.is_empty() {
        println!("eviction: nothing to do; run it with `cargo bench --bench eviction`");
        return ExitCode::SUCCESS;
    }
    match parse(&arguments) {
        Ok(options) => {
            run(&options);
            ExitCode::SUCCESS
        }
        Err(message) => {
            eprintln!("eviction: {message}; options: --keys N --requests N --shards N --only SUBSTR");
            ExitCode::from(2)
        }
    }
}

fn parse(arguments: &[String]) -> Result<Options, String> {
    let mut options = Options { keys: 100_000, requests: 2_000_000, shards: 256, only: String::new() };
    let mut rest = arguments.iter();
    while let Some(flag) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{flag} needs a value"));
        let number = |text: &String| match text.parse() {
            Ok(0) | Err(_) => Err(format!("not a positive number: {text}")),
            Ok(number) => Ok(number),
        };
        match flag.as_str() {
            "--bench" => {} // cargo's own
            "--keys" => options.keys = number(value()?)?.max(1000),
            "--requests" => options.requests = number(value()?)?,
            "--shards" => options.shards = number(value()?)?,
            "--only" => options.only = value()?.clone(),
            unknown => return Err(format!("unknown option {unknown}")),
        }
    }
    Ok(options)
}

fn run(options: &Options) {
    println!("{} keys, {} requests, {} shards; hits in %\n", options.keys, options.requests, options.shards);
    print!("{:<14} {:>5}", "trace", "size");
    COLUMNS.iter().for_each(|(name, _)| print!(" {name:>9}"));
    println!(" | s3fifo (sharded) over the better of Redis's");
    for trace in Trace::ALL.into_iter().filter(|trace| trace.name().contains(&options.only)) {
        let requests = trace.generate(options.keys, options.requests);
        for (size, row) in SIZES.iter().zip(rows(options, &requests)) {
            print!("{:<14} {:>4.1}%", trace.name(), *size as f64 / 10.0);
            row.iter().for_each(|ratio| print!(" {ratio:>9.2}"));
            let better = row[3].max(row[4]);
            println!(" | {:+.2} ({:+.2})", row[0] - better, row[1] - better);
        }
    }
}

/// All cells of one trace, on all cores.
fn rows(options: &Options, requests: &[u32]) -> Vec<[f64; COLUMNS.len()]> {
    let table = Mutex::new(vec![[0.0; COLUMNS.len()]; SIZES.len()]);
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let cell = next.fetch_add(1, Ordering::Relaxed);
            let (row, column) = (cell / COLUMNS.len(), cell % COLUMNS.len());
            let Some(size) = SIZES.get(row) else { return };
            let capacity = options.keys * size / 1000;
            let ratio = hit_ratio(COLUMNS[column].1(capacity, options.shards), requests);
            if let Ok(mut table) = table.lock() {
                table[row][column] = ratio;
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| _ = scope.spawn(work));
    });
    table.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner())
}

fn hit_ratio(mut policy: Box<dyn Policy>, requests: &[u32]) -> f64 {
    let warm = requests.len() / 5;
    let mut hits = 0usize;
    for (n, &key) in requests.iter().enumerate() {
        let hit = policy.access(key);
        hits += usize::from(hit && n >= warm);
    }
    100.0 * hits as f64 / (requests.len() - warm) as f64
}
