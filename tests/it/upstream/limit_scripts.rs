//! The scripts that decide upstream, beside the code that decides here, at times that the test chooses: to the microsecond
//! the same verdicts, and the same states.

use anteroom::config::{Algorithm, Rule};
use anteroom::ratelimit::leases::{Leftover, Terms};
use anteroom::ratelimit::remote::{Field, GIVE_BACK, Question, REFUND};
use anteroom::ratelimit::state::{self, State};
use anteroom::ratelimit::{Call, log};
use anteroom::types::sorted_set::{Limits, SortedSet};

use crate::harness::{Client, Server};

const LIMITS: Limits = Limits { entries: 128, value: 64 };
/// Far enough ahead that nothing expires in Redis while the test runs.
const START: u64 = 2_000_000_000_000_000;

enum Reply {
    Integer(i64),
    Bytes(Vec<u8>),
}

/// Runs a script; the parts of its reply.
fn run(redis: &mut Client, script: &str, key: &str, arguments: Vec<Vec<u8>>) -> Vec<Reply> {
    let mut words: Vec<Vec<u8>> = ["EVAL", script, "1", key].map(|word| word.as_bytes().to_vec()).to_vec();
    words.extend(arguments);
    redis.send(&words);
    let bytes = redis.read();
    assert_ne!(bytes[0], b'-', "{}", String::from_utf8_lossy(&bytes));
    let (mut rest, mut parts) = (&bytes[..], Vec::new());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let number: i64 = std::str::from_utf8(&rest[1..end - 1]).unwrap().parse().unwrap();
        let mark = rest[0];
        rest = &rest[end + 1..];
        match mark {
            b':' => parts.push(Reply::Integer(number)),
            b'$' if number >= 0 => {
                parts.push(Reply::Bytes(rest[..number as usize].to_vec()));
                rest = &rest[number as usize + 2..];
            }
            b'$' => parts.push(Reply::Bytes(Vec::new())),
            _ => {}
        }
    }
    parts
}

/// The bytes at a key.
fn stored(redis: &mut Client, key: &str) -> Vec<u8> {
    match run(redis, "return {redis.call('GET', KEYS[1]) or ''}", key, Vec::new()).remove(0) {
        Reply::Bytes(bytes) => bytes,
        Reply::Integer(_) => panic!("no text"),
    }
}

fn scores(redis: &mut Client, key: &str) -> Vec<u64> {
    let script = "return redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')";
    let parts = run(redis, script, key, Vec::new());
    let scores = parts.chunks(2).map(|pair| match &pair[1] {
        Reply::Bytes(bytes) => std::str::from_utf8(bytes).unwrap().parse::<f64>().unwrap() as u64,
        Reply::Integer(_) => panic!("no text"),
    });
    scores.collect()
}

/// Rules of every size, of which those of one key change now and then.
fn rules(random: &mut fastrand::Rng, algorithm: Algorithm, scale: usize) -> Vec<Rule> {
    let count = if random.usize(0..3) == 0 { 2 } else { 1 };
    let mut rules: Vec<Rule> = Vec::new();
    while rules.len() < count {
        let (limit, window) = match scale {
            0 => (random.u64(1..9), random.u64(1..6)),
            1 => (random.u64(1..500), random.u64(1000..100_000)),
            _ => (random.u64(1..1_000_000_000_000), random.u64(1..316_000_000_000)),
        };
        let limit = if algorithm == Algorithm::Log { limit.min(5000) } else { limit };
        let burst = (algorithm == Algorithm::Gcra && random.bool()).then(|| random.u64(0..limit * 2));
        if let Ok(rule) = Rule::new(algorithm, limit, window, burst)
            && rules.iter().all(|other| other.window_us != rule.window_us)
        {
            rules.push(rule);
        }
    }
    rules
}

#[test]
fn scripts_decide_as_we_do() {
    let server = Server::redis();
    let mut redis = server.client();
    let mut random = fastrand::Rng::with_seed(11);
    let (mut admitted, mut refused, mut repeated, mut given_back) = (0, 0, 0, 0);
    for round in 0..240 {
        let algorithm = [Algorithm::Log, Algorithm::Counter, Algorithm::Gcra][round % 3];
        let scale = round / 3 % 3;
        let key = format!("k{round}");
        let (mut now, mut permits, mut bytes) = (START, SortedSet::default(), Vec::new());
        let mut current = rules(&mut random, algorithm, scale);
        for _ in 0..40 {
            if random.usize(0..25) == 0 {
                current = rules(&mut random, algorithm, scale);
            }
            let window = current.iter().map(|rule| rule.window_us).max().unwrap();
            let capacity = current.iter().map(|rule| rule.capacity).min().unwrap();
            now = match random.usize(0..12) {
                0 => now.saturating_sub(random.u64(0..window)).max(START - 1_000_000_000),
                1 => now + random.u64(0..window * 2),
                2..6 => now + random.u64(0..window / 8 + 2),
                _ => now + random.u64(0..window / capacity.max(1) + 2),
            };
            now = now.min(9_000_000_000_000_000 - window * 2);
            if random.usize(0..8) == 0 {
                let count = random.u64(0..capacity + 2);
                let mut arguments = vec![now.to_string().into_bytes(), count.to_string().into_bytes()];
                let theirs = match run(&mut redis, REFUND, &key, std::mem::take(&mut arguments)).remove(0) {
                    Reply::Integer(number) => number as u64,
                    Reply::Bytes(_) => panic!("no number"),
                };
                let ours = match algorithm {
                    Algorithm::Log => permits.drop_newest_permits(count),
                    _ => {
                        let refunded = State::parse(&bytes).map(|state| state.refund(now, count));
                        refunded.map_or(0, |(given, refunded)| {
                            if given > 0 {
                                bytes = refunded.to_vec();
                            }
                            given
                        })
                    }
                };
                assert_eq!(theirs, ours, "{round}: {algorithm:?} {current:?}");
                given_back += ours;
            }
            let cost = match random.usize(0..6) {
                0 => capacity + random.u64(0..2),
                1 => random.u64(1..capacity + 1),
                _ => random.u64(1..capacity / 10 + 2),
            };
            let id = (random.usize(0..3) == 0).then(|| vec![b'a' + random.u8(0..5)]);
            let takes = random.usize(0..6) > 0;
            let question = Question {
                algorithm,
                limits: current.iter().map(|rule| (0, *rule)).collect(),
                cost,
                id: id.as_deref().filter(|_| takes),
                takes,
                hold_us: 0,
            };
            let reply = run(&mut redis, question.script(), &key, question.arguments(Some(now)));
            let reply: Vec<Field<'_>> = reply
                .iter()
                .map(|part| match part {
                    Reply::Integer(number) => Field::Integer(*number),
                    Reply::Bytes(bytes) => Field::Bytes(bytes),
                })
                .collect();
            let theirs = question.answer(&reply).expect("an answer that makes sense");
            let call = Call { now, cost, id: question.id };
            let ours = if algorithm == Algorithm::Log {
                let look = log::decide(&permits, &current, &Call { cost: 0, ..call }).verdict;
                let then = log::decide(&permits, &current, &call);
                if takes {
                    log::take(&mut permits, &current, &call, &LIMITS, &mut |_| ());
                    repeated += usize::from(then.is_repeated);
                    then.verdict
                } else {
                    anteroom::ratelimit::Verdict {
                        limited: then.verdict.limited,
                        retry_after: then.verdict.retry_after,
                        ..look
                    }
                }
            } else {
                let state = State::parse(&bytes);
                let look =
                    state::decide(state.as_ref(), algorithm, &current, &Call { cost: 0, ..call }).verdict;
                let then = state::decide(state.as_ref(), algorithm, &current, &call);
                if takes {
                    let verdict = then.verdict;
                    if let Some(change) = then.change {
                        bytes = change.state.to_vec();
                    } else {
                        repeated += usize::from(!verdict.limited);
                    }
                    verdict
                } else {
                    anteroom::ratelimit::Verdict {
                        limited: then.verdict.limited,
                        retry_after: then.verdict.retry_after,
                        ..look
                    }
                }
            };
            assert_eq!(theirs.verdict, ours, "{round}: {algorithm:?} {current:?} {call:?}");
            assert_eq!(theirs.now, now);
            *(if ours.limited { &mut refused } else { &mut admitted }) += 1;
            if algorithm == Algorithm::Log {
                let ours: Vec<u64> = permits.iter(0, false).map(|(_, score)| score as u64).collect();
                assert_eq!(scores(&mut redis, &key), ours, "{round}");
            } else {
                assert_eq!(stored(&mut redis, &key), bytes, "{round}: {algorithm:?} {current:?}");
            }
        }
    }
    assert!(
        admitted > 2000 && refused > 500 && repeated > 100 && given_back > 1000,
        "{admitted} {refused} {repeated} {given_back}"
    );
}

/// A host's lease: what it took, until when it may use it.
struct Held {
    rest: Leftover,
    until: u64,
}

/// Whether permits used at these times, one each, keep to a rule.
fn keeps_to(algorithm: Algorithm, rule: &Rule, used: &[u64]) -> bool {
    match algorithm {
        Algorithm::Log => used.iter().all(|end| {
            let within = used.iter().filter(|at| **at <= *end && **at + rule.window_us > *end);
            within.count() as u64 <= rule.limit
        }),
        Algorithm::Counter => used.iter().all(|time| {
            let of = |index: u64| {
                used.iter().filter(|at| **at <= *time && **at / rule.window_us == index).count() as u128
            };
            let (index, elapsed, window) =
                (time / rule.window_us, u128::from(time % rule.window_us), u128::from(rule.window_us));
            of(index - 1) * (window - elapsed) + of(index) * window <= u128::from(rule.limit) * window
        }),
        Algorithm::Gcra => {
            let mut idle = 0;
            used.iter().all(|at| {
                idle = idle.max(at * 1000) + rule.interval_ns;
                idle - at * 1000 <= rule.interval_ns * rule.capacity
            })
        }
    }
}

#[test]
fn leased_permits_keep_to_the_limit_whenever_they_are_used() {
    let server = Server::redis();
    let mut redis = server.client();
    let mut random = fastrand::Rng::with_seed(5);
    let (mut uses, mut given_back) = (0, 0);
    for round in 0..90 {
        let algorithm = [Algorithm::Log, Algorithm::Counter, Algorithm::Gcra][round % 3];
        let burst = (algorithm == Algorithm::Gcra).then(|| random.u64(0..20));
        let rule = Rule::new(algorithm, random.u64(1..20), random.u64(10..400), burst).unwrap();
        let terms = Terms { algorithm, rules: [rule].into_iter().collect() };
        let (key, mut now, mut used) = (format!("l{round}"), START, Vec::new());
        let mut hosts: [Option<Held>; 3] = [None, None, None];
        for step in 0..150 {
            now += random.u64(0..rule.window_us / (rule.limit * 3) + 2);
            let host = &mut hosts[random.usize(0..3)];
            if let Some(held) = host.take_if(|held| now >= held.until) {
                // As late as it may come, too.
                let mut arguments = held.rest.arguments();
                arguments[0] = now.to_string().into_bytes();
                if let Reply::Integer(back) = run(&mut redis, GIVE_BACK, &key, arguments).remove(0) {
                    given_back += back;
                }
            }
            if let Some(held) = host
                && held.rest.used < held.rest.taken
            {
                held.rest.used += 1;
                used.push(now);
                continue;
            }
            let id = format!("lease:{step}").into_bytes();
            let want = random.u64(1..6);
            let question = Question {
                algorithm,
                limits: [(0, terms.shared(&rule))].into_iter().collect(),
                cost: want,
                id: terms.is_named().then_some(&id[..]),
                takes: true,
                hold_us: terms.hold_us(),
            };
            let reply = run(&mut redis, question.script(), &key, question.arguments(Some(now)));
            let reply: Vec<Field<'_>> = reply
                .iter()
                .map(|part| match part {
                    Reply::Integer(number) => Field::Integer(*number),
                    Reply::Bytes(bytes) => Field::Bytes(bytes),
                })
                .collect();
            if !question.answer(&reply).expect("an answer that makes sense").verdict.limited {
                let rest = Leftover { terms: terms.clone(), id, taken: want, used: 0, since_us: now };
                *host = Some(Held { rest, until: now + terms.usable_us(now) });
            }
        }
        assert!(keeps_to(algorithm, &rule, &used), "{round}: {algorithm:?} {rule:?} {used:?}");
        uses += used.len();
    }
    assert!(uses > 2000 && given_back > 300, "{uses} {given_back}");
}
