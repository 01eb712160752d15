//! TLS for clients, as the real `redis-cli` and a Rust client speak it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::database::wait_for;
use crate::harness::{Server, free_port};
use crate::upstream::tls::Identity;

type Encrypted = StreamOwned<ClientConnection, TcpStream>;

fn connect(port: u16, identity: &Identity) -> Encrypted {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(&identity.certificate).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    StreamOwned::new(connection, TcpStream::connect(("127.0.0.1", port)).unwrap())
}

fn start(identity: &Identity, more: &[&str]) -> (Server, u16) {
    let port = free_port();
    let settings = identity.settings(port);
    let lines: String = settings.iter().map(|(name, value)| format!("{name} = \"{value}\"\n")).collect();
    let file = identity.file(&format!("{port}.toml"), &format!("[server]\n{lines}"));
    (Server::anteroom(&[&["--config", &file], more].concat()), port)
}

fn redis_cli(port: u16, options: &[&str], words: &str) -> String {
    let port = port.to_string();
    let output = Command::new("redis-cli")
        .args(["-h", "localhost", "-p", &port, "--tls"])
        .args(options)
        .args(words.split(' '))
        .output()
        .unwrap();
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

#[test]
fn what_is_encrypted_works_as_what_is_not() {
    let identity = Identity::new();
    for io in ["auto", "epoll"] {
        let (server, port) = start(&identity, &["--io", io]);
        let trusts = ["--cacert", identity.certificate.as_str()];
        assert_eq!(redis_cli(port, &trusts, "SET key value"), "OK\n");
        assert_eq!(redis_cli(port, &trusts, "-3 GET key"), "\"value\"\n".replace('"', ""));
        let mut plain = server.client();
        let list = redis_cli(port, &trusts, "CLIENT LIST");
        assert!(list.contains(&format!("laddr=127.0.0.1:{port} ")), "{list}");
        // Replies of any size, many at once, and messages that come of themselves.
        let mut client = BufReader::new(connect(port, &identity));
        let value = "x".repeat(3_000_000);
        plain.run(&format!("SET large {value}"));
        client.get_mut().write_all("GET large\r\n".repeat(10).as_bytes()).unwrap();
        let expected = format!("${}\r\n{value}\r\n", value.len());
        let mut reply = vec![0; expected.len()];
        for _ in 0..10 {
            client.read_exact(&mut reply).unwrap();
            assert!(reply == expected.as_bytes());
        }
        let request = format!("*3\r\n$3\r\nSET\r\n$5\r\nother\r\n{expected}");
        client.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = String::new();
        client.read_line(&mut line).unwrap();
        assert_eq!(line, "+OK\r\n");
        assert_eq!(plain.run("STRLEN other"), ":3000000\r\n");
        client.get_mut().write_all(b"SUBSCRIBE news\r\n").unwrap();
        let mut told = vec![0; "*3\r\n$9\r\nsubscribe\r\n$4\r\nnews\r\n:1\r\n".len()];
        client.read_exact(&mut told).unwrap();
        assert_eq!(plain.run("PUBLISH news hello"), ":1\r\n");
        let mut told = vec![0; "*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$5\r\nhello\r\n".len()];
        client.read_exact(&mut told).unwrap();
        assert!(told.ends_with(b"hello\r\n"));
        // Who does not trust it does not talk to it; who does not speak TLS is not heard.
        let said = redis_cli(port, &[], "PING");
        assert!(said.contains("certificate verify failed"), "{said}");
        let mut rude = TcpStream::connect(("127.0.0.1", port)).unwrap();
        rude.write_all(b"PING\r\nPING\r\n").unwrap();
        let mut answer = Vec::new();
        drop(rude.read_to_end(&mut answer));
        assert!(!answer.starts_with(b"+"), "{answer:?}");
        // Whoever never agrees on keys holds nobody up, not the end either.
        let _silent = TcpStream::connect(("127.0.0.1", port)).unwrap();
        assert_eq!(redis_cli(port, &trusts, "PING"), "PONG\n");
    }
}

#[test]
fn clients_show_certificates_if_they_must() {
    let (identity, stranger) = (Identity::new(), Identity::new());
    let port = free_port();
    let file = |asks: &str| {
        let mut lines: Vec<String> =
            identity.settings(port).iter().map(|(name, value)| format!("{name} = \"{value}\"")).collect();
        lines.retain(|line| !line.starts_with("tls-auth-clients"));
        identity
            .file("asks.toml", &format!("[server]\n{}\ntls-auth-clients = \"{asks}\"\n", lines.join("\n")))
    };
    let trusts = ["--cacert", identity.certificate.as_str()];
    let shows = |who: &Identity| -> Vec<String> {
        [
            &trusts.map(str::to_owned)[..],
            &["--cert", &who.certificate, "--key", &who.key].map(|s| (*s).to_owned()),
        ]
        .concat()
    };
    let ping =
        |options: &[String]| redis_cli(port, &options.iter().map(String::as_str).collect::<Vec<_>>(), "PING");
    for (asks, without) in [("yes", false), ("optional", true)] {
        let server = Server::anteroom(&["--config", &file(asks)]);
        assert_eq!(ping(&shows(&identity)), "PONG\n", "{asks}");
        assert_ne!(ping(&shows(&stranger)), "PONG\n", "{asks}");
        assert_eq!(ping(&trusts.map(str::to_owned)) == "PONG\n", without, "{asks}");
        drop(server);
    }
}

#[test]
fn what_is_missing_is_said_at_the_start() {
    let identity = Identity::new();
    let dir = std::path::Path::new(&identity.certificate).parent().unwrap().display().to_string();
    let certificate = format!("tls-cert-file = \"{}\"\n", identity.certificate);
    let key = format!("tls-key-file = \"{}\"\n", identity.key);
    for (lines, expected) in [
        (String::new(), "tls-cert-file and tls-key-file must be too"),
        (certificate.clone() + "tls-key-file = \"/nowhere\"\n", "tls-key-file /nowhere"),
        (format!("tls-cert-file = \"/nowhere\"\n{key}"), "tls-cert-file /nowhere: "),
        (format!("tls-cert-file = \"{}\"\n{key}", identity.key), "holds no certificate"),
        (certificate + &key, "tls-ca-cert-file does not say who vouches for them"),
    ] {
        let text = format!("[server]\nport = 0\ntls-port = {}\ndir = \"{dir}\"\n{lines}", free_port());
        let output = Command::new(env!("CARGO_BIN_EXE_anteroom"))
            .args(["--config", &identity.file("bad.toml", &text), "--admin", "off"])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{lines}: {said}");
    }
}

/// As a certificate is replaced that has expired: one file, then the other.
#[test]
fn certificates_that_take_the_place_of_others_are_used_from_then_on() {
    let (identity, next) = (Identity::new(), Identity::new());
    let (_server, port) = start(&identity, &[]);
    let ping = |identity: &Identity| {
        let mut stream = connect(port, identity);
        let mut reply = [0; 7];
        stream.write_all(b"PING\r\n").and_then(|()| stream.read_exact(&mut reply)).map(|()| reply)
    };
    assert_eq!(ping(&identity).unwrap(), *b"+PONG\r\n");
    let mut before = connect(port, &identity);
    before.write_all(b"PING\r\n").unwrap();
    before.read_exact(&mut [0; 7]).unwrap();
    std::fs::copy(&next.certificate, &identity.certificate).unwrap();
    // It does not go with the key that is there: the old one is shown, which whoever trusts the new one alone refuses.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert!(ping(&next).is_err());
    std::fs::copy(&next.key, &identity.key).unwrap();
    wait_for(|| ping(&next).is_ok());
    // Who is connected is not disturbed.
    before.write_all(b"PING\r\n").unwrap();
    before.read_exact(&mut [0; 7]).unwrap();
}
