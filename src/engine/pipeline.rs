//! Runs what a connection has read: every complete request in the buffer, replies behind one another.

use super::blocking::Blocked;
use super::execute::Flow;
use super::pending::Pending;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::spec::flag;
use crate::commands::table::{COMMANDS, Command};
use crate::config::Id;
use crate::protocol::{Args, Limits, Previous, Repetition, Reply, ReplyError, RequestParser, Span};
use crate::tiers::local::DATABASE;
use crate::types::equality::same_bytes;
use crate::types::hasher::hash_bytes;
use crate::types::prefetch::Part;

/// Requests parsed before they run.
const BATCH: usize = 32;
/// Room for so many arguments is kept from one run to the next.
const KEEP_SPANS: usize = 16 * 1024;
/// Fewer requests than this run without looking ahead.
const PREFETCH_FROM: usize = 4;
/// So many requests in a row that are unlike the one before, and none is looked at for that any more in a batch.
const MAX_UNLIKE: usize = 2;
/// Replies are sent when there are this many bytes of them, before more requests run.
const OUTPUT_SOFT_LIMIT: usize = 256 * 1024;

/// Where a parsed request lies.
#[derive(Clone, Copy)]
pub struct Request {
    first: u32,
    count: u32,
    begin: usize,
    end: usize,
    /// What it names, if that is a command.
    command: Option<&'static Command>,
    /// The hash of its key, if the command has exactly one.
    hash: Option<u64>,
    /// What of the key's value it will look at.
    inside: Inside,
}

/// What of a collection is worth bringing into the cache ahead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Nothing,
    /// The member of this hash.
    Member(u64),
    /// The log of a rate limiter.
    Log,
}

/// What the connection must do next.
pub enum Step {
    /// Send the replies and read on.
    Continue,
    /// Send the replies, then run the rest of the input.
    Flush,
    /// Send the replies and close.
    Close,
    /// Send the replies, then wait.
    Blocked(Blocked),
    /// Send the replies, then wait until a held command may be tried again.
    Held(Blocked),
    /// Send the replies, then wait for another tier.
    Pending(Pending),
}

/// How far a run came.
pub struct Progress {
    /// Bytes of the input that are done with.
    pub consumed: usize,
    /// What to do next.
    pub step: Step,
}

impl Worker {
    /// Runs the requests in `input`, appending the replies to `out`.
    pub fn run(
        &mut self,
        session: &mut Session,
        parser: &mut RequestParser,
        input: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Progress {
        self.read_clock();
        self.catch_up();
        if self.batch.is_some() {
            self.abandon_batch();
        }
        // All earlier replies are out.
        if session.client.pushes.is_waiting() {
            out.extend_from_slice(&session.client.pushes.take());
        }
        let mut consumed = 0;
        loop {
            // An inline request is parsed only when it can run at once (see `parse_batch`).
            if self.batch.is_some()
                && !parser.is_partial()
                && input.get(consumed).is_some_and(|byte| *byte != b'*')
                && let Some(pending) = self.end_batch(out)
            {
                return Progress { consumed, step: Step::Pending(pending) };
            }
            let (parsed_to, complete, error) = self.parse_batch(session, parser, input, consumed);
            let requests = std::mem::take(&mut self.requests);
            let spans = std::mem::take(&mut self.spans);
            self.prefetch(session.db, &requests);
            let mut stopped = None;
            for request in &requests {
                let first = request.first as usize;
                let args = Args::new(input, &spans[first..first + request.count as usize]);
                if self.batch.is_some() && !self.joins_batch(session, request.command, args) {
                    stopped = Some(Step::Flush);
                    break;
                }
                let flow = self.execute(session, request.command, request.hash, args, out);
                consumed = request.end;
                stopped = match flow {
                    Flow::Next if out.len() >= OUTPUT_SOFT_LIMIT => Some(Step::Flush),
                    Flow::Next => continue,
                    Flow::Close => Some(Step::Close),
                    Flow::Blocked(blocked) => Some(Step::Blocked(*blocked)),
                    Flow::Held(held) => Some(Step::Held(*held)),
                    Flow::Pending(pending) => Some(Step::Pending(*pending)),
                };
                break;
            }
            self.requests = requests;
            if spans.capacity() <= KEEP_SPANS {
                self.spans = spans;
            }
            if let Some(step) = stopped {
                let step = self.end_batch(out).map_or(step, Step::Pending);
                // What was parsed behind the stop is parsed again.
                parser.reset();
                return Progress { consumed, step };
            }
            consumed = parsed_to;
            if self.batch.is_some()
                && (error.is_some() || complete)
                && let Some(pending) = self.end_batch(out)
            {
                return Progress { consumed, step: Step::Pending(pending) };
            }
            if let Some(error) = error {
                let error = ReplyError::from(&error);
                self.counters.errors.add(1);
                self.instance.telemetry.count_error(error.code());
                Reply::new(out, session.protocol).error(&error);
                return Progress { consumed: input.len(), step: Step::Close };
            }
            if complete {
                return Progress { consumed, step: Step::Continue };
            }
        }
    }

    /// Brings the keys of a pipeline into the cache together, rather than waiting for each in turn.
    ///
    /// Most of the time of a `GET` or `SET` is two cache misses, the bucket's and the entry's; those of different
    /// requests overlap. Measured in `benches/compare`: P32 GET and SET.
    fn prefetch(&self, db: usize, requests: &[Request]) {
        if requests.len() < PREFETCH_FROM {
            return;
        }
        let keyspace = &self.instance.keyspace;
        let hashes = || requests.iter().filter_map(|request| request.hash);
        if let Some(upstream) = &self.instance.upstream {
            hashes().for_each(|hash| upstream.near.prefetch_record(hash));
            hashes().for_each(|hash| upstream.near.prefetch_reply(hash));
            return;
        }
        hashes().for_each(|hash| keyspace.prefetch_bucket(hash, db));
        for request in requests {
            match (request.hash, request.inside) {
                (Some(hash), Inside::Log) => keyspace.prefetch_head(hash, db),
                (Some(hash), _) => keyspace.prefetch_entry(hash, db),
                (None, _) => {}
            }
        }
        if let Some(tier) = self.instance.database().filter(|_| db == DATABASE) {
            let writes =
                |request: &&Request| request.command.is_some_and(|command| command.spec.has(flag::WRITE));
            tier.prefetch(requests.iter().filter(writes).filter_map(|request| request.hash));
        }
        if !requests.iter().any(|request| request.inside != Inside::Nothing) {
            return;
        }
        let inside = |part: fn(Inside) -> Option<Part>| {
            for request in requests {
                if let (Some(hash), Some(part)) = (request.hash, part(request.inside)) {
                    keyspace.prefetch_part(hash, db, part);
                }
            }
        };
        inside(|inside| match inside {
            Inside::Nothing => None,
            Inside::Member(hash) => Some(Part::Bucket(hash)),
            Inside::Log => Some(Part::Log),
        });
        inside(|inside| match inside {
            Inside::Member(hash) => Some(Part::Member(hash)),
            Inside::Log | Inside::Nothing => None,
        });
    }

    /// Parses up to a batch of requests from `start` on: how far that came, and whether nothing complete is left.
    fn parse_batch(
        &mut self,
        session: &Session,
        parser: &mut RequestParser,
        input: &mut [u8],
        start: usize,
    ) -> (usize, bool, Option<crate::protocol::ProtocolError>) {
        self.requests.clear();
        self.spans.clear();
        let settings = &self.instance.settings;
        let limits =
            Limits { max_bulk: settings.int(Id::ProtoMaxBulkLen), authenticated: session.authenticated };
        // Authentication changes what the next request may claim.
        let batch = if session.authenticated { BATCH } else { 1 };
        let mut at = start;
        // Calls of a rate limiter mostly ask for what the one before asked for.
        let reads_log = self.last_limit.get_mut().is_log();
        // Where the name of the last request lies, and what it names: the next one is mostly for the same.
        let mut last: Option<(Span, &'static Command)> = None;
        // How many requests were unlike the one before them.
        let mut unlike = 0;
        while self.requests.len() < batch {
            if at >= input.len() {
                return (at, true, None);
            }
            if unlike < MAX_UNLIKE && !self.requests.is_empty() {
                if let Some(end) = self.repeat(input, at) {
                    (at, unlike) = (end, 0);
                    continue;
                }
                unlike += 1;
            }
            let begin = at;
            // Inline requests are unescaped in place, so they must run before anything could have them parsed again.
            let inline = input[at] != b'*' && !parser.is_partial();
            if inline && !self.requests.is_empty() {
                break;
            }
            let first = self.spans.len();
            match parser.parse(input, at, limits, &mut self.spans) {
                Ok(None) => return (at, true, None),
                Err(error) => return (at, true, Some(error)),
                Ok(Some(end)) => {
                    at = end;
                    let count = self.spans.len() - first;
                    if count > 0 {
                        let args = Args::new(input, &self.spans[first..]);
                        let command = match last {
                            Some((name, command)) if same_bytes(name.of(input), &args[0]) => Some(command),
                            _ => COMMANDS.resolve(args).ok(),
                        };
                        last =
                            command.filter(|command| command.is_complete()).map(|it| (self.spans[first], it));
                        let key = command.and_then(Command::single_key).and_then(|index| args.get(index));
                        let hash = key.map(hash_bytes);
                        let inside =
                            command.map_or(Inside::Nothing, |command| inside(command, args, reads_log));
                        let (first, count) = (first as u32, count as u32);
                        self.requests.push(Request { first, count, begin, end, command, hash, inside });
                    }
                    if inline && count > 0 {
                        break;
                    }
                }
            }
        }
        (at, false, None)
    }

    /// Takes the request at `at` if it is the last one of another key; returns where it ends.
    #[inline]
    fn repeat(&mut self, input: &[u8], at: usize) -> Option<usize> {
        let last = *self.requests.last()?;
        let key = last.command?.single_key()?;
        let first = last.first as usize;
        let spans = &self.spans[first..];
        let found = Repetition::find(input, at, Previous { start: last.begin, end: last.end, spans, key })?;
        let hash = Some(hash_bytes(found.key.of(input)));
        let (next, end) = (self.spans.len() as u32, found.end);
        found.append(&mut self.spans, first, key);
        self.requests.push(Request { first: next, begin: at, end, hash, ..last });
        Some(end)
    }
}

/// What a command will look at inside its key's value.
#[inline]
fn inside(command: &Command, args: Args<'_>, reads_log: bool) -> Inside {
    match command.spec {
        spec if spec.member > 0 => {
            args.get(spec.member).map_or(Inside::Nothing, |member| Inside::Member(hash_bytes(member)))
        }
        spec if spec.reads_log && reads_log => Inside::Log,
        _ => Inside::Nothing,
    }
}
