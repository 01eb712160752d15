//! A connection that all clients share: one queue of requests, one reader that takes replies in their order.
//!
//! Requests are appended to a buffer by whatever thread they come from, and the writer sends all that is there at once.
//! The reader handles replies and invalidations in the order of the wire, which is what the near cache's proof rests on:
//! nothing that the connection carries takes another way. A connection that is lost is made anew, and what it owed fails:
//! what was sent is not sent again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::Notify;

use super::catalogue::Catalogue;
use super::connect::{Backoff, ConnectError, Connection, encode};
use super::expected::{Expected, Settling};
use super::frame::{self, Scanner};
use super::gather::Failure;
use super::near::Near;
use super::socket::{Dialer, Socket};
use super::statistics::Statistics;
use crate::clock;
use crate::config::upstream::{OnFailure, UpstreamConfig};

/// Requests may wait for the writer up to so many bytes.
const MAX_BUFFERED: usize = 256 << 20;
/// Buffers above this are given back.
const KEEP: usize = 1 << 20;

/// A shared connection.
pub struct Link {
    /// Whether invalidations come by it, and fills with them.
    is_tracked: bool,
    config: Arc<UpstreamConfig>,
    dialer: Dialer,
    near: Arc<Near>,
    statistics: Arc<Statistics>,
    state: Mutex<State>,
    wake: Notify,
    /// What the reader has taken over of `State::expected`: most replies then cost no lock that others want.
    reading: Mutex<VecDeque<Sent>>,
    /// When something was last received, in steady milliseconds.
    heard_ms: AtomicU64,
    /// What upstream says of itself.
    about: Mutex<About>,
    has_pinged: AtomicBool,
    /// Notified when the connection is to end for good.
    retired: Notify,
    /// Absent if there is no other tracked connection.
    among: Option<(Arc<Freshness>, Arc<AtomicU64>)>,
}

/// When each tracked connection that is up was last heard: with several, only what all of them stand for is fresh.
#[derive(Debug, Default)]
pub struct Freshness(parking_lot::RwLock<Vec<Arc<AtomicU64>>>);

/// In [`Freshness`], a connection that is not there: nothing that is kept came by it.
const NOT_UP: u64 = u64::MAX;

impl Freshness {
    fn heard(&self, near: &Near) {
        let heard = self.0.read().iter().map(|heard| heard.load(Ordering::Relaxed)).min();
        if let Some(heard) = heard.filter(|heard| *heard != NOT_UP) {
            near.heard(heard);
        }
    }

    fn forget(&self, gone: &Arc<AtomicU64>) {
        self.0.write().retain(|own| !Arc::ptr_eq(own, gone));
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?}", self.config.endpoint)
    }
}

/// What upstream says of itself.
#[derive(Debug, Clone)]
pub struct About {
    /// Its databases.
    pub databases: usize,
    /// Its commands.
    pub catalogue: Arc<Catalogue>,
    /// Why it cannot be reached, if it cannot.
    pub fault: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Requests are kept until there is a connection.
    Connecting,
    /// Requests are sent.
    Up,
    /// Requests fail at once: the last attempt failed, and only the next one will tell more.
    Down,
}

struct State {
    phase: Phase,
    buffer: Vec<u8>,
    /// How many of the last expected replies are to requests that the writer has not taken.
    unsent: usize,
    expected: VecDeque<Sent>,
    held: Vec<Held>,
    /// The database that the connection will be in behind what is in the buffer.
    db: usize,
}

struct Sent {
    what: Expected,
    at_ms: u64,
}

struct Held {
    db: usize,
    bytes: Vec<u8>,
    expected: Vec<Expected>,
    at_ms: u64,
}

impl Link {
    /// A connection that is not made yet.
    pub fn new(
        is_tracked: bool,
        config: Arc<UpstreamConfig>,
        dialer: Dialer,
        near: Arc<Near>,
        statistics: Arc<Statistics>,
    ) -> Self {
        let state = State {
            phase: Phase::Connecting,
            buffer: Vec::new(),
            unsent: 0,
            expected: VecDeque::new(),
            held: Vec::new(),
            db: 0,
        };
        let about = About { databases: 16, catalogue: Arc::default(), fault: None };
        Self {
            is_tracked,
            config,
            dialer,
            near,
            statistics,
            state: Mutex::new(state),
            wake: Notify::new(),
            reading: Mutex::new(VecDeque::new()),
            heard_ms: AtomicU64::new(0),
            about: Mutex::new(about),
            has_pinged: AtomicBool::new(false),
            retired: Notify::new(),
            among: None,
        }
    }

    /// One of several: what is kept is fresh only if all that are up were heard.
    pub fn among(mut self, freshness: &Arc<Freshness>) -> Self {
        if self.is_tracked {
            let own = Arc::new(AtomicU64::new(NOT_UP));
            freshness.0.write().push(own.clone());
            self.among = Some((freshness.clone(), own));
        }
        self
    }

    /// What upstream says of itself.
    pub fn about(&self) -> About {
        self.about.lock().clone()
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.state.lock().phase == Phase::Up
    }

    /// Appends requests to a database and what is to be done with their replies. Nothing is sent before [`Link::flush`].
    pub fn send(&self, db: usize, bytes: &[u8], expected: impl IntoIterator<Item = Expected>, now_ms: u64) {
        let mut state = self.state.lock();
        let is_full = state.buffer.len() + bytes.len() > MAX_BUFFERED && !state.buffer.is_empty();
        match state.phase {
            Phase::Up if !is_full => state.append(db, bytes, expected, now_ms),
            Phase::Connecting if !is_full => {
                let held = Held {
                    db,
                    bytes: bytes.to_vec(),
                    expected: expected.into_iter().collect(),
                    at_ms: now_ms,
                };
                state.held.push(held);
            }
            _ => {
                drop(state);
                let settling = self.settling();
                expected.into_iter().for_each(|what| settling.failure(what, Failure::Unavailable));
            }
        }
    }

    /// Answers requests that nobody can send.
    pub fn refuse(&self, expected: Vec<Expected>) {
        let settling = self.settling();
        expected.into_iter().for_each(|what| settling.failure(what, Failure::Unavailable));
    }

    /// Has the writer send what is there.
    pub fn flush(&self) {
        self.wake.notify_one();
    }

    fn settling(&self) -> Settling<'_> {
        Settling { near: &self.near, config: &self.config, statistics: &self.statistics, ttls: Vec::new() }
    }

    /// Ends the connection for good: what it owes fails as when it is lost, and what comes later as when it is down.
    pub fn retire(&self) {
        self.retired.notify_one();
    }

    /// Connects, serves, and connects again, until the connection is retired.
    pub async fn run(self: Arc<Self>) {
        tokio::select! {
            biased;
            () = self.retired.notified() => {}
            () = self.keep_up() => {}
        }
        let fault = "the cluster does not name this node any more";
        if self.is_up() {
            self.lost(fault);
        }
        self.give_up(fault);
        if let Some((freshness, own)) = &self.among {
            // Behind `lost`, which has dropped what came by it.
            freshness.forget(own);
        }
    }

    async fn keep_up(&self) {
        let mut backoff = Backoff::default();
        loop {
            let began = clock::monotonic();
            match self.connect().await {
                Ok(connection) => {
                    let fault = self.serve(connection).await;
                    tracing::warn!(
                        tracked = self.is_tracked,
                        "the connection to upstream ({self:?}) is lost: {fault}"
                    );
                    self.lost(&fault);
                    if clock::monotonic() - began > self.config.heartbeat {
                        backoff.reset();
                        continue;
                    }
                }
                Err(error) => {
                    tracing::warn!(
                        tracked = self.is_tracked,
                        "upstream ({self:?}) cannot be reached: {error}"
                    );
                    self.give_up(&error.to_string());
                }
            }
            tokio::time::sleep(backoff.pause()).await;
        }
    }

    async fn connect(&self) -> Result<Connection, ConnectError> {
        let mut connection =
            Connection::open(&self.config, &self.dialer, self.is_tracked, &self.statistics).await?;
        if !self.is_tracked {
            return Ok(connection);
        }
        let limit = self.config.timeout;
        let prepare = async {
            if self.config.tracking {
                let tracking = connection.ask(&["CLIENT", "TRACKING", "ON"]).await?;
                if frame::is_error(&tracking) {
                    let said = String::from_utf8_lossy(&tracking).trim().to_owned();
                    return Err(ConnectError::Refused(format!(
                        "upstream does not tell of changes (tracking = \"off\" goes without): {said}"
                    )));
                }
            }
            let databases = connection.ask(&["CONFIG", "GET", "databases"]).await?;
            let databases = pairs(&databases);
            // Where nobody may ask, 16 is what most have.
            let databases = databases.and_then(|text| text.parse().ok()).unwrap_or(16);
            let catalogue = Arc::new(Catalogue::read(&connection.ask(&["COMMAND"]).await?));
            Ok(About { databases, catalogue, fault: None })
        };
        let about =
            tokio::time::timeout(limit, prepare).await.map_err(|_| ConnectError::TimedOut(limit))??;
        *self.about.lock() = about;
        Ok(connection)
    }

    async fn serve(&self, connection: Connection) -> String {
        let term = connection.term;
        let (stream, input, _counted) = connection.into_parts();
        let (reader, writer) = tokio::io::split(stream);
        if self.is_tracked {
            // What was kept before was not watched over.
            self.near.drop_all();
        }
        if let Some((_, own)) = &self.among {
            own.store(now_ms(), Ordering::Relaxed);
        }
        self.heard_ms.store(now_ms(), Ordering::Relaxed);
        self.has_pinged.store(false, Ordering::Relaxed);
        self.about.lock().fault = None;
        self.begin();
        tokio::select! {
            biased;
            () = self.dialer.master.end_of(term) => "another server is the master".to_owned(),
            fault = self.read(reader, input, term) => fault,
            fault = self.write(writer) => fault,
            fault = self.watch() => fault,
        }
    }

    /// The connection is there: what was held goes out, unless nobody waits for it any more.
    fn begin(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Up;
        state.db = 0;
        let now_ms = now_ms();
        let timeout_ms = self.config.timeout.as_millis() as u64;
        let mut late = Vec::new();
        for held in std::mem::take(&mut state.held) {
            if now_ms.saturating_sub(held.at_ms) >= timeout_ms {
                late.extend(held.expected);
            } else {
                state.append(held.db, &held.bytes, held.expected, held.at_ms);
            }
        }
        drop(state);
        let settling = self.settling();
        late.into_iter().for_each(|what| settling.failure(what, Failure::Unavailable));
        self.flush();
    }

    /// The connection is lost: what it owed fails. Requests that come now wait for one attempt to connect.
    fn lost(&self, fault: &str) {
        if self.is_tracked {
            match self.config.on_failure {
                OnFailure::Error => self.near.drop_all(),
                OnFailure::Stale => self.near.tell_flushed(),
            }
        }
        if let Some((_, own)) = &self.among {
            own.store(NOT_UP, Ordering::Relaxed);
        }
        let (owed, unsent) = {
            let mut owed = std::mem::take(&mut *self.reading.lock());
            let mut state = self.state.lock();
            state.phase = Phase::Connecting;
            state.buffer = Vec::new();
            owed.append(&mut state.expected);
            (owed, std::mem::take(&mut state.unsent))
        };
        self.about.lock().fault = Some(fault.to_owned());
        let settling = self.settling();
        let sent = owed.len() - unsent;
        for (index, owed) in owed.into_iter().enumerate() {
            settling.failure(owed.what, if index < sent { Failure::Lost } else { Failure::Unavailable });
        }
    }

    /// No connection could be made: requests fail at once until one can.
    fn give_up(&self, fault: &str) {
        let held = {
            let mut state = self.state.lock();
            state.phase = Phase::Down;
            std::mem::take(&mut state.held)
        };
        self.about.lock().fault = Some(fault.to_owned());
        let settling = self.settling();
        for what in held.into_iter().flat_map(|held| held.expected) {
            settling.failure(what, Failure::Unavailable);
        }
    }

    async fn write(&self, mut writer: WriteHalf<Socket>) -> String {
        let mut sending = Vec::new();
        loop {
            {
                let mut state = self.state.lock();
                std::mem::swap(&mut sending, &mut state.buffer);
                state.unsent = 0;
            }
            if sending.is_empty() {
                self.wake.notified().await;
                continue;
            }
            let sent = match writer.write_all(&sending).await {
                Ok(()) => writer.flush().await,
                failed => failed,
            };
            if let Err(error) = sent {
                return error.to_string();
            }
            sending.clear();
            if sending.capacity() > KEEP {
                sending = Vec::new();
            }
        }
    }

    async fn read(&self, mut reader: ReadHalf<Socket>, mut input: Vec<u8>, term: u64) -> String {
        let (mut scanner, mut settling) = (Scanner::default(), self.settling());
        loop {
            let mut start = 0;
            loop {
                match scanner.next(&input[start..]) {
                    Ok(Some(length)) => {
                        let frame = &input[start..start + length];
                        if let Err(fault) = self.frame(frame, &mut settling) {
                            return fault.to_owned();
                        }
                        start += length;
                    }
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                }
            }
            input.drain(..start);
            if input.is_empty() && input.capacity() > KEEP {
                input = Vec::new();
            }
            let wanted = scanner.wanted().saturating_sub(input.len());
            // No more than doubles what has come, whatever a length claims.
            input.reserve(wanted.min(input.len()).max(64 * 1024));
            match reader.read_buf(&mut input).await {
                Ok(0) => return "upstream closed it".to_owned(),
                // What it says is not news any more.
                Ok(_) if self.dialer.master.term() != term => {
                    return "another server is the master".to_owned();
                }
                Ok(_) => self.heard_ms.store(now_ms(), Ordering::Relaxed),
                Err(error) => return error.to_string(),
            }
        }
    }

    #[inline]
    fn frame(&self, frame: &[u8], settling: &mut Settling<'_>) -> Result<(), &'static str> {
        if frame[0] == b'>' {
            self.pushed(frame);
            return Ok(());
        }
        let sent = self.next_expected().ok_or("upstream sent a reply that nobody waits for")?;
        if matches!(sent.what, Expected::Pong) {
            self.has_pinged.store(false, Ordering::Relaxed);
        }
        settling.reply(sent.what, frame, sent.at_ms)?;
        match &self.among {
            None if self.is_tracked => self.near.heard(sent.at_ms),
            None => {}
            Some((freshness, own)) => {
                own.fetch_max(sent.at_ms, Ordering::Relaxed);
                freshness.heard(&self.near);
            }
        }
        Ok(())
    }

    fn next_expected(&self) -> Option<Sent> {
        let mut reading = self.reading.lock();
        if reading.is_empty() {
            std::mem::swap(&mut *reading, &mut self.state.lock().expected);
        }
        reading.pop_front()
    }

    fn pushed(&self, frame: &[u8]) {
        match frame::invalidated(frame) {
            Some(Some(keys)) => keys.into_iter().for_each(|key| self.near.invalidate(key)),
            Some(None) => self.near.drop_all(),
            None => {}
        }
    }

    /// Sends heartbeats; ends when upstream has been silent for too long.
    async fn watch(&self) -> String {
        let limit = self.config.timeout.max(self.config.heartbeat);
        let mut ticks =
            tokio::time::interval((self.config.heartbeat / 4).max(std::time::Duration::from_millis(5)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pinged_ms = now_ms();
        loop {
            ticks.tick().await;
            let now_ms = now_ms();
            if !self.has_pinged.swap(true, Ordering::Relaxed) {
                pinged_ms = now_ms;
                let mut ping = Vec::new();
                encode([&b"PING"[..]].into_iter(), &mut ping);
                let db = self.state.lock().db;
                self.send(db, &ping, [Expected::Pong], now_ms);
                self.flush();
                continue;
            }
            let heard_ms = self.heard_ms.load(Ordering::Relaxed).max(pinged_ms);
            if now_ms.saturating_sub(heard_ms) >= limit.as_millis() as u64 {
                return format!("upstream was silent for {limit:?}");
            }
        }
    }
}

impl State {
    fn append(&mut self, db: usize, bytes: &[u8], expected: impl IntoIterator<Item = Expected>, at_ms: u64) {
        let before = self.expected.len();
        if db != self.db {
            encode([&b"SELECT"[..], itoa::Buffer::new().format(db).as_bytes()].into_iter(), &mut self.buffer);
            self.expected.push_back(Sent { what: Expected::Selected, at_ms });
            self.db = db;
        }
        self.buffer.extend_from_slice(bytes);
        self.expected.extend(expected.into_iter().map(|what| Sent { what, at_ms }));
        self.unsent += self.expected.len() - before;
    }
}

/// The value of the only pair of a map.
fn pairs(reply: &[u8]) -> Option<String> {
    let at = memchr::memmem::rfind(reply, b"\r\n$")?;
    frame::text(&reply[at + 2..]).map(|text| String::from_utf8_lossy(text).into_owned())
}

/// The steady clock now.
pub fn now_ms() -> u64 {
    clock::steady_ms(clock::ticks())
}
