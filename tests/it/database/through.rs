//! Write-through: the reply comes after the commit, and an error leaves the old value in the cache and in the database.

use std::time::Duration;

use super::{NIL, bulk, config, serve, wait_for};
use crate::harness::Server;
use crate::postgres::Postgres;

const RULES: &str = r#"
    [[database.rules]]
    pattern = "t:{id}"
    mode = "write-through"
    table = "texts"
    key = { id = "id" }
    value = "body"
    [[database.rules]]
    pattern = "h:{id}"
    mode = "write-through"
    table = "hashes"
    key = { id = "id" }
    columns = { a = "a", b = "b" }
    [[database.rules]]
    pattern = "d:{id}"
    mode = "write-through"
    [[database.rules]]
    pattern = "behind:{id}"
"#;

/// A body `slow…` takes a while, and `bad` is refused.
const TABLES: &str = "
    CREATE TABLE texts (id TEXT PRIMARY KEY, body TEXT CHECK (body <> 'bad'));
    CREATE TABLE hashes (id TEXT PRIMARY KEY, a BIGINT CHECK (a < 100), b TEXT);
    CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF NEW.body LIKE 'slow%' THEN PERFORM pg_sleep(0.5); END IF; RETURN NEW; END $$;
    CREATE TRIGGER slow BEFORE INSERT OR UPDATE ON texts FOR EACH ROW EXECUTE FUNCTION slow();";

fn start() -> (Postgres, Server) {
    let postgres = Postgres::start();
    postgres.sql(TABLES);
    let server = serve(&config(&postgres.url(), "flush-interval = \"1h\"", RULES), &[]);
    (postgres, server)
}

fn texts(postgres: &Postgres) -> Vec<String> {
    postgres.sql("SELECT id, body FROM texts ORDER BY id")
}

#[test]
fn the_reply_comes_after_the_commit_and_others_see_the_old_value_until_then() {
    let (postgres, server) = start();
    let (mut client, mut other) = (server.client(), server.client());
    assert_eq!(client.run("SET t:1 one"), "+OK\r\n");
    assert_eq!(texts(&postgres), ["1|one"]);
    client.send_raw(b"SET t:1 slow1\r\nGET t:1\r\n");
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(other.run("GET t:1"), bulk("one"));
    assert_eq!(client.read(), b"+OK\r\n");
    assert_eq!(String::from_utf8(client.read()).unwrap(), bulk("slow1"));
    assert_eq!(other.run("GET t:1"), bulk("slow1"));
    assert_eq!(texts(&postgres), ["1|slow1"]);
    // What depends on the old value, and what deletes.
    assert_eq!(client.run("APPEND t:1 !"), ":6\r\n");
    assert_eq!(texts(&postgres), ["1|slow1!"]);
    assert_eq!(client.run("HSET h:1 a 1 b x"), ":2\r\n");
    assert_eq!(client.run("HINCRBY h:1 a 4"), ":5\r\n");
    assert_eq!(client.run("HDEL h:1 b"), ":1\r\n");
    assert_eq!(postgres.sql("SELECT id, a, b FROM hashes"), ["1|5|NULL"]);
    assert_eq!(client.run("DEL t:1 h:1"), ":2\r\n");
    assert_eq!(texts(&postgres), [""; 0]);
    assert_eq!(postgres.sql("SELECT id FROM hashes"), [""; 0]);
    assert_eq!(client.run("GET t:1"), NIL);
    assert!(client.run("LPUSH t:1 x").starts_with("-DBERR "));
    assert_eq!(client.run("EXISTS t:1"), ":0\r\n");
}

#[test]
fn what_the_database_refuses_is_not_made() {
    let (postgres, server) = start();
    let mut client = server.client();
    client.run("SET t:1 one");
    client.run("HSET h:1 a 1 b x");
    for (command, check) in [
        ("SET t:1 bad", "GET t:1"),
        ("GETSET t:1 bad", "GET t:1"),
        ("HSET h:1 a 100 b y", "HGET h:1 b"),
        ("HINCRBY h:1 a 100", "HGET h:1 a"),
        ("HSET h:1 a nonsense", "HGET h:1 a"),
        ("MSET t:2 two t:1 bad", "GET t:2"),
    ] {
        let before = client.run(check);
        let reply = client.run(command);
        assert!(reply.starts_with("-DBERR the write is not made: "), "{command}: {reply}");
        assert_eq!(client.run(check), before, "{command}");
    }
    assert_eq!(texts(&postgres), ["1|one"]);
    assert_eq!(postgres.sql("SELECT a, b FROM hashes"), ["1|x"]);
    // The keys are free again.
    assert_eq!(client.run("SET t:1 two"), "+OK\r\n");
    assert_eq!(client.run("INCR t:1"), "-ERR value is not an integer or out of range\r\n");
}

#[test]
fn a_database_that_is_away_is_an_error_and_the_old_value_stays() {
    let (mut postgres, server) = start();
    let mut client = server.client();
    client.run("SET t:1 one");
    postgres.kill();
    assert!(client.run("SET t:1 two").starts_with("-DBERR "));
    assert_eq!(client.run("GET t:1"), bulk("one"));
    postgres.restart();
    assert_eq!(texts(&postgres), ["1|one"]);
    wait_for(|| client.run("SET t:1 three") == "+OK\r\n");
    assert_eq!(client.run("GET t:1"), bulk("three"));
    assert_eq!(texts(&postgres), ["1|three"]);
    // An unfinished commit, of which the client never hears: cache and database agree afterwards.
    client.send_raw(b"SET t:1 slow2\r\n");
    std::thread::sleep(Duration::from_millis(200));
    postgres.kill();
    assert!(String::from_utf8(client.read()).unwrap().starts_with("-DBERR "));
    postgres.restart();
    wait_for(|| client.run("GET t:1") == bulk(&texts(&postgres)[0][2..]));
}

#[test]
fn racing_writes_are_made_one_after_the_other() {
    let (postgres, server) = start();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..50 {
                    assert!(client.run("INCR d:counter").starts_with(':'));
                    assert!(client.run("HINCRBY h:1 a 1").starts_with([':', '-']));
                    assert_eq!(client.run(&format!("SET t:1 {writer}-{number}")), "+OK\r\n");
                }
            });
        }
    });
    let mut client = server.client();
    assert_eq!(client.run("GET d:counter"), bulk("200"));
    assert_eq!(client.run("HGET h:1 a"), bulk("99"));
    assert_eq!(postgres.sql("SELECT a FROM hashes"), ["99"]);
    assert_eq!(client.run("GET t:1"), bulk(&texts(&postgres)[0][2..]));
    // The default table has it too: read by a server that has nothing cached.
    let mut server = server;
    server.kill();
    server.restart();
    assert_eq!(server.client().run("GET d:counter"), bulk("200"));
}

#[test]
fn transactions_commit_whole_or_not_at_all() {
    let (postgres, server) = start();
    let (mut client, mut other) = (server.client(), server.client());
    let mut exec = |commands: &[&str]| {
        client.run("MULTI");
        commands.iter().for_each(|command| assert_eq!(client.run(command), "+QUEUED\r\n"));
        client.run("EXEC")
    };
    assert_eq!(exec(&["SET t:1 one", "HSET h:1 a 1", "SET behind:1 x"]), "*3\r\n+OK\r\n:1\r\n+OK\r\n");
    assert_eq!(texts(&postgres), ["1|one"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM anteroom_entries"), ["1"]);
    assert!(exec(&["SET t:1 two", "HSET h:1 a 2", "SET t:2 bad"]).starts_with("-DBERR "));
    assert_eq!(other.run("GET t:1"), bulk("one"));
    assert_eq!(other.run("HGET h:1 a"), bulk("1"));
    assert_eq!(texts(&postgres), ["1|one"]);
    // The transaction is over.
    assert_eq!(exec(&["GET t:1"]), format!("*1\r\n{}", bulk("one")));
    let mut client = server.client();
    client.run("WATCH t:1");
    assert_eq!(other.run("SET t:1 theirs"), "+OK\r\n");
    client.run("MULTI");
    client.run("SET t:1 mine");
    assert_eq!(client.run("EXEC"), "*-1\r\n");
    client.run("WATCH t:1");
    client.run("MULTI");
    client.run("SET t:1 mine");
    assert_eq!(client.run("EXEC"), "*1\r\n+OK\r\n");
    assert_eq!(texts(&postgres), ["1|mine"]);
    // Somebody's write is under way when the transaction is sent: it waits, and sees the change.
    client.run("WATCH t:1");
    other.send_raw(b"SET t:1 slow3\r\n");
    std::thread::sleep(Duration::from_millis(200));
    client.run("MULTI");
    client.run("SET t:1 mine2");
    assert_eq!(client.run("EXEC"), "*-1\r\n");
    assert_eq!(other.read(), b"+OK\r\n");
    assert_eq!(texts(&postgres), ["1|slow3"]);
}

#[test]
fn a_list_that_is_written_through_serves_those_who_wait() {
    let (_postgres, mut server) = start();
    let (mut client, mut waiting) = (server.client(), server.client());
    waiting.send_raw(b"BLPOP d:list 0\r\n");
    wait_for(|| client.run("INFO clients").contains("blocked_clients:1"));
    assert_eq!(client.run("RPUSH d:list a b"), ":2\r\n");
    assert_eq!(String::from_utf8(waiting.read()).unwrap(), format!("*2\r\n{}{}", bulk("d:list"), bulk("a")));
    assert_eq!(client.run("LRANGE d:list 0 -1"), format!("*1\r\n{}", bulk("b")));
    // The row is what the cache has, at any moment.
    server.kill();
    server.restart();
    assert_eq!(server.client().run("LRANGE d:list 0 -1"), format!("*1\r\n{}", bulk("b")));
}
