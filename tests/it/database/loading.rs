//! Rows come into the cache when they are asked for: once, and only where a command needs them.

use super::{NIL, bulk, config, flush, info, serve, start, wait_for};
use crate::harness::Server;
use crate::postgres::Postgres;

fn loads(server: &Server) -> i64 {
    info(server, "writebehind_loads")
}

#[test]
fn two_hundred_who_ask_for_a_row_load_it_once() {
    let (postgres, server) = start("");
    postgres.sql("INSERT INTO notes VALUES ('a', 'b', 'c')");
    let mut clients: Vec<_> = (0..200).map(|_| server.client()).collect();
    let mut locker = postgres.session();
    locker.run("BEGIN; LOCK TABLE notes");
    clients.iter_mut().for_each(|client| client.send_raw(b"GET note:a:b\r\n"));
    // A command of another connection goes on meanwhile.
    assert_eq!(server.client().run("SET other x"), "+OK\r\n");
    locker.run("COMMIT");
    for client in &mut clients {
        assert_eq!(String::from_utf8(client.read()).unwrap(), bulk("c"));
    }
    assert_eq!(loads(&server), 1);
}

#[test]
fn absent_rows_are_remembered_for_a_while() {
    let rules = "[[database.rules]]\npattern = 'neg:{id}'\ntable = 'texts'\nkey = { id = 'id' }\nvalue = 'body'\n\
        negative-ttl = '3s'";
    let postgres = Postgres::start();
    postgres.sql("CREATE TABLE texts (id TEXT PRIMARY KEY, body TEXT)");
    let server = serve(&config(&postgres.url(), "flush-interval = '10ms'", rules), &[]);
    let mut client = server.client();
    (0..20).for_each(|_| assert_eq!(client.run("GET neg:1"), NIL));
    assert_eq!(loads(&server), 1);
    postgres.sql("INSERT INTO texts VALUES ('1', 'x')");
    wait_for(|| client.run("GET neg:1") == bulk("x"));
    assert_eq!(loads(&server), 2);
    // A write ends it at once.
    assert_eq!(client.run("GET neg:2"), NIL);
    client.run("SET neg:2 y");
    assert_eq!(client.run("GET neg:2"), bulk("y"));
    assert_eq!(client.run("DEL neg:2"), ":1\r\n");
    flush(&server);
    assert_eq!(client.run("GET neg:2"), NIL);
    assert_eq!(postgres.sql("SELECT id FROM texts"), ["1"]);
}

#[test]
fn writes_load_what_they_depend_on_and_nothing_else() {
    let (postgres, server) = start("flush-interval = \"1h\"");
    postgres.sql(
        "INSERT INTO notes SELECT 'o', n::text, 'old' || n FROM generate_series(1, 20) n;
         INSERT INTO users (id, a, b) VALUES (1, 10, 20), (2, 10, 20)",
    );
    let mut client = server.client();
    for command in ["SET note:o:1 new", "MSET note:o:2 new note:o:3 new", "SET note:o:4 new PX 100000"] {
        assert_eq!(client.run(command), "+OK\r\n");
    }
    assert_eq!(loads(&server), 0, "a blind write loads nothing");
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
    assert_eq!(client.run("HGETALL user:2"), format!("*2\r\n{}{}", bulk("b"), bulk("20")));
    flush(&server);
    let rows =
        postgres.sql("SELECT title, body FROM notes WHERE title !~ '^1[0-9]|^20' OR title = '10' ORDER BY 1");
    let expected =
        ["1|new", "2|new", "3|new", "4|new", "6|old6", "7|new", "8|old8!", "copied|old12", "moved|old10"];
    assert_eq!(rows, expected);
    assert_eq!(postgres.sql("SELECT a, b FROM users ORDER BY id"), ["11|20", "NULL|20"]);
}

#[test]
fn lists_of_the_default_table_are_popped_by_those_who_wait() {
    let (_postgres, mut server) = start("flush-interval = \"10ms\"");
    let mut client = server.client();
    client.run("RPUSH any:list a b c d");
    flush(&server);
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("BLPOP any:none any:list 1"), format!("*2\r\n{}{}", bulk("any:list"), bulk("a")));
    assert_eq!(client.run("BLMOVE any:list any:other RIGHT LEFT 1"), bulk("d"));
    assert_eq!(client.run("BLPOP any:none 0.05"), "*-1\r\n");
    let mut waiting = server.client();
    waiting.send_raw(b"BLMOVE any:empty any:other LEFT LEFT 0\r\n");
    wait_for(|| client.run("INFO clients").contains("blocked_clients:1"));
    assert_eq!(client.run("RPUSH any:empty x"), ":1\r\n");
    assert_eq!(String::from_utf8(waiting.read()).unwrap(), bulk("x"));
    flush(&server);
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("LRANGE any:list 0 -1"), format!("*2\r\n{}{}", bulk("b"), bulk("c")));
    assert_eq!(client.run("LRANGE any:other 0 -1"), format!("*2\r\n{}{}", bulk("x"), bulk("d")));
    assert_eq!(client.run("EXISTS any:empty"), ":0\r\n");
}

#[test]
fn a_read_through_rule_writes_nothing() {
    let rules = "[[database.rules]]\npattern = 'ro:{id}'\nmode = 'read-through'\ntable = 'texts'\n\
        key = { id = 'id' }\nvalue = 'body'\nttl = '1s'";
    let postgres = Postgres::start();
    postgres
        .sql("CREATE TABLE texts (id TEXT PRIMARY KEY, body TEXT); INSERT INTO texts VALUES ('1', 'row')");
    let server = serve(&config(&postgres.url(), "", rules), &[]);
    let mut client = server.client();
    assert_eq!(client.run("GET ro:1"), bulk("row"));
    assert!(client.run("PTTL ro:1").starts_with(":"));
    assert_eq!(client.run("SET ro:1 cache"), "+OK\r\n");
    assert_eq!(client.run("GET ro:1"), bulk("cache"));
    assert_eq!(client.run("DEL ro:1"), ":1\r\n");
    flush(&server);
    assert_eq!(postgres.sql("SELECT body FROM texts"), ["row"]);
    assert_eq!(client.run("GET ro:1"), bulk("row"));
    postgres.sql("UPDATE texts SET body = 'newer'");
    wait_for(|| client.run("GET ro:1") == bulk("newer"));
}

#[test]
fn a_row_that_cannot_be_loaded_is_an_error_and_ends_the_transaction() {
    let (mut postgres, server) = start("");
    let mut client = server.client();
    postgres.kill();
    assert!(client.run("GET note:a:b").starts_with("-DBERR cannot load the row"));
    assert_eq!(client.run("MULTI"), "+OK\r\n");
    assert_eq!(client.run("INCR any:1"), "+QUEUED\r\n");
    let aborted = "-EXECABORT Transaction discarded because of: DBERR cannot load the row";
    assert!(client.run("EXEC").starts_with(aborted));
    assert_eq!(client.run("PING"), "+PONG\r\n");
    assert_eq!(client.run("EXEC"), "-ERR EXEC without MULTI\r\n");
    postgres.restart();
    assert_eq!(client.run("GET note:a:b"), NIL);
    assert_eq!(client.run("INCR any:1"), ":1\r\n");
}
