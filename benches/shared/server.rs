//! A server under measurement, on a port of its own.

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::client::{Client, Endpoint};

/// Keeps the caller on one core.
pub fn pin(core: usize) -> io::Result<()> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: CPU_SET checks the index against the size of the set.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the set is valid for the size given, and thread 0 is the caller.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A server; killed when dropped, or when this process dies.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    /// Starts it, on that core if one is given, and waits until it answers.
    pub fn start(program: &str, arguments: &[&str], core: Option<usize>) -> io::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]).args(arguments);
        command.current_dir(std::env::temp_dir()).stdin(Stdio::null()).stdout(Stdio::null());
        let prepare = move || {
            core.map_or(Ok(()), pin)?;
            // SAFETY: PR_SET_PDEATHSIG takes a signal number and touches no memory.
            match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec only two system calls are made; nothing allocates or locks.
        unsafe { command.pre_exec(prepare) };
        let server = Self { child: command.spawn()?, port };
        let begin = Instant::now();
        loop {
            match Client::connect(&Endpoint::Tcp(port)).and_then(|mut client| client.command(&["PING"])) {
                Ok(()) => return Ok(server),
                Err(error) if begin.elapsed() > Duration::from_secs(10) => return Err(error),
                Err(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    /// CPU time that all threads of the process have used.
    #[allow(dead_code, reason = "not every bench asks")]
    pub fn cpu_time(&self) -> io::Result<Duration> {
        crate::cpu::time_of(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already ended is as good as killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
