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
