//! Runs what a connection has read: every complete request in the buffer, replies behind one another.

use super::blocking::Blocked;
use super::execute::Flow;
use super::worker::Worker;
use crate::clients::Session;
use crate::config::Id;
use crate::protocol::{Args, Limits, Reply, ReplyError, RequestParser};

/// Requests parsed before they run.
const BATCH: usize = 32;
/// Room for so many arguments is kept from one run to the next.
const KEEP_SPANS: usize = 16 * 1024;
/// Replies are sent when there are this many bytes of them, before more requests run.
const OUTPUT_SOFT_LIMIT: usize = 256 * 1024;

/// Where a parsed request lies.
#[derive(Debug, Clone, Copy)]
pub struct Request {
    first: u32,
    count: u32,
    end: usize,
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
        let mut consumed = 0;
        loop {
            let (parsed_to, complete, error) = self.parse_batch(session, parser, input, consumed);
            let requests = std::mem::take(&mut self.requests);
            let spans = std::mem::take(&mut self.spans);
            let mut stopped = None;
            for request in &requests {
                let first = request.first as usize;
                let args = Args::new(input, &spans[first..first + request.count as usize]);
                let flow = self.execute(session, args, out);
                consumed = request.end;
                stopped = match flow {
                    Flow::Next if out.len() >= OUTPUT_SOFT_LIMIT => Some(Step::Flush),
                    Flow::Next => continue,
                    Flow::Close => Some(Step::Close),
                    Flow::Blocked(blocked) => Some(Step::Blocked(blocked)),
                };
                break;
            }
            self.requests = requests;
            if spans.capacity() <= KEEP_SPANS {
                self.spans = spans;
            }
            if let Some(step) = stopped {
                // What was parsed behind the stop is parsed again.
                parser.reset();
                return Progress { consumed, step };
            }
            consumed = parsed_to;
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
        while self.requests.len() < batch {
            if at >= input.len() {
                return (at, true, None);
            }
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
                        self.requests.push(Request { first: first as u32, count: count as u32, end });
                    }
                    if inline && count > 0 {
                        break;
                    }
                }
            }
        }
        (at, false, None)
    }
}
