//! Requests that need an upstream connection of the client's own: what waits, watches or subscribes.

use std::sync::Arc;

use super::execute::Flow;
use super::forward::is_silenced;
use super::pending::Pending;
use super::spread::only_slot;
use super::touch::{Routed, Touch};
use super::tracked::Reads;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::routing::{Route, foreign_command};
use crate::commands::spec::Run;
use crate::commands::table::COMMANDS;
use crate::protocol::{Args, Protocol};
use crate::tiers::upstream::{Call, Form, Stream, Upstream, Watched, Writing, encode, slot_of};

impl Worker {
    /// By a connection of the client's own.
    pub(super) fn dedicated(
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
        let reads = self.reads_touched(session, &routed.touch);
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
        let (db, form) = (session.db, Form::Raw);
        let call = Call { db, resp3, requests, replies: 1, form, writing, is_bounded, is_last, slot };
        own(upstream, watched, call, reads, is_silenced(session))
    }

    /// Subscriptions and `MONITOR`.
    pub(super) fn stream(&mut self, upstream: &Arc<Upstream>, session: &mut Session, args: Args<'_>) -> Flow {
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
        Flow::pending(Pending::reply(Box::pin(async move {
            settled.await;
            Vec::new()
        })))
    }

    /// A request of a client that has subscriptions; `None` if it is to be treated as any other.
    pub(super) fn in_stream(
        &mut self,
        session: &mut Session,
        args: Args<'_>,
        out: &mut Vec<u8>,
    ) -> Option<Flow> {
        let stream = session.stream.as_mut()?;
        stream.drain(out);
        if stream.is_over() {
            session.stream = None;
            return None;
        }
        let is_own = match COMMANDS.get(args.at(0)) {
            Some(command) => command.routing.route == Route::Stream,
            None => foreign_command(args.at(0)).is_some_and(|foreign| foreign.route == Route::Stream),
        };
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
            return Some(Flow::pending(Pending::fill(fill, args)));
        }
        let mut request = Vec::new();
        encode(args.iter(), &mut request);
        stream.send(request);
        let settled = stream.settled();
        Some(Flow::pending(Pending::reply(Box::pin(async move {
            settled.await;
            Vec::new()
        }))))
    }
}

/// By a connection of the client's own.
pub(super) fn own(
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
    Flow::pending(if is_bounded { pending } else { pending.unbounded() })
}
