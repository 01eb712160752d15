//! `CLIENT TRACKING`: clients that keep what they read are told when it changes, in the words of Redis, and never too late.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Client, Server};
use crate::workshop::Workshop;

/// A client that speaks RESP3.
fn resp3(server: &Server) -> Client {
    let mut client = server.client();
    client.run("HELLO 3");
    client
}

fn told(key: &str) -> String {
    format!(">2\r\n$10\r\ninvalidate\r\n*1\r\n${}\r\n{key}\r\n", key.len())
}

const FLUSHED: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// What two clients see, the first of whom is told of changes: the same as from Redis.
#[test]
fn messages_and_replies_are_those_of_redis() {
    let steps = "a CLIENT TRACKINGINFO|a CLIENT GETREDIR|a CLIENT CACHING YES|a CLIENT TRACKING|a CLIENT TRACKING maybe\
        |a CLIENT TRACKING ON PREFIX x|a CLIENT TRACKING ON OPTIN OPTOUT|a CLIENT TRACKING ON BCAST OPTIN\
        |a CLIENT TRACKING ON BCAST PREFIX ab PREFIX a|a CLIENT TRACKING ON REDIRECT 99999|a CLIENT TRACKING ON REDIRECT x\
        |a CLIENT TRACKING ON|a CLIENT TRACKINGINFO|a CLIENT GETREDIR|a CLIENT TRACKING ON BCAST|a CLIENT CACHING YES|a CLIENT CACHING NO\
        |a CLIENT CACHING maybe\
        |b SET k 1|a GET k|b SET k 2|b SET k 3|a GET k|a GET k|a SET k 4|a GET k|b DEL k|a GET k|b SET k 5\
        |a MGET k l m|b MSET k 1 l 2 n 3|b HSET h f v|a HGET h f|b HSET h f w|a HGETALL h|b HDEL h f\
        |a GET k|b EXPIRE k 100|a GET k|b PERSIST k|a GET k|b RENAME k r|a GET r|b COPY l r REPLACE|a STRLEN r|b APPEND r x\
        |b RPUSH q 1 2|a LRANGE q 0 -1|b LPOP q|b ZADD z 1 x|a ZRANGE z 0 -1|a ZSCORE z x|b ZINCRBY z 1 x|b SADD s x|a SMEMBERS s|b SREM s x\
        |a GET g|b SET g x|a TYPE g|b SET g y|a EXISTS g h|b DEL g|a OBJECT ENCODING l|b SET l 77\
        |a SET k own|a INCR c|a GET c|a INCR c|a GET k|a GET k|a DEL k\
        |a MULTI;GET k;SET k tx;EXEC|b SET k later|a MULTI;GET k;GET l;EXEC|b MSET k 1 l 1\
        |a GET k|b FLUSHDB|a GET k|b SET k x|b SET k y|a GET k|a FLUSHALL\
        |a EVAL return~redis.call('get',KEYS[1]) 1 k|b SET k x|a EVAL_RO return~redis.call('get',KEYS[1]) 1 k|b SET k y\
        |a MULTI;EVAL return~redis.call('get',KEYS[1]) 1 k;EXEC|b SET k q\
        |a GET k|b EVAL return~redis.call('set',KEYS[1],'z') 1 k\
        |a CLIENT TRACKING OFF|a GET k|b SET k 1|a CLIENT TRACKINGINFO\
        |a CLIENT TRACKING ON NOLOOP|a GET k|a GET l|a SET k mine|b SET k theirs|b SET l theirs|a CLIENT TRACKINGINFO\
        |a CLIENT TRACKING OFF|a CLIENT TRACKING ON OPTIN|a CLIENT TRACKING ON OPTOUT|a GET k|b SET k 1|a CLIENT CACHING NO|a CLIENT CACHING YES\
        |a CLIENT TRACKINGINFO|a GET k|a GET l|b MSET k 2 l 2|a CLIENT CACHING YES;MULTI;GET k;GET l;EXEC|a GET k|b MSET k 3 l 3\
        |a CLIENT TRACKINGINFO\
        |a CLIENT TRACKING OFF|a CLIENT TRACKING ON OPTOUT|a GET k|b SET k 1|a CLIENT CACHING NO|a CLIENT TRACKINGINFO|a GET k|b SET k 2|a CLIENT CACHING YES\
        |a CLIENT TRACKING OFF|a CLIENT TRACKING ON BCAST PREFIX user: PREFIX shop:|a CLIENT TRACKING ON BCAST PREFIX user|a CLIENT TRACKING ON BCAST PREFIX other:\
        |a CLIENT TRACKINGINFO|b SET user:1 x|b SET shop:1 x|b SET none:1 x|a SET other:1 x|b DEL user:1|b DEL user:1|b FLUSHALL\
        |a CLIENT TRACKING OFF|a CLIENT TRACKING ON BCAST NOLOOP|a SET mine 1|b SET theirs 1|a CLIENT TRACKINGINFO|b FLUSHALL\
        |a CLIENT TRACKING OFF|a CLIENT TRACKING ON|a GET k|a RESET|b SET k 1";
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let mut ours = [resp3(&ours), ours.client()];
    let mut theirs = [resp3(&theirs), theirs.client()];
    for step in steps.split('|') {
        let (who, command) = step.split_at(2);
        let who = usize::from(who == "b ");
        let run = |clients: &mut [Client; 2]| {
            for command in command.split(';') {
                let words: Vec<Vec<u8>> =
                    command.split(' ').map(|word| word.replace('~', " ").into_bytes()).collect();
                clients[who].send(&words);
            }
            let reply = (who == 1).then(|| clients[1].read());
            let mut seen = clients[0].frames();
            // A message may stand before a reply or behind it; Redis tells of prefixes last.
            seen.extend(clients[0].frames());
            seen.sort();
            (reply, seen)
        };
        let (ours, theirs) = (run(&mut ours), run(&mut theirs));
        assert_eq!(ours, theirs, "{step}");
    }
}

#[test]
fn keys_that_expire_or_are_evicted_are_told() {
    let server = Server::anteroom(&[]);
    let (mut reader, mut writer) = (resp3(&server), server.client());
    reader.run("CLIENT TRACKING ON NOLOOP");
    writer.run("SET k v PX 30");
    writer.run("SET other v PX 30");
    reader.run("GET k");
    reader.run("GET other");
    // Whoever comes upon it, or the sweep.
    let mut told_of: Vec<String> = vec![String::from_utf8(reader.read()).unwrap()];
    told_of.push(String::from_utf8(reader.read()).unwrap());
    told_of.sort();
    assert_eq!(told_of, [told("k"), told("other")]);
    writer.run("SET k v PX 30");
    writer.run("DEBUG SET-ACTIVE-EXPIRE 0");
    assert_eq!(reader.run("GET k"), "$1\r\nv\r\n");
    std::thread::sleep(std::time::Duration::from_millis(50));
    // By its own command, which is no change of its own.
    reader.send(&[b"GET".to_vec(), b"k".to_vec()]);
    let mut seen = reader.frames();
    seen.sort();
    assert_eq!(seen, [told("k"), "_\r\n".to_owned()]);
    for index in 0..200 {
        writer.run(&format!("SET filler:{index} {}", "x".repeat(20_000)));
        reader.run(&format!("GET filler:{index}"));
    }
    writer.run("CONFIG SET maxmemory-policy allkeys-lru maxmemory 1mb");
    writer.run("SET more x");
    let seen = reader.frames();
    assert!(seen.len() > 50 && seen.iter().all(|frame| frame.contains("filler:")), "{}", seen.len());
}

#[test]
fn the_table_is_bounded_and_counted() {
    let server = Server::anteroom(&[]);
    let (mut reader, mut writer) = (resp3(&server), server.client());
    assert_eq!(writer.run("CONFIG SET tracking-table-max-keys 100"), "+OK\r\n");
    reader.run("CLIENT TRACKING ON");
    for index in 0..2000 {
        reader.send(&[b"GET".to_vec(), format!("k{index}").into_bytes()]);
    }
    reader.send(&[b"STRLEN".to_vec(), b"end".to_vec()]);
    let (mut told_of, mut replies) = (0, 0);
    loop {
        match reader.read()[0] {
            b'>' => told_of += 1,
            b'_' => replies += 1,
            _ => break,
        }
    }
    assert_eq!(replies, 2000);
    let stats = writer.run("INFO stats");
    let keys = stats.split("tracking_total_keys:").nth(1).unwrap().split("\r\n").next().unwrap();
    let keys: usize = keys.parse().unwrap();
    // Each part of the table keeps the one that was just read.
    assert!(keys <= 164 && told_of >= 2000 - 164, "{keys} {told_of}");
    assert!(writer.run("INFO clients").contains("tracking_clients:1\r\n"));
    assert!(writer.run("CLIENT LIST").contains(" flags=t "));
    drop(reader);
    for _ in 0..200 {
        if writer.run("INFO stats").contains("tracking_total_keys:0\r\n") {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("what nobody asks for is kept");
}

#[test]
fn another_connection_can_be_told() {
    let server = Server::anteroom(&[]);
    let (mut reader, mut told_one, mut writer) = (server.client(), resp3(&server), server.client());
    let id = told_one.run("CLIENT ID").trim()[1..].to_owned();
    assert_eq!(reader.run(&format!("CLIENT TRACKING ON REDIRECT {id}")), "+OK\r\n");
    assert_eq!(reader.run("CLIENT GETREDIR"), format!(":{id}\r\n"));
    reader.run("GET k");
    writer.run("SET k 1");
    assert_eq!(String::from_utf8(told_one.read()).unwrap(), told("k"));
    // Also while it waits for something else.
    reader.run("GET k");
    told_one.send(&[b"BLPOP".to_vec(), b"queue".to_vec(), b"0".to_vec()]);
    while !writer.run("INFO clients").contains("blocked_clients:1") {}
    writer.run("SET k 2");
    assert_eq!(String::from_utf8(told_one.read()).unwrap(), told("k"));
    writer.run("FLUSHALL");
    assert_eq!(String::from_utf8(told_one.read()).unwrap(), FLUSHED);
    drop(told_one);
    while writer.run("CLIENT LIST").contains(&format!("id={id} ")) {}
    reader.run("HELLO 3");
    reader.run("GET k");
    writer.run("SET k 3");
    assert_eq!(reader.frames(), [format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n")]);
    assert!(reader.run("CLIENT TRACKINGINFO").contains("broken_redirect"));
}

/// Clients that keep what they read until they are told, beside writers: what is kept when all is quiet is what is there,
/// and nobody sees a number go back.
#[test]
fn nobody_keeps_what_has_changed() {
    let server = Server::anteroom(&["--threads", "4"]);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3)
            .map(|_| {
                let mut client = server.client();
                scope.spawn(move || {
                    for _ in 0..6000 {
                        client.run(&format!("INCR n{}", fastrand::u32(0..20)));
                    }
                })
            })
            .collect();
        let readers: Vec<_> = (0..4)
            .map(|_| {
                let (mut client, mut check, is_over) = (resp3(&server), server.client(), &is_over);
                scope.spawn(move || {
                    client.run("CLIENT TRACKING ON");
                    let mut kept: HashMap<String, i64> = HashMap::new();
                    let (mut newest, mut hits) = (HashMap::<String, i64>::new(), 0);
                    let forget = |kept: &mut HashMap<String, i64>, frame: &str| {
                        let key = frame.split("\r\n").nth(5).unwrap();
                        kept.remove(key);
                    };
                    while !is_over.load(Ordering::Acquire) {
                        let keys: Vec<String> = (0..8)
                            .map(|_| format!("n{}", fastrand::u32(0..20)))
                            .filter(|key| !kept.contains_key(key))
                            .collect();
                        hits += 8 - keys.len();
                        for key in &keys {
                            client.send(&[b"GET".to_vec(), key.clone().into_bytes()]);
                        }
                        let mut answered = 0;
                        while answered < keys.len() {
                            let frame = String::from_utf8(client.read()).unwrap();
                            if frame.starts_with('>') {
                                forget(&mut kept, &frame);
                                continue;
                            }
                            let value =
                                frame.split("\r\n").nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
                            let key = keys[answered].clone();
                            let before = newest.insert(key.clone(), value).unwrap_or(0);
                            assert!(value >= before, "{key}: {value} after {before}");
                            kept.insert(key, value);
                            answered += 1;
                        }
                    }
                    for frame in client.frames() {
                        forget(&mut kept, &frame);
                    }
                    for (key, value) in &kept {
                        let there = check.run(&format!("GET {key}"));
                        let there: i64 =
                            there.split("\r\n").nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
                        assert_eq!(there, *value, "{key}");
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
    let workshop = Workshop::of_python("clients", "cache", "cache.py");
    let server = Server::anteroom(&["--threads", "2"]);
    let said = workshop.run("venv/bin/python", &["cache.py", &server.port.to_string()]);
    assert_eq!(said.trim(), "nothing old is kept");
}
