//! Deadlines of a hash's fields, which no Redis that the tests start has.

use std::time::Duration;

use crate::database::wait_for;
use crate::harness::{Client, Server, encode};
use crate::recorded;

/// Recorded from Redis 7.4.1, in RESP2 (`a`) and RESP3 (`b`), with deadlines that are far away or long over.
#[test]
fn replies_are_those_of_redis() {
    let server = Server::anteroom(&[]);
    server.client().run("FLUSHALL");
    let mut ask = |client: &mut Client, command: &[Vec<u8>]| {
        client.send_raw(&encode(command));
        let reply = String::from_utf8(client.read()).unwrap().replace("\r\n", "|");
        // Who answers is another.
        if command[0] == b"HELLO" { "?".to_owned() } else { reply }
    };
    recorded::check(&server, include_str!("field-deadlines-7.4.1.txt"), &mut ask);
}

/// Milliseconds that the tests let fields live which are to be seen before they go.
const SHORT: u64 = 1000;

fn pass(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// A hash `h` of which `kept` stays and the others have gone, unless somebody who looks sees them.
fn with_gone_fields(client: &mut Client, value: &str) {
    client.run("DEL h");
    client.run(&format!("HSET h a {value} b 2 kept 3"));
    assert_eq!(client.run("HPEXPIRE h 1 FIELDS 2 a b"), "*2\r\n:1\r\n:1\r\n");
    pass(5);
}

#[test]
fn no_command_sees_a_field_after_its_deadline() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("DEBUG SET-ACTIVE-EXPIRE 0");
    // In both encodings.
    for value in ["1".to_owned(), "x".repeat(100)] {
        for (command, expected) in [
            ("HGET h a", "$-1\r\n"),
            ("HMGET h a kept", "*2\r\n$-1\r\n$1\r\n3\r\n"),
            ("HGETALL h", "*2\r\n$4\r\nkept\r\n$1\r\n3\r\n"),
            ("HKEYS h", "*1\r\n$4\r\nkept\r\n"),
            ("HVALS h", "*1\r\n$1\r\n3\r\n"),
            ("HLEN h", ":1\r\n"),
            ("HSTRLEN h a", ":0\r\n"),
            ("HEXISTS h b", ":0\r\n"),
            ("HRANDFIELD h 5", "*1\r\n$4\r\nkept\r\n"),
            ("HSCAN h 0", "*2\r\n$1\r\n0\r\n*2\r\n$4\r\nkept\r\n$1\r\n3\r\n"),
            ("HDEL h a b", ":0\r\n"),
            ("HSETNX h a 5", ":1\r\n"),
            ("HSET h a 5", ":1\r\n"),
            ("HINCRBY h a 5", ":5\r\n"),
            ("HINCRBYFLOAT h b 1.5", "$3\r\n1.5\r\n"),
            ("HTTL h FIELDS 2 a kept", "*2\r\n:-2\r\n:-1\r\n"),
            ("HPERSIST h FIELDS 2 a b", "*2\r\n:-2\r\n:-2\r\n"),
            ("HEXPIRE h 100 FIELDS 2 a kept", "*2\r\n:-2\r\n:1\r\n"),
            ("EVAL return~redis.call('hlen','h') 0", ":1\r\n"),
            (
                "SORT_RO h BY nosort GET h->a",
                "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
            ),
        ] {
            with_gone_fields(&mut client, &value);
            let words: Vec<Vec<u8>> =
                command.split(' ').map(|word| word.replace('~', " ").into_bytes()).collect();
            client.send(&words);
            assert_eq!(String::from_utf8(client.read()).unwrap(), expected, "{command}");
        }
        for (command, then) in
            [("COPY h g REPLACE", "HLEN g"), ("RENAME h g", "HLEN g"), ("OBJECT ENCODING h", "HLEN h")]
        {
            with_gone_fields(&mut client, &value);
            client.run(command);
            assert_eq!(client.run(then), ":1\r\n", "{command}");
        }
    }
    // The key goes with its last field, for those too who only look for keys.
    for command in ["EXISTS h", "DBSIZE", "TTL h", "DEL h"] {
        client.run("FLUSHALL");
        client.run("HSET h a 1");
        client.run("HPEXPIRE h 1 FIELDS 1 a");
        pass(5);
        assert_eq!(client.run("KEYS *"), "*0\r\n");
        assert_eq!(client.run("SCAN 0"), "*2\r\n$1\r\n0\r\n*0\r\n");
        assert_eq!(client.run("RANDOMKEY"), "$-1\r\n");
        if command != "DBSIZE" {
            assert!([":0\r\n", ":-2\r\n"].contains(&client.run(command).as_str()), "{command}");
        }
        assert_eq!(client.run("TYPE h"), "+none\r\n");
        assert_eq!(client.run("DBSIZE"), ":0\r\n");
    }
}

#[test]
fn deadlines_follow_what_happens_to_field_and_key() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let far = "4102444800000";
    client.run("HSET h a 1 b 2");
    client.run(&format!("HPEXPIREAT h {far} FIELDS 1 a"));
    let dated = format!("*2\r\n:{far}\r\n:-1\r\n");
    // The key's own deadline is apart, and none of the fields'.
    assert_eq!(client.run("TTL h"), ":-1\r\n");
    client.run("EXPIRE h 5000");
    client.run("PERSIST h");
    assert_eq!(
        (client.run("TTL h"), client.run("HPEXPIRETIME h FIELDS 2 a b")),
        (":-1\r\n".into(), dated.clone())
    );
    client.run("HINCRBY h a 5");
    client.run("RENAME h g");
    client.run("COPY g h");
    client.send(&[b"DUMP".to_vec(), b"h".to_vec()]);
    let dump = client.read();
    let payload = dump[dump.iter().position(|byte| *byte == b'\n').unwrap() + 1..dump.len() - 2].to_vec();
    client.send(&[b"RESTORE".to_vec(), b"r".to_vec(), b"0".to_vec(), payload]);
    assert_eq!(client.read(), b"+OK\r\n");
    for key in ["g", "h", "r"] {
        assert_eq!(client.run(&format!("HPEXPIRETIME {key} FIELDS 2 a b")), dated);
        assert_eq!(client.run(&format!("HGET {key} a")), "$1\r\n6\r\n");
        assert_eq!(client.run(&format!("OBJECT ENCODING {key}")), "$10\r\nlistpackex\r\n");
    }
    client.run("HSET h a 1");
    assert_eq!(client.run("HPEXPIRETIME h FIELDS 2 a b"), "*2\r\n:-1\r\n:-1\r\n");
    // A key of another type in its place knows nothing of them.
    client.run("SET g text");
    client.run(&format!("PEXPIREAT g {far}"));
    assert_eq!(
        (client.run("GET g"), client.run("INFO keyspace").contains("expires=1,")),
        ("$4\r\ntext\r\n".into(), true)
    );
}

#[test]
fn fields_go_untouched_and_everybody_is_told() {
    let server = Server::anteroom(&[]);
    let (mut client, mut listener, mut tracking) = (server.client(), server.client(), server.client());
    client.run("CONFIG SET notify-keyspace-events KEA");
    listener.run("PSUBSCRIBE __keyspace@0__:*");
    client.run("HSET h a 1 b 2 c 3");
    client.run(&format!("HPEXPIRE h {SHORT} FIELDS 1 a"));
    client.run(&format!("HPEXPIRE h {} FIELDS 2 b c", SHORT + 500));
    client.run("HPERSIST h FIELDS 1 c");
    client.run("HPEXPIRE h 0 FIELDS 1 c");
    tracking.run("HELLO 3");
    tracking.run("CLIENT TRACKING ON");
    assert_eq!(tracking.run("HLEN h"), ":2\r\n");
    client.run("WATCH h");
    let invalidated = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nh\r\n";
    assert_eq!(String::from_utf8(tracking.read()).unwrap(), invalidated);
    client.run("MULTI");
    assert_eq!(client.run("EXEC"), "*-1\r\n");
    assert_eq!(tracking.run("HLEN h"), ":1\r\n");
    assert_eq!(String::from_utf8(tracking.read()).unwrap(), invalidated);
    assert_eq!(client.run("DBSIZE"), ":0\r\n");
    let heard: Vec<String> = listener.frames();
    let events: Vec<&str> =
        heard.iter().map(|frame| frame.trim_end().rsplit("\r\n").next().unwrap()).collect();
    assert_eq!(events, ["hset", "hexpire", "hexpire", "hpersist", "hdel", "hexpired", "hexpired", "del"]);
    let stats = client.run("INFO stats");
    assert!(stats.contains("expired_subkeys:2\r\n") && stats.contains("expired_keys:0\r\n"), "{stats}");
}

#[test]
fn memory_of_expired_fields_comes_back_untouched() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    let used = |client: &mut Client| {
        let info = client.run("INFO memory");
        let line = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap().to_owned();
        line.parse::<i64>().unwrap()
    };
    let before = used(&mut client);
    // One hash with many, and many with one.
    let mut requests = Vec::new();
    for number in 0..20_000 {
        let value = "v".repeat(100);
        requests.extend(
            format!(
                "HSET large f{number} {value}\r\nHPEXPIRE large 500 FIELDS 1 f{number}\r\n\
                 HSET small:{number} f {value} g 1\r\nHPEXPIRE small:{number} 500 FIELDS 2 f g\r\n"
            )
            .bytes(),
        );
    }
    for chunk in requests.chunks(1 << 16) {
        client.send_raw(chunk);
    }
    (0..80_000).for_each(|_| drop(client.read()));
    assert!(used(&mut client) > before + 4_000_000);
    wait_for(|| client.run("DBSIZE") == ":0\r\n");
    assert!(client.run("INFO stats").contains("expired_subkeys:60000\r\n"));
    wait_for(|| used(&mut client) < before + 2_000_000);
}

#[test]
fn deadlines_outlive_a_restart() {
    let mut server = Server::configured("[server]\ndir = \".\"\n", &[]);
    let mut client = server.client();
    client.run("HSET h a 1 b 2 gone 3");
    client.run("HPEXPIREAT h 4102444800000 FIELDS 1 a");
    client.run("HPEXPIRE h 300 FIELDS 1 gone");
    client.run("HSET all a 1");
    client.run("HPEXPIRE all 300 FIELDS 1 a");
    assert_eq!(client.run("SAVE"), "+OK\r\n");
    server.kill();
    pass(320);
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("HPEXPIRETIME h FIELDS 3 a b gone"), "*3\r\n:4102444800000\r\n:-1\r\n:-2\r\n");
    assert_eq!(client.run("EXISTS all"), ":0\r\n");
}

/// A row of the default table has the deadlines; a column of a table is empty once its field has gone.
#[test]
fn rows_follow() {
    let config = "[server]\ndir = \".\"\n[database]\nurl = \"sqlite:rows.db\"\nauto-create = true\nflush-interval = \"20ms\"\n\
        [[database.rules]]\npattern = \"any:{id}\"\n\
        [[database.rules]]\npattern = \"user:{id}\"\ntable = \"users\"\nkey = { id = \"id\" }\ncolumns = { a = \"a\", b = \"b\" }\n";
    let dir = std::env::temp_dir().join(format!("anteroom-fields-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let file = dir.join("rows.db");
    let database = rusqlite::Connection::open(&file).unwrap();
    database.execute_batch("CREATE TABLE users (id INTEGER PRIMARY KEY, a TEXT, b TEXT)").unwrap();
    let config = config.replace("sqlite:rows.db", &format!("sqlite:{}", file.display()));
    let mut server = Server::configured(&config, &[]);
    let mut client = server.client();
    client.run("HSET any:1 a 1 b 2");
    client.run("HPEXPIREAT any:1 4102444800000 FIELDS 1 a");
    client.run("HSET user:7 a x b y");
    assert_eq!(client.run("DB.FLUSH"), "+OK\r\n");
    let row = || -> Option<(Option<String>, Option<String>)> {
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?));
        database.query_row("SELECT a, b FROM users WHERE id = 7", [], read).ok()
    };
    assert_eq!(row(), Some((Some("x".into()), Some("y".into()))));
    assert_eq!(client.run("HPEXPIRE user:7 50 FIELDS 1 a"), "*1\r\n:1\r\n");
    wait_for(|| row() == Some((None, Some("y".into()))));
    assert_eq!(client.run("DB.FLUSH"), "+OK\r\n");
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("HPEXPIRETIME any:1 FIELDS 2 a b"), "*2\r\n:4102444800000\r\n:-1\r\n");
    assert_eq!(client.run("HGETALL user:7"), "*2\r\n$1\r\nb\r\n$1\r\ny\r\n");
    drop(server);
    std::fs::remove_dir_all(dir).unwrap();
}
