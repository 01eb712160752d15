//! The same random commands to Anteroom and to `redis-server`: the replies must be the same bytes.
//!
//! `DIFF_SEED` and `DIFF_COUNT` repeat a run. The oracle is `redis-server`, or what `ANTEROOM_TEST_REDIS` names.

use std::collections::BTreeSet;

use fastrand::Rng;

use crate::generator::{self, Comparison};
use crate::harness::{Client, Server};

/// Commands per protocol.
const COUNT: usize = 60_000;
/// Commands between two looks at all keys.
const EPOCH: usize = 2_000;

#[test]
fn resp2_replies_are_those_of_redis() {
    compare(2, 0x5eed);
}

#[test]
fn resp3_replies_are_those_of_redis() {
    compare(3, 0xfeed);
}

pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn compare(protocol: u8, seed: u64) {
    compare_server(
        &Server::anteroom(&[]),
        |_| false,
        protocol,
        seed,
        number("DIFF_COUNT", COUNT as u64) as usize,
        "FLUSHALL",
    );
}

/// Compares a server with `redis-server`, without the commands that `leaves_out` says; `empty` takes all its keys away.
pub fn compare_server(
    our_server: &Server,
    leaves_out: impl Fn(&[Vec<u8>]) -> bool,
    protocol: u8,
    seed: u64,
    count: usize,
    empty: &str,
) {
    let their_server = Server::redis();
    let (mut ours, mut theirs) = (our_server.client(), their_server.client());
    for client in [&mut ours, &mut theirs] {
        client.run(&format!("HELLO {protocol}"));
    }
    let seed = number("DIFF_SEED", seed);
    let mut rng = Rng::with_seed(seed);
    let mut history: Vec<String> = Vec::new();
    let mut queue: Vec<(Vec<Vec<u8>>, Comparison)> = Vec::new();
    let mut in_multi = false;
    for index in 0..count {
        let (command, comparison) = generator::command(&mut rng);
        if leaves_out(&command) {
            continue;
        }
        let name = String::from_utf8_lossy(&command[0]).to_uppercase();
        ours.send(&command);
        theirs.send(&command);
        let (our_reply, their_reply) = (ours.read(), theirs.read());
        history.push(show(&command));
        let mut comparison = if in_multi && name != "EXEC" { Comparison::Exact } else { comparison };
        if name == "EXEC" && queue.iter().any(|(_, queued)| *queued != Comparison::Exact) {
            comparison = Comparison::Kind;
        }
        match name.as_str() {
            "MULTI" => in_multi = true,
            "EXEC" | "DISCARD" => {
                in_multi = false;
                queue.clear();
            }
            _ if in_multi => queue.push((command.clone(), comparison)),
            _ => {}
        }
        if in_multi
            && comparison_of_queued(&name)
            && let Some(last) = queue.last_mut()
        {
            last.1 = Comparison::Kind;
        }
        let equal = same(&our_reply, &their_reply, comparison);
        if !equal && !is_reviewed(&command) {
            let report = format!(
                "seed {seed}, command {index}: {}\nours   {:?}\ntheirs {:?}",
                show(&command),
                String::from_utf8_lossy(&our_reply),
                String::from_utf8_lossy(&their_reply),
            );
            let before = history[history.len().saturating_sub(25)..].join("\n");
            assert!(std::env::var("DIFF_ALL").is_ok(), "{report}\nbefore:\n{before}");
            eprintln!("{report}");
        }
        if index % EPOCH == EPOCH - 1 {
            if in_multi {
                for client in [&mut ours, &mut theirs] {
                    client.run("DISCARD");
                }
                in_multi = false;
                queue.clear();
            }
            same_keys(&mut ours, &mut theirs, seed, index);
            ours.run(empty);
            theirs.run("FLUSHALL");
        }
    }
}

/// Differences between 7.0 and 7.2, which Anteroom follows.
fn is_reviewed(command: &[Vec<u8>]) -> bool {
    // 7.2 refuses a rank that cannot be negated.
    command[0] == b"LPOS" && command.iter().any(|word| word == b"-9223372036854775808")
}

/// Commands whose replies inside a transaction have no fixed order.
fn comparison_of_queued(name: &str) -> bool {
    [
        "HKEYS",
        "HVALS",
        "HGETALL",
        "SMEMBERS",
        "SINTER",
        "SUNION",
        "SDIFF",
        "KEYS",
        "HRANDFIELD",
        "SRANDMEMBER",
        "ZRANDMEMBER",
        "SORT",
        "OBJECT",
        "BLPOP",
    ]
    .contains(&name)
}

/// Compares the contents of every key.
fn same_keys(ours: &mut Client, theirs: &mut Client, seed: u64, index: usize) {
    for number in 0..12 {
        let key = format!("k{number}");
        let kind = ours.run(&format!("TYPE {key}"));
        assert_eq!(kind, theirs.run(&format!("TYPE {key}")), "seed {seed}, after {index}: type of {key}");
        let (dump, comparison) = match kind.trim_end() {
            "+string" => (format!("GET {key}"), Comparison::Exact),
            "+list" => (format!("LRANGE {key} 0 -1"), Comparison::Exact),
            "+hash" => (format!("HGETALL {key}"), Comparison::UnorderedPairs),
            "+set" => (format!("SMEMBERS {key}"), Comparison::Unordered),
            "+zset" => (format!("ZRANGE {key} 0 -1 WITHSCORES"), Comparison::Exact),
            _ => continue,
        };
        // A HyperLogLog's bytes may differ in how runs are split; its count, compared elsewhere, may not.
        let (our_dump, their_dump) = (ours.run(&dump), theirs.run(&dump));
        if our_dump.contains("HYLL") && their_dump.contains("HYLL") {
            continue;
        }
        assert!(
            same(our_dump.as_bytes(), their_dump.as_bytes(), comparison),
            "seed {seed}, after {index}: {key}\nours   {our_dump:?}\ntheirs {their_dump:?}"
        );
    }
}

fn show(command: &[Vec<u8>]) -> String {
    command.iter().map(|word| format!("{:?}", String::from_utf8_lossy(word))).collect::<Vec<_>>().join(" ")
}

/// Whether two replies say the same.
pub fn same(ours: &[u8], theirs: &[u8], comparison: Comparison) -> bool {
    if ours == theirs {
        return true;
    }
    let (ours, theirs) = (lines(ours), lines(theirs));
    match comparison {
        Comparison::Kind => (ours[0].starts_with('-')) == (theirs[0].starts_with('-')),
        Comparison::Exact => {
            ours.len() == theirs.len()
                && ours
                    .iter()
                    .zip(&theirs)
                    .all(|(a, b)| a == b || same_double(a, b) || is_length(a) && is_length(b))
        }
        Comparison::Unordered => sorted(&ours, 1) == sorted(&theirs, 1),
        Comparison::UnorderedPairs => sorted(&ours, 2) == sorted(&theirs, 2),
    }
}

/// The lengths of two texts of one double differ.
fn is_length(line: &str) -> bool {
    line.strip_prefix('$')
        .is_some_and(|number| number.parse::<u32>().is_ok_and(|length| length > 15 || length < 30))
}

/// Redis 7.0 prints 17 digits, 7.2 and Anteroom the shortest form.
fn same_double(ours: &str, theirs: &str) -> bool {
    let parse = |text: &str| text.trim_start_matches(',').parse::<f64>().ok();
    matches!((parse(ours), parse(theirs)), (Some(a), Some(b)) if a == b)
}

fn lines(reply: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(reply).split("\r\n").map(str::to_owned).collect()
}

/// The header, and the elements (each a length and a text) in groups of `group`.
fn sorted(lines: &[String], group: usize) -> (String, BTreeSet<Vec<String>>) {
    let elements = lines[1..].chunks(2 * group).map(<[String]>::to_vec).collect();
    (lines[0].clone(), elements)
}
