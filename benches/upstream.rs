//! The near cache: hits beside the local tier, misses beside asking Redis directly, and both over a slow path.
//!
//! ```text
//! cargo bench --bench upstream -- --run             # about a minute
//! cargo bench --bench upstream -- --run --pin       # servers on one core, the load on another
//! ```
//! 50 connections, each with one pipeline under way. All cases take their turn in each round, and what is printed are
//! medians of requests a second, and the ratio to the case that each is to be held against. `miss` reads keys that were
//! never read before, `bypass` keys that are not kept; `direct` reads the same from the same Redis. `slow` cases read
//! 10,000 keys by Zipf's law (exponent 1) over a path that adds half a millisecond each way, by a single connection: what
//! the delay costs an application that waits for each reply. At last, how late changes are seen under 50,000 writes a
//! second.

#![allow(clippy::disallowed_methods, reason = "a harness, not the server")]

#[path = "compare/client.rs"]
#[allow(dead_code, reason = "the other bench uses the rest")]
mod client;
#[path = "shared/cpu.rs"]
#[allow(dead_code, reason = "this bench does not ask")]
mod cpu;
#[path = "shared/server.rs"]
mod server;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use client::{Client, Endpoint, encode};
use server::{Server, pin};

const CONNECTIONS: usize = 50;
const ROUNDS: usize = 5;
const KEYS: usize = 10_000;
const DELAY: Duration = Duration::from_micros(500);

/// Which keys a case reads.
#[derive(Clone, Copy)]
enum Keys {
    /// Any of those that exist.
    Uniform,
    /// The same by Zipf's law.
    Zipf,
    /// Each only once.
    Fresh,
    /// Of the prefix that is not kept.
    Bypass,
}

/// Name, server, keys, the case it is held against, and a pipeline's depth.
type Case = (&'static str, usize, Keys, &'static str, usize);

const LOCAL: usize = 0;
const NEAR: usize = 1;
const REDIS: usize = 2;
const SLOW_NEAR: usize = 3;
const SLOW_REDIS: usize = 4;

const CASES: &[Case] = &[
    ("local", LOCAL, Keys::Uniform, "local", 1),
    ("hit", NEAR, Keys::Uniform, "local", 1),
    ("local-p32", LOCAL, Keys::Uniform, "local-p32", 32),
    ("hit-p32", NEAR, Keys::Uniform, "local-p32", 32),
    ("direct", REDIS, Keys::Uniform, "direct", 1),
    ("miss", NEAR, Keys::Fresh, "direct", 1),
    ("bypass", NEAR, Keys::Bypass, "direct", 1),
    ("direct-p32", REDIS, Keys::Uniform, "direct-p32", 32),
    ("miss-p32", NEAR, Keys::Fresh, "direct-p32", 32),
    ("bypass-p32", NEAR, Keys::Bypass, "direct-p32", 32),
    ("slow-direct", SLOW_REDIS, Keys::Zipf, "slow-direct", 1),
    ("slow-near", SLOW_NEAR, Keys::Zipf, "slow-direct", 1),
];

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    // `cargo test --all-targets` starts bench targets too: nothing is measured then.
    if !has("--run") {
        println!("upstream: nothing to do; run it with `cargo bench --bench upstream -- --run`");
        return;
    }
    if let Err(error) = run(has("--pin")) {
        eprintln!("upstream: {error}");
        std::process::exit(1);
    }
}

fn run(pins: bool) -> io::Result<()> {
    let cores = std::thread::available_parallelism()?.get();
    let core = (pins && cores > 1).then_some(cores - 1);
    let redis = Server::start("redis-server", &["--save", "", "--appendonly", "no"], core)?;
    let slow_port = delayed(redis.port)?;
    let rules = std::env::temp_dir().join(format!("anteroom-bench-{}.toml", std::process::id()));
    let anteroom = |upstream: Option<u16>| {
        let mut arguments =
            ["--admin", "off", "--threads", "1", "--log-level", "error"].map(str::to_owned).to_vec();
        if let Some(port) = upstream {
            let text = format!(
                "[upstream]\nurl = \"redis://127.0.0.1:{port}\"\n[[keys]]\npattern = \"raw:*\"\ntier = \"bypass\"\n"
            );
            std::fs::write(&rules, text)?;
            arguments.extend([
                "--config".to_owned(),
                rules.display().to_string(),
                "--maxmemory".to_owned(),
                "1gb".to_owned(),
            ]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Server::start(env!("CARGO_BIN_EXE_anteroom"), &arguments, core)
    };
    let (local, near, slow) = (anteroom(None)?, anteroom(Some(redis.port))?, anteroom(Some(slow_port))?);
    std::fs::remove_file(&rules)?;
    let ports = [local.port, near.port, redis.port, slow.port, slow_port];
    for port in [local.port, redis.port] {
        let mut client = Client::connect(&Endpoint::Tcp(port))?;
        for key in 0..KEYS {
            for prefix in ["key", "raw"] {
                client.command(&["SET", &format!("{prefix}:{key:012}"), "a value of some length"])?;
            }
        }
    }
    if pins && cores > 1 {
        pin(0)?;
    }
    let mut fresh = 0;
    let mut samples = vec![Vec::new(); CASES.len()];
    for round in 0..=ROUNDS {
        for ((_, server, keys, _, depth), list) in CASES.iter().zip(&mut samples) {
            let requests = match (server, keys, depth) {
                (&SLOW_REDIS, ..) => 2_000,
                (_, Keys::Zipf, _) => 40_000,
                (_, _, 1) => 60_000,
                (_, Keys::Fresh, _) => 100_000,
                _ => 400_000,
            };
            let rps = burst(ports[*server], *keys, *depth, requests, &mut fresh)?;
            if let Keys::Fresh = keys {
                // The next cases are not to be held up by what nobody will read again.
                let mut client = Client::connect(&Endpoint::Tcp(ports[*server]))?;
                client.command(&["CACHE.INVALIDATE", "new:*"])?;
            }
            // The first round only warms up.
            if round > 0 {
                list.push(rps);
            }
        }
    }
    println!("{CONNECTIONS} connections, medians of {ROUNDS} rounds\n");
    println!("{:<12} {:>12} {:>8}  of", "case", "requests/s", "ratio");
    let medians: Vec<f64> = samples.iter().map(|list| median(list)).collect();
    for ((name, .., base, _), rps) in CASES.iter().zip(&medians) {
        let at = CASES.iter().position(|(other, ..)| other == base).unwrap_or(0);
        println!("{name:<12} {rps:>12.0} {:>8.2}  {base}", rps / medians[at]);
    }
    lags(near.port, redis.port)
}

/// How late a change is seen: a key is changed at Redis and read through Anteroom until its new value comes, while others
/// write what Anteroom keeps at 50,000 a second and it is read again.
fn lags(near: u16, redis: u16) -> io::Result<()> {
    const PROBES: usize = 3_000;
    /// Writes in each millisecond.
    const PACE: usize = 50;
    let stop = AtomicBool::new(false);
    let written = AtomicUsize::new(0);
    let invalidations = || -> io::Result<f64> {
        let figures = Asker::connect(near)?.texts(&["CACHE.STATS"])?;
        let at = figures.iter().position(|name| name == "invalidations");
        at.and_then(|at| figures.get(at + 1)?.parse().ok())
            .ok_or_else(|| io::Error::other("no invalidations"))
    };
    let (began, before) = (Instant::now(), invalidations()?);
    let mut lags = std::thread::scope(|scope| {
        let writer = scope.spawn(|| -> io::Result<()> {
            let (mut client, mut rng) =
                (Client::connect(&Endpoint::Tcp(redis))?, fastrand::Rng::with_seed(7));
            let (mut batch, begin) = (Vec::new(), Instant::now());
            for tick in 0u64.. {
                if stop.load(Relaxed) {
                    break;
                }
                batch.clear();
                for _ in 0..PACE {
                    encode(&mut batch, &["SET", &format!("key:{:012}", rng.usize(..KEYS)), "another value"]);
                }
                client.send(&batch)?;
                client.skip_replies(PACE)?;
                written.fetch_add(PACE, Relaxed);
                std::thread::sleep(Duration::from_millis(tick + 1).saturating_sub(begin.elapsed()));
            }
            Ok(())
        });
        let reader = scope.spawn(|| -> io::Result<()> {
            let (mut client, mut rng) = (Client::connect(&Endpoint::Tcp(near))?, fastrand::Rng::with_seed(8));
            let mut batch = Vec::new();
            while !stop.load(Relaxed) {
                batch.clear();
                for _ in 0..PACE {
                    encode(&mut batch, &["GET", &format!("key:{:012}", rng.usize(..KEYS))]);
                }
                client.send(&batch)?;
                client.skip_replies(PACE)?;
            }
            Ok(())
        });
        let probing = || -> io::Result<Vec<f64>> {
            let (mut here, mut there) = (Asker::connect(near)?, Client::connect(&Endpoint::Tcp(redis))?);
            let mut lags = Vec::with_capacity(PROBES);
            for probe in 0..PROBES {
                let value = probe.to_string();
                there.command(&["SET", "probe", &value])?;
                let changed = Instant::now();
                while here.texts(&["GET", "probe"])?.first() != Some(&value) {}
                lags.push(changed.elapsed().as_secs_f64() * 1e3);
            }
            Ok(lags)
        };
        let lags = probing();
        stop.store(true, Relaxed);
        for thread in [writer, reader] {
            thread.join().map_err(|_| io::Error::other("a thread of the load panicked"))??;
        }
        lags
    })?;
    let seconds = began.elapsed().as_secs_f64();
    lags.sort_by(f64::total_cmp);
    let at = |part: f64| lags[((lags.len() - 1) as f64 * part) as usize];
    println!(
        "\na change is seen after {:.2} ms (median), {:.2} ms (p99), {:.2} ms (longest of {PROBES}), with {:.0} other writes \
         and {:.0} invalidations a second",
        at(0.5),
        at(0.99),
        at(1.0),
        written.load(Relaxed) as f64 / seconds,
        (invalidations()? - before) / seconds,
    );
    Ok(())
}

/// A connection that tells what the replies say.
struct Asker(BufReader<TcpStream>);

impl Asker {
    fn connect(port: u16) -> io::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        Ok(Self(BufReader::new(stream)))
    }

    /// The strings and integers of one reply, in order; nothing for what is nil.
    fn texts(&mut self, arguments: &[&str]) -> io::Result<Vec<String>> {
        let mut request = Vec::new();
        encode(&mut request, arguments);
        self.0.get_mut().write_all(&request)?;
        let (mut texts, mut left) = (Vec::new(), 1);
        while left > 0 {
            left -= 1;
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let (kind, rest) = line.trim_end().split_at(1);
            match (kind, rest.parse::<i64>()) {
                ("*", Ok(count)) => left += count.max(0),
                ("$", Ok(length @ 0..)) => {
                    let mut bytes = vec![0; length as usize + 2];
                    self.0.read_exact(&mut bytes)?;
                    bytes.truncate(length as usize);
                    texts.push(String::from_utf8_lossy(&bytes).into_owned());
                }
                ("$", _) => {}
                (":" | "+", _) => texts.push(rest.to_owned()),
                _ => return Err(io::Error::other(line)),
            }
        }
        Ok(texts)
    }
}

/// Requests a second of one burst.
fn burst(port: u16, keys: Keys, depth: usize, requests: usize, fresh: &mut usize) -> io::Result<f64> {
    let endpoint = Endpoint::Tcp(port);
    let connections = if let Keys::Zipf = keys { 1 } else { CONNECTIONS };
    let mut clients = (0..connections).map(|_| Client::connect(&endpoint)).collect::<io::Result<Vec<_>>>()?;
    let mut rng = fastrand::Rng::with_seed(1);
    let sums: Vec<f64> = (1..=KEYS)
        .scan(0.0, |sum, rank| {
            *sum += 1.0 / rank as f64;
            Some(*sum)
        })
        .collect();
    let mut batch = Vec::new();
    let mut next = |client: &mut Client| {
        batch.clear();
        for _ in 0..depth {
            let key = match keys {
                Keys::Uniform => format!("key:{:012}", rng.usize(..KEYS)),
                Keys::Bypass => format!("raw:{:012}", rng.usize(..KEYS)),
                Keys::Zipf => {
                    let at = rng.f64() * sums[KEYS - 1];
                    format!("key:{:012}", sums.partition_point(|sum| *sum < at))
                }
                Keys::Fresh => {
                    *fresh += 1;
                    format!("new:{fresh:012}")
                }
            };
            encode(&mut batch, &["GET", &key]);
        }
        client.send(&batch)
    };
    let batches = requests.div_ceil(depth);
    let begin = Instant::now();
    let first = batches.min(connections);
    clients[..first].iter_mut().try_for_each(&mut next)?;
    for received in 0..batches {
        let client = &mut clients[received % connections];
        client.skip_replies(depth)?;
        if received + first < batches {
            next(client)?;
        }
    }
    Ok((batches * depth) as f64 / begin.elapsed().as_secs_f64())
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A port whose connections lead to another, each byte later by the delay.
fn delayed(port: u16) -> io::Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let own = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { continue };
            for stream in [&near, &far] {
                drop(stream.set_nodelay(true));
            }
            if let (Ok(near_too), Ok(far_too)) = (near.try_clone(), far.try_clone()) {
                carry(near, far_too);
                carry(far, near_too);
            }
        }
    });
    Ok(own)
}

fn carry(mut from: TcpStream, mut to: TcpStream) {
    let (sender, receiver) = mpsc::channel::<(Instant, Vec<u8>)>();
    std::thread::spawn(move || {
        let mut bytes = vec![0; 64 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if sender.send((Instant::now() + DELAY, bytes[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        for (due, bytes) in receiver {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
        drop(to.shutdown(std::net::Shutdown::Both));
    });
}
