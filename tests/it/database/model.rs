//! Random commands on rows, with kills, flushes and an emptied cache in between: all replies, and at the end all values
//! read by a fresh server, are those of Redis, which has no database behind it.

use super::{flush, start};
use crate::harness::{Client, Server};

struct Commands(fastrand::Rng);

impl Commands {
    fn pick<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.0.usize(..choices.len())]
    }

    fn any(&mut self) -> String {
        format!("any:{}", self.0.u8(..12))
    }

    fn note(&mut self) -> String {
        format!("note:o:{}", self.0.u8(..5))
    }

    fn next(&mut self) -> String {
        match self.0.u8(..10) {
            0..3 => self.columns(),
            3..5 => self.text(),
            _ => self.typed(),
        }
    }

    /// On a hash with two columns.
    fn columns(&mut self) -> String {
        let table = self.pick(&["user", "plain"]);
        let (key, n) = (format!("{table}:{}", self.0.u8(..5)), self.0.u16(..1000));
        match self.0.u8(..13) {
            0 | 1 => format!("HSET {key} a {n}"),
            2 => format!("HSET {key} b {n}"),
            3 => format!("HSET {key} a {n} b {n}"),
            4 => format!("HDEL {key} a"),
            5 => format!("HDEL {key} a b"),
            6 => format!("HINCRBY {key} b {n}"),
            7 => format!("HSETNX {key} a {n}"),
            8 => format!("DEL {key}"),
            9 => format!("RENAME {key} {table}:{}", self.0.u8(..5)),
            10 => format!("EXPIRE {key} -1"),
            11 => format!("HMGET {key} a b"),
            _ => format!("HLEN {key}"),
        }
    }

    /// On a string in a column.
    fn text(&mut self) -> String {
        let (key, n) = (self.note(), self.0.u16(..1000));
        match self.0.u8(..13) {
            0..3 => format!("SET {key} {n}"),
            3 => format!("APPEND {key} {n}"),
            4 => format!("GETSET {key} {n}"),
            5 => format!("SET {key} {n} NX"),
            6 => format!("INCRBY {key} {n}"),
            7 => format!("GETDEL {key}"),
            8 => format!("RENAME {key} {}", self.note()),
            9 => format!("DEL {key} {}", self.note()),
            10 => format!("MSET {key} {n} {} {n}", self.note()),
            11 => format!("EXPIRE {key} {}", self.pick(&["-1", "100000"])),
            _ => format!("GET {key}"),
        }
    }

    /// On a value of any type in the default table.
    fn typed(&mut self) -> String {
        let (key, n, m) = (self.any(), self.0.u8(..20), self.0.u8(..20));
        match self.0.u8(..34) {
            0 | 1 => format!("SET {key} {n}"),
            2 => format!("SET {key} {n} EX 100000"),
            3 => format!("INCRBY {key} {n}"),
            4 => format!("SETRANGE {key} {n} x"),
            5 => format!("SETBIT {key} {n} 1"),
            6 | 7 => format!("HSET {key} f{n} {m}"),
            8 => format!("HDEL {key} f{n} f{m}"),
            9 => format!("HINCRBY {key} f{n} {m}"),
            10 | 11 => format!("RPUSH {key} {n} {m}"),
            12 => format!("LPOP {key} {n}"),
            13 => format!("LSET {key} 0 {n}"),
            14 => format!("LMOVE {key} {} LEFT RIGHT", self.any()),
            15 => format!("LTRIM {key} 0 {n}"),
            16 | 17 => format!("SADD {key} {n} m{m}"),
            18 => format!("SREM {key} {n} m{m}"),
            19 => format!("SMOVE {key} {} {n}", self.any()),
            20 => format!("SUNIONSTORE {key} {} {}", self.any(), self.any()),
            21 | 22 => format!("ZADD {key} {n} a{m}"),
            23 => format!("ZINCRBY {key} {n} a{m}"),
            24 => format!("ZREM {key} a{n} a{m}"),
            25 => format!("ZPOPMIN {key}"),
            26 | 27 => format!("DEL {key}"),
            28 => format!("RENAME {key} {}", self.any()),
            29 => format!("COPY {key} {} REPLACE", self.any()),
            30 => format!("EXPIRE {key} {}", self.pick(&["-1", "100000"])),
            31 => format!("PERSIST {key}"),
            32 => format!("TYPE {key}"),
            _ => format!("EXISTS {key} {}", self.any()),
        }
    }
}

/// What a key holds, in an order of its own where the type has none.
fn contents(client: &mut Client, key: &str) -> String {
    let kind = client.run(&format!("TYPE {key}"));
    let command = match kind.trim_end() {
        "+none" => return String::new(),
        "+string" => format!("GET {key}"),
        "+hash" => format!("HGETALL {key}"),
        "+list" => format!("LRANGE {key} 0 -1"),
        "+set" => format!("SMEMBERS {key}"),
        "+zset" => format!("ZRANGE {key} 0 -1 WITHSCORES"),
        other => panic!("{key} is {other}"),
    };
    let text = client.run(&command);
    let mut lines: Vec<&str> = text.lines().filter(|line| !line.starts_with(['*', '$'])).collect();
    match kind.trim_end() {
        "+set" => lines.sort_unstable(),
        "+hash" => {
            let mut pairs: Vec<&[&str]> = lines.chunks(2).collect();
            pairs.sort_unstable();
            return format!("{kind}{pairs:?}");
        }
        _ => {}
    }
    format!("{kind}{lines:?}")
}

fn compare(server: &Server, oracle: &mut Client, when: &str) {
    let mut client = server.client();
    let any = (0..12).map(|number| format!("any:{number}"));
    let others = (0..5).flat_map(|n| [format!("user:{n}"), format!("plain:{n}"), format!("note:o:{n}")]);
    for key in any.chain(others) {
        assert_eq!(contents(&mut client, &key), contents(oracle, &key), "{when}: {key}");
        if key.starts_with("any") {
            let has_deadline = |client: &mut Client| client.run(&format!("TTL {key}")).len() > 5;
            assert_eq!(has_deadline(&mut client), has_deadline(oracle), "{when}: deadline of {key}");
        }
    }
}

#[test]
fn cache_journal_and_database_together_are_what_redis_has() {
    let seed = std::env::var("ANTEROOM_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("ANTEROOM_TEST_SEED={seed}");
    let mut commands = Commands(fastrand::Rng::with_seed(seed));
    let (_postgres, mut server) =
        start("flush-interval = \"30ms\"\nbatch-size = 20\njournal-fsync = \"always\"");
    let redis = Server::redis();
    let mut oracle = redis.client();
    let (mut total, mut kills) = (0, 0);
    for round in 0..60 {
        let mut client = server.client();
        let mut run = |command: &str| {
            let (ours, expected) = (client.run(command), oracle.run(command));
            assert_eq!(ours, expected, "round {round}: {command}");
            total += 1;
        };
        for _ in 0..60 {
            if commands.0.u8(..8) == 0 {
                run("MULTI");
                (0..commands.0.u8(1..5)).for_each(|_| run(&commands.next()));
                run("EXEC");
            } else {
                run(&commands.next());
            }
        }
        match commands.0.u8(..8) {
            0..3 => {
                server.kill();
                server.restart();
                kills += 1;
            }
            3 => assert_eq!(client.run("FLUSHALL"), "+OK\r\n"),
            4 => flush(&server),
            5 => {
                flush(&server);
                assert_eq!(client.run("FLUSHALL"), "+OK\r\n");
            }
            6 => compare(&server, &mut oracle, &format!("round {round}")),
            _ => {}
        }
    }
    flush(&server);
    let letters = server.client().run("DB.DEADLETTER LIST");
    assert_eq!(letters, "*0\r\n");
    server.kill();
    server.restart();
    compare(&server, &mut oracle, "at the end");
    println!("{total} commands and {kills} kills: all replies and all values are those of Redis");
}
