//! Rate limits over the wire: exact on many threads, keys that are ordinary values, policies of the file.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::harness::{Client, PATIENCE, Server, encode};

/// Long enough that nothing comes back while a test runs.
pub const LONG: &str = "31536000000";

pub fn words(command: &str) -> Vec<Vec<u8>> {
    command.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

/// The integers of a flat reply.
pub fn fields(reply: &str) -> Vec<i64> {
    assert!(reply.starts_with('*'), "{reply:?}");
    let lines = reply.split("\r\n").skip(1);
    lines.filter_map(|line| line.strip_prefix(':')).map(|number| number.parse().unwrap()).collect()
}

pub fn ask(client: &mut Client, command: &str) -> Vec<i64> {
    fields(&client.run(command))
}

/// How many of these calls are admitted, by 16 threads over all hosts, each calling so often.
pub fn admitted(hosts: &[Server], command: &str, calls: usize) -> usize {
    let total = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for thread in 0..16 {
            let total = &total;
            scope.spawn(move || {
                let mut client = hosts[thread % hosts.len()].client();
                let request = encode(&words(command));
                for batch in 0..calls.div_ceil(50) {
                    let count = 50.min(calls - batch * 50);
                    client.send_raw(&request.repeat(count));
                    for _ in 0..count {
                        let reply = fields(&String::from_utf8(client.read()).unwrap());
                        total.fetch_add(usize::from(reply[0] == 0), Ordering::Relaxed);
                        assert_eq!(reply[0] == 0, reply[3] == -1, "{reply:?}");
                    }
                }
            });
        }
    });
    total.into_inner()
}

/// Over all hosts exactly the limit is admitted, whichever it is, by each algorithm and command; `keeper` has the keys.
pub fn admit_exactly_the_limit(hosts: &[Server], keeper: &mut Client) {
    let mut client = hosts[0].client();
    for limit in [1, 500, 3333] {
        let calls = limit / 16 + 60;
        for algorithm in ["log", "counter", "gcra"] {
            let command = format!("RATELIMIT.TAKE {algorithm}:{limit} {limit} {LONG} ALGORITHM {algorithm}");
            assert_eq!(admitted(hosts, &command, calls), limit, "{command}");
            assert_eq!(ask(&mut client, &command)[..3], [1, limit as i64, 0]);
        }
        assert_eq!(keeper.run(&format!("ZCARD log:{limit}")), format!(":{limit}\r\n"));
        // The narrower of two limits decides, and the wider is not charged for what that refused.
        let command = format!("RATELIMIT.MULTI 2 wide:{limit} 9999 {LONG} narrow:{limit} {limit} {LONG}");
        assert_eq!(admitted(hosts, &command, calls), limit, "{command}");
        for key in ["wide", "narrow"] {
            assert_eq!(keeper.run(&format!("ZCARD {key}:{limit}")), format!(":{limit}\r\n"));
        }
        let command = format!("CL.THROTTLE throttle:{limit} {} 1 3600", limit - 1);
        assert_eq!(admitted(hosts, &command, calls), limit, "{command}");
    }
}

#[test]
fn sixteen_threads_are_admitted_exactly_the_limit() {
    let server = Server::anteroom(&["--threads", "4"]);
    let mut keeper = server.client();
    admit_exactly_the_limit(&[server], &mut keeper);
}

#[test]
fn identifiers_of_retried_calls_count_once() {
    let server = Server::anteroom(&["--threads", "4"]);
    let mut client = server.client();
    for algorithm in ["log", "counter", "gcra"] {
        let take = |id: &str| format!("RATELIMIT.TAKE {algorithm} 3 {LONG} ALGORITHM {algorithm} ID {id}");
        assert_eq!(ask(&mut client, &take("a"))[..4], [0, 3, 2, -1]);
        assert_eq!(ask(&mut client, &take("a"))[..4], [0, 3, 2, -1]);
        assert_eq!(ask(&mut client, &take("b"))[2], 1);
        assert_eq!(
            ask(&mut client, &format!("RATELIMIT.TAKE {algorithm} 3 {LONG} ALGORITHM {algorithm}"))[2],
            0
        );
        // Nothing is left, and still the retry of what was admitted is.
        assert_eq!(ask(&mut client, &take("c"))[0], 1);
        assert_eq!(ask(&mut client, &take("a"))[..4], [0, 3, 0, -1]);
        // The identifiers go with the key.
        client.run(&format!("RENAME {algorithm} {algorithm}:moved"));
        assert_eq!(ask(&mut client, &take("a"))[2], 2);
        // Whoever retries on many threads at once is charged once.
        let command = format!("RATELIMIT.TAKE {algorithm}:once 500 {LONG} ALGORITHM {algorithm} ID x COST 2");
        assert_eq!(admitted(std::slice::from_ref(&server), &command, 40), 640);
        let peek = format!("RATELIMIT.PEEK {algorithm}:once 500 {LONG} ALGORITHM {algorithm}");
        assert_eq!(ask(&mut client, &peek)[..3], [0, 500, 498]);
    }
}

#[test]
fn waiting_as_long_as_told_is_always_enough() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for algorithm in ["log", "counter", "gcra"] {
        for cost in [1, 2, 3] {
            let take = format!("RATELIMIT.TAKE {algorithm}:{cost} 3 40 ALGORITHM {algorithm} COST {cost}");
            let mut waits = 0;
            for _ in 0..40 {
                let reply = ask(&mut client, &take);
                if reply[0] == 1 {
                    assert!(reply[3] > 0 && reply[3] <= 81, "{reply:?}");
                    std::thread::sleep(Duration::from_millis(reply[3] as u64));
                    assert_eq!(ask(&mut client, &take)[0], 0, "{take}");
                    waits += 1;
                }
            }
            assert!(waits > 0, "{take}");
        }
    }
}

#[test]
fn a_refused_call_changes_nothing() {
    let server = Server::anteroom(&[]);
    let (mut client, mut other) = (server.client(), server.client());
    for algorithm in ["log", "counter", "gcra"] {
        let take = format!("RATELIMIT.TAKE {algorithm} 2 {LONG} ALGORITHM {algorithm}");
        ask(&mut client, &format!("{take} COST 2"));
        client.run(&format!("PEXPIREAT {algorithm} 4000000000000"));
        let before = client.run(&format!("DUMP {algorithm}"));
        client.run(&format!("WATCH {algorithm}"));
        assert_eq!(ask(&mut other, &take)[0], 1);
        client.run("MULTI");
        client.run("PING");
        assert_eq!(client.run("EXEC"), "*1\r\n+PONG\r\n", "{algorithm}");
        assert_eq!(client.run(&format!("PEXPIRETIME {algorithm}")), ":4000000000000\r\n");
        assert_eq!(client.run(&format!("DUMP {algorithm}")), before);
        // An admitted one does all of it, once there is room.
        assert_eq!(client.run(&format!("RATELIMIT.REFUND {algorithm} 1")), ":1\r\n");
        client.run(&format!("WATCH {algorithm}"));
        assert_eq!(ask(&mut other, &take)[..3], [0, 2, 0]);
        client.run("MULTI");
        client.run("PING");
        assert_eq!(client.run("EXEC"), "*-1\r\n", "{algorithm}");
        // More than there ever is creates no key.
        assert_eq!(
            ask(&mut client, &format!("RATELIMIT.TAKE none 2 1000 ALGORITHM {algorithm} COST 3"))[3],
            -1
        );
        assert_eq!(client.run("EXISTS none"), ":0\r\n");
    }
}

#[test]
fn a_log_is_a_sorted_set_to_every_command() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let permits = 40;
    for _ in 0..permits / 4 {
        ask(&mut client, &format!("RATELIMIT.TAKE limiter 1000 {LONG} COST 4"));
    }
    assert_eq!(client.run("TYPE limiter"), "+zset\r\n");
    let all = client.run("ZRANGE limiter 0 -1 WITHSCORES");
    let lines: Vec<&str> = all.split("\r\n").collect();
    let values: Vec<&str> = lines[1..].iter().skip(1).step_by(2).copied().collect();
    assert_eq!(values.len(), permits * 2);
    for pair in values.chunks_exact(2) {
        client.run(&format!("ZADD plain {} {}", pair[1], pair[0]));
    }
    let (member, score) = (values[20].to_owned(), values[21].to_owned());
    let (last, last_score) = (values[78].to_owned(), values[79].to_owned());
    let reads = [
        "ZCARD @".to_owned(),
        "ZRANGE @ 0 -1 WITHSCORES".to_owned(),
        "ZRANGE @ 5 9 REV WITHSCORES".to_owned(),
        format!("ZRANGE @ ({score} +inf BYSCORE LIMIT 1 7"),
        format!("ZRANGE @ +inf {score} BYSCORE REV"),
        format!("ZRANGEBYLEX @ [{member} +"),
        format!("ZSCORE @ {member}"),
        format!("ZMSCORE @ {member} nothing 1 +{member} 0{member}"),
        format!("ZRANK @ {member} WITHSCORE"),
        format!("ZREVRANK @ {member} WITHSCORE"),
        format!("ZCOUNT @ {score} {last_score}"),
        format!("ZLEXCOUNT @ - ({member}"),
        "ZSCAN @ 0 COUNT 1000".to_owned(),
        "ZINTERCARD 2 @ plain".to_owned(),
        "ZDIFF 2 @ plain".to_owned(),
        "ZUNION 2 @ plain WITHSCORES".to_owned(),
        "SORT @ LIMIT 3 4".to_owned(),
        "ZRANDMEMBER nothing".to_owned(),
    ];
    let writes = [
        "ZPOPMIN @ 3".to_owned(),
        "ZPOPMAX @ 3".to_owned(),
        format!("ZREM @ {member} {last} nothing"),
        format!("ZREMRANGEBYSCORE @ -inf ({score}"),
        format!("ZREMRANGEBYSCORE @ {score} {score}"),
        format!("ZREMRANGEBYSCORE @ ({score} +inf"),
        "ZREMRANGEBYRANK @ 3 7".to_owned(),
        "ZREMRANGEBYRANK @ 0 -1".to_owned(),
        format!("ZADD @ {score} {member}"),
        format!("ZADD @ 5 {member} 7 foreign"),
        format!("ZADD @ GT CH 5 {member} 1e18 {last}"),
        format!("ZINCRBY @ 2.5 {member}"),
        format!("ZRANGESTORE @ plain (0 {score} BYSCORE"),
    ];
    for read in &reads {
        let run = |client: &mut Client, key: &str| client.run(&read.replace('@', key));
        assert_eq!(run(&mut client, "limiter"), run(&mut client, "plain"), "{read}");
    }
    for write in &writes {
        client.run("COPY limiter log REPLACE");
        client.run("COPY plain ordinary REPLACE");
        client.run("PERSIST log");
        let run = |client: &mut Client, command: &str, key: &str| client.run(&command.replacen('@', key, 1));
        assert_eq!(run(&mut client, write, "log"), run(&mut client, write, "ordinary"), "{write}");
        for read in &reads {
            let (log, ordinary) = (run(&mut client, read, "log"), run(&mut client, read, "ordinary"));
            // The order of a scan is that of a dictionary.
            let is_same =
                if read.starts_with("ZSCAN") { log.len() == ordinary.len() } else { log == ordinary };
            assert!(is_same, "{read} after {write}: {log} {ordinary}");
        }
        // The limiter goes on with whatever is left.
        let card = |reply: String| reply.trim_end()[1..].parse::<i64>().unwrap();
        let left = card(client.run("ZCARD log"));
        let old = card(client.run(&format!("ZCOUNT log -inf {}", 1_000_000_000_000_000i64)));
        let reply = ask(&mut client, &format!("RATELIMIT.TAKE log 1000 {LONG}"));
        if !write.contains("1e18") {
            assert_eq!(reply[..3], [0, 1000, 999 - (left - old)], "{write}");
        }
    }
    assert_eq!(client.run("OBJECT ENCODING limiter"), "$8\r\nlistpack\r\n");
    let ttl: i64 = client.run("PTTL limiter").trim_end()[1..].parse().unwrap();
    assert!((1..=LONG.parse().unwrap()).contains(&ttl));
    // As a payload, too.
    client.send(&words("DUMP limiter"));
    let dumped = client.read();
    let start = dumped.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    let payload = dumped[start..dumped.len() - 2].to_vec();
    client.send(&[b"RESTORE".to_vec(), b"restored".to_vec(), b"0".to_vec(), payload]);
    assert_eq!(client.read(), b"+OK\r\n");
    assert_eq!(client.run("ZRANGE restored 0 -1 WITHSCORES"), all);
    assert_eq!(ask(&mut client, &format!("RATELIMIT.TAKE restored 41 {LONG}"))[..3], [0, 41, 0]);
    let memory: i64 = client.run("MEMORY USAGE limiter").trim_end()[1..].parse().unwrap();
    assert!(memory < 600, "{memory}");
    assert_eq!(client.run("DEL limiter"), ":1\r\n");
    assert_eq!(ask(&mut client, "RATELIMIT.PEEK limiter 10 1000"), [0, 10, 10, -1, 0]);
}

#[test]
fn states_are_ordinary_values() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for algorithm in ["counter", "gcra"] {
        let take = format!("RATELIMIT.TAKE k 10 {LONG} ALGORITHM {algorithm}");
        ask(&mut client, &format!("{take} COST 6"));
        assert_eq!(client.run("TYPE k"), "+string\r\n");
        assert_eq!(client.run("STRLEN k"), ":34\r\n");
        let ttl: i64 = client.run("TTL k").trim_end()[1..].parse().unwrap();
        assert!(ttl > 0);
        client.run("COPY k copy");
        assert_eq!(ask(&mut client, &take)[2], 3);
        assert_eq!(ask(&mut client, &take.replace(" k ", " copy "))[2], 3);
        // Another algorithm's state is none of its own.
        for other in ["log", "counter", "gcra"] {
            let reply = client.run(&format!("RATELIMIT.TAKE k 10 {LONG} ALGORITHM {other}"));
            assert_eq!(reply.starts_with("-WRONGTYPE"), other != algorithm, "{reply}");
        }
        assert_eq!(client.run("RATELIMIT.REFUND k 4"), ":4\r\n");
        assert_eq!(ask(&mut client, &format!("RATELIMIT.PEEK k 10 {LONG} ALGORITHM {algorithm}"))[2], 6);
        assert_eq!(client.run("RATELIMIT.RESET k"), ":1\r\n");
        assert_eq!(client.run("RATELIMIT.RESET k"), ":0\r\n");
        client.run("DEL copy");
    }
    ask(&mut client, &format!("RATELIMIT.TAKE log 10 {LONG} COST 6"));
    assert_eq!(client.run("RATELIMIT.REFUND log 2"), ":2\r\n");
    assert_eq!(ask(&mut client, &format!("RATELIMIT.PEEK log 10 {LONG}"))[2], 6);
    assert_eq!(client.run("RATELIMIT.REFUND log 20"), ":4\r\n");
    assert_eq!(client.run("EXISTS log"), ":0\r\n");
    assert_eq!(client.run("RATELIMIT.REFUND log 20"), ":0\r\n");
    client.run("SET text x");
    client.run("SET number 12");
    client.run("LPUSH list x");
    for key in ["text", "number", "list"] {
        for command in [
            "TAKE @ 1 1",
            "TAKE @ 1 1 ALGORITHM gcra",
            "TAKE @ 1 1 ALGORITHM counter",
            "PEEK @ 1 1",
            "PEEK @ 1 1 ALGORITHM gcra",
            "REFUND @ 1",
            "RESET @",
            "MULTI 2 other 5 1000 @ 5 1000",
        ] {
            let reply = client.run(&format!("RATELIMIT.{}", command.replace('@', key)));
            assert!(reply.starts_with("-WRONGTYPE"), "{command} {key}: {reply}");
        }
    }
    assert_eq!(client.run("EXISTS other text number list"), ":3\r\n");
}

#[test]
fn wrong_arguments_are_told() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for (command, expected) in [
        ("RATELIMIT.TAKE k 1", "-ERR wrong number of arguments for 'ratelimit.take' command\r\n"),
        ("RATELIMIT.TAKE k x 1000", "-ERR value is not an integer or out of range\r\n"),
        ("RATELIMIT.TAKE k 1 1.5", "-ERR value is not an integer or out of range\r\n"),
        ("RATELIMIT.TAKE k 0 1000", "-ERR limit must be between 1 and 100000000\r\n"),
        ("RATELIMIT.TAKE k -1 1000", "-ERR limit must be between 1 and 100000000\r\n"),
        ("RATELIMIT.TAKE k 1 0", "-ERR window must be between 1 ms and ten years\r\n"),
        ("RATELIMIT.TAKE k 1 9223372036854775807", "-ERR window must be between 1 ms and ten years\r\n"),
        ("RATELIMIT.TAKE k 1 1000 COST", "-ERR syntax error\r\n"),
        ("RATELIMIT.TAKE k 1 1000 COST 0", "-ERR COST must be positive\r\n"),
        ("RATELIMIT.TAKE k 1 1000 ALGORITHM magic", "-ERR ALGORITHM must be LOG, COUNTER or GCRA\r\n"),
        ("RATELIMIT.TAKE k 1 1000 BURST 2", "-ERR burst is for the algorithm gcra only\r\n"),
        ("RATELIMIT.TAKE k 1 1000 ALGORITHM gcra BURST -1", "-ERR BURST must not be negative\r\n"),
        ("RATELIMIT.TAKE k 1000001 1 ALGORITHM gcra", "-ERR limit is too high for the window\r\n"),
        ("RATELIMIT.TAKE k 1 1000 nonsense", "-ERR syntax error\r\n"),
        ("RATELIMIT.PEEK k 1 1000 ID x", "-ERR syntax error\r\n"),
        ("RATELIMIT.MULTI 0 k 1 1000", "-ERR numkeys must be between 1 and 128\r\n"),
        ("RATELIMIT.MULTI 2 k 1 1000", "-ERR syntax error\r\n"),
        ("RATELIMIT.MULTI 9223372036854775807 k 1 1000", "-ERR numkeys must be between 1 and 128\r\n"),
        ("RATELIMIT.MULTI 1 k 1 1000 ID x", "-ERR syntax error\r\n"),
        ("RATELIMIT.CHECK nothing subject", "-ERR no such rate limit policy 'nothing'\r\n"),
        ("RATELIMIT.REFUND k -1", "-ERR value is out of range, must be positive\r\n"),
        ("RATELIMIT.TOP x", "-ERR value is out of range, must be positive\r\n"),
        ("CL.THROTTLE k -1 1 1", "-ERR value is out of range, must be positive\r\n"),
        ("CL.THROTTLE k 1 0 1", "-ERR limit must be between 1 and 1000000000000\r\n"),
        ("CL.THROTTLE k 1 1 1 1 1", "-ERR wrong number of arguments for 'cl.throttle' command\r\n"),
        ("COMMAND GETKEYS RATELIMIT.CHECK api a:b", "*1\r\n$18\r\nrate_limit:api:a:b\r\n"),
        ("COMMAND GETKEYS RATELIMIT.MULTI 2 a 1 1 b 1 1", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"),
    ] {
        assert_eq!(client.run(command), expected, "{command}");
    }
    let long = format!("RATELIMIT.TAKE k 1 1000 ID {}", "x".repeat(1025));
    assert_eq!(client.run(&long), "-ERR ID is longer than 1024 bytes\r\n");
    assert_eq!(client.run("DBSIZE"), ":0\r\n");
}

#[test]
fn throttling_speaks_as_redis_cell() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    // 15 at once beside the one that is due, 30 in 60 seconds.
    assert_eq!(client.run("CL.THROTTLE user 15 30 60"), "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n");
    assert_eq!(client.run("CL.THROTTLE user 15 30 60 0"), "*5\r\n:0\r\n:16\r\n:15\r\n:-1\r\n:2\r\n");
    let reply = ask(&mut client, "CL.THROTTLE user 15 30 60 15");
    assert_eq!(reply[..4], [0, 16, 0, -1]);
    assert!((30..=32).contains(&reply[4]), "{reply:?}");
    let reply = ask(&mut client, "CL.THROTTLE user 15 30 60");
    assert_eq!(reply[..3], [1, 16, 0]);
    assert!((1..=2).contains(&reply[3]), "{reply:?}");
    assert_eq!(ask(&mut client, "CL.THROTTLE other 15 30 60 17")[..4], [1, 16, 16, -1]);
    assert_eq!(client.run("EXISTS other"), ":0\r\n");
    // The same state, by the other name.
    let reply = ask(&mut client, "RATELIMIT.PEEK user 30 60000 ALGORITHM GCRA BURST 15");
    assert_eq!(reply[..3], [1, 16, 0]);
}

#[test]
fn several_limits_are_taken_all_or_none() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let multi = format!("RATELIMIT.MULTI 2 day 100 {LONG} second 2 {LONG}");
    assert_eq!(ask(&mut client, &multi)[..4], [0, 2, 1, -1]);
    let reply = ask(&mut client, &format!("{multi} COST 1"));
    assert_eq!((&reply[..4], reply[5]), (&[0, 2, 0, -1][..], -1));
    let reply = ask(&mut client, &multi);
    assert_eq!((&reply[..3], reply[5]), (&[1, 2, 0][..], 1));
    assert_eq!(client.run("ZCARD day"), ":2\r\n");
    // One key with two limits keeps one log.
    let multi = format!("RATELIMIT.MULTI 2 user 2 20 user 5 {LONG}");
    for _ in 0..2 {
        assert_eq!(ask(&mut client, &multi)[0], 0);
    }
    let reply = ask(&mut client, &multi);
    assert_eq!((reply[0], reply[1], reply[5]), (1, 2, 0));
    std::thread::sleep(Duration::from_millis(reply[3] as u64));
    assert_eq!(ask(&mut client, &multi)[0], 0);
    assert_eq!(client.run("ZCARD user"), ":3\r\n");
    client.run("MULTI");
    client.run(&multi);
    client.run(&format!("RATELIMIT.TAKE other 2 {LONG}"));
    let reply = client.run("EXEC");
    assert!(reply.starts_with("*2\r\n*6\r\n:0\r\n"), "{reply}");
}

/// What people build by hand works as on Redis, on keys of its own.
#[test]
fn the_pattern_in_a_transaction_works_as_on_redis() {
    let (ours, theirs) = (Server::anteroom(&[]), Server::redis());
    let (mut ours, mut theirs) = (ours.client(), theirs.client());
    for call in 0..30 {
        let now = 1_700_000_000_000u64 + call * 170;
        for command in [
            "MULTI".to_owned(),
            format!("ZREMRANGEBYSCORE limit 0 {}", now - 1000),
            "ZCARD limit".to_owned(),
            format!("ZADD limit {now} {now}-{}", call % 3),
            "EXPIRE limit 1000".to_owned(),
            "EXEC".to_owned(),
        ] {
            assert_eq!(ours.run(&command), theirs.run(&command), "{command}");
        }
    }
}

struct ConfigFile(PathBuf);

impl ConfigFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anteroom-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn server(&self) -> Server {
        Server::anteroom(&["--config", self.0.to_str().unwrap()])
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        // Only a file that is gone already cannot be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

const POLICIES: &str = "[ratelimit.policies.api]\nlimit = 3\nwindow = \"1d\"\n\
    [ratelimit.policies.proxy]\nlimit = 1\nwindow = \"1h\"\nalgorithm = \"gcra\"\nburst = 2\n\
    [ratelimit.policies.both]\nwindows = [{ limit = 2, window = \"40ms\" }, { limit = 5, window = \"1d\" }]\n\
    [ratelimit.policies.counted]\nalgorithm = \"counter\"\n\
    windows = [{ limit = 2, window = \"1h\" }, { limit = 5, window = \"1d\" }]\n";

#[test]
fn policies_decide_and_count() {
    let file = ConfigFile::new("policies", POLICIES);
    let server = file.server();
    let mut client = server.client();
    assert_eq!(admitted(std::slice::from_ref(&server), "RATELIMIT.CHECK api alice", 10), 3);
    assert_eq!(client.run("ZCARD rate_limit:api:alice"), ":3\r\n");
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK api bob COST 2 ID x")[..4], [0, 3, 1, -1]);
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK api bob COST 2 ID x")[..4], [0, 3, 1, -1]);
    assert_eq!(admitted(std::slice::from_ref(&server), "RATELIMIT.CHECK proxy alice", 10), 3);
    assert_eq!(client.run("TYPE rate_limit:proxy:alice"), "+string\r\n");
    // Two windows, one key: the short one lets two through at a time, the long one five in all.
    let mut admitted_in_all = 0;
    loop {
        let reply = ask(&mut client, "RATELIMIT.CHECK both carol");
        admitted_in_all += i64::from(reply[0] == 0);
        if reply[0] == 1 && reply[1] == 5 {
            break;
        }
        if reply[0] == 1 {
            assert_eq!(reply[1], 2);
            std::thread::sleep(Duration::from_millis(reply[3] as u64));
        }
    }
    assert_eq!(admitted_in_all, 5);
    assert_eq!(client.run("ZCARD rate_limit:both:carol"), ":5\r\n");
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK counted dave COST 2")[..3], [0, 2, 0]);
    assert_eq!(client.run("STRLEN rate_limit:counted:dave"), ":58\r\n");
    client.run("MULTI");
    client.run("RATELIMIT.CHECK api erin");
    client.run("SET beside x");
    assert!(client.run("EXEC").starts_with("*2\r\n*5\r\n:0\r\n:3\r\n:2\r\n:-1\r\n"));
    let info = client.run("INFO ratelimit");
    for line in
        ["ratelimit_policies:4", "policy_api:admitted=6,refused=157", "policy_proxy:admitted=3,refused=157"]
    {
        assert!(info.contains(&format!("{line}\r\n")), "{line}: {info}");
    }
    assert_eq!(
        client.run("RATELIMIT.TOP 2"),
        "*2\r\n*2\r\n$20\r\nrate_limit:api:alice\r\n:157\r\n*2\r\n$22\r\nrate_limit:proxy:alice\r\n:157\r\n"
    );
    client.run("CONFIG RESETSTAT");
    assert_eq!(client.run("RATELIMIT.TOP"), "*0\r\n");
    assert!(client.run("INFO ratelimit").contains("policy_api:admitted=0,refused=0\r\n"));
}

#[test]
fn policies_are_read_again_on_a_hangup() {
    let file = ConfigFile::new("reload", POLICIES);
    let server = file.server();
    let mut client = server.client();
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK api alice")[..3], [0, 3, 2]);
    let hang_up = |text: &str| {
        std::fs::write(&file.0, text).unwrap();
        // SAFETY: a signal to a child that is not waited for yet, so its number is still its own.
        unsafe { libc::kill(server.pid() as i32, libc::SIGHUP) };
    };
    let until = |client: &mut Client, limit: i64| {
        let step = Duration::from_millis(10);
        for _ in 0..PATIENCE.as_millis() / step.as_millis() {
            if ask(client, "RATELIMIT.CHECK api nobody COST 1000")[1] == limit {
                return;
            }
            std::thread::sleep(step);
        }
        panic!("the limit does not become {limit}");
    };
    hang_up("[ratelimit.policies.api]\nlimit = 7\nwindow = \"1d\"\n");
    until(&mut client, 7);
    // What was taken counts on; policies that are gone are unknown.
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK api alice")[..3], [0, 7, 5]);
    assert_eq!(client.run("RATELIMIT.CHECK proxy alice"), "-ERR no such rate limit policy 'proxy'\r\n");
    // A fault anywhere keeps what was there, and the next good file is taken.
    hang_up("[ratelimit.policies.api]\nlimit = 9\nwindow = \"1d\"\n[server]\nprot = 1\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK api alice")[..3], [0, 7, 4]);
    hang_up("[ratelimit.policies.api]\nlimit = 8\nwindow = \"1d\"\n");
    until(&mut client, 8);
    assert_eq!(ask(&mut client, "RATELIMIT.CHECK api alice")[..3], [0, 8, 4]);
}
