//! Requests that upstream answers: the way that each goes.
//!
//! With an upstream, every request passes here before it would run here. What must run here goes on; reads are looked for in
//! the near cache; the rest is sent, all requests of one run at once, and their replies are awaited together.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::batch::{Awaited, Batch, Element, Place, Unit, encode_fill, write_elements};
use super::execute::Flow;
use super::pending::Pending;
use super::spread::{CROSS_SLOT, Keys, only_slot};
use super::touch::{Routed, Touch, foreign_route, is_plain, only_key, touch_of};
use super::tracked::Reads;
use super::worker::Worker;
use crate::clients::{ReplyMode, Session};
use crate::commands::routing::{Route, foreign_command};
use crate::commands::spec::{Control, Run, flag};
use crate::commands::table::{COMMANDS, Command};
use crate::config::upstream::KeyTier;
use crate::protocol::{Args, Protocol, Reply, ReplyError};
use crate::tiers::upstream::{
    Again, Call, Expected, Form, Found, Miss, Request, Rewrite, Stream, Target, Upstream, Watched, Writing,
    encode, invalidate, now_ms, slot_of,
};

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
            if !matches!(name, "ping" | "echo" | "time" | "select") {
                let text = "ERR this command runs on this host, and cannot be part of a transaction that runs upstream";
                return Some(self.refused(session, args, &ReplyError::fixed(text), out));
            }
        }
        let admitted = match routed.command {
            Some(command) => self.admit(session, command, args).map(drop),
            None if !session.authenticated => Err(ReplyError::NO_AUTH),
            None => Ok(()),
        };
        if let Err(error) = admitted {
            return Some(self.refused(session, args, &error, out));
        }
        if let Some(command) = routed.command {
            if self.instance.pause.is_set()
                && let Some(held) = self.hold(session, command, args)
            {
                return Some(Flow::Held(held));
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

    /// The way of most requests: a read of one key by a client that is in no special state. Says whether it was one.
    #[inline]
    fn read_at_once(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        command: &'static Command,
        hash: u64,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let (routing, resp3) = (&command.routing, session.protocol == Protocol::Resp3);
        let Some(key_at) = command.single_key() else { return false };
        let is_special =
            session.transaction.is_some() || session.stream.is_some() || session.watched_upstream.is_some();
        if !routing.is_cacheable
            || is_special
            || !resp3 && routing.rewriting.is_none()
            || self.instance.pause.is_set()
            || args.get(key_at).is_none_or(|key| upstream.tier_of(key).is_some())
            || self.admit(session, command, args).is_err()
        {
            return false;
        }
        session.client.last_command.store(command.index, Relaxed);
        let begin = self.ticks;
        let rewrite = routing.rewriting.filter(|_| !resp3).map(|rewriting| rewriting.with(args.len()));
        let request =
            Request { db: session.db, command: command.index, args, key_at, has_rest: true, resp3, hash };
        self.read(upstream, session, &request, rewrite, out);
        self.measure(&session.client, command, args, begin);
        true
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
        {
            let is_plain = session.protocol == Protocol::Resp2 && command.routing.rewriting.is_none();
            return is_plain == batch.is_plain;
        }
        // Its keys may be of the local tier: then it runs at once, and its reply has its place in the batch.
        match self.route(upstream, args) {
            Ok(Some(routed)) => {
                matches!(routed.route, Route::Shared) && is_plain(session, &routed) == batch.is_plain
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
        let in_transaction = session.transaction.is_some();
        if self.instance.pause.is_set()
            && let Some(held) = self.hold(session, command, args)
        {
            return Some(Flow::Held(held));
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
                    writing: Writing::default(),
                    is_bounded: true,
                    is_last: false,
                    slot,
                };
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
                Some(Flow::Pending(pending))
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

    /// Sends a whole transaction.
    fn exec_upstream(&mut self, upstream: &Arc<Upstream>, session: &mut Session, out: &mut Vec<u8>) -> Flow {
        let at = out.len();
        let is_plain = is_plain_block(session);
        let transaction = session.transaction.take().unwrap_or_default();
        session.client.queued.store(0, Relaxed);
        session.client.transaction_memory.store(0, Relaxed);
        let (mut bytes, mut forms) = (Vec::new(), Vec::new());
        let (mut keys, mut all, mut db) = (SmallVec::new(), false, session.db);
        let mut slots = Keys::new();
        let mut read: Vec<Box<[u8]>> = Vec::new();
        encode([&b"MULTI"[..]].into_iter(), &mut bytes);
        for (command, args) in &transaction.forwarded {
            let args = args.as_args();
            encode(args.iter(), &mut bytes);
            let command = command.map(|index| COMMANDS.at(index));
            forms.push(
                command.and_then(rewriting).map_or(Rewrite::Plain, |rewriting| rewriting.with(args.len())),
            );
            let touch = match command {
                Some(command) => touch_of(command, args),
                None => foreign_route(upstream, args, ReplyError::SYNTAX)
                    .map_or(Touch::Everything, |routed| routed.touch),
            };
            if upstream.cluster.is_some()
                && let Touch::Reads(keys) | Touch::Writes(keys) = &touch
            {
                slots.extend(keys.iter().cloned());
            }
            if let Touch::Reads(keys) = &touch
                && session.tracking.is_some()
            {
                read.extend(keys.iter().map(|(_, key)| key.clone()));
            }
            match touch {
                Touch::Reads(_) if !is_plain && session.watched_upstream.is_none() => {}
                Touch::Reads(more) | Touch::Writes(more) => keys.extend(more),
                Touch::Everything => all = true,
                Touch::Nothing => {}
            }
            if command.is_some_and(|command| command.spec.name == "select")
                && let Some(index) = crate::types::number::parse_i64(args.at(1))
            {
                db = index.max(0) as usize;
            }
        }
        encode([&b"EXEC"[..]].into_iter(), &mut bytes);
        // Without a cluster there are none.
        let Ok(slot) = only_slot(&slots) else {
            session.watched_upstream = None;
            // In the words of Redis, which do not speak of an abort.
            if !is_silenced(session) {
                Reply::new(out, session.protocol).error(&CROSS_SLOT);
            }
            return Flow::Next;
        };
        if upstream.cluster.is_some() {
            db = 0;
        }
        let writing = if all { upstream.writing_all() } else { upstream.writing(keys) };
        let reads = self.reads_of(session, read.iter().map(|key| &**key));
        let replies = transaction.forwarded.len() + 2;
        let resp3 = session.protocol == Protocol::Resp3;
        if let Some(watched) = session.watched_upstream.take() {
            let call = Call {
                db: session.db,
                resp3,
                requests: bytes,
                replies,
                writing,
                is_bounded: true,
                is_last: db == session.db,
                slot,
            };
            session.select(db);
            return own(upstream, watched, call, reads, is_silenced(session));
        }
        let form = if is_plain || resp3 { Form::Raw } else { Form::Block(forms) };
        let batch = self.batch(is_plain);
        if upstream.cluster.is_some() {
            let queued: Vec<_> = (1..replies).map(|_| batch.gather.ticket()).collect();
            let (ticket, place) = batch.gather.ticket();
            let first = queued.first().map_or(place, |(_, place)| *place);
            let mut expected: Vec<Expected> = queued
                .into_iter()
                .map(|(ticket, _)| Expected::Answer(ticket, Form::Raw, Writing::default()))
                .collect();
            expected.push(Expected::Answer(ticket, form.clone(), writing));
            let target = slot.map_or(Target::Any, Target::Slot);
            let again = Again { target, sent_to: None, bytes, replies, form, keys: slots };
            batch.add_unit(Unit { requests: None, expected, again, first });
            let what = Awaited::One { place, is_write: true };
            batch.places.push(Place { at, what, is_silent: is_silenced(session), reads });
            return Flow::Next;
        }
        let (ticket, place) = batch.gather.ticket();
        let what = Awaited::One { place, is_write: true };
        batch.places.push(Place { at, what, is_silent: is_silenced(session), reads });
        let mut expected: Vec<Expected> = (0..replies - 1).map(|_| Expected::Ignored).collect();
        expected.push(Expected::Answer(ticket, form, writing));
        if db != session.db {
            // The connection must be where it is believed to be.
            encode(
                [&b"SELECT"[..], itoa::Buffer::new().format(session.db).as_bytes()].into_iter(),
                &mut bytes,
            );
            expected.push(Expected::Selected);
        }
        batch.add(upstream, session.db, expected, |to| to.extend_from_slice(&bytes));
        session.select(db);
        Flow::Next
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

    /// A read of one key.
    fn read(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        request: &Request<'_>,
        rewrite: Option<Rewrite>,
        out: &mut Vec<u8>,
    ) {
        let (now, mark) = (crate::clock::steady_ms(self.ticks), out.len());
        let reads = self.reads_of(session, std::iter::once(request.args.at(request.key_at)));
        let form = || rewrite.map_or(Form::Raw, Form::Resp2);
        match upstream.near.find(request, now, out) {
            Found::Reply { refresh } => {
                if let Some(reads) = reads {
                    reads.note();
                }
                let percent = upstream.config.shadow_percent;
                let is_sample = percent > 0.0 && fastrand::f64() * 100.0 < percent;
                if refresh || is_sample {
                    let shadow = is_sample.then(|| out[mark..].into());
                    if let Some(filling) = upstream.near.read_again(request, now_ms(), shadow) {
                        crate::tiers::upstream::count(&upstream.statistics.refreshes);
                        let mut bytes = Vec::new();
                        encode_fill(request, &mut bytes);
                        let expected = [Expected::Ttl, Expected::Fill(Box::new(filling), form())];
                        let node = upstream.cluster.as_ref().map(|cluster| {
                            cluster.at(&Target::Slot(slot_of(request.args.at(request.key_at))))
                        });
                        let link = match &node {
                            Some(Some(node)) => &node.tracked,
                            // In a cluster of which nothing is known, it is never made, and refuses.
                            _ => &upstream.tracked,
                        };
                        if let Some(None) = node {
                            link.refuse(expected.into());
                        } else {
                            link.send(request.db, &bytes, expected, now_ms());
                            link.flush();
                        }
                    }
                }
                if is_silenced(session) {
                    out.truncate(mark);
                }
            }
            Found::Nothing if upstream.cluster.is_some() => {
                self.miss_in_cluster(upstream, request, form(), (mark, is_silenced(session), reads));
            }
            Found::Nothing => {
                let batch = self.batch(false);
                let (ticket, place) = batch.gather.ticket();
                let what = Awaited::One { place, is_write: false };
                batch.places.push(Place { at: mark, what, is_silent: is_silenced(session), reads });
                match upstream.near.miss(request, now_ms(), ticket) {
                    Miss::Joined => {}
                    Miss::Lead(filling) => {
                        let expected = [Expected::Ttl, Expected::Fill(Box::new(filling), form())];
                        batch.add(upstream, request.db, expected, |to| encode_fill(request, to));
                    }
                    Miss::Unkept(ticket) => {
                        let expected = [Expected::Answer(ticket, form(), Writing::default())];
                        batch.add(upstream, request.db, expected, |to| encode(request.args.iter(), to));
                    }
                }
            }
        }
    }

    /// `MGET`: each key by itself, those that are missing in one request.
    fn read_several(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        command: &Command,
        keys: &[(u64, Box<[u8]>)],
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) {
        let Some(get) = COMMANDS.get(b"get").map(|get| get.index) else { return };
        let resp3 = session.protocol == Protocol::Resp3;
        let rewrite = (!resp3).then_some(Rewrite::Plain);
        let now = crate::clock::steady_ms(self.ticks);
        let db = session.db;
        let request = |command, index: usize| Request {
            db,
            command,
            args,
            key_at: index + 1,
            has_rest: false,
            resp3,
            hash: keys[index].0,
        };
        // GET's reply to another type is an error, MGET's is null.
        let fits = |reply: &[u8]| matches!(reply.first(), Some(b'$' | b'_'));
        let reads = self.reads_of(session, keys.iter().map(|(_, key)| &**key));
        let mut elements: Vec<Element> = Vec::with_capacity(keys.len());
        let mut missing: SmallVec<[usize; 8]> = SmallVec::new();
        for index in 0..keys.len() {
            let mut here = Vec::new();
            if upstream.near.find_if(&request(get, index), now, fits, &mut here) == Found::Nothing {
                missing.push(index);
            }
            elements.push(Element::Here(here));
        }
        let (mark, is_silent) = (out.len(), is_silenced(session));
        if missing.is_empty() {
            if let Some(reads) = reads {
                reads.note();
            }
            if !is_silent {
                write_elements(&elements, &[], out);
            }
            return;
        }
        if upstream.cluster.is_some() {
            let form = rewrite.map_or(Form::Raw, Form::Resp2);
            for index in missing {
                elements[index] =
                    self.element_in_cluster(upstream, &request(command.index, index), &form, get);
            }
            let what = Awaited::Elements(elements);
            self.batch(false).places.push(Place { at: mark, what, is_silent, reads });
            return;
        }
        let batch = self.batch(false);
        let (mut bytes, mut asked, mut fillings) = (Vec::new(), vec![&b"MGET"[..]], Vec::new());
        let (mut unkept_keys, mut unkept) = (vec![&b"MGET"[..]], Vec::new());
        let sent_ms = now_ms();
        for index in missing {
            let (ticket, place) = batch.gather.ticket();
            elements[index] = Element::Awaited(place);
            match upstream.near.miss(&request(command.index, index), sent_ms, ticket) {
                Miss::Joined => {}
                Miss::Lead(filling) => {
                    asked.push(&keys[index].1);
                    fillings.push(filling);
                }
                Miss::Unkept(ticket) => {
                    unkept_keys.push(&keys[index].1);
                    unkept.push(ticket);
                }
            }
        }
        let form = || rewrite.map_or(Form::Raw, Form::Resp2);
        let mut expected: Vec<Expected> = Vec::new();
        if !fillings.is_empty() {
            for key in &asked[1..] {
                encode([&b"PTTL"[..], key].into_iter(), &mut bytes);
                expected.push(Expected::Ttl);
            }
            encode(asked.into_iter(), &mut bytes);
            expected.push(Expected::Fills(fillings, form(), get));
        }
        if !unkept.is_empty() {
            encode(unkept_keys.into_iter(), &mut bytes);
            expected.push(Expected::Elements(unkept, form()));
        }
        batch.add(upstream, session.db, expected, |to| to.extend_from_slice(&bytes));
        batch.places.push(Place { at: mark, what: Awaited::Elements(elements), is_silent, reads });
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
        if let Some(cluster) = &upstream.cluster {
            let form = match routed.rewrite {
                Some(rewrite) if session.protocol == Protocol::Resp2 && !is_plain => Form::Resp2(rewrite),
                _ => Form::Raw,
            };
            let reads = match &routed.touch {
                Touch::Reads(keys) => self.reads_of(session, keys.iter().map(|(_, key)| &**key)),
                _ => None,
            };
            let is_silent = is_silenced(session);
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
        let reads = match &routed.touch {
            Touch::Reads(keys) => self.reads_of(session, keys.iter().map(|(_, key)| &**key)),
            _ => None,
        };
        let writing = match routed.touch {
            Touch::Everything => upstream.writing_all(),
            Touch::Writes(keys) => upstream.writing(keys),
            Touch::Reads(keys) if is_plain => upstream.writing(keys),
            Touch::Reads(_) | Touch::Nothing => Writing::default(),
        };
        let form = match routed.rewrite {
            Some(rewrite) if session.protocol == Protocol::Resp2 && !is_plain => Form::Resp2(rewrite),
            _ => Form::Raw,
        };
        let batch = self.batch(is_plain);
        let (ticket, place) = batch.gather.ticket();
        let what = Awaited::One { place, is_write };
        batch.places.push(Place { at, what, is_silent: is_silenced(session), reads });
        let expected = [Expected::Answer(ticket, form, writing)];
        batch.add(upstream, session.db, expected, |to| encode(args.iter(), to));
        crate::tiers::upstream::count(&upstream.statistics.requests);
    }

    /// By a connection of the client's own.
    fn dedicated(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        routed: Routed<'_>,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Flow {
        let slot = match &routed.touch {
            Touch::Writes(keys) | Touch::Reads(keys) if upstream.cluster.is_some() => only_slot(keys),
            _ => Ok(None),
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(error) => return self.refused(session, args, &error, out),
        };
        let reads = match &routed.touch {
            Touch::Reads(keys) => self.reads_of(session, keys.iter().map(|(_, key)| &**key)),
            _ => None,
        };
        let writing = match routed.touch {
            Touch::Everything => upstream.writing_all(),
            // What another connection reads may be newer than what is kept.
            Touch::Writes(keys) | Touch::Reads(keys) => upstream.writing(keys),
            Touch::Nothing => Writing::default(),
        };
        let mut requests = Vec::new();
        encode(args.iter(), &mut requests);
        let is_bounded = routed.route != Route::Dedicated
            || routed.command.is_some_and(|command| matches!(command.spec.run, Run::Control(_)));
        let (watched, is_last) = match &session.watched_upstream {
            Some(watched) => (watched.clone(), false),
            None => (Watched::default(), true),
        };
        let resp3 = session.protocol == Protocol::Resp3;
        let call = Call { db: session.db, resp3, requests, replies: 1, writing, is_bounded, is_last, slot };
        own(upstream, watched, call, reads, is_silenced(session))
    }

    /// Subscriptions and `MONITOR`.
    fn stream(&mut self, upstream: &Arc<Upstream>, session: &mut Session, args: Args<'_>) -> Flow {
        let is_monitor = args.is(0, "monitor");
        let (resp3, db) = (session.protocol == Protocol::Resp3, session.db);
        let mut request = Vec::new();
        encode(args.iter(), &mut request);
        let stream = session.stream.get_or_insert_with(|| {
            let is_sharded = args.is(0, "ssubscribe") && args.len() > 1;
            Stream::open(upstream, resp3, db, is_sharded.then(|| slot_of(args.at(1))), is_monitor)
        });
        stream.send(request);
        // Its replies come by the stream; those before them are out already.
        let settled = stream.settled();
        Flow::Pending(Pending::reply(Box::pin(async move {
            settled.await;
            Vec::new()
        })))
    }

    /// A request of a client that has subscriptions; `None` if it is to be treated as any other.
    fn in_stream(&mut self, session: &mut Session, args: Args<'_>, out: &mut Vec<u8>) -> Option<Flow> {
        let stream = session.stream.as_mut()?;
        stream.drain(out);
        if stream.is_over() {
            session.stream = None;
            return None;
        }
        let is_own = foreign_command(args.at(0)).is_some_and(|foreign| foreign.route == Route::Stream);
        let ends = ["quit", "reset"].iter().any(|name| args.is(0, name));
        if is_own || ends || session.protocol == Protocol::Resp3 || stream.is_monitor() {
            return None;
        }
        if !stream.is_settled() {
            // Whether it may run depends on what upstream has yet to say.
            let settled = stream.settled();
            let fill = Box::pin(async move {
                settled.await;
                Ok(())
            });
            return Some(Flow::Pending(Pending::fill(fill, args)));
        }
        let mut request = Vec::new();
        encode(args.iter(), &mut request);
        stream.send(request);
        let settled = stream.settled();
        Some(Flow::Pending(Pending::reply(Box::pin(async move {
            settled.await;
            Vec::new()
        }))))
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

/// By a connection of the client's own.
fn own(
    upstream: &Arc<Upstream>,
    watched: Watched,
    call: Call,
    reads: Option<Box<Reads>>,
    is_silent: bool,
) -> Flow {
    let is_bounded = call.is_bounded;
    let reply = watched.call(upstream.clone(), call);
    let mut pending = Pending::reply(Box::pin(async move {
        let reply = reply.await;
        if let Some(reads) = reads {
            reads.tell_at_once();
        }
        reply
    }));
    if is_silent {
        pending.silence();
    }
    Flow::Pending(if is_bounded { pending } else { pending.unbounded() })
}

fn queue(session: &mut Session, command: Option<&Command>, args: Args<'_>, out: &mut Vec<u8>) -> Flow {
    let is_silent = is_silenced(session);
    if let Some(transaction) = &mut session.transaction {
        transaction.push_forwarded(command.map(|command| command.index), args);
        session.client.queued.store(transaction.forwarded.len() + 1, Relaxed);
        session.client.transaction_memory.store(transaction.memory(), Relaxed);
    }
    if !is_silent {
        Reply::new(out, session.protocol).simple("QUEUED");
    }
    Flow::Next
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

fn is_plain_block(session: &Session) -> bool {
    let commands = session.transaction.iter().flat_map(|transaction| &transaction.forwarded);
    session.protocol == Protocol::Resp2
        && commands
            .map(|(command, _)| command.map(|index| COMMANDS.at(index)))
            .any(|command| command.and_then(rewriting).is_none())
}

/// How a queued command's reply differs in RESP2, if that is known.
fn rewriting(command: &'static Command) -> Option<crate::commands::routing::Rewriting> {
    match command.spec.run {
        // What does not wait replies in ways of its own.
        Run::Blocking(_) => None,
        Run::Session(_) | Run::Control(_) => Some(crate::commands::routing::Rewriting::Plain),
        _ => command.routing.rewriting,
    }
}
