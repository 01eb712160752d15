//! Libraries of other languages, installed from their registries at pinned versions. Node.js, npm and Python's venv must be
//! there; without them the tests fail.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory with copies of files of a folder of `tests`, removed when dropped.
pub struct Workshop(PathBuf);

impl Workshop {
    pub fn new(folder: &str, name: &str, files: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("anteroom-{folder}-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
        for file in files {
            std::fs::copy(source.join(file), dir.join(file)).unwrap();
        }
        Self(dir)
    }

    /// One with what `package.json` asks for.
    pub fn of_node(folder: &str, name: &str, file: &str) -> Self {
        let workshop = Self::new(folder, name, &["package.json", "package-lock.json", file]);
        workshop.run("npm", &["ci", "--no-audit", "--no-fund", "--ignore-scripts"]);
        workshop
    }

    /// One with what `requirements.txt` asks for, in `venv`.
    pub fn of_python(folder: &str, name: &str, file: &str) -> Self {
        let workshop = Self::new(folder, name, &["requirements.txt", file]);
        workshop.run("python3", &["-m", "venv", "venv"]);
        let pip = ["install", "--quiet", "--disable-pip-version-check", "-r", "requirements.txt"];
        workshop.run("venv/bin/pip", &pip);
        workshop
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// Runs a program to its end, which must be a good one; returns what it printed.
    pub fn run(&self, program: &str, arguments: &[&str]) -> String {
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
