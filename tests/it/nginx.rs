//! A real nginx in front of an application, with the configuration that is shipped. A missing nginx fails the test.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::admin::ConfigFile;
use crate::harness::{Server, free_port};
use crate::http::{get, request};

/// nginx in the foreground, with a directory of its own; killed when dropped.
struct Nginx {
    child: Child,
    dir: PathBuf,
    port: u16,
}

impl Nginx {
    /// The shipped configuration between the client, the server and an application that nginx plays too.
    fn start(admin: u16) -> Self {
        let (port, application) = (free_port(), free_port());
        let dir = std::env::temp_dir().join(format!("anteroom-nginx-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let shipped = include_str!("../../conf/nginx-ratelimit.conf");
        let adapted = [("127.0.0.1:9121", admin), ("127.0.0.1:8081", application), ("127.0.0.1:8080", port)]
            .iter()
            .fold(shipped.to_owned(), |text, (placeholder, port)| {
                assert_eq!(text.matches(placeholder).count(), 1, "{placeholder}");
                text.replace(placeholder, &format!("127.0.0.1:{port}"))
            });
        std::fs::write(dir.join("ratelimit.conf"), adapted).unwrap();
        let paths: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|what| format!("{what}_temp_path {what};\n"))
            .concat();
        let whole = format!(
            "daemon off;\nmaster_process off;\npid nginx.pid;\nerror_log error.log;\nevents {{}}\nhttp {{\n\
             access_log off;\n{paths}include ratelimit.conf;\nserver {{\nlisten 127.0.0.1:{application};\n\
             location / {{ return 200 \"the application\\n\"; }}\n\
             location /own {{ return 403 \"its own refusal\\n\"; }}\n}}\n}}\n"
        );
        std::fs::write(dir.join("nginx.conf"), whole).unwrap();
        let mut nginx = Self { child: spawn(&dir), dir, port };
        nginx.wait_until_ready();
        nginx
    }

    fn wait_until_ready(&mut self) {
        for _ in 0..400 {
            if std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "nginx ended: {ended:?}; {}", self.log());
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
        panic!("nginx does not listen: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("error.log")).unwrap_or_else(|error| error.to_string())
    }
}

fn spawn(dir: &Path) -> Child {
    let found = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].iter().find(|path| Path::new(path).exists());
    let program =
        std::env::var("ANTEROOM_TEST_NGINX").unwrap_or_else(|_| found.unwrap_or(&"nginx").to_string());
    let mut command = Command::new(&program);
    command.arg("-p").arg(dir).arg("-c").arg(dir.join("nginx.conf")).stdout(Stdio::null());
    // SAFETY: prctl is async-signal-safe; the server dies with the test, however that ends.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().unwrap_or_else(|error| panic!("cannot start {program}: {error}"))
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // All fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_client_gets_429_with_headers() {
    let file = ConfigFile::new("nginx", "[ratelimit.policies.api]\nlimit = 3\nwindow = \"1h\"\n");
    let mut server = Server::with_admin(&["--config", file.path()], &[]);
    let nginx = Nginx::start(server.admin);
    for remaining in [2, 1] {
        let response = get(nginx.port, "/page?cost=0");
        assert_eq!((response.status, response.body.as_str()), (200, "the application\n"), "{}", nginx.log());
        assert_eq!(response.header("ratelimit-policy"), "\"api\";q=3;w=3600");
        assert!(response.header("ratelimit").starts_with(&format!("\"api\";r={remaining};t=")));
        assert_eq!(response.header("x-ratelimit-remaining"), remaining.to_string());
        assert_eq!(response.header("retry-after"), "");
    }
    // What the application refuses is the application's to say.
    let own = get(nginx.port, "/own");
    assert_eq!((own.status, own.body.as_str()), (403, "its own refusal\n"));
    assert_eq!(own.header("x-ratelimit-remaining"), "0");
    for (method, headers) in
        [("GET", &[][..]), ("POST", &[("Content-Length", "0"), ("X-RateLimit-Subject", "other")])]
    {
        let response = request(nginx.port, method, "/page", headers);
        assert_eq!(response.status, 429, "{method}: {}", nginx.log());
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
    assert_eq!(get(nginx.port, "/page").status, 500);
}
