//! Requests on rows of a database that all hosts have behind their upstream: what the database is to learn is written there
//! with the value itself, and what must be loaded is loaded before the request counts.
//!
//! A write goes as a script: it looks whether the rows that the command depends on are at hand, runs it, and writes down
//! what it leaves. A read goes in a transaction that tells which keys were there. If a row is missing, nothing was done or is
//! believed: the row is brought into the cache, and the same request is sent again. So such a request is the only one of its
//! client that is under way; a write that depends on nothing goes with the client's other requests.

use std::sync::Arc;

use super::batch::{Awaited, Place};
use super::execute::Flow;
use super::forward::is_silenced;
use super::pending::Pending;
use super::row_blocks::{Block, Commands};
use super::row_calls::{Call, Kept, encode_write};
use super::row_keys::{Row, add, is_blind, is_written, rows_of, takes_journal, unique};
use super::row_scripts::{MOST_TRIES, Said, bring, encoded, failed, plain_error, said, send, writing};
use super::rows::target;
use super::touch::{Routed, Touch, is_plain, only_key};
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::routing::Route;
use crate::commands::spec::{Run, flag};
use crate::commands::table::Command;
use crate::protocol::{Args, Protocol, ReplyError};
use crate::tiers::database::shared::Shared;
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{self, Expected, Form, Request, Upstream, Watched, encode, is_error};
use crate::types::hasher::hash_bytes;

/// A script takes no command of more arguments, unless it can run it in pieces: `DEL` and `UNLINK`.
const MOST_ARGUMENTS: usize = 4000;

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
        Flow::pending(pending)
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
        (!rows.is_empty()).then(|| unique(rows))
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
        Flow::pending(pending)
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
        Flow::pending(pending)
    }
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
        || args.len() > MOST_ARGUMENTS && !matches!(command.spec.name, "del" | "unlink")
}

fn kept_read<'a>(
    session: &Session,
    routed: &Routed<'_>,
    is_plain: bool,
    args: Args<'a>,
) -> Option<Request<'a>> {
    let command = routed.command.filter(|command| command.routing.is_cacheable && !is_plain)?;
    let key_at = command.single_key().or_else(|| only_key(command, args))?;
    let hash = hash_bytes(args.get(key_at)?);
    let resp3 = session.protocol == Protocol::Resp3;
    Some(Request { db: session.db, command: command.index, args, key_at, has_rest: true, resp3, hash })
}
