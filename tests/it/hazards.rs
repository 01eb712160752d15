//! What takes long stops nobody but the client that asked for it.

use std::time::Duration;

use crate::blocking::until_blocked;
use crate::harness::Server;

#[test]
fn a_sleeping_client_keeps_no_other_waiting() {
    let server = Server::anteroom(&["--threads", "1"]);
    let (mut sleeper, mut other) = (server.client(), server.client());
    other.run("CONFIG SET slowlog-log-slower-than 200000");
    let id = sleeper.run("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned();
    let begin = anteroom::clock::monotonic();
    sleeper.send_raw(b"DEBUG SLEEP 0.4\r\nPING\r\n");
    until_blocked(&mut other, 1);
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")), ":0\r\n");
    assert!(begin.elapsed() < Duration::from_millis(400));
    assert_eq!(sleeper.read(), b"+OK\r\n");
    assert_eq!(sleeper.read(), b"+PONG\r\n");
    assert!(begin.elapsed() >= Duration::from_millis(400));
    assert_eq!(other.run("SLOWLOG LEN"), ":1\r\n");
}

#[test]
fn long_commands_run_apart() {
    let server = Server::anteroom(&["--threads", "1"]);
    let (mut long, mut other) = (server.client(), server.client());
    long.send_raw(b"PFSELFTEST\r\nPING\r\n");
    assert_eq!(other.run("PING"), "+PONG\r\n");
    let fill: Vec<u8> = (0..30_000).flat_map(|n| format!("SET key:{n} {n}\r\n").into_bytes()).collect();
    other.send_raw(&fill);
    (0..30_000).for_each(|_| assert_eq!(other.read(), b"+OK\r\n"));
    assert_eq!(long.read(), b"+OK\r\n");
    assert_eq!(long.read(), b"+PONG\r\n");
    long.send_raw(b"KEYS key:2999?\r\nKEYS\r\nMULTI\r\nKEYS key:77\r\nEXEC\r\nFLUSHALL SYNC\r\nDBSIZE\r\n");
    assert!(long.read().starts_with(b"*10\r\n$9\r\nkey:2999"));
    assert_eq!(long.read(), b"-ERR wrong number of arguments for 'keys' command\r\n");
    assert_eq!(long.read(), b"+OK\r\n");
    assert_eq!(long.read(), b"+QUEUED\r\n");
    assert_eq!(long.read(), b"*1\r\n*1\r\n$6\r\nkey:77\r\n");
    assert_eq!(long.read(), b"+OK\r\n");
    assert_eq!(long.read(), b":0\r\n");
}

#[test]
fn what_stops_a_connection_does_so_behind_large_replies_too() {
    let server = Server::anteroom(&[]);
    let (mut client, mut other) = (server.client(), server.client());
    client.send_raw(format!("SET k {}\r\n", "x".repeat(60_000)).as_bytes());
    assert_eq!(client.read(), b"+OK\r\n");
    let mut pipeline = b"GET k\r\n".repeat(9);
    pipeline.extend_from_slice(b"BLPOP list 0\r\nGET k\r\n");
    pipeline.extend_from_slice(&b"GET k\r\n".repeat(9));
    pipeline.extend_from_slice(b"QUIT\r\nPING\r\n");
    client.send_raw(&pipeline);
    (0..9).for_each(|_| assert_eq!(client.read().len(), 60_010));
    until_blocked(&mut other, 1);
    other.run("RPUSH list a");
    assert_eq!(client.read(), b"*2\r\n$4\r\nlist\r\n$1\r\na\r\n");
    (0..10).for_each(|_| assert_eq!(client.read().len(), 60_010));
    assert_eq!(client.read(), b"+OK\r\n");
    assert!(client.is_closed());
}
