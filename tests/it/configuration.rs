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
        (
            "upstream",
            "[upstream]\nurl = \"redis-cluster://x\"\n",
            "line 2: upstream.url: Cluster is not served yet",
        ),
        ("keys", "[server]\n\n[[keys]]\npattern = \"a*\"\n", "line 3: keys: tier must be"),
        (
            "database",
            "[database]\nurl = \"x\"\n",
            "line 2: database.url: must begin with postgres:// or sqlite:",
        ),
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

#[test]
fn rewriting_keeps_the_file_and_survives_a_restart() {
    let path = std::env::temp_dir().join(format!("anteroom-{}-rewrite.toml", std::process::id()));
    std::fs::write(&path, "# kept\n[memory]\nmaxmemory = \"7mb\" # so much\n").unwrap();
    let arguments = ["--config", path.to_str().unwrap()];
    {
        let server = Server::anteroom(&arguments);
        let mut client = server.client();
        client.run("CONFIG SET maxmemory 8mb maxmemory-policy allkeys-lfu notify-keyspace-events KEA");
        assert_eq!(client.run("CONFIG REWRITE"), "+OK\r\n");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# kept\n[memory]\nmaxmemory = \"8mb\" # so much\n"), "{text}");
        std::fs::remove_file(&path).unwrap();
        assert!(client.run("CONFIG REWRITE").starts_with("-ERR Rewriting config file: "));
        std::fs::write(&path, text).unwrap();
    }
    let server = Server::anteroom(&arguments);
    let mut client = server.client();
    assert!(client.run("CONFIG GET maxmemory-policy").contains("allkeys-lfu"));
    assert!(client.run("CONFIG GET notify*").contains("AKE"));
    std::fs::remove_file(&path).unwrap();
    let server = Server::anteroom(&[]);
    assert_eq!(server.client().run("CONFIG REWRITE"), "-ERR The server is running without a config file\r\n");
}

#[test]
fn statistics_count_from_nothing_again() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("SET key value");
    client.run("GET key");
    client.run("GET nothing");
    client.run("INCR key");
    assert!(client.run("INFO everything").contains("keyspace_hits:1\r\n"));
    assert_eq!(client.run("CONFIG RESETSTAT"), "+OK\r\n");
    let info = client.run("INFO everything");
    for line in
        ["keyspace_hits:0", "keyspace_misses:0", "total_error_replies:0", "total_connections_received:0"]
    {
        assert!(info.contains(&format!("\n{line}\r\n")), "{line}: {info}");
    }
    for gone in ["cmdstat_set", "errorstat_", "latency_percentiles_usec_get"] {
        assert!(!info.contains(gone), "{gone}: {info}");
    }
}

#[test]
fn a_section_that_is_not_served_is_refused_at_start() {
    let path = std::env::temp_dir().join(format!("anteroom-{}-database.toml", std::process::id()));
    std::fs::write(&path, "[database]\nurl = \"sqlite:./data/a.db\"\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["--port", "0", "--admin", "off", "--config", path.to_str().unwrap()])
        .output()
        .unwrap();
    std::fs::remove_file(&path).unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("the section [database] is not served yet"), "{said}");
}
