//! The cache follows the database: what others change is seen, and one's own writes cost nothing.

use std::time::Duration;

use super::{NIL, bulk, flush, info, install_triggers, start, wait_for};
use crate::harness::Server;
use crate::postgres::Postgres;

fn start_listening(options: &str) -> (Postgres, Server) {
    let (postgres, server) = start(options);
    install_triggers(&postgres, &server);
    (postgres, server)
}

#[test]
fn what_others_change_is_seen() {
    let (postgres, server) = start_listening("flush-interval = \"10ms\"");
    let mut client = server.client();
    assert_eq!(client.run("SET note:ann:x one"), "+OK\r\n");
    client.run("HSET user:1 a 1 b 2");
    client.run("RPUSH any:list x y");
    flush(&server);
    postgres.sql("UPDATE notes SET body = 'two' WHERE owner = 'ann'; UPDATE users SET b = 7");
    wait_for(|| client.run("GET note:ann:x") == bulk("two"));
    wait_for(|| client.run("HGET user:1 b") == bulk("7"));
    assert_eq!(client.run("HGET user:1 a"), bulk("1"));
    postgres.sql("DELETE FROM notes; DELETE FROM anteroom_entries WHERE key = 'any:list'");
    wait_for(|| client.run("GET note:ann:x") == NIL);
    wait_for(|| client.run("EXISTS any:list") == ":0\r\n");
    postgres.sql("INSERT INTO notes VALUES ('ann', 'x', 'three')");
    wait_for(|| client.run("GET note:ann:x") == bulk("three"));
    postgres.sql("TRUNCATE users");
    wait_for(|| client.run("EXISTS user:1") == ":0\r\n");
    // A row that the cache writes again after others deleted it.
    client.run("HSET user:1 a 5");
    flush(&server);
    assert_eq!(postgres.sql("SELECT id, a, b FROM users"), ["1|5|NULL"]);
}

#[test]
fn own_writes_do_not_invalidate() {
    let (postgres, server) = start_listening("flush-interval = \"10ms\"");
    let mut client = server.client();
    for number in 0..50 {
        assert_eq!(client.run(&format!("SET note:own:{number} x")), "+OK\r\n");
    }
    flush(&server);
    // A change by another, behind which all notifications of one's own writes have come in.
    client.run("SET note:own:last mine");
    flush(&server);
    postgres.sql("UPDATE notes SET body = 'theirs' WHERE title = 'last'");
    wait_for(|| client.run("GET note:own:last") == bulk("theirs"));
    let loads = info(&server, "writebehind_loads");
    for number in 0..50 {
        assert_eq!(client.run(&format!("GET note:own:{number}")), bulk("x"));
    }
    assert_eq!(info(&server, "writebehind_loads"), loads);
}

#[test]
fn a_change_by_others_of_a_row_that_waits_is_seen_once_it_does_not() {
    let (postgres, server) = start_listening("flush-interval = \"1h\"");
    let mut client = server.client();
    client.run("HSET user:1 a 1 b 1");
    flush(&server);
    client.run("HSET user:1 a 2");
    postgres.sql("UPDATE users SET b = 9 WHERE id = 1");
    // Told behind it on the same link.
    client.run("SET note:a:b c");
    flush(&server);
    wait_for(|| client.run("HGET user:1 b") == bulk("9"));
    assert_eq!(client.run("HGET user:1 a"), bulk("2"));
    assert_eq!(postgres.sql("SELECT a, b FROM users"), ["2|9"]);
}

#[test]
fn a_lost_link_for_notifications_is_made_up_for() {
    let (postgres, server) = start_listening("flush-interval = \"10ms\"");
    let mut client = server.client();
    client.run("SET note:a:b one");
    flush(&server);
    postgres.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%LISTEN%' AND pid <> pg_backend_pid();
         UPDATE notes SET body = 'two'",
    );
    wait_for(|| client.run("GET note:a:b") == bulk("two"));
    wait_for(|| server.log().matches("listening for changes").count() >= 2);
    postgres.sql("UPDATE notes SET body = 'three'");
    wait_for(|| client.run("GET note:a:b") == bulk("three"));
}

#[test]
fn a_watched_row_that_others_change_fails_the_transaction() {
    let (postgres, server) = start_listening("flush-interval = \"10ms\"");
    let (mut client, mut other) = (server.client(), server.client());
    client.run("SET note:a:b one");
    flush(&server);
    client.run("WATCH note:a:b");
    postgres.sql("UPDATE notes SET body = 'two'");
    wait_for(|| other.run("GET note:a:b") == bulk("two"));
    client.run("MULTI");
    client.run("SET note:a:b mine");
    assert_eq!(client.run("EXEC"), "*-1\r\n");
    // Evictions and loads are no changes.
    client.run("WATCH note:a:b");
    other.run("GET note:a:b");
    client.run("MULTI");
    client.run("SET note:a:b mine");
    assert_eq!(client.run("EXEC"), "*1\r\n+OK\r\n");
    std::thread::sleep(Duration::from_millis(50));
    flush(&server);
    assert_eq!(postgres.sql("SELECT body FROM notes"), ["mine"]);
}
