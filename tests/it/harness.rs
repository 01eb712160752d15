//! Servers on private ports and directories, and a client that sees exact bytes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How long anything may take before a test gives up on it.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server, killed when it is dropped.
pub struct Server {
    child: Child,
    /// The program, its arguments and variables: it can be started again.
    program: Program,
    pub port: u16,
    /// Where its admin server listens, if it was asked for.
    pub admin: u16,
    pub dir: PathBuf,
}

/// A port that nobody listens on, from a range of this process's own: below those that the system gives to outgoing
/// connections, of which the tests make tens of thousands. None is given twice in a run: whoever had lost the first server
/// there would come back to the second.
pub fn free_port() -> u16 {
    const PORTS: u16 = 1000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 22) as u16 * PORTS;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % PORTS;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

#[derive(Clone)]
struct Program {
    words: Vec<String>,
    environment: Vec<(String, String)>,
    /// Whether what it says goes to the file `log` of its directory.
    is_logged: bool,
}

impl Program {
    fn spawn(&self, dir: &Path) -> Child {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).current_dir(dir).stdout(Stdio::null());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if self.is_logged {
            let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.join("log")).unwrap();
            command.stderr(log);
        }
        // SAFETY: prctl is async-signal-safe; the server dies with the test, however that ends.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        command.spawn().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.words[0]))
    }
}

fn directory(port: u16) -> PathBuf {
    std::env::temp_dir().join(format!("anteroom-test-{}-{port}", std::process::id()))
}

impl Server {
    /// The server under test with this configuration file, whose log is kept; it can be killed and started again.
    pub fn configured(config: &str, arguments: &[&str]) -> Self {
        let port = free_port();
        let dir = directory(port);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("anteroom.toml"), config).unwrap();
        let port_text = port.to_string();
        let mut all = vec!["--config", "anteroom.toml", "--port", &port_text, "--admin", "off"];
        if !arguments.contains(&"--threads") {
            all.extend(["--threads", "2"]);
        }
        all.extend(arguments);
        Self::spawn(env!("CARGO_BIN_EXE_anteroom"), &all, port, &[], true)
    }

    /// What it has logged, if that is kept.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).unwrap()
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again, after it has ended, and waits until it serves.
    pub fn restart(&mut self) {
        self.try_restart();
        self.wait_until_ready();
    }

    /// The same without waiting: it may refuse to.
    pub fn try_restart(&mut self) {
        assert!(self.child.try_wait().unwrap().is_some(), "it runs");
        self.child = self.program.spawn(&self.dir);
    }

    /// The server under test, without its admin server.
    pub fn anteroom(arguments: &[&str]) -> Self {
        Self::start(arguments, None, &[])
    }

    /// The same with its admin server on a private port, and with variables in its environment.
    pub fn with_admin(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::start(arguments, Some(free_port()), environment)
    }

    fn start(arguments: &[&str], admin: Option<u16>, environment: &[(&str, &str)]) -> Self {
        let port = free_port();
        let admin_text = admin.map_or("off".to_owned(), |port| format!("127.0.0.1:{port}"));
        let port_text = port.to_string();
        let mut all = vec!["--port", &port_text, "--log-level", "warn"];
        if !arguments.contains(&"--threads") {
            all.extend(["--threads", "2"]);
        }
        if !arguments.contains(&"--admin") {
            all.extend(["--admin", &admin_text]);
        }
        all.extend(arguments);
        let mut server = Self::spawn(env!("CARGO_BIN_EXE_anteroom"), &all, port, environment, false);
        server.admin = admin.unwrap_or(0);
        server
    }

    /// The oracle. A missing `redis-server` fails the test.
    pub fn redis() -> Self {
        Self::redis_at(free_port())
    }

    /// The same on a port that was its own before.
    pub fn redis_at(port: u16) -> Self {
        Self::redis_at_with(port, &[])
    }

    /// The same with more arguments.
    pub fn redis_with(arguments: &[&str]) -> Self {
        Self::redis_at_with(free_port(), arguments)
    }

    /// A Sentinel with a configuration file, which it writes to.
    pub fn sentinel_at(port: u16, file: &str) -> Self {
        let program = std::env::var("ANTEROOM_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let server =
            Self::launch(&program, &[file, "--sentinel", "--port", &port.to_string()], port, &[], false);
        // It knows no QUIT.
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(Duration::from_millis(25));
        }
        server
    }

    fn redis_at_with(port: u16, arguments: &[&str]) -> Self {
        let program = std::env::var("ANTEROOM_TEST_REDIS").unwrap_or_else(|_| "redis-server".to_owned());
        let port_text = port.to_string();
        let mut all = vec!["--port", &port_text, "--save", "", "--bind", "127.0.0.1"];
        all.extend(arguments);
        Self::spawn(&program, &all, port, &[], false)
    }

    fn spawn(
        program: &str,
        arguments: &[&str],
        port: u16,
        environment: &[(&str, &str)],
        is_logged: bool,
    ) -> Self {
        let server = Self::launch(program, arguments, port, environment, is_logged);
        server.wait_until_ready();
        server
    }

    fn launch(
        program: &str,
        arguments: &[&str],
        port: u16,
        environment: &[(&str, &str)],
        is_logged: bool,
    ) -> Self {
        let dir = directory(port);
        std::fs::create_dir_all(&dir).unwrap();
        let words = std::iter::once(program).chain(arguments.iter().copied()).map(str::to_owned).collect();
        let environment =
            environment.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let program = Program { words, environment, is_logged };
        let child = program.spawn(&dir);
        Self { child, program, port, admin: 0, dir }
    }

    fn wait_until_ready(&self) {
        for _ in 0..400 {
            if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                // Until the server has let go of it: a test may count clients.
                stream.write_all(b"QUIT\r\n").unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.read_to_end(&mut Vec::new()).unwrap();
                return;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the server does not listen on port {}", self.port);
    }

    /// The process's number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A new connection.
    pub fn client(&self) -> Client {
        Client::new(TcpStream::connect(("127.0.0.1", self.port)).unwrap())
    }

    /// Sends a signal and waits for the end.
    pub fn stop(&mut self, signal: i32) -> ExitStatus {
        // SAFETY: a signal to a child that is not waited for yet, so its number is still its own.
        unsafe { libc::kill(self.child.id() as i32, signal) };
        self.wait()
    }

    /// Waits for the end.
    pub fn wait(&mut self) -> ExitStatus {
        for _ in 0..800 {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("the server does not end");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if the server has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() && self.program.is_logged {
            eprintln!("log of port {}:\n{}", self.port, self.log());
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// A connection that sends bytes and reads whole replies.
pub struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    /// Sends bytes as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// The same, where the server may have closed; says whether they went out.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.reader.get_mut().write_all(bytes).is_ok()
    }

    /// The bytes of one reply, unless the server has closed.
    pub fn try_read(&mut self) -> Option<Vec<u8>> {
        let is_open = self.reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        is_open.then(|| self.read())
    }

    /// Sends a command.
    pub fn send(&mut self, command: &[Vec<u8>]) {
        self.send_raw(&encode(command));
    }

    /// Reads the bytes of one reply.
    pub fn read(&mut self) -> Vec<u8> {
        let mut reply = Vec::new();
        read_reply(&mut self.reader, &mut reply);
        reply
    }

    /// Whether the server closed the connection.
    pub fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        // A reset counts as closed too.
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }

    /// All frames that come until a `PING` is answered, in their order, without that answer.
    pub fn frames(&mut self) -> Vec<String> {
        let mark = fastrand::u64(..).to_string();
        self.send(&[b"PING".to_vec(), mark.clone().into_bytes()]);
        let mark = format!("${}\r\n{mark}\r\n", mark.len());
        let mut frames = Vec::new();
        loop {
            let frame = String::from_utf8_lossy(&self.read()).into_owned();
            // A subscriber in RESP2 is answered by a message.
            if frame == mark || frame == format!("*2\r\n$4\r\npong\r\n{mark}") {
                return frames;
            }
            frames.push(frame);
        }
    }

    /// Sends a command given as words and reads its reply as text.
    pub fn run(&mut self, words: &str) -> String {
        let command: Vec<Vec<u8>> = words.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        self.send(&command);
        String::from_utf8_lossy(&self.read()).into_owned()
    }
}

/// A command in RESP.
pub fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for argument in command {
        bytes.extend_from_slice(format!("${}\r\n", argument.len()).as_bytes());
        bytes.extend_from_slice(argument);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn read_reply(reader: &mut impl BufRead, reply: &mut Vec<u8>) {
    let start = reply.len();
    if let Err(error) = reader.read_until(b'\n', reply) {
        panic!("no reply: {error}; so far {:?}", String::from_utf8_lossy(reply));
    }
    assert!(reply.ends_with(b"\r\n"), "cut off: {:?}", String::from_utf8_lossy(reply));
    let number = || String::from_utf8_lossy(&reply[start + 1..reply.len() - 2]).parse::<i64>().unwrap();
    match reply[start] {
        b'$' | b'=' if number() >= 0 => {
            let end = reply.len() + number() as usize + 2;
            let from = reply.len();
            reply.resize(end, 0);
            reader.read_exact(&mut reply[from..]).unwrap();
        }
        mark @ (b'*' | b'~' | b'>' | b'%') => {
            let elements = number().max(0) * if mark == b'%' { 2 } else { 1 };
            (0..elements).for_each(|_| read_reply(reader, reply));
        }
        _ => {}
    }
}
