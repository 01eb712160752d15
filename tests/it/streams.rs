//! Streams beside `redis-server`: random commands, waiting, what is told of them, and payloads.

use fastrand::Rng;

use super::differential::{number, same};
use super::generator::Comparison;
use super::harness::{Client, Server};

/// `K` a key, `I` an id, `G` a group, `C` a consumer, `N` a small number, `B` a bound; `a|b` one of them.
const TEMPLATES: &[&str] = &[
    "XADD K I f v",
    "XADD K I f v",
    "XADD K I f v g 1",
    "XADD K I g 12345 f long-enough-to-be-no-number",
    "XADD K N-* f v",
    "XADD K N-* f v",
    "XADD K NOMKSTREAM I f v",
    "XADD K MAXLEN N I f v",
    "XADD K MAXLEN = N I f v",
    "XADD K MAXLEN ~ N I f v",
    "XADD K MAXLEN ~ N LIMIT N I f v",
    "XADD K MINID I I f v",
    "XADD K MINID ~ I I f v",
    "XADD K I f",
    "XADD K MAXLEN N MINID I I f v",
    "XADD K LIMIT N I f v",
    "XADD K bad f v",
    "XTRIM K MAXLEN N",
    "XTRIM K MAXLEN ~ N",
    "XTRIM K MAXLEN ~ N LIMIT N",
    "XTRIM K MAXLEN N LIMIT N",
    "XTRIM K MINID I",
    "XTRIM K MINID ~ I",
    "XTRIM K MAXLEN -1",
    "XDEL K I",
    "XDEL K I I I",
    "XDEL K bad",
    "XLEN K",
    "XRANGE K - +",
    "XRANGE K B B",
    "XRANGE K B B COUNT N",
    "XREVRANGE K + -",
    "XREVRANGE K B B",
    "XREVRANGE K B B COUNT N",
    "XREAD STREAMS K I",
    "XREAD COUNT N STREAMS K I",
    "XREAD STREAMS K K I I",
    "XREAD STREAMS K $",
    "XREAD STREAMS K >",
    "XREAD STREAMS K K I",
    "XREAD NOACK STREAMS K I",
    "XREAD GROUP G C STREAMS K I",
    "XGROUP CREATE K G I",
    "XGROUP CREATE K G $ MKSTREAM",
    "XGROUP CREATE K G I MKSTREAM ENTRIESREAD N",
    "XGROUP CREATE K G - MKSTREAM",
    "XGROUP CREATE K G I ENTRIESREAD -2",
    "XGROUP CREATE K G I WHAT",
    "XGROUP SETID K G I",
    "XGROUP SETID K G $ ENTRIESREAD N",
    "XGROUP SETID K G -|+",
    "XGROUP DESTROY K G",
    "XGROUP CREATECONSUMER K G C",
    "XGROUP DELCONSUMER K G C",
    "XREADGROUP GROUP G C STREAMS K >",
    "XREADGROUP GROUP G C COUNT N STREAMS K >",
    "XREADGROUP GROUP G C COUNT 1 STREAMS K >",
    "XREADGROUP GROUP G C NOACK STREAMS K >",
    "XREADGROUP GROUP G C STREAMS K I",
    "XREADGROUP GROUP G C COUNT N STREAMS K K > I",
    "XREADGROUP GROUP G C STREAMS K $",
    "XREADGROUP STREAMS K >",
    "XREADGROUP GROUP G C STREAMS K K >",
    "XACK K G I",
    "XACK K G I I I",
    "XACK K G bad",
    "XPENDING K G",
    "XPENDING K G IDLE 100000000 - + 10",
    "XPENDING K G B B -1",
    "XPENDING K G - +",
    "XCLAIM K G C 0 I I JUSTID",
    "XCLAIM K G C 0 I",
    "XCLAIM K G C 0 I FORCE RETRYCOUNT N",
    "XCLAIM K G C 0 I FORCE JUSTID LASTID I",
    "XCLAIM K G C 100000000 I I",
    "XCLAIM K G C 0 I TIME 1000",
    "XCLAIM K G C 0 I IDLE bad",
    "XCLAIM K G C bad I",
    "XCLAIM K G C 0 I WHAT",
    "XAUTOCLAIM K G C 0 B JUSTID",
    "XAUTOCLAIM K G C 0 B COUNT N",
    "XAUTOCLAIM K G C 0 - COUNT 1",
    "XAUTOCLAIM K G C 100000000 -",
    "XAUTOCLAIM K G C bad -",
    "XAUTOCLAIM K G C 0 - COUNT 0",
    "XINFO STREAM K",
    "XINFO STREAM K WHAT",
    "XINFO GROUPS K",
    "XINFO CONSUMERS K G",
    // Greater than all others: 7.2 refuses some ids that 7.0 takes.
    "XSETID K 31-N",
    "XSETID K 32-0 ENTRIESADDED N",
    "XSETID K 33-0 ENTRIESADDED 1000 MAXDELETEDID I",
    "XSETID K I ENTRIESADDED -1",
    "XSETID K I ENTRIESADDED bad",
    "TYPE K",
    "OBJECT ENCODING K",
    "DEL K",
    "COPY K K REPLACE",
    "SET other v",
    "XLEN other",
    "XADD other 1-1 f v",
    "XREAD STREAMS other 0",
    "XGROUP CREATE other g $",
    "GET K",
];

fn word(token: &str, rng: &mut Rng) -> String {
    let id = |rng: &mut Rng| match rng.u8(..12) {
        0 => rng.u8(..30).to_string(),
        1 => "0-0".to_owned(),
        _ => format!("{}-{}", rng.u8(..30), rng.u8(..4)),
    };
    match token {
        "K" => format!("s{}", rng.u8(..2)),
        "I" => id(rng),
        "G" => format!("g{}", rng.u8(..2)),
        "C" => format!("c{}", rng.u8(..3)),
        "N" => rng.u8(..6).to_string(),
        "31-N" => format!("31-{}", rng.u8(..6)),
        "N-*" => format!("{}-*", rng.u8(..30)),
        "B" => match rng.u8(..6) {
            0 => "-".to_owned(),
            1 => "+".to_owned(),
            2 => format!("({}", id(rng)),
            _ => id(rng),
        },
        other => {
            let choices: Vec<&str> = other.split('|').collect();
            choices[rng.usize(..choices.len())].to_owned()
        }
    }
}

/// 7.2 creates the consumer of an `XCLAIM` that claims nothing, as Anteroom does; 7.0 does not. Nor does 7.0 say when a
/// consumer last got something.
fn comparison(words: &[String]) -> Comparison {
    match (words[0].as_str(), words[1].as_str()) {
        ("XINFO", "GROUPS" | "CONSUMERS") | ("XGROUP", "CREATECONSUMER") => Comparison::Kind,
        _ => Comparison::Exact,
    }
}

#[test]
fn replies_are_those_of_redis() {
    for protocol in [2, 3] {
        for (entries, seed) in [("100", 1), ("3", 2), ("1", 3)] {
            compare(&Server::anteroom(&[]), protocol, entries, (number("DIFF_SEED", seed), 8000));
        }
    }
}

/// The same before a Redis, which does most of it; what is kept here must be dropped in time.
#[test]
fn replies_before_a_redis_are_those_of_redis() {
    for protocol in [2, 3] {
        let behind = Server::redis();
        let url = format!("redis://127.0.0.1:{}/0", behind.port);
        behind.client().run("CONFIG SET stream-node-max-entries 3");
        let server = Server::anteroom(&["--upstream", &url]);
        compare(&server, protocol, "3", (number("DIFF_SEED", 4), 4000));
        let info = server.client().run("INFO upstream");
        assert!(!info.contains("upstream_hits:0\r\n"), "nothing was kept: {info}");
    }
}

fn compare(our_server: &Server, protocol: u8, entries: &str, (seed, count): (u64, u64)) {
    let their_server = Server::redis();
    let (mut ours, mut theirs) = (our_server.client(), their_server.client());
    let mut rng = Rng::with_seed(seed);
    for client in [&mut ours, &mut theirs] {
        client.run(&format!("HELLO {protocol}"));
        assert_eq!(client.run(&format!("CONFIG SET stream-node-max-entries {entries}")), "+OK\r\n");
    }
    let mut history = Vec::new();
    for index in 0..number("DIFF_COUNT", count) {
        let template = TEMPLATES[rng.usize(..TEMPLATES.len())];
        let words: Vec<String> = template.split(' ').map(|token| word(token, &mut rng)).collect();
        history.push(words.join(" "));
        both(&mut ours, &mut theirs, &words.join(" "), comparison(&words), &history);
        if index % 400 == 399 {
            for number in 0..2 {
                for command in [format!("XRANGE s{number} - +"), format!("XINFO STREAM s{number}")] {
                    both(&mut ours, &mut theirs, &command, Comparison::Exact, &history);
                }
                for group in 0..2 {
                    let command = format!("XPENDING s{number} g{group}");
                    both(&mut ours, &mut theirs, &command, Comparison::Exact, &history);
                }
            }
            both(&mut ours, &mut theirs, "FLUSHALL", Comparison::Exact, &history);
            history.clear();
        }
    }
}

fn both(ours: &mut Client, theirs: &mut Client, command: &str, comparison: Comparison, history: &[String]) {
    let (our_reply, their_reply) = (ours.run(command), theirs.run(command));
    let before = &history[history.len().saturating_sub(40)..];
    // 7.2 names the command and its mark.
    if our_reply.starts_with("-ERR Unbalanced") && their_reply.starts_with("-ERR Unbalanced") {
        return;
    }
    if !same(our_reply.as_bytes(), their_reply.as_bytes(), comparison) {
        let report = format!("{command}\nours   {our_reply:?}\ntheirs {their_reply:?}");
        assert!(std::env::var("DIFF_ALL").is_ok(), "{report}\nbefore:\n{}", before.join("\n"));
        eprintln!("{report}");
    }
}

/// What one client does while others wait, and what all are told.
#[test]
fn who_waits_is_told_as_redis_tells() {
    for protocol in [2, 3] {
        let servers = [Server::anteroom(&[]), Server::redis()];
        let told = servers.each_ref().map(|server| wait_on(server, protocol));
        assert_eq!(told[0], told[1], "RESP{protocol}");
    }
}

fn wait_on(server: &Server, protocol: u8) -> Vec<String> {
    let mut does = server.client();
    let mut told = Vec::new();
    let mut listens = server.client();
    does.run("CONFIG SET notify-keyspace-events KEA");
    listens.run("HELLO 3");
    listens.run("PSUBSCRIBE __keyspace@*");
    let waiting = |does: &mut Client, command: &str| {
        let mut waits = server.client();
        waits.run(&format!("HELLO {protocol}"));
        waits.send_raw(format!("{command}\r\n").as_bytes());
        while !does.run("INFO clients").contains("blocked_clients:1\r\n") {}
        waits
    };
    for (waits_for, happens) in [
        ("XREAD BLOCK 0 STREAMS s $", &["XADD s 1-1 f v"][..]),
        ("XREAD BLOCK 0 STREAMS s t 1-1 $", &["XADD t 5-1 f v"]),
        ("XREAD BLOCK 0 COUNT 1 STREAMS s $", &["MULTI", "XADD s 2-1 f v", "XADD s 2-2 f v", "EXEC"]),
        ("XREAD BLOCK 0 STREAMS none 0", &["LPUSH none a", "DEL none", "XADD none 1-1 f v"]),
        ("BLPOP none2 0", &["XADD none2 1-1 f v", "DEL none2", "LPUSH none2 x"]),
        ("XREADGROUP GROUP g c BLOCK 0 STREAMS s >", &["XADD s 3-1 f v"]),
        ("XREADGROUP GROUP g c BLOCK 0 NOACK STREAMS s >", &["XADD s 3-2 f v"]),
        ("XREAD BLOCK 0 STREAMS s 9", &["RENAME t s", "XADD s 10-1 f v"]),
    ] {
        if waits_for.contains("GROUP g") {
            does.run("XGROUP CREATE s g $ MKSTREAM");
            // 7.2 creates it when it comes, and 7.0 when there is something for it.
            does.run("XGROUP CREATECONSUMER s g c");
        }
        let mut waits = waiting(&mut does, waits_for);
        told.extend(happens.iter().map(|command| does.run(command)));
        told.push(String::from_utf8(waits.read()).unwrap());
    }
    told.push(does.run("XREAD BLOCK 20 STREAMS s $"));
    for command in ["XADD a MAXLEN 1 1-1 f v", "XADD a MAXLEN 1 2-1 f v", "XTRIM a MAXLEN 0", "XSETID a 9-9"]
    {
        told.push(does.run(command));
    }
    for command in
        ["XGROUP CREATE a g 0", "XGROUP CREATECONSUMER a g c", "XGROUP DELCONSUMER a g c", "XADD a 10-1 f v"]
    {
        told.push(does.run(command));
    }
    for command in
        ["XREADGROUP GROUP g d STREAMS a >", "XACK a g 10-1", "XDEL a 10-1", "XGROUP DESTROY a g", "DEL a"]
    {
        told.push(does.run(command));
    }
    told.extend(listens.frames());
    told
}

/// A key that is gone, or of another type, ends the wait of a group's member, as in 7.2.
#[test]
fn members_of_a_group_that_is_gone_do_not_wait() {
    let server = Server::anteroom(&[]);
    let mut does = server.client();
    for (happens, told) in [
        ("DEL s", "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n"),
        ("FLUSHALL", "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n"),
        ("SWAPDB 0 1", "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n"),
        (
            "PEXPIRE s 30",
            "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n",
        ),
        (
            "XGROUP DESTROY s g",
            "-NOGROUP No such key 's' or consumer group 'g' in XREADGROUP with GROUP option\r\n",
        ),
        ("SET s v", "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n"),
    ] {
        does.run("DEL s");
        assert_eq!(does.run("XGROUP CREATE s g $ MKSTREAM"), "+OK\r\n");
        let mut waits = server.client();
        waits.send_raw(b"XREADGROUP GROUP g c BLOCK 0 STREAMS s >\r\n");
        while !does.run("INFO clients").contains("blocked_clients:1\r\n") {}
        let info = does.run("INFO clients");
        assert!(info.contains("total_blocking_keys:1\r\ntotal_blocking_keys_on_nokey:1\r\n"), "{info}");
        does.run(happens);
        assert_eq!(String::from_utf8(waits.read()).unwrap(), told, "{happens}");
    }
    // Counted as errors of commands that did not wait are.
    let info = does.run("INFO errorstats");
    assert!(
        info.contains("errorstat_NOGROUP:count=5\r\n") && info.contains("errorstat_WRONGTYPE:count=1\r\n"),
        "{info}"
    );
}

/// Payloads of both go to both; what `DUMP` says of 7.2 can be read by 7.2 only, so what 7.0 says is read here, and what
/// is said here is read back.
#[test]
fn payloads_keep_everything() {
    let (our_server, their_server) = (Server::anteroom(&[]), Server::redis());
    let (mut ours, mut theirs) = (our_server.client(), their_server.client());
    let mut rng = Rng::with_seed(5);
    for round in 0..20 {
        for client in [&mut ours, &mut theirs] {
            client.run("FLUSHALL");
        }
        for _ in 0..300 {
            let template = TEMPLATES[rng.usize(..TEMPLATES.len())];
            let words: Vec<String> = template.split(' ').map(|token| word(token, &mut rng)).collect();
            theirs.run(&words.join(" "));
            ours.run(&words.join(" "));
        }
        for key in ["s0", "s1"] {
            theirs.send(&[b"DUMP".to_vec(), key.into()]);
            let reply = theirs.read();
            if reply == b"$-1\r\n" {
                continue;
            }
            restore(&mut ours, "theirs", payload(&reply));
            for command in ["XRANGE KEY - +", "XINFO STREAM KEY", "XPENDING KEY g0", "XPENDING KEY g1"] {
                let here = ours.run(&command.replace("KEY", "theirs"));
                assert_eq!(
                    here.replace("theirs", key),
                    theirs.run(&command.replace("KEY", key)),
                    "round {round}"
                );
            }
            ours.send(&[b"DUMP".to_vec(), key.into()]);
            let reply = ours.read();
            if reply == b"$-1\r\n" {
                continue;
            }
            restore(&mut ours, "again", payload(&reply));
            ours.send(&[b"DUMP".to_vec(), b"again".to_vec()]);
            assert!(ours.read() == reply, "round {round}: another payload");
            let (here, there) =
                (ours.run(&format!("XINFO STREAM {key} FULL")), ours.run("XINFO STREAM again FULL"));
            assert_eq!(here, there, "round {round}");
        }
    }
}

fn payload(reply: &[u8]) -> &[u8] {
    let head = reply.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
    &reply[head..reply.len() - 2]
}

fn restore(client: &mut Client, key: &str, payload: &[u8]) {
    let words = [b"RESTORE", key.as_bytes(), b"0", payload, b"REPLACE"];
    client.send(&words.map(<[u8]>::to_vec));
    assert_eq!(client.read(), b"+OK\r\n");
}

/// Damaged payloads are refused, or make streams that answer.
#[test]
fn damaged_payloads_do_no_harm() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    for number in 1..=30 {
        client.run(&format!("XADD s {number}-1 f {number} g text-{number}"));
    }
    client.run("XADD s 31-1 other names here 1");
    client.run("XDEL s 4-1 5-1");
    client.run("XGROUP CREATE s g 0");
    client.run("XREADGROUP GROUP g c COUNT 7 STREAMS s >");
    client.run("XREADGROUP GROUP g d COUNT 7 STREAMS s >");
    client.send(&[b"DUMP".to_vec(), b"s".to_vec()]);
    let reply = client.read();
    let whole = payload(&reply);
    let content = &whole[..whole.len() - 8];
    let mut rng = Rng::with_seed(9);
    let mut taken = 0;
    for _ in 0..4000 {
        let mut damaged = content.to_vec();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(1..damaged.len() - 2);
            damaged[at] = rng.u8(..);
        }
        // With the right checksum: what is tried is what is behind it.
        damaged.extend(anteroom::types::rdb::crc64(&damaged).to_le_bytes());
        client.send(&[b"RESTORE".to_vec(), b"t".to_vec(), b"0".to_vec(), damaged, b"REPLACE".to_vec()]);
        if client.read() == b"+OK\r\n" {
            taken += 1;
            for command in [
                "XRANGE t - +",
                "XREVRANGE t + - COUNT 3",
                "XINFO STREAM t FULL",
                "XAUTOCLAIM t g e 0 - COUNT 3",
                "XREADGROUP GROUP g c STREAMS t >",
                "XDEL t 7-1 8-1",
                "XADD t * a b",
                "XTRIM t MAXLEN 3",
            ] {
                client.run(command);
            }
        }
    }
    assert!(taken > 100, "{taken} were taken");
    assert_eq!(client.run("PING"), "+PONG\r\n");
    assert!(client.run("INFO stats").contains("\r\ncommand_panics:0\r\n"));
}

/// A stream behind the cache is written behind with its groups, and read from there.
#[test]
fn streams_are_rows() {
    let config = "[server]\ndir = \".\"\n[database]\nurl = \"sqlite:rows.db\"\nauto-create = true\n\
        [[database.rules]]\npattern = \"log:{id}\"\nmode = \"write-behind\"\n";
    let mut server = Server::configured(config, &[]);
    let mut client = server.client();
    for command in [
        "XADD log:1 1-1 f v",
        "XADD log:1 2-1 f w",
        "XADD log:1 3-1 g x",
        "XGROUP CREATE log:1 group 0",
        "XREADGROUP GROUP group c COUNT 2 STREAMS log:1 >",
        "XACK log:1 group 1-1",
        "XDEL log:1 3-1",
        "XADD log:2 1-1 f v",
        "XTRIM log:2 MAXLEN 0",
    ] {
        assert!(!client.run(command).starts_with('-'), "{command}");
    }
    let questions = [
        "XRANGE log:1 - +",
        "XINFO STREAM log:1",
        "XINFO GROUPS log:1",
        "XPENDING log:1 group",
        "XINFO STREAM log:2",
        "XLEN log:2",
    ];
    let answers = questions.map(|question| client.run(question));
    assert_eq!(client.run("DB.FLUSH"), "+OK\r\n");
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(questions.map(|question| client.run(question)), answers);
    // What comes next is behind what was there.
    assert!(
        client.run("XADD log:1 3-1 f v").starts_with("-ERR The ID specified in XADD is equal or smaller")
    );
    assert_eq!(client.run("XREADGROUP GROUP group c STREAMS log:1 0").matches("2-1").count(), 1);
}
