//! What write-behind costs the clients, and how fast the flusher is.
//!
//! ```text
//! cargo bench --bench writebehind -- --run
//! ```
//! First: `SET` of keys that no rule matches beside `SET` of keys under a write-behind rule of the default table, on one
//! server with `journal-fsync = "everysec"` and a Postgres behind it, 50 clients of `redis-benchmark`, pipelines of 1 and
//! 32: while rows are flushed, and while Postgres is stopped (SIGSTOP), so that they wait. Server, load, flusher and
//! Postgres share the machine's cores: with few of them the first tells what Postgres takes away from the clients, the
//! second what the journal costs them. Beside each, requests per CPU-second of Anteroom, all its threads together: what it
//! would reach with a core for each of them. Second: rows a second that the flusher puts into
//! Postgres, beside `INSERT`s of one row each over one connection, and `COPY` of the same rows in pieces of a batch and
//! as a whole. All cases take their turn in each round; what is printed are medians.

#![allow(clippy::disallowed_methods, reason = "a harness, not the server")]

#[path = "compare/client.rs"]
#[allow(dead_code, reason = "the other bench uses the rest")]
mod client;
#[path = "shared/cpu.rs"]
mod cpu;
#[path = "../tests/it/postgres.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod postgres;

use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use client::{Client, Endpoint};
use postgres::Postgres;
use tokio_postgres::{NoTls, SimpleQueryMessage};

const ROUNDS: usize = 5;
/// Rows that the flusher brings in a round.
const ROWS: usize = 20_000;
/// Rows inserted one by one in a round: they are slow.
const SINGLE_ROWS: usize = 2_000;
const BATCH: usize = 100;
const VALUE: &str = "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";

/// What `tests/it/postgres.rs` needs of the tests' harness.
mod harness {
    pub fn free_port() -> u16 {
        super::free_port().expect("a free port")
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn main() {
    // `cargo test --all-targets` starts bench targets too: nothing is measured then.
    if !std::env::args().any(|argument| argument == "--run") {
        println!("writebehind: nothing to do; run it with `cargo bench --bench writebehind -- --run`");
        return;
    }
    if let Err(error) = run() {
        eprintln!("writebehind: {error}");
        std::process::exit(1);
    }
}

struct Server {
    child: Child,
    port: u16,
    dir: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn start(url: &str) -> io::Result<Server> {
    let port = free_port()?;
    let dir = std::env::temp_dir().join(format!("anteroom-writebehind-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    let config = format!(
        "[server]\ndir = '{}'\nthreads = 1\n[database]\nurl = '{url}'\nauto-create = true\nbatch-size = {BATCH}\n\
         journal-max-size = '4gb'\n[[database.rules]]\npattern = 'kept:{{k}}'\n\
         [[database.rules]]\npattern = 'row:{{k}}'\ntable = 'behind'\nkey = {{ k = 'id' }}\nvalue = 'v'\nversion = 'ver'\n",
        dir.display()
    );
    let file = dir.join("anteroom.toml");
    std::fs::write(&file, config)?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command
        .args(["--port", &port.to_string(), "--admin", "off", "--log-level", "warn", "--config"])
        .arg(&file);
    command.stdout(Stdio::null());
    // SAFETY: prctl is async-signal-safe; the server dies with the harness, however that ends.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    let server = Server { child: command.spawn()?, port, dir };
    for _ in 0..400 {
        if Client::connect(&endpoint(&server)).is_ok() {
            return Ok(server);
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    Err(io::Error::other("the server does not listen"))
}

fn endpoint(server: &Server) -> Endpoint {
    Endpoint::Tcp(server.port)
}

fn run() -> io::Result<()> {
    let database = Postgres::start();
    database.sql(
        "CREATE TABLE behind (id text PRIMARY KEY, v text, ver bigint);
         CREATE TABLE single (id text PRIMARY KEY, v text, ver bigint);
         CREATE TABLE copied (id text PRIMARY KEY, v text, ver bigint)",
    );
    let server = start(&database.url())?;
    println!("SET, 50 clients, 64 B, 100,000 keys, everysec (thousand requests a second)");
    println!("  redis-benchmark -c 50 -r 100000 -P <P> -n <n> SET <plain:|kept:>__rand_int__ <64 B>");
    for (pipeline, requests) in [(1, 150_000), (32, 1_500_000)] {
        let cases = [("plain", false), ("kept", false), ("kept", true)];
        let (mut figures, mut of_cpu) = (cases.map(|_| Vec::new()), cases.map(|_| Vec::new()));
        for _ in 0..ROUNDS {
            for (index, (prefix, is_stopped)) in cases.into_iter().enumerate() {
                if is_stopped {
                    database.signal(libc::SIGSTOP);
                }
                let before = cpu::time_of(server.child.id())?;
                let figure = load(server.port, prefix, pipeline, requests);
                let used = cpu::time_of(server.child.id())? - before;
                database.signal(libc::SIGCONT);
                figures[index].push(figure?);
                of_cpu[index].push(requests as f64 / 1000.0 / used.as_secs_f64());
                // What waits is flushed before the next case is measured.
                Client::connect(&endpoint(&server))?.command(&["DB.FLUSH"])?;
            }
        }
        let [plain, kept, stopped] = figures.map(median);
        println!("  P{pipeline}: plain {plain:.1}, write-behind {kept:.1}: {:.2}", kept / plain);
        println!("      with Postgres stopped {stopped:.1}: {:.2}", stopped / plain);
        let [plain, kept, stopped] = of_cpu.map(median);
        println!("      per CPU-second: plain {plain:.1}, write-behind {kept:.1}: {:.2}", kept / plain);
        println!("      with Postgres stopped {stopped:.1}: {:.2}", stopped / plain);
    }
    println!("rows a second into Postgres, batches of {BATCH}");
    let mut figures = [Vec::new(), Vec::new(), Vec::new(), Vec::new()];
    for round in 0..ROUNDS {
        figures[0].push(flusher(&server, round)?);
        figures[1].push(single(&database, round));
        figures[2].push(copy(&database, BATCH));
        figures[3].push(copy(&database, ROWS));
    }
    let [flusher, single, pieces, whole] = figures.map(median);
    println!("  flusher {flusher:.0}; INSERT one by one {single:.0}: {:.1}", flusher / single);
    println!("  COPY in pieces of {BATCH} {pieces:.0}: {:.2}", flusher / pieces);
    println!("  COPY of {ROWS} at once {whole:.0}: {:.2}", flusher / whole);
    Ok(())
}

/// Thousand requests a second.
fn load(port: u16, prefix: &str, pipeline: usize, requests: usize) -> io::Result<f64> {
    let output = Command::new("redis-benchmark")
        .args(["-p", &port.to_string(), "-c", "50", "-r", "100000", "--csv"])
        .args(["-P", &pipeline.to_string(), "-n", &requests.to_string()])
        .args(["SET", &format!("{prefix}:__rand_int__"), VALUE])
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().unwrap_or_default();
    // The command's name may hold commas, in quotes.
    let figure = last.rsplit("\",\"").nth(6).and_then(|figure| figure.parse::<f64>().ok());
    figure
        .map(|figure| figure / 1000.0)
        .ok_or_else(|| io::Error::other(format!("redis-benchmark said: {text}")))
}

/// Accepts rows faster than they are flushed, and times from the first to the last being in the table.
fn flusher(server: &Server, round: usize) -> io::Result<f64> {
    let mut client = Client::connect(&endpoint(server))?;
    let mut out = Vec::new();
    for row in 0..ROWS {
        let key = format!("row:{round}-{row}");
        client::encode(&mut out, &["SET", &key, VALUE]);
    }
    let begin = Instant::now();
    client.send(&out)?;
    client.skip_replies(ROWS)?;
    client.command(&["DB.FLUSH"])?;
    Ok(ROWS as f64 / begin.elapsed().as_secs_f64())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// One prepared statement a row, each its own transaction.
fn single(database: &Postgres, round: usize) -> f64 {
    runtime().block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&database.url(), NoTls).await.expect("a connection");
        let driver = tokio::spawn(connection);
        let insert = client.prepare("INSERT INTO single VALUES ($1, $2, $3)").await.expect("a statement");
        let begin = Instant::now();
        for row in 0..SINGLE_ROWS {
            let id = format!("{round}-{row}");
            client.execute(&insert, &[&id, &VALUE, &(row as i64)]).await.expect("a row");
        }
        let rate = SINGLE_ROWS as f64 / begin.elapsed().as_secs_f64();
        driver.abort();
        rate
    })
}

/// `COPY` in pieces of so many rows, each its own transaction.
fn copy(database: &Postgres, piece: usize) -> f64 {
    let file = |rows: std::ops::Range<usize>| -> String {
        rows.map(|row| format!("{row}\t{VALUE}\t{row}\n")).collect()
    };
    runtime().block_on(async {
        let (client, connection) =
            tokio_postgres::connect(&database.url(), NoTls).await.expect("a connection");
        let driver = tokio::spawn(connection);
        let _: Vec<SimpleQueryMessage> =
            client.simple_query("TRUNCATE copied").await.expect("an empty table");
        let begin = Instant::now();
        for first in (0..ROWS).step_by(piece) {
            let sink = client.copy_in("COPY copied FROM STDIN").await.expect("COPY");
            tokio::pin!(sink);
            let bytes = bytes::Bytes::from(file(first..first + piece));
            futures_util::SinkExt::send(&mut sink, bytes).await.expect("rows");
            sink.finish().await.expect("the end");
        }
        let rate = ROWS as f64 / begin.elapsed().as_secs_f64();
        driver.abort();
        rate
    })
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
