//! Client libraries that people use, in ordinary use.

use super::Pair;
use crate::workshop::Workshop;

#[test]
fn redis_py_works_through_it() {
    let workshop = Workshop::of_python("clients", "ordinary", "ordinary.py");
    let pair = Pair::start("");
    let said = workshop.run("venv/bin/python", &["ordinary.py", &pair.anteroom.port.to_string()]);
    assert!(said.contains("RESP2 ok") && said.contains("RESP3 ok"), "{said}");
}

#[test]
fn ioredis_works_through_it() {
    let workshop = Workshop::of_node("clients", "ioredis", "ioredis.mjs");
    let pair = Pair::start("");
    let ports = [pair.anteroom.port.to_string(), pair.redis.port.to_string()];
    let said = workshop.run("node", &["ioredis.mjs", &ports[0], &ports[1]]);
    assert_eq!(said.trim(), "all of it works");
}
