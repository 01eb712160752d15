//! Coherence under load: two Anterooms before one Redis, their clients, and somebody who writes to Redis itself.
//!
//! Values of a key are numbers that Redis itself counts up, so that older and newer are known. `COHERENCE_SECONDS` makes
//! it longer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::sentinel::{NEVER, Watched};
use crate::harness::{Client, Server, free_port};

const KEYS: usize = 8;
const CLIENTS: usize = 4;

fn seconds() -> u64 {
    std::env::var("COHERENCE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(4)
}

#[derive(Clone, Copy, PartialEq)]
enum Faults {
    None,
    /// Connections are killed at random.
    Kills,
    /// Redis stops for a while now and then.
    Pauses,
    /// It is killed and started again, with all that it had said.
    Restarts,
    /// Another becomes the master, with all that the old one had said.
    Failovers,
}

/// What the clients of one Anteroom have seen and been promised, by key.
#[derive(Default)]
struct Promises {
    acknowledged: [AtomicU64; KEYS],
    seen: [AtomicU64; KEYS],
}

/// The number in a reply; `None` if upstream is away.
fn value(reply: &str) -> Option<u64> {
    match reply.as_bytes()[0] {
        b'-' => {
            let expected = ["-UPSTREAMDOWN", "-OUTCOMEUNKNOWN", "-LOADING", "-READONLY", "-EXECABORT"];
            assert!(expected.iter().any(|code| reply.starts_with(code)), "{reply}");
            None
        }
        b':' => Some(reply[1..].trim().parse().unwrap()),
        b'_' => Some(0),
        b'$' if reply == "$-1\r\n" => Some(0),
        _ => Some(reply.lines().nth(1).unwrap().parse().unwrap()),
    }
}

/// One client: reads and writes at random, and checks each reply against what was promised before it asked.
fn load(mut client: Client, promises: &Promises, end: &AtomicBool, mut rng: Rng) -> (u64, u64) {
    let (mut reads, mut failures) = (0, 0);
    if rng.bool() {
        client.run("HELLO 3");
    }
    while !end.load(Ordering::Relaxed) {
        let key = rng.usize(..KEYS);
        let acknowledged = promises.acknowledged[key].load(Ordering::SeqCst);
        let seen = promises.seen[key].load(Ordering::SeqCst);
        let name = format!("k{key}");
        let (said, is_write) = match rng.usize(..20) {
            0 => (client.run(&format!("INCR {name}")), true),
            1 => {
                client.run("MULTI");
                client.run(&format!("INCR {name}"));
                let said = client.run("EXEC");
                (
                    said.split_once("\r\n")
                        .filter(|(head, _)| *head == "*1")
                        .map_or(said.clone(), |(_, rest)| rest.to_owned()),
                    true,
                )
            }
            4 => {
                // By a connection of its own, whose acknowledgement no invalidation comes with.
                client.run(&format!("WATCH {name}"));
                client.run("MULTI");
                client.run(&format!("INCR {name}"));
                let said = client.run("EXEC");
                if said == "*-1\r\n" || said == "_\r\n" {
                    continue;
                }
                (
                    said.split_once("\r\n")
                        .filter(|(head, _)| *head == "*1")
                        .map_or(said.clone(), |(_, rest)| rest.to_owned()),
                    true,
                )
            }
            2 => {
                let said = client.run(&format!("MGET {name}"));
                (
                    said.split_once("\r\n")
                        .filter(|(head, _)| *head == "*1")
                        .map_or(said.clone(), |(_, rest)| rest.to_owned()),
                    false,
                )
            }
            3 => {
                // A pipeline sees its own write.
                client.send_raw(format!("INCR {name}\r\nGET {name}\r\n").as_bytes());
                let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
                let (written, read) = (text(client.read()), text(client.read()));
                if let (Some(written), Some(read)) = (value(&written), value(&read)) {
                    assert!(read >= written, "{name}: {read} behind one's own {written}");
                }
                (written, true)
            }
            _ => (client.run(&format!("GET {name}")), false),
        };
        let Some(value) = value(&said) else {
            failures += 1;
            continue;
        };
        reads += 1;
        assert!(value >= acknowledged, "{name}: {value} though {acknowledged} was acknowledged before");
        assert!(value >= seen, "{name}: {value} though {seen} was seen before");
        promises.seen[key].fetch_max(value, Ordering::SeqCst);
        if is_write {
            promises.acknowledged[key].fetch_max(value, Ordering::SeqCst);
        }
    }
    (reads, failures)
}

/// What is behind the two.
enum Behind {
    One(Box<Server>),
    Watched(Box<Watched>),
}

impl Behind {
    fn start(faults: Faults) -> Self {
        match faults {
            Faults::Failovers => Self::Watched(Box::new(Watched::start(NEVER))),
            // What it says is written to the file before: with `everysec` that may be put off.
            Faults::Restarts => {
                let arguments = ["--appendonly", "yes", "--appendfsync", "no"];
                Self::One(Box::new(Server::redis_with(&arguments)))
            }
            Faults::None | Faults::Kills | Faults::Pauses => Self::One(Box::new(Server::redis())),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::One(redis) => format!("redis://127.0.0.1:{}", redis.port),
            Self::Watched(watched) => watched.url(),
        }
    }

    fn master(&mut self) -> &mut Server {
        match self {
            Self::One(redis) => redis,
            Self::Watched(watched) => watched.master(),
        }
    }
}

fn fault(faults: Faults, behind: &mut Behind, rng: &mut Rng) {
    match (faults, behind) {
        (Faults::None, _) => {}
        (Faults::Kills, behind) => {
            let mut killer = behind.master().client();
            let list = killer.run("CLIENT LIST");
            let named = list.lines().filter(|line| line.contains("name=anteroom"));
            let ids: Vec<&str> =
                named.filter_map(|line| line.strip_prefix("id=")?.split(' ').next()).collect();
            if !ids.is_empty() && rng.bool() {
                killer.run(&format!("CLIENT KILL ID {}", ids[rng.usize(..ids.len())]));
            }
        }
        (Faults::Pauses, behind) if rng.u8(..10) == 0 => {
            let pid = behind.master().pid() as i32;
            // SAFETY: signals to a child of ours that is not waited for.
            unsafe { libc::kill(pid, libc::SIGSTOP) };
            std::thread::sleep(Duration::from_millis(rng.u64(50..900)));
            // SAFETY: as above.
            unsafe { libc::kill(pid, libc::SIGCONT) };
        }
        (Faults::Restarts, behind) if rng.u8(..10) == 0 => {
            let redis = behind.master();
            redis.kill();
            std::thread::sleep(Duration::from_millis(rng.u64(..300)));
            redis.restart();
        }
        (Faults::Failovers, Behind::Watched(watched)) if rng.u8(..10) == 0 => watched.fail_over(),
        (Faults::Pauses | Faults::Restarts | Faults::Failovers, _) => {}
    }
}

/// Somebody who writes to Redis itself, for as long as that is there.
fn third_party(port: &AtomicU64, end: &AtomicBool) {
    let (mut rng, mut client) = (Rng::with_seed(99), None);
    while !end.load(Ordering::Relaxed) {
        let port = port.load(Ordering::Relaxed);
        if client.as_ref().is_none_or(|(at, _)| *at != port) {
            client = std::net::TcpStream::connect(("127.0.0.1", port as u16))
                .ok()
                .map(|stream| (port, Client::new(stream)));
        }
        let request = format!("INCR k{}\r\n", rng.usize(..KEYS));
        let is_there =
            client.as_mut().is_some_and(|(_, to)| to.try_send(request.as_bytes()) && to.try_read().is_some());
        if !is_there {
            client = None;
        }
        std::thread::sleep(Duration::from_micros(rng.u64(..2000)));
    }
}

fn run(faults: Faults) {
    let mut behind = Behind::start(faults);
    let file = std::env::temp_dir().join(format!("anteroom-coherence-{}.toml", free_port()));
    let section = format!(
        "[upstream]\nurl = \"{}\"\nupstream-heartbeat = \"500ms\"\ntimeout = \"500ms\"\n",
        behind.url()
    );
    std::fs::write(&file, section).unwrap();
    let anterooms = ["1", "2"]
        .map(|workers| Server::anteroom(&["--config", file.to_str().unwrap(), "--threads", workers]));
    std::fs::remove_file(&file).unwrap();
    let end = Arc::new(AtomicBool::new(false));
    let mut clients = Vec::new();
    for (index, anteroom) in anterooms.iter().enumerate() {
        let promises = Arc::new(Promises::default());
        for number in 0..CLIENTS {
            let (client, promises, end) = (anteroom.client(), promises.clone(), end.clone());
            let rng = Rng::with_seed((index * CLIENTS + number) as u64);
            clients.push(std::thread::spawn(move || load(client, &promises, &end, rng)));
        }
    }
    let port = Arc::new(AtomicU64::new(u64::from(behind.master().port)));
    let third = std::thread::spawn({
        let (port, end) = (port.clone(), end.clone());
        move || third_party(&port, &end)
    });
    let mut rng = Rng::with_seed(7);
    for _ in 0..seconds() * 10 {
        std::thread::sleep(Duration::from_millis(100));
        fault(faults, &mut behind, &mut rng);
        port.store(u64::from(behind.master().port), Ordering::Relaxed);
    }
    end.store(true, Ordering::Relaxed);
    third.join().unwrap();
    let totals = clients.into_iter().map(|client| client.join().unwrap());
    let (reads, failures) = totals.fold((0, 0), |sum, more| (sum.0 + more.0, sum.1 + more.1));
    assert!(reads > 1000, "only {reads} replies");
    assert!(faults != Faults::None || failures == 0, "{failures} failures");
    // Convergence: in the quiet after, everybody reads what Redis has.
    for key in 0..KEYS {
        let expected = behind.master().client().run(&format!("GET k{key}"));
        for anteroom in &anterooms {
            let mut client = anteroom.client();
            super::until("it converges", || client.run(&format!("GET k{key}")) == expected);
            std::thread::sleep(Duration::from_millis(5));
            assert_eq!(client.run(&format!("GET k{key}")), expected);
        }
    }
}

#[test]
fn nobody_reads_older_than_was_written_or_seen() {
    run(Faults::None);
}

#[test]
fn nor_when_connections_are_killed() {
    run(Faults::Kills);
}

#[test]
fn nor_when_upstream_stops_for_a_while() {
    run(Faults::Pauses);
}

#[test]
fn nor_when_upstream_is_killed_and_comes_back() {
    run(Faults::Restarts);
}

#[test]
fn nor_when_another_becomes_the_master() {
    run(Faults::Failovers);
}
