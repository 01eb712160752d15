//! Client libraries that people use, in ordinary use.

use std::process::Command;

use super::Pair;
use crate::workshop::Workshop;

#[test]
fn redis_py_works_through_it() {
    let pair = Pair::start("");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/upstream/redis_py.py");
    let has_redis = |python: &&str| {
        Command::new(python).args(["-c", "import redis"]).output().is_ok_and(|output| output.status.success())
    };
    let python = ["python3", "/usr/bin/python3"].into_iter().find(has_redis);
    let python = python.expect("python3 with redis-py is missing: apt-get install python3-redis");
    let output = Command::new(python).arg(script).arg(pair.anteroom.port.to_string()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("RESP2 ok") && out.contains("RESP3 ok"), "{out}\n{err}");
}

#[test]
fn ioredis_works_through_it() {
    let workshop = Workshop::of_node("clients", "ioredis", "ioredis.mjs");
    let pair = Pair::start("");
    let ports = [pair.anteroom.port.to_string(), pair.redis.port.to_string()];
    let said = workshop.run("node", &["ioredis.mjs", &ports[0], &ports[1]]);
    assert_eq!(said.trim(), "all of it works");
}
