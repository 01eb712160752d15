//! Reads that the near cache may answer: what it has is written at once, what it lacks is asked for upstream, once however
//! many ask.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use smallvec::SmallVec;

use super::batch::{Awaited, Element, Place, encode_fill, write_elements};
use super::forward::is_silenced;
use super::worker::Worker;
use crate::clients::Session;
use crate::commands::table::{COMMANDS, Command};
use crate::protocol::{Args, Protocol};
use crate::tiers::upstream::{
    Expected, Form, Found, Miss, Request, Rewrite, Target, Upstream, Writing, encode, now_ms, slot_of,
};

impl Worker {
    /// The way of most requests: a read of one key by a client that is in no special state. Says whether it was one.
    #[inline]
    pub(super) fn read_at_once(
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
            || session.user.is_restricted()
            || args
                .get(key_at)
                .is_none_or(|key| upstream.tier_of(key).is_some() || self.is_shared_row(session.db, key))
            || self.admit(session, command, args).is_err()
        {
            return false;
        }
        session.client.last_command.store(command.index, Relaxed);
        let begin = self.ticks;
        let rewrite = routing.rewriting.filter(|_| !resp3).map(|rewriting| rewriting.with(args.len()));
        let request =
            Request { db: session.db, command: command.index, args, key_at, has_rest: true, resp3, hash };
        if self.is_shared_row(session.db, args.at(key_at)) {
            // What is missing may have to be loaded first.
            let is_kept = self.hit(upstream, session, &request, out);
            if is_kept {
                self.measure(&session.client, command, args, begin);
            }
            return is_kept;
        }
        self.read(upstream, session, &request, rewrite, out);
        self.measure(&session.client, command, args, begin);
        true
    }

    /// Answers a read if its reply is kept, and says so.
    pub(super) fn hit(
        &mut self,
        upstream: &Upstream,
        session: &mut Session,
        request: &Request<'_>,
        out: &mut Vec<u8>,
    ) -> bool {
        let (now, mark) = (crate::clock::steady_ms(self.ticks), out.len());
        let reads = self.reads_of(session, std::iter::once(request.args.at(request.key_at)));
        if let Found::Nothing = upstream.near.find(request, now, out) {
            return false;
        }
        if let Some(reads) = reads {
            reads.note();
        }
        if is_silenced(session) {
            out.truncate(mark);
        }
        true
    }

    /// A read of one key.
    pub(super) fn read(
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
    pub(super) fn read_several(
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
}
