//! TLS to upstream: what is encrypted works as what is not, and a server that nobody vouches for is not talked to.

use crate::harness::{Server, free_port};

#[test]
fn connections_are_encrypted_and_certificates_verified() {
    let dir = std::env::temp_dir().join(format!("anteroom-tls-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names).unwrap();
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let (certificate, key) = (file("cert.pem", &cert.pem()), file("key.pem", &signing_key.serialize_pem()));
    let port = free_port();
    let tls_port = port.to_string();
    let redis = Server::redis_with(&[
        "--tls-port",
        &tls_port,
        "--tls-cert-file",
        &certificate,
        "--tls-key-file",
        &key,
        "--tls-ca-cert-file",
        &certificate,
        "--tls-auth-clients",
        "no",
    ]);
    let start = |host: &str, more: &str| {
        let section = format!("[upstream]\nurl = \"rediss://{host}:{port}\"\n{more}\n");
        Server::anteroom(&["--config", &file(&format!("{host}{}.toml", more.len()), &section)])
    };
    let trusted = format!("tls-ca-cert-file = \"{certificate}\"");
    let anteroom = start("localhost", &trusted);
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
    assert!(theirs.run("CLIENT LIST").contains(&format!("laddr=127.0.0.1:{port}")));
    // Nobody vouches for it.
    let said = start("127.0.0.1", "").client().run("GET k");
    assert!(said.starts_with("-UPSTREAMDOWN") && said.contains("certificate"), "{said}");
    std::fs::remove_dir_all(&dir).unwrap();
}
