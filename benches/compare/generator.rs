//! Runs one burst of load, by redis-benchmark or by the own generator.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::Endpoint;
use crate::load::{self, Load};
use crate::placement::Cores;
use crate::server::bind_to;
use crate::workload::{KEYS, VALUE, Workload};

/// Connections in total, whatever the number of threads or processes.
pub const CONNECTIONS: usize = 50;
const RUN_LIMIT: Duration = Duration::from_secs(60);

/// Which program makes the load.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Processes that each have their part of the connections. Not its own `--threads`: that
    /// looks at the clock four times a second only, which is too coarse for runs of a second.
    RedisBenchmark,
    Own,
}

impl Kind {
    /// The kind of that name; `None` for `auto`.
    pub fn parse(name: &str) -> Result<Option<Self>, String> {
        match name {
            "redis-benchmark" => Ok(Some(Kind::RedisBenchmark)),
            "own" => Ok(Some(Kind::Own)),
            "auto" => Ok(None),
            other => Err(format!("no such generator: {other}")),
        }
    }

    /// How many processes or threads make the load. Two of redis-benchmark keep a server busy that answers single
    /// requests; pipelines take what cores there are.
    fn lanes(self, cores: &Cores) -> usize {
        let most = match self {
            Kind::RedisBenchmark => 2,
            Kind::Own => 4,
        };
        cores.0.len().clamp(1, most)
    }
}

/// One burst: what is sent, and how.
pub struct Burst<'a> {
    pub kind: Kind,
    pub workload: Workload,
    pub pipeline: usize,
    pub requests: usize,
    pub cores: &'a Cores,
}

/// What the client side saw.
pub struct Seen {
    pub requests: usize,
    pub per_second: f64,
}

impl Burst<'_> {
    /// The command to type for the same load on a server at `port`.
    pub fn command_line(&self, unix: bool) -> String {
        let lanes = self.kind.lanes(self.cores);
        match self.kind {
            Kind::RedisBenchmark => {
                let place = if unix { "-s SOCKET" } else { "-p PORT" };
                let mut line = format!("{lanes} x redis-benchmark {place}");
                for word in self.redis_benchmark_arguments(lanes) {
                    // `write!` to a String cannot fail.
                    let _ = write!(line, " {word}");
                }
                line
            }
            Kind::Own => format!(
                "--generator own: {lanes} threads, {CONNECTIONS} connections, pipeline {}, {} requests: {}",
                self.pipeline,
                self.requests,
                self.workload.command().join(" ").replace(&"x".repeat(VALUE), "VALUE")
            ),
        }
    }

    fn redis_benchmark_arguments(&self, lanes: usize) -> Vec<String> {
        let numbers = [
            ("-c", CONNECTIONS / lanes),
            ("-n", self.requests / lanes),
            ("-P", self.pipeline),
            ("-r", KEYS),
            ("-d", VALUE),
        ];
        let mut arguments: Vec<String> = vec!["--csv".into()];
        arguments.extend(numbers.iter().flat_map(|(flag, value)| [flag.to_string(), value.to_string()]));
        arguments.extend(self.workload.redis_benchmark_arguments());
        arguments
    }

    pub fn run(&self, endpoint: &Endpoint) -> Result<Seen, String> {
        match self.kind {
            Kind::RedisBenchmark => self.run_redis_benchmark(endpoint),
            Kind::Own => {
                let load = Load {
                    endpoint,
                    workload: self.workload,
                    pipeline: self.pipeline,
                    connections: CONNECTIONS,
                    threads: self.kind.lanes(self.cores),
                    requests: self.requests,
                    cores: self.cores,
                };
                let (requests, time) = load::run(&load).map_err(|e| format!("own generator: {e}"))?;
                Ok(Seen { requests, per_second: requests as f64 / time.as_secs_f64() })
            }
        }
    }

    fn run_redis_benchmark(&self, endpoint: &Endpoint) -> Result<Seen, String> {
        let lanes = self.kind.lanes(self.cores);
        let mut children = Vec::new();
        for _ in 0..lanes {
            let mut command = Command::new("redis-benchmark");
            match endpoint {
                Endpoint::Tcp(port) => command.args(["-h", "127.0.0.1", "-p", &port.to_string()]),
                Endpoint::Unix(path) => command.arg("-s").arg(path),
            };
            command.args(self.redis_benchmark_arguments(lanes));
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            bind_to(&mut command, self.cores.clone());
            let child = command.spawn().map_err(|e| format!("cannot run redis-benchmark: {e}"))?;
            children.push(Reaped(Some(child)));
        }
        let deadline = Instant::now() + RUN_LIMIT;
        let mut per_second = 0.0;
        for child in children {
            per_second += csv_rate(&child.finish(deadline)?)?;
        }
        Ok(Seen { requests: self.requests / lanes * lanes, per_second })
    }
}

/// A child that does not outlive its handle.
struct Reaped(Option<Child>);

impl Reaped {
    /// Waits for its end; returns its output. What it prints in CSV mode fits a pipe's buffer.
    fn finish(mut self, deadline: Instant) -> Result<String, String> {
        loop {
            let child = self.0.as_mut().ok_or("already finished")?;
            if child.try_wait().map_err(|e| format!("redis-benchmark: {e}"))?.is_some() {
                break;
            }
            if Instant::now() > deadline {
                return Err("redis-benchmark did not end in time".into());
            }
            thread::sleep(Duration::from_millis(2));
        }
        let child = self.0.take().ok_or("already finished")?;
        let output = child.wait_with_output().map_err(|e| format!("redis-benchmark: {e}"))?;
        if !output.status.success() {
            return Err(format!("redis-benchmark: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            // Already ended is as good as killed.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Requests a second out of redis-benchmark's `--csv` output: the second column of the last line.
fn csv_rate(text: &str) -> Result<f64, String> {
    let line = text.trim().lines().last().unwrap_or_default();
    let field = line.split(',').nth(1).unwrap_or_default().trim_matches('"');
    field.parse().map_err(|_| format!("redis-benchmark printed: {text}"))
}
