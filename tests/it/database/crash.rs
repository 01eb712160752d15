//! Kills of the server at random moments under load: nothing acknowledged is lost, nothing goes back to an older value.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anteroom::clock;

use super::{Link, flush, info, start};
use crate::harness::Server;
use crate::postgres::Postgres;

pub const WRITERS: u64 = 8;
/// Keys of each writer, by rule.
const KEYS: u64 = 4;
/// Each operation of this number deletes.
const DELETES: u64 = 7;

/// What is known of one place in the database: operations are numbered, and their numbers are the values.
#[derive(Debug, Default, Clone, Copy)]
pub struct Known {
    acknowledged: u64,
    sent: u64,
}

impl Known {
    /// Whether a row with this value, or no row, can be what the database holds.
    fn allows(self, value: Option<u64>, deletes: bool) -> bool {
        match value {
            Some(value) => {
                (self.acknowledged..=self.sent).contains(&value)
                    && value > 0
                    && !(deletes && value % DELETES == 0)
            }
            None => {
                self.acknowledged == 0
                    || deletes && (self.acknowledged..=self.sent).any(|number| number % DELETES == 0)
            }
        }
    }
}

/// By place, as `table/row/column`.
pub type Places = HashMap<String, Known>;

/// Writes until the server is gone; returns the number of acknowledged writes.
pub fn write(server: &Server, writer: u64, places: &mut Places, round: u64) -> u64 {
    let Some(mut link) = Link::new(server) else { return 0 };
    let mut total = 0;
    for turn in round * 3.. {
        let row = writer * KEYS + turn % KEYS;
        // Commands with the places that they set.
        let mut next = |place: String| {
            let known = places.entry(place).or_default();
            known.sent += 1;
            known.sent
        };
        let (commands, set): (Vec<String>, Vec<String>) = match turn / KEYS % 5 {
            0 => {
                let place = format!("notes/{row}/body");
                let number = next(place.clone());
                let key = format!("note:w:{row}");
                let command =
                    if number % DELETES == 0 { format!("DEL {key}") } else { format!("SET {key} {number}") };
                (vec![command], vec![place])
            }
            1 => {
                let column = if turn % 2 == 0 { "a" } else { "b" };
                let place = format!("users/{row}/{column}");
                (vec![format!("HSET user:{row} {column} {}", next(place.clone()))], vec![place])
            }
            2 => {
                let column = if turn % 3 == 0 { "a" } else { "b" };
                let place = format!("plain/{row}/{column}");
                (vec![format!("HSET plain:{row} {column} {}", next(place.clone()))], vec![place])
            }
            3 => {
                // A string of the default table, edited so that its old value is needed: it counts the increments.
                let place = format!("counters/{row}/value");
                next(place.clone());
                (vec![format!("INCR any:counter:{row}")], vec![place])
            }
            _ => {
                // Two tables in one transaction, and the same number in both.
                let places = vec![format!("users/{}/a", row + 1000), format!("plain/{}/a", row + 1000)];
                let numbers: Vec<u64> = places.iter().map(|place| next(place.clone())).collect();
                let commands = vec![
                    "MULTI".to_owned(),
                    format!("HSET user:{} a {}", row + 1000, numbers[0]),
                    format!("HSET plain:{} a {}", row + 1000, numbers[1]),
                    "EXEC".to_owned(),
                ];
                (commands, places)
            }
        };
        let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
        let Some(replies) = link.ask(&commands) else { return total };
        if let Some(error) = replies.iter().find(|reply| reply.contains('-')) {
            panic!("{commands:?}: {error}");
        }
        for place in &set {
            let known = places.get_mut(place).unwrap();
            // A counter tells how many increments there were; those that were sent in vain before a kill are not among them.
            if place.starts_with("counters/") {
                let count = replies[0].trim_start_matches(':').trim_end().parse().unwrap();
                assert!(known.acknowledged < count && count <= known.sent, "{place}: {count}, {known:?}");
                known.sent = count;
            }
            known.acknowledged = known.sent;
        }
        total += set.len() as u64;
    }
    total
}

/// Holds what the tables have, after a flush, against what is known; then the same through the server.
pub fn check(postgres: &Postgres, server: &Server, places: &[Places], rounds: &str) {
    let mut rows: HashMap<String, u64> = HashMap::new();
    for (table, sql) in [
        ("users", "SELECT id, a, b FROM users"),
        ("plain", "SELECT id, a, b FROM plain"),
        ("notes", "SELECT title, body FROM notes"),
    ] {
        for row in postgres.sql(sql) {
            let cells: Vec<&str> = row.split('|').collect();
            let columns: &[&str] = if table == "notes" { &["body"] } else { &["a", "b"] };
            for (column, cell) in columns.iter().zip(&cells[1..]) {
                if *cell != "NULL" {
                    rows.insert(format!("{table}/{}/{column}", cells[0]), cell.parse().unwrap());
                }
            }
        }
    }
    let mut client = server.client();
    for (place, known) in places.iter().flatten() {
        let deletes = place.starts_with("notes");
        let value = match place.strip_prefix("counters/") {
            Some(rest) => {
                let row = rest.strip_suffix("/value").unwrap();
                let reply = client.run(&format!("GET any:counter:{row}"));
                reply.lines().nth(1).map(|number| number.parse().unwrap())
            }
            None => rows.get(place).copied(),
        };
        assert!(known.allows(value, deletes), "{rounds}: {place} has {value:?}, but {known:?}");
    }
    let torn = "SELECT u.id, u.a, p.a FROM users u FULL JOIN plain p USING (id)
        WHERE id >= 1000 AND u.a IS DISTINCT FROM p.a";
    assert_eq!(postgres.sql(torn), [""; 0], "{rounds}: a transaction is torn");
}

/// Kills the server in each round at a random moment under load.
fn kill_rounds(fsync: &str, rounds: u64) -> u64 {
    let options = format!("journal-fsync = \"{fsync}\"\nflush-interval = \"50ms\"\nbatch-size = 40");
    let (postgres, mut server) = start(&options);
    let mut places: Vec<Places> = vec![Places::new(); WRITERS as usize];
    let total = AtomicU64::new(0);
    for round in 0..rounds {
        let pid = server.pid() as i32;
        std::thread::scope(|scope| {
            for (writer, places) in places.iter_mut().enumerate() {
                let (server, total) = (&server, &total);
                scope.spawn(move || {
                    total.fetch_add(write(server, writer as u64, places, round), Ordering::Relaxed);
                });
            }
            std::thread::sleep(Duration::from_millis(fastrand::u64(100..250)));
            // SAFETY: a signal to a child that is not waited for yet, so its number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
        });
        server.kill();
        // What is in the database at any moment holds transactions whole.
        server.restart();
        flush(&server);
        check(&postgres, &server, &places, &format!("{fsync}, round {round}"));
    }
    total.into_inner()
}

#[test]
fn nothing_acknowledged_is_lost_in_fifty_kills() {
    let total = kill_rounds("always", 50);
    println!("50 kills with fsync always: {total} acknowledged writes, none missing, none older");
    assert!(total > 1000, "{total}");
}

#[test]
fn a_killed_process_loses_nothing_of_what_the_file_has() {
    let total = kill_rounds("everysec", 8);
    println!("8 kills with fsync everysec: {total} acknowledged writes, none missing, none older");
    assert!(total > 1000, "{total}");
}

/// Rows that others lock for a while, at random, under load; and a kill in the middle of that.
#[test]
fn locks_of_others_and_kills_lose_nothing() {
    let rounds = if std::env::var_os("ANTEROOM_TEST_LONG").is_some() { 60 } else { 6 };
    // Locks are waited for half of the statement's time.
    let options = "journal-fsync = \"always\"\nflush-interval = \"20ms\"\nbatch-size = 20\nstatement-timeout = \"400ms\"";
    let (postgres, mut server) = start(options);
    let mut places: Vec<Places> = vec![Places::new(); WRITERS as usize];
    let mut held_up = 0;
    for round in 0..rounds {
        let pid = server.pid() as i32;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for (writer, places) in places.iter_mut().enumerate() {
                let server = &server;
                scope.spawn(move || write(server, writer as u64, places, round));
            }
            for table in ["users", "plain"] {
                let (postgres, is_over) = (&postgres, &is_over);
                scope.spawn(move || {
                    let mut session = postgres.session();
                    while !is_over.load(Ordering::Relaxed) {
                        let row = fastrand::u64(..WRITERS * KEYS) + fastrand::u64(..2) * 1000;
                        session.run(&format!(
                            "BEGIN; SELECT id FROM {table} WHERE id IN ({row}, {}) FOR UPDATE",
                            row + 3
                        ));
                        std::thread::sleep(Duration::from_millis(fastrand::u64(..1500)));
                        session.run("COMMIT");
                    }
                });
            }
            let begin = clock::monotonic();
            while begin.elapsed() < Duration::from_millis(fastrand::u64(1500..3000)) {
                held_up = held_up.max(info(&server, "writebehind_locked"));
                std::thread::sleep(Duration::from_millis(50));
            }
            // SAFETY: a signal to a child that is not waited for yet, so its number is still its own.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            is_over.store(true, Ordering::Relaxed);
        });
        server.kill();
        server.restart();
        flush(&server);
        check(&postgres, &server, &places, &format!("locks, round {round}"));
    }
    assert!(held_up > 0, "nothing was ever held up");
}
