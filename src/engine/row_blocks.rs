//! Transactions on rows of a database that all hosts have, and commands that only run as one: by a connection of the
//! client's own, which watches the rows that the commands depend on from the look at them until it is done.

use std::sync::Arc;

use super::execute::Flow;
use super::forward::is_silenced;
use super::pending::Pending;
use super::row_keys::{Absence, Row, is_written, rows_of, takes_journal, unique};
use super::row_scripts::{MOST_TRIES, Said, encode_script, load, nonsense, overtaken, plain_error, said};
use super::rows::{selects, target};
use super::touch::{Touch, touch_of_queued};
use super::tracked::Reads;
use super::worker::Worker;
use crate::clients::{Session, Transaction};
use crate::commands::table::COMMANDS;
use crate::protocol::{Protocol, Reply, ReplyError};
use crate::tiers::database::shared::{GUARD, JOURNAL, NOTE, Shared};
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{Dedicated, Upstream, Watched, elements, encode, is_error};
use crate::types::hasher::hash_bytes;

/// What is to run.
pub(super) enum Commands {
    /// One command.
    One(Vec<u8>),
    /// Those of a transaction: how many, and their requests.
    Block(usize, Vec<u8>),
}

impl Commands {
    fn count(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Block(count, _) => *count,
        }
    }

    fn requests(&self) -> &[u8] {
        match self {
            Self::One(requests) | Self::Block(_, requests) => requests,
        }
    }
}

/// Commands on rows that run as one.
pub(super) struct Block {
    pub shared: &'static Shared,
    pub upstream: Arc<Upstream>,
    pub rows: Vec<Row>,
    pub commands: Commands,
    /// All keys that they may change, or read by a connection that others read later by.
    pub writes: Vec<Box<[u8]>>,
    /// Whether they may change any.
    pub writes_all: bool,
    pub resp3: bool,
    /// Whether the client itself watches keys: then it is told if one has changed.
    pub is_watching: bool,
}

impl Worker {
    /// Runs a transaction that touches rows; `None` if it touches none.
    pub(super) fn exec_on_rows(
        &mut self,
        shared: &'static Shared,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        transaction: &Transaction,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let (mut rows, mut requests) = (Vec::new(), Vec::new());
        let (mut writes, mut writes_all, mut read) = (Vec::new(), false, Vec::new());
        let (mut db, mut is_elsewhere, mut is_emptied) = (session.db, false, false);
        for (command, args) in &transaction.forwarded {
            let (command, args) = (command.map(|index| COMMANDS.at(index)), args.as_args());
            encode(args.iter(), &mut requests);
            let touch = touch_of_queued(upstream, command, args);
            is_emptied |= takes_journal(command, db, args);
            let databases = [Some(db), command.and_then(|command| target(command, args))];
            if databases.contains(&Some(DATABASE)) {
                let touched = rows_of(shared, command, &touch, args);
                is_elsewhere |= !touched.is_empty() && databases.iter().flatten().any(|db| *db != DATABASE);
                rows.extend(touched);
            }
            match touch {
                Touch::Reads(keys) => {
                    read.extend(keys.iter().map(|(_, key)| key.clone()));
                    writes.extend(keys.into_iter().map(|(_, key)| key));
                }
                Touch::Writes(keys) => writes.extend(keys.into_iter().map(|(_, key)| key)),
                Touch::Everything => writes_all = true,
                Touch::Nothing => {}
            }
            db = command.and_then(|command| selects(command, args)).unwrap_or(db);
            is_elsewhere |= db != DATABASE;
        }
        let rows = unique(rows);
        let refusal = if is_emptied {
            "ERR in a transaction, database 0 cannot be emptied: the journal is in it"
        } else if rows.is_empty() {
            return None;
        } else if is_elsewhere {
            "ERR a transaction on rows of the database cannot be one on another database, too"
        } else {
            ""
        };
        let watched = session.watched_upstream.take();
        let is_silent = is_silenced(session);
        let admitted = if is_written(&rows) { shared.admit() } else { Ok(()) };
        let error = if refusal.is_empty() { admitted.err() } else { Some(ReplyError::fixed(refusal)) };
        if let Some(error) = error {
            self.count_error(&error);
            if !is_silent {
                Reply::new(out, session.protocol).error(&error);
            }
            return Some(Flow::Next);
        }
        rows.iter().for_each(|row| shared.changed(&row.key));
        let reads = self.reads_of(session, read.iter().map(|key| &**key));
        let block = Block {
            shared,
            upstream: upstream.clone(),
            rows,
            commands: Commands::Block(transaction.forwarded.len(), requests),
            writes,
            writes_all,
            resp3: session.protocol == Protocol::Resp3,
            is_watching: watched.is_some(),
        };
        Some(block.flow(watched.unwrap_or_default(), reads, is_silent))
    }
}

impl Block {
    /// Runs it by this connection, which is clean afterwards.
    pub fn flow(self, watched: Watched, reads: Option<Box<Reads>>, is_silent: bool) -> Flow {
        let mut pending = Pending::reply(Box::pin(async move {
            let (upstream, resp3) = (self.upstream.clone(), self.resp3);
            let run = watched.with(&upstream, DATABASE, resp3, async |dedicated| self.run(dedicated).await);
            let reply = run.await.unwrap_or_else(|error| error);
            if let Some(reads) = reads {
                reads.tell_at_once();
            }
            reply
        }));
        if is_silent {
            pending.silence();
        }
        Flow::pending(pending)
    }

    async fn run(&self, dedicated: &mut Dedicated) -> std::io::Result<Vec<u8>> {
        for _ in 0..MOST_TRIES {
            if let Some(missing) = self.missing(dedicated).await? {
                let missing = match missing {
                    Ok(missing) => missing,
                    Err(error) => return Ok(error),
                };
                if let Err(error) = load(self.shared, &self.rows, &missing).await {
                    self.unwatch(dedicated).await?;
                    return Ok(error);
                }
                continue;
            }
            if let Some(reply) = self.execute(dedicated).await? {
                return Ok(reply);
            }
        }
        self.unwatch(dedicated).await?;
        Ok(overtaken())
    }

    /// Watches the rows that must be at hand; those that are not, or an error.
    async fn missing(
        &self,
        dedicated: &mut Dedicated,
    ) -> std::io::Result<Option<Result<Vec<usize>, Vec<u8>>>> {
        let needed: Vec<&[u8]> = self.rows.iter().filter(|row| row.depends).map(|row| &*row.key).collect();
        if needed.is_empty() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        if !self.is_watching {
            // What was watched for the try before is not watched any more: it may have been loaded.
            encode([&b"UNWATCH"[..]].into_iter(), &mut bytes);
        }
        let words: Vec<&[u8]> = [&b"WATCH"[..]].into_iter().chain(needed).collect();
        encode(words.into_iter(), &mut bytes);
        encode_script(self.shared, GUARD, &self.rows, &[], &mut bytes);
        let replies = self.bounded(dedicated.call(&bytes, 2 + usize::from(!self.is_watching))).await?;
        let frame = replies.last().map(|frame| &**frame).unwrap_or_default();
        if is_error(frame) {
            self.unwatch(dedicated).await?;
            return Ok(Some(Err(plain_error(frame))));
        }
        Ok(match said(self.shared, frame) {
            Said::Done(_) => None,
            Said::Missing(places) => Some(Ok(places)),
            Said::Nonsense => Some(Err(nonsense())),
        })
    }

    async fn unwatch(&self, dedicated: &mut Dedicated) -> std::io::Result<()> {
        let mut bytes = Vec::new();
        encode([&b"UNWATCH"[..]].into_iter(), &mut bytes);
        self.bounded(dedicated.call(&bytes, 1)).await.map(drop)
    }

    /// Runs the commands, and writes down what they leave; nothing if a row that they depend on has changed before.
    async fn execute(&self, dedicated: &mut Dedicated) -> std::io::Result<Option<Vec<u8>>> {
        let is_journaled = is_written(&self.rows);
        let is_noted = self.rows.iter().any(|row| row.absence == Absence::Deleted);
        let mut bytes = Vec::new();
        encode([&b"MULTI"[..]].into_iter(), &mut bytes);
        if is_journaled {
            // Where there is no memory left, none of it runs.
            encode([&b"INCRBY"[..], self.shared.names.bytes.as_bytes(), b"0"].into_iter(), &mut bytes);
        }
        if is_noted {
            encode_script(self.shared, NOTE, &self.rows, &[], &mut bytes);
        }
        bytes.extend_from_slice(self.commands.requests());
        if is_journaled {
            encode_script(self.shared, JOURNAL, &self.rows, &[], &mut bytes);
        }
        encode([&b"EXEC"[..]].into_iter(), &mut bytes);
        let first = usize::from(is_journaled) + usize::from(is_noted);
        let count = self.commands.count();
        let all = first + count + usize::from(is_journaled);
        let keys = || self.writes.iter().map(|key| (hash_bytes(key), key.clone())).collect();
        let writing =
            if self.writes_all { self.upstream.writing_all() } else { self.upstream.writing(keys()) };
        let replies = self.bounded(dedicated.call(&bytes, all + 2)).await;
        // Before anybody hears of it.
        drop(writing);
        let replies = replies?;
        let block = replies.last().map(|frame| &**frame).unwrap_or_default();
        if let (Commands::One(_), Some(queued)) = (&self.commands, replies.get(1 + first))
            && is_error(queued)
        {
            return Ok(Some(queued.to_vec()));
        }
        if is_error(block) {
            return Ok(Some(block.to_vec()));
        }
        let Some(parts) = elements(block).filter(|parts| parts.len() == all) else {
            // A key that was watched has changed.
            return Ok(self.is_watching.then(|| block.to_vec()));
        };
        if is_journaled {
            let end = parts[all - 1];
            if !matches!(said(self.shared, end), Said::Done(_)) {
                let why = String::from_utf8_lossy(end).trim_end().to_owned();
                tracing::error!(why, "the journal upstream did not take what a transaction has changed");
                return Ok(Some(b"-IOERR the journal upstream did not take the write\r\n".to_vec()));
            }
        }
        let replies = &parts[first..first + count];
        Ok(Some(match &self.commands {
            Commands::One(_) => replies[0].to_vec(),
            Commands::Block(..) => {
                let mut reply = format!("*{count}\r\n").into_bytes();
                replies.iter().for_each(|one| reply.extend_from_slice(one));
                reply
            }
        }))
    }

    async fn bounded<T>(&self, asking: impl Future<Output = std::io::Result<T>>) -> std::io::Result<T> {
        let waited = tokio::time::timeout(self.upstream.config.timeout, asking).await;
        waited.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}
