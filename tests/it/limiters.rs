//! The limiter libraries that applications use, unmodified: installed from their registries at pinned versions, and run
//! against a server with several threads. Node.js, npm and Python's venv must be there; without them the tests fail.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::Server;

/// A directory with copies of files of `tests/limiters`, removed when dropped.
struct Workshop(PathBuf);

impl Workshop {
    fn new(name: &str, files: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("anteroom-limiters-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/limiters");
        for file in files {
            std::fs::copy(source.join(file), dir.join(file)).unwrap();
        }
        Self(dir)
    }

    /// Runs a program to its end, which must be a good one; returns what it printed.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let output = Command::new(program)
            .args(arguments)
            .current_dir(&self.0)
            .output()
            .unwrap_or_else(|error| panic!("cannot run {program}: {error}; see tests/setup.sh"));
        let (said, failed) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{program} {arguments:?}:\n{said}\n{failed}");
        said.into_owned()
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        // What cannot be removed lies in a directory for temporary files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn libraries_for_node_admit_exactly_the_limit() {
    let workshop = Workshop::new("node", &["package.json", "package-lock.json", "limiters.mjs"]);
    workshop.run("npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
    let server = Server::anteroom(&["--threads", "2"]);
    let said = workshop.run("node", &["limiters.mjs", &server.port.to_string()]);
    assert_eq!(said.trim(), "exactly the limit");
}

#[test]
fn the_library_for_python_admits_exactly_the_limit() {
    let workshop = Workshop::new("python", &["requirements.txt", "limiters.py"]);
    workshop.run("python3", &["-m", "venv", "venv"]);
    let pip = ["install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
    workshop.run("venv/bin/pip", &pip);
    let server = Server::anteroom(&["--threads", "2"]);
    let said = workshop.run("venv/bin/python", &["limiters.py", &server.port.to_string()]);
    assert_eq!(said.trim(), "exactly the limit");
}
