//! What the database refuses or holds up: only the rows concerned wait, or become dead letters.

use std::time::Duration;

use super::{flush, info, start, wait_for};

/// How long a lock is held at least.
fn held() -> Duration {
    let is_long = std::env::var_os("ANTEROOM_TEST_LONG").is_some();
    Duration::from_secs(if is_long { 30 } else { 3 })
}

#[test]
fn a_row_that_is_refused_becomes_a_dead_letter_and_the_others_arrive() {
    let (postgres, server) = start("flush-interval = \"1h\"\nbatch-size = 1000");
    postgres.sql("ALTER TABLE users ADD CONSTRAINT small CHECK (a < 1000)");
    let mut client = server.client();
    for id in 0..300 {
        let value = if id % 100 == 50 { 5000 + id } else { id };
        assert!(client.run(&format!("HSET user:{id} a {value}")).starts_with(':'));
        client.run(&format!("SET note:n:{id} x"));
    }
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(*) FROM users"), ["297"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM notes"), ["300"]);
    assert_eq!(info(&server, "writebehind_depth"), 0);
    let letters = client.run("DB.DEADLETTER LIST");
    assert!(letters.starts_with("*3\r\n"), "{letters}");
    assert!(
        letters.contains("user:50") && letters.contains("small") && !letters.contains("5050"),
        "{letters}"
    );
    assert!(client.run("DB.DEADLETTER LIST COUNT 1").starts_with("*1\r\n"));
    // Still refused; then not any more.
    assert_eq!(client.run("DB.DEADLETTER RETRY ALL"), ":0\r\n");
    // What came since wins over the letter.
    client.run("HSET user:150 a 7");
    flush(&server);
    postgres.sql("ALTER TABLE users DROP CONSTRAINT small");
    assert_eq!(client.run("DB.DEADLETTER RETRY ALL"), ":3\r\n");
    assert_eq!(client.run("DB.DEADLETTER LIST"), "*0\r\n");
    assert_eq!(
        postgres.sql("SELECT id, a FROM users WHERE id % 100 = 50 ORDER BY id"),
        ["50|5050", "150|7", "250|5250"]
    );
    // A value that no constraint, but the type refuses; and a type that the rule has no place for.
    client.run("HSET user:1 a nonsense");
    client.run("RPUSH note:n:list x");
    flush(&server);
    let letters = client.run("DB.DEADLETTER LIST");
    assert!(letters.starts_with("*2\r\n") && !letters.contains("nonsense"), "{letters}");
    assert_eq!(client.run("DB.DEADLETTER DROP ALL"), ":2\r\n");
    assert_eq!(client.run("DB.DEADLETTER LIST"), "*0\r\n");
    assert_eq!(postgres.sql("SELECT a FROM users WHERE id = 1"), ["1"]);
}

/// A transaction with a row that is refused: the others of it arrive together, in one transaction of the database.
#[test]
fn a_refused_row_does_not_tear_its_transaction_apart() {
    let (postgres, server) = start("flush-interval = \"1h\"\nbatch-size = 1000");
    postgres.sql(
        "ALTER TABLE users ADD CONSTRAINT small CHECK (a < 1000);
         CREATE TABLE seen (id INTEGER, tx BIGINT);
         CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO seen VALUES (NEW.id, txid_current()); RETURN NEW; END $$;
         CREATE TRIGGER note AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note()",
    );
    let mut client = server.client();
    for transaction in 0..20 {
        assert_eq!(client.run("MULTI"), "+OK\r\n");
        for row in 0..5 {
            let value = if transaction % 5 == 2 && row == 3 { 5000 } else { row };
            client.run(&format!("HSET user:{} a {value}", transaction * 10 + row));
        }
        assert!(client.run("EXEC").starts_with("*5\r\n"));
    }
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(*) FROM users"), ["96"]);
    let torn = "SELECT id / 10 FROM seen GROUP BY id / 10 HAVING count(DISTINCT tx) > 1";
    assert_eq!(postgres.sql(torn), [""; 0], "a transaction landed in several");
    let letters = client.run("DB.DEADLETTER LIST");
    assert!(letters.starts_with("*4\r\n"), "{letters}");
    for key in ["user:23", "user:73", "user:123", "user:173"] {
        assert!(letters.contains(key), "{letters}");
    }
}

#[test]
fn a_column_that_is_dropped_concerns_those_who_write_it() {
    let (postgres, server) = start("flush-interval = \"10ms\"");
    let mut client = server.client();
    for id in 0..20 {
        client.run(&format!("HSET plain:{id} a 1 b 1"));
    }
    flush(&server);
    postgres.sql("ALTER TABLE plain DROP COLUMN b");
    for id in 0..20 {
        let column = if id < 5 { "b" } else { "a" };
        assert_eq!(client.run(&format!("HSET plain:{id} {column} 2")), ":0\r\n");
        client.run(&format!("HSET user:{id} a 2 b 2"));
    }
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(*) FROM plain WHERE a = 2"), ["15"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM users WHERE b = 2"), ["20"]);
    assert!(client.run("DB.DEADLETTER LIST").starts_with("*5\r\n"));
    postgres.sql("ALTER TABLE plain ADD COLUMN b BIGINT");
    assert_eq!(client.run("DB.DEADLETTER RETRY ALL"), ":5\r\n");
    assert_eq!(postgres.sql("SELECT count(*) FROM plain WHERE b = 2"), ["5"]);
    // A whole table that is gone, and comes back.
    postgres.sql("DROP TABLE plain");
    client.run("HSET plain:1 a 9");
    client.run("HSET user:1 a 9");
    flush(&server);
    assert_eq!(postgres.sql("SELECT a FROM users WHERE id = 1"), ["9"]);
    assert!(client.run("DB.DEADLETTER LIST").starts_with("*1\r\n"));
}

/// Rows that somebody has locked, and one that somebody is about to insert: what else is of their table arrives meanwhile.
#[test]
fn a_locked_row_holds_up_no_other_of_its_table() {
    let (postgres, server) = start("flush-interval = \"10ms\"\nbatch-size = 50");
    let mut client = server.client();
    for id in 0..200 {
        client.run(&format!("HSET user:{id} a 0"));
    }
    flush(&server);
    let mut session = postgres.session();
    session.run(
        "BEGIN; SELECT id FROM users WHERE id IN (7, 130) FOR UPDATE; INSERT INTO users (id, a) VALUES (1000, -1)",
    );
    for round in 1..=30 {
        for id in 0..200 {
            assert_eq!(client.run(&format!("HSET user:{id} a {round}")), ":0\r\n");
        }
        // Waits behind the row that is locked, and so does what comes to its other row.
        assert_eq!(client.run("MULTI"), "+OK\r\n");
        client.run(&format!("HSET user:7 b {round}"));
        client.run(&format!("HSET user:500 b {round}"));
        assert!(client.run("EXEC").starts_with("*2\r\n"));
        client.run(&format!("HSET user:500 a {round}"));
    }
    client.run("HSET user:1000 a 5");
    client.run("HSET user:1001 a 5");
    wait_for(|| postgres.sql("SELECT count(*) FROM users WHERE a = 30") == ["198"]);
    wait_for(|| postgres.sql("SELECT a FROM users WHERE id = 1001") == ["5"]);
    // Others of the table go on at once from now on, for as long as these are locked.
    client.run("HSET user:1001 a 6");
    client.run("DEL user:1");
    client.run("HSET user:130 b 31");
    wait_for(|| postgres.sql("SELECT a FROM users WHERE id = 1001") == ["6"]);
    wait_for(|| postgres.sql("SELECT count(*) FROM users WHERE id IN (1, 500, 1000)") == ["0"]);
    assert_eq!(postgres.sql("SELECT a, b FROM users WHERE id IN (7, 130) ORDER BY id"), ["0|NULL", "0|NULL"]);
    assert!(client.run("DB.FLUSH TIMEOUT 50").starts_with("-TIMEOUT "));
    assert!(info(&server, "writebehind_locked") >= 3);
    // What waits is what is read.
    assert_eq!(client.run("HGET user:7 a"), "$2\r\n30\r\n");
    session.run("ROLLBACK");
    flush(&server);
    assert_eq!(
        postgres.sql("SELECT id, a, b FROM users WHERE id IN (7, 130, 500, 1000) ORDER BY id"),
        ["7|30|30", "130|30|31", "500|30|30", "1000|5|NULL"]
    );
    assert_eq!(info(&server, "writebehind_locked"), 0);
    assert_eq!(info(&server, "writebehind_depth"), 0);
    assert_eq!(client.run("DB.DEADLETTER LIST"), "*0\r\n");
}

#[test]
fn a_locked_table_holds_up_no_other() {
    let (postgres, server) = start("flush-interval = \"10ms\"\nbatch-size = 50\nstatement-timeout = \"2s\"");
    let mut client = server.client();
    // All in the cache: what is not would have to be loaded, which waits for the lock.
    for id in 0..200 {
        client.run(&format!("HSET user:{id} a 0"));
        client.run(&format!("HSET plain:{id} a 0"));
    }
    flush(&server);
    let begin = anteroom::clock::monotonic();
    let mut session = postgres.session();
    session.run("BEGIN; LOCK TABLE users");
    let mut count = 0;
    while begin.elapsed() < held() || count < 300 {
        count += 1;
        assert_eq!(client.run(&format!("HSET user:{} a {count}", count % 200)), ":0\r\n");
        assert_eq!(client.run(&format!("SET note:n:{count} {count}")), "+OK\r\n");
        client.run(&format!("HSET plain:{} a {count}", count % 200));
        std::thread::sleep(Duration::from_millis(2));
    }
    // All of the others arrive while it is locked.
    wait_for(|| postgres.sql("SELECT count(*) FROM notes") == [count.to_string()]);
    wait_for(|| postgres.sql("SELECT max(a) FROM plain") == [count.to_string()]);
    assert!(info(&server, "writebehind_depth") > 0);
    assert!(client.run("DB.FLUSH TIMEOUT 50").starts_with("-TIMEOUT "));
    session.run("COMMIT");
    flush(&server);
    assert_eq!(postgres.sql("SELECT max(a) FROM users"), [count.to_string()]);
    assert_eq!(client.run("DB.DEADLETTER LIST"), "*0\r\n");
}

#[test]
fn a_deadlock_is_tried_again() {
    let (postgres, server) = start("flush-interval = \"10ms\"");
    let mut client = server.client();
    client.run("MULTI");
    (1..=9).for_each(|id| drop(client.run(&format!("HSET user:{id} a 1"))));
    client.run("EXEC");
    flush(&server);
    // The server waits first, so that it is it who finds the deadlock, and is given up.
    let mut session = postgres.session();
    session.run("SET deadlock_timeout = '20s'; BEGIN; UPDATE users SET b = 1 WHERE id = 9");
    client.run("MULTI");
    (1..=9).for_each(|id| drop(client.run(&format!("HSET user:{id} a 2"))));
    client.run("EXEC");
    client.run("SET note:a:b c");
    std::thread::sleep(Duration::from_millis(300));
    session.run("UPDATE users SET b = 1 WHERE id = 1");
    session.run("COMMIT");
    flush(&server);
    assert!(info(&server, "writebehind_retries") > 0);
    assert_eq!(postgres.sql("SELECT count(*) FROM users WHERE a = 2"), ["9"]);
    assert_eq!(postgres.sql("SELECT id FROM users WHERE b = 1 ORDER BY id"), ["1", "9"]);
    assert_eq!(client.run("DB.DEADLETTER LIST"), "*0\r\n");
}
