//! Runs `RATELIMIT.CHECK` through the engine, so that a check over HTTP is decided and counted as the command is.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::clients::{Client, Origin, Session};
use crate::clock;
use crate::engine::{Step, Worker};
use crate::instance::Instance;
use crate::protocol::RequestParser;
use crate::tiers::upstream::encode;

/// What `RATELIMIT.CHECK` replies; times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) limited: bool,
    pub(super) limit: i64,
    pub(super) remaining: i64,
    /// −1 if it is admitted, or would never be.
    pub(super) retry_after: i64,
    pub(super) reset_after: i64,
}

/// Why there is no answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The command's error.
    Refused(String),
    /// Nothing can be decided now: the server is paused.
    Busy,
}

/// Workers for checks: as many as ever ran at once.
#[derive(Clone)]
pub(super) struct Checkers {
    pub(super) instance: &'static Instance,
    idle: Arc<Mutex<Vec<Checker>>>,
}

struct Checker {
    worker: Worker,
    session: Session,
    parser: RequestParser,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Checkers {
    pub(super) fn new(instance: &'static Instance) -> Self {
        Self { instance, idle: Arc::default() }
    }

    /// Runs the command.
    pub(super) fn check(
        &self,
        policy: &[u8],
        subject: &[u8],
        cost: Option<&[u8]>,
        id: Option<&[u8]>,
    ) -> Result<Answer, Failure> {
        let mut arguments: Vec<&[u8]> = vec![b"RATELIMIT.CHECK", policy, subject];
        arguments.extend(cost.map(|cost| [&b"COST"[..], cost]).into_iter().flatten());
        arguments.extend(id.map(|id| [&b"ID"[..], id]).into_iter().flatten());
        let idle = self.idle.lock().pop();
        let mut checker = idle.unwrap_or_else(|| Checker::new(self.instance));
        let answer = checker.run(&arguments);
        self.idle.lock().push(checker);
        answer
    }
}

impl Checker {
    fn new(instance: &'static Instance) -> Self {
        let origin = Origin {
            address: "admin:0".to_owned(),
            local_address: "admin:0".to_owned(),
            fd: -1,
            is_unix: false,
        };
        let client = Arc::new(Client::new(0, origin, clock::wall_ms()));
        let mut session = Session::own(client);
        session.select(instance.first_db());
        Self {
            worker: Worker::new(instance),
            session,
            parser: RequestParser::default(),
            input: Vec::new(),
            output: Vec::new(),
        }
    }

    fn run(&mut self, arguments: &[&[u8]]) -> Result<Answer, Failure> {
        self.input.clear();
        self.output.clear();
        encode(arguments.iter().copied(), &mut self.input);
        let Self { worker, session, parser, input, output } = self;
        match worker.run(session, parser, input, output).step {
            Step::Continue | Step::Flush => read(output),
            Step::Pending(mut pending) => {
                // Upstream decides; this thread is one that may wait.
                let finished = tokio::runtime::Handle::current().block_on(pending.finished());
                match worker.resume(session, &pending, finished, output) {
                    Step::Continue | Step::Flush => read(output),
                    _ => Err(Failure::Busy),
                }
            }
            Step::Held(held) => {
                worker.instance.pause.forget(&held.waiter);
                Err(Failure::Busy)
            }
            Step::Close | Step::Blocked(_) => Err(Failure::Busy),
        }
    }
}

/// Reads the reply: five integers, or an error.
fn read(reply: &[u8]) -> Result<Answer, Failure> {
    let text = String::from_utf8_lossy(reply);
    let mut lines = text.split("\r\n");
    let head = lines.next().unwrap_or_default();
    let numbers: Vec<i64> =
        lines.filter_map(|line| line.strip_prefix(':')).filter_map(|number| number.parse().ok()).collect();
    match numbers[..] {
        [limited, limit, remaining, retry_after, reset_after] if head == "*5" => {
            Ok(Answer { limited: limited != 0, limit, remaining, retry_after, reset_after })
        }
        _ => Err(Failure::Refused(head.trim_start_matches('-').to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_read() {
        let answer = Answer { limited: true, limit: 5, remaining: 0, retry_after: 1500, reset_after: 9000 };
        assert_eq!(read(b"*5\r\n:1\r\n:5\r\n:0\r\n:1500\r\n:9000\r\n"), Ok(answer));
        assert_eq!(read(b"-OOM no\r\n"), Err(Failure::Refused("OOM no".to_owned())));
    }
}
