//! Numbers at the edges of their types, in every argument that is one: Redis's reply, and never a panic.

use anteroom::commands::table::COMMANDS;
use fastrand::Rng;

use crate::differential::same;
use crate::generator::Comparison;
use crate::harness::{Client, Server, encode};

const EDGES: &[&str] = &[
    "-9223372036854775809",
    "-9223372036854775808",
    "-9223372036854775807",
    "9223372036854775806",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775",
    "-9223372036854775",
    "9223372036854776",
    "4611686018427387904",
    "-4611686018427387904",
    "4294967295",
    "4294967296",
    "-4294967296",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "-1",
    "-0.0001",
    "0",
    "1",
    "",
    " 1",
    "1 ",
    "+1",
    "01",
    "-0",
    "0x10",
    "1.5",
    "1e308",
    "-1e308",
    "1e400",
    "-1e400",
    "1e-400",
    "inf",
    "-inf",
    "nan",
    "99999999999999999999999999",
    "1e4932",
    "1e5000",
];

/// `@` stands for the number under test; where there are several, the others are 1 meanwhile.
const TEMPLATES: &[&str] = &[
    "SELECT @",
    "SWAPDB @ @",
    "MOVE str @",
    "COPY str dst DB @",
    "WAIT 0 @",
    "SLOWLOG GET @",
    "HELLO @",
    "MEMORY USAGE str SAMPLES @",
    "CLIENT KILL ID @",
    "CLIENT UNBLOCK @",
    "CLIENT LIST ID @",
    "SCAN @ COUNT 5",
    "SCAN 0 COUNT @",
    "HSCAN h @",
    "HSCAN h 0 COUNT @",
    "SSCAN s 0 COUNT @",
    "ZSCAN z @ COUNT @",
    "OBJECT ENCODING @",
    "EXPIRE str @",
    "PEXPIRE str @",
    "EXPIREAT str @",
    "PEXPIREAT str @",
    "EXPIRE str @ GT",
    "EXPIRE str @ LT",
    "SET str v EX @",
    "SET str v PX @",
    "SET str v EXAT @",
    "SET str v PXAT @",
    "SETEX str @ v",
    "PSETEX str @ v",
    "GETEX str EX @",
    "GETEX str PX @",
    "GETEX str EXAT @",
    "GETEX str PXAT @",
    "SET n @",
    "APPEND n @",
    "INCRBY n @",
    "DECRBY n @",
    "INCRBYFLOAT n @",
    "INCRBY max @",
    "DECRBY max @",
    "INCRBY min @",
    "DECRBY min @",
    "INCRBYFLOAT max @",
    "GETRANGE str @ @",
    "SUBSTR str @ @",
    "SETRANGE str @ v",
    "SETRANGE str @ ",
    "LCS str n",
    "LCS str n IDX MINMATCHLEN @",
    "SETBIT str @ 1",
    "SETBIT str 3 @",
    "GETBIT str @",
    "BITCOUNT str @ @",
    "BITCOUNT str @ @ BIT",
    "BITPOS str @",
    "BITPOS str 1 @ @",
    "BITPOS str 0 @ @ BIT",
    "BITFIELD str GET u@ 0",
    "BITFIELD str GET i@ 0",
    "BITFIELD str GET u8 @",
    "BITFIELD str GET u8 #@",
    "BITFIELD str SET u8 @ @",
    "BITFIELD str INCRBY i64 0 @",
    "BITFIELD max INCRBY i64 0 @ INCRBY u63 0 @",
    "BITFIELD str OVERFLOW SAT INCRBY i5 0 @",
    "BITFIELD str OVERFLOW FAIL INCRBY u63 0 @",
    "BITFIELD_RO str GET i64 @",
    "HINCRBY h n @",
    "HINCRBY h max @",
    "HINCRBYFLOAT h n @",
    "HINCRBYFLOAT h max @",
    "HRANDFIELD none @",
    "HRANDFIELD none @ WITHVALUES",
    "LINDEX l @",
    "LSET l @ v",
    "LRANGE l @ @",
    "LTRIM l @ @",
    "LREM l @ a",
    "LPOP l @",
    "RPOP l @",
    "LPOS l a RANK @",
    "LPOS l a COUNT @",
    "LPOS l a MAXLEN @",
    "LPOS l a RANK @ COUNT @",
    "LMPOP @ l LEFT",
    "LMPOP 1 l LEFT COUNT @",
    "BLMPOP @ 1 l LEFT COUNT @",
    "BLPOP l @",
    "BRPOP l @",
    "BLMOVE l l LEFT RIGHT @",
    "BRPOPLPUSH l l @",
    "SPOP one @",
    "SPOP none @",
    "SRANDMEMBER none @",
    "SINTERCARD @ s one",
    "SINTERCARD 1 s LIMIT @",
    "ZADD z @ m",
    "ZADD z GT @ a",
    "ZADD z INCR @ a",
    "ZADD z LT CH @ a",
    "ZINCRBY z @ a",
    "ZRANGE z @ @",
    "ZRANGE z @ @ BYSCORE",
    "ZRANGE z -inf +inf BYSCORE LIMIT @ @",
    "ZRANGE z - + BYLEX LIMIT @ @",
    "ZREVRANGE z @ @",
    "ZRANGEBYSCORE z @ @",
    "ZRANGEBYSCORE z (@ (@ WITHSCORES",
    "ZREVRANGEBYSCORE z @ -inf",
    "ZRANGEBYSCORE z -inf +inf LIMIT @ @",
    "ZRANGEBYLEX z [@ [@",
    "ZCOUNT z @ @",
    "ZREMRANGEBYRANK z @ @",
    "ZREMRANGEBYSCORE z @ @",
    "ZPOPMIN z @",
    "ZPOPMAX z @",
    "ZMPOP @ z MIN",
    "ZMPOP 1 z MAX COUNT @",
    "BZMPOP @ 1 z MIN COUNT @",
    "BZPOPMIN z @",
    "BZPOPMAX z @",
    "ZRANDMEMBER none @",
    "ZRANDMEMBER none @ WITHSCORES",
    "ZRANGESTORE dst z @ @",
    "ZRANGESTORE dst z -inf +inf BYSCORE LIMIT @ @",
    "ZUNION @ z",
    "ZUNION 1 z WEIGHTS @ WITHSCORES",
    "ZUNIONSTORE dst @ z",
    "ZUNIONSTORE dst 2 z z WEIGHTS @ @",
    "ZINTER @ z",
    "ZINTERCARD @ z",
    "ZINTERCARD 1 z LIMIT @",
    "ZDIFF @ z",
    "ZINTERSTORE dst @ z z",
    "ZDIFFSTORE dst @ z",
    "SORT l ALPHA LIMIT @ @",
    "SORT_RO s ALPHA LIMIT @ @",
    "GEOADD g @ @ m",
    "GEOPOS g a",
    "GEODIST g a b",
    "GEOSEARCH g FROMLONLAT @ @ BYRADIUS @ km",
    "GEOSEARCH g FROMMEMBER a BYBOX @ @ km ASC COUNT @",
    "GEORADIUS g @ @ @ m",
    "GEORADIUS g 15 37 200 km ASC COUNT @",
    "GEORADIUSBYMEMBER g a @ km COUNT @ ASC",
    "GEOSEARCHSTORE dst g FROMMEMBER a BYRADIUS @ km COUNT @",
    "XADD x @-@ f v",
    "XADD x MAXLEN @ 5000000000-* f v",
    "XRANGE x @ @ COUNT @",
    "XREVRANGE x @ @ COUNT @",
    "XTRIM x MAXLEN @",
    "XTRIM x MAXLEN ~ @ LIMIT @",
    "XTRIM x MINID @",
    "XREAD COUNT @ STREAMS x @",
    "XDEL x @-@",
    "XSETID x @-@",
];

const SETUP: &str = "FLUSHALL|SELECT 0|SET str abcdefghij|SET n 10|SET max 9223372036854775807|SET min -9223372036854775808|\
    RPUSH l a b c a b c a b c|SADD s a b c|SADD one a|HSET h n 1 f v max 9223372036854775807|ZADD z 1 a 2 b 3 c|\
    GEOADD g 13.361389 38.115556 a 15.087269 37.502669 b";

/// What is looked at after each command.
const PROBES: &str = "GET str|GET n|GET max|GET min|LRANGE l 0 -1|SCARD one|HMGET h n f max|ZRANGE z 0 -1 WITHSCORES|\
    ZCARD g|EXISTS dst|DBSIZE|SELECT 0";

fn words(command: &str) -> Vec<Vec<u8>> {
    command.split(' ').map(|word| word.as_bytes().to_vec()).collect()
}

fn lines(commands: &str) -> Vec<u8> {
    commands.split('|').flat_map(|command| encode(&words(command))).collect()
}

/// The template with the edge in the place of its `at`-th number.
fn fill(template: &str, at: usize, edge: &str) -> Vec<Vec<u8>> {
    let mut parts = template.split('@');
    let mut text = parts.next().unwrap_or_default().replace(' ', "\0");
    for (seen, part) in parts.enumerate() {
        text += if seen == at { edge } else { "1" };
        text += &part.replace(' ', "\0");
    }
    text.split('\0').map(|word| word.as_bytes().to_vec()).collect()
}

/// Where Redis 7.0 does something else than 7.2, which Anteroom follows, or what C leaves undefined.
fn is_reviewed(template: &str, edge: &str) -> bool {
    // 7.2 refuses a time that is beyond what 64 bits of milliseconds can hold from now on; 7.0 lets it wrap.
    let waits = ["BLMPOP @", "BLPOP", "BRPOP", "BLMOVE", "BZMPOP @", "BZPOP", "WAIT"];
    let is_far = edge.parse().is_ok_and(|value: f64| value.abs() > 9e15);
    waits.iter().any(|start| template.starts_with(start)) && is_far
        // 7.2 refuses a rank that cannot be negated.
        || template.starts_with("LPOS l a RANK") && edge == "-9223372036854775808"
        // A product that overflows.
        || template.contains("#@") && edge.parse().is_ok_and(|value: i64| value.checked_mul(8).is_none())
}

fn compare(protocol: u8) {
    let (our_server, their_server) = (Server::anteroom(&[]), Server::redis());
    let (mut ours, mut theirs) = (our_server.client(), their_server.client());
    for client in [&mut ours, &mut theirs] {
        client.run(&format!("HELLO {protocol}"));
        assert_eq!(client.run("CONFIG SET proto-max-bulk-len 1048576"), "+OK\r\n");
    }
    let (setup, probes) = (lines(SETUP), lines(PROBES));
    let (setups, probed) = (SETUP.split('|').count(), PROBES.split('|').count());
    let mut faults = Vec::new();
    for template in TEMPLATES {
        let name = template.split(' ').next().unwrap_or_default();
        if COMMANDS.get(name.as_bytes()).is_none() {
            continue;
        }
        for at in 0..template.matches('@').count().max(1) {
            for edge in EDGES {
                if is_reviewed(template, edge) {
                    continue;
                }
                let command = fill(template, at, edge);
                let mut batch = setup.clone();
                batch.extend(encode(&command));
                if name == "HELLO" {
                    batch.extend(lines(&format!("HELLO {protocol}")));
                }
                batch.extend(&probes);
                ours.send_raw(&batch);
                theirs.send_raw(&batch);
                let replies = setups + 1 + usize::from(name == "HELLO") + probed;
                for index in 0..replies {
                    let (our_reply, their_reply) = (ours.read(), theirs.read());
                    let is_equal = if matches!(name, "HELLO" | "MEMORY" | "SLOWLOG" | "CLIENT") {
                        same(&our_reply, &their_reply, Comparison::Kind)
                    } else if matches!(name, "SCAN" | "SSCAN" | "HSCAN" | "SORT_RO" | "SPOP")
                        && index == setups
                    {
                        our_reply == their_reply
                            || same(&our_reply, &their_reply, Comparison::Kind) && our_reply[0] != b'-'
                    } else {
                        same(&our_reply, &their_reply, Comparison::Exact)
                    };
                    if !is_equal {
                        faults.push(format!(
                            "{template} number {at} = {edge:?}, reply {}\n  ours   {:?}\n  theirs {:?}",
                            index as isize - setups as isize,
                            String::from_utf8_lossy(&our_reply),
                            String::from_utf8_lossy(&their_reply)
                        ));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} differences:\n{}", faults.len(), faults.join("\n"));
    no_panics(&mut ours);
}

fn no_panics(client: &mut Client) {
    let stats = client.run("INFO everything");
    let panics = stats.lines().find(|line| line.starts_with("command_panics:"));
    assert_eq!(panics, Some("command_panics:0"));
}

#[test]
fn every_number_at_its_edges_in_resp2() {
    compare(2);
}

#[test]
fn every_number_at_its_edges_in_resp3() {
    compare(3);
}

/// Commands that end or turn the conversation, or whose reply may have two thousand million elements.
const LEFT_OUT: &[&str] = &[
    "quit",
    "reset",
    "shutdown",
    "debug",
    "exec",
    "multi",
    "discard",
    "watch",
    "unwatch",
    "hello",
    "auth",
    "monitor",
    "client|reply",
    "client|kill",
    "client|pause",
    "subscribe",
    "psubscribe",
    "ssubscribe",
    "unsubscribe",
    "punsubscribe",
    "sunsubscribe",
    "srandmember",
    "hrandfield",
    "zrandmember",
    "config|set",
    "config|rewrite",
    "save",
    "bgsave",
];

#[test]
fn edges_in_every_argument_of_every_command_never_panic() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("CONFIG SET proto-max-bulk-len 1048576");
    let mut rng = Rng::with_seed(3);
    let commands: Vec<&str> = COMMANDS.iter().map(|command| command.name.as_str()).collect();
    for name in commands
        .iter()
        .filter(|name| !LEFT_OUT.iter().any(|left| name.split('|').next() == Some(left) || *name == left))
    {
        // In a transaction nothing waits.
        let mut batch = lines("FLUSHALL|SELECT 0|MULTI");
        let count = 150;
        for _ in 0..count {
            let mut command: Vec<Vec<u8>> = name.split('|').map(|word| word.as_bytes().to_vec()).collect();
            for _ in 0..rng.usize(..8) {
                command.push(EDGES[rng.usize(..EDGES.len())].as_bytes().to_vec());
            }
            batch.extend(encode(&command));
        }
        batch.extend(lines("DISCARD"));
        client.send_raw(&batch);
        (0..count + 4).for_each(|_| drop(client.read()));
    }
    no_panics(&mut client);
}
