//! The configuration file and its faults.

use std::process::{Command, Output};

use crate::harness::Server;

fn check(name: &str, text: &str) -> Output {
    let path = std::env::temp_dir().join(format!("anteroom-{}-{name}.toml", std::process::id()));
    std::fs::write(&path, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .arg("check")
        .arg("--config")
        .arg(&path)
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    output
}

#[test]
fn faults_are_named_with_line_and_key() {
    for (name, text, expected) in [
        ("key", "[server]\nport = 1\nprot = 2\n", "line 3: unknown key 'server.prot'"),
        ("section", "[sever]\nport = 1\n", "line 1: unknown key '[sever]'"),
        ("value", "[memory]\nmaxmemory = \"lots\"\n", "line 2: maxmemory: argument must be a memory value"),
        ("syntax", "[server\n", "line 1"),
        ("database", "[database]\nurl = \"x\"\n", "unknown key '[database]'"),
    ] {
        let output = check(name, text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
    }
}

#[test]
fn the_shipped_file_is_valid() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/anteroom.toml");
    let status =
        Command::new(env!("CARGO_BIN_EXE_anteroom")).args(["check", "--config", path]).status().unwrap();
    assert_eq!(status.code(), Some(0));
}

#[test]
fn flags_win_over_the_file() {
    let path = std::env::temp_dir().join(format!("anteroom-{}-flags.toml", std::process::id()));
    std::fs::write(&path, "[memory]\nmaxmemory = \"7mb\"\nmaxmemory-policy = \"allkeys-lru\"\n").unwrap();
    let server = Server::anteroom(&["--config", path.to_str().unwrap(), "--maxmemory", "9mb"]);
    let mut client = server.client();
    assert_eq!(client.run("CONFIG GET maxmemory"), "*2\r\n$9\r\nmaxmemory\r\n$7\r\n9437184\r\n");
    assert!(client.run("CONFIG GET maxmemory-policy").contains("allkeys-lru"));
    std::fs::remove_file(&path).unwrap();
}
