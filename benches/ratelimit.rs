//! Rate limits beside `INCR` on the same server, and beside the pattern in `MULTI` that people use on Redis.
//!
//! ```text
//! cargo bench --bench ratelimit -- --run             # pipelines of 1, 16 and 32, about a minute
//! cargo bench --bench ratelimit -- --run --keys N    # other than 10,000 keys
//! cargo bench --bench ratelimit -- --run --only take-log --pipeline 32 --rounds 50    # to look at one case
//! ```
//! One core for the server, another for the load: 50 connections, each with one pipeline under way, keys at random. All
//! cases take their turn in each round, and what is printed are medians: requests a second, and operations per CPU-second
//! of the server, which is the figure to judge by where the load generator is the slower one or a neighbour is busy.
//! A case with `refused` has a limit of 1, so that nearly all calls are refused. The pattern counts as one operation:
//! `MULTI`, `ZREMRANGEBYSCORE`, `ZCARD`, `ZADD`, `EXPIRE`, `EXEC`, either sent at once or, unpipelined, one by one: each
//! after the reply to the one before, as an application sends them that looks at each reply.

#![allow(clippy::disallowed_methods, reason = "a harness, not the server")]

#[path = "compare/client.rs"]
#[allow(dead_code, reason = "the other bench uses the rest")]
mod client;
#[path = "shared/cpu.rs"]
mod cpu;
#[path = "shared/server.rs"]
mod server;

use std::io;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use client::{Client, Endpoint, encode};
use server::{Server, pin};

const CONNECTIONS: usize = 50;
const ROUNDS: usize = 5;
/// Stands for twelve random digits.
const RANDOM: &str = "__rand_int__";
/// Stand for the time in milliseconds, and for a second earlier.
const NOW: &str = "_____now_____";
const BEFORE: &str = "___before____";

type Case = (&'static str, bool, &'static [&'static str]);

const PATTERN: &[&str] = &[
    "MULTI",
    "ZREMRANGEBYSCORE log:__rand_int__ 0 ___before____",
    "ZCARD log:__rand_int__",
    "ZADD log:__rand_int__ _____now_____ _____now_____-__rand_int__",
    "EXPIRE log:__rand_int__ 1",
    "EXEC",
];

/// Name, whether on Redis, and the commands.
const CASES: &[Case] = &[
    ("incr", false, &["INCR counter:__rand_int__"]),
    ("take-gcra", false, &["RATELIMIT.TAKE gcra:__rand_int__ 100 1000 ALGORITHM gcra"]),
    ("take-log", false, &["RATELIMIT.TAKE log:__rand_int__ 100 1000"]),
    ("take-counter", false, &["RATELIMIT.TAKE counted:__rand_int__ 100 1000 ALGORITHM counter"]),
    ("take-log-refused", false, &["RATELIMIT.TAKE one:__rand_int__ 1 86400000"]),
    ("throttle", false, &["CL.THROTTLE cell:__rand_int__ 99 100 1"]),
    ("incr-redis", true, &["INCR counter:__rand_int__"]),
    ("pattern-redis", true, PATTERN),
    (ONE_BY_ONE, true, PATTERN),
];

/// The same pattern, each command after the reply to the one before.
const ONE_BY_ONE: &str = "pattern-steps";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // `cargo test --all-targets` starts bench targets too: nothing is measured then.
    if !has("--run") {
        println!("ratelimit: nothing to do; run it with `cargo bench --bench ratelimit -- --run`");
        return;
    }
    let value = |flag: &str| arguments.iter().skip_while(|argument| *argument != flag).nth(1);
    let number = |flag, default| value(flag).map_or(default, |text| text.parse().expect("a number"));
    let keys = number("--keys", 10_000) as u32;
    let rounds = number("--rounds", ROUNDS);
    let pipelines = value("--pipeline").map_or(vec![1, 16, 32], |_| vec![number("--pipeline", 1)]);
    let only = value("--only").map(|names| names.split(',').collect::<Vec<_>>());
    let cases: Vec<Case> = CASES
        .iter()
        .filter(|(name, ..)| only.as_ref().is_none_or(|only| only.contains(name)))
        .copied()
        .collect();
    if let Err(error) = run(keys, rounds, &pipelines, &cases) {
        eprintln!("ratelimit: {error}");
        std::process::exit(1);
    }
}

fn run(keys: u32, rounds: usize, pipelines: &[usize], cases: &[Case]) -> io::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    if cores < 2 {
        return Err(io::Error::other("one core for the server and one for the load are needed"));
    }
    let ours = Server::start(
        env!("CARGO_BIN_EXE_anteroom"),
        &["--admin", "off", "--threads", "1", "--log-level", "error"],
        Some(cores - 1),
    )?;
    let theirs = Server::start("redis-server", &["--save", "", "--appendonly", "no"], Some(cores - 1))?;
    pin(cores - 2)?;
    println!("{keys} keys, {CONNECTIONS} connections, medians of {rounds} rounds; thousands\n");
    println!(
        "{:<22} {:>9} {:>12} {:>14} {:>16}",
        "case", "rps", "op/cpu-s", "rps / first", "op/cpu-s / first"
    );
    for &pipeline in pipelines {
        let mut samples = vec![Vec::new(); cases.len()];
        for round in 0..=rounds {
            for ((name, on_redis, commands), list) in cases.iter().zip(&mut samples) {
                let server = if *on_redis { &theirs } else { &ours };
                let full = if pipeline > 1 { 600_000 } else { 60_000 };
                let sample = match *name {
                    ONE_BY_ONE if pipeline > 1 => continue,
                    ONE_BY_ONE => steps(server, commands, full / commands.len(), keys)?,
                    _ => burst(server, commands, pipeline, full / commands.len(), keys)?,
                };
                // The first round only warms up.
                if round > 0 {
                    list.push(sample);
                }
            }
        }
        let medians: Vec<(f64, f64)> = samples
            .iter()
            .map(|list| {
                (median(list.iter().map(|sample| sample.0)), median(list.iter().map(|sample| sample.1)))
            })
            .collect();
        for ((name, ..), (rps, cpu)) in cases.iter().zip(&medians).filter(|(_, (rps, _))| !rps.is_nan()) {
            let (first_rps, first_cpu) = medians[0];
            println!(
                "p{pipeline:<3} {name:<17} {:>9.1} {:>12.1} {:>14.2} {:>16.2}",
                rps / 1e3,
                cpu / 1e3,
                rps / first_rps,
                cpu / first_cpu
            );
        }
        println!();
    }
    Ok(())
}

/// Requests a second and operations per CPU-second of one burst.
fn burst(
    server: &Server,
    commands: &[&str],
    pipeline: usize,
    requests: usize,
    keys: u32,
) -> io::Result<(f64, f64)> {
    let endpoint = Endpoint::Tcp(server.port);
    let mut clients = (0..CONNECTIONS).map(|_| Client::connect(&endpoint)).collect::<io::Result<Vec<_>>>()?;
    let one = Template::new(commands);
    let mut batch = one.bytes.repeat(pipeline);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut next = |client: &mut Client| {
        for request in batch.chunks_exact_mut(one.bytes.len()) {
            one.fill(request, rng.u32(..keys));
        }
        client.send(&batch)
    };
    let batches = requests.div_ceil(pipeline);
    let (begin, cpu_begin) = (Instant::now(), server.cpu_time()?);
    let first = batches.min(CONNECTIONS);
    clients[..first].iter_mut().try_for_each(&mut next)?;
    for received in 0..batches {
        let client = &mut clients[received % CONNECTIONS];
        client.skip_replies(pipeline * commands.len())?;
        if received + first < batches {
            next(client)?;
        }
    }
    let (time, used) = (begin.elapsed(), server.cpu_time()? - cpu_begin);
    let done = (batches * pipeline) as f64;
    Ok((done / time.as_secs_f64(), done / used.as_secs_f64().max(1e-9)))
}

/// The same for commands that are sent one by one.
fn steps(server: &Server, commands: &[&str], requests: usize, keys: u32) -> io::Result<(f64, f64)> {
    let endpoint = Endpoint::Tcp(server.port);
    let mut clients = (0..CONNECTIONS).map(|_| Client::connect(&endpoint)).collect::<io::Result<Vec<_>>>()?;
    let templates: Vec<Template> = commands.iter().map(|command| Template::new(&[command])).collect();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut numbers = [0; CONNECTIONS];
    let mut send = |client: &mut Client, index: usize, step: usize| {
        if step == 0 {
            numbers[index] = rng.u32(..keys);
        }
        let template = &templates[step];
        let mut request = template.bytes.clone();
        template.fill(&mut request, numbers[index]);
        client.send(&request)
    };
    let rounds = requests.div_ceil(CONNECTIONS);
    let (begin, cpu_begin) = (Instant::now(), server.cpu_time()?);
    for (index, client) in clients.iter_mut().enumerate() {
        send(client, index, 0)?;
    }
    for sent in 1..=rounds * commands.len() {
        for (index, client) in clients.iter_mut().enumerate() {
            client.skip_replies(1)?;
            if sent < rounds * commands.len() {
                send(client, index, sent % commands.len())?;
            }
        }
    }
    let (time, used) = (begin.elapsed(), server.cpu_time()? - cpu_begin);
    let done = (rounds * CONNECTIONS) as f64;
    Ok((done / time.as_secs_f64(), done / used.as_secs_f64().max(1e-9)))
}

/// Encoded commands with places for a number and the time.
struct Template {
    bytes: Vec<u8>,
    random: Vec<usize>,
    now: Vec<usize>,
    before: Vec<usize>,
}

impl Template {
    fn new(commands: &[&str]) -> Self {
        let mut bytes = Vec::new();
        for command in commands {
            encode(&mut bytes, &command.split(' ').collect::<Vec<_>>());
        }
        let places = |marker: &str| memchr::memmem::find_iter(&bytes, marker).collect::<Vec<_>>();
        let (random, now, before) = (places(RANDOM), places(NOW), places(BEFORE));
        Self { bytes, random, now, before }
    }

    /// Puts a number and the time into one copy of the bytes.
    fn fill(&self, request: &mut [u8], number: u32) {
        let millis = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        let mut write = |places: &[usize], len: usize, number: u64| {
            places.iter().for_each(|at| write_digits(&mut request[*at..at + len], number));
        };
        write(&self.random, RANDOM.len(), number.into());
        write(&self.now, NOW.len(), millis);
        write(&self.before, BEFORE.len(), millis - 1000);
    }
}

fn write_digits(place: &mut [u8], mut number: u64) {
    for digit in place.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
