//! The own load generator: threads with many blocking connections, each with one prebuilt pipeline under way.
//!
//! redis-benchmark builds and parses each request through a general client library and becomes the bottleneck
//! with deep pipelines. Here a batch is bytes made once; only the random digits are written anew for each send.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Client, Endpoint, encode};
use crate::placement::Cores;
use crate::workload::{KEYS, RANDOM, Workload};

/// What one run of the own generator does.
pub struct Load<'a> {
    pub endpoint: &'a Endpoint,
    pub workload: Workload,
    pub pipeline: usize,
    pub connections: usize,
    pub threads: usize,
    pub requests: usize,
    pub cores: &'a Cores,
}

/// Sends `requests` in total (rounded up to whole batches on every thread); returns how many, and in what time.
pub fn run(load: &Load<'_>) -> io::Result<(usize, Duration)> {
    let mut lanes = Vec::new();
    for index in 0..load.threads {
        let connections =
            load.connections / load.threads + usize::from(index < load.connections % load.threads);
        let clients =
            (0..connections).map(|_| Client::connect(load.endpoint)).collect::<io::Result<Vec<_>>>()?;
        lanes.push(Lane { clients, batch: Batch::new(load, index as u64 + 1) });
    }
    let per_lane = load.requests.div_ceil(load.pipeline).div_ceil(load.threads);
    let failed = AtomicBool::new(false);
    let started = Instant::now();
    let sent = thread::scope(|scope| {
        let handles: Vec<_> = lanes
            .into_iter()
            .map(|lane| {
                let failed = &failed;
                scope.spawn(move || {
                    load.cores.pin()?;
                    lane.run(per_lane, load.pipeline, failed)
                        .inspect_err(|_| failed.store(true, Ordering::Relaxed))
                })
            })
            .collect();
        let join = |handle: thread::ScopedJoinHandle<'_, io::Result<usize>>| match handle.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a generator thread panicked")),
        };
        handles.into_iter().map(join).sum::<io::Result<usize>>()
    })?;
    Ok((sent, started.elapsed()))
}

/// One thread's connections and its batch.
struct Lane {
    clients: Vec<Client>,
    batch: Batch,
}

impl Lane {
    fn run(mut self, batches: usize, pipeline: usize, failed: &AtomicBool) -> io::Result<usize> {
        let first = batches.min(self.clients.len());
        for client in &mut self.clients[..first] {
            client.send(self.batch.next())?;
        }
        // Each connection is refilled as soon as it is read, so that the others' requests keep the server busy.
        let mut sent = first;
        for received in 0..batches {
            let at = received % self.clients.len();
            let client = &mut self.clients[at];
            client.skip_replies(pipeline)?;
            if sent < batches {
                client.send(self.batch.next())?;
                sent += 1;
            }
            if failed.load(Ordering::Relaxed) {
                return Err(io::Error::other("another generator thread failed"));
            }
        }
        Ok(batches * pipeline)
    }
}

/// A pipeline of requests, and where in it the random numbers stand.
struct Batch {
    bytes: Vec<u8>,
    numbers: Vec<usize>,
    random: fastrand::Rng,
}

impl Batch {
    fn new(load: &Load<'_>, seed: u64) -> Self {
        let mut bytes = Vec::new();
        for _ in 0..load.pipeline {
            encode(&mut bytes, &load.workload.command());
        }
        let numbers = memchr::memmem::find_iter(&bytes, RANDOM).collect();
        Batch { bytes, numbers, random: fastrand::Rng::with_seed(seed) }
    }

    fn next(&mut self) -> &[u8] {
        for &at in &self.numbers {
            let mut number = self.random.u32(..KEYS as u32);
            for digit in self.bytes[at..at + RANDOM.len()].iter_mut().rev() {
                *digit = b'0' + (number % 10) as u8;
                number /= 10;
            }
        }
        &self.bytes
    }
}
