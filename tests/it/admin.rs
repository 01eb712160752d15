//! The admin HTTP server: its routes, its token, and that it answers whatever the workers do.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::harness::{PATIENCE, Server, free_port};
use crate::http::{get, request};

/// A configuration file that goes when the test does.
pub struct ConfigFile(pub PathBuf);

impl ConfigFile {
    pub fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("anteroom-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

const POLICIES: &str = "[ratelimit.policies.api]\nlimit = 2\nwindow = \"1h\"\n\n[ratelimit.policies.both]\nwindows = \
    [{ limit = 10, window = \"1s\" }, { limit = 1000, window = \"15m\" }]\n";

#[test]
fn every_route_answers() {
    let server = Server::with_admin(&[], &[]);
    for (path, kind, part) in [
        ("/healthz", "text/plain", "ok"),
        ("/readyz", "text/plain", "ready"),
        ("/metrics", "text/plain; version=0.0.4", "redis_up 1\n"),
        ("/admin/performance", "application/json", "\"uptime_seconds\""),
        ("/", "text/html", "</script>"),
    ] {
        let response = get(server.admin, path);
        assert_eq!(response.status, 200, "{path}");
        assert!(
            response.header("content-type").starts_with(kind),
            "{path}: {}",
            response.header("content-type")
        );
        assert!(response.body.contains(part), "{path}: {}", response.body);
        let head = request(server.admin, "HEAD", path, &[]);
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
    }
    for path in ["/nothing", "/metrics/", "/admin", "/ratelimit/", "/healthz/x", "/../etc/passwd"] {
        let status = get(server.admin, path).status;
        assert!(status == 404 || (path == "/ratelimit/" && status == 400), "{path}: {status}");
    }
    assert_eq!(request(server.admin, "POST", "/metrics", &[]).status, 405);
    // The page brings all it needs with it.
    let page = get(server.admin, "/").body;
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="), "{page}");
}

#[test]
fn the_token_guards_all_but_health() {
    let file = ConfigFile::new("token", &format!("[admin]\ntoken = \"s3cret\"\n\n{POLICIES}"));
    let server = Server::with_admin(&["--config", file.path()], &[]);
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.admin, path).status, 200, "{path}");
    }
    // "anybody:s3cret"
    let basic = "Basic YW55Ym9keTpzM2NyZXQ=";
    for path in ["/metrics", "/admin/performance", "/", "/ratelimit/api/me", "/nothing"] {
        let refused = get(server.admin, path);
        assert_eq!(refused.status, 401, "{path}");
        assert!(refused.headers.contains_key("www-authenticate"), "{path}");
        let with = |value| request(server.admin, "GET", path, &[("Authorization", value)]).status;
        for wrong in
            ["Bearer s3cre", "Bearer s3crets", "Bearer", "Basic s3cret", "Basic YW55Ym9keQ==", "s3cret"]
        {
            assert_eq!(with(wrong), 401, "{path}: {wrong}");
        }
        let expected = if path == "/nothing" { 404 } else { 200 };
        assert_eq!((with("Bearer s3cret"), with(basic)), (expected, expected), "{path}");
    }
}

#[test]
fn the_configuration_says_where() {
    let file = ConfigFile::new("listen", "[admin]\nlisten = \"nowhere\"\n");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
        let port = free_port().to_string();
        command.args(["--port", &port]).args(arguments).stderr(Stdio::piped());
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let said = run(&["--config", file.path()]);
    assert!(said.contains("line 2: listen: must be an address and a port"), "{said}");
    let said = run(&["--admin", "9121"]);
    assert!(said.contains("--admin: admin: must be an address and a port"), "{said}");
    // A port that is taken is named.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = run(&["--admin", &address]);
    assert!(said.contains(&format!("cannot listen on {address} for the admin server")), "{said}");
    // The environment wins over the file.
    let file = ConfigFile::new("listen-environment", &format!("[admin]\nlisten = \"{address}\"\n"));
    let said = run(&["--config", file.path()]);
    assert!(said.contains(&address), "{said}");
    let mut server = Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["--config", file.path(), "--port", &free_port().to_string(), "--log-level", "info"])
        .env("ANTEROOM_ADMIN", "off")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut said, mut byte) = (Vec::new(), [0]);
    let mut log = server.stderr.take().unwrap();
    while !String::from_utf8_lossy(&said).contains("ready to accept connections") {
        log.read_exact(&mut byte).unwrap();
        said.push(byte[0]);
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

/// The samples of a text, by name and labels, once it has been checked against the format.
fn parse_metrics(text: &str) -> HashMap<String, f64> {
    let (mut kinds, mut helps, mut samples) = (HashMap::new(), HashSet::new(), HashMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && helps.insert(name.to_owned()), "{line}");
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let name = series.split('{').next().unwrap();
            assert!(
                name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            );
            if let Some(labels) = series.strip_prefix(name).filter(|labels| !labels.is_empty()) {
                let labels = labels.strip_prefix('{').and_then(|labels| labels.strip_suffix('}')).unwrap();
                for label in labels.split("\",") {
                    let (label, content) = label.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
                    assert!(label.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{line}");
                    assert!(!content.trim_end_matches('"').contains('"'), "{line}");
                }
            }
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let family = family.filter(|family| kinds.get(*family).is_some_and(|kind| kind == "histogram"));
            let family = family.unwrap_or(name);
            assert!(kinds.contains_key(family) && helps.contains(family), "{line}");
            assert_eq!(kinds[family] == "counter", name.ends_with("_total"), "{line}");
            let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn metrics_are_well_formed_and_true() {
    let file = ConfigFile::new("metrics", POLICIES);
    let server = Server::with_admin(&["--config", file.path(), "--maxmemory", "100mb"], &[]);
    let mut client = server.client();
    for command in
        ["SET k v", "SET t v PX 100000", "GET k", "GET k", "GET nothing", "LPUSH l x", "INCR l", "GET"]
    {
        client.run(command);
    }
    client.run("SELECT 3");
    client.run("SET k v");
    for _ in 0..3 {
        client.run("RATELIMIT.CHECK api me");
    }
    let samples = parse_metrics(&get(server.admin, "/metrics").body);
    for (series, expected) in [
        ("redis_up", 1.0),
        ("anteroom_ready", 1.0),
        ("redis_connected_clients", 1.0),
        ("redis_blocked_clients", 0.0),
        ("redis_memory_max_bytes", 104_857_600.0),
        ("redis_commands_total{cmd=\"set\"}", 3.0),
        ("redis_commands_total{cmd=\"get\"}", 3.0),
        ("redis_commands_rejected_calls_total{cmd=\"get\"}", 1.0),
        ("redis_commands_failed_calls_total{cmd=\"incr\"}", 1.0),
        ("anteroom_command_duration_seconds_bucket{cmd=\"get\",le=\"+Inf\"}", 3.0),
        ("anteroom_command_duration_seconds_count{cmd=\"get\"}", 3.0),
        ("redis_keyspace_hits_total", 2.0),
        ("redis_keyspace_misses_total", 1.0),
        ("redis_errors_total{err=\"WRONGTYPE\"}", 1.0),
        ("redis_db_keys{db=\"db3\"}", 2.0),
        ("redis_db_keys_expiring{db=\"db3\"}", 1.0),
        ("anteroom_ratelimit_admitted_total{policy=\"api\"}", 2.0),
        ("anteroom_ratelimit_refused_total{policy=\"api\"}", 1.0),
        ("anteroom_ratelimit_refused_total{policy=\"both\"}", 0.0),
    ] {
        assert_eq!(samples.get(series), Some(&expected), "{series}");
    }
    for series in [
        "redis_uptime_in_seconds",
        "redis_memory_used_bytes",
        "redis_memory_used_rss_bytes",
        "redis_mem_fragmentation_ratio",
        "redis_commands_duration_seconds_total{cmd=\"get\"}",
        "redis_commands_processed_total",
        "redis_expired_keys_total",
        "redis_evicted_keys_total",
        "redis_net_input_bytes_total",
        "redis_net_output_bytes_total",
        "redis_slowlog_length",
        "redis_slowlog_last_id",
        "redis_config_maxmemory",
    ] {
        assert!(samples.contains_key(series), "{series}");
    }
    assert!(samples.keys().any(|series| series.starts_with("redis_instance_info{redis_version=\"7.2")));
    let buckets =
        |bound| samples[&format!("anteroom_command_duration_seconds_bucket{{cmd=\"get\",le=\"{bound}\"}}")];
    assert!(buckets("0.000001024") <= buckets("0.001048576") && buckets("0.001048576") <= 3.0);
}

#[test]
fn performance_is_json_that_adds_up() {
    let file = ConfigFile::new("performance", POLICIES);
    let server = Server::with_admin(&["--config", file.path()], &[]);
    let mut client = server.client();
    client.run("CONFIG SET slowlog-log-slower-than 0");
    for command in ["SET <b>&\"name v", "GET k", "LPUSH l x", "INCR l"] {
        client.run(command);
    }
    get(server.admin, "/ratelimit/api/%00%ff%22");
    let report: serde_json::Value =
        serde_json::from_str(&get(server.admin, "/admin/performance").body).unwrap();
    let commands = report["commands"].as_array().unwrap();
    let of = |name: &str| commands.iter().find(|command| command["name"] == name).unwrap();
    assert_eq!(of("set")["calls"], 1);
    assert_eq!((&of("set")["success_rate"], &of("incr")["success_rate"]), (&1.0.into(), &0.0.into()));
    let figure = |name: &str| of("set")[name].as_f64().unwrap();
    let order = ["min_micros", "p50_micros", "p95_micros", "p99_micros", "p999_micros", "max_micros"];
    assert!(order.windows(2).all(|pair| figure(pair[0]) <= figure(pair[1])));
    assert!(
        figure("mean_micros") >= figure("min_micros") && figure("mean_micros") <= figure("max_micros") * 1.01
    );
    assert_eq!(
        (&report["tiers"]["local"]["hits"], &report["tiers"]["local"]["misses"]),
        (&0.into(), &1.into())
    );
    assert_eq!(report["requests"]["errors"], 1);
    assert!(report["requests"]["error_rate"].as_f64().unwrap() > 0.0);
    assert!(report["memory"]["used_bytes"].as_u64().unwrap() > 0);
    let slow = report["slow"].as_array().unwrap();
    assert!(slow.iter().any(|entry| entry["command"][1] == "<b>&\"name"), "{slow:?}");
    assert_eq!(report["ratelimit"]["policies"][0]["admitted"], 1);
}

#[test]
fn checks_are_those_of_the_command() {
    let file = ConfigFile::new("checks", POLICIES);
    let server = Server::with_admin(&["--config", file.path()], &[]);
    let mut client = server.client();
    let first = get(server.admin, "/ratelimit/api/a%2Fb%20c");
    assert_eq!(first.status, 200, "{}", first.body);
    for (header, expected) in [
        ("ratelimit-policy", "\"api\";q=2;w=3600"),
        ("ratelimit", "\"api\";r=1;t=3600"),
        ("x-ratelimit-limit", "2"),
        ("x-ratelimit-remaining", "1"),
        ("x-ratelimit-reset", "3600"),
        ("retry-after", ""),
    ] {
        assert_eq!(first.header(header), expected, "{header}");
    }
    // The same key as the command's.
    let key = [b"ZCARD".to_vec(), b"rate_limit:api:a/b c".to_vec()];
    client.send(&key);
    assert_eq!(client.read(), b":1\r\n");
    // A retried call is counted once.
    for _ in 0..3 {
        assert_eq!(get(server.admin, "/ratelimit/api/a%2Fb%20c?id=x&cost=1").status, 200);
    }
    let refused = request(server.admin, "HEAD", "/ratelimit/api/a%2Fb%20c", &[]);
    assert_eq!((refused.status, refused.body.as_str()), (429, ""));
    assert_eq!(refused.header("ratelimit"), format!("\"api\";r=0;t={}", refused.header("x-ratelimit-reset")));
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((3000..=3600).contains(&wait), "{wait}");
    assert!(get(server.admin, "/ratelimit/api/a%2Fb%20c").body.contains("\"limited\":true"));
    // More than there ever is: no time to come back at.
    let never = get(server.admin, "/ratelimit/api/greedy?cost=3");
    assert_eq!((never.status, never.header("retry-after")), (429, ""));
    let both = get(server.admin, "/ratelimit/both/me");
    assert_eq!(both.header("ratelimit-policy"), "\"both-1\";q=10;w=1, \"both-2\";q=1000;w=900");
    assert_eq!(both.header("ratelimit"), "\"both-1\";r=9;t=1");
    for (path, status) in [
        ("/ratelimit/nothing/me", 404),
        ("/ratelimit/api/", 400),
        ("/ratelimit/api", 400),
        ("/ratelimit/api/%zz", 400),
        ("/ratelimit/api/x?cost=many", 400),
        ("/ratelimit/api/x?cots=1", 400),
    ] {
        assert_eq!(get(server.admin, path).status, status, "{path}");
    }
    client.run("SET rate_limit:api:taken string");
    assert_eq!(get(server.admin, "/ratelimit/api/taken").status, 409);
    client.run("CLIENT PAUSE 60000 WRITE");
    assert_eq!(get(server.admin, "/ratelimit/api/paused").status, 503);
    client.run("CLIENT UNPAUSE");
    assert_eq!(get(server.admin, "/ratelimit/api/paused").status, 200);
}

/// As Envoy's `ext_authz` asks: any method, the path behind the prefix, the subject in a header of the proxy's.
#[test]
fn a_proxy_names_the_subject() {
    let file = ConfigFile::new("proxies", POLICIES);
    let server = Server::with_admin(&["--config", file.path()], &[]);
    let ask = |method: &str, path: &str, more: &[(&str, &str)]| {
        let headers = [&[("X-RateLimit-Subject", "10.1.2.3")], more].concat();
        request(server.admin, method, &format!("/ratelimit/api{path}"), &headers)
    };
    // A client that knows of cost and id in the query gains nothing.
    assert_eq!(ask("POST", "/shop/cart?cost=0&id=same", &[]).status, 200);
    assert_eq!(ask("DELETE", "/%zz?cost=0&id=same", &[]).status, 200);
    assert_eq!(ask("OPTIONS", "", &[]).status, 429);
    assert_eq!(ask("PATCH", "/x", &[("X-RateLimit-Refused-Status", "403")]).status, 403);
    assert_eq!(ask("GET", "/x", &[("X-RateLimit-Refused-Status", "200")]).status, 400);
    assert_eq!(ask("GET", "/x", &[("X-RateLimit-Cost", "0")]).status, 400);
    let empty = request(server.admin, "GET", "/ratelimit/api/path", &[("X-RateLimit-Subject", "")]);
    assert_eq!(empty.status, 400);
    assert_eq!(server.client().run("EXISTS rate_limit:api:10.1.2.3"), ":1\r\n");
}

#[test]
fn it_answers_while_workers_are_busy() {
    const CALLS: usize = 300;
    let server = Server::with_admin(&["--threads", "1"], &[]);
    let (mut busy, mut sleeping) = (server.client(), server.client());
    sleeping.send_raw(b"DEBUG SLEEP 3600\r\n");
    let mut asked = std::iter::repeat_with(|| busy.run("INFO clients")).take(100_000);
    assert!(asked.any(|info| info.contains("blocked_clients:1\r\n")));
    busy.run("SETBIT bits 800000000 1");
    // The only worker is at it for seconds.
    busy.send_raw(&b"BITCOUNT bits\r\n".repeat(CALLS));
    for path in ["/healthz", "/readyz"] {
        assert_eq!(get(server.admin, path).status, 200, "{path}");
    }
    let samples = parse_metrics(&get(server.admin, "/metrics").body);
    let calls = samples.get("redis_commands_total{cmd=\"bitcount\"}").copied().unwrap_or(0.0);
    assert!(calls < CALLS as f64, "the worker was done before it was asked for");
    assert_eq!(samples["redis_blocked_clients"], 1.0);
    (0..CALLS).for_each(|_| assert_eq!(busy.read(), b":1\r\n"));
}

#[test]
fn readiness_goes_off_before_connections_end() {
    let mut server = Server::with_admin(&[], &[]);
    let mut client = server.client();
    client.run(&format!("SET k {}", "x".repeat(1 << 20)));
    // Replies that nobody takes keep the server from ending.
    client.send_raw(&b"GET k\r\n".repeat(64));
    assert_eq!(client.read().len(), (1 << 20) + 12);
    assert_eq!(get(server.admin, "/readyz").status, 200);
    // SAFETY: a signal to a child that is not waited for yet, so its number is still its own.
    unsafe { libc::kill(server.pid() as i32, libc::SIGTERM) };
    let mut asked = std::iter::repeat_with(|| get(server.admin, "/readyz")).take(100_000);
    let response = asked.find(|response| response.status != 200);
    let response = response.unwrap();
    assert_eq!((response.status, response.body.as_str()), (503, "stopping\n"));
    assert_eq!(get(server.admin, "/healthz").status, 200);
    assert_eq!(parse_metrics(&get(server.admin, "/metrics").body)["anteroom_ready"], 0.0);
    // The connection is there yet, and its replies come.
    (1..64).for_each(|_| assert_eq!(client.read().len(), (1 << 20) + 12));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn systemd_is_told() {
    let path = std::env::temp_dir().join(format!("anteroom-{}-notify", std::process::id()));
    let name = format!("anteroom-test-{}-notify", std::process::id());
    let by_path = UnixDatagram::bind(&path).unwrap();
    let by_name = {
        use std::os::linux::net::SocketAddrExt;
        let address = std::os::unix::net::SocketAddr::from_abstract_name(&name).unwrap();
        UnixDatagram::bind_addr(&address).unwrap()
    };
    for (socket, given) in [(by_path, path.to_str().unwrap().to_owned()), (by_name, format!("@{name}"))] {
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut server = Server::with_admin(&[], &[("NOTIFY_SOCKET", &given)]);
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"READY=1");
        assert_eq!(server.stop(libc::SIGTERM).code(), Some(0));
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"STOPPING=1");
    }
    std::fs::remove_file(&path).unwrap();
}
