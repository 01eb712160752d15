//! Resident bytes per key, each figure from a freshly started server.

use std::io;
use std::thread;
use std::time::Duration;

use crate::args::Options;
use crate::client::{Client, Endpoint, encode};
use crate::placement::Placement;
use crate::report;
use crate::server::{Contender, Contest, Scratch};
use crate::workload::fill;

/// How long a server gets to finish what it does in the background (resizing tables, returning pages).
const SETTLE: Duration = Duration::from_millis(1500);

/// What a server is filled with.
struct Filling {
    label: &'static str,
    keys: usize,
    what: &'static str,
    /// The command that makes key number n.
    command: fn(usize) -> Vec<String>,
}

const FILLINGS: [Filling; 4] = [
    Filling { label: "memory-string", keys: 1_000_000, what: "SET key:%012d (16 B) 64 B", command: string },
    Filling {
        label: "memory-string-ttl",
        keys: 1_000_000,
        what: "SET key:%012d (16 B) 64 B EX 100000+n%10000",
        command: string_with_ttl,
    },
    Filling {
        label: "memory-small-hash",
        keys: 100_000,
        what: "HSET key:%012d, 8 fields 'field-N' of 16 B",
        command: small_hash,
    },
    Filling {
        label: "memory-small-zset",
        keys: 100_000,
        what: "ZADD key:%012d, 8 members 'member-NNNNNNNN'",
        command: small_sorted_set,
    },
];

/// Runs every filling that is wanted and prints its line; returns how many there were.
pub fn run(options: &Options, contest: &Contest, directory: &Scratch) -> Result<usize, String> {
    let wanted: Vec<&Filling> = FILLINGS.iter().filter(|filling| options.wants(filling.label)).collect();
    if wanted.is_empty() {
        return Ok(0);
    }
    let Some(placement) = Placement::new(options, 1)? else {
        return Err("needs at least two usable cores".into());
    };
    report::memory_header(&contest.subject.name, &contest.baseline.name);
    // Resident memory hardly varies from start to start: three are enough for a median.
    let rounds = if options.quick { 1 } else { 3 };
    for filling in &wanted {
        let mut samples = [Vec::new(), Vec::new()];
        for _ in 0..rounds {
            for (contender, list) in [&contest.subject, &contest.baseline].iter().zip(&mut samples) {
                list.push(bytes_per_key(contender, filling, directory, &placement)?);
            }
        }
        report::memory_line(
            filling.label,
            samples.map(|list| report::median(list.into_iter())),
            filling.what,
        );
    }
    Ok(wanted.len())
}

fn bytes_per_key(
    contender: &Contender,
    filling: &Filling,
    directory: &Scratch,
    placement: &Placement,
) -> Result<f64, String> {
    let server = contender.start(directory, &placement.server)?;
    let load = |count: usize| -> io::Result<()> {
        let mut client = Client::connect(&Endpoint::Tcp(server.port))?;
        fill(&mut client, count, |n, request| encode(request, &(filling.command)(n)))
    };
    let failed = |e: io::Error| format!("{}: {}: {e}", server.name, filling.label);
    // What a server allocates once, for its first connection and key, is not what a key costs.
    load(1).map_err(failed)?;
    thread::sleep(SETTLE / 5);
    let before = server.resident()?;
    load(filling.keys).map_err(failed)?;
    thread::sleep(SETTLE);
    let after = server.resident()?;
    Ok(after.saturating_sub(before) as f64 / filling.keys as f64)
}

fn words(list: &[&str]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

fn key(n: usize) -> String {
    format!("key:{n:012}")
}

fn string(n: usize) -> Vec<String> {
    words(&["SET", &key(n), &"x".repeat(64)])
}

fn string_with_ttl(n: usize) -> Vec<String> {
    let mut command = string(n);
    command.extend(["EX".into(), (100_000 + n % 10_000).to_string()]);
    command
}

fn small_hash(n: usize) -> Vec<String> {
    let mut command = words(&["HSET", &key(n)]);
    for field in 0..8 {
        command.extend([format!("field-{field}"), format!("value-{:010}", n * 8 + field)]);
    }
    command
}

fn small_sorted_set(n: usize) -> Vec<String> {
    let mut command = words(&["ZADD", &key(n)]);
    for member in 0..8 {
        command.extend([(n % 1000 + member).to_string(), format!("member-{:08}", n + member)]);
    }
    command
}
