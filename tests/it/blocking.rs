//! Blocked clients: order, wake-ups, time-outs, and their going away.

use std::time::Duration;

use crate::harness::{Client, Server};

/// Waits until so many clients are blocked.
pub fn until_blocked(client: &mut Client, count: usize) {
    for _ in 0..400 {
        if client.run("INFO clients").contains(&format!("blocked_clients:{count}\r\n")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{count} clients should be blocked");
}

#[test]
fn first_come_first_served() {
    let server = Server::anteroom(&[]);
    let mut pusher = server.client();
    let mut waiters = Vec::new();
    for count in 1..=20 {
        let mut client = server.client();
        client.send_raw(b"BLPOP list 0\r\n");
        until_blocked(&mut pusher, count);
        waiters.push(client);
    }
    for number in 0..20 {
        pusher.run(&format!("RPUSH list {number}"));
    }
    for (number, waiter) in waiters.iter_mut().enumerate() {
        let text = number.to_string();
        assert_eq!(waiter.read(), format!("*2\r\n$4\r\nlist\r\n${}\r\n{text}\r\n", text.len()).into_bytes());
    }
    assert_eq!(pusher.run("EXISTS list"), ":0\r\n");
}

#[test]
fn the_pusher_serves_before_its_next_command() {
    let server = Server::anteroom(&[]);
    let (mut pusher, mut waiter) = (server.client(), server.client());
    waiter.send_raw(b"BLMOVE from to LEFT RIGHT 0\r\n");
    until_blocked(&mut pusher, 1);
    pusher.send_raw(b"RPUSH from a\r\nLRANGE from 0 -1\r\nLRANGE to 0 -1\r\n");
    assert_eq!(pusher.read(), b":1\r\n");
    assert_eq!(pusher.read(), b"*0\r\n");
    assert_eq!(pusher.read(), b"*1\r\n$1\r\na\r\n");
    assert_eq!(waiter.read(), b"$1\r\na\r\n");
}

#[test]
fn chains_of_moves_are_served() {
    let server = Server::anteroom(&[]);
    let mut pusher = server.client();
    let (mut first, mut second, mut third) = (server.client(), server.client(), server.client());
    first.send_raw(b"BLMOVE a b LEFT LEFT 0\r\n");
    second.send_raw(b"BLMOVE b c LEFT LEFT 0\r\n");
    third.send_raw(b"BZPOPMIN z 0\r\n");
    until_blocked(&mut pusher, 3);
    pusher.send_raw(b"MULTI\r\nLPUSH a x\r\nZADD z 1 m\r\nEXEC\r\n");
    (0..4).for_each(|_| drop(pusher.read()));
    assert_eq!(first.read(), b"$1\r\nx\r\n");
    assert_eq!(second.read(), b"$1\r\nx\r\n");
    assert_eq!(third.read(), b"*3\r\n$1\r\nz\r\n$1\r\nm\r\n$1\r\n1\r\n");
    assert_eq!(pusher.run("LRANGE c 0 -1"), "*1\r\n$1\r\nx\r\n");
}

#[test]
fn time_runs_out_and_pipelines_go_on() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.send_raw(b"BLPOP a b 0.05\r\nBLMOVE a b LEFT LEFT 0.05\r\nBZPOPMAX z 0.05\r\nPING\r\n");
    assert_eq!(client.read(), b"*-1\r\n");
    assert_eq!(client.read(), b"*-1\r\n");
    assert_eq!(client.read(), b"*-1\r\n");
    assert_eq!(client.read(), b"+PONG\r\n");
}

#[test]
fn a_client_that_goes_away_takes_nothing() {
    let server = Server::anteroom(&[]);
    let mut pusher = server.client();
    let mut gone = server.client();
    gone.send_raw(b"BLPOP list 0\r\n");
    until_blocked(&mut pusher, 1);
    drop(gone);
    until_blocked(&mut pusher, 0);
    assert_eq!(pusher.run("RPUSH list a"), ":1\r\n");
    assert_eq!(pusher.run("LRANGE list 0 -1"), "*1\r\n$1\r\na\r\n");
}

#[test]
fn waits_are_ended_by_others() {
    let server = Server::anteroom(&[]);
    let (mut other, mut waiter) = (server.client(), server.client());
    let id = waiter.run("CLIENT ID").trim_matches([':', '\r', '\n']).to_owned();
    waiter.send_raw(b"BLPOP list 0\r\n");
    until_blocked(&mut other, 1);
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id}")), ":1\r\n");
    assert_eq!(waiter.read(), b"*-1\r\n");
    waiter.send_raw(b"BLPOP list 0\r\n");
    until_blocked(&mut other, 1);
    assert_eq!(other.run(&format!("CLIENT UNBLOCK {id} ERROR")), ":1\r\n");
    assert_eq!(waiter.read(), b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n");
    other.run("RPUSH list a");
    assert_eq!(other.run("LLEN list"), ":1\r\n");
}

#[test]
fn a_key_of_another_type_wakes_nobody() {
    let server = Server::anteroom(&[]);
    let (mut other, mut waiter) = (server.client(), server.client());
    waiter.send_raw(b"BLPOP key 0\r\n");
    until_blocked(&mut other, 1);
    assert_eq!(other.run("SADD key a"), ":1\r\n");
    assert_eq!(other.run("DEL key"), ":1\r\n");
    assert_eq!(other.run("RPUSH key b"), ":1\r\n");
    assert_eq!(waiter.read(), b"*2\r\n$3\r\nkey\r\n$1\r\nb\r\n");
}

#[test]
fn a_destination_of_another_type_is_an_error_and_nothing_moves() {
    let server = Server::anteroom(&[]);
    let (mut other, mut waiter) = (server.client(), server.client());
    other.run("SET to string");
    waiter.send_raw(b"BRPOPLPUSH from to 0\r\n");
    until_blocked(&mut other, 1);
    other.run("RPUSH from a b c");
    assert!(waiter.read().starts_with(b"-WRONGTYPE"));
    assert_eq!(other.run("LLEN from"), ":3\r\n");
}

#[test]
fn taking_or_moving_the_last_element_is_one_change() {
    let server = Server::anteroom(&[]);
    let (mut pusher, mut waiter) = (server.client(), server.client());
    let changes = |client: &mut Client| {
        let info = client.run("INFO persistence");
        let line = info.lines().find(|line| line.starts_with("rdb_changes_since_last_save:")).unwrap();
        line.split(':').nth(1).unwrap().parse::<u64>().unwrap()
    };
    waiter.send_raw(b"BLPOP list 0\r\n");
    until_blocked(&mut pusher, 1);
    let before = changes(&mut pusher);
    pusher.run("LPUSH list a");
    waiter.read();
    assert_eq!(changes(&mut pusher), before + 2);

    // One for the push and one for the move.
    waiter.send_raw(b"BLMOVE list other LEFT LEFT 0\r\n");
    until_blocked(&mut pusher, 1);
    let before = changes(&mut pusher);
    pusher.run("LPUSH list a");
    waiter.read();
    assert_eq!(changes(&mut pusher), before + 2);
    assert_eq!(pusher.run("EXISTS list"), ":0\r\n");
}
