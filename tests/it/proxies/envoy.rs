//! Envoy (`ext_authz`), which comes from PyPI.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use super::{Proxy, adapted, limiter, limits};
use crate::harness::free_port;
use crate::workshop::Workshop;

/// An application, which ends with the test.
fn application() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || answer(&stream));
        }
    });
    port
}

fn answer(stream: &TcpStream) {
    let mut to = stream;
    let mut asked = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if asked.is_empty() {
            asked = line;
        } else if line.is_empty() {
            let (status, body) = match std::mem::take(&mut asked).contains(" /own ") {
                true => ("403 Forbidden", "its own refusal\n"),
                false => ("200 OK", "the application\n"),
            };
            let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            if to.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_client_gets_429_with_headers() {
    let (_file, mut server) = limiter("envoy");
    let port = free_port();
    let workshop = Workshop::of_python("envoy", "check", "requirements.txt");
    let prefix = "port_value: ";
    let ports = [
        ("port_value: 9121", prefix, server.admin),
        ("port_value: 8081", prefix, application()),
        ("port_value: 8080", prefix, port),
    ];
    let shipped = include_str!("../../../conf/envoy-ratelimit.yaml");
    std::fs::write(workshop.dir().join("envoy.yaml"), adapted(shipped, &ports)).unwrap();
    let place = "import envoy._bin as it; print(it.__path__[0] + '/envoy')";
    let found = workshop.run("venv/bin/python", &["-c", place]);
    let program = found.trim();
    workshop.run("chmod", &["+x", program]);
    let log = workshop.dir().join("log");
    let mut command = Command::new(program);
    command.args(["-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]);
    command.current_dir(workshop.dir()).stdout(Stdio::null()).stderr(std::fs::File::create(&log).unwrap());
    let envoy = Proxy::start(&mut command, port, &log);
    limits(&envoy, &mut server, 403);
}
