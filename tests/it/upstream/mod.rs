//! Anteroom before a real `redis-server`: what is forwarded, what is kept, and what happens when either end fails.

mod clients;
mod cluster;
mod cluster_hazards;
mod coherence;
mod failure;
pub mod forwarding;
mod leased_limits;
mod limit_scripts;
mod near_cache;
pub mod sentinel;
mod shared_limits;
pub mod tls;
mod tracking;

use crate::harness::{Client, Server};

/// A `redis-server`, and an Anteroom before it.
pub struct Pair {
    pub redis: Server,
    pub anteroom: Server,
}

impl Pair {
    pub fn start(section: &str) -> Self {
        Self::with_workers(section, 1)
    }

    /// The same with so many worker threads: with one, the connections to Redis live on it.
    pub fn with_workers(section: &str, count: usize) -> Self {
        let redis = Server::redis();
        let anteroom = before_with_workers(&redis, section, count);
        // What is asked for before Redis tells of changes is not kept.
        let mut client = anteroom.client();
        until("upstream is connected", || client.run("INFO upstream").contains("upstream_up:1\r\n"));
        Self { redis, anteroom }
    }

    /// A client of Anteroom, and one that asks Redis itself.
    pub fn clients(&self) -> (Client, Client) {
        (self.anteroom.client(), self.redis.client())
    }
}

/// An Anteroom before a Redis, with more lines in its section `[upstream]`, or behind it.
pub fn before(redis: &Server, section: &str) -> Server {
    before_with_workers(redis, section, 2)
}

/// The same with so many worker threads.
pub fn before_with_workers(redis: &Server, section: &str, count: usize) -> Server {
    let file = redis.dir.join(format!("anteroom-{}.toml", fastrand::u64(..)));
    std::fs::write(&file, format!("[upstream]\nurl = \"redis://127.0.0.1:{}\"\n{section}\n", redis.port))
        .unwrap();
    Server::anteroom(&["--config", file.to_str().unwrap(), "--threads", &count.to_string()])
}

/// How often Redis has run a command.
pub fn calls(redis: &mut Client, command: &str) -> u64 {
    let info = redis.run("INFO commandstats");
    let line = info.lines().find(|line| line.starts_with(&format!("cmdstat_{command}:")));
    let calls = line.and_then(|line| line.split("calls=").nth(1)?.split(',').next()?.parse().ok());
    calls.unwrap_or(0)
}

/// Tries until it is so.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..2000 {
        if is_so() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    panic!("never: {what}");
}
