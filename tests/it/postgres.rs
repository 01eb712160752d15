//! A real Postgres on a private port and directory, which can be killed, stopped and started again.
//!
//! Postgres refuses to run as root; then it runs as the user `postgres`, which its package makes.

use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::harness::free_port;

/// A running server, killed when it is dropped.
pub struct Postgres {
    child: Option<Child>,
    pub port: u16,
    dir: PathBuf,
    /// Settings beside the usual ones.
    settings: Vec<String>,
}

/// A program of Postgres, on the path or where Debian puts it.
fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.push("/usr/sbin".into());
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        places.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found = places.iter().map(|place| place.join(name)).find(|file| file.is_file());
    found.unwrap_or_else(|| panic!("no {name}: tests/setup.sh installs it"))
}

/// The user to run Postgres as, if this one is refused.
fn user() -> Option<(u32, u32)> {
    // SAFETY: asks for the process's own user.
    if unsafe { libc::geteuid() } != 0 {
        return None;
    }
    // SAFETY: the name is a C string, and the answer is copied before anything else asks.
    unsafe {
        let entry = libc::getpwnam(c"postgres".as_ptr());
        assert!(!entry.is_null(), "there is no user postgres to run it as");
        Some(((*entry).pw_uid, (*entry).pw_gid))
    }
}

/// Gives a file to that user.
fn give(path: &Path) {
    if let Some((user, group)) = user() {
        std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
    }
}

/// A command that runs as a user that Postgres accepts.
fn command(name: &str, dir: &Path) -> Command {
    let mut command = Command::new(program(name));
    command.current_dir(dir).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    give(dir);
    if let Some((user, group)) = user() {
        command.uid(user).gid(group);
    }
    // SAFETY: prctl is async-signal-safe; the program dies with the test, however that ends.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command
}

/// pgbouncer before a Postgres, in the mode in which a session is another with each transaction.
pub struct Bouncer {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Bouncer {
    /// Starts one.
    pub fn before(postgres: &Postgres) -> Self {
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("anteroom-bouncer-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("users.txt"), "\"anteroom\" \"\"\n").unwrap();
        let config = format!(
            "[databases]\npostgres = host=127.0.0.1 port={} dbname=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\n\
             listen_port = {port}\nunix_socket_dir =\nauth_type = trust\nauth_file = users.txt\n\
             pool_mode = transaction\ndefault_pool_size = 3\n",
            postgres.port
        );
        std::fs::write(dir.join("pgbouncer.ini"), config).unwrap();
        let mut command = command("pgbouncer", &dir);
        command.arg("pgbouncer.ini");
        let bouncer = Self { child: command.spawn().unwrap(), port, dir };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return bouncer;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("pgbouncer does not listen on port {port}");
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgres://anteroom@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A connection.
pub struct Session {
    runtime: tokio::runtime::Runtime,
    client: tokio_postgres::Client,
}

impl Session {
    /// Runs SQL that has to succeed.
    pub fn run(&mut self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// Runs SQL.
    pub fn try_run(&mut self, sql: &str) -> Result<(), tokio_postgres::Error> {
        self.runtime.block_on(self.client.batch_execute(sql))
    }
}

impl Postgres {
    /// A new cluster with the superuser `anteroom` and no password, on loopback.
    pub fn start() -> Self {
        Self::with(Vec::new(), |_| ())
    }

    /// The same that speaks TLS with this certificate and key.
    pub fn with_tls(certificate: &str, key: &str) -> Self {
        let settings = ["ssl=on", "ssl_cert_file=server.crt", "ssl_key_file=server.key"];
        Self::with(settings.map(str::to_owned).to_vec(), |data| {
            for (name, text) in [("server.crt", certificate), ("server.key", key)] {
                let file = data.join(name);
                std::fs::write(&file, text).unwrap();
                std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
                give(&file);
            }
        })
    }

    fn with(settings: Vec<String>, prepare: impl FnOnce(&Path)) -> Self {
        let port = free_port();
        let dir = std::env::temp_dir().join(format!("anteroom-postgres-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let data = dir.join("data");
        let made = command("initdb", &dir)
            .args(["--no-sync", "--auth=trust", "--username=anteroom", "--encoding=UTF8", "--locale=C", "-D"])
            .arg(&data)
            .status()
            .unwrap();
        assert!(made.success(), "initdb failed");
        prepare(&data);
        let mut server = Self { child: None, port, dir, settings };
        server.restart();
        server
    }

    /// Starts it again.
    pub fn restart(&mut self) {
        assert!(self.child.is_none(), "it runs");
        let mut command = command("postgres", &self.dir);
        command.arg("-D").arg(self.dir.join("data")).args(["-p", &self.port.to_string()]);
        for setting in ["listen_addresses=127.0.0.1", "unix_socket_directories=", "max_connections=60"] {
            command.args(["-c", setting]);
        }
        for setting in &self.settings {
            command.args(["-c", setting]);
        }
        self.child = Some(command.spawn().unwrap());
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() && self.try_sql("SELECT 1").is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("Postgres does not answer on port {}", self.port);
    }

    /// Kills it with `SIGKILL` and waits until its sessions are gone too, so that it can start again.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // Both fail only if it has ended already.
        let _ = child.kill();
        let _ = child.wait();
        for _ in 0..400 {
            if self.processes().is_empty() {
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("sessions outlive their server");
    }

    /// Its processes: those that work in its directory.
    fn processes(&self) -> Vec<i32> {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let is_ours = |pid: &i32| {
            std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|place| place.starts_with(&self.dir))
        };
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
    }

    /// Sends a signal to all its processes; `SIGSTOP` makes it hang with all connections open.
    pub fn signal(&self, signal: i32) {
        for pid in self.processes() {
            // SAFETY: a signal; at worst the process has ended meanwhile.
            unsafe { libc::kill(pid, signal) };
        }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("postgres://anteroom@127.0.0.1:{}/postgres", self.port)
    }

    /// Runs SQL; the rows of all statements, the columns of each joined by '|'.
    pub fn try_sql(&self, sql: &str) -> Result<Vec<String>, tokio_postgres::Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await?;
            let driver = tokio::spawn(connection);
            let messages = client.simple_query(sql).await?;
            driver.abort();
            let row = |message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    let cells = (0..row.len()).map(|index| row.get(index).unwrap_or("NULL"));
                    Some(cells.collect::<Vec<_>>().join("|"))
                }
                _ => None,
            };
            Ok(messages.into_iter().filter_map(row).collect())
        })
    }

    /// A connection that stays, for locks and transactions.
    pub fn session(&self) -> Session {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (client, connection) =
            runtime.block_on(tokio_postgres::connect(&self.url(), tokio_postgres::NoTls)).unwrap();
        runtime.spawn(connection);
        Session { runtime, client }
    }

    /// Runs SQL that has to succeed.
    pub fn sql(&self, sql: &str) -> Vec<String> {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{error:?}: {sql}"))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
