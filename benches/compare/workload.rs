//! The commands that are measured, as redis-benchmark shapes them.

use std::io;

use crate::client::{Client, Endpoint, encode};

/// How many different keys (or fields, or members) there are.
pub const KEYS: usize = 100_000;
/// Bytes in a value.
pub const VALUE: usize = 64;
/// What redis-benchmark replaces by twelve random digits.
pub const RANDOM: &str = "__rand_int__";

const MGET_KEYS: usize = 10;

/// A command with arguments, [`RANDOM`] standing for a number below [`KEYS`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    Get,
    Set,
    Incr,
    Lpush,
    Hset,
    Zadd,
    /// Ten keys at a time, counted as one operation.
    Mget,
}

impl Workload {
    pub const ALL: [Workload; 7] = [
        Workload::Get,
        Workload::Set,
        Workload::Incr,
        Workload::Lpush,
        Workload::Hset,
        Workload::Zadd,
        Workload::Mget,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Workload::Get => "get",
            Workload::Set => "set",
            Workload::Incr => "incr",
            Workload::Lpush => "lpush",
            Workload::Hset => "hset",
            Workload::Zadd => "zadd",
            Workload::Mget => "mget",
        }
    }

    /// The command as redis-benchmark's built-in test of that name sends it.
    pub fn command(self) -> Vec<String> {
        let value = "x".repeat(VALUE);
        let words: Vec<&str> = match self {
            Workload::Get => vec!["GET", "key:__rand_int__"],
            Workload::Set => vec!["SET", "key:__rand_int__", &value],
            Workload::Incr => vec!["INCR", "counter:__rand_int__"],
            Workload::Lpush => vec!["LPUSH", "mylist", &value],
            Workload::Hset => vec!["HSET", "myhash", "element:__rand_int__", &value],
            Workload::Zadd => vec!["ZADD", "myzset", RANDOM, "element:__rand_int__"],
            Workload::Mget => [&["MGET"][..], &["key:__rand_int__"; MGET_KEYS]].concat(),
        };
        words.into_iter().map(String::from).collect()
    }

    /// How redis-benchmark is told: by test name, or by the command where it has no such test.
    pub fn redis_benchmark_arguments(self) -> Vec<String> {
        match self {
            Workload::Mget => self.command(),
            _ => vec!["-t".into(), self.name().into()],
        }
    }

    /// Work per request relative to GET, so that runs last about equally long.
    pub fn weight(self) -> usize {
        match self {
            Workload::Mget => 4,
            Workload::Zadd => 2,
            _ => 1,
        }
    }

    /// Whether the data grows with each run, so that it must be dropped before the next.
    pub fn grows(self) -> bool {
        self == Workload::Lpush
    }

    /// Empties the server and loads what the workload expects to find: every key, field or member exists, so that
    /// each round meets the same state.
    pub fn prepare(self, endpoint: &Endpoint) -> io::Result<()> {
        let mut client = Client::connect(endpoint)?;
        client.command(&["FLUSHALL"])?;
        // A server that does not know the command should say so here, not in the middle of a measurement.
        let probe: Vec<String> =
            self.command().iter().map(|word| word.replace(RANDOM, "000000000001")).collect();
        client.command(&probe)?;
        let load = match self {
            Workload::Lpush => return client.command(&["DEL", "mylist"]),
            Workload::Mget => Workload::Set.command(),
            Workload::Get => Workload::Set.command(),
            _ => self.command(),
        };
        fill(&mut client, KEYS, |n, request| {
            let digits = format!("{n:012}");
            encode(request, &load.iter().map(|word| word.replace(RANDOM, &digits)).collect::<Vec<_>>());
        })
    }
}

/// Sends commands number 0 to `count`, pipelined, and checks that each is answered without an error.
pub fn fill(
    client: &mut Client,
    count: usize,
    mut command: impl FnMut(usize, &mut Vec<u8>),
) -> io::Result<()> {
    const BATCH: usize = 500;
    let mut request = Vec::new();
    for first in (0..count).step_by(BATCH) {
        let batch = first..count.min(first + BATCH);
        request.clear();
        let expected = batch.len();
        batch.for_each(|n| command(n, &mut request));
        client.send(&request)?;
        client.skip_replies(expected)?;
    }
    Ok(())
}
