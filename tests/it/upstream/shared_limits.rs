//! Rate limits over all hosts: decided upstream, exactly, with the replies of limits of one host.

use super::{before, before_with_workers, until};
use crate::harness::Server;
use crate::http::get;
use crate::ratelimit::{LONG, admit_exactly_the_limit, admitted, ask, fields};

const POLICIES: &str = "[ratelimit.policies.api]\nlimit = 3\nwindow = \"1d\"\n\
    [ratelimit.policies.counted]\nalgorithm = \"counter\"\n\
    windows = [{ limit = 2, window = \"1d\" }, { limit = 5, window = \"2d\" }]\n\
    [ratelimit.policies.both]\nwindows = [{ limit = 2, window = \"1d\" }, { limit = 5, window = \"2d\" }]\n";

/// Two hosts before one Redis.
pub fn hosts(redis: &Server, section: &str) -> [Server; 2] {
    let section = format!("[ratelimit]\n{section}\n{POLICIES}");
    // The first has its connections to Redis on its only worker thread, the second on one of their own.
    [1, 2].map(|workers| before_with_workers(redis, &section, workers))
}

#[test]
fn two_hosts_admit_exactly_the_limit() {
    let redis = Server::redis();
    let hosts = hosts(&redis, "scope = \"upstream\"");
    let mut theirs = redis.client();
    admit_exactly_the_limit(&hosts, &mut theirs);
    // A real sorted set, for whoever asks Redis.
    assert_eq!(hosts[0].client().run("ZCARD log:500"), ":500\r\n");
    assert_eq!(theirs.run("DBSIZE"), ":18\r\n");
}

#[test]
fn identifiers_count_once_over_all_hosts() {
    let redis = Server::redis();
    let hosts = hosts(&redis, "");
    let (mut one, mut other) = (hosts[0].client(), hosts[1].client());
    for algorithm in ["log", "counter", "gcra"] {
        let take = |id: &str| format!("RATELIMIT.TAKE {algorithm} 3 {LONG} ALGORITHM {algorithm} ID {id}");
        assert_eq!(ask(&mut one, &take("a"))[..4], [0, 3, 2, -1]);
        assert_eq!(ask(&mut other, &take("a"))[..4], [0, 3, 2, -1]);
        assert_eq!(ask(&mut other, &take("b"))[..3], [0, 3, 1]);
        assert_eq!(ask(&mut one, &format!("{} COST 2", take("c")))[..3], [1, 3, 1]);
        assert_eq!(ask(&mut one, &take("c"))[..3], [0, 3, 0]);
        assert_eq!(ask(&mut other, &take("d"))[0], 1);
        assert_eq!(ask(&mut other, &take("c"))[..4], [0, 3, 0, -1]);
        let command = format!("RATELIMIT.TAKE {algorithm}:once 500 {LONG} ALGORITHM {algorithm} ID x COST 2");
        assert_eq!(admitted(&hosts, &command, 20), 320);
        let peek = format!("RATELIMIT.PEEK {algorithm}:once 500 {LONG} ALGORITHM {algorithm}");
        assert_eq!(ask(&mut one, &peek)[..3], [0, 500, 498]);
    }
}

#[test]
fn policies_are_counted_where_they_are_asked_and_decided_upstream() {
    let redis = Server::redis();
    let file = redis.dir.join("host.toml");
    let text = format!("[upstream]\nurl = \"redis://127.0.0.1:{}/1\"\n{POLICIES}", redis.port);
    std::fs::write(&file, text).unwrap();
    let host = || Server::with_admin(&["--config", file.to_str().unwrap()], &[]);
    let (one, other) = (host(), host());
    let mut ours = one.client();
    assert_eq!(ask(&mut ours, "RATELIMIT.CHECK api alice")[..4], [0, 3, 2, -1]);
    assert_eq!(get(other.admin, "/ratelimit/api/alice").status, 200);
    let reply = get(other.admin, "/ratelimit/api/alice?id=x");
    assert_eq!((reply.status, reply.headers["x-ratelimit-remaining"].as_str()), (200, "0"));
    assert_eq!(get(one.admin, "/ratelimit/api/alice?id=x").status, 200);
    assert_eq!(get(one.admin, "/ratelimit/api/alice").status, 429);
    assert_eq!(get(other.admin, "/ratelimit/api/alice").status, 429);
    assert_eq!(ask(&mut ours, "RATELIMIT.CHECK api alice")[..3], [1, 3, 0]);
    let mut theirs = redis.client();
    theirs.run("SELECT 1");
    assert_eq!(theirs.run("ZCARD rate_limit:api:alice"), ":3\r\n");
    for policy in ["both", "counted"] {
        let check = format!("RATELIMIT.CHECK {policy} carol");
        assert_eq!(ask(&mut ours, &format!("{check} COST 2"))[..3], [0, 2, 0]);
        assert_eq!(ask(&mut other.client(), &check)[..3], [1, 2, 0]);
    }
    assert_eq!(
        ours.run("RATELIMIT.TOP 1"),
        "*1\r\n*2\r\n$20\r\nrate_limit:api:alice\r\n:2\r\n",
        "each host names whom it refused"
    );
    let info = ours.run("INFO ratelimit");
    for line in ["ratelimit_scope:upstream", "ratelimit_undecided:0", "policy_api:admitted=2,refused=2"] {
        assert!(info.contains(&format!("{line}\r\n")), "{line}: {info}");
    }
    assert!(ours.run("INFO commandstats").contains("cmdstat_ratelimit.check:calls="));
    assert_eq!(ours.run("RATELIMIT.CHECK none x"), "-ERR no such rate limit policy 'none'\r\n");
}

/// What is asked in any order, over time, gets the same replies as on a host by itself.
#[test]
fn replies_are_those_of_one_host() {
    let redis = Server::redis();
    let (shared, alone) =
        (before(&redis, POLICIES), before(&redis, &format!("[ratelimit]\nscope = \"local\"\n{POLICIES}")));
    let (mut shared, mut alone) = (shared.client(), alone.client());
    let mut random = fastrand::Rng::with_seed(7);
    let mut refused = 0;
    for step in 0..3000 {
        let algorithm = ["log", "counter", "gcra"][random.usize(0..3)];
        let key = format!("{algorithm}:{}", random.usize(0..3));
        let burst = if algorithm == "gcra" && key.ends_with('1') { " BURST 4" } else { "" };
        let cost = [1, 1, 1, 2, 5, 9][random.usize(0..6)];
        let id = if random.usize(0..3) == 0 { format!(" ID {}", random.usize(0..9)) } else { String::new() };
        let command = match random.usize(0..20) {
            0..10 => format!("RATELIMIT.TAKE {key} 8 {LONG} COST {cost} ALGORITHM {algorithm}{burst}{id}"),
            10..12 => format!("RATELIMIT.PEEK {key} 8 {LONG} ALGORITHM {algorithm}{burst} COST {cost}"),
            12..14 => format!("RATELIMIT.REFUND {key} {cost}"),
            14 => format!("RATELIMIT.RESET {key}"),
            15 => format!("RATELIMIT.MULTI 3 log:1 8 {LONG} log:2 5 {LONG} log:1 20 {LONG} COST {cost}"),
            16 => format!("CL.THROTTLE throttle 5 7 86400 {}", cost - 1),
            17 => format!("RATELIMIT.CHECK both x COST {cost}{id}"),
            18 => format!("RATELIMIT.CHECK counted x COST {cost}{id}"),
            _ => ["RATELIMIT.RESET rate_limit:both:x", "RATELIMIT.REFUND rate_limit:counted:x 3"]
                [random.usize(0..2)]
            .to_owned(),
        };
        let (ours, theirs) = (shared.run(&command), alone.run(&command));
        if !ours.starts_with('*') {
            assert_eq!(ours, theirs, "{step}: {command}");
            continue;
        }
        let (mut ours, mut theirs) = (fields(&ours), fields(&theirs));
        refused += ours[0];
        // The two asked at different moments.
        for at in [3, 4] {
            let (a, b) = (ours[at], theirs[at]);
            assert!((a < 0) == (b < 0) && (a - b).abs() < 5000, "{step}: {command}: {ours:?} {theirs:?}");
            (ours[at], theirs[at]) = (0, 0);
        }
        assert_eq!(ours, theirs, "{step}: {command}");
    }
    assert!(refused > 200, "{refused}");
}

#[test]
fn keys_of_other_kinds_and_wrong_arguments_are_told_in_the_same_words() {
    let redis = Server::redis();
    let ours = before(&redis, "[[keys]]\npattern = \"here:*\"\ntier = \"local\"");
    let (mut ours, mut theirs) = (ours.client(), redis.client());
    theirs.run("SET text x");
    theirs.run("LPUSH list x");
    theirs.run("SET number 12");
    for key in ["text", "number", "list"] {
        for command in [
            "TAKE @ 1 1",
            "TAKE @ 1 1 ALGORITHM gcra",
            "TAKE @ 1 1 ALGORITHM counter",
            "PEEK @ 1 1",
            "REFUND @ 1",
            "RESET @",
            "MULTI 2 other 5 1000 @ 5 1000",
        ] {
            let reply = ours.run(&format!("RATELIMIT.{}", command.replace('@', key)));
            let expected = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
            assert_eq!(reply, expected, "{command} {key}");
        }
    }
    assert_eq!(theirs.run("EXISTS other text number list"), ":3\r\n");
    for (command, expected) in [
        ("RATELIMIT.TAKE k 1", "-ERR wrong number of arguments for 'ratelimit.take' command\r\n"),
        ("RATELIMIT.TAKE k 0 1000", "-ERR limit must be between 1 and 100000000\r\n"),
        ("RATELIMIT.MULTI 0 k 1 1000", "-ERR numkeys must be between 1 and 128\r\n"),
        ("RATELIMIT.TAKE k 1 1000 COST 0", "-ERR COST must be positive\r\n"),
        ("RATELIMIT.TOP x", "-ERR value is out of range, must be positive\r\n"),
        ("CL.THROTTLE k 1 1 1 1 1", "-ERR wrong number of arguments for 'cl.throttle' command\r\n"),
    ] {
        assert_eq!(ours.run(command), expected, "{command}");
    }
    let costly = format!("RATELIMIT.TAKE k 20000 {LONG} COST 10001");
    assert!(ours.run(&costly).starts_with("-ERR COST must be at most 10000"));
    assert_eq!(
        ask(&mut ours, &format!("RATELIMIT.TAKE k 20000 {LONG} COST 20001"))[..4],
        [1, 20000, 20000, -1]
    );
    assert_eq!(ask(&mut ours, &format!("RATELIMIT.TAKE k 20000 {LONG} COST 10000"))[..3], [0, 20000, 10000]);
    // Keys of this host are counted here.
    assert_eq!(ask(&mut ours, &format!("RATELIMIT.TAKE here:k 5 {LONG}"))[..3], [0, 5, 4]);
    assert_eq!((theirs.run("EXISTS here:k"), ours.run("ZCARD here:k")), (":0\r\n".into(), ":1\r\n".into()));
    assert!(ours.run(&format!("RATELIMIT.MULTI 2 here:k 5 {LONG} k 5 {LONG}")).starts_with("-CROSSTIER"));
    // Replies that nobody wants are not sent, and what upstream has forgotten is sent again.
    ours.send_raw(b"CLIENT REPLY SKIP\r\nRATELIMIT.TAKE s 5 86400000\r\nRATELIMIT.TAKE s 5 86400000\r\n");
    assert_eq!(fields(&String::from_utf8(ours.read()).unwrap())[..3], [0, 5, 3]);
    theirs.run("SCRIPT FLUSH");
    assert_eq!(ask(&mut ours, "RATELIMIT.TAKE s 5 86400000")[..3], [0, 5, 2]);
    // What others do at the key counts, and what is kept of it here is dropped.
    assert_eq!(ours.run("ZCARD s"), ":3\r\n");
    assert_eq!(ask(&mut ours, "RATELIMIT.TAKE s 5 86400000")[..3], [0, 5, 1]);
    assert_eq!(ours.run("ZCARD s"), ":4\r\n");
    theirs.run("ZPOPMIN s 3");
    assert_eq!(ask(&mut ours, "RATELIMIT.PEEK s 5 86400000")[..3], [0, 5, 4]);
}

/// Without upstream there is an answer in time, which is the one that was configured.
#[test]
fn without_upstream_it_is_as_configured() {
    for (mode, first) in [("local", [0, 2, 1]), ("allow", [0, 2, 1]), ("deny", [1, 2, 0])] {
        let mut redis = Server::redis();
        let section =
            format!("timeout = \"500ms\"\n[ratelimit]\non-upstream-failure = \"{mode}\"\n{POLICIES}");
        let ours = before(&redis, &section);
        let mut ours = ours.client();
        let take = format!("RATELIMIT.TAKE k 2 {LONG}");
        assert_eq!(ask(&mut ours, &take)[..3], [0, 2, 1], "{mode}");
        // Silent, and then gone.
        // SAFETY: a signal to a child of ours that is not waited for.
        assert_eq!(unsafe { libc::kill(redis.pid() as i32, libc::SIGSTOP) }, 0);
        assert_eq!(ask(&mut ours, &take)[..3], first, "{mode}");
        redis.stop(libc::SIGKILL);
        let replies: Vec<Vec<i64>> = (0..3).map(|_| ask(&mut ours, &take)).collect();
        match mode {
            // One was counted here when upstream was silent.
            "local" => {
                let refusals: Vec<i64> = replies.iter().map(|reply| reply[0]).collect();
                assert_eq!(refusals, [0, 1, 1]);
                assert_eq!(ours.run("RATELIMIT.REFUND k 1"), ":1\r\n");
            }
            "allow" => assert!(replies.iter().all(|reply| reply[..] == [0, 2, 1, -1, 0]), "{replies:?}"),
            _ => {
                assert!(replies.iter().all(|reply| reply[..] == [1, 2, 0, 500, 500]), "{replies:?}");
                assert!(ours.run("RATELIMIT.TOP").contains(":4\r\n"));
                assert!(ours.run("RATELIMIT.REFUND k 1").starts_with("-UPSTREAMDOWN"));
            }
        }
        assert!(!ours.run("INFO ratelimit").contains("ratelimit_undecided:0\r\n"));
        let again = Server::redis_at(redis.port);
        until("upstream decides again", || {
            again.client().run("EXISTS again") == ":1\r\n" || {
                ours.run(&format!("RATELIMIT.TAKE again 100000 {LONG}"));
                false
            }
        });
    }
}

/// Large numbers are times, which differ a little.
fn without_times(reply: &str) -> String {
    let rough = |line: &str| match line.strip_prefix(':').and_then(|number| number.parse::<u64>().ok()) {
        Some(number) if number > 1_000_000_000 => format!(":about {}", (number + 5_000_000) / 10_000_000),
        _ => line.to_owned(),
    };
    reply.split("\r\n").map(rough).collect::<Vec<_>>().join("\r\n")
}

#[test]
fn calls_within_a_transaction_are_decided_with_the_rest_of_it() {
    let redis = Server::redis();
    let (shared, alone) = (before(&redis, POLICIES), Server::configured(POLICIES, &[]));
    let queued = [
        "HSET h f v",
        &format!("RATELIMIT.TAKE log 2 {LONG}"),
        "HGETALL h",
        &format!("RATELIMIT.TAKE log 2 {LONG} COST 2"),
        &format!("RATELIMIT.MULTI 3 log 5 {LONG} other 1 {LONG} log 9 {LONG}"),
        &format!("RATELIMIT.MULTI 3 log 5 {LONG} other 1 {LONG} log 9 {LONG}"),
        "RATELIMIT.CHECK both carol COST 2",
        "RATELIMIT.CHECK both carol",
        "RATELIMIT.CHECK nobody carol",
        &format!("RATELIMIT.TAKE gcra 3 {LONG} ALGORITHM gcra ID x"),
        &format!("RATELIMIT.TAKE gcra 3 {LONG} ALGORITHM gcra ID x"),
        "RATELIMIT.TAKE gcra 3 1000",
        "CL.THROTTLE cell 2 1 1000",
        "RATELIMIT.TAKE log 0 1000",
        "INCR h",
        &format!("RATELIMIT.PEEK other 1 {LONG}"),
        "RATELIMIT.REFUND log 1",
        "ZCARD log",
        "RATELIMIT.RESET log",
        "EXISTS log",
        "SELECT 1",
        &format!("RATELIMIT.TAKE log 2 {LONG}"),
        "SELECT 0",
        "OBJECT ENCODING h",
    ];
    let mut seen = 0;
    for protocol in ["2", "3"] {
        for watches in [false, true] {
            // With a wait among them, all replies come in RESP2 as they are.
            for also in [None, Some("BLPOP none 0")] {
                let run = |server: &Server| {
                    let mut client = server.client();
                    client.run(&format!("HELLO {protocol}"));
                    client.run("FLUSHALL");
                    if watches {
                        assert_eq!(client.run("WATCH log"), "+OK\r\n");
                    }
                    client.run("MULTI");
                    for command in queued.iter().copied().chain(also) {
                        assert_eq!(client.run(command), "+QUEUED\r\n", "{command}");
                    }
                    without_times(&client.run("EXEC"))
                };
                let (ours, expected) = (run(&shared), run(&alone));
                assert_eq!(ours, expected, "RESP{protocol}, {watches}, {also:?}");
                assert!(ours.contains("-ERR no such rate limit policy 'nobody'"), "{ours}");
                seen += 1;
            }
        }
    }
    let info = shared.client().run("INFO ratelimit");
    let counts = format!("policy_both:admitted={seen},refused={seen}\r\n");
    assert!(info.contains(&counts) && info.contains("ratelimit_undecided:0\r\n"), "{info}");

    // It need not know the scripts, of which it gets each but once.
    redis.client().run("SCRIPT FLUSH");
    redis.client().run("CONFIG RESETSTAT");
    let mut client = shared.client();
    client.run("MULTI");
    (0..3).for_each(|_| drop(client.run(&format!("RATELIMIT.TAKE once 9 {LONG}"))));
    assert!(client.run("EXEC").ends_with(":9\r\n:6\r\n:-1\r\n:31536000000\r\n"));
    let calls = redis.client().run("INFO commandstats");
    assert!(calls.contains("cmdstat_eval:calls=1,") && calls.contains("cmdstat_evalsha:calls=2,"), "{calls}");

    // A transaction that is aborted takes nothing; and what one took is not found as it was before.
    let (mut ours, mut theirs) = (shared.client(), redis.client());
    let take = format!("RATELIMIT.TAKE k 2 {LONG}");
    ours.run("WATCH other");
    theirs.run("SET other x");
    ours.run("MULTI");
    ours.run(&take);
    assert_eq!((ours.run("EXEC"), ours.run("EXISTS k")), ("*-1\r\n".into(), ":0\r\n".into()));
    for count in 1..=2 {
        ours.run("MULTI");
        ours.run(&take);
        assert!(ours.run("EXEC").starts_with("*1\r\n*5\r\n:0\r\n"));
        assert_eq!(ours.run("ZCARD k"), format!(":{count}\r\n"));
    }
    theirs.run("SET k text");
    ours.run("MULTI");
    ours.run(&take);
    assert!(ours.run("EXEC").starts_with("*1\r\n-WRONGTYPE"));
}

#[test]
fn within_a_transaction_the_scope_is_kept() {
    let redis = Server::redis();
    for scope in ["leased", "local"] {
        let section = "[[keys]]\npattern = \"here:*\"\ntier = \"local\"\n[ratelimit]\n";
        let ours = before(&redis, &format!("{section}scope = \"{scope}\"\n{POLICIES}"));
        let mut ours = ours.client();
        let queue = |client: &mut crate::harness::Client, key: &str| {
            client.run("MULTI");
            client.run(&format!("RATELIMIT.TAKE {key} 1 {LONG}"))
        };
        if scope == "leased" {
            for refused in 0..=1 {
                assert_eq!(queue(&mut ours, "k"), "+QUEUED\r\n");
                assert!(ours.run("EXEC").starts_with(&format!("*1\r\n*5\r\n:{refused}\r\n:1\r\n:0\r\n")));
            }
        } else {
            assert!(queue(&mut ours, "k").contains("cannot be part of a transaction"));
            ours.run("DISCARD");
        }
        assert!(queue(&mut ours, "here:k").contains("cannot be part of a transaction"));
    }
}
