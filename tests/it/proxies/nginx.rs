//! nginx (`auth_request`), which plays the application too. A missing nginx fails the test.

use std::path::Path;
use std::process::{Command, Stdio};

use super::{Proxy, adapted, limiter, limits};
use crate::harness::free_port;

/// Removed when dropped.
struct Directory(std::path::PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed lies in a directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The configuration's directory.
fn configured(admin: u16, port: u16) -> Directory {
    let application = free_port();
    let dir = std::env::temp_dir().join(format!("anteroom-nginx-{}-{port}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let host = "127.0.0.1:";
    let ports = [
        ("127.0.0.1:9121", host, admin),
        ("127.0.0.1:8081", host, application),
        ("127.0.0.1:8080", host, port),
    ];
    let shipped = include_str!("../../../conf/nginx-ratelimit.conf");
    std::fs::write(dir.join("ratelimit.conf"), adapted(shipped, &ports)).unwrap();
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
    Directory(dir)
}

#[test]
fn a_client_gets_429_with_headers() {
    let (_file, mut server) = limiter("nginx");
    let port = free_port();
    let dir = configured(server.admin, port);
    let found = ["/usr/sbin/nginx", "/usr/local/sbin/nginx"].iter().find(|path| Path::new(path).exists());
    let program =
        std::env::var("ANTEROOM_TEST_NGINX").unwrap_or_else(|_| found.unwrap_or(&"nginx").to_string());
    let mut command = Command::new(&program);
    command.arg("-p").arg(&dir.0).arg("-c").arg(dir.0.join("nginx.conf")).stdout(Stdio::null());
    let nginx = Proxy::start(&mut command, port, &dir.0.join("error.log"));
    limits(&nginx, &mut server, 500);
}
