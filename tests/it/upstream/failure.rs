//! Upstream away, hung, restarted: an answer or an error in time, and never an old value as if it were new.

use std::time::{Duration, Instant};

use super::{Pair, until};
use crate::harness::{Client, Server};

/// What a command says, and how long it took.
fn timed(client: &mut Client, command: &str) -> (String, Duration) {
    let begin = now();
    let said = client.run(command);
    (said, now() - begin)
}

#[expect(clippy::disallowed_methods, reason = "a test has no other clock")]
fn now() -> Instant {
    Instant::now()
}

fn signal(server: &Server, signal: i32) {
    // SAFETY: a signal to a child of ours that is not waited for.
    assert_eq!(unsafe { libc::kill(server.pid() as i32, signal) }, 0);
}

#[test]
fn an_upstream_that_hangs_costs_no_more_than_the_timeout() {
    let pair = Pair::start("timeout = \"500ms\"\nupstream-heartbeat = \"500ms\"");
    let mut ours = pair.anteroom.client();
    ours.run("SET k v");
    ours.run("GET k");
    signal(&pair.redis, libc::SIGSTOP);
    std::thread::sleep(Duration::from_millis(700));
    for (command, error) in
        [("SET k w", "-OUTCOMEUNKNOWN"), ("GET k", "-UPSTREAMDOWN"), ("MGET k j", "-UPSTREAMDOWN")]
    {
        let (said, took) = timed(&mut ours, command);
        let is_right = said.starts_with(error) || said.starts_with("-UPSTREAMDOWN");
        assert!(is_right && took < Duration::from_secs(5), "{command}: {said}, {took:?}");
    }
    signal(&pair.redis, libc::SIGCONT);
    until("it is back", || ours.run("SET k x") == "+OK\r\n");
    assert_eq!(ours.run("GET k"), "$1\r\nx\r\n");
}

#[test]
fn what_is_kept_is_not_served_when_upstream_is_silent() {
    let pair = Pair::start("upstream-heartbeat = \"300ms\"");
    let mut ours = pair.anteroom.client();
    ours.run("SET k v");
    ours.run("GET k");
    signal(&pair.redis, libc::SIGSTOP);
    let begin = now();
    // At some time within the heartbeat, or a little later on a busy machine, it stops being served.
    until("it is not served", || ours.run("GET k").starts_with("-UPSTREAMDOWN"));
    assert!(now() - begin < Duration::from_secs(5));
    signal(&pair.redis, libc::SIGCONT);
    until("it is served", || ours.run("GET k") == "$1\r\nv\r\n");
}

#[test]
fn what_is_kept_may_be_served_stale() {
    let pair =
        Pair::start("upstream-heartbeat = \"200ms\"\non-upstream-failure = \"stale\"\nstale-ttl = \"60s\"");
    let Pair { mut redis, anteroom } = pair;
    let mut ours = anteroom.client();
    ours.run("SET k v");
    ours.run("GET k");
    redis.stop(libc::SIGKILL);
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..10 {
        assert_eq!(ours.run("GET k"), "$1\r\nv\r\n");
    }
    assert!(ours.run("GET other").starts_with("-UPSTREAMDOWN"));
    assert!(ours.run("SET k w").starts_with("-UPSTREAMDOWN"));
}

#[test]
fn a_restarted_upstream_is_found_again_and_nothing_old_is_served() {
    let pair = Pair::start("");
    let Pair { mut redis, anteroom } = pair;
    let mut ours = anteroom.client();
    ours.run("SET k old");
    ours.run("GET k");
    redis.stop(libc::SIGKILL);
    until("it is noticed", || ours.run("GET k").starts_with("-UPSTREAMDOWN"));
    let (said, took) = timed(&mut ours, "SET k w");
    assert!(said.starts_with("-UPSTREAMDOWN") && took < Duration::from_secs(5), "{said} {took:?}");
    let again = Server::redis_at(redis.port);
    let begin = now();
    until("it is back", || ours.run("PTTL k") == ":-2\r\n");
    assert!(now() - begin < Duration::from_secs(10));
    assert_eq!(ours.run("GET k"), "$-1\r\n");
    drop(again);
}

#[test]
fn a_killed_connection_drops_what_was_kept() {
    let pair = Pair::start("");
    let (mut ours, mut theirs) = pair.clients();
    for round in 0..20 {
        theirs.run(&format!("SET k {round}"));
        let value = format!("${}\r\n{round}\r\n", round.to_string().len());
        until("it is read", || ours.run("GET k") == value);
        theirs.run("CLIENT KILL TYPE normal SKIPME yes");
        theirs.run(&format!("SET k {round}x"));
        let value = format!("${}\r\n{round}x\r\n", round.to_string().len() + 1);
        until("the new value is read", || ours.run("GET k") == value);
    }
}

#[test]
fn an_upstream_that_is_no_redis_or_absent_at_start_is_an_error_and_no_hang() {
    let anteroom = Server::anteroom(&["--upstream", "redis://127.0.0.1:1"]);
    let (said, took) = timed(&mut anteroom.client(), "GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && took < Duration::from_secs(5), "{said} {took:?}");
    // The admin port of another Anteroom speaks HTTP.
    let http = Server::with_admin(&[], &[]);
    let anteroom = Server::anteroom(&["--upstream", &format!("redis://127.0.0.1:{}", http.admin)]);
    let (said, took) = timed(&mut anteroom.client(), "GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && took < Duration::from_secs(5), "{said} {took:?}");
}
