//! Transactions that upstream runs: queued here, sent as one block.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::batch::{Awaited, Place, Unit};
use super::execute::Flow;
use super::forward::is_silenced;
use super::limits_in_block::{InBlock, with_limits};
use super::own_connection::own;
use super::spread::{CROSS_SLOT, Keys, only_slot};
use super::touch::{Touch, touch_of_queued};
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::spec::Run;
use crate::commands::table::{COMMANDS, Command};
use crate::protocol::{Args, Protocol, Reply};
use crate::tiers::upstream::{Again, Call, Expected, Form, Rewrite, Target, Upstream, Writing, encode};

impl Worker {
    /// Sends a whole transaction.
    pub(super) fn exec_upstream(
        &mut self,
        upstream: &Arc<Upstream>,
        session: &mut Session,
        out: &mut Vec<u8>,
    ) -> Flow {
        let at = out.len();
        let is_plain = is_plain_block(session);
        let transaction = session.transaction.take().unwrap_or_default();
        session.client.queued.store(0, Relaxed);
        session.client.transaction_memory.store(0, Relaxed);
        if let Some(shared) = self.instance.shared_database()
            && let Some(flow) = self.exec_on_rows(shared, upstream, session, &transaction, out)
        {
            return flow;
        }
        let (mut bytes, mut forms) = (Vec::new(), Vec::new());
        let (mut keys, mut all, mut db) = (SmallVec::new(), false, session.db);
        let mut slots = Keys::new();
        let mut read: Vec<Box<[u8]>> = Vec::new();
        encode([&b"MULTI"[..]].into_iter(), &mut bytes);
        let (mut limits, mut scripts) = (Vec::new(), SmallVec::new());
        for (command, args) in &transaction.forwarded {
            let command = command.map(|index| COMMANDS.at(index));
            let limit = command
                .filter(|command| matches!(command.spec.run, Run::Limit(_)))
                .map(|command| InBlock::of(self.instance, command, args, db));
            let args = args.as_args();
            match &limit {
                Some(limit) => limit.encode(&mut scripts, &mut bytes),
                None => encode(args.iter(), &mut bytes),
            }
            forms.push(
                command.and_then(rewriting).map_or(Rewrite::Plain, |rewriting| rewriting.with(args.len())),
            );
            let touch = match &limit {
                Some(limit) => limit.touch(),
                None => touch_of_queued(upstream, command, args),
            };
            limits.push(limit);
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
        let form = if is_plain || resp3 { Form::Raw } else { Form::Block(forms) };
        if let Some(watched) = session.watched_upstream.take() {
            let call = Call {
                db: session.db,
                resp3,
                requests: bytes,
                replies,
                form: with_limits(self.instance, limits, Form::Raw),
                writing,
                is_bounded: true,
                is_last: db == session.db,
                slot,
            };
            session.select(db);
            return own(upstream, watched, call, reads, is_silenced(session));
        }
        let form = with_limits(self.instance, limits, form);
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
}

pub(super) fn queue(
    session: &mut Session,
    command: Option<&Command>,
    args: Args<'_>,
    out: &mut Vec<u8>,
) -> Flow {
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

pub(super) fn is_plain_block(session: &Session) -> bool {
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
        Run::Session(_) | Run::Control(_) | Run::Limit(_) => Some(crate::commands::routing::Rewriting::Plain),
        _ => command.routing.rewriting,
    }
}
