//! The limiter libraries that applications use, unmodified, run against a server with several threads.

use crate::harness::Server;
use crate::workshop::Workshop;

#[test]
fn libraries_for_node_admit_exactly_the_limit() {
    let workshop = Workshop::of_node("limiters", "node", "limiters.mjs");
    let server = Server::anteroom(&["--threads", "2"]);
    let said = workshop.run("node", &["limiters.mjs", &server.port.to_string()]);
    assert_eq!(said.trim(), "exactly the limit");
}

#[test]
fn the_library_for_python_admits_exactly_the_limit() {
    let workshop = Workshop::of_python("limiters", "python", "limiters.py");
    let server = Server::anteroom(&["--threads", "2"]);
    let said = workshop.run("venv/bin/python", &["limiters.py", &server.port.to_string()]);
    assert_eq!(said.trim(), "exactly the limit");
}
