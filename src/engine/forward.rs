//! Requests that upstream answers: the way that each goes.
//!
//! With an upstream, every request passes here before it would run here. What must run here goes on; reads are looked for in
//! the near cache; the rest is sent, all requests of one run at once, and their replies are awaited together.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::batch::{Awaited, Batch, Place};
use super::block::{is_plain_block, queue};
use super::execute::Flow;
use super::own_connection::own;
use super::pending::Pending;
use super::spread::{Keys, only_slot};
use super::touch::{Routed, Touch, foreign_route, is_plain, only_key, touch_of};
use super::worker::Worker;
use crate::clients::{ReplyMode, Session};
use crate::commands::routing::Route;
use crate::commands::spec::{Control, Run, flag};
use crate::commands::table::{COMMANDS, Command};
use crate::config::upstream::KeyTier;
use crate::protocol::{Args, Protocol, Reply, ReplyError};
use crate::tiers::upstream::{Call, Expected, Form, Request, Upstream, Watched, Writing, encode, invalidate};

impl Worker {
    /// Sends a request upstream, or answers it from the near cache; `None` if it is to run here.
    pub(super) fn forward(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        command: Option<&'static Command>,
        hash: Option<u64>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        if let Some(command) = command
            && let Some(hash) = hash
            && self.read_at_once(upstream, session, command, hash, args, out)
        {
            return Some(Flow::Next);
        }
        if let Some(flow) = self.in_stream(session, args, out) {
            return Some(flow);
        }
        let routed = match self.route(upstream, args) {
            Ok(routed) => routed?,
            Err(error) => return Some(self.refused(session, args, &error, out)),
        };
        if let Some(command) = routed.command
            && matches!(command.spec.run, Run::Control(_))
        {
            return self.forward_control(upstream, session, command, args, out);
        }
        let is_queued = session.transaction.is_some();
        if routed.route == Route::Local {
            let name = routed.command.map_or("", |command| command.spec.name);
            if name == "select" && !is_queued {
                if upstream.cluster.is_some()
                    && crate::types::number::parse_i64(args.at(1)).is_some_and(|db| db != 0)
                {
                    let text = "ERR SELECT is not allowed in cluster mode";
                    return Some(self.refused(session, args, &ReplyError::fixed(text), out));
                }
                return Some(self.select(upstream, session, args, out));
            }
            if !is_queued {
                return self.limit_upstream(upstream, session, routed.command?, args, out);
            }
            if name == "quit" {
                return None;
            }
            if !matches!(name, "ping" | "echo" | "time" | "select")
                && !routed.command.is_some_and(|command| self.is_decided_in_block(upstream, command, args))
            {
                let text = "ERR this command runs on this host, and cannot be part of a transaction that runs upstream";
                return Some(self.refused(session, args, &ReplyError::fixed(text), out));
            }
        }
        let admitted = match routed.command {
            Some(command) => self.admit(session, command, args).map(drop),
            None if !session.authenticated && !self.instance.acl.is_open() => Err(ReplyError::NO_AUTH),
            None => self.permit_unknown(session, args),
        };
        if let Err(error) = admitted {
            return Some(self.refused(session, args, &error, out));
        }
        if let Some(command) = routed.command {
            if self.instance.pause.is_set()
                && let Some(held) = self.hold(session, command, args)
            {
                return Some(Flow::held(held));
            }
            session.client.last_command.store(command.index, Relaxed);
        }
        if is_queued {
            if matches!(routed.route, Route::Stream | Route::Refused(_)) {
                let text = "ERR Command not allowed inside a transaction";
                return Some(self.refused(session, args, &ReplyError::fixed(text), out));
            }
            return Some(queue(session, routed.command, args, out));
        }
        if let Some(flow) = self.on_rows(upstream, session, &routed, args, out) {
            return Some(flow);
        }
        Some(match routed.route {
            Route::Refused(reason) => {
                self.refused(session, args, &ReplyError::new(format!("ERR {reason}")), out)
            }
            Route::Stream => self.stream(upstream, session, args),
            Route::Dedicated => self.dedicated(upstream, session, routed, args, out),
            Route::Shared | Route::Local if session.watched_upstream.is_some() => {
                self.dedicated(upstream, session, routed, args, out)
            }
            Route::Shared | Route::Local => return self.shared(upstream, session, routed, hash, args, out),
        })
    }

    pub(super) fn refused(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        error: &ReplyError,
        out: &mut Vec<u8>,
    ) -> Flow {
        let mark = out.len();
        self.refuse(session, args, error, out);
        if is_silenced(session) {
            out.truncate(mark);
        }
        Flow::Next
    }

    /// Whether the request may join the batch that is under way.
    pub(super) fn joins_batch(&self, session: &Session, command: Option<&Command>, args: Args<'_>) -> bool {
        let Some(batch) = &self.batch else { return true };
        let Some(upstream) = &self.instance.upstream else { return true };
        if batch.is_full() || session.stream.is_some() {
            return false;
        }
        let name = command.map_or("", |command| command.spec.name);
        if session.transaction.is_some() && !matches!(name, "exec" | "reset" | "quit") {
            return true;
        }
        if let Some(command) = command {
            match command.spec.run {
                Run::Control(Control::Multi) => return true,
                Run::Control(Control::Exec) => {
                    return session.watched_upstream.is_none() && is_plain_block(session) == batch.is_plain;
                }
                Run::Control(_) | Run::Blocking(_) => return false,
                Run::Session(_) if command.routing.route == Route::Local => {
                    return matches!(name, "select" | "ping" | "echo" | "time" | "hello" | "auth");
                }
                _ => {}
            }
        }
        if session.watched_upstream.is_some() {
            return false;
        }
        if let Some(command) = command
            && command.routing.route == Route::Shared
            && !upstream.has_rules()
            && self.instance.shared_database().is_none()
        {
            let is_plain = session.protocol == Protocol::Resp2 && command.routing.rewriting.is_none();
            return is_plain == batch.is_plain;
        }
        // Its keys may be of the local tier: then it runs at once, and its reply has its place in the batch.
        match self.route(upstream, args) {
            Ok(Some(routed)) => {
                matches!(routed.route, Route::Shared)
                    && is_plain(session, &routed) == batch.is_plain
                    && self.joins_with_rows(session, &routed, args).unwrap_or(true)
            }
            Ok(None) => command.is_some_and(|command| !command.spec.has(flag::OFFLOAD)),
            Err(_) => true,
        }
    }

    /// What is to be known of a request; `None` if it is one for this host's keys.
    fn route(&self, upstream: &Upstream, args: Args<'_>) -> Result<Option<Routed<'static>>, ReplyError> {
        let command = match COMMANDS.resolve(args) {
            Ok(command) => command,
            Err(error) => {
                // An unknown subcommand is refused in the words of Redis, as it would be here.
                let is_here = COMMANDS.get(args.at(0)).is_some();
                return if is_here { Ok(None) } else { foreign_route(upstream, args, error).map(Some) };
            }
        };
        let routing = &command.routing;
        let touch = if routing.route == Route::Local { Touch::Nothing } else { touch_of(command, args) };
        if let Touch::Reads(keys) | Touch::Writes(keys) = &touch {
            let is_local = |(_, key): &&(u64, Box<[u8]>)| upstream.tier_of(key) == Some(KeyTier::Local);
            match keys.iter().filter(is_local).count() {
                0 => {}
                count if count == keys.len() => return Ok(None),
                _ => {
                    return Err(ReplyError::fixed(
                        "CROSSTIER the keys of a command must all be of the local tier, or none of them",
                    ));
                }
            }
        }
        let is_bypass = match &touch {
            Touch::Reads(keys) if upstream.has_rules() => {
                keys.iter().all(|(_, key)| upstream.tier_of(key) == Some(KeyTier::Bypass))
            }
            _ => false,
        };
        let rewrite = routing.rewriting.map(|rewriting| rewriting.with(args.len()));
        Ok(Some(Routed { command: Some(command), route: routing.route, touch, rewrite, is_bypass }))
    }

    fn select(
        &mut self,
        upstream: &Upstream,
        session: &mut Session,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        if let Err(error) = COMMANDS.resolve(args).and_then(|command| self.admit(session, command, args)) {
            return self.refused(session, args, &error, out);
        }
        let here = self.instance.settings.int(crate::config::Id::Databases) as usize;
        let databases = upstream.about().databases.min(here);
        let index = match crate::types::number::parse_i64(args.at(1)) {
            None => return self.refused(session, args, &ReplyError::fixed("ERR invalid DB index"), out),
            Some(index) if (0..databases as i64).contains(&index) => index as usize,
            Some(_) => {
                return self.refused(session, args, &ReplyError::fixed("ERR DB index is out of range"), out);
            }
        };
        session.select(index);
        if !is_silenced(session) {
            Reply::new(out, session.protocol).ok();
        }
        Flow::Next
    }

    /// `MULTI` and what belongs to it.
    fn forward_control(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        command: &Command,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let Run::Control(control) = command.spec.run else { return None };
        if self.admit(session, command, args).is_err() {
            return None;
        }
        if matches!(control, Control::Exec)
            && session.user.is_restricted()
            && let Err(error) = self.permit_queued(session)
        {
            return Some(self.refused(session, args, &error, out));
        }
        let in_transaction = session.transaction.is_some();
        if self.instance.pause.is_set()
            && let Some(held) = self.hold(session, command, args)
        {
            return Some(Flow::held(held));
        }
        match control {
            Control::Multi => None,
            Control::Watch if in_transaction => None,
            Control::Watch => {
                let keys: Keys = args.iter().skip(1).map(|key| (0, Box::from(key))).collect();
                let slot = if upstream.cluster.is_some() { only_slot(&keys) } else { Ok(None) };
                let slot = match slot {
                    Ok(slot) => slot,
                    Err(error) => return Some(self.refused(session, args, &error, out)),
                };
                session.watched_upstream.get_or_insert_with(Watched::default);
                let (watched, mut requests) =
                    (session.watched_upstream.clone().unwrap_or_default(), Vec::new());
                encode(args.iter(), &mut requests);
                let call = Call {
                    db: session.db,
                    resp3: session.protocol == Protocol::Resp3,
                    requests,
                    replies: 1,
                    form: Form::Raw,
                    writing: Writing::default(),
                    is_bounded: true,
                    is_last: false,
                    slot,
                };
                let keys = args.iter().skip(1);
                if let Some(rows) = self.rows_to_watch(session, keys) {
                    let is_silent = is_silenced(session);
                    return Some(self.watch_rows(upstream, (watched, call), rows, is_silent));
                }
                Some(own(upstream, watched, call, None, is_silenced(session)))
            }
            Control::Unwatch if in_transaction => Some(queue(session, Some(command), args, out)),
            Control::Exec
                if session.transaction.as_ref().is_some_and(|transaction| !transaction.is_broken) =>
            {
                Some(self.exec_upstream(upstream, session, out))
            }
            // Closed, upstream forgets what it watched.
            Control::Exec | Control::Discard if !in_transaction => None,
            Control::Exec | Control::Discard | Control::Unwatch => {
                session.watched_upstream = None;
                None
            }
            Control::Invalidate => {
                let invalidating = invalidate(upstream.clone(), session.db, args.at(1).into());
                let mut pending = Pending::reply(Box::pin(invalidating));
                if is_silenced(session) {
                    pending.silence();
                }
                Some(Flow::pending(pending))
            }
            // There is none beside an upstream.
            Control::Database(_) => None,
            Control::Reset => {
                session.watched_upstream = None;
                session.stream = None;
                None
            }
        }
    }

    /// By a shared connection, unless the near cache knows.
    fn shared(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        routed: Routed<'_>,
        hash: Option<u64>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let begin = self.ticks;
        let is_plain = is_plain(session, &routed);
        let resp3 = session.protocol == Protocol::Resp3;
        if let (Some(command), Touch::Reads(keys)) = (routed.command, &routed.touch)
            && command.routing.is_cacheable
            && !is_plain
            && !keys.iter().any(|(_, key)| upstream.tier_of(key) == Some(KeyTier::Bypass))
        {
            let rewrite = (!resp3).then_some(routed.rewrite).flatten();
            if command.spec.name == "mget" {
                self.read_several(upstream, session, command, keys, args, out);
            } else if let [(key_hash, _)] = keys[..]
                && let Some(key_at) = command.single_key().or_else(|| only_key(command, args))
            {
                let hash = hash.unwrap_or(key_hash);
                let (db, command_index) = (session.db, command.index);
                let request =
                    Request { db, command: command_index, args, key_at, has_rest: true, resp3, hash };
                self.read(upstream, session, &request, rewrite, out);
            } else {
                self.send(upstream, session, routed, is_plain, args, out);
            }
            self.measure(&session.client, command, args, begin);
            return Some(Flow::Next);
        }
        let command = routed.command;
        self.send(upstream, session, routed, is_plain, args, out);
        if let Some(command) = command {
            self.measure(&session.client, command, args, begin);
        }
        Some(Flow::Next)
    }

    /// What is not kept.
    fn send(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        routed: Routed<'_>,
        is_plain: bool,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) {
        let at = out.len();
        let form = match routed.rewrite {
            Some(rewrite) if session.protocol == Protocol::Resp2 && !is_plain => Form::Resp2(rewrite),
            _ => Form::Raw,
        };
        let reads = self.reads_touched(session, &routed.touch);
        let is_silent = is_silenced(session);
        if let Some(cluster) = &upstream.cluster {
            let whole = (at, is_silent, reads);
            let sent = self.send_to_cluster((upstream, cluster), (routed, is_plain), &form, args, whole);
            if let Err(error) = sent {
                self.refuse(session, args, &error, out);
                if is_silent {
                    out.truncate(at);
                }
            }
            return;
        }
        let is_write = !matches!(routed.touch, Touch::Reads(_) | Touch::Nothing)
            || routed.command.is_none_or(|command| command.spec.flags & flag::READONLY == 0);
        let writing = match routed.touch {
            Touch::Everything => upstream.writing_all(),
            Touch::Writes(keys) => upstream.writing(keys),
            Touch::Reads(keys) if is_plain => upstream.writing(keys),
            Touch::Reads(_) | Touch::Nothing => Writing::default(),
        };
        let batch = self.batch(is_plain);
        let (ticket, place) = batch.gather.ticket();
        let what = Awaited::One { place, is_write };
        batch.places.push(Place { at, what, is_silent, reads });
        let expected = [Expected::Answer(ticket, form, writing)];
        batch.add(upstream, session.db, expected, |to| encode(args.iter(), to));
        crate::tiers::upstream::count(&upstream.statistics.requests);
    }

    pub(super) fn batch(&mut self, is_plain: bool) -> &mut Batch {
        self.batch.get_or_insert_with(|| Batch::new(is_plain))
    }

    /// Hands over a batch that a panic has left behind: its replies must not go to another client.
    #[cold]
    pub(super) fn abandon_batch(&mut self) {
        drop(self.end_batch(&mut Vec::new()));
    }

    /// Sends the batch, if there is one; what was written behind its first request comes with its replies.
    pub(super) fn end_batch(&mut self, out: &mut Vec<u8>) -> Option<Pending> {
        Some(self.batch.take()?.end(self.instance.upstream.clone()?, out))
    }
}

/// Whether the client does not want this reply (`CLIENT REPLY`); a skip is used up.
pub(super) fn is_silenced(session: &mut Session) -> bool {
    match session.reply_mode {
        ReplyMode::On => false,
        ReplyMode::SkipNext => {
            session.reply_mode = ReplyMode::On;
            true
        }
        ReplyMode::Off | ReplyMode::SkipThis => true,
    }
}
