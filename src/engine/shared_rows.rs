//! Requests on rows of a database that all hosts have behind their upstream: what the database is to learn is written there
//! with the value itself, and what must be loaded is loaded before the request counts.
//!
//! A write goes as a script: it looks whether the rows that the command depends on are at hand, runs it, and writes down
//! what it leaves. A read goes in a transaction that tells which keys were there. If a row is missing, nothing was done or is
//! believed: the row is brought into the cache, and the same request is sent again. So such a request is the only one of its
//! client that is under way; a write that depends on nothing goes with the client's other requests.

use std::borrow::Cow;
use std::sync::Arc;

use super::batch::{Awaited, Place, fail};
use super::execute::Flow;
use super::forward::is_silenced;
use super::pending::Pending;
use super::row_blocks::{Block, Commands};
use super::rows::{depends, target};
use super::touch::{Routed, Touch, is_plain};
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::keys::{self, access};
use crate::commands::routing::Route;
use crate::commands::spec::{Run, flag};
use crate::commands::table::Command;
use crate::protocol::{Args, OwnedArgs, Protocol, Reply, ReplyError};
use crate::tiers::database::install::Brought;
use crate::tiers::database::shared::{GUARD, Shared, WRITE};
use crate::tiers::database::store::Failure as LoadFailure;
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{
    self, Expected, Failure, Form, Gather, Miss, Outcome, Request, Upstream, Watched, Writing, elements,
    encode, integer, is_error, now_ms,
};
use crate::types::hasher::hash_bytes;
use crate::types::number::parse_i64;

/// What was loaded may be gone before the request is there again; nobody waits for that for ever.
pub(super) const MOST_TRIES: usize = 16;
/// A script takes no command of more arguments.
const MOST_ARGUMENTS: usize = 4000;

/// A row that a request touches.
pub(super) struct Row {
    pub key: Box<[u8]>,
    pub rule: usize,
    /// Whether what the request does depends on what the key holds.
    pub depends: bool,
    /// What the database learns if the key is absent afterwards.
    pub absence: Absence,
}

/// What it means that a key is absent after a request. A key that the request depends on is at hand before it, or known to be
/// absent, so that it can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Absence {
    /// The database learns nothing of what the request does to the key.
    Unwritten,
    /// Nothing: the request puts a value there, or does nothing.
    Nothing,
    /// That it was deleted, if it was there before.
    Deleted,
}

impl Absence {
    /// As the scripts know it.
    fn mark(self) -> u8 {
        match self {
            Self::Unwritten => b'-',
            Self::Nothing => b'p',
            Self::Deleted => b'm',
        }
    }
}

/// The rows that a request touches, each once.
pub(super) fn rows_of(shared: &Shared, command: Option<&Command>, touch: &Touch, args: Args<'_>) -> Vec<Row> {
    let (touched, writes) = match touch {
        Touch::Writes(keys) => (keys, true),
        Touch::Reads(keys) => (keys, false),
        Touch::Nothing | Touch::Everything => return Vec::new(),
    };
    let rules = &shared.backend.rules;
    if !touched.iter().any(|(_, key)| rules.find(key).is_some()) {
        return Vec::new();
    }
    let mut rows = Vec::new();
    match command {
        None => touched.iter().for_each(|(_, key)| add(shared, &mut rows, key, true, writes)),
        Some(command) => {
            let found = keys::extract(command.spec, args).unwrap_or_default();
            for (index, flags) in found.iter().filter(|(_, flags)| flags & access::NOT_KEY == 0) {
                let needs = depends(command, args, *flags);
                add(shared, &mut rows, args.at(*index), needs, writes && flags & access::RO == 0);
            }
        }
    }
    rows
}

fn add(shared: &Shared, rows: &mut Vec<Row>, key: &[u8], depends: bool, writes: bool) {
    let Some(rule) = shared.backend.rules.find(key) else { return };
    let is_written = writes && shared.backend.rules.get(rule).is_some_and(|rule| rule.writes());
    let absence = match (is_written, depends) {
        (false, _) => Absence::Unwritten,
        (true, false) => Absence::Nothing,
        (true, true) => Absence::Deleted,
    };
    merge(rows, Row { key: key.into(), rule, depends, absence });
}

/// Adds a row to others, of which it may be one.
pub(super) fn merge(rows: &mut Vec<Row>, row: Row) {
    match rows.iter_mut().find(|other| other.key == row.key) {
        None => rows.push(row),
        Some(other) => {
            other.depends |= row.depends;
            other.absence = other.absence.max(row.absence);
        }
    }
}

/// Whether any of the rows is written.
pub(super) fn is_written(rows: &[Row]) -> bool {
    rows.iter().any(|row| row.absence != Absence::Unwritten)
}

/// Writes a call of one of the journal's scripts.
pub(super) fn encode_script(shared: &Shared, script: &str, rows: &[Row], rest: &[&[u8]], to: &mut Vec<u8>) {
    let names = shared.names.journal();
    let count = (names.len() + rows.len()).to_string();
    let absence: Vec<u8> = rows.iter().map(|row| row.absence.mark()).collect();
    let guard: Vec<u8> = rows.iter().map(|row| if row.depends { b'g' } else { b'-' }).collect();
    let mut words: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), count.as_bytes()];
    words.extend(names.iter().map(|name| name.as_bytes()));
    words.extend(rows.iter().map(|row| &*row.key));
    words.extend([&*absence, &guard, shared.names.lease.as_bytes()]);
    words.extend(rest);
    encode(words.into_iter(), to);
}

/// What one of the journal's scripts says.
pub(super) enum Said<'r> {
    /// It did what it was to do; the command's reply.
    Done(Cow<'r, [u8]>),
    /// Nothing was done, for want of these rows.
    Missing(Vec<usize>),
    /// It makes no sense.
    Nonsense,
}

/// Reads what one of the journal's scripts says, and keeps what it says of the journal's size.
pub(super) fn said<'r>(shared: &Shared, frame: &'r [u8]) -> Said<'r> {
    let parts = elements(frame).unwrap_or_default();
    match (parts.first().and_then(|part| integer(part)), &parts[..]) {
        (Some(0), [_, bytes, reply @ ..]) => {
            shared.note_size(integer(bytes));
            Said::Done(upstream::scripted(reply))
        }
        (Some(1), [_, places @ ..]) => {
            let place = |part: &&[u8]| integer(part).and_then(|place| usize::try_from(place).ok());
            Said::Missing(places.iter().filter_map(place).collect())
        }
        _ => Said::Nonsense,
    }
}

/// An error that a script of ours met, in the words of Redis, which do not speak of the script.
pub(super) fn plain_error(error: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(error, b" script: ").unwrap_or(error.len());
    [error[..end].trim_ascii_end(), b"\r\n"].concat()
}

/// What a client is told whose row cannot be loaded.
pub(super) fn cannot_load(error: &LoadFailure) -> Vec<u8> {
    encoded(&ReplyError::new(format!("DBERR cannot load the row: {error}")))
}

pub(super) fn encoded(error: &ReplyError) -> Vec<u8> {
    let mut out = Vec::new();
    Reply::new(&mut out, Protocol::Resp2).error(error);
    out
}

/// That rows came and went faster than the request.
pub(super) fn overtaken() -> Vec<u8> {
    b"-TRYAGAIN what the command needs was evicted before it could run\r\n".to_vec()
}

/// A request that waits for rows.
struct Call {
    shared: &'static Shared,
    upstream: Arc<Upstream>,
    rows: Vec<Row>,
    args: OwnedArgs,
    form: Form,
    is_plain: bool,
    /// All keys that the request may change.
    writes: Vec<Box<[u8]>>,
}

impl Worker {
    /// Whether a key is a row of a database that all hosts have.
    #[inline]
    pub(super) fn is_shared_row(&self, db: usize, key: &[u8]) -> bool {
        let Some(shared) = self.instance.shared_database() else { return false };
        db == DATABASE && shared.backend.rules.find(key).is_some()
    }

    /// Whether a request on rows may go with others: `None` if it touches none.
    pub(super) fn joins_with_rows(
        &self,
        session: &Session,
        routed: &Routed<'_>,
        args: Args<'_>,
    ) -> Option<bool> {
        let shared = self.instance.shared_database()?;
        if takes_journal(routed.command, session.db, args) {
            return Some(false);
        }
        let rows = rows_of(shared, routed.command, &routed.touch, args);
        if session.db != DATABASE || rows.is_empty() {
            return None;
        }
        Some(is_blind(&rows) && !needs_block(routed.command, args))
    }

    /// A request on rows that all hosts have; `None` if it touches none.
    pub(super) fn on_rows(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        routed: &Routed<'_>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let shared = self.instance.shared_database()?;
        if takes_journal(routed.command, session.db, args) {
            return Some(self.flush_all(shared, upstream, session, args, out));
        }
        let rows = rows_of(shared, routed.command, &routed.touch, args);
        if rows.is_empty() {
            return None;
        }
        let elsewhere =
            routed.command.and_then(|command| target(command, args)).filter(|db| *db != session.db);
        if elsewhere.is_some() && (session.db == DATABASE || elsewhere == Some(DATABASE)) {
            let text = "ERR rows of the database are not moved or copied from or to another database";
            return Some(self.refused(session, args, &ReplyError::fixed(text), out));
        }
        if session.db != DATABASE {
            return None;
        }
        if routed.route == Route::Dedicated {
            let text = "ERR commands that block are not served for rows of a database behind the upstream";
            return Some(self.refused(session, args, &ReplyError::fixed(text), out));
        }
        if is_written(&rows)
            && let Err(error) = shared.admit()
        {
            return Some(self.refused(session, args, &error, out));
        }
        rows.iter().filter(|_| is_written(&rows)).for_each(|row| shared.changed(&row.key));
        let begin = self.ticks;
        let flow = self.ask_rows((shared, upstream), session, routed, rows, args, out);
        if let Some(command) = routed.command {
            self.measure(&session.client, command, args, begin);
        }
        Some(flow)
    }

    fn ask_rows(
        &mut self,
        (shared, upstream): (&'static Shared, &Arc<Upstream>),
        session: &mut Session,
        routed: &Routed<'_>,
        rows: Vec<Row>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        upstream::count(&upstream.statistics.requests);
        let is_plain = is_plain(session, routed);
        let form = match routed.rewrite {
            Some(rewrite) if session.protocol == Protocol::Resp2 && !is_plain => Form::Resp2(rewrite),
            _ => Form::Raw,
        };
        let is_write = matches!(routed.touch, Touch::Writes(_));
        let writes: Vec<Box<[u8]>> = match &routed.touch {
            Touch::Writes(keys) => keys.iter().map(|(_, key)| key.clone()).collect(),
            Touch::Reads(keys) if is_plain => keys.iter().map(|(_, key)| key.clone()).collect(),
            _ => Vec::new(),
        };
        if is_write && needs_block(routed.command, args) {
            let mut request = Vec::new();
            encode(args.iter(), &mut request);
            let block = Block {
                shared,
                upstream: upstream.clone(),
                rows,
                commands: Commands::One(request),
                writes,
                writes_all: false,
                resp3: session.protocol == Protocol::Resp3,
                is_watching: false,
            };
            return block.flow(Watched::default(), None, is_silenced(session));
        }
        if is_write && is_blind(&rows) {
            let is_silent = is_silenced(session);
            let batch = self.batch(is_plain);
            let (ticket, place) = batch.gather.ticket();
            let what = Awaited::One { place, is_write };
            batch.places.push(Place { at: out.len(), what, is_silent, reads: None });
            let form = Form::Journaled(shared.size().clone(), Box::new(form));
            let expected = [Expected::Answer(ticket, form, writing(upstream, &writes))];
            batch.add(upstream, session.db, expected, |to| encode_write(shared, &rows, is_plain, args, to));
            return Flow::Next;
        }
        let kept = kept_read(session, routed, is_plain, args).filter(|_| session.watched_upstream.is_none());
        if let Some(request) = &kept
            && self.hit(upstream, session, request, out)
        {
            return Flow::Next;
        }
        let (reads, is_silent) = (self.reads_touched(session, &routed.touch), is_silenced(session));
        let kept = kept.map(|request| Kept {
            command: request.command,
            key_at: request.key_at,
            resp3: request.resp3,
        });
        let call =
            Call { shared, upstream: upstream.clone(), rows, args: args.to_owned(), form, is_plain, writes };
        let mut pending = Pending::reply(Box::pin(async move {
            let reply = if is_write { call.write().await } else { call.read(kept).await };
            if let Some(reads) = reads {
                reads.note();
            }
            reply
        }));
        if is_silent {
            pending.silence();
        }
        Flow::Pending(pending)
    }

    /// The rows among keys that a client is about to watch.
    pub(super) fn rows_to_watch<'k>(
        &self,
        session: &Session,
        keys: impl Iterator<Item = &'k [u8]>,
    ) -> Option<Vec<Row>> {
        let shared = self.instance.shared_database().filter(|_| session.db == DATABASE)?;
        let mut rows = Vec::new();
        keys.for_each(|key| add(shared, &mut rows, key, true, false));
        (!rows.is_empty()).then_some(rows)
    }

    /// Watches keys once their rows are in the cache: that they come in is no change.
    pub(super) fn watch_rows(
        &self,
        upstream: &Arc<Upstream>,
        (watched, call): (Watched, upstream::Call),
        rows: Vec<Row>,
        is_silent: bool,
    ) -> Flow {
        let (upstream, shared) = (upstream.clone(), self.instance.shared_database());
        let mut pending = Pending::reply(Box::pin(async move {
            if let Some(shared) = shared
                && let Err(error) = bring(shared, &upstream, &rows).await
            {
                return error;
            }
            watched.call(upstream, call).await
        }));
        if is_silent {
            pending.silence();
        }
        Flow::Pending(pending)
    }

    /// What empties the database that the journal is in: once the journal is empty itself.
    fn flush_all(
        &mut self,
        shared: &'static Shared,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        if args.is(0, "swapdb") {
            let text = "ERR SWAPDB would take the journal out of database 0";
            return self.refused(session, args, &ReplyError::fixed(text), out);
        }
        const EMPTY: &str =
            "if redis.call('XLEN',KEYS[1])>0 then return {1} end return {0,0,redis.pcall(unpack(ARGV))}";
        let mut request = Vec::new();
        let mut words: Vec<&[u8]> = vec![b"EVAL", EMPTY.as_bytes(), b"1", shared.names.stream.as_bytes()];
        words.extend(args.iter());
        encode(words.into_iter(), &mut request);
        let (upstream, limit) = (upstream.clone(), shared.backend.config.statement_timeout.0);
        let mut pending = Pending::reply(Box::pin(async move {
            for _ in 0..MOST_TRIES {
                match shared.flush(Some(limit)).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => return encoded(&ReplyError::new(format!("UPSTREAMDOWN {error}"))),
                }
                let outcome = send(&upstream, false, &request, || upstream.writing_all()).await;
                match outcome {
                    Err(failure) => return failed(&upstream, failure, true),
                    Ok(frame) if is_error(&frame) => return plain_error(&frame),
                    Ok(frame) => {
                        if let Said::Done(reply) = said(shared, &frame) {
                            return reply.into_owned();
                        }
                    }
                }
            }
            encoded(&ReplyError::fixed("BUSY the database has not taken what was accepted before in time"))
        }));
        if is_silenced(session) {
            pending.silence();
        }
        Flow::Pending(pending)
    }
}

/// Whether a request would take the journal away with the keys of database 0.
pub(super) fn takes_journal(command: Option<&Command>, db: usize, args: Args<'_>) -> bool {
    let is_first = |index| args.get(index).and_then(parse_i64) == Some(DATABASE as i64);
    match command.map_or("", |command| command.spec.name) {
        "flushall" => true,
        "flushdb" => db == DATABASE,
        "swapdb" => is_first(1) || is_first(2),
        _ => false,
    }
}

fn is_blind(rows: &[Row]) -> bool {
    !rows.iter().any(|row| row.depends)
}

/// Whether a write cannot run within a script, or its reply would not come out of one as it went in.
fn needs_block(command: Option<&Command>, args: Args<'_>) -> bool {
    let Some(command) = command else {
        let has_nulls = ["xclaim", "xautoclaim", "xreadgroup"].iter().any(|name| args.is(0, name));
        return has_nulls || args.len() > MOST_ARGUMENTS;
    };
    command.spec.has(flag::NOSCRIPT)
        || matches!(command.spec.run, Run::Script(_))
        || command.spec.name == "bitfield"
        || args.len() > MOST_ARGUMENTS
}

/// A read whose reply may be kept.
struct Kept {
    command: usize,
    key_at: usize,
    resp3: bool,
}

fn kept_read<'a>(
    session: &Session,
    routed: &Routed<'_>,
    is_plain: bool,
    args: Args<'a>,
) -> Option<Request<'a>> {
    let command = routed.command.filter(|command| command.routing.is_cacheable && !is_plain)?;
    let key_at = command.single_key().or_else(|| super::touch::only_key(command, args))?;
    let hash = hash_bytes(args.get(key_at)?);
    let resp3 = session.protocol == Protocol::Resp3;
    Some(Request { db: session.db, command: command.index, args, key_at, has_rest: true, resp3, hash })
}

fn writing(upstream: &Upstream, keys: &[Box<[u8]>]) -> Writing {
    upstream.writing(keys.iter().map(|key| (hash_bytes(key), key.clone())).collect())
}

fn encode_write(shared: &Shared, rows: &[Row], is_plain: bool, args: Args<'_>, to: &mut Vec<u8>) {
    let protocol: &[u8] = if is_plain { b"2" } else { b"3" };
    let rest: Vec<&[u8]> = std::iter::once(protocol).chain(args.iter()).collect();
    encode_script(shared, WRITE, rows, &rest, to);
}

pub(super) fn failed(upstream: &Upstream, failure: Failure, is_write: bool) -> Vec<u8> {
    let mut out = Vec::new();
    fail(upstream, failure, is_write, &mut out);
    out
}

/// Sends a request and waits for its reply.
async fn send(
    upstream: &Arc<Upstream>,
    is_plain: bool,
    request: &[u8],
    writing: impl FnOnce() -> Writing,
) -> Outcome {
    let gather = Arc::<Gather>::default();
    let (ticket, _) = gather.ticket();
    let expected = [Expected::Answer(ticket, Form::Raw, writing())];
    wait(upstream, is_plain, request, expected, &gather).await.pop().unwrap_or(Err(Failure::TimedOut))
}

async fn wait(
    upstream: &Arc<Upstream>,
    is_plain: bool,
    request: &[u8],
    expected: impl IntoIterator<Item = Expected>,
    gather: &Arc<Gather>,
) -> Vec<Outcome> {
    let link = if is_plain { &upstream.plain } else { &upstream.tracked };
    if !request.is_empty() {
        link.send(DATABASE, request, expected, now_ms());
        link.flush();
    }
    if tokio::time::timeout(upstream.config.timeout, gather.complete()).await.is_err() {
        upstream::count(&upstream.statistics.failures);
    }
    gather.take().into_vec()
}

impl Call {
    /// Brings rows into the cache; the places of those that are known to be absent, or the error to reply.
    async fn load(&self, places: &[usize]) -> Result<Vec<usize>, Vec<u8>> {
        load(self.shared, &self.rows, places).await
    }

    async fn write(self) -> Vec<u8> {
        let mut request = Vec::new();
        encode_write(self.shared, &self.rows, self.is_plain, self.args.as_args(), &mut request);
        for _ in 0..MOST_TRIES {
            let writing = || writing(&self.upstream, &self.writes);
            let frame = match send(&self.upstream, self.is_plain, &request, writing).await {
                Ok(frame) if is_error(&frame) => return plain_error(&frame),
                Ok(frame) => frame,
                Err(failure) => return failed(&self.upstream, failure, true),
            };
            match said(self.shared, &frame) {
                Said::Done(reply) => return self.form.of(&reply).into(),
                Said::Missing(places) => {
                    if let Err(error) = self.load(&places).await {
                        return error;
                    }
                }
                Said::Nonsense => return nonsense(),
            }
        }
        overtaken()
    }

    async fn read(self, kept: Option<Kept>) -> Vec<u8> {
        let mut known: Vec<usize> = Vec::new();
        let mut kept = kept;
        for _ in 0..MOST_TRIES {
            let read = match &kept {
                Some(kept) => self.read_kept(kept).await,
                None => self.read_once(&known).await,
            };
            let missing = match read {
                Ok(Ok(reply)) => return reply,
                Ok(Err(missing)) => missing,
                Err(failure) => return failed(&self.upstream, failure, false),
            };
            match self.load(&missing).await {
                Ok(absent) => known.extend(absent),
                Err(error) => return error,
            }
            if !known.is_empty() {
                // That a key is absent is known for this request alone.
                kept = None;
            }
        }
        overtaken()
    }

    /// Reads a key whose reply may be kept: the reply, or that the key is not there.
    async fn read_kept(&self, kept: &Kept) -> Result<Result<Vec<u8>, Vec<usize>>, Failure> {
        let args = self.args.as_args();
        let key = args.at(kept.key_at);
        let request = Request {
            db: DATABASE,
            command: kept.command,
            args,
            key_at: kept.key_at,
            has_rest: true,
            resp3: kept.resp3,
            hash: hash_bytes(key),
        };
        let gather = Arc::<Gather>::default();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        match self.upstream.near.miss(&request, now_ms(), gather.ticket().0) {
            Miss::Joined => {}
            Miss::Lead(filling) => {
                encode([&b"MULTI"[..]].into_iter(), &mut bytes);
                encode([&b"PTTL"[..], key].into_iter(), &mut bytes);
                encode(args.iter(), &mut bytes);
                encode([&b"EXEC"[..]].into_iter(), &mut bytes);
                expected.extend((0..3).map(|_| Expected::Ignored));
                expected.push(Expected::RowFill(Box::new(filling), self.form.clone()));
            }
            Miss::Unkept(_) => return self.read_once(&[]).await,
        }
        let outcomes = wait(&self.upstream, false, &bytes, expected, &gather).await;
        match outcomes.into_iter().next().unwrap_or(Err(Failure::TimedOut)) {
            Ok(reply) => Ok(Ok(reply.into())),
            Err(Failure::Absent) => Ok(Err(vec![0])),
            Err(failure) => Err(failure),
        }
    }

    /// Reads: the reply, or which rows are not there; those of `known` need not be.
    async fn read_once(&self, known: &[usize]) -> Result<Result<Vec<u8>, Vec<usize>>, Failure> {
        let gather = Arc::<Gather>::default();
        let (mut bytes, mut expected) = (Vec::new(), Vec::new());
        encode([&b"MULTI"[..]].into_iter(), &mut bytes);
        for row in &self.rows {
            encode([&b"PTTL"[..], &row.key].into_iter(), &mut bytes);
        }
        encode(self.args.as_args().iter(), &mut bytes);
        encode([&b"EXEC"[..]].into_iter(), &mut bytes);
        expected.extend((0..=self.rows.len()).map(|_| Expected::Ignored));
        let written = writing(&self.upstream, &self.writes);
        expected.push(Expected::Answer(gather.ticket().0, Form::Raw, Writing::default()));
        expected.push(Expected::Answer(gather.ticket().0, Form::Raw, written));
        let outcomes = wait(&self.upstream, self.is_plain, &bytes, expected, &gather).await;
        let mut outcomes = outcomes.into_iter();
        let (Some(queued), Some(block)) = (outcomes.next(), outcomes.next()) else {
            return Err(Failure::TimedOut);
        };
        let (queued, block) = (queued?, block?);
        if is_error(&queued) {
            return Ok(Ok(queued.into()));
        }
        let parts = elements(&block).unwrap_or_default();
        if parts.len() != self.rows.len() + 1 {
            return Ok(Ok(if is_error(&block) { block.into() } else { nonsense() }));
        }
        let is_missing = |place: &usize| integer(parts[*place]) == Some(-2) && !known.contains(place);
        let missing: Vec<usize> = (0..self.rows.len()).filter(is_missing).collect();
        if missing.is_empty() {
            Ok(Ok(self.form.of(parts[parts.len() - 1]).into()))
        } else {
            Ok(Err(missing))
        }
    }
}

/// Brings rows into the cache; the places of those that are absent from the database, too, or the error to reply.
pub(super) async fn load(
    shared: &'static Shared,
    rows: &[Row],
    places: &[usize],
) -> Result<Vec<usize>, Vec<u8>> {
    let mut absent = Vec::new();
    let loads = places.iter().filter_map(|place| Some((*place, rows.get(*place)?)));
    let loading: Vec<_> = loads
        .map(|(place, row)| (place, tokio::spawn(load_one(shared, row.rule, row.key.clone()))))
        .collect();
    for (place, load) in loading {
        match load.await {
            Ok(Ok(Brought::Nothing)) => absent.push(place),
            Ok(Ok(Brought::Value)) => {}
            Ok(Err(error)) => return Err(cannot_load(&error)),
            Err(_) => return Err(encoded(&ReplyError::fixed("ERR the server is ending"))),
        }
    }
    Ok(absent)
}

/// Brings those of the rows into the cache that are not there, and are in the database.
async fn bring(shared: &'static Shared, upstream: &Arc<Upstream>, rows: &[Row]) -> Result<(), Vec<u8>> {
    let mut request = Vec::new();
    encode_script(shared, GUARD, rows, &[], &mut request);
    for _ in 0..MOST_TRIES {
        match send(upstream, false, &request, Writing::default).await {
            Err(failure) => return Err(failed(upstream, failure, false)),
            Ok(frame) if is_error(&frame) => return Err(plain_error(&frame)),
            Ok(frame) => match said(shared, &frame) {
                Said::Done(_) => return Ok(()),
                Said::Missing(places) => drop(load(shared, rows, &places).await?),
                Said::Nonsense => return Err(nonsense()),
            },
        }
    }
    Err(overtaken())
}

async fn load_one(shared: &'static Shared, rule: usize, key: Box<[u8]>) -> Result<Brought, LoadFailure> {
    shared.load(rule, &key).await
}

pub(super) fn nonsense() -> Vec<u8> {
    encoded(&ReplyError::fixed("ERR upstream's reply makes no sense"))
}
