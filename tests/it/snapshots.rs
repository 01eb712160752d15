//! Snapshots: what a restart finds, whoever wrote it, and that it is of one moment.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fastrand::Rng;

use super::generator;
use super::harness::{Client, Server};

/// Every type and encoding, deadlines, databases and a function.
fn fill(client: &mut Client) {
    for command in [
        "SET s text",
        "SET i 12345",
        "SET e value PX 5000000",
        "SET gone value PX 1",
        "RPUSH l a b 3",
        "SADD si 1 2 3",
        "SADD ss a b 3",
        "HSET h f v g 7",
        "ZADD z 1.5 a -3 b",
        "PFADD p a b c",
        "GEOADD geo 13.4 52.5 Berlin",
        "XADD x 1-1 f v",
        "XADD x 2-1 g w",
        "XDEL x 1-1",
        "XGROUP CREATE x group 0",
        "XREADGROUP GROUP group c STREAMS x >",
        "SELECT 3",
        "SET other database",
        "SELECT 0",
        "CONFIG SET list-max-listpack-size 4",
    ] {
        client.run(command);
    }
    for number in 0..300 {
        client.run(&format!("RPUSH long element-{number}"));
        client.run(&format!("HSET large f{number} {}", "v".repeat(number % 90)));
        client.run(&format!("ZADD many {number}.25 member-{number}"));
        client.run(&format!("SADD members member-{number}"));
        client.run(&format!("SADD wide {}", 1_u64 << (number % 50)));
        client.run(&format!("XADD stream {number}-1 field {number}"));
    }
    client.run(&format!("SET blob {}", "abc".repeat(30_000)));
    let library = "#!lua name=lib\nredis.register_function('f', function() return 'from the library' end)";
    client.send(&[b"FUNCTION".to_vec(), b"LOAD".to_vec(), library.as_bytes().to_vec()]);
    assert_eq!(client.read(), b"$3\r\nlib\r\n");
}

/// All that can be read of what `fill` made.
fn contents(client: &mut Client) -> Vec<String> {
    let mut all = Vec::new();
    for command in [
        "GET s",
        "GET i",
        "GET blob",
        "LRANGE l 0 -1",
        "LRANGE long 0 -1",
        "ZRANGE z 0 -1 WITHSCORES",
        "ZRANGE many 0 -1 WITHSCORES",
        "GET p",
        "GEOPOS geo Berlin",
        "XRANGE x - +",
        "XRANGE stream - +",
        "XINFO STREAM x",
        "XPENDING x group",
        "HLEN large",
        "HGET large f77",
        "SCARD members",
        "SCARD wide",
        "HGETALL h",
        "EXISTS gone",
        "FCALL f 0",
        "EXPIRETIME e",
        "OBJECT ENCODING s",
        "OBJECT ENCODING i",
        "OBJECT ENCODING h",
        "OBJECT ENCODING large",
        "OBJECT ENCODING many",
        "OBJECT ENCODING si",
        "SELECT 3",
        "GET other",
        "SELECT 0",
    ] {
        all.push(format!("{command}: {}", client.run(command)));
    }
    for command in ["SMEMBERS si", "SMEMBERS ss", "SMEMBERS members", "SMEMBERS wide", "HGETALL large"] {
        let reply = client.run(command);
        let mut lines: Vec<&str> = reply.split("\r\n").collect();
        lines.sort_unstable();
        all.push(format!("{command}: {lines:?}"));
    }
    all
}

fn saved(config: &str) -> Server {
    Server::configured(&format!("[server]\ndir = \".\"\n{config}"), &[])
}

#[test]
fn a_restart_finds_what_was_saved() {
    let mut server = saved("");
    fill(&mut server.client());
    std::thread::sleep(Duration::from_millis(20));
    let before = contents(&mut server.client());
    assert_eq!(server.client().run("SAVE"), "+OK\r\n");
    server.client().run("SET later lost");
    server.kill();
    server.restart();
    same(&contents(&mut server.client()), &before);
    assert_eq!(server.client().run("EXISTS later"), ":0\r\n");
    // And once more, of what was loaded.
    assert_eq!(server.client().run("BGSAVE"), "+Background saving started\r\n");
    wait_for(&mut server.client(), "rdb_bgsave_in_progress:0");
    server.kill();
    server.restart();
    same(&contents(&mut server.client()), &before);
}

/// Fails with the first line that differs.
fn same(after: &[String], before: &[String]) {
    for (after, before) in after.iter().zip(before) {
        assert_eq!(after, before);
    }
}

#[test]
fn a_file_of_redis_is_loaded() {
    let redis = Server::redis();
    let mut theirs = redis.client();
    fill(&mut theirs);
    std::thread::sleep(Duration::from_millis(20));
    let before = contents(&mut theirs);
    theirs.run(&format!("CONFIG SET dir {}", redis.dir.display()));
    assert_eq!(theirs.run("SAVE"), "+OK\r\n");
    let mut server = saved("");
    server.kill();
    std::fs::copy(redis.dir.join("dump.rdb"), server.dir.join("dump.rdb")).unwrap();
    server.restart();
    same(&contents(&mut server.client()), &before);
}

/// Thousands of random commands of all types, saved by Redis and by us.
#[test]
fn whatever_commands_make_is_saved_and_loaded() {
    let (redis, mut server) = (Server::redis(), saved(""));
    let (mut theirs, mut ours) = (redis.client(), server.client());
    let mut rng = Rng::with_seed(3);
    for _ in 0..6000 {
        let (command, _) = generator::command(&mut rng);
        let name = String::from_utf8_lossy(&command[0]).to_uppercase();
        // What both decide by chance or by the clock, and what leaves no keys.
        if ["SPOP", "MULTI", "EXEC", "DISCARD", "FLUSHALL", "FLUSHDB", "SWAPDB", "MOVE", "SELECT"]
            .contains(&&*name)
        {
            continue;
        }
        for client in [&mut theirs, &mut ours] {
            client.send(&command);
            client.read();
        }
    }
    let all = |client: &mut Client| -> Vec<String> {
        (0..12)
            .map(|number| {
                client.send(&[b"DUMP".to_vec(), format!("k{number}").into_bytes()]);
                let dump = client.read();
                // Tables have no order of their own: the size tells enough, and the type.
                format!(
                    "{} {} {}",
                    client.run(&format!("TYPE k{number}")),
                    client.run(&format!("PEXPIRETIME k{number}")),
                    dump.len()
                )
            })
            .collect()
    };
    let before = all(&mut ours);
    assert_eq!(ours.run("SAVE"), "+OK\r\n");
    server.kill();
    server.restart();
    let mut ours = server.client();
    assert_eq!(all(&mut ours), before);
    // The same keys as Redis's file brings, by the number of elements that each says to have.
    let sizes = |client: &mut Client| -> Vec<String> {
        let size = |key: String, kind: &str| match kind {
            "+string\r\n" => format!("STRLEN {key}"),
            "+list\r\n" => format!("LLEN {key}"),
            "+hash\r\n" => format!("HLEN {key}"),
            "+set\r\n" => format!("SCARD {key}"),
            "+zset\r\n" => format!("ZCARD {key}"),
            _ => format!("EXISTS {key}"),
        };
        (0..12)
            .map(|number| {
                let kind = client.run(&format!("TYPE k{number}"));
                let size = client.run(&size(format!("k{number}"), &kind));
                format!("{kind}{size}")
            })
            .collect()
    };
    let expected = sizes(&mut theirs);
    theirs.run(&format!("CONFIG SET dir {}", redis.dir.display()));
    assert_eq!(theirs.run("SAVE"), "+OK\r\n");
    server.kill();
    std::fs::copy(redis.dir.join("dump.rdb"), server.dir.join("dump.rdb")).unwrap();
    server.restart();
    assert_eq!(sizes(&mut server.client()), expected);
}

fn wait_for(client: &mut Client, line: &str) {
    for _ in 0..2000 {
        if client.run("INFO persistence").contains(&format!("{line}\r\n")) {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never: {line}");
}

const ACCOUNTS: usize = 2000;

/// While clients move money about, in transactions and by scripts, snapshots are written: in each there is all of it.
#[test]
fn a_snapshot_is_of_one_moment() {
    let mut server = saved("");
    let mut client = server.client();
    for account in 0..ACCOUNTS {
        client.run(&format!("SET account:{account} 1000"));
    }
    for number in 0..30_000 {
        client.send_raw(format!("SET filler:{number} {}\r\n", "x".repeat(200)).as_bytes());
    }
    (0..30_000).for_each(|_| drop(client.read()));
    for round in 0..4 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for seed in 0..4 {
                let (server, stop) = (&server, &stop);
                scope.spawn(move || move_money(&mut server.client(), stop, seed));
            }
            std::thread::sleep(Duration::from_millis(50));
            let (saves, last) = ("rdb_saves:", "rdb_last_bgsave_status:ok");
            assert_eq!(client.run("BGSAVE"), "+Background saving started\r\n");
            wait_for(&mut client, &format!("{saves}1"));
            assert!(client.run("INFO persistence").contains(last));
            stop.store(true, Ordering::Relaxed);
        });
        server.kill();
        server.restart();
        client = server.client();
        let total: i64 = (0..ACCOUNTS)
            .map(|account| {
                let reply = client.run(&format!("GET account:{account}"));
                reply.split("\r\n").nth(1).unwrap().parse::<i64>().unwrap()
            })
            .sum();
        assert_eq!(total, 1000 * ACCOUNTS as i64, "round {round}");
        assert_eq!(client.run("DBSIZE"), format!(":{}\r\n", ACCOUNTS + 30_000));
    }
}

fn move_money(client: &mut Client, stop: &AtomicBool, seed: u64) {
    let mut rng = Rng::with_seed(seed);
    let script = "redis.call('DECRBY', KEYS[1], ARGV[1]) redis.call('INCRBY', KEYS[2], ARGV[1])";
    while !stop.load(Ordering::Relaxed) {
        let (from, to) = (rng.usize(..ACCOUNTS), rng.usize(..ACCOUNTS));
        let (from, to, sum) = (format!("account:{from}"), format!("account:{to}"), rng.u8(..).to_string());
        if rng.bool() {
            let commands = format!("MULTI\r\nDECRBY {from} {sum}\r\nINCRBY {to} {sum}\r\nEXEC\r\n");
            client.send_raw(commands.as_bytes());
            (0..4).for_each(|_| drop(client.read()));
        } else {
            client.send(&["EVAL", script, "2", &from, &to, &sum].map(|word| word.as_bytes().to_vec()));
            assert_eq!(client.read(), b"$-1\r\n");
        }
    }
}

#[test]
fn the_schedule_and_the_end_write_snapshots() {
    let mut server = saved("save = \"1 100 1000 1\"\n");
    let mut client = server.client();
    assert_eq!(client.run("CONFIG GET save"), "*2\r\n$4\r\nsave\r\n$12\r\n1 100 1000 1\r\n");
    let began: i64 = client.run("LASTSAVE").trim_start_matches(':').trim_end().parse().unwrap();
    (0..200).for_each(|number| drop(client.run(&format!("SET k{number} v"))));
    wait_for(&mut client, "rdb_saves:1");
    let saved: i64 = client.run("LASTSAVE").trim_start_matches(':').trim_end().parse().unwrap();
    assert!(saved >= began);
    client.run("SET after v");
    assert!(client.run("INFO persistence").contains("rdb_changes_since_last_save:1\r\n"));
    assert_eq!(server.stop(libc::SIGTERM).code(), Some(0));
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("DBSIZE"), ":201\r\n");
    assert!(client.run("INFO persistence").contains("rdb_last_load_keys_loaded:201\r\n"));
    client.run("SET lost v");
    client.send_raw(b"SHUTDOWN NOSAVE\r\n");
    assert_eq!(server.wait().code(), Some(0));
    server.restart();
    let mut client = server.client();
    assert_eq!(
        client.run("CONFIG SET save ''"),
        "-ERR CONFIG SET failed (possibly related to argument 'save') - Invalid save parameters\r\n"
    );
    assert_eq!(client.run("DBSIZE"), ":201\r\n");
    client.run("SET kept v");
    client.send_raw(b"SHUTDOWN SAVE\r\n");
    assert_eq!(server.wait().code(), Some(0));
    server.restart();
    assert_eq!(server.client().run("DBSIZE"), ":202\r\n");
}

#[test]
fn what_cannot_be_written_is_said_and_what_cannot_be_read_is_not_served() {
    let mut server = saved("");
    let mut client = server.client();
    client.run("SET k v");
    assert_eq!(
        client.run("CONFIG SET dbfilename a/b").split(" - ").nth(1),
        Some("dbfilename can't be a path, just a filename\r\n")
    );
    // A directory is in the way.
    std::fs::create_dir(server.dir.join("dump.rdb")).unwrap();
    assert_eq!(client.run("SAVE"), "-ERR\r\n");
    assert!(client.run("INFO persistence").contains("rdb_last_bgsave_status:err\r\n"));
    assert_eq!(client.run("GET k"), "$1\r\nv\r\n");
    client.send_raw(b"SHUTDOWN SAVE\r\n");
    assert_eq!(client.read(), b"-ERR Errors trying to SHUTDOWN. Check logs.\r\n");
    std::fs::remove_dir(server.dir.join("dump.rdb")).unwrap();
    assert_eq!(client.run("SAVE"), "+OK\r\n");
    assert!(
        std::fs::read_dir(&server.dir)
            .unwrap()
            .all(|entry| { !entry.unwrap().file_name().to_string_lossy().starts_with("temp-") })
    );
    let file = server.dir.join("dump.rdb");
    let whole = std::fs::read(&file).unwrap();
    server.kill();
    for (content, says) in [
        (&whole[..whole.len() - 3], "its checksum is wrong"),
        (b"something else", "it is no RDB file"),
        (b"REDIS0099", "its version 99 is not known"),
    ] {
        std::fs::write(&file, content).unwrap();
        server.try_restart();
        assert_eq!(server.wait().code(), Some(1));
        assert!(server.log().contains(says), "{says}: {}", server.log());
    }
    std::fs::write(&file, &whole).unwrap();
    server.restart();
    assert_eq!(server.client().run("GET k"), "$1\r\nv\r\n");
    for command in ["MULTI", "SAVE"] {
        server.client().run(command);
    }
    let mut client = server.client();
    client.run("MULTI");
    assert_eq!(client.run("SAVE"), "-ERR Command not allowed inside a transaction\r\n");
    assert_eq!(client.run("BGSAVE"), "+QUEUED\r\n");
    client.run("DISCARD");
    assert_eq!(client.run("BGSAVE NOW"), "-ERR syntax error\r\n");
}

/// Rows are read from their database, which may have changed since; other keys come from the snapshot.
#[test]
fn rows_of_a_database_are_not_loaded() {
    let config = "[database]\nurl = \"sqlite:rows.db\"\nauto-create = true\n[[database.rules]]\npattern = \"row:{id}\"\nmode = \"write-behind\"\n";
    let mut server = saved(config);
    let mut client = server.client();
    client.run("SET row:1 old");
    client.run("SET plain v");
    assert_eq!(client.run("DB.FLUSH"), "+OK\r\n");
    assert_eq!(client.run("SAVE"), "+OK\r\n");
    client.run("SET row:1 new");
    assert_eq!(client.run("DB.FLUSH"), "+OK\r\n");
    server.kill();
    server.restart();
    let mut client = server.client();
    assert_eq!(client.run("DBSIZE"), ":1\r\n");
    assert_eq!(client.run("GET row:1"), "$3\r\nnew\r\n");
    assert_eq!(client.run("GET plain"), "$1\r\nv\r\n");
}
