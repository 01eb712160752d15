//! The database tier of hosts that have an upstream: what they accept stands in a stream there, written with the values
//! themselves, and any host brings it to the database, also what a dead one had accepted.
//!
//! Each host reads its share of the stream into a backlog and flushes that as its own. As hosts flush apart, the order of a
//! key's changes is that of their versions, which upstream gives: an older one never overwrites a newer row. An entry is
//! deleted when it is in the database; till then, who reads it and dies leaves it to the others.

mod entry;
mod follow;
mod keeper;
mod load;
mod names;
mod reader;
mod scripts;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;

use self::entry::Entry;
use self::follow::Following;
pub use self::names::Names;
pub use self::scripts::{GUARD, JOURNAL, NOTE, WRITE};
use super::backend::{Backend, Journaled};
use super::backlog::Backlog;
use super::flights::Flights;
use super::readiness::{self, Readiness};
use super::rules::Rules;
use super::status::{Figure, Status};
use super::store::{Failure, Store};
use super::tier::StartError;
use crate::config::Settings;
use crate::config::database::DatabaseConfig;
use crate::protocol::ReplyError;
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{Dedicated, Upstream, elements, encode, is_error, text};
use crate::types::number::parse_i64;

/// How long upstream may take to answer what this tier asks of it.
const ANSWER: Duration = Duration::from_secs(5);
/// While a flush is waited for, so often it is looked whether it is done.
const LOOK: Duration = Duration::from_millis(5);

/// The tier.
pub struct Shared {
    /// The database, and what of the stream this host brings to it.
    pub backend: Backend,
    /// The names of what hosts share.
    pub names: Names,
    /// The Redis that they share it on.
    pub upstream: Arc<Upstream>,
    /// Names this host among all that share the journal, and ever did.
    host: String,
    settings: Arc<Settings>,
    flights: Arc<Flights>,
    taken: Mutex<Taken>,
    /// What is to be told upstream.
    finished: Mutex<Finished>,
    wake: Notify,
    /// The bytes that the stream held last.
    bytes: Arc<AtomicI64>,
    seen: Mutex<Seen>,
    is_overdue: AtomicBool,
    /// How upstream may lose the journal by itself, if so.
    hazard: Mutex<Option<String>>,
    following: Mutex<Following>,
}

/// Entries that this host has read and not told the end of.
#[derive(Default)]
struct Taken {
    next: u64,
    by_sequence: HashMap<u64, Ending>,
    ids: HashSet<Box<[u8]>, ahash::RandomState>,
    /// What they weigh that are not in the database yet.
    bytes: usize,
    /// Of those that it can do nothing with, the first one's key.
    unreadable: Option<String>,
}

/// What is to be told of an entry in the end.
struct Ending {
    id: Box<[u8]>,
    size: usize,
    version: i64,
    keys: Vec<Box<[u8]>>,
}

/// What is to be told upstream.
#[derive(Default)]
struct Finished {
    entries: Vec<Ending>,
    /// Keys whose rows others changed.
    changed: Vec<Box<[u8]>>,
}

/// What was last seen of the stream.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    entries: u64,
    age: Duration,
    is_away: bool,
}

/// A place in the stream.
type Place = (u64, u64);

impl Shared {
    /// Opens the tier. A database that is away is asked until it is there; its rows wait upstream.
    ///
    /// # Errors
    /// The database is not as the rules want it.
    pub async fn open(
        config: &DatabaseConfig,
        store: Arc<dyn Store>,
        rules: Arc<Rules>,
        upstream: Arc<Upstream>,
        (host, settings): (String, Arc<Settings>),
    ) -> Result<Self, StartError> {
        let readiness = match readiness::ask(&*store).await? {
            Ok(_) => Readiness::checked(),
            Err(why) => {
                tracing::warn!("the database cannot be reached ({why}): what is accepted waits upstream");
                Readiness::away(why)
            }
        };
        let backlog = Backlog::new(&rules);
        Ok(Self {
            backend: Backend::new(config, store, rules, readiness, backlog),
            names: Names::of(&config.journal_name),
            upstream,
            host,
            settings,
            flights: Arc::default(),
            taken: Mutex::default(),
            finished: Mutex::default(),
            wake: Notify::new(),
            bytes: Arc::default(),
            seen: Mutex::default(),
            is_overdue: AtomicBool::new(false),
            hazard: Mutex::default(),
            following: Mutex::default(),
        })
    }

    /// Reads the stream, keeps it tidy and follows the database, for as long as the process lives.
    pub async fn run(&'static self) {
        tokio::join!(self.read(), self.keep(), self.follow());
    }

    /// Whether the journal takes more: to be asked before anything is sent.
    ///
    /// # Errors
    /// It is full, or what it holds has waited for too long, or it is not safe there.
    pub fn admit(&self) -> Result<(), ReplyError> {
        const REFUSED: &str = "BUSY the write is refused, the database has not taken those before it:";
        if let Some(hazard) = &*self.hazard.lock() {
            return Err(ReplyError::new(format!("IOERR the write is refused: {hazard}")));
        }
        let config = &self.backend.config;
        if self.is_overdue.load(Relaxed) {
            let most = config.journal_max_age.0;
            return Err(ReplyError::new(format!("{REFUSED} one has waited for over {most:?}")));
        }
        let (bytes, most) = (self.bytes.load(Relaxed).max(0) as u64, config.journal_max_size.0);
        if bytes >= most {
            return Err(ReplyError::new(format!("{REFUSED} the journal has reached its {most} bytes")));
        }
        Ok(())
    }

    /// Where what upstream says of the journal's size is kept.
    pub fn size(&self) -> &Arc<AtomicI64> {
        &self.bytes
    }

    /// A script said how many bytes the journal has, or 0 if it wrote none.
    pub fn note_size(&self, bytes: Option<i64>) {
        if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
            self.bytes.store(bytes, Relaxed);
        }
    }

    /// A write of this host's to a key is about to be sent.
    pub fn changed(&self, key: &[u8]) {
        self.flights.void(key);
    }

    /// Entries of all hosts that wait.
    pub fn depth(&self) -> usize {
        self.seen.lock().entries as usize
    }

    /// How it is.
    pub fn status(&self) -> Status {
        let seen = *self.seen.lock();
        let mut figures = self.backend.figures(seen.entries, seen.age.as_millis() as u64);
        let bytes = self.bytes.load(Relaxed).max(0) as u64;
        figures.extend([
            Figure::gauge("journal_bytes", "Bytes of the values in the journal upstream.", bytes),
            Figure::gauge("journal_entries", "Its entries.", seen.entries),
            Figure::gauge(
                "journal_taken",
                "Those of them that this host is to bring to the database.",
                self.taken.lock().by_sequence.len() as u64,
            ),
        ]);
        let unreadable = self.taken.lock().unreadable.clone();
        let trouble = if seen.is_away {
            Some("upstream, which has it, is away".to_owned())
        } else {
            let unreadable =
                unreadable.map(|key| format!("no rule of this host writes {key}, which is in it"));
            self.hazard.lock().clone().or(unreadable)
        };
        Status { is_away: self.backend.is_away(), trouble, figures }
    }

    /// Has all hosts flush what was accepted until now; says whether it was done in time.
    ///
    /// # Errors
    /// Upstream is away.
    pub async fn flush(&self, timeout: Option<Duration>) -> Result<bool, Failure> {
        let flushed = self.flushed();
        match timeout {
            Some(timeout) => tokio::time::timeout(timeout, flushed).await.unwrap_or(Ok(false)),
            None => flushed.await,
        }
    }

    async fn flushed(&self) -> Result<bool, Failure> {
        let pool = self.upstream.pool(None).map_err(|error| Failure::Transient(error.to_string()))?;
        let dedicated = pool.take(false, DATABASE).await;
        let mut dedicated = dedicated.map_err(|error| Failure::Transient(error.to_string()))?;
        let stream = self.names.stream.as_bytes();
        let last = ask(&mut dedicated, &[&[b"XREVRANGE", stream, b"+", b"-", b"COUNT", b"1"]]).await?;
        let Some(last) = first_place(&last[0]) else {
            pool.give_back(dedicated);
            return Ok(true);
        };
        loop {
            self.backend.hurry();
            // It ends by itself: who waits for a flush may die.
            let hurry: &[&[u8]] = &[b"SET", self.names.hurry.as_bytes(), b"1", b"PX", b"1000"];
            let first: &[&[u8]] = &[b"XRANGE", stream, b"-", b"+", b"COUNT", b"1"];
            let replies = ask(&mut dedicated, &[hurry, first]).await?;
            if first_place(&replies[1]).is_none_or(|first| first > last) {
                pool.give_back(dedicated);
                return Ok(true);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Before the server ends: flushes what was accepted, and leaves nothing to others if the time allows.
    pub async fn finish(&'static self) {
        if let Err(error) = self.flushed().await {
            tracing::warn!(%error, "what was accepted last is left to the other hosts");
        }
        self.backend.stop_flusher();
    }

    /// Takes an entry over into the backlog, unless it is there.
    fn accept(&self, id: Box<[u8]>, entry: Option<Entry>) {
        let mut taken = self.taken.lock();
        if taken.ids.contains(&id) {
            return;
        }
        let (changes, size, version) = match entry {
            Some(entry) => match entry.changes(&self.backend.rules, &self.settings) {
                Ok(changes) => (changes, entry.size(), entry.version),
                Err(key) => {
                    if taken.unreadable.is_none() {
                        tracing::error!(
                            key,
                            "no rule of this host writes a key that the journal upstream has: its entry waits"
                        );
                        taken.unreadable = Some(key);
                    }
                    return;
                }
            },
            // Deleted while it was pending.
            None => Default::default(),
        };
        let keys = changes.iter().map(|change| change.key.clone()).collect();
        let ending = Ending { id: id.clone(), size, version, keys };
        taken.ids.insert(id);
        if changes.is_empty() {
            drop(taken);
            self.finished.lock().entries.push(ending);
            self.wake.notify_one();
            return;
        }
        let sequence = taken.next;
        taken.next += 1;
        taken.bytes += size;
        taken.by_sequence.insert(sequence, ending);
        // Under the lock: the backlog's order is that of the sequences.
        self.backend.push(sequence, changes);
    }
}

impl Journaled for Shared {
    fn settled(&self, _: &[u8]) {}

    fn complete(&self, sequences: Vec<u64>) {
        let mut taken = self.taken.lock();
        let ended: Vec<Ending> =
            sequences.iter().filter_map(|sequence| taken.by_sequence.remove(sequence)).collect();
        taken.bytes -= ended.iter().map(|ending| ending.size).sum::<usize>();
        drop(taken);
        self.finished.lock().entries.extend(ended);
        self.wake.notify_one();
    }
}

/// Asks all of these; no reply may be an error.
async fn ask(dedicated: &mut Dedicated, requests: &[&[&[u8]]]) -> Result<Vec<Box<[u8]>>, Failure> {
    let mut bytes = Vec::new();
    for words in requests {
        encode(words.iter().copied(), &mut bytes);
    }
    let asked = tokio::time::timeout(ANSWER, dedicated.call(&bytes, requests.len())).await;
    let replies = match asked {
        Ok(replies) => replies.map_err(|error| Failure::Transient(format!("upstream: {error}")))?,
        Err(_) => return Err(Failure::Transient("upstream does not answer".to_owned())),
    };
    match replies.iter().find(|reply| is_error(reply)) {
        Some(error) => {
            let said = String::from_utf8_lossy(&error[1..]).trim_end().to_owned();
            Err(Failure::Transient(format!("upstream: {said}")))
        }
        None => Ok(replies),
    }
}

/// The place of the first entry of a page.
fn first_place(page: &[u8]) -> Option<Place> {
    let entries = elements(page)?;
    place_of(text(elements(entries.first()?)?.first()?)?)
}

fn place_of(id: &[u8]) -> Option<Place> {
    let dash = memchr::memchr(b'-', id)?;
    let number = |text| parse_i64(text).and_then(|number| u64::try_from(number).ok());
    Some((number(&id[..dash])?, number(&id[dash + 1..])?))
}
