//! A real Envoy in front of an application, with the configuration that is shipped. It comes from PyPI.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use crate::admin::ConfigFile;
use crate::harness::{Server, free_port};
use crate::http::{get, request};
use crate::workshop::Workshop;

/// Envoy with a directory of its own; killed when dropped.
struct Envoy {
    child: Child,
    workshop: Workshop,
    port: u16,
}

impl Envoy {
    /// The shipped configuration between the client, the server and an application.
    fn start(admin: u16, application: u16) -> Self {
        let port = free_port();
        let workshop = Workshop::of_python("envoy", "check", "requirements.txt");
        let shipped = include_str!("../../conf/envoy-ratelimit.yaml");
        let adapted =
            [("port_value: 9121", admin), ("port_value: 8081", application), ("port_value: 8080", port)]
                .iter()
                .fold(shipped.to_owned(), |text, (placeholder, port)| {
                    assert_eq!(text.matches(placeholder).count(), 1, "{placeholder}");
                    text.replace(placeholder, &format!("port_value: {port}"))
                });
        std::fs::write(workshop.dir().join("envoy.yaml"), adapted).unwrap();
        let found = workshop
            .run("venv/bin/python", &["-c", "import envoy._bin as it; print(it.__path__[0] + '/envoy')"]);
        let program = found.trim();
        workshop.run("chmod", &["+x", program]);
        let log = std::fs::File::create(workshop.dir().join("log")).unwrap();
        let mut command = Command::new(program);
        command.args(["-c", "envoy.yaml", "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning"]);
        command.current_dir(workshop.dir()).stdout(Stdio::null()).stderr(log);
        // SAFETY: prctl is async-signal-safe; the server dies with the test, however that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"));
        let mut envoy = Self { child, workshop, port };
        envoy.wait_until_ready();
        envoy
    }

    fn wait_until_ready(&mut self) {
        for _ in 0..1200 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "Envoy ended: {ended:?}; {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("Envoy does not listen: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.workshop.dir().join("log")).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An application that answers each request with what it was asked for, and ends with the test.
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

fn answer(stream: &std::net::TcpStream) {
    let mut to = stream;
    let mut asked = String::new();
    for line in BufReader::new(stream).lines().map_while(Result::ok) {
        if asked.is_empty() {
            asked = line;
        } else if line.is_empty() {
            let asked = std::mem::take(&mut asked);
            let status = if asked.contains("/own") { "403 Forbidden" } else { "200 OK" };
            let reply = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{asked}", asked.len());
            if to.write_all(reply.as_bytes()).is_err() {
                return;
            }
        }
    }
}

#[test]
fn a_client_gets_429_with_headers() {
    let file = ConfigFile::new("envoy", "[ratelimit.policies.api]\nlimit = 3\nwindow = \"1h\"\n");
    let mut server = Server::with_admin(&["--config", file.path()], &[]);
    let envoy = Envoy::start(server.admin, application());
    for remaining in [2, 1] {
        let response = get(envoy.port, "/page?cost=0");
        assert_eq!(response.status, 200, "{}", envoy.log());
        assert_eq!(response.body, "GET /page?cost=0 HTTP/1.1");
        assert_eq!(response.header("ratelimit-policy"), "\"api\";q=3;w=3600");
        assert!(response.header("ratelimit").starts_with(&format!("\"api\";r={remaining};t=")));
        assert_eq!(response.header("x-ratelimit-remaining"), remaining.to_string());
        assert_eq!(response.header("retry-after"), "");
    }
    // What the application refuses is the application's to say.
    let own = get(envoy.port, "/own");
    assert_eq!((own.status, own.body.as_str()), (403, "GET /own HTTP/1.1"));
    for (method, headers) in
        [("GET", &[][..]), ("POST", &[("Content-Length", "0"), ("X-RateLimit-Subject", "other")])]
    {
        let response = request(envoy.port, method, "/page", headers);
        assert_eq!(response.status, 429, "{method}: {}", envoy.log());
        assert!(response.header("ratelimit").starts_with("\"api\";r=0;t="));
        assert_eq!(
            (response.header("x-ratelimit-limit"), response.header("x-ratelimit-remaining")),
            ("3", "0")
        );
        let wait: u64 = response.header("retry-after").parse().unwrap();
        assert!((3000..=3600).contains(&wait), "{wait}");
    }
    assert_eq!(server.client().run("ZCARD rate_limit:api:127.0.0.1"), ":3\r\n");
    // Without the limiter nobody is let in, and nobody is told that a limit was reached.
    server.stop(libc::SIGKILL);
    assert_eq!(get(envoy.port, "/page").status, 403);
}
