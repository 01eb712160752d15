//! The database or the upstream goes away for a while: nothing is lost, and what cannot be taken is refused.

use super::Hosts;
use crate::database::{bulk, flush, info, wait_for};
use crate::harness::Server;
use crate::postgres::Postgres;
use crate::upstream::sentinel::{NEVER, Watched};

#[test]
fn a_database_that_is_away_costs_nothing_until_the_journal_is_full() {
    let mut hosts = Hosts::start(2, "flush-interval = \"10ms\"\njournal-max-size = \"1mb\"");
    let mut clients = hosts.clients();
    clients[0].run("SET note:n:first x");
    flush(&hosts.hosts[0]);
    hosts.postgres.kill();
    // Of which Redis cannot make less.
    let value: String = std::iter::repeat_with(fastrand::alphanumeric).take(10_000).collect();
    let mut accepted = 0;
    let refused = loop {
        let reply = clients[accepted % 2].run(&format!("SET note:n:{accepted} {value}"));
        if reply != "+OK\r\n" {
            break reply;
        }
        accepted += 1;
    };
    assert!(refused.starts_with("-BUSY the write is refused, the database has not taken"), "{refused}");
    assert!((50..200).contains(&accepted), "{accepted}");
    // Reads of what is there, and other keys, go on; so do hosts that begin now.
    assert_eq!(clients[1].run("GET note:n:0"), bulk(&value));
    assert_eq!(clients[1].run("SET other x"), "+OK\r\n");
    assert!(clients[1].run("GET note:n:missing").starts_with("-DBERR cannot load the row"));
    hosts.hosts[0].kill();
    hosts.hosts[0].restart();
    let mut client = hosts.hosts[0].client();
    assert_eq!(client.run("GET note:n:1"), bulk(&value));
    assert!(client.run("DB.STATUS").contains("away"));
    hosts.postgres.restart();
    flush(&hosts.hosts[1]);
    let there = hosts.postgres.sql("SELECT count(*) FROM notes WHERE title <> 'first'");
    assert_eq!(there, [accepted.to_string()]);
    wait_for(|| client.run("SET note:n:last x") == "+OK\r\n");
    flush(&hosts.hosts[0]);
    wait_for(|| info(&hosts.hosts[0], "writebehind_journal_bytes") == 0);
}

#[test]
fn what_waits_for_too_long_has_writes_refused() {
    let mut hosts = Hosts::start(1, "flush-interval = \"10ms\"\njournal-max-age = \"300ms\"");
    let mut client = hosts.hosts[0].client();
    hosts.postgres.kill();
    assert_eq!(client.run("SET note:n:1 x"), "+OK\r\n");
    wait_for(|| client.run("SET note:n:2 x").starts_with("-BUSY the write is refused"));
    hosts.postgres.restart();
    wait_for(|| client.run("SET note:n:3 x") == "+OK\r\n");
}

/// Upstream's own journal keeps ours.
#[test]
fn an_upstream_that_is_killed_has_what_it_acknowledged() {
    let postgres = Postgres::start();
    postgres.sql(crate::database::TABLES);
    let mut redis = Server::redis_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let config = Hosts::config(&postgres, &redis, "flush-interval = \"1h\"", crate::database::RULES);
    let host = Server::configured(&config, &[]);
    let mut client = host.client();
    for turn in 0..3 {
        for number in 0..50 {
            assert_eq!(client.run(&format!("SET note:{turn}:{number} {number}")), "+OK\r\n");
        }
        redis.kill();
        assert!(client.run("SET note:a:lost x").starts_with('-'));
        redis.restart();
        wait_for(|| client.run("SET note:a:back x") == "+OK\r\n");
        wait_for(|| client.run("DB.FLUSH TIMEOUT 15000") == "+OK\r\n");
        let there = postgres.sql("SELECT count(*) FROM notes WHERE owner <> 'a'");
        assert_eq!(there, [((turn + 1) * 50).to_string()]);
    }
    // Whoever empties it behind our back does not stop us.
    redis.client().run("FLUSHALL");
    wait_for(|| client.run("SET note:b:1 x") == "+OK\r\n");
    wait_for(|| client.run("DB.FLUSH TIMEOUT 1000") == "+OK\r\n");
    assert_eq!(postgres.sql("SELECT body FROM notes WHERE owner = 'b'"), ["x"]);
    assert_eq!(client.run("GET note:0:7"), bulk("7"));
}

/// A row that the database refuses is a dead letter; one of a key that no rule of a host writes is said, and waits.
#[test]
fn what_is_refused_holds_up_nothing_else() {
    let hosts = Hosts::start(2, "flush-interval = \"10ms\"");
    let mut clients = hosts.clients();
    clients[0].run("HSET user:1 a nonsense");
    clients[1].run("HSET user:2 a 2");
    clients[0].run("RPUSH note:n:list x");
    flush(&hosts.hosts[1]);
    assert_eq!(hosts.postgres.sql("SELECT id, a FROM users"), ["2|2"]);
    let letters = clients[1].run("DB.DEADLETTER LIST");
    assert!(letters.starts_with("*2\r\n") && letters.contains("user:1"), "{letters}");
    let rules = "[[database.rules]]\npattern = \"new:{x}\"";
    let other = Hosts::config(&hosts.postgres, &hosts.redis, "flush-interval = \"10ms\"", rules);
    let other = Server::configured(&other, &[]);
    let mut client = other.client();
    assert_eq!(client.run("SET new:1 x"), "+OK\r\n");
    let is_said =
        |host: &Server| host.client().run("DB.STATUS").contains("no rule of this host writes new:1");
    let is_there = || hosts.postgres.sql("SELECT count(*) FROM anteroom_entries") == ["1"];
    wait_for(|| is_there() || hosts.hosts.iter().any(is_said));
    // What a host can do nothing with is another's as soon as it ends.
    drop(hosts.hosts);
    wait_for(|| hosts.postgres.sql("SELECT count(*) FROM anteroom_entries") == ["1"]);
}

/// A Redis that may evict any key may evict the journal: no write is taken that could be lost so.
#[test]
fn a_journal_that_may_be_evicted_takes_nothing() {
    let hosts = Hosts::start(1, "flush-interval = \"10ms\"");
    let (mut client, mut redis) = (hosts.hosts[0].client(), hosts.redis.client());
    assert_eq!(client.run("SET note:n:1 x"), "+OK\r\n");
    redis.run("CONFIG SET maxmemory-policy allkeys-lru");
    redis.run("CONFIG SET maxmemory 1gb");
    wait_for(|| client.run("SET note:n:2 x").starts_with("-IOERR the write is refused: upstream may evict"));
    assert!(
        client.run("DB.STATUS").contains("upstream may evict the journal (maxmemory-policy allkeys-lru)")
    );
    assert_eq!(client.run("SET other x"), "+OK\r\n");
    redis.run("CONFIG SET maxmemory-policy volatile-lru");
    wait_for(|| client.run("SET note:n:2 x") == "+OK\r\n");
    // Where it has no memory left, and evicts nothing, nothing of a write is done.
    redis.run("CONFIG SET maxmemory-policy noeviction");
    redis.run("CONFIG SET maxmemory 1");
    for command in ["SET note:n:3 x", "DEL note:n:1", "EVAL return{redis.call('del',KEYS[1])} 1 note:n:1"] {
        let reply = client.run(command);
        assert!(
            reply.contains("OOM command not allowed when used memory > 'maxmemory'."),
            "{command}: {reply}"
        );
    }
    redis.run("CONFIG SET maxmemory 0");
    assert_eq!(client.run("GET note:n:1"), bulk("x"));
    flush(&hosts.hosts[0]);
    assert_eq!(hosts.postgres.sql("SELECT title FROM notes ORDER BY 1"), ["1", "2"]);
}

/// The journal goes with the master, and so do those who read it and keep it.
#[test]
fn a_failover_takes_the_journal_along() {
    let mut watched = Watched::start(NEVER);
    let postgres = Postgres::start();
    postgres.sql(crate::database::TABLES);
    let options = "flush-interval = \"1h\"";
    let config = Hosts::config_before(&watched.url(), &postgres, options, crate::database::RULES);
    let hosts = [Server::configured(&config, &[]), Server::configured(&config, &[])];
    for turn in 0..3 {
        let mut clients: Vec<_> = hosts.iter().map(Server::client).collect();
        for number in 0..40 {
            let client = &mut clients[number % 2];
            wait_for(|| client.run(&format!("SET note:{turn}:{number} {number}")) == "+OK\r\n");
        }
        watched.fail_over();
        wait_for(|| clients[turn % 2].run(&format!("APPEND note:{turn}:0 x")).starts_with(':'));
        wait_for(|| clients[0].run("DB.FLUSH TIMEOUT 5000") == "+OK\r\n");
        let there = postgres.sql(&format!("SELECT count(*) FROM notes WHERE owner = '{turn}'"));
        assert_eq!(there, ["40"], "after failover {turn}");
        assert!(
            postgres.sql(&format!("SELECT body FROM notes WHERE owner = '{turn}' AND title = '0'"))[0]
                .starts_with("0x")
        );
    }
}
