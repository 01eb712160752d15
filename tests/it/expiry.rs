//! Deadlines, and the memory limit.

use std::time::Duration;

use crate::harness::{Client, Server};

fn figure(client: &mut Client, section: &str, name: &str) -> i64 {
    let info = client.run(&format!("INFO {section}"));
    let line =
        info.lines().find(|line| line.starts_with(&format!("{name}:"))).unwrap_or_else(|| panic!("{info}"));
    line.split(':').nth(1).unwrap().trim().parse().unwrap()
}

fn until(mut done: impl FnMut() -> bool, what: &str) {
    for _ in 0..400 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    panic!("{what}");
}

#[test]
fn memory_of_expired_keys_comes_back_untouched() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let before = figure(&mut client, "memory", "used_memory");
    let mut requests = Vec::new();
    for number in 0..50_000 {
        requests.extend(format!("SET key:{number} {} PX 300\r\n", "v".repeat(100)).bytes());
    }
    for chunk in requests.chunks(1 << 16) {
        client.send_raw(chunk);
    }
    (0..50_000).for_each(|_| drop(client.read()));
    assert!(figure(&mut client, "memory", "used_memory") > before + 5_000_000);
    until(|| client.run("DBSIZE") == ":0\r\n", "expired keys stay");
    assert_eq!(figure(&mut client, "stats", "expired_keys"), 50_000);
    until(|| figure(&mut client, "memory", "used_memory") < before + 2_000_000, "their memory stays");
}

#[test]
fn a_key_is_not_seen_after_its_deadline() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    client.run("SET k v PX 20");
    client.run("HSET h f v");
    client.run("PEXPIRE h 20");
    std::thread::sleep(Duration::from_millis(60));
    assert_eq!(client.run("GET k"), "$-1\r\n");
    assert_eq!(client.run("HGET h f"), "$-1\r\n");
    assert_eq!(client.run("KEYS *"), "*0\r\n");
}

const POLICIES: [&str; 8] = [
    "allkeys-lru",
    "allkeys-lfu",
    "allkeys-random",
    "allkeys-s3fifo",
    "volatile-lru",
    "volatile-lfu",
    "volatile-random",
    "volatile-ttl",
];

#[test]
fn the_memory_limit_holds_under_every_policy() {
    for policy in POLICIES {
        let server = Server::anteroom(&[]);
        server.client().run(&format!("CONFIG SET maxmemory-policy {policy}"));
        the_limit_holds(&server, policy, 40);
    }
}

/// The same by a flag, which is there before any key is.
#[test]
fn the_memory_limit_holds_under_the_policy_of_the_start() {
    for policy in POLICIES {
        the_limit_holds(&Server::anteroom(&["--maxmemory-policy", policy]), policy, 25);
    }
}

fn the_limit_holds(server: &Server, policy: &str, thousands: usize) {
    let mut client = server.client();
    let limit = figure(&mut client, "memory", "used_memory") + 8_000_000;
    client.run(&format!("CONFIG SET maxmemory {limit}"));
    for batch in 0..thousands {
        let mut requests = Vec::new();
        for number in 0..1000 {
            let key = batch * 1000 + number;
            requests.extend(format!("SET key:{key} {} EX 10000\r\n", "v".repeat(500)).bytes());
        }
        client.send_raw(&requests);
        (0..1000).for_each(|_| assert_eq!(client.read(), b"+OK\r\n", "{policy}"));
        let used = figure(&mut client, "memory", "used_memory");
        assert!(used <= limit + 200_000, "{policy}: {used} of {limit}");
    }
    let kept = 8_000_000 / 500;
    let evicted = figure(&mut client, "stats", "evicted_keys");
    assert!(evicted > thousands as i64 * 1000 - kept, "{policy}: {evicted}");
    assert!(client.run("DBSIZE") != ":0\r\n");
}

#[test]
fn without_eviction_writes_are_refused_and_reads_go_on() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("SET k v");
    client.run("CONFIG SET maxmemory 1");
    assert_eq!(client.run("SET x y"), "-OOM command not allowed when used memory > 'maxmemory'.\r\n");
    assert_eq!(client.run("GET k"), "$1\r\nv\r\n");
    assert_eq!(client.run("DEL k"), ":1\r\n");
    client.run("CONFIG SET maxmemory 0");
    assert_eq!(client.run("SET x y"), "+OK\r\n");
}
