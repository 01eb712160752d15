//! Every command on rows gives the reply that Redis gives, whether the row is in the cache or in the database alone.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Hosts;
use crate::differential::compare_server;
use crate::upstream::forwarding::is_by_chance;

const COUNT: usize = 10_000;
/// All keys that are compared are rows.
const RULES: &str = "[[database.rules]]\npattern = \"k{n}\"";
/// What takes all of them away.
const EMPTY: &str = "DEL k0 k1 k2 k3 k4 k5 k6 k7 k8 k9 k10 k11";

/// What is not served for rows, or shows the journal's own keys.
fn is_left_out(command: &[Vec<u8>]) -> bool {
    let is = |index: usize, word: &str| {
        command.get(index).is_some_and(|given| given.eq_ignore_ascii_case(word.as_bytes()))
    };
    let names =
        ["BLPOP", "BLMOVE", "BZPOPMIN", "BLMPOP", "MOVE", "SWAPDB", "FLUSHALL", "DBSIZE", "KEYS", "OBJECT"];
    names.iter().any(|name| is(0, name)) || is(0, "COPY") && is(3, "DB") || is_by_chance(command)
}

fn compare(protocol: u8, seed: u64) {
    let hosts = Hosts::with_rules(1, "flush-interval = \"20ms\"", RULES);
    compare_server(&hosts.hosts[0], is_left_out, protocol, seed, COUNT, EMPTY);
}

#[test]
fn resp2_replies_are_those_of_redis() {
    compare(2, 0xfade);
}

#[test]
fn resp3_replies_are_those_of_redis() {
    compare(3, 0xface);
}

struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Redis forgets keys at any moment, before or after they are in the database: nobody sees that.
#[test]
fn replies_are_the_same_while_the_cache_forgets() {
    for protocol in [2, 3] {
        let hosts = Hosts::with_rules(2, "flush-interval = \"5ms\"", RULES);
        let (ends, mut redis) = (AtomicBool::new(false), hosts.redis.client());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ends.load(Ordering::Relaxed) {
                    redis.run(&format!("UNLINK k{} k{}", fastrand::u8(..12), fastrand::u8(..12)));
                    std::thread::sleep(Duration::from_millis(4));
                }
            });
            // However the comparison ends.
            let _end = Ends(&ends);
            // A key that is watched changes when it is forgotten.
            let leaves_out =
                |command: &[Vec<u8>]| is_left_out(command) || command[0].eq_ignore_ascii_case(b"WATCH");
            compare_server(&hosts.hosts[0], leaves_out, protocol, 0xfeed, COUNT / 4, EMPTY);
        });
    }
}
