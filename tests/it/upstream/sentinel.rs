//! A failover by Sentinels: writes go on at the new master, and nothing that only the old one had is served.

use super::until;
use crate::harness::{Server, free_port};

/// A Sentinel that watches a master, and decides alone.
fn sentinel(master: &Server) -> Server {
    let file =
        std::env::temp_dir().join(format!("anteroom-sentinel-{}-{}.conf", std::process::id(), master.port));
    let text = format!(
        "bind 127.0.0.1\nsentinel monitor main 127.0.0.1 {} 1\nsentinel down-after-milliseconds main 1000\n\
         sentinel failover-timeout main 5000\n",
        master.port
    );
    std::fs::write(&file, text).unwrap();
    Server::sentinel_at(free_port(), file.to_str().unwrap())
}

#[test]
fn a_failover_is_followed() {
    let (mut master, replica) = (Server::redis(), Server::redis());
    replica.client().run(&format!("REPLICAOF 127.0.0.1 {}", master.port));
    until("the replica follows", || {
        replica.client().run("INFO replication").contains("master_link_status:up")
    });
    let sentinel = sentinel(&master);
    let mut asked = sentinel.client();
    until("the Sentinel knows the replica", || {
        asked.run("SENTINEL REPLICAS main").contains(&replica.port.to_string())
    });
    // The first Sentinel is not there, which is no matter.
    let url = format!("redis-sentinel://127.0.0.1:1,127.0.0.1:{}/main", sentinel.port);
    let anteroom = Server::anteroom(&["--upstream", &url]);
    let mut ours = anteroom.client();
    assert_eq!(ours.run("SET k before"), "+OK\r\n");
    assert_eq!(ours.run("GET k"), "$6\r\nbefore\r\n");
    assert_eq!(ours.run("WAIT 1 1000").get(..4), Some("-ERR"));
    assert_eq!(master.client().run("WAIT 1 10000"), ":1\r\n");
    assert_eq!(
        (ours.run("RPUSH q v"), ours.run("BLPOP q 1")),
        (":1\r\n".into(), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n".into())
    );
    master.stop(libc::SIGKILL);
    until("the failure is noticed", || ours.run("GET k").starts_with("-UPSTREAMDOWN"));
    until("the new master takes writes", || ours.run("SET k after") == "+OK\r\n");
    assert_eq!(
        (ours.run("GET k"), replica.client().run("GET k")),
        ("$5\r\nafter\r\n".into(), "$5\r\nafter\r\n".into())
    );
    assert_eq!(
        (ours.run("RPUSH q v"), ours.run("BLPOP q 1")),
        (":1\r\n".into(), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n".into())
    );
    replica.client().run("SET k changed");
    until("changes at the new master are heard of", || ours.run("GET k") == "$7\r\nchanged\r\n");
}

#[test]
fn a_name_that_no_sentinel_knows_is_said() {
    let master = Server::redis();
    let sentinel = sentinel(&master);
    let anteroom =
        Server::anteroom(&["--upstream", &format!("redis-sentinel://127.0.0.1:{}/other", sentinel.port)]);
    let said = anteroom.client().run("GET k");
    assert!(
        said.starts_with("-UPSTREAMDOWN") && said.contains("no Sentinel knows where 'other' is"),
        "{said}"
    );
}
