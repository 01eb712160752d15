//! `MONITOR`, beside that of `redis-server`.

use crate::harness::{Client, Server};

/// A line without its time and the client's port.
fn line_of(monitor: &mut Client) -> String {
    let line = String::from_utf8(monitor.read()).unwrap();
    let (time, rest) = line.split_once(' ').unwrap();
    let (seconds, micros) = time[1..].split_once('.').unwrap();
    assert!(line.starts_with('+') && seconds.parse::<u64>().is_ok() && micros.len() == 6, "{line}");
    let (whose, command) = rest.split_once("] ").unwrap();
    let whose = whose.split(':').next().unwrap();
    format!("{whose}] {command}")
}

#[test]
fn what_runs_is_shown_as_by_redis() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let mut shown = Vec::new();
    for server in [&ours, &theirs] {
        let (mut monitor, mut client) = (server.client(), server.client());
        assert_eq!(monitor.run("MONITOR"), "+OK\r\n");
        let list = client.run("CLIENT LIST");
        assert!(list.contains(" flags=O "), "{list}");
        for command in [
            "SET key value",
            "get key",
            "SELECT 3",
            "NOTHING at all",
            "GET",
            "CONFIG GET maxmemory",
            "MULTI",
            "INCR n",
            "PUBLISH c m",
            "EXEC",
            "MULTI",
            "DISCARD",
            "WATCH k",
            "EXEC",
            "LPUSH list a",
            "BLPOP list 0",
            "HSET h f v",
        ] {
            client.run(command);
        }
        client.send(&[b"EVAL".to_vec(), b"return redis.call('set','s','v')".to_vec(), b"0".to_vec()]);
        client.read();
        client.send(&[b"ECHO".to_vec(), b"a\"\\\n\r\t\x07\x08\x00\xff z".to_vec()]);
        client.read();
        client.run("PING last");
        let mut lines = Vec::new();
        while !lines.last().is_some_and(|line: &String| line.contains("last")) {
            lines.push(line_of(&mut monitor));
        }
        // Nothing more once it is reset.
        assert_eq!(monitor.run("RESET"), "+RESET\r\n");
        client.run("PING more");
        assert_eq!(monitor.run("PING"), "+PONG\r\n");
        shown.push(lines);
    }
    assert_eq!(shown[0], shown[1]);
    assert!(shown[0].len() > 15, "{shown:?}");
}

#[test]
fn who_does_not_read_is_not_waited_for() {
    let server = Server::anteroom(&[]);
    let (mut monitor, mut client) = (server.client(), server.client());
    assert_eq!(monitor.run("MONITOR"), "+OK\r\n");
    let value = "x".repeat(1 << 20);
    for _ in 0..100 {
        assert_eq!(client.run(&format!("SET key {value}")), "+OK\r\n");
    }
    assert!(monitor.is_closed());
    let list = client.run("CLIENT LIST");
    assert!(!list.contains("flags=O"), "{list}");
}
