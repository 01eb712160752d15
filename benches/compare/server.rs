//! The two servers: how each is started, how its CPU time and memory are read, and that it ends with us.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::args::Options;
use crate::client::{Client, Endpoint};
use crate::placement::Cores;

const START_LIMIT: Duration = Duration::from_secs(10);

/// Whose flags a binary understands.
#[derive(Clone, Copy)]
enum Flavour {
    Redis,
    Anteroom,
}

/// A server binary that takes part.
pub struct Contender {
    pub name: String,
    binary: PathBuf,
    flavour: Flavour,
}

/// The two that are compared; ratios are subject ÷ baseline.
pub struct Contest {
    pub subject: Contender,
    pub baseline: Contender,
}

impl Contest {
    pub fn from_options(options: &Options) -> Result<Self, String> {
        let baseline = redis(&options.against, "")?;
        let subject = if options.self_test {
            redis(&options.against, " (again)")?
        } else {
            // The path is the one that cargo built together with this bench.
            let binary = options.subject.clone().unwrap_or_else(|| env!("CARGO_BIN_EXE_anteroom").into());
            Contender { name: "anteroom".into(), binary, flavour: Flavour::Anteroom }
        };
        Ok(Contest { subject, baseline })
    }
}

fn redis(binary: &Path, suffix: &str) -> Result<Contender, String> {
    let output = Command::new(binary)
        .arg("--version")
        .output()
        .map_err(|e| format!("cannot run {}: {e} (on Debian: apt install redis)", binary.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let version =
        text.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or("of unknown version");
    let program = binary.file_name().unwrap_or_default().to_string_lossy();
    Ok(Contender {
        name: format!("{program} {version}{suffix}"),
        binary: binary.into(),
        flavour: Flavour::Redis,
    })
}

impl Contender {
    /// The eviction policies whose hit ratios are worth comparing.
    pub fn policies(&self) -> &'static [&'static str] {
        match self.flavour {
            Flavour::Redis => &["allkeys-lru", "allkeys-lfu"],
            Flavour::Anteroom => &["allkeys-s3fifo", "allkeys-lru", "allkeys-lfu"],
        }
    }

    fn arguments(&self, port: u16, socket: &Path, directory: &Path, threads: usize) -> Vec<String> {
        let mut list: Vec<String> = vec!["--port".into(), port.to_string()];
        list.extend(["--bind", "127.0.0.1", "--unixsocket"].map(String::from));
        list.push(socket.display().to_string());
        list.extend(["--dir".into(), directory.display().to_string()]);
        match self.flavour {
            Flavour::Redis => {
                list.extend(["--save", "", "--appendonly", "no", "--io-threads"].map(String::from));
            }
            Flavour::Anteroom => list.extend(["--admin", "off", "--threads"].map(String::from)),
        }
        list.push(threads.to_string());
        list
    }

    /// The command without its paths, for the report.
    pub fn command_line(&self, threads: usize) -> String {
        match self.flavour {
            Flavour::Redis => format!("redis-server --save '' --appendonly no --io-threads {threads}"),
            Flavour::Anteroom => format!("anteroom --admin off --threads {threads}"),
        }
    }

    /// Starts it on `cores`, one thread for each, and waits until it answers.
    pub fn start(&self, directory: &Scratch, cores: &Cores) -> Result<Server, String> {
        let port = free_port().map_err(|e| format!("no free port: {e}"))?;
        let home = directory.path.join(port.to_string());
        let fail = |what: &str, e: io::Error| format!("{}: {what}: {e}", self.name);
        fs::create_dir_all(&home).map_err(|e| fail("cannot make its directory", e))?;
        let socket = home.join("socket");
        let log = home.join("log");
        let output = File::create(&log).map_err(|e| fail("cannot create its log", e))?;
        let errors = output.try_clone().map_err(|e| fail("cannot create its log", e))?;
        let mut command = Command::new(&self.binary);
        command.args(self.arguments(port, &socket, &home, cores.0.len()));
        command.current_dir(&home).stdin(Stdio::null()).stdout(output).stderr(errors);
        bind_to(&mut command, cores.clone());
        let child = command.spawn().map_err(|e| fail("cannot start", e))?;
        let mut server = Server { child, port, socket, name: self.name.clone() };
        server.wait_until_ready(&log)?;
        Ok(server)
    }
}

/// Pins the child to `cores` and has it killed when this process dies, however that happens.
pub fn bind_to(command: &mut Command, cores: Cores) {
    let prepare = move || {
        cores.pin()?;
        // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // SAFETY: between fork and exec only two system calls are made; nothing allocates or locks.
    unsafe { command.pre_exec(prepare) };
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
    pub socket: PathBuf,
    pub name: String,
}

impl Server {
    fn wait_until_ready(&mut self, log: &Path) -> Result<(), String> {
        let started = Instant::now();
        loop {
            let answers = [Endpoint::Tcp(self.port), Endpoint::Unix(self.socket.clone())]
                .iter()
                .all(|endpoint| Client::connect(endpoint).and_then(|mut c| c.command(&["PING"])).is_ok());
            if answers {
                return Ok(());
            }
            let ended = self.child.try_wait().map_err(|e| format!("{}: {e}", self.name))?;
            if ended.is_some() || started.elapsed() > START_LIMIT {
                let text = fs::read_to_string(log).unwrap_or_else(|e| e.to_string());
                let state = ended.map_or("does not answer".into(), |status| format!("ended with {status}"));
                return Err(format!("{} {state}; its output:\n{text}", self.name));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// CPU time used so far by all threads of the process.
    pub fn cpu_time(&self) -> Result<Duration, String> {
        crate::cpu::time_of(self.child.id()).map_err(|e| format!("{}: no CPU time: {e}", self.name))
    }

    /// Resident bytes of the process.
    pub fn resident(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/status", self.child.id());
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        Ok(kib.ok_or_else(|| format!("{path}: no VmRSS"))? * 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory of our own for sockets and logs; removed when dropped.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn create() -> Result<Self, String> {
        let path = std::env::temp_dir().join(format!("anteroom-compare-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(Scratch { path })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = fs::remove_dir_all(&self.path) {
            eprintln!("compare: {} is left behind: {e}", self.path.display());
        }
    }
}
