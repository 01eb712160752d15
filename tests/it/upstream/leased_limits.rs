//! Rate limits whose permits are leased: never more than the limit over all hosts, and all of it while anybody asks.

use std::time::{Duration, Instant};

use super::shared_limits::hosts;
use super::{before, calls, until};
use crate::harness::{PATIENCE, Server, encode};
use crate::ratelimit::{LONG, admitted, ask, fields, words};

#[expect(clippy::disallowed_methods, reason = "a test has no other clock")]
fn now() -> Instant {
    Instant::now()
}

#[test]
fn no_more_than_the_limit_and_all_of_it() {
    let redis = Server::redis();
    let hosts = hosts(&redis, "scope = \"leased\"\nlease = 50");
    let mut theirs = redis.client();
    for limit in [1, 500, 3333] {
        for algorithm in ["log", "counter", "gcra"] {
            let command = format!("RATELIMIT.TAKE {algorithm}:{limit} {limit} {LONG} ALGORITHM {algorithm}");
            let mut sum = 0;
            // What one host has taken and does not use comes back after a while.
            let begin = now();
            while sum < limit && now() - begin < PATIENCE {
                sum += admitted(&hosts, &command, limit / 16 + 60);
                assert!(sum <= limit, "{command}: {sum}");
            }
            assert_eq!(sum, limit, "{command}");
            std::thread::sleep(Duration::from_millis(1500));
            assert_eq!(admitted(&hosts, &command, 20), 0, "{command}");
        }
        assert_eq!(theirs.run(&format!("ZCARD log:{limit}")), format!(":{limit}\r\n"));
    }
    // Far fewer requests than permits went upstream.
    let take = format!("RATELIMIT.TAKE cheap 100000 {LONG} ALGORITHM gcra");
    let scripts = |redis: &mut _| calls(redis, "evalsha") + calls(redis, "eval");
    let before = scripts(&mut theirs);
    assert_eq!(admitted(&hosts, &take, 500), 8000);
    let asked = scripts(&mut theirs) - before;
    assert!(asked < 2000, "{asked}");
}

/// In no window are more calls admitted than the limit, wherever it begins: by when they were sent and answered.
#[test]
fn no_window_holds_more() {
    let redis = Server::redis();
    let hosts = hosts(&redis, "scope = \"leased\"\nlease = 20");
    let (limit, window) = (40, Duration::from_millis(400));
    let begin = now();
    let mut admitted: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..6)
            .map(|thread| {
                let mut client = hosts[thread % 2].client();
                scope.spawn(move || {
                    let mut admitted = Vec::new();
                    while now() - begin < Duration::from_secs(4) {
                        let sent = now() - begin;
                        if ask(&mut client, "RATELIMIT.TAKE k 40 400")[0] == 0 {
                            admitted.push((sent, now() - begin));
                        }
                        std::thread::sleep(Duration::from_micros(fastrand::u64(0..3000)));
                    }
                    admitted
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    admitted.sort();
    for (from, _) in &admitted {
        let within = admitted.iter().filter(|(sent, answered)| sent >= from && *answered < *from + window);
        assert!(within.count() <= limit, "from {from:?}");
    }
    // Nine windows and a little, of which a tenth each is lost to leases.
    assert!(admitted.len() > limit * 5, "{}", admitted.len());
}

#[test]
fn what_needs_upstream_asks_it_and_leases_go_back() {
    let redis = Server::redis();
    let [mut one, other] = hosts(&redis, "scope = \"leased\"\nlease = 1000");
    let (mut ours, mut theirs, mut redis) = (one.client(), other.client(), redis.client());
    let take = format!("RATELIMIT.TAKE k 1000 {LONG}");
    assert_eq!(ask(&mut ours, &take)[..4], [0, 1000, 999, -1]);
    // A quarter of what was left.
    assert_eq!(redis.run("ZCARD k"), ":250\r\n");
    assert_eq!(ask(&mut ours, &format!("{take} COST 9"))[..4], [0, 1000, 990, -1]);
    assert_eq!(redis.run("ZCARD k"), ":250\r\n");
    assert_eq!(ask(&mut ours, &format!("{take} ID x"))[..3], [0, 1000, 749]);
    assert_eq!(ask(&mut theirs, &format!("{take} ID x"))[..3], [0, 1000, 749]);
    assert_eq!(ask(&mut theirs, &format!("RATELIMIT.MULTI 2 k 1000 {LONG} j 5 {LONG}"))[..3], [0, 5, 4]);
    assert_eq!(ask(&mut theirs, &format!("RATELIMIT.PEEK k 1000 {LONG}"))[..3], [0, 1000, 748]);
    until("what is left comes back", || redis.run("ZCARD k") == ":12\r\n");
    for algorithm in ["counter", "gcra"] {
        let take = format!("RATELIMIT.TAKE {algorithm} 1000 {LONG} ALGORITHM {algorithm}");
        assert_eq!(ask(&mut ours, &take)[..3], [0, 1000, 999]);
        let peek = take.replace("TAKE", "PEEK");
        until("what is left comes back", || ask(&mut theirs, &peek)[2] == 999);
    }
    // At the end, too.
    assert_eq!(ask(&mut ours, &format!("RATELIMIT.TAKE last 1000 {LONG}"))[2], 999);
    assert_eq!(redis.run("ZCARD last"), ":250\r\n");
    assert!(one.stop(libc::SIGTERM).success());
    assert_eq!(redis.run("ZCARD last"), ":1\r\n");
    // Forgotten, also what is held.
    assert_eq!(ask(&mut theirs, &format!("RATELIMIT.TAKE r 4 {LONG}"))[..3], [0, 4, 3]);
    assert_eq!(theirs.run("RATELIMIT.RESET r"), ":1\r\n");
    assert_eq!(ask(&mut theirs, &format!("RATELIMIT.PEEK r 4 {LONG}"))[..3], [0, 4, 4]);
    redis.run("SET text x");
    assert!(theirs.run("RATELIMIT.TAKE text 4 1000").starts_with("-WRONGTYPE"));
}

#[test]
fn what_is_held_is_served_without_upstream() {
    for (mode, then) in [("allow", 0), ("deny", 1), ("local", 0)] {
        let mut redis = Server::redis();
        let section = format!(
            "timeout = \"500ms\"\n[ratelimit]\nscope = \"leased\"\non-upstream-failure = \"{mode}\"\n\
             [ratelimit.policies.p]\nwindows = [{{ limit = 1000, window = \"1h\" }}, {{ limit = 4000, window = \"1d\" }}]"
        );
        let ours = before(&redis, &section);
        let mut client = ours.client();
        assert_eq!(ask(&mut client, "RATELIMIT.CHECK p x")[..3], [0, 1000, 999]);
        redis.stop(libc::SIGKILL);
        assert_eq!(ask(&mut client, "RATELIMIT.CHECK p x")[..3], [0, 1000, 998]);
        // By many at once, none of whom waits for ever.
        let request = encode(&words("RATELIMIT.CHECK p y"));
        let mut clients: Vec<_> = (0..8).map(|_| ours.client()).collect();
        clients.iter_mut().for_each(|client| client.send_raw(&request));
        for client in &mut clients {
            assert_eq!(fields(&String::from_utf8(client.read()).unwrap())[0], then, "{mode}");
        }
        assert!(client.run("INFO ratelimit").contains("ratelimit_scope:leased\r\nratelimit_undecided:8\r\n"));
    }
}
