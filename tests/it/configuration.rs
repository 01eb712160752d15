//! The configuration file and its faults.

use std::collections::BTreeMap;
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
            "[upstream]\nurl = \"redis-ring://x\"\n",
            "line 2: upstream.url: the scheme 'redis-ring' is not known",
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
fn a_database_that_does_not_fit_its_rules_is_refused_at_start() {
    let dir = std::env::temp_dir().join(format!("anteroom-{}-unfit", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let rule =
        "[[database.rules]]\npattern = \"u:{id}\"\ntable = \"users\"\nkey = { id = \"id\" }\nvalue = \"v\"\n";
    for (database, expected) in [
        ("url = \"sqlite:a.db\"\n", "database rule 'u:{id}': there is no table 'users'"),
        ("url = \"postgres://nobody@127.0.0.1:1/x\"\n", "the database is not available: "),
        (
            "url = \"sqlite:a.db\"\njournal = \"upstream\"\n",
            "database.journal: there is no upstream that could hold it",
        ),
    ] {
        let path = dir.join("a.toml");
        std::fs::write(&path, format!("[database]\n{database}{rule}")).unwrap();
        let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
            .args(["--port", "0", "--admin", "off", "--config", "a.toml"])
            .current_dir(&dir)
            .output()
            .unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(expected), "{said}");
    }
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn directives_do_what_they_say() {
    let server = Server::anteroom(&[]);
    let mut client = server.client();
    client.run("SET k v");
    let set = |client: &mut crate::harness::Client, name: &str, value: &str| {
        let words = ["CONFIG", "SET", name, value].map(|word| word.as_bytes().to_vec());
        client.send(&words);
        String::from_utf8_lossy(&client.read()).into_owned()
    };
    assert_eq!(set(&mut client, "latency-tracking-info-percentiles", "25 99.5"), "+OK\r\n");
    let stats = client.run("INFO latencystats");
    assert!(stats.contains("latency_percentiles_usec_set:p25=") && stats.contains(",p99.5="), "{stats}");
    assert!(
        set(&mut client, "latency-tracking-info-percentiles", "101").starts_with("-ERR CONFIG SET failed")
    );
    assert_eq!(set(&mut client, "hz", "100"), "+OK\r\n");
    assert_eq!(set(&mut client, "active-expire-effort", "10"), "+OK\r\n");
    assert!(client.run("INFO server").contains("\r\nhz:100\r\n"));
    for wrong in ["", "normal 1 2", "nobody 0 0 0"] {
        assert!(set(&mut client, "client-output-buffer-limit", wrong).starts_with("-ERR CONFIG SET failed"));
    }
    assert_eq!(set(&mut client, "lazyfree-lazy-user-flush", "no"), "+OK\r\n");
    assert_eq!(client.run("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.run("DBSIZE"), ":0\r\n");
}

/// Directives whose defaults are not Redis's: where it listens and writes is the host's business, and what is expensive to
/// free is always freed elsewhere; memory is defragmented without being asked.
const OTHER_DEFAULTS: &[&str] =
    &["port", "bind", "dir", "loglevel", "activedefrag", "active-defrag-ignore-bytes"];

#[test]
fn defaults_are_those_of_redis() {
    let [ours, theirs] = [Server::anteroom(&[]), Server::redis()].map(|server| {
        let reply = server.client().run("CONFIG GET *");
        let words: Vec<String> = reply.split("\r\n").skip(2).step_by(2).map(str::to_owned).collect();
        words.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect::<BTreeMap<_, _>>()
    });
    let mut compared = 0;
    for (name, value) in &ours {
        let is_other = OTHER_DEFAULTS.contains(&&**name) || name.starts_with("lazyfree-");
        if let Some(theirs) = theirs.get(name).filter(|_| !is_other) {
            assert_eq!(value, theirs, "{name}");
            compared += 1;
        }
    }
    assert!(compared > 25, "only {compared} directives were compared");
}
