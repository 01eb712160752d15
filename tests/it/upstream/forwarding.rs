//! Every command works, and its reply is the bytes that Redis sends.

use super::{Pair, calls, until};
use crate::differential::compare_server;
use crate::harness::{Server, encode};

/// Random commands, one at a time.
const COUNT: usize = 20_000;

/// Where scores differ, what a range by name finds depends on the levels of Redis's skip list: two Redis differ.
pub fn is_by_chance(command: &[Vec<u8>]) -> bool {
    command
        .iter()
        .any(|word| word.to_ascii_uppercase().ends_with(b"LEX") || word.eq_ignore_ascii_case(b"ZLEXCOUNT"))
}

#[test]
fn resp2_replies_are_those_of_redis() {
    let pair = Pair::start("");
    compare_server(&pair.anteroom, is_by_chance, 2, 0xabba, COUNT, "FLUSHALL");
}

#[test]
fn resp3_replies_are_those_of_redis() {
    let pair = Pair::start("");
    compare_server(&pair.anteroom, is_by_chance, 3, 0xacdc, COUNT, "FLUSHALL");
}

#[test]
fn a_pipeline_of_all_sorts_keeps_its_order() {
    let (pair, other) = (Pair::start(""), Server::redis());
    for protocol in [2, 3] {
        let (mut ours, mut theirs) = (pair.anteroom.client(), other.client());
        let commands = [
            "SET a 1",
            "GET a",
            "INCR a",
            "GET a",
            "PING",
            "SELECT 3",
            "GET a",
            "SET a three",
            "GET a",
            "SELECT 0",
            "GET a",
            "XADD s 1-1 f v",
            "XRANGE s - +",
            "GET a",
            "XREAD STREAMS s 0",
            "EVAL return{redis.call('incr',KEYS[1])} 1 a",
            "GET a",
            "MGET a b a",
            "MULTI",
            "INCR a",
            "GET a",
            "XLEN s",
            "EXEC",
            "GET a",
            "NOSUCH x",
            "GET",
            "LPUSH l 1 2",
            "LPOP l 5",
            "LPOP l 5",
            "ECHO end",
            "DEL a s l",
            "GET a",
            "MULTI",
            "SELECT 2",
            "SET z 1",
            "EXEC",
            "GET z",
            "DEL z",
            "SELECT 0",
            "GET z",
            "MULTI",
            "NOSUCH",
            "EXEC",
            "MULTI",
            "DISCARD",
            "EXEC",
            "UNWATCH",
            "OBJECT HELP",
            "SELECT 99",
        ];
        let words =
            |command: &str| command.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
        for round in 0..3 {
            for client in [&mut ours, &mut theirs] {
                client.run(&format!("HELLO {protocol}"));
            }
            let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(&words(command))).collect();
            let mut replies = Vec::new();
            for client in [&mut ours, &mut theirs] {
                client.send_raw(&bytes);
                replies.push(commands.map(|_| String::from_utf8_lossy(&client.read()).into_owned()));
            }
            for (index, command) in commands.iter().enumerate() {
                assert_eq!(replies[0][index], replies[1][index], "round {round}, {command}");
            }
        }
    }
}

#[test]
fn a_pipeline_is_one_trip_and_many_clients_share_connections() {
    let pair = Pair::start("");
    let mut redis = pair.redis.client();
    let mut clients: Vec<_> = (0..300).map(|_| pair.anteroom.client()).collect();
    for (index, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.run(&format!("SET k{index} {index}")), "+OK\r\n");
    }
    for (index, client) in clients.iter_mut().enumerate() {
        let text = index.to_string();
        assert_eq!(client.run(&format!("GET k{index}")), format!("${}\r\n{text}\r\n", text.len()));
    }
    let list = redis.run("CLIENT LIST");
    let count = list.matches("name=anteroom").count();
    assert!((1..=16).contains(&count), "{count} connections");
    let mut client = pair.anteroom.client();
    client.send_raw(&b"*3\r\n$6\r\nAPPEND\r\n$1\r\na\r\n$1\r\nx\r\n".repeat(10_000));
    for length in 1..=10_000 {
        assert_eq!(client.read(), format!(":{length}\r\n").into_bytes());
    }
}

#[test]
fn databases_are_each_clients_own() {
    let pair = Pair::start("");
    let mut clients: Vec<_> = (0..16).map(|_| pair.anteroom.client()).collect();
    for (db, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.run(&format!("SELECT {db}")), "+OK\r\n");
    }
    for round in 0..20 {
        for (db, client) in clients.iter_mut().enumerate() {
            assert_eq!(client.run(&format!("SET k {db}:{round}")), "+OK\r\n");
        }
        for (db, client) in clients.iter_mut().enumerate() {
            let text = format!("{db}:{round}");
            assert_eq!(client.run("GET k"), format!("${}\r\n{text}\r\n", text.len()));
        }
    }
    let third = Server::anteroom(&["--upstream", &format!("redis://127.0.0.1:{}/3", pair.redis.port)]);
    assert_eq!(third.client().run("GET k"), "$4\r\n3:19\r\n");
}

#[test]
fn watched_keys_abort_a_transaction() {
    let pair = Pair::start("");
    let (mut ours, mut theirs) = pair.clients();
    let mut other = pair.anteroom.client();
    for interloper in [false, true] {
        theirs.run("SET k 1");
        assert_eq!(ours.run("WATCH k"), "+OK\r\n");
        assert_eq!(ours.run("GET k"), "$1\r\n1\r\n");
        if interloper {
            assert_eq!(other.run("SET k 2"), "+OK\r\n");
        }
        assert_eq!(
            (ours.run("MULTI"), ours.run("SET k 3")),
            ("+OK\r\n".to_owned(), "+QUEUED\r\n".to_owned())
        );
        assert_eq!(ours.run("EXEC"), if interloper { "*-1\r\n" } else { "*1\r\n+OK\r\n" });
        let value = if interloper { "$1\r\n2\r\n" } else { "$1\r\n3\r\n" };
        assert_eq!((other.run("GET k"), ours.run("GET k")), (value.to_owned(), value.to_owned()));
    }
    ours.run("WATCH k");
    other.run("SET k 5");
    assert_eq!(ours.run("UNWATCH"), "+OK\r\n");
    ours.run("MULTI");
    ours.run("GET k");
    assert_eq!(ours.run("EXEC"), "*1\r\n$1\r\n5\r\n");
    // The connections are for the next to use.
    let connects = theirs.run("INFO stats");
    for _ in 0..20 {
        ours.run("WATCH k");
        ours.run("MULTI");
        ours.run("EXEC");
    }
    let received = |info: &str| {
        info.lines()
            .find_map(|line| line.strip_prefix("total_connections_received:")?.trim().parse::<u64>().ok())
            .unwrap()
    };
    assert!(received(&theirs.run("INFO stats")) <= received(&connects) + 2);
}

#[test]
fn blocked_clients_wait_upstream_and_hold_up_nobody() {
    let pair = Pair::start("");
    let (mut ours, mut theirs) = pair.clients();
    let mut other = pair.anteroom.client();
    ours.send(&[b"BLPOP".to_vec(), b"q".to_vec(), b"0".to_vec()]);
    until("it blocks", || theirs.run("INFO clients").contains("blocked_clients:1"));
    assert_eq!(other.run("SET k 1"), "+OK\r\n");
    theirs.run("RPUSH q v");
    assert_eq!(ours.read(), b"*2\r\n$1\r\nq\r\n$1\r\nv\r\n");
    assert_eq!(ours.run("BLPOP q 0.05"), "*-1\r\n");
    // A client that goes away unblocks.
    let mut gone = pair.anteroom.client();
    gone.send(&[b"BLPOP".to_vec(), b"q".to_vec(), b"0".to_vec()]);
    until("it blocks", || theirs.run("INFO clients").contains("blocked_clients:1"));
    drop(gone);
    until("it does not block", || theirs.run("INFO clients").contains("blocked_clients:0"));
}

#[test]
fn subscriptions_come_through_and_end() {
    let pair = Pair::start("");
    let mut theirs = pair.redis.client();
    for protocol in [2, 3] {
        let mut ours = pair.anteroom.client();
        ours.run(&format!("HELLO {protocol}"));
        let mark = if protocol == 2 { '*' } else { '>' };
        assert_eq!(ours.run("SUBSCRIBE a b"), format!("{mark}3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"));
        assert_eq!(ours.read(), format!("{mark}3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n").into_bytes());
        assert_eq!(theirs.run("PUBLISH a hello"), ":1\r\n");
        assert_eq!(
            ours.read(),
            format!("{mark}3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n").into_bytes()
        );
        if protocol == 2 {
            assert!(ours.run("GET k").starts_with("-ERR Can't execute 'get': only (P|S)SUBSCRIBE"));
            assert_eq!(ours.run("PING"), "*2\r\n$4\r\npong\r\n$0\r\n\r\n");
        } else {
            assert_eq!(ours.run("SET k v"), "+OK\r\n");
        }
        ours.run("UNSUBSCRIBE");
        ours.read();
        theirs.run("SET k w");
        until("it sees the write", || ours.run("GET k") == "$1\r\nw\r\n");
        until("nobody is subscribed", || theirs.run("PUBLISH a x") == ":0\r\n");
    }
    let mut many = pair.anteroom.client();
    let channels: Vec<String> = (0..3000).map(|index| format!("c{index}")).collect();
    many.run(&format!("SUBSCRIBE {}", channels.join(" ")));
    (1..3000).for_each(|_| drop(many.read()));
    assert_eq!(theirs.run("PUBLISH c2999 x"), ":1\r\n");
    assert_eq!(many.read(), b"*3\r\n$7\r\nmessage\r\n$5\r\nc2999\r\n$1\r\nx\r\n");
}

#[test]
fn replies_that_are_not_wanted_do_not_come() {
    let pair = Pair::start("");
    let mut ours = pair.anteroom.client();
    let silent =
        "CLIENT REPLY OFF\r\nSET k 1\r\nGET k\r\nGET k\r\nMGET k k\r\nNOSUCH\r\nCLIENT REPLY ON\r\nGET k\r\n";
    ours.send_raw(silent.as_bytes());
    assert_eq!((ours.read(), ours.read()), (b"+OK\r\n".to_vec(), b"$1\r\n1\r\n".to_vec()));
    ours.send_raw(b"CLIENT REPLY SKIP\r\nINCR k\r\nGET k\r\nCLIENT REPLY SKIP\r\nGET k\r\nECHO x\r\n");
    assert_eq!((ours.read(), ours.read()), (b"$1\r\n2\r\n".to_vec(), b"$1\r\nx\r\n".to_vec()));
}

#[test]
fn what_cannot_be_shared_is_refused_and_local_commands_are_local() {
    let pair = Pair::start("");
    let mut ours = pair.anteroom.client();
    for (command, reply) in [
        ("WAIT 0 0", "-ERR WAIT counts"),
        ("PSYNC ? -1", "-ERR Anteroom is no place"),
        ("CONFIG GET port", "*2\r\n$4\r\nport\r\n"),
        ("CLIENT ID", ":"),
        ("RATELIMIT.TAKE r 5 1000", "*5\r\n:0\r\n:5\r\n:4\r\n"),
    ] {
        let said = ours.run(command);
        assert!(said.starts_with(reply), "{command}: {said}");
    }
    ours.run("MULTI");
    assert!(ours.run("RATELIMIT.TOP").contains("cannot be part of a transaction"));
    assert!(ours.run("EXEC").starts_with("-EXECABORT"));
}

#[test]
fn it_logs_in_with_user_and_password() {
    let redis = Server::redis();
    redis.client().run("ACL SETUSER app on >se:cret@ ~* +@all");
    redis.client().run("ACL SETUSER default off");
    let url = format!("redis://app:se%3Acret%40@127.0.0.1:{}", redis.port);
    let anteroom = Server::anteroom(&["--upstream", &url]);
    assert_eq!(anteroom.client().run("SET k v"), "+OK\r\n");
    let wrong = Server::anteroom(&["--upstream", &format!("redis://app:wrong@127.0.0.1:{}", redis.port)]);
    let said = wrong.client().run("GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && said.contains("WRONGPASS"), "{said}");
}

#[test]
fn keys_may_stay_here_or_not_be_kept() {
    let pair = Pair::start(
        "[[keys]]\npattern = \"here:*\"\ntier = \"local\"\n[[keys]]\npattern = \"raw:*\"\ntier = \"bypass\"",
    );
    let (mut ours, mut theirs) = pair.clients();
    assert_eq!(ours.run("SET here:a 1"), "+OK\r\n");
    assert_eq!(
        (ours.run("GET here:a"), theirs.run("GET here:a")),
        ("$1\r\n1\r\n".to_owned(), "$-1\r\n".to_owned())
    );
    assert!(ours.run("MSET here:a 1 there 2").starts_with("-CROSSTIER"));
    ours.send_raw(b"SET there 2\r\nGET here:a\r\nGET there\r\nINCR here:a\r\n");
    let replies: Vec<Vec<u8>> = (0..4).map(|_| ours.read()).collect();
    assert_eq!(replies, [&b"+OK\r\n"[..], b"$1\r\n1\r\n", b"$1\r\n2\r\n", b":2\r\n"]);
    theirs.run("SET raw:a 1");
    let before = calls(&mut theirs, "get");
    (0..5).for_each(|_| assert_eq!(ours.run("GET raw:a"), "$1\r\n1\r\n"));
    assert_eq!(calls(&mut theirs, "get"), before + 5);
}
