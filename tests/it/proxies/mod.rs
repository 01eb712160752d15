//! Real proxies between a client, the limiter and an application, with the configurations that are shipped.

mod envoy;
mod nginx;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use crate::admin::ConfigFile;
use crate::harness::Server;
use crate::http::{get, request};

/// A proxy in the foreground; killed when dropped.
struct Proxy {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Proxy {
    /// Starts it, and waits until it listens on the port.
    fn start(command: &mut Command, port: u16, log: &Path) -> Self {
        // SAFETY: prctl is async-signal-safe; the proxy dies with the test, however that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let mut proxy = Self { child, port, log: log.to_owned() };
        for _ in 0..1200 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return proxy;
            }
            let ended = proxy.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}; {}", proxy.log());
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("it does not listen: {}", proxy.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_else(|error| error.to_string())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A shipped configuration with other ports: each of `before` stands in it once.
fn adapted(shipped: &str, ports: &[(&str, &str, u16)]) -> String {
    ports.iter().fold(shipped.to_owned(), |text, (before, prefix, port)| {
        assert_eq!(text.matches(before).count(), 1, "{before}");
        text.replace(before, &format!("{prefix}{port}"))
    })
}

/// The server behind a proxy, with the policy that the shipped configurations name.
fn limiter(name: &str) -> (ConfigFile, Server) {
    let file = ConfigFile::new(name, "[ratelimit.policies.api]\nlimit = 3\nwindow = \"1h\"\n");
    let server = Server::with_admin(&["--config", file.path()], &[]);
    (file, server)
}

/// Three requests of a client are let through with headers, and more get 429. The application answers `/page` with 200,
/// and `/own` with 403. At last there is no limiter, and the proxy answers `without`.
fn limits(proxy: &Proxy, server: &mut Server, without: u16) {
    for remaining in [2, 1] {
        let response = get(proxy.port, "/page?cost=0");
        assert_eq!(response.status, 200, "{}", proxy.log());
        assert!(response.body.starts_with("the application"), "{}", response.body);
        assert_eq!(response.header("ratelimit-policy"), "\"api\";q=3;w=3600");
        assert!(response.header("ratelimit").starts_with(&format!("\"api\";r={remaining};t=")));
        assert_eq!(response.header("x-ratelimit-remaining"), remaining.to_string());
        assert_eq!(response.header("retry-after"), "");
    }
    // What the application refuses is the application's to say.
    let own = get(proxy.port, "/own");
    assert_eq!((own.status, own.body.as_str()), (403, "its own refusal\n"));
    for (method, headers) in
        [("GET", &[][..]), ("POST", &[("Content-Length", "0"), ("X-RateLimit-Subject", "other")])]
    {
        let response = request(proxy.port, method, "/page", headers);
        assert_eq!(response.status, 429, "{method}: {}", proxy.log());
        assert_eq!(response.header("ratelimit-policy"), "\"api\";q=3;w=3600");
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
    assert_eq!(get(proxy.port, "/page").status, without);
}
