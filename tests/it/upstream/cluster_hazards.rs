//! A cluster upstream that asks for a password, tells of no changes, is half moved, or has a master that was away.

use std::time::Duration;

use super::cluster::{Cluster, id};
use super::until;
use crate::harness::{Client, Server};

/// A key that a node has.
fn key_at(node: &Server) -> String {
    let mut client = node.client();
    let keys = (0..1000).map(|number| format!("k{number}"));
    keys.into_iter().find(|key| !client.run(&format!("GET {key}")).starts_with("-MOVED")).unwrap()
}

#[test]
fn each_node_is_told_the_name_and_password() {
    let nodes = Cluster::nodes(0, &[]);
    for node in &nodes {
        let mut client = node.client();
        assert_eq!(client.run("ACL SETUSER app on >pass%word ~app:* +@all"), "+OK\r\n");
        assert_eq!(client.run("CONFIG SET requirepass other"), "+OK\r\n");
    }
    let port = nodes[0].port;
    // As it is in a URL.
    let cluster = Cluster::before(nodes, &format!("redis-cluster://app:pass%25word@127.0.0.1:{port}"), "");
    let mut ours = cluster.anteroom.client();
    for number in 0..50 {
        assert_eq!(ours.run(&format!("SET app:{number} v")), "+OK\r\n");
        assert_eq!(ours.run(&format!("GET app:{number}")), "$1\r\nv\r\n");
    }
    // By connections of the client's own, too.
    for number in 0..10 {
        assert_eq!(ours.run(&format!("RPUSH app:q{number} v")), ":1\r\n");
        assert!(ours.run(&format!("BLPOP app:q{number} 1")).ends_with("\r\nv\r\n"));
    }
    // What the user may not, is said as the node says it.
    assert!(ours.run("SET other v").starts_with("-NOPERM"));

    let text = format!("[upstream]\nurl = \"redis-cluster://app:wrong@127.0.0.1:{port}\"\n");
    let refused = Server::configured(&text, &[]);
    let said = refused.client().run("GET app:1");
    assert!(said.starts_with("-UPSTREAMDOWN") && said.contains("WRONGPASS"), "{said}");
    assert!(!said.contains("wrong@") && !refused.log().contains(":wrong@"), "{said}");
}

#[test]
fn without_tracking_replies_are_kept_for_their_time() {
    let cluster = Cluster::start(0, "tracking = \"off\"\nnear-cache-ttl = \"1s\"");
    let mut ours = cluster.anteroom.client();
    let keys: Vec<String> = cluster.nodes.iter().map(key_at).collect();
    for (key, node) in keys.iter().zip(&cluster.nodes) {
        assert_eq!(ours.run(&format!("SET {key} old")), "+OK\r\n");
        for _ in 0..2 {
            assert_eq!(ours.run(&format!("GET {key}")), "$3\r\nold\r\n");
        }
        let list = node.client().run("CLIENT LIST");
        let own: Vec<&str> = list.lines().filter(|line| line.contains("name=anteroom")).collect();
        assert!(!own.is_empty() && own.iter().all(|line| line.contains("redir=-1")), "{list}");
        assert_eq!(node.client().run(&format!("SET {key} new")), "+OK\r\n");
    }
    assert!(!ours.run("INFO upstream").contains("upstream_hits:0\r\n"), "nothing was kept");
    for key in &keys {
        until("it is kept no longer", || ours.run(&format!("GET {key}")) == "$3\r\nnew\r\n");
        // Own writes are seen at once.
        assert_eq!(ours.run(&format!("SET {key} own")), "+OK\r\n");
        assert_eq!(ours.run(&format!("GET {key}")), "$3\r\nown\r\n");
    }
}

#[test]
fn what_needs_keys_of_both_ends_of_a_move_waits_for_it() {
    let cluster = Cluster::start(0, "timeout = \"5s\"");
    let mut ours = cluster.anteroom.client();
    assert_eq!(ours.run("SADD {t}a 1 2"), ":2\r\n");
    assert_eq!(ours.run("SADD {t}b 2 3"), ":2\r\n");
    let slot = cluster.nodes[0].client().run("CLUSTER KEYSLOT {t}a").trim()[1..].to_owned();
    let owner =
        cluster.nodes.iter().position(|node| !node.client().run("TYPE {t}a").starts_with("-MOVED")).unwrap();
    let (from, to) = (&cluster.nodes[owner], &cluster.nodes[(owner + 1) % 3]);
    let (mut source, mut target) = (from.client(), to.client());
    let (source_id, target_id) = (id(&mut source), id(&mut target));
    assert_eq!(target.run(&format!("CLUSTER SETSLOT {slot} IMPORTING {source_id}")), "+OK\r\n");
    assert_eq!(source.run(&format!("CLUSTER SETSLOT {slot} MIGRATING {target_id}")), "+OK\r\n");
    assert_eq!(source.run(&format!("MIGRATE 127.0.0.1 {} {{t}}a 0 5000", to.port)), "+OK\r\n");
    // One key is here and one is there.
    assert!(source.run("SUNION {t}a {t}b").starts_with("-TRYAGAIN"), "Redis has changed its mind");
    let union = |client: &mut Client| {
        let mut members: Vec<String> = client.run("SUNION {t}a {t}b").lines().map(str::to_owned).collect();
        members.sort();
        members
    };
    let expected = ["$1", "$1", "$1", "*3", "1", "2", "3"];
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| union(&mut cluster.anteroom.client()));
        std::thread::sleep(Duration::from_millis(500));
        assert!(!asked.is_finished(), "it was answered with half of the keys");
        // A single key is answered meanwhile, wherever it is.
        assert_eq!((ours.run("SCARD {t}a"), ours.run("SCARD {t}b")), (":2\r\n".into(), ":2\r\n".into()));
        assert_eq!(source.run(&format!("MIGRATE 127.0.0.1 {} {{t}}b 0 5000", to.port)), "+OK\r\n");
        for node in [(owner + 1) % 3, owner, (owner + 2) % 3].map(|index| &cluster.nodes[index]) {
            assert_eq!(node.client().run(&format!("CLUSTER SETSLOT {slot} NODE {target_id}")), "+OK\r\n");
        }
        assert_eq!(asked.join().unwrap(), expected);
    });
    assert_eq!(union(&mut ours), expected);
}

#[test]
fn a_master_that_was_away_is_not_read_from() {
    let cluster = Cluster::start(3, "timeout = \"500ms\"\nupstream-heartbeat = \"500ms\"");
    let mut ours = cluster.anteroom.client();
    let key = key_at(&cluster.nodes[0]);
    let (get, set) = (format!("GET {key}"), |value: &str| format!("SET {key} {value}"));
    assert_eq!(ours.run(&set("old")), "+OK\r\n");
    let mut replica = cluster.nodes[3].client();
    assert_eq!(replica.run("READONLY"), "+OK\r\n");
    until("the replica has the key", || replica.run(&get) == "$3\r\nold\r\n");
    assert_eq!(ours.run(&get), "$3\r\nold\r\n");
    let away = cluster.nodes[0].pid() as i32;
    // SAFETY: a signal to a child that is not waited for.
    unsafe { libc::kill(away, libc::SIGSTOP) };
    until("the replica takes over", || {
        let said = ours.run(&set("new"));
        assert!(
            said == "+OK\r\n"
                || ["-UPSTREAMDOWN", "-OUTCOMEUNKNOWN", "-CLUSTERDOWN"]
                    .iter()
                    .any(|code| said.starts_with(code)),
            "{said}"
        );
        said == "+OK\r\n"
    });
    // Back, and for a moment it believes to be the master still.
    // SAFETY: as above.
    unsafe { libc::kill(away, libc::SIGCONT) };
    let mut others = cluster.anteroom.client();
    for round in 0..200 {
        for client in [&mut ours, &mut others] {
            assert_eq!(client.run(&get), "$3\r\nnew\r\n", "round {round}");
        }
        // Not from what is kept.
        assert_eq!(ours.run(&format!("STRLEN {key}")), ":3\r\n");
        assert_eq!(ours.run(&format!("GETRANGE {key} 0 {}", 10 + round)), "$3\r\nnew\r\n");
    }
    until("it is a replica", || cluster.nodes[0].client().run("ROLE").contains("slave"));
    assert_eq!(replica.run(&set("newer")), "+OK\r\n");
    until("changes at the new master are heard of", || ours.run(&get) == "$5\r\nnewer\r\n");
}
