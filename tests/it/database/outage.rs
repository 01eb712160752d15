//! Postgres is killed in the middle of batches, stays away and comes back.

use std::time::Duration;

use anteroom::clock;

use super::{RULES, TABLES, bulk, config, flush, info, serve, start, wait_for};
use crate::harness::{Client, Server};
use crate::postgres::Postgres;

/// How long the database stays away at least.
fn away() -> Duration {
    let is_long = std::env::var_os("ANTEROOM_TEST_LONG").is_some();
    Duration::from_secs(if is_long { 60 } else { 3 })
}

/// Notes each version that a row gets, and makes batches slow enough to be hit in the middle.
const NOTES: &str = "
    CREATE TABLE applied (id INTEGER, ver BIGINT, a BIGINT);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO applied VALUES (NEW.id, NEW.ver, NEW.a); PERFORM pg_sleep(0.002); RETURN NEW; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION note();";

fn check(postgres: &Postgres, values: &[u64]) {
    for (id, value) in values.iter().enumerate() {
        let row = postgres.sql(&format!("SELECT a FROM users WHERE id = {id}"));
        let expected: Vec<String> = (*value > 0).then(|| value.to_string()).into_iter().collect();
        assert_eq!(row, expected, "row {id}");
    }
    let doubles = postgres.sql("SELECT id, ver FROM applied GROUP BY id, ver HAVING count(*) > 1");
    assert_eq!(doubles, [""; 0], "a version took effect twice");
    let back = "SELECT id FROM (SELECT id, a < lag(a) OVER (PARTITION BY id ORDER BY ver) AS back FROM applied) x WHERE back";
    assert_eq!(postgres.sql(back), [""; 0], "an older value came later");
}

/// Writes rising numbers to the rows, to each once before any comes again: one that was never written would have to be
/// looked for in the database, which may be away by then. Returns the reply that is not a number, if one comes.
fn write(client: &mut Client, values: &mut [u64], count: usize) -> Option<String> {
    for _ in 0..count {
        let unwritten = values.iter().position(|value| *value == 0);
        let id = unwritten.unwrap_or_else(|| fastrand::usize(..values.len()));
        let number = values.iter().max().unwrap() + 1;
        let reply = client.run(&format!("HSET user:{id} a {number}"));
        if !reply.starts_with(':') {
            return Some(reply);
        }
        values[id] = number;
    }
    None
}

/// Has all rows in the cache, once the link for notifications is there for the n-th time: then they are loaded anew.
fn warm_up(server: &Server, values: &[u64], link: usize) {
    wait_for(|| server.log().matches("listening for changes").count() >= link);
    let mut client = server.client();
    for (id, value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
        assert!(client.run(&format!("HGET user:{id} a")).contains(&value.to_string()));
    }
}

#[test]
fn a_database_that_is_killed_in_mid_batch_loses_and_doubles_nothing() {
    let options = "flush-interval = \"20ms\"\njournal-max-size = \"1mb\"\nstatement-timeout = \"5s\"";
    let (mut postgres, server) = start(options);
    postgres.sql(NOTES);
    let mut client = server.client();
    let mut values = vec![0; 300];
    assert_eq!(write(&mut client, &mut values, 3000), None);
    for round in 1..=3 {
        warm_up(&server, &values, round);
        assert_eq!(write(&mut client, &mut values, 200), None);
        std::thread::sleep(Duration::from_millis(fastrand::u64(20..150)));
        postgres.kill();
        // Reads of what is cached and writes go on.
        assert_eq!(write(&mut client, &mut values, 200), None);
        assert!(client.run("HGET user:0 a").contains(&values[0].to_string()));
        postgres.restart();
        // When it listens again it drops its rows from the cache: not after they were warmed up for the next round.
        wait_for(|| server.log().matches("listening for changes").count() > round);
        flush(&server);
        check(&postgres, &values);
    }
    assert!(info(&server, "writebehind_retries") > 0);
}

#[test]
fn while_the_database_is_away_writes_are_taken_up_to_the_journals_bound() {
    let options = "flush-interval = \"20ms\"\njournal-max-size = \"1mb\"\nstatement-timeout = \"5s\"";
    let (mut postgres, server) = start(options);
    postgres.sql(NOTES);
    let mut client = server.client();
    let mut values = vec![0; 300];
    assert_eq!(write(&mut client, &mut values, 3000), None);
    warm_up(&server, &values, 1);
    let begin = clock::monotonic();
    postgres.kill();
    let refused = (0..200).find_map(|_| write(&mut client, &mut values, 500));
    let refused = refused.expect("the journal has a bound");
    assert!(refused.starts_with("-BUSY "), "{refused}");
    // Refused means not made, neither here nor there, and reads go on.
    let refusals = (0..1000).filter(|_| write(&mut client, &mut values, 1).is_some()).count();
    assert!(refusals > 900, "{refusals}");
    for (id, value) in values.iter().enumerate().filter(|(_, value)| **value > 0) {
        assert!(client.run(&format!("HGET user:{id} a")).contains(&value.to_string()));
    }
    assert_eq!(client.run("MULTI"), "+OK\r\n");
    // What is shorter than all that was refused might find room.
    assert_eq!(client.run("HSET user:0 a 1 b 12345678901234567"), "+QUEUED\r\n");
    assert!(client.run("EXEC").starts_with("-EXECABORT "));
    // What no rule concerns is not refused.
    assert_eq!(client.run("SET other 1"), "+OK\r\n");
    std::thread::sleep(away().saturating_sub(begin.elapsed()));
    postgres.restart();
    flush(&server);
    check(&postgres, &values);
    // Room is given back a moment after the rows are there.
    wait_for(|| write(&mut client, &mut values, 1).is_none());
    assert_eq!(write(&mut client, &mut values, 500), None);
    flush(&server);
    check(&postgres, &values);
}

#[test]
fn writes_are_refused_while_one_waits_for_longer_than_it_may() {
    let (postgres, server) = start("flush-interval = '20ms'\njournal-max-age = '500ms'");
    let mut client = server.client();
    assert_eq!(client.run("SET any:1 a"), "+OK\r\n");
    flush(&server);
    postgres.signal(libc::SIGSTOP);
    assert_eq!(client.run("SET any:1 b"), "+OK\r\n");
    wait_for(|| client.run("SET any:2 c").starts_with("-BUSY the write is refused"));
    // Reads go on, and so does what no rule concerns.
    assert_eq!(client.run("GET any:1"), "$1\r\nb\r\n");
    assert_eq!(client.run("SET other 1"), "+OK\r\n");
    postgres.signal(libc::SIGCONT);
    wait_for(|| client.run("SET any:2 d") == "+OK\r\n");
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(*) FROM anteroom_entries"), ["2"]);
}

/// A host that ends while the database is away comes back, with what waited, and takes more.
#[test]
fn a_server_starts_while_its_database_is_away() {
    let (mut postgres, mut server) = start("flush-interval = \"20ms\"\nstatement-timeout = \"5s\"");
    let mut client = server.client();
    assert_eq!(client.run("SET note:a:old before"), "+OK\r\n");
    postgres.sql("INSERT INTO notes VALUES ('a', 'kept', 'before')");
    flush(&server);
    // Another host has given higher versions than this one knows of.
    postgres.sql("UPDATE anteroom_versions SET version = 1000000");
    postgres.kill();
    assert_eq!(client.run("SET note:a:first waits"), "+OK\r\n");
    for round in 0..2 {
        server.kill();
        server.restart();
        let mut client = server.client();
        assert_eq!(client.run("GET note:a:first"), bulk("waits"), "round {round}");
        assert_eq!(client.run(&format!("SET note:a:round{round} taken")), "+OK\r\n");
        assert_eq!(client.run(&format!("GET note:a:round{round}")), bulk("taken"));
        assert_eq!(client.run(&format!("SET note:a:old round{round}")), "+OK\r\n");
        // What no rule concerns is as ever; a row that is not here is not said to be absent.
        assert_eq!(client.run("INCR counter"), ":1\r\n");
        let said = client.run("GET note:a:kept");
        assert!(said.starts_with("-DBERR ") && said.contains("not available"), "{said}");
        assert!(client.run("INFO writebehind").contains("writebehind_database:away"));
        assert_eq!(client.run("DB.FLUSH TIMEOUT 50").get(..9), Some("-TIMEOUT "));
    }
    postgres.restart();
    wait_for(|| server.log().contains("as the rules want it"));
    flush(&server);
    let rows = postgres.sql("SELECT title || '=' || body FROM notes ORDER BY title");
    assert_eq!(rows, ["first=waits", "kept=before", "old=round1", "round0=taken", "round1=taken"]);
    let mut client = server.client();
    assert_eq!(client.run("GET note:a:kept"), bulk("before"));
    assert!(client.run("INFO writebehind").contains("writebehind_database:up"));
    wait_for(|| server.log().contains("listening for changes"));
}

/// It is not as the rules want it when it comes back: that is said, and nothing is lost while it is mended.
#[test]
fn a_schema_that_does_not_fit_is_found_when_the_database_is_there() {
    let (mut postgres, mut server) = start("flush-interval = \"20ms\"");
    postgres.sql("INSERT INTO notes VALUES ('a', 'one', 'x')");
    postgres.sql("ALTER TABLE notes RENAME TO elsewhere");
    postgres.kill();
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("SET note:a:two y"), "+OK\r\n");
    postgres.restart();
    wait_for(|| server.log().contains("database rule 'note:{owner}:{title}'"));
    assert_eq!(client.run("SET note:a:three z"), "+OK\r\n");
    let said = client.run("GET note:a:one");
    assert!(said.starts_with("-DBERR ") && said.contains("note:{owner}:{title}"), "{said}");
    assert_eq!(client.run("DB.FLUSH TIMEOUT 50").get(..9), Some("-TIMEOUT "));
    postgres.sql("ALTER TABLE elsewhere RENAME TO notes");
    flush(&server);
    assert_eq!(postgres.sql("SELECT title FROM notes ORDER BY title"), ["one", "three", "two"]);
}

/// At a first start nobody knows whether the configuration is right.
#[test]
fn a_first_start_needs_the_database() {
    let mut postgres = Postgres::start();
    postgres.sql(TABLES);
    let text = config(&postgres.url(), "", RULES);
    let mut server = serve(&text, &[]);
    postgres.kill();
    server.kill();
    std::fs::remove_dir_all(server.dir.join("data/journal")).unwrap();
    server.try_restart();
    assert!(!server.wait().success());
    assert!(server.log().contains("the database is not available"), "{}", server.log());
}
