//! The database tier end to end: the real binary with a real Postgres behind it, killed and broken in many ways.

mod coherence;
pub mod crash;
mod damage;
mod lifetime;
mod loading;
mod model;
mod outage;
mod through;
mod transactions;
mod trouble;
mod wire;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anteroom::clock;

use crate::harness::{PATIENCE, Server, encode};
use crate::postgres::Postgres;

/// The rules of most tests, by their tables: `users` has a version column, the others have not.
pub const RULES: &str = r#"
    [[database.rules]]
    pattern = "user:{id}"
    table = "users"
    key = { id = "id" }
    columns = { a = "a", b = "b" }
    version = "ver"
    [[database.rules]]
    pattern = "plain:{id}"
    table = "plain"
    key = { id = "id" }
    columns = { a = "a", b = "b" }
    [[database.rules]]
    pattern = "note:{owner}:{title}"
    table = "notes"
    key = { owner = "owner", title = "title" }
    value = "body"
    [[database.rules]]
    pattern = "any:{x}"
"#;

/// The tables of [`RULES`].
pub const TABLES: &str = "
    CREATE TABLE users (id INTEGER PRIMARY KEY, a BIGINT, b BIGINT, ver BIGINT);
    CREATE TABLE plain (id INTEGER PRIMARY KEY, a BIGINT, b BIGINT);
    CREATE TABLE notes (owner TEXT, title TEXT, body TEXT, PRIMARY KEY (owner, title));";

/// A configuration with a database.
pub fn config(url: &str, options: &str, rules: &str) -> String {
    format!("[database]\nurl = \"{url}\"\nauto-create = true\npool-min = 1\n{options}\n{rules}")
}

/// Postgres with [`TABLES`], and the server in front of it with [`RULES`].
pub fn start(options: &str) -> (Postgres, Server) {
    let postgres = Postgres::start();
    postgres.sql(TABLES);
    let server = serve(&config(&postgres.url(), options, RULES), &[]);
    (postgres, server)
}

/// A server with this configuration, once it listens to Postgres: at that moment it drops what it has loaded.
pub fn serve(config: &str, arguments: &[&str]) -> Server {
    let server = Server::configured(config, arguments);
    wait_for(|| server.log().contains("listening for changes"));
    server
}

/// Has Postgres tell of changes.
pub fn install_triggers(postgres: &Postgres, server: &Server) {
    let file = server.dir.join("anteroom.toml");
    let printed = std::process::Command::new(env!("CARGO_BIN_EXE_anteroom"))
        .args(["sql", "triggers", "--config"])
        .arg(file)
        .output()
        .unwrap();
    assert!(printed.status.success());
    postgres.sql(&String::from_utf8(printed.stdout).unwrap());
}

/// The RESP of a string.
pub fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

/// The RESP of no string.
pub const NIL: &str = "$-1\r\n";

/// A figure of `INFO`.
pub fn info(server: &Server, name: &str) -> i64 {
    let text = server.client().run("INFO");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
}

/// Waits until something is so.
pub fn wait_for(mut is_so: impl FnMut() -> bool) {
    let begin = clock::monotonic();
    while !is_so() {
        assert!(begin.elapsed() < PATIENCE, "it does not come to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Has everything flushed.
pub fn flush(server: &Server) {
    assert_eq!(server.client().run("DB.FLUSH TIMEOUT 15000"), "+OK\r\n");
}

/// A connection whose server may end at any moment.
pub struct Link(BufReader<TcpStream>);

impl Link {
    pub fn new(server: &Server) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", server.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Some(Self(BufReader::new(stream)))
    }

    /// The replies to commands that are sent together, as text; none if the server ended before.
    pub fn ask(&mut self, commands: &[&str]) -> Option<Vec<String>> {
        let mut bytes = Vec::new();
        for command in commands {
            let words: Vec<Vec<u8>> = command.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            bytes.extend(encode(&words));
        }
        self.0.get_mut().write_all(&bytes).ok()?;
        commands.iter().map(|_| self.reply()).collect()
    }

    fn reply(&mut self) -> Option<String> {
        let mut reply = String::new();
        self.0.read_line(&mut reply).ok()?;
        let line = reply.strip_suffix("\r\n")?.to_owned();
        let count = || line[1..].parse::<i64>().ok();
        match line.as_bytes().first()? {
            b'*' => {
                for _ in 0..count()? {
                    reply.push_str(&self.reply()?);
                }
            }
            b'$' if count()? >= 0 => {
                let mut bulk = vec![0; count()? as usize + 2];
                self.0.read_exact(&mut bulk).ok()?;
                reply.push_str(&String::from_utf8_lossy(&bulk));
            }
            _ => {}
        }
        Some(reply)
    }
}
