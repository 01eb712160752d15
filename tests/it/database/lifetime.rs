//! What ends a key's life in the cache, and what that does to its row; and the end of the server.

use super::{NIL, bulk, config, flush, info, serve, start, wait_for};
use crate::harness::Server;
use crate::postgres::Postgres;

#[test]
fn a_deadline_deletes_the_row_or_keeps_it() {
    let rule = |name: &str, on_expire: &str| {
        format!(
            "[[database.rules]]\npattern = '{name}:{{id}}'\ntable = '{name}'\nkey = {{ id = 'id' }}\nvalue = 'body'\n\
             on-expire = '{on_expire}'\n"
        )
    };
    let rules = format!("{}{}", rule("kept", "keep"), rule("gone", "delete"));
    let postgres = Postgres::start();
    postgres.sql("CREATE TABLE kept (id TEXT PRIMARY KEY, body TEXT); CREATE TABLE gone (id TEXT PRIMARY KEY, body TEXT)");
    let server = serve(&config(&postgres.url(), "flush-interval = '10ms'", &rules), &[]);
    let mut client = server.client();
    for number in 0..10 {
        assert_eq!(client.run(&format!("SET kept:{number} x PX 300")), "+OK\r\n");
        assert_eq!(client.run(&format!("SET gone:{number} x PX 300")), "+OK\r\n");
    }
    client.run("SET gone:stays x");
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(*) FROM gone"), ["11"]);
    // Some are found by a command, the others by the sweep.
    wait_for(|| client.run("EXISTS gone:0 gone:1") == ":0\r\n");
    wait_for(|| postgres.sql("SELECT count(*) FROM gone") == ["1"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM kept"), ["10"]);
    assert_eq!(client.run("GET kept:3"), bulk("x"));
    assert_eq!(client.run("GET gone:3"), NIL);
}

#[test]
fn what_is_not_flushed_is_not_evicted() {
    let postgres = Postgres::start();
    postgres.sql(super::TABLES);
    let options = "flush-interval = '1h'\nbatch-size = 100000";
    let text = config(&postgres.url(), options, super::RULES);
    let server = serve(&text, &["--maxmemory", "24mb", "--maxmemory-policy", "allkeys-lru"]);
    let mut client = server.client();
    // When memory is full the server flushes at once: here it cannot.
    postgres.signal(libc::SIGSTOP);
    let value = "v".repeat(2000);
    let mut written = Vec::new();
    let refused = (0..20_000).find_map(|number| {
        let reply = client.run(&format!("SET any:{number} {value}{number}"));
        if reply == "+OK\r\n" {
            written.push(number);
            None
        } else {
            Some(reply)
        }
    });
    assert!(refused.is_some_and(|reply| reply.starts_with("-OOM ")), "memory has a bound");
    assert!(written.len() > 500, "{}", written.len());
    let loads = info(&server, "writebehind_loads");
    for number in &written {
        assert_eq!(
            client.run(&format!("STRLEN any:{number}")),
            format!(":{}\r\n", 2000 + number.to_string().len())
        );
    }
    assert_eq!(info(&server, "writebehind_loads"), loads);
    postgres.signal(libc::SIGCONT);
    flush(&server);
    let count = written.len().to_string();
    assert_eq!(postgres.sql("SELECT count(*) FROM anteroom_entries"), [count]);
    // Now there is something to evict, and what was evicted is loaded.
    for number in 0..12_000 {
        assert_eq!(client.run(&format!("SET other:{number} {value}")), "+OK\r\n");
    }
    assert!(info(&server, "evicted_keys") > 0);
    for number in &written {
        assert_eq!(client.run(&format!("GET any:{number}")), bulk(&format!("{value}{number}")));
    }
    assert!(info(&server, "writebehind_loads") > loads);
}

#[test]
fn sigterm_flushes_what_was_accepted() {
    let (postgres, mut server) = start("flush-interval = \"1h\"\nbatch-size = 300");
    let mut client = server.client();
    for number in 0..1000 {
        client.run(&format!("HSET user:{number} a {number}"));
        client.run(&format!("SET note:n:{number} {number}"));
    }
    client.run("DEL user:7");
    assert_eq!(server.stop(libc::SIGTERM).code(), Some(0));
    assert_eq!(postgres.sql("SELECT count(*), sum(a) FROM users"), ["999|499493"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM notes"), ["1000"]);
    // Nothing is left to replay.
    server.restart();
    assert!(server.log().matches("has 0 records to replay").count() >= 2, "{}", server.log());
}

#[test]
fn sigterm_leaves_in_the_journal_what_the_database_does_not_take_in_time() {
    let mut postgres = Postgres::start();
    postgres.sql(super::TABLES);
    let text = format!(
        "[server]\nshutdown-timeout = '1s'\n{}",
        config(&postgres.url(), "flush-interval = '10ms'", super::RULES)
    );
    let mut server = serve(&text, &[]);
    let mut client = server.client();
    client.run("HSET user:1 a 1");
    flush(&server);
    postgres.kill();
    client.run("HSET user:1 a 2");
    let reply = client.run("DB.FLUSH TIMEOUT 100");
    assert_eq!(reply, "-TIMEOUT 1 changes are not in the database yet\r\n");
    assert_eq!(server.stop(libc::SIGTERM).code(), Some(0));
    postgres.restart();
    server.restart();
    flush(&server);
    assert_eq!(postgres.sql("SELECT a FROM users"), ["2"]);
}

#[test]
fn flushall_concerns_the_cache_alone() {
    let (postgres, server) = start("flush-interval = \"1h\"");
    let mut client = server.client();
    client.run("HSET user:1 a 1 b 2");
    client.run("SET any:1 x");
    flush(&server);
    client.run("HSET user:1 a 5");
    client.run("SET any:2 y");
    client.run("DEL any:1");
    assert_eq!(client.run("FLUSHALL"), "+OK\r\n");
    // Rows, and what waits for them, are found again.
    assert_eq!(client.run("HMGET user:1 a b"), format!("*2\r\n{}{}", bulk("5"), bulk("2")));
    assert_eq!(client.run("MGET any:1 any:2"), format!("*2\r\n{NIL}{}", bulk("y")));
    flush(&server);
    assert_eq!(postgres.sql("SELECT a, b FROM users"), ["5|2"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM anteroom_entries"), ["1"]);
}

#[test]
fn sqlite_is_written_behind_too_and_survives_kills() {
    let file = std::env::temp_dir().join(format!("anteroom-sqlite-tier-{}.db", std::process::id()));
    let url = format!("sqlite:{}", file.display());
    let options = "flush-interval = '20ms'\njournal-fsync = 'always'";
    let rules = "[[database.rules]]\npattern = 'any:{x}'";
    let mut server = Server::configured(&config(&url, options, rules), &[]);
    let mut expected = 0;
    for round in 0..5 {
        let mut client = server.client();
        for _ in 0..200 {
            expected += 1;
            assert_eq!(client.run("INCR any:counter"), format!(":{expected}\r\n"));
            client.run(&format!("HSET any:hash f{round} {expected}"));
        }
        server.kill();
        server.restart();
    }
    flush(&server);
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("GET any:counter"), bulk("1000"));
    assert_eq!(client.run("HLEN any:hash"), ":5\r\n");
    drop(server);
    for end in ["", "-wal", "-shm"] {
        // Not all of them are there.
        let _ = std::fs::remove_file(format!("{}{end}", file.display()));
    }
}
