//! `CLIENT PAUSE`: commands are held with their connections, and no thread is.

use std::time::Duration;

use crate::blocking::until_blocked;
use crate::harness::Server;

#[test]
fn writes_are_held_and_reads_go_on() {
    let server = Server::anteroom(&["--threads", "1"]);
    let (mut admin, mut writer, mut reader) = (server.client(), server.client(), server.client());
    assert_eq!(admin.run("CLIENT PAUSE 60000 WRITE"), "+OK\r\n");
    writer.send_raw(b"GET k\r\nSET k 1\r\nGET k\r\n*1\r\n$5\r\nMULTI\r\n*2\r\n$4\r\nINCR\r\n$1\r\nk\r\n*1\r\n$4\r\nEXEC\r\n");
    assert_eq!(writer.read(), b"$-1\r\n");
    until_blocked(&mut reader, 1);
    assert_eq!(reader.run("GET k"), "$-1\r\n");
    assert_eq!(reader.run("NOSUCH"), "-ERR unknown command 'NOSUCH', with args beginning with: \r\n");
    assert!(reader.run("CLIENT LIST").contains("flags=b"));
    assert_eq!(admin.run("CLIENT UNPAUSE"), "+OK\r\n");
    for expected in [&b"+OK\r\n"[..], b"$1\r\n1\r\n", b"+OK\r\n", b"+QUEUED\r\n", b"*1\r\n:2\r\n"] {
        assert_eq!(writer.read(), expected);
    }
    until_blocked(&mut admin, 0);
}

#[test]
fn all_are_held_until_the_time_is_up() {
    let server = Server::anteroom(&["--threads", "1"]);
    let (mut admin, mut other) = (server.client(), server.client());
    other.run("SET k v PX 20");
    let begin = anteroom::clock::monotonic();
    assert_eq!(admin.run("CLIENT PAUSE 300"), "+OK\r\n");
    assert_eq!(other.run("PING"), "+PONG\r\n");
    assert!(begin.elapsed() >= Duration::from_millis(290), "{:?}", begin.elapsed());
    assert_eq!(admin.run("EXISTS k"), ":0\r\n");
}

#[test]
fn a_milder_pause_lets_reads_go_and_the_longer_end_stands() {
    let server = Server::anteroom(&[]);
    let (mut admin, mut reader, mut writer) = (server.client(), server.client(), server.client());
    // The same write: else the second command would be held by the first.
    admin.send_raw(b"MULTI\r\nCLIENT PAUSE 60000 ALL\r\nCLIENT PAUSE 1 WRITE\r\nEXEC\r\n");
    (0..4).for_each(|_| drop(admin.read()));
    assert_eq!(reader.run("PING"), "+PONG\r\n");
    writer.send_raw(b"SET k v\r\n");
    until_blocked(&mut admin, 1);
    drop(writer);
    until_blocked(&mut admin, 0);
    assert_eq!(admin.run("EXISTS k"), ":0\r\n");
}

#[test]
fn the_server_ends_though_clients_are_held() {
    let mut server = Server::anteroom(&[]);
    let (mut admin, mut held) = (server.client(), server.client());
    admin.run("CLIENT PAUSE 60000");
    held.send_raw(b"PING\r\n");
    assert_eq!(server.stop(libc::SIGTERM).code(), Some(0));
    assert!(held.is_closed());
}

#[test]
fn faults_are_told_in_redis_words() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for (command, expected) in [
        ("CLIENT PAUSE x", "-ERR timeout is not an integer or out of range\r\n"),
        ("CLIENT PAUSE -1", "-ERR timeout is negative\r\n"),
        ("CLIENT PAUSE 9223372036854775807", "-ERR timeout is out of range\r\n"),
        ("CLIENT PAUSE 1 some", "-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n"),
        ("CLIENT GETREDIR", ":-1\r\n"),
        (
            "CLIENT TRACKINGINFO",
            "*6\r\n$5\r\nflags\r\n*1\r\n$3\r\noff\r\n$8\r\nredirect\r\n:-1\r\n$8\r\nprefixes\r\n*0\r\n",
        ),
        ("CLIENT KILL ID 0", "-ERR client-id should be greater than 0\r\n"),
        ("CLIENT KILL ID 5 ID 77", ":0\r\n"),
        ("CLIENT KILL TYPE pubsub", ":0\r\n"),
        ("CLIENT KILL TYPE wrong", "-ERR Unknown client type 'wrong'\r\n"),
        ("CLIENT KILL USER nobody", "-ERR No such user 'nobody'\r\n"),
        ("CLIENT KILL SKIPME maybe", "-ERR syntax error\r\n"),
        ("CLIENT KILL ID", "-ERR No such client\r\n"),
        ("CLIENT LIST TYPE wrong", "-ERR Unknown client type 'wrong'\r\n"),
        ("CLIENT LIST ID x", "-ERR Invalid client ID\r\n"),
        ("CLIENT LIST ID 99", "$0\r\n\r\n"),
        ("CLIENT UNBLOCK 99", ":0\r\n"),
        ("CLIENT UNBLOCK 99 wrong", "-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n"),
        ("CLIENT NO-EVICT wrong", "-ERR syntax error\r\n"),
        ("CLIENT NO-EVICT on", "+OK\r\n"),
    ] {
        assert_eq!(client.run(command), expected, "{command}");
    }
    assert!(client.run("CLIENT INFO").contains(" flags=e "));
}

#[test]
fn filters_choose_whom_to_close() {
    let server = Server::anteroom(&[]);
    let (mut admin, mut first, mut second) = (server.client(), server.client(), server.client());
    let id = |client: &mut crate::harness::Client| {
        client.run("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned()
    };
    let (first_id, second_id) = (id(&mut first), id(&mut second));
    // Of an option given twice, the last counts.
    assert_eq!(admin.run(&format!("CLIENT KILL ID {first_id} ID {second_id} TYPE normal")), ":1\r\n");
    assert!(second.is_closed());
    assert_eq!(admin.run(&format!("CLIENT KILL LADDR 127.0.0.1:{} USER default", server.port)), ":1\r\n");
    assert!(first.is_closed());
    assert_eq!(admin.run("CLIENT KILL TYPE normal SKIPME no"), ":1\r\n");
    assert!(admin.is_closed());
}
