//! Several hosts with one journal: what a dead one had accepted is flushed by the others, and rows end equal to the cache.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::Hosts;
use crate::database::crash::{Places, WRITERS, check, write};
use crate::database::{NIL, flush, info, wait_for};

/// One of three hosts is killed in each round at a random moment under load; the others have what it accepted before it is
/// there again.
#[test]
fn nothing_acknowledged_is_lost_with_a_host() {
    let mut hosts = Hosts::start(3, "flush-interval = \"50ms\"\nbatch-size = 40");
    let mut places: Vec<Places> = vec![Places::new(); WRITERS as usize];
    let total = AtomicU64::new(0);
    for round in 0..6 {
        let victim = fastrand::usize(..hosts.hosts.len());
        let pids: Vec<i32> = hosts.hosts.iter().map(|host| host.pid() as i32).collect();
        std::thread::scope(|scope| {
            for (writer, places) in places.iter_mut().enumerate() {
                let (host, total) = (&hosts.hosts[(writer + round) % hosts.hosts.len()], &total);
                scope.spawn(move || {
                    total.fetch_add(write(host, writer as u64, places, round as u64), Ordering::Relaxed);
                });
            }
            std::thread::sleep(Duration::from_millis(fastrand::u64(200..400)));
            // SAFETY: signals to children that are not waited for yet, so their numbers are still their own.
            unsafe { libc::kill(pids[victim], libc::SIGKILL) };
            std::thread::sleep(Duration::from_millis(50));
            // Writers go on until their host ends.
            for (index, pid) in pids.iter().enumerate() {
                let signal = if index == (victim + 1) % pids.len() { libc::SIGTERM } else { libc::SIGKILL };
                // SAFETY: as above.
                unsafe { libc::kill(*pid, signal) };
            }
        });
        for host in &mut hosts.hosts {
            host.kill();
        }
        let back = (victim + 1) % hosts.hosts.len();
        hosts.hosts[back].restart();
        flush(&hosts.hosts[back]);
        check(&hosts.postgres, &hosts.hosts[back], &places, &format!("round {round}"));
        for (index, host) in hosts.hosts.iter_mut().enumerate().filter(|(index, _)| *index != back) {
            host.restart();
            assert!(index < 3);
        }
    }
    assert!(total.load(Ordering::Relaxed) > 300, "{total:?}");
}

/// Entries that a host has read and not flushed are another's when it dies, and nobody's consumer is left behind.
#[test]
fn what_a_host_has_taken_is_taken_over() {
    let mut hosts = Hosts::start(2, "flush-interval = \"1h\"\nbatch-size = 10000");
    let mut clients = hosts.clients();
    for number in 0..200 {
        assert_eq!(clients[0].run(&format!("SET note:n:{number} {number}")), "+OK\r\n");
    }
    let taken = |hosts: &Hosts| {
        hosts.hosts.iter().map(|host| info(host, "writebehind_journal_taken")).collect::<Vec<_>>()
    };
    wait_for(|| taken(&hosts).iter().sum::<i64>() == 200);
    let victim = usize::from(taken(&hosts)[1] > taken(&hosts)[0]);
    hosts.hosts[victim].kill();
    let rest = 1 - victim;
    flush(&hosts.hosts[rest]);
    assert_eq!(hosts.postgres.sql("SELECT count(*) FROM notes WHERE title = body"), ["200"]);
    assert_eq!(info(&hosts.hosts[rest], "writebehind_depth"), 0);
    let mut redis = hosts.redis.client();
    wait_for(|| redis.run("XINFO CONSUMERS anteroom:{journal}:stream flushers").starts_with("*1\r\n"));
    assert_eq!(redis.run("XLEN anteroom:{journal}:stream"), ":0\r\n");
    assert_eq!(redis.run("HLEN anteroom:{journal}:pending"), ":0\r\n");
    assert_eq!(redis.run("GET anteroom:{journal}:bytes"), "$1\r\n0\r\n");
}

/// The same keys written through both hosts, and deleted, and incremented, while each flushes its share on its own.
#[test]
fn rows_end_equal_to_the_cache() {
    let hosts = Hosts::start(2, "flush-interval = \"3ms\"\nbatch-size = 7");
    std::thread::scope(|scope| {
        for writer in 0..6 {
            let host = &hosts.hosts[writer % 2];
            scope.spawn(move || {
                let mut client = host.client();
                for turn in 0..600 {
                    let key = fastrand::u8(..8);
                    let reply = match fastrand::u8(..8) {
                        0 => client.run(&format!("DEL note:k:{key} user:{key}")),
                        1 => client.run(&format!("GETDEL note:k:{key}")),
                        2 => client.run(&format!("APPEND note:k:{key} x")),
                        3 => client.run(&format!("HINCRBY user:{key} a 1")),
                        4 => client.run(&format!("HSET user:{key} b {turn}")),
                        5 => {
                            client.run("MULTI");
                            client.run(&format!("SET note:k:{key} {writer}.{turn}"));
                            client.run(&format!("HSET user:{key} a {turn}"));
                            client.run("EXEC")
                        }
                        _ => client.run(&format!("SET note:k:{key} {writer}-{turn}")),
                    };
                    assert!(!reply.starts_with('-') || reply.starts_with("-TRYAGAIN"), "{reply}");
                }
            });
        }
    });
    flush(&hosts.hosts[0]);
    let mut redis = hosts.redis.client();
    let rows = |sql: &str| -> HashMap<String, String> {
        let rows = hosts.postgres.sql(sql);
        rows.iter().filter_map(|row| row.split_once('|')).map(|(id, row)| (id.into(), row.into())).collect()
    };
    let (notes, users) = (rows("SELECT title, body FROM notes"), rows("SELECT id, a, b FROM users"));
    let string = |reply: String| reply.lines().nth(1).map(str::to_owned);
    for key in 0..8 {
        let kept = string(redis.run(&format!("GET note:k:{key}")));
        assert_eq!(notes.get(&key.to_string()), kept.as_ref(), "note {key}");
        let kept = redis.run(&format!("EXISTS user:{key}")) == ":1\r\n";
        let mut field = |name: &str| {
            string(redis.run(&format!("HGET user:{key} {name}"))).unwrap_or_else(|| "NULL".to_owned())
        };
        let row = kept.then(|| format!("{}|{}", field("a"), field("b")));
        assert_eq!(users.get(&key.to_string()), row.as_ref(), "user {key}");
    }
}

/// SIGTERM flushes what was accepted, and leaves neither an entry nor a consumer that others must wait for.
#[test]
fn a_host_that_ends_flushes_before() {
    let mut hosts = Hosts::start(1, "flush-interval = \"1h\"\nbatch-size = 10000");
    let mut client = hosts.hosts[0].client();
    for number in 0..50 {
        client.run(&format!("SET note:n:{number} x"));
    }
    assert!(hosts.hosts[0].stop(libc::SIGTERM).success());
    assert_eq!(hosts.postgres.sql("SELECT count(*) FROM notes"), ["50"]);
    let mut redis = hosts.redis.client();
    assert_eq!(redis.run("XLEN anteroom:{journal}:stream"), ":0\r\n");
    assert_eq!(redis.run("GET nothing"), NIL);
}
