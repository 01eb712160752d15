//! The journal's files are cut, changed, or have no space: that is found, told, and what comes before is recovered.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::{config, flush, serve, start, wait_for};
use crate::harness::Server;
use crate::postgres::Postgres;

const COUNT: usize = 300;

/// A server that has written [`COUNT`] rows and was killed before any was flushed.
fn killed(fsync: &str) -> (Postgres, Server) {
    let (postgres, mut server) =
        start(&format!("flush-interval = '1h'\nbatch-size = 1000\njournal-fsync = '{fsync}'"));
    let mut client = server.client();
    for number in 1..=COUNT {
        assert_eq!(client.run(&format!("SET note:n:{number} {number}")), "+OK\r\n");
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM notes"), ["0"]);
    server.kill();
    (postgres, server)
}

fn journal(server: &Server) -> PathBuf {
    server.dir.join("data/journal")
}

/// The journal's only segment.
fn segment(server: &Server) -> PathBuf {
    let files = std::fs::read_dir(journal(server)).unwrap().flatten().map(|entry| entry.path());
    let large = files.filter(|path| path.metadata().unwrap().len() > 4096);
    large.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn work(what: &str, directory: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    let Output { status, stdout, stderr } = command.args(["journal", what]).arg(directory).output().unwrap();
    let text = [stdout, stderr].concat();
    (status.code(), String::from_utf8(text).unwrap())
}

fn rows(postgres: &Postgres) -> Vec<usize> {
    let rows = postgres.sql("SELECT title FROM notes");
    let mut rows: Vec<usize> = rows.iter().map(|row| row.parse().unwrap()).collect();
    rows.sort_unstable();
    rows
}

#[test]
fn a_torn_end_is_cut_off_and_told() {
    let (postgres, mut server) = killed("no");
    let (code, text) = work("inspect", &journal(&server));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("put note:n:300 (note:{owner}:{title})"), "{text}");
    assert!(text.contains("300 not done, 0 unreadable"), "{text}");
    let file = segment(&server);
    let bytes = std::fs::read(&file).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    std::fs::write(&file, &bytes[..end - 20]).unwrap();
    let (code, text) = work("inspect", &journal(&server));
    assert_eq!(code, Some(2), "{text}");
    server.restart();
    assert!(server.log().contains("WARN"), "{}", server.log());
    flush(&server);
    assert_eq!(rows(&postgres), (1..COUNT).collect::<Vec<_>>());
    // And it goes on.
    assert_eq!(server.client().run("SET note:n:300 again"), "+OK\r\n");
    flush(&server);
    assert_eq!(rows(&postgres).len(), COUNT);
}

#[test]
fn damage_in_the_middle_is_refused_until_it_is_repaired() {
    let (postgres, mut server) = killed("always");
    let file = segment(&server);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.windows(10).position(|window| window == b"note:n:150").unwrap();
    bytes[middle] ^= 0x10;
    std::fs::write(&file, &bytes).unwrap();
    server.try_restart();
    assert_eq!(server.wait().code(), Some(1));
    assert!(server.log().contains("the journal is damaged"), "{}", server.log());
    assert_eq!(std::fs::read(&file).unwrap(), bytes, "nothing is changed");
    let (code, text) = work("inspect", &journal(&server));
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("1 unreadable places"), "{text}");
    let (code, text) = work("repair", &journal(&server));
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("lost"), "{text}");
    server.restart();
    flush(&server);
    assert_eq!(rows(&postgres), (1..=COUNT).filter(|number| *number != 150).collect::<Vec<_>>());
    let kept = std::fs::read_dir(journal(&server)).unwrap().flatten();
    assert!(kept.into_iter().any(|entry| entry.file_name().to_string_lossy().contains("damaged")));
    assert_eq!(work("repair", Path::new("/nowhere/at/all")).0, Some(1));
}

/// A file system of a few megabytes, where one may be mounted; else a directory with the journal's own bound.
struct SmallDisk {
    dir: PathBuf,
    is_mounted: bool,
}

impl SmallDisk {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("anteroom-small-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut mount = Command::new("mount");
        let mounted = mount.args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"]).arg(&dir).output();
        Self { dir, is_mounted: mounted.is_ok_and(|output| output.status.success()) }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.is_mounted {
            assert!(Command::new("umount").arg("-l").arg(&self.dir).status().unwrap().success());
        }
        // Left over if it is in use still.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_full_disk_refuses_writes_with_an_error_and_takes_them_again() {
    let disk = SmallDisk::new();
    println!("a small file system is mounted: {}", disk.is_mounted);
    let postgres = Postgres::start();
    postgres.sql(super::TABLES);
    let bound = if disk.is_mounted { "1gb" } else { "2mb" };
    let options = format!("flush-interval = '1h'\nbatch-size = 100000\njournal-max-size = '{bound}'");
    let text = config(&postgres.url(), &options, super::RULES);
    let server = serve(&text, &["--dir", disk.dir.to_str().unwrap()]);
    let mut client = server.client();
    let value = "v".repeat(1000);
    let mut written = Vec::new();
    let refused = (0..20_000).find_map(|number| {
        let reply = client.run(&format!("SET note:n:{number} {value}"));
        if reply == "+OK\r\n" {
            written.push(number);
            None
        } else {
            Some(reply)
        }
    });
    let first = refused.expect("the disk has an end");
    println!("{} written, then {first}", written.len());
    assert!(written.len() > 500, "{}", written.len());
    // What was in the cache when it turned out that there is no space: its outcome is open, and its connection ends.
    assert!(first.starts_with(if disk.is_mounted { "-IOERR " } else { "-BUSY " }), "{first}");
    let mut client = server.client();
    let refused = client.run(&format!("SET note:n:1 {value}"));
    assert!(refused.starts_with("-BUSY "), "{refused}");
    // Reads go on, and writes that no rule concerns.
    assert_eq!(client.run("STRLEN note:n:1"), ":1000\r\n");
    assert_eq!(client.run("SET other x"), "+OK\r\n");
    flush(&server);
    let rows = rows(&postgres);
    assert!(written.iter().all(|number| rows.contains(number)));
    // The space comes back.
    wait_for(|| client.run("SET note:n:1 again") == "+OK\r\n");
    flush(&server);
    assert_eq!(postgres.sql("SELECT body FROM notes WHERE title = '1'"), ["again"]);
}
