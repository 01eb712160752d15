//! TLS to upstream: what is encrypted works as what is not, and a server that nobody vouches for is not talked to.

use std::path::PathBuf;

use crate::harness::{Server, free_port};

/// A certificate that only who is given it trusts, for this machine.
pub struct Identity {
    dir: PathBuf,
    /// The file of the certificate.
    pub certificate: String,
    /// The file of its key.
    pub key: String,
}

impl Identity {
    pub fn new() -> Self {
        let dir =
            std::env::temp_dir().join(format!("anteroom-tls-{}-{}", std::process::id(), fastrand::u64(..)));
        std::fs::create_dir_all(&dir).unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
        let mut identity = Self { dir, certificate: String::new(), key: String::new() };
        identity.certificate = identity.file("cert.pem", &cert.pem());
        identity.key = identity.file("key.pem", &signing_key.serialize_pem());
        identity
    }

    /// Writes a file that lasts as long as this.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// What has a Redis serve TLS at a port, as pairs of a setting and its value.
    pub fn settings(&self, port: u16) -> [(&'static str, String); 5] {
        [
            ("tls-port", port.to_string()),
            ("tls-cert-file", self.certificate.clone()),
            ("tls-key-file", self.key.clone()),
            ("tls-ca-cert-file", self.certificate.clone()),
            ("tls-auth-clients", "no".to_owned()),
        ]
    }

    /// The same as arguments.
    pub fn arguments(&self, port: u16) -> Vec<String> {
        self.settings(port).into_iter().flat_map(|(name, value)| [format!("--{name}"), value]).collect()
    }

    /// The line of the section `[upstream]` that has Anteroom trust it.
    pub fn trusted(&self) -> String {
        format!("tls-ca-cert-file = \"{}\"", self.certificate)
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// Whether connections of Anteroom's are there, all to the port that speaks TLS.
pub fn is_encrypted(redis: &Server, port: u16) -> bool {
    let clients = redis.client().run("CLIENT LIST");
    let mut ours = clients.lines().filter(|line| line.contains("name=anteroom")).peekable();
    ours.peek().is_some() && ours.all(|line| line.contains(&format!("laddr=127.0.0.1:{port} ")))
}

#[test]
fn connections_are_encrypted_and_certificates_verified() {
    let identity = Identity::new();
    let port = free_port();
    let arguments = identity.arguments(port);
    let redis = Server::redis_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let start = |host: &str, more: &str| {
        let section = format!("[upstream]\nurl = \"rediss://{host}:{port}\"\n{more}\n");
        Server::anteroom(&["--config", &identity.file(&format!("{host}{}.toml", more.len()), &section)])
    };
    let anteroom = start("localhost", &identity.trusted());
    let (mut ours, mut theirs) = (anteroom.client(), redis.client());
    for round in 0..50 {
        let value = format!("{}{round}", "x".repeat(50_000));
        assert_eq!(ours.run(&format!("SET k {value}")), "+OK\r\n");
        assert_eq!(ours.run("GET k"), format!("${}\r\n{value}\r\n", value.len()));
        assert_eq!(theirs.run("GET k"), ours.run("GET k"));
    }
    theirs.run("SET k changed");
    super::until("the change is seen", || ours.run("GET k") == "$7\r\nchanged\r\n");
    theirs.run("RPUSH q v");
    assert_eq!(ours.run("BLPOP q 1"), "*2\r\n$1\r\nq\r\n$1\r\nv\r\n");
    assert!(is_encrypted(&redis, port), "{}", theirs.run("CLIENT LIST"));
    // Nobody vouches for it.
    let said = start("127.0.0.1", "").client().run("GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && said.contains("certificate"), "{said}");
}

#[test]
fn sentinels_are_asked_by_tls() {
    let identity = Identity::new();
    let (port, sentinel_port) = (free_port(), free_port());
    let arguments = identity.arguments(port);
    let redis = Server::redis_with(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
    let mut settings =
        identity.settings(sentinel_port).map(|(name, value)| format!("{name} {value}\n")).concat();
    // So a Sentinel reaches the master by TLS too, and names its port for that.
    settings += &format!("bind 127.0.0.1\ntls-replication yes\nsentinel monitor main 127.0.0.1 {port} 1\n");
    let _sentinel = Server::sentinel_at(free_port(), &identity.file("sentinel.conf", &settings));
    let start = |more: &str| {
        let url = format!("rediss-sentinel://localhost:{sentinel_port}/main");
        Server::configured(&format!("[upstream]\nurl = \"{url}\"\n{more}\n"), &[])
    };
    let anteroom = start(&identity.trusted());
    let mut ours = anteroom.client();
    assert_eq!((ours.run("SET k v"), ours.run("GET k")), ("+OK\r\n".into(), "$1\r\nv\r\n".into()));
    assert!(is_encrypted(&redis, port), "{}", redis.client().run("CLIENT LIST"));
    // One that nobody vouches for is not believed.
    let said = start("").client().run("GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && said.contains("certificate"), "{said}");
}
