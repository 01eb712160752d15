//! A transaction's writes, and those of one command, land in one database transaction.

use super::{flush, start};

/// Notes which transaction of the database wrote a row.
const NOTES: &str = "
    CREATE TABLE wrote (t TEXT, id TEXT, x BIGINT);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO wrote VALUES (TG_TABLE_NAME, coalesce(to_jsonb(NEW), to_jsonb(OLD)) ->> TG_ARGV[0], txid_current());
        RETURN NULL; END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON users FOR EACH ROW EXECUTE FUNCTION note('id');
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON plain FOR EACH ROW EXECUTE FUNCTION note('id');
    CREATE TRIGGER note AFTER INSERT OR UPDATE OR DELETE ON notes FOR EACH ROW EXECUTE FUNCTION note('title');";

#[test]
fn a_transaction_is_one_of_the_database_too() {
    let (postgres, server) = start("flush-interval = \"10ms\"\nbatch-size = 7");
    postgres.sql(NOTES);
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.client();
                for number in 0..50 {
                    let id = writer * 1000 + number;
                    client.run("MULTI");
                    client.run(&format!("HSET user:{id} a 1"));
                    client.run(&format!("HSET plain:{id} a 1"));
                    client.run(&format!("SET note:t:{id} x"));
                    assert!(client.run("EXEC").starts_with("*3\r\n"));
                    // Others in between, of one table.
                    client.run(&format!("HSET user:{} a 1", 100_000 + id));
                }
            });
        }
    });
    flush(&server);
    let torn = "SELECT id FROM wrote WHERE id::int < 100000 GROUP BY id HAVING count(DISTINCT x) <> 1 OR count(*) <> 3";
    assert_eq!(postgres.sql(torn), [""; 0]);
    assert_eq!(postgres.sql("SELECT count(*) FROM wrote WHERE id::int < 100000"), ["600"]);
    assert_eq!(postgres.sql("SELECT count(*) FROM users"), ["400"]);
}

#[test]
fn one_command_on_several_rows_is_one_transaction_of_the_database() {
    let (postgres, server) = start("flush-interval = \"10ms\"\nbatch-size = 2");
    postgres.sql(NOTES);
    let mut client = server.client();
    client.run("MSET note:t:1 x note:t:2 x note:t:3 x note:t:4 x");
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(DISTINCT x), count(*) FROM wrote"), ["1|4"]);
    postgres.sql("TRUNCATE wrote");
    client.run("RENAME note:t:1 note:t:9");
    client.run("DEL note:t:2 note:t:3");
    flush(&server);
    let rows = postgres.sql("SELECT string_agg(id, ',' ORDER BY id) FROM wrote GROUP BY x ORDER BY 1");
    assert!(rows == ["1,9", "2,3"] || rows == ["1,2,3,9"], "{rows:?}");
    // A hash that is renamed to another table's name moves there with all of its columns.
    client.run("HSET user:1 a 1 b 2");
    flush(&server);
    postgres.sql("TRUNCATE wrote");
    client.run("RENAME user:1 plain:5");
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(DISTINCT x), count(*) FROM wrote"), ["1|2"]);
    assert_eq!(postgres.sql("SELECT id, a, b FROM plain"), ["5|1|2"]);
    assert_eq!(postgres.sql("SELECT id FROM users"), [""; 0]);
}

/// More keys than are looked through one by one, some of them twice: by one command, and in a transaction.
#[test]
fn very_many_rows_are_each_told_once() {
    let (postgres, server) = start("flush-interval = \"1h\"");
    let mut client = server.client();
    let pairs = |value: &str| -> String {
        (0..300).map(|number| format!(" note:m:{} {value}{number}", number % 200)).collect()
    };
    assert_eq!(client.run(&format!("MSET{}", pairs("x"))), "+OK\r\n");
    flush(&server);
    let wrong = "SELECT title FROM notes WHERE body <> 'x' || \
                 CASE WHEN title::int < 100 THEN title::int + 200 ELSE title::int END";
    assert_eq!(postgres.sql("SELECT count(*) FROM notes"), ["200"]);
    assert_eq!(postgres.sql(wrong), [""; 0]);
    assert_eq!(client.run("MULTI"), "+OK\r\n");
    for number in 0..100 {
        client.run(&format!("HSET user:{} a {number}", number % 60));
        client.run(&format!("DEL note:m:{number}"));
    }
    assert!(client.run("EXEC").starts_with("*200\r\n"));
    flush(&server);
    assert_eq!(postgres.sql("SELECT count(*) FROM notes"), ["100"]);
    assert_eq!(postgres.sql("SELECT count(*), sum(a) FROM users"), ["60|4170"]);
}
