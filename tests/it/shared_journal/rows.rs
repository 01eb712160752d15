//! What rows look like through any of the hosts, and what becomes of them in the database.

use std::time::Duration;

use super::Hosts;
use crate::database::{NIL, bulk, flush, info, install_triggers, wait_for};
use crate::harness::Server;

#[test]
fn writes_load_what_they_depend_on_and_nothing_else() {
    let hosts = Hosts::start(2, "flush-interval = \"1h\"");
    let postgres = &hosts.postgres;
    postgres.sql(
        "INSERT INTO notes SELECT 'o', n::text, 'old' || n FROM generate_series(1, 20) n;
         INSERT INTO users (id, a, b) VALUES (1, 10, 20), (2, 10, 20)",
    );
    let [client, other] = &mut hosts.clients()[..] else { panic!() };
    for command in ["SET note:o:1 new", "MSET note:o:2 new note:o:3 new", "SET note:o:4 new PX 100000"] {
        assert_eq!(client.run(command), "+OK\r\n");
    }
    assert_eq!(info(&hosts.hosts[0], "writebehind_loads"), 0, "a blind write loads nothing");
    assert_eq!(client.run("DEL note:o:5"), ":1\r\n");
    assert_eq!(client.run("DEL note:o:nothing"), ":0\r\n");
    assert_eq!(client.run("SET note:o:6 new NX"), NIL);
    assert_eq!(client.run("SET note:o:7 new GET"), bulk("old7"));
    assert_eq!(client.run("APPEND note:o:8 !"), ":5\r\n");
    assert_eq!(client.run("GETDEL note:o:9"), bulk("old9"));
    assert_eq!(client.run("RENAME note:o:10 note:o:moved"), "+OK\r\n");
    assert_eq!(client.run("EXISTS note:o:11 note:o:nothing"), ":1\r\n");
    assert_eq!(client.run("COPY note:o:12 note:o:copied"), ":1\r\n");
    assert_eq!(client.run("HINCRBY user:1 a 1"), ":11\r\n");
    assert_eq!(client.run("HDEL user:2 a"), ":1\r\n");
    // Nothing of it is in the database, and the other host sees all of it.
    assert_eq!(other.run("GET note:o:5"), NIL);
    assert_eq!(
        other.run("MGET note:o:1 note:o:7 note:o:9"),
        format!("*3\r\n{}{}{NIL}", bulk("new"), bulk("new"))
    );
    assert_eq!(other.run("HGETALL user:2"), format!("*2\r\n{}{}", bulk("b"), bulk("20")));
    assert_eq!(other.run("INCR note:o:5"), ":1\r\n");
    assert_eq!(other.run("DEL note:o:5"), ":1\r\n");
    flush(&hosts.hosts[1]);
    let rows =
        postgres.sql("SELECT title, body FROM notes WHERE title !~ '^1[0-9]|^20' OR title = '10' ORDER BY 1");
    let expected =
        ["1|new", "2|new", "3|new", "4|new", "6|old6", "7|new", "8|old8!", "copied|old12", "moved|old10"];
    assert_eq!(rows, expected);
    assert_eq!(postgres.sql("SELECT a, b FROM users ORDER BY id"), ["11|20", "NULL|20"]);
}

#[test]
fn two_hundred_who_ask_for_a_row_load_it_once() {
    let hosts = Hosts::start(1, "");
    hosts.postgres.sql("INSERT INTO notes VALUES ('a', 'b', 'c')");
    let mut clients: Vec<_> = (0..200).map(|_| hosts.hosts[0].client()).collect();
    let mut locker = hosts.postgres.session();
    locker.run("BEGIN; LOCK TABLE notes");
    clients.iter_mut().for_each(|client| client.send_raw(b"GET note:a:b\r\n"));
    assert_eq!(hosts.hosts[0].client().run("SET other x"), "+OK\r\n");
    locker.run("COMMIT");
    for client in &mut clients {
        assert_eq!(String::from_utf8(client.read()).unwrap(), bulk("c"));
    }
    assert_eq!(info(&hosts.hosts[0], "writebehind_loads"), 1);
}

/// A transaction loads what its commands depend on before any of them runs, lands whole, and respects what was watched.
#[test]
fn transactions_are_transactions() {
    let hosts = Hosts::start(2, "flush-interval = \"1h\"");
    hosts.postgres.sql("INSERT INTO users (id, a) VALUES (1, 10); INSERT INTO plain (id, a) VALUES (1, 20)");
    let [client, other] = &mut hosts.clients()[..] else { panic!() };
    for command in ["HINCRBY user:1 a 1", "HINCRBY plain:1 a 1", "GET x", "SET x 1", "DEL plain:2"] {
        if command.starts_with("HINCRBY user") {
            assert_eq!(client.run("MULTI"), "+OK\r\n");
        }
        assert_eq!(client.run(command), "+QUEUED\r\n");
    }
    assert_eq!(client.run("EXEC"), format!("*5\r\n:11\r\n:21\r\n{NIL}+OK\r\n:0\r\n"));
    assert_eq!(client.run("WATCH user:1 note:n:new"), "+OK\r\n");
    assert_eq!(client.run("HGET user:1 a"), bulk("11"));
    assert_eq!(other.run("HINCRBY user:1 a 1"), ":12\r\n");
    client.run("MULTI");
    client.run("HSET user:1 a 0");
    assert_eq!(client.run("EXEC"), "*-1\r\n");
    // Loading is no change.
    for (id, reply) in [(3, "*1\r\n:1\r\n"), (1, "*1\r\n:13\r\n")] {
        client.run(&format!("WATCH user:{id}"));
        client.run("MULTI");
        client.run(&format!("HINCRBY user:{id} a 1"));
        assert_eq!(client.run("EXEC"), reply);
    }
    // A command that is refused when it runs, and one when it is queued.
    client.run("MULTI");
    client.run("INCR user:1");
    client.run("HSET user:1 b 5");
    let reply = client.run("EXEC");
    assert!(reply.starts_with("*2\r\n-WRONGTYPE") && reply.ends_with(":1\r\n"), "{reply}");
    client.run("MULTI");
    assert!(client.run("HSET user:1").starts_with("-ERR wrong number"));
    assert!(client.run("EXEC").starts_with("-EXECABORT"));
    assert_eq!(client.run("EVAL return{redis.call('hincrby',KEYS[1],'a',1)} 1 user:4"), "*1\r\n:1\r\n");
    flush(&hosts.hosts[0]);
    assert_eq!(
        hosts.postgres.sql("SELECT id, a, b FROM users ORDER BY id"),
        ["1|13|5", "3|1|NULL", "4|1|NULL"]
    );
    assert_eq!(hosts.postgres.sql("SELECT a FROM plain"), ["21"]);
}

/// What the cache has forgotten before it was in the database comes back from there, never as of before.
#[test]
fn what_is_forgotten_before_it_is_flushed_is_not_lost() {
    let hosts = Hosts::start(2, "flush-interval = \"1h\"");
    let (mut redis, mut clients) = (hosts.redis.client(), hosts.clients());
    for round in 0..20 {
        let client = &mut clients[round % 2];
        assert_eq!(client.run(&format!("SET note:a:{round} {round}")), "+OK\r\n");
        assert_eq!(redis.run(&format!("UNLINK note:a:{round}")), ":1\r\n");
        assert_eq!(clients[(round + 1) % 2].run(&format!("GET note:a:{round}")), bulk(&round.to_string()));
        assert_eq!(redis.run(&format!("UNLINK note:a:{round}")), ":1\r\n");
        assert_eq!(clients[0].run(&format!("APPEND note:a:{round} x")), format!(":{}\r\n", 2 + round / 10));
        assert_eq!(clients[1].run(&format!("DEL note:a:{round}")), ":1\r\n");
        assert_eq!(clients[0].run(&format!("GET note:a:{round}")), NIL);
        // Also when the row would still be there, but for the deletion that waits.
        assert_eq!(clients[0].run(&format!("INCR note:a:{round}")), ":1\r\n");
    }
    flush(&hosts.hosts[0]);
    assert_eq!(hosts.postgres.sql("SELECT count(*), min(body), max(body) FROM notes"), ["20|1|1"]);
}

#[test]
fn emptying_the_cache_leaves_rows_and_journal_alone() {
    let hosts = Hosts::start(2, "flush-interval = \"1h\"");
    let [client, other] = &mut hosts.clients()[..] else { panic!() };
    for command in ["FLUSHALL", "FLUSHDB", "CACHE.INVALIDATE *"] {
        client.run("SET note:a:b row");
        client.run("SET cached value");
        assert!(!client.run(command).starts_with('-'), "{command}");
        assert_eq!(other.run("GET cached"), NIL);
        assert_eq!(other.run("GET note:a:b"), bulk("row"), "{command}");
        assert_eq!(other.run("DEL note:a:b"), ":1\r\n");
    }
    assert!(client.run("SWAPDB 0 1").starts_with("-ERR SWAPDB would take the journal"));
    client.run("MULTI");
    client.run("FLUSHALL");
    assert!(client.run("EXEC").starts_with("-ERR in a transaction, database 0 cannot be emptied"));
    assert!(client.run("BLPOP any:list 1").starts_with("-ERR commands that block"));
    assert!(client.run("MOVE any:list 1").starts_with("-ERR rows of the database are not moved"));
    client.run("SELECT 1");
    // The rules are about database 0.
    assert_eq!(client.run("SET note:a:b elsewhere"), "+OK\r\n");
    assert!(client.run("COPY note:a:b note:a:c DB 0").starts_with("-ERR rows of the database are not"));
    assert_eq!(client.run("FLUSHDB"), "+OK\r\n");
    flush(&hosts.hosts[1]);
    assert_eq!(hosts.postgres.sql("SELECT count(*) FROM notes"), ["0"]);
}

/// A change by others is seen on all hosts; those of the hosts themselves cost nothing.
#[test]
fn the_cache_follows_the_database() {
    let hosts = Hosts::start(2, "flush-interval = \"10ms\"");
    hosts.postgres.sql("INSERT INTO notes VALUES ('a', 'b', 'old')");
    install_triggers(&hosts.postgres, &hosts.hosts[0]);
    let mut clients = hosts.clients();
    // What was changed before anybody listened is unknown.
    let caught = |host: &Server| host.log().contains("loaded anew");
    wait_for(|| hosts.hosts.iter().any(caught));
    for turn in 0..10 {
        clients.iter_mut().for_each(|client| assert!(!client.run("GET note:a:b").is_empty()));
        hosts.postgres.sql(&format!("UPDATE notes SET body = 'new{turn}'"));
        for client in &mut clients {
            wait_for(|| client.run("GET note:a:b") == bulk(&format!("new{turn}")));
        }
    }
    hosts.postgres.sql("DELETE FROM notes");
    for client in &mut clients {
        wait_for(|| client.run("GET note:a:b") == NIL);
    }
    let loads = || hosts.hosts.iter().map(|host| info(host, "writebehind_loads")).sum::<i64>();
    // Once both hosts have heard of the deletion: one of them may be late, and drops then what it need not.
    wait_for(|| {
        clients[0].run("SET note:a:b mine");
        flush(&hosts.hosts[1]);
        let before = loads();
        std::thread::sleep(Duration::from_millis(300));
        clients.iter_mut().for_each(|client| assert_eq!(client.run("GET note:a:b"), bulk("mine")));
        loads() == before
    });
    hosts.postgres.sql("TRUNCATE notes");
    for client in &mut clients {
        wait_for(|| client.run("GET note:a:b") == NIL);
    }
}

/// The result of a query is dropped on all hosts, whichever of them changed a table.
#[test]
fn results_of_queries_follow_all_hosts() {
    let query = "[database.queries.all]\nsql = 'SELECT body FROM notes ORDER BY body'\nttl = '1h'\ntables = ['notes']\n";
    let hosts =
        Hosts::with_rules(2, "flush-interval = \"10ms\"", &format!("{query}{}", crate::database::RULES));
    install_triggers(&hosts.postgres, &hosts.hosts[0]);
    let mut clients = hosts.clients();
    for turn in 0..4 {
        assert_eq!(clients[turn % 2].run(&format!("SET note:a:{turn} v{turn}")), "+OK\r\n");
        for client in &mut clients {
            wait_for(|| client.run("DB.QUERY all").contains(&format!("v{turn}")));
        }
    }
}

/// That a row is absent is known to all hosts for a while, until one of them writes it; and what a rule only reads is
/// never written.
#[test]
fn absent_rows_are_remembered_and_read_through_rules_write_nothing() {
    let of = |pattern: &str, more: &str| {
        format!(
            "[[database.rules]]\npattern = '{pattern}:{{owner}}:{{title}}'\ntable = 'notes'\n\
             key = {{ owner = 'owner', title = 'title' }}\nvalue = 'body'\n{more}\n"
        )
    };
    let rules = of("neg", "negative-ttl = '2s'") + &of("ro", "mode = 'read-through'\nttl = '500ms'");
    let hosts = Hosts::with_rules(2, "flush-interval = '10ms'", &rules);
    let [client, other] = &mut hosts.clients()[..] else { panic!() };
    let sql = |text: &str| hosts.postgres.sql(text);
    assert_eq!(client.run("GET neg:a:b"), NIL);
    sql("INSERT INTO notes VALUES ('a', 'b', 'x')");
    assert_eq!(other.run("GET neg:a:b"), NIL);
    wait_for(|| client.run("GET neg:a:b") == bulk("x"));
    assert_eq!(client.run("GET neg:a:c"), NIL);
    assert_eq!(other.run("SET neg:a:c y"), "+OK\r\n");
    wait_for(|| client.run("GET neg:a:c") == bulk("y"));
    assert_eq!(client.run("GET ro:a:b"), bulk("x"));
    assert!(client.run("PTTL ro:a:b").starts_with(':'));
    assert_eq!(other.run("SET ro:a:b cache"), "+OK\r\n");
    wait_for(|| client.run("GET ro:a:b") == bulk("cache"));
    assert_eq!(other.run("APPEND ro:a:b !"), ":6\r\n");
    assert_eq!(other.run("DEL ro:a:b"), ":1\r\n");
    flush(&hosts.hosts[0]);
    assert_eq!(sql("SELECT title, body FROM notes ORDER BY 1"), ["b|x", "c|y"]);
    wait_for(|| client.run("GET ro:a:b") == bulk("x"));
    sql("UPDATE notes SET body = 'newer'");
    wait_for(|| client.run("GET ro:a:b") == bulk("newer"));
}

/// More rows than a script can be given arguments, or an entry fields.
#[test]
fn a_command_on_very_many_rows_is_one() {
    const ROWS: usize = 20_000;
    let hosts = Hosts::start(1, "flush-interval = \"1h\"");
    let mut client = hosts.hosts[0].client();
    let pairs: String = (0..ROWS).map(|number| format!(" note:m:{number} {number}")).collect();
    assert_eq!(client.run(&format!("MSET{pairs}")), "+OK\r\n");
    assert_eq!(hosts.redis.client().run("XLEN anteroom:{journal}:stream"), ":1\r\n");
    flush(&hosts.hosts[0]);
    assert_eq!(hosts.postgres.sql("SELECT count(*) FROM notes WHERE title = body"), [ROWS.to_string()]);
    let keys: String = (0..ROWS).map(|number| format!(" note:m:{number}")).collect();
    assert_eq!(client.run(&format!("DEL{keys} note:m:none")), format!(":{ROWS}\r\n"));
    flush(&hosts.hosts[0]);
    assert_eq!(hosts.postgres.sql("SELECT count(*) FROM notes"), ["0"]);
}
