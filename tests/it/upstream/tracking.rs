//! `CLIENT TRACKING` before an upstream: whoever reads through here is told of changes that others make there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use super::{Pair, until};
use crate::harness::{Client, Server};
use crate::workshop::Workshop;

fn resp3(server: &Server) -> Client {
    let mut client = server.client();
    client.run("HELLO 3");
    client
}

fn told(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len())
}

const FLUSHED: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// A client that tells messages from replies.
struct Reader {
    client: Client,
    messages: Vec<String>,
}

impl Reader {
    fn run(&mut self, command: &str) -> String {
        let words: Vec<Vec<u8>> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        self.client.send(&words);
        self.reply()
    }

    fn reply(&mut self) -> String {
        loop {
            let frame = String::from_utf8(self.client.read()).unwrap();
            if !frame.starts_with('>') {
                return frame;
            }
            self.messages.push(frame);
        }
    }

    /// Waits for a message.
    fn heard(&mut self, message: &str, after: &str) {
        loop {
            if let Some(at) = self.messages.iter().position(|other| other == message) {
                self.messages.drain(..=at);
                return;
            }
            let frame = self.client.try_read().unwrap_or_else(|| panic!("not told after {after}"));
            let frame = String::from_utf8(frame).unwrap();
            assert!(frame.starts_with('>'), "{frame}");
            self.messages.push(frame);
        }
    }
}

#[test]
fn clients_are_told_of_what_changes_upstream() {
    let pair = Pair::start("[[keys]]\npattern = \"here:*\"\ntier = \"local\"");
    let (mut writer, mut theirs) = (pair.anteroom.client(), pair.redis.client());
    let mut reader = Reader { client: resp3(&pair.anteroom), messages: Vec::new() };
    assert_eq!(reader.run("CLIENT TRACKING ON"), "+OK\r\n");
    theirs.run("MSET k 1 l 1");
    theirs.run("HSET h f 1");
    theirs.run("XADD x 1-1 f v");
    // Read upstream, read here, several at once, in a transaction, and by commands that are not kept or not known here.
    for (read, key) in [
        ("GET k", "k"),
        ("GET k", "k"),
        ("HGETALL h", "h"),
        ("MGET l k", "l"),
        ("TTL k", "k"),
        ("XLEN x", "x"),
    ] {
        reader.run(read);
        reader.run(read);
        match key {
            "h" => theirs.run("HINCRBY h f 1"),
            "x" => theirs.run("XADD x * f v"),
            _ => theirs.run(&format!("INCR {key}")),
        };
        reader.heard(&told(key), read);
    }
    reader.client.send_raw(b"MULTI\r\nGET k\r\nEXEC\r\n");
    for _ in 0..3 {
        reader.reply();
    }
    theirs.run("INCR k");
    reader.heard(&told("k"), "a change");
    // By another client of this host, and by itself.
    reader.run("GET l");
    writer.run("SET l 5");
    reader.heard(&told("l"), "a change");
    reader.run("GET l");
    reader.run("SET l 6");
    reader.heard(&told("l"), "a change");
    // What is read while keys are watched is read where nobody would tell of it.
    reader.run("WATCH w");
    assert_eq!(reader.run("GET w"), "_\r\n");
    reader.heard(&told("w"), "a change");
    reader.run("UNWATCH");
    // Keys of this host.
    writer.run("SET here:k 1");
    assert_eq!(reader.run("GET here:k"), "$1\r\n1\r\n");
    writer.run("SET here:k 2");
    reader.heard(&told("here:k"), "a change");
    reader.run("GET k");
    theirs.run("FLUSHALL");
    reader.heard(FLUSHED, "a change");
    // Nobody knows what has changed while upstream could not tell.
    reader.run("GET k");
    theirs.run("CLIENT KILL TYPE normal SKIPME yes");
    reader.heard(FLUSHED, "a change");
    reader.run("CLIENT TRACKING OFF");
    until("upstream is there again", || writer.run("GET k") == "$-1\r\n");
}

/// Clients that keep what they read until they are told, while others write there and here.
#[test]
fn nobody_keeps_what_has_changed_upstream() {
    let pair = Pair::start("");
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = [&pair.redis, &pair.anteroom, &pair.redis]
            .into_iter()
            .map(|server| {
                let mut client = server.client();
                scope.spawn(move || {
                    for _ in 0..5000 {
                        client.run(&format!("INCR n{}", fastrand::u32(0..10)));
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, mut check) = (resp3(&pair.anteroom), pair.redis.client());
                let is_over = &is_over;
                scope.spawn(move || {
                    client.run("CLIENT TRACKING ON");
                    let mut kept: HashMap<String, i64> = HashMap::new();
                    let mut hits = 0;
                    let number = |reply: &str| {
                        reply.split("\r\n").nth(1).and_then(|text| text.parse::<i64>().ok()).unwrap_or(0)
                    };
                    while !is_over.load(Ordering::Acquire) {
                        let key = format!("n{}", fastrand::u32(0..10));
                        if kept.contains_key(&key) {
                            hits += 1;
                            // Whatever has come, without waiting.
                            client.send_raw(b"PING\r\n");
                        } else {
                            client.send(&[b"GET".to_vec(), key.clone().into_bytes()]);
                        }
                        loop {
                            let frame = String::from_utf8(client.read()).unwrap();
                            match frame.split("\r\n").nth(5) {
                                // On a busy machine the link can be lost: then anything may have changed.
                                _ if frame == FLUSHED => kept.clear(),
                                Some(changed) if frame.starts_with('>') => drop(kept.remove(changed)),
                                _ if frame.starts_with('+') => break,
                                _ => {
                                    kept.insert(key, number(&frame));
                                    break;
                                }
                            }
                        }
                    }
                    // What upstream has said by now may still be on its way.
                    std::thread::sleep(std::time::Duration::from_millis(500));
                    client.send_raw(b"PING\r\n");
                    loop {
                        let frame = String::from_utf8(client.read()).unwrap();
                        match frame.split("\r\n").nth(5) {
                            _ if frame == FLUSHED => kept.clear(),
                            Some(changed) => drop(kept.remove(changed)),
                            None => break,
                        }
                    }
                    for (key, value) in &kept {
                        assert_eq!(number(&check.run(&format!("GET {key}"))), *value, "{key}");
                    }
                    hits
                })
            })
            .collect();
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        is_over.store(true, Ordering::Release);
        let hits: usize = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
        assert!(hits > 0);
    });
}

#[test]
fn the_cache_of_redis_py_is_kept_right() {
    let workshop = Workshop::of_python("clients", "cache-upstream", "cache.py");
    let pair = Pair::start("");
    let said = workshop.run("venv/bin/python", &["cache.py", &pair.anteroom.port.to_string()]);
    assert_eq!(said.trim(), "nothing old is kept");
}

/// Of keys with a prefix, whoever changes them, though nobody has read them here.
#[test]
fn all_changes_of_a_prefix_are_told() {
    let mut pair =
        Pair::start("upstream-heartbeat = \"300ms\"\n[[keys]]\npattern = \"user:here:*\"\ntier = \"local\"");
    let mut reader = Reader { client: resp3(&pair.anteroom), messages: Vec::new() };
    let mut other = pair.anteroom.client();
    let connections = |redis: &Server| redis.client().run("CLIENT LIST").matches("name=anteroom").count();
    let before = connections(&pair.redis);
    assert_eq!(reader.run("CLIENT TRACKING ON BCAST PREFIX user: PREFIX shop:"), "+OK\r\n");
    // From here on nothing is missed.
    reader.heard(FLUSHED, "it was connected");
    assert_eq!(connections(&pair.redis), before + 1);
    pair.redis.client().run("SET none x");
    pair.redis.client().run("SET user:1 x");
    reader.heard(&told("user:1"), "a change by a third party");
    assert_eq!(other.run("SET shop:1 x"), "+OK\r\n");
    reader.heard(&told("shop:1"), "a change by another client");
    assert_eq!(reader.run("SET user:2 x"), "+OK\r\n");
    reader.heard(&told("user:2"), "its own change");
    assert_eq!(other.run("SET user:here:1 x"), "+OK\r\n");
    reader.heard(&told("user:here:1"), "a change that stays on this host");
    assert!(reader.messages.is_empty(), "{:?}", reader.messages);
    // Each time, read or not; and what was read is told once.
    for _ in 0..2 {
        reader.run("GET user:1");
        pair.redis.client().run("SET user:1 y");
        reader.heard(&told("user:1"), "a change of what it has read");
    }
    pair.redis.client().run("FLUSHALL");
    reader.heard(FLUSHED, "FLUSHALL");
    // What may have been missed is told when it is known, and again when no more is.
    let port = pair.redis.port;
    pair.redis.stop(libc::SIGKILL);
    reader.heard(FLUSHED, "the connection was lost");
    pair.redis = Server::redis_at(port);
    until("it is told of changes again", || {
        reader.messages.clear();
        pair.redis.client().run("SET user:3 x");
        std::thread::sleep(std::time::Duration::from_millis(50));
        reader.run("PING");
        reader.messages.contains(&told("user:3"))
    });
    // Nobody wants to hear any more.
    assert_eq!(reader.run("CLIENT TRACKING OFF"), "+OK\r\n");
    until("the connection ends", || connections(&pair.redis) == before);
}
