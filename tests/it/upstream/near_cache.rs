//! What is kept, for how long, and how often upstream is asked.

use std::sync::{Arc, Barrier};

use super::{Pair, calls, until};
use crate::harness::Server;

/// A machine so busy that heartbeats are late must not make hits misses where they are counted.
const PATIENT: &str = "upstream-heartbeat = \"20s\"";

#[test]
fn reads_are_answered_here_after_the_first_until_the_key_changes() {
    let pair = Pair::start(PATIENT);
    let mut theirs = pair.redis.client();
    for protocol in [2, 3] {
        let mut ours = pair.anteroom.client();
        ours.run(&format!("HELLO {protocol}"));
        theirs.run("FLUSHALL");
        theirs.run("SET k v");
        theirs.run("HSET h a 1 b 2");
        theirs.run("ZADD z 1.5 m 2 n");
        for (command, change) in [
            ("GET k", "SET k w"),
            ("HGETALL h", "HSET h a 3"),
            ("HGET h b", "HSET h b 4"),
            ("ZRANGE z 0 -1 WITHSCORES", "ZADD z 3 m"),
            ("EXISTS k", "DEL k"),
            ("STRLEN k", "SET k xyz"),
        ] {
            let name = command.split(' ').next().unwrap().to_lowercase();
            let mut expected = pair.redis.client();
            expected.run(&format!("HELLO {protocol}"));
            let before = ours.run(command);
            assert_eq!(before, expected.run(command), "{command}");
            // A reply that overtook word of an earlier change is not kept: then the next one is.
            until("it is kept", || {
                let asked = calls(&mut theirs, &name);
                ours.run(command);
                calls(&mut theirs, &name) == asked
            });
            let asked = calls(&mut theirs, &name);
            for _ in 0..20 {
                assert_eq!(ours.run(command), before, "{command}");
            }
            assert_eq!(calls(&mut theirs, &name), asked, "{command} was sent again");
            theirs.run(change);
            let after = expected.run(command);
            assert_ne!(before, after, "{change} changes nothing");
            until(change, || ours.run(command) == after);
        }
    }
}

#[test]
fn own_writes_are_seen_at_once_whoever_reads() {
    let pair = Pair::start("");
    let (mut one, mut two) = (pair.anteroom.client(), pair.anteroom.client());
    for round in 0..2000 {
        let write = match round % 4 {
            0 => format!("SET k {round}"),
            1 => format!("MSET j 0 k {round}"),
            2 => format!("EVAL return(redis.call('set',KEYS[1],ARGV[1])) 1 k {round}"),
            _ => {
                one.run("MULTI");
                assert_eq!(one.run(&format!("SET k {round}")), "+QUEUED\r\n");
                "EXEC".to_owned()
            }
        };
        assert!(!one.run(&write).starts_with('-'));
        let text = round.to_string();
        let reply = format!("${}\r\n{text}\r\n", text.len());
        assert_eq!((two.run("GET k"), one.run("GET k")), (reply.clone(), reply));
    }
    assert_eq!(one.run("FLUSHALL"), "+OK\r\n");
    assert_eq!(two.run("GET k"), "$-1\r\n");
}

#[test]
fn a_thousand_misses_are_one_read() {
    let pair = Pair::with_workers("", 2);
    let mut theirs = pair.redis.client();
    theirs.run("SET hot v");
    // Upstream answers nothing while all of them ask.
    theirs.run("CONFIG SET maxclients 10000");
    let threads = 20;
    let start = Arc::new(Barrier::new(threads + 1));
    let clients: Vec<_> =
        (0..threads).map(|_| (0..50).map(|_| pair.anteroom.client()).collect::<Vec<_>>()).collect();
    // SAFETY: a signal to a child of ours that is not waited for.
    let signal = |signal| unsafe { libc::kill(pair.redis.pid() as i32, signal) };
    let before = calls(&mut theirs, "get");
    signal(libc::SIGSTOP);
    let asking: Vec<_> = clients
        .into_iter()
        .map(|mut clients| {
            let start = start.clone();
            std::thread::spawn(move || {
                clients.iter_mut().for_each(|client| client.send(&[b"GET".to_vec(), b"hot".to_vec()]));
                start.wait();
                clients.iter_mut().for_each(|client| assert_eq!(client.read(), b"$1\r\nv\r\n"));
            })
        })
        .collect();
    start.wait();
    std::thread::sleep(std::time::Duration::from_millis(100));
    signal(libc::SIGCONT);
    asking.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(calls(&mut theirs, "get"), before + 1);
}

#[test]
fn mget_is_answered_by_key() {
    let pair = Pair::start(PATIENT);
    let mut theirs = pair.redis.client();
    for protocol in [2, 3] {
        let mut ours = pair.anteroom.client();
        ours.run(&format!("HELLO {protocol}"));
        let null = if protocol == 2 { "$-1\r\n" } else { "_\r\n" };
        theirs.run("FLUSHALL");
        theirs.run("MSET a 1 b 2");
        theirs.run("LPUSH l x");
        let value = |text: &str| format!("${}\r\n{text}\r\n", text.len());
        until("word of the changes has come", || {
            let asked = calls(&mut theirs, "get");
            assert_eq!(ours.run("GET a"), value("1"));
            calls(&mut theirs, "get") == asked
        });
        let (gets, mgets) = (calls(&mut theirs, "get"), calls(&mut theirs, "mget"));
        let expected = format!("*5\r\n{}{}{null}{null}{}", value("1"), value("2"), value("1"));
        // The list is asked for each time: GET would have an error for it.
        for _ in 0..3 {
            assert_eq!(ours.run("MGET a b none l a"), expected);
        }
        for _ in 0..3 {
            assert_eq!(ours.run("MGET a b none"), format!("*3\r\n{}{}{null}", value("1"), value("2")));
            assert_eq!((ours.run("GET b"), ours.run("GET none")), (value("2"), null.to_owned()));
        }
        assert!(ours.run("GET l").starts_with("-WRONGTYPE"));
        assert_eq!((calls(&mut theirs, "get"), calls(&mut theirs, "mget")), (gets + 1, mgets + 3));
        theirs.run("SET b 3");
        until("the change is seen", || ours.run("MGET a b") == format!("*2\r\n{}{}", value("1"), value("3")));
    }
}

#[test]
fn nothing_outlives_its_deadline_upstream_or_here() {
    let pair = Pair::start(PATIENT);
    let (mut ours, mut theirs) = pair.clients();
    // Long enough to be asked for twice on a machine that has much else to do.
    theirs.run("SET short v PX 1500");
    assert_eq!(ours.run("GET short"), "$1\r\nv\r\n");
    let before = calls(&mut theirs, "get");
    assert_eq!(ours.run("GET short"), "$1\r\nv\r\n");
    assert_eq!(calls(&mut theirs, "get"), before);
    std::thread::sleep(std::time::Duration::from_millis(1520));
    assert_eq!(ours.run("GET short"), "$-1\r\n");

    let pair = Pair::start(&format!("{PATIENT}\nnear-cache-ttl = \"300ms\"\nnegative-ttl = 0"));
    let (mut ours, mut theirs) = pair.clients();
    theirs.run("SET long v");
    ours.run("GET long");
    let before = calls(&mut theirs, "get");
    std::thread::sleep(std::time::Duration::from_millis(350));
    assert_eq!(ours.run("GET long"), "$1\r\nv\r\n");
    assert_eq!(calls(&mut theirs, "get"), before + 1);
    // That a key is absent is not kept, as asked.
    (0..3).for_each(|_| assert_eq!(ours.run("GET none"), "$-1\r\n"));
    assert_eq!(calls(&mut theirs, "get"), before + 4);
}

#[test]
fn keys_are_invalidated_by_pattern_on_every_host() {
    let pair = Pair::start("");
    let other = super::before(&pair.redis, "");
    let (mut ours, mut theirs) = pair.clients();
    let mut others = other.client();
    for key in 0..2500 {
        theirs.run(&format!("SET a:{key} 1"));
    }
    theirs.run("SET b:1 1");
    for client in [&mut ours, &mut others] {
        assert_eq!(
            (client.run("GET a:7"), client.run("GET b:1")),
            ("$1\r\n1\r\n".to_owned(), "$1\r\n1\r\n".to_owned())
        );
    }
    assert_eq!(ours.run("CACHE.INVALIDATE a:*"), ":2500\r\n");
    assert_eq!((ours.run("GET a:7"), ours.run("GET b:1")), ("$-1\r\n".to_owned(), "$1\r\n1\r\n".to_owned()));
    until("the other host hears of it", || others.run("GET a:7") == "$-1\r\n");
    assert_eq!(theirs.run("DBSIZE"), ":1\r\n");
    assert!(
        ours.run("MULTI").starts_with("+OK")
            && ours.run("CACHE.INVALIDATE *").starts_with("-ERR Command not allowed")
    );
}

#[test]
fn what_is_kept_can_be_looked_at() {
    let pair = Pair::start("[[keys]]\npattern = \"here:*\"\ntier = \"local\"");
    let (mut ours, mut theirs) = pair.clients();
    // What is asked before there is a connection is not kept.
    until("upstream is there", || ours.run("INFO upstream").contains("upstream_up:1"));
    theirs.run("SET user:1 v PX 60000");
    ours.run("GET user:1");
    let about = |text: &str, name: &str| {
        let at = text.find(&format!("\r\n{name}\r\n")).unwrap_or_else(|| panic!("{name}: {text}"));
        text[at + name.len() + 4..].split("\r\n").find(|line| !line.starts_with('$')).unwrap().to_owned()
    };
    let said = ours.run("CACHE.INSPECT user:1");
    assert_eq!(
        (about(&said, "tier"), about(&said, "replies"), about(&said, "stale")),
        ("near".into(), ":1".into(), ":0".into())
    );
    let ttl: u64 = about(&said, "ttl-ms")[1..].parse().unwrap();
    assert!((1..=60_000).contains(&ttl));
    assert_eq!(about(&ours.run("CACHE.INSPECT none"), "tier"), "upstream");
    assert_eq!(about(&ours.run("CACHE.INSPECT here:1"), "tier"), "local");
    ours.run("GET user:1");
    let stats = ours.run("CACHE.STATS");
    assert_eq!(
        (about(&stats, "hits"), about(&stats, "misses"), about(&stats, "fills")),
        (":1".into(), ":1".into(), ":1".into())
    );
    let of_prefix = |stats: &str| stats.split("$5\r\nuser:\r\n").nth(1).unwrap().to_owned();
    let figures = of_prefix(&stats);
    assert!(
        figures.starts_with("*12\r\n$4\r\nkeys\r\n:1\r\n$7\r\nreplies\r\n:1\r\n$5\r\nbytes\r\n:"),
        "{stats}"
    );
    let counted = "$4\r\nhits\r\n:1\r\n$6\r\nmisses\r\n:1\r\n$5\r\nfills\r\n:1\r\n";
    assert!(figures.contains(counted), "{stats}");
    // What was counted stays when nothing is kept any more.
    ours.run("SET user:1 x");
    let figures = of_prefix(&ours.run("CACHE.STATS"));
    assert!(figures.starts_with("*12\r\n$4\r\nkeys\r\n:0\r\n") && figures.contains(counted), "{figures}");
    assert!(ours.run("INFO upstream").contains("upstream_up:1"));
    let alone = Server::anteroom(&[]);
    assert!(alone.client().run("CACHE.STATS").starts_with("-ERR there is no upstream"));
    assert!(alone.client().run("CACHE.INVALIDATE *").starts_with("-ERR there is no upstream"));
}

#[test]
fn samples_of_hits_are_compared_with_upstream() {
    let pair = Pair::start("shadow-percent = 100");
    let (mut ours, mut theirs) = pair.clients();
    theirs.run("SET k v");
    for _ in 0..50 {
        assert_eq!(ours.run("GET k"), "$1\r\nv\r\n");
    }
    until("they are compared", || {
        let info = ours.run("INFO upstream");
        assert!(info.contains("upstream_mismatches:0"), "{info}");
        !info.contains("upstream_shadowed:0")
    });
}

#[test]
fn hot_keys_are_read_again_before_they_expire() {
    let pair = Pair::start("near-cache-ttl = \"200ms\"\nearly-refresh = true");
    let (mut ours, mut theirs) = pair.clients();
    theirs.run("SET k v");
    until("it is refreshed", || {
        assert_eq!(ours.run("GET k"), "$1\r\nv\r\n");
        !ours.run("INFO upstream").contains("upstream_refreshes:0")
    });
}

#[test]
fn memory_is_bounded_by_eviction() {
    let redis = Server::redis();
    let url = format!("redis://127.0.0.1:{}", redis.port);
    let anteroom = Server::anteroom(&["--upstream", &url, "--maxmemory", "20mb"]);
    let (mut ours, mut theirs) = (anteroom.client(), redis.client());
    let value = "x".repeat(10_000);
    for key in 0..5000 {
        theirs.run(&format!("SET k{key} {value}"));
    }
    for key in 0..5000 {
        assert_eq!(ours.run(&format!("GET k{key}")).len(), value.len() + 10);
    }
    let info = ours.run("INFO memory");
    let used =
        info.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok()).unwrap();
    assert!(used < 22 << 20, "{used}");
    assert_eq!(ours.run(&format!("SET k1 {value}")), "+OK\r\n");
}

/// A Redis that has no `CLIENT TRACKING`, or does not let us use it.
#[test]
fn without_tracking_replies_are_kept_for_their_time_on_request() {
    let redis = Server::redis();
    let mut theirs = redis.client();
    assert_eq!(theirs.run("ACL SETUSER app on >pw ~* &* +@all -client|tracking"), "+OK\r\n");
    let url = format!("[upstream]\nurl = \"redis://app:pw@127.0.0.1:{}\"\n", redis.port);
    let refused = Server::configured(&url, &[]);
    let said = refused.client().run("GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && said.contains("tracking = \"off\" goes without"), "{said}");
    let section = format!("{url}tracking = \"off\"\nnear-cache-ttl = \"700ms\"\n");
    let served = Server::configured(&section, &[]);
    assert!(served.log().contains("what others change is served for up to 700ms"), "{}", served.log());
    let (mut ours, mut other) = (served.client(), served.client());
    theirs.run("SET k 1");
    until("it is read", || ours.run("GET k") == "$1\r\n1\r\n");
    theirs.run("SET k 2");
    // Until its time is over.
    assert_eq!(ours.run("GET k"), "$1\r\n1\r\n");
    until("the change is seen", || ours.run("GET k") == "$1\r\n2\r\n");
    // Whoever writes here is read here.
    for number in 10..60 {
        other.run(&format!("SET k {number}"));
        assert_eq!(ours.run("GET k"), format!("$2\r\n{number}\r\n"));
    }
    theirs.run("SET short x PX 100");
    assert_eq!(ours.run("GET short"), "$1\r\nx\r\n");
    until("it expires here as there", || ours.run("GET short") == "$-1\r\n");
    ours.run("HELLO 3");
    assert!(ours.run("CLIENT TRACKING ON").starts_with("-ERR nobody can be told of changes"));
}
