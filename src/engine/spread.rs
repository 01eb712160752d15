//! Requests to a cluster: each goes to the node of its slot, or in parts to several, whose replies make one.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::batch::{Awaited, Element, Merge, Place, Unit, encode_fill};
use super::touch::{Routed, Touch};
use super::tracked::Reads;
use super::worker::Worker;
use crate::commands::spec::flag;
use crate::protocol::{Args, ReplyError};
use crate::tiers::upstream::{
    Again, Cluster, Expected, Form, Miss, Request, Target, Upstream, Writing, encode, now_ms, slot_of,
};

/// What Redis says of keys that no single node has.
pub(super) const CROSS_SLOT: ReplyError =
    ReplyError::fixed("CROSSSLOT Keys in request don't hash to the same slot");

pub(super) type Keys = SmallVec<[(u64, Box<[u8]>); 1]>;

/// The slot that all keys have, if there is a key.
pub(super) fn only_slot(keys: &Keys) -> Result<Option<u16>, ReplyError> {
    let mut slots = keys.iter().map(|(_, key)| slot_of(key));
    let Some(first) = slots.next() else { return Ok(None) };
    if slots.any(|slot| slot != first) { Err(CROSS_SLOT) } else { Ok(Some(first)) }
}

/// A part of a request.
struct Part {
    target: Target,
    bytes: Vec<u8>,
    keys: Keys,
}

impl Worker {
    /// What is not kept. Says that its keys are not one node's, if the command cannot be split.
    pub(super) fn send_to_cluster(
        &mut self,
        (upstream, cluster): (&Arc<Upstream>, &Cluster),
        (routed, is_plain): (Routed<'_>, bool),
        form: &Form,
        args: Args<'_>,
        (at, is_silent, reads): (usize, bool, Option<Box<Reads>>),
    ) -> Result<(), ReplyError> {
        let is_write = !matches!(routed.touch, Touch::Reads(_) | Touch::Nothing)
            || routed.command.is_none_or(|command| command.spec.flags & flag::READONLY == 0);
        let (keys, all, is_marked) = match routed.touch {
            Touch::Reads(keys) => (keys, false, is_plain),
            Touch::Writes(keys) => (keys, false, true),
            Touch::Everything => (Keys::new(), true, true),
            Touch::Nothing => (Keys::new(), false, false),
        };
        let name = routed.command.map_or("", |command| command.name.as_str());
        let whole = |target| {
            let mut bytes = Vec::new();
            encode(args.iter(), &mut bytes);
            Part { target, bytes, keys: keys.clone() }
        };
        let everywhere =
            || cluster.masters().into_iter().map(|node| whole(Target::Node(node))).collect::<Vec<_>>();
        let (parts, merge) = match (only_slot(&keys), name) {
            (Ok(Some(slot)), _) => (vec![whole(Target::Slot(slot))], None),
            (Err(_), "del" | "unlink" | "exists" | "touch") => (by_slot(args, 1, &keys), Some(Merge::Sum)),
            (Err(_), "mset") if args.len() % 2 == 1 => (by_slot(args, 2, &keys), Some(Merge::AllOk)),
            (Err(_), "mget") => {
                self.several_unkept(upstream, cluster, (&keys, is_plain), form, (at, is_silent, reads));
                return Ok(());
            }
            (Err(error), _) => return Err(error),
            (Ok(None), "dbsize") => (everywhere(), Some(Merge::Sum)),
            (
                Ok(None),
                "flushall" | "flushdb" | "script|load" | "script|flush" | "function|load" | "function|delete"
                | "function|flush" | "function|restore",
            ) => (everywhere(), Some(Merge::AllOk)),
            (Ok(None), "keys") => (everywhere(), Some(Merge::Concatenated)),
            (Ok(None), "scan") => {
                let masters = cluster.masters();
                let cursor = std::str::from_utf8(args.at(1)).ok().and_then(|text| text.parse::<u64>().ok());
                let cursor = cursor.ok_or(ReplyError::fixed("ERR invalid cursor"))?;
                let (count, index) = (masters.len(), (cursor % MOST_NODES) as usize);
                // Of a node that is there no more nothing is left to be told.
                let node = masters.get(index).or(masters.first()).cloned();
                let cursor = if index < count { cursor / MOST_NODES } else { 0 };
                let mut number = itoa::Buffer::new();
                let mut words: Vec<&[u8]> = args.iter().collect();
                words[1] = number.format(cursor).as_bytes();
                let mut bytes = Vec::new();
                encode(words.into_iter(), &mut bytes);
                let target = node.map_or(Target::Any, Target::Node);
                let part = Part { target, bytes, keys: Keys::new() };
                (vec![part], Some(Merge::Scan { index: index.min(count.saturating_sub(1)), count }))
            }
            (Ok(None), _) if args.is(0, "spublish") && args.len() > 1 => {
                (vec![whole(Target::Slot(slot_of(args.at(1))))], None)
            }
            (Ok(None), _) => (vec![whole(Target::Any)], None),
        };
        let parts = if parts.is_empty() { vec![whole(Target::Any)] } else { parts };
        let batch = self.batch(is_plain);
        let mut places = Vec::with_capacity(parts.len());
        for Part { target, bytes, keys } in parts {
            let writing = match (all, is_marked) {
                (true, _) => upstream.writing_all(),
                (false, true) => upstream.writing(keys.clone()),
                (false, false) => Writing::default(),
            };
            let (ticket, place) = batch.gather.ticket();
            places.push(place);
            let expected = vec![Expected::Answer(ticket, form.clone(), writing)];
            let again = Again { target, sent_to: None, bytes, replies: 1, form: form.clone(), keys };
            batch.add_unit(Unit { requests: None, expected, again, first: place });
        }
        let what = match merge {
            Some(merge) => Awaited::Merged { places, merge, is_write },
            None => Awaited::One { place: places[0], is_write },
        };
        batch.places.push(Place { at, what, is_silent, reads });
        crate::tiers::upstream::count(&upstream.statistics.requests);
        Ok(())
    }

    /// `MGET` of keys that are never kept.
    fn several_unkept(
        &mut self,
        upstream: &Arc<Upstream>,
        _cluster: &Cluster,
        (keys, is_plain): (&Keys, bool),
        form: &Form,
        (at, is_silent, reads): (usize, bool, Option<Box<Reads>>),
    ) {
        let batch = self.batch(is_plain);
        let mut elements = Vec::with_capacity(keys.len());
        for (hash, key) in keys {
            let (ticket, place) = batch.gather.ticket();
            elements.push(Element::OfOne(place));
            let keys: Keys = smallvec![(*hash, key.clone())];
            let writing = if is_plain { upstream.writing(keys.clone()) } else { Writing::default() };
            let expected = vec![Expected::Answer(ticket, form.clone(), writing)];
            batch.add_unit(Unit { requests: None, expected, again: mget_of(key, keys, form), first: place });
        }
        batch.places.push(Place { at, what: Awaited::Elements(elements), is_silent, reads });
    }

    /// A read of one key that is not here: the one who sends it, or waits for another's, can send it again.
    pub(super) fn miss_in_cluster(
        &mut self,
        upstream: &Upstream,
        request: &Request<'_>,
        form: Form,
        (at, is_silent, reads): (usize, bool, Option<Box<Reads>>),
    ) {
        let key = request.args.at(request.key_at);
        let batch = self.batch(false);
        let (ticket, place) = batch.gather.ticket();
        batch.places.push(Place { at, what: Awaited::One { place, is_write: false }, is_silent, reads });
        let (mut requests, mut bytes) = (None, Vec::new());
        encode(request.args.iter(), &mut bytes);
        let expected = match upstream.near.miss(request, now_ms(), ticket) {
            Miss::Joined => Vec::new(),
            Miss::Lead(filling) => {
                let mut both = Vec::new();
                encode_fill(request, &mut both);
                requests = Some(both);
                vec![Expected::Ttl, Expected::Fill(Box::new(filling), form.clone())]
            }
            Miss::Unkept(ticket) => vec![Expected::Answer(ticket, form.clone(), Writing::default())],
        };
        let (target, keys) = (Target::Slot(slot_of(key)), smallvec![(request.hash, key.into())]);
        let again = Again { target, sent_to: None, bytes, replies: 1, form, keys };
        batch.add_unit(Unit { requests, expected, again, first: place });
    }

    /// One key of an `MGET` that is not here.
    pub(super) fn element_in_cluster(
        &mut self,
        upstream: &Upstream,
        request: &Request<'_>,
        form: &Form,
        get: usize,
    ) -> Element {
        let key = request.args.at(request.key_at);
        let batch = self.batch(false);
        let (ticket, place) = batch.gather.ticket();
        let again = mget_of(key, smallvec![(request.hash, key.into())], form);
        let mut requests = None;
        let expected = match upstream.near.miss(request, now_ms(), ticket) {
            Miss::Joined => Vec::new(),
            Miss::Lead(filling) => {
                let mut both = Vec::new();
                encode([&b"PTTL"[..], key].into_iter(), &mut both);
                both.extend_from_slice(&again.bytes);
                requests = Some(both);
                vec![Expected::Ttl, Expected::Fills(vec![filling], form.clone(), get)]
            }
            Miss::Unkept(ticket) => vec![Expected::Elements(vec![ticket], form.clone())],
        };
        batch.add_unit(Unit { requests, expected, again, first: place });
        Element::OfOne(place)
    }
}

/// A cursor of ours is upstream's times this, and the number of the node.
pub(super) const MOST_NODES: u64 = 1024;

fn mget_of(key: &[u8], keys: Keys, form: &Form) -> Again {
    let mut bytes = Vec::new();
    encode([&b"MGET"[..], key].into_iter(), &mut bytes);
    let target = Target::Slot(slot_of(key));
    Again { target, sent_to: None, bytes, replies: 1, form: form.clone(), keys }
}

/// The parts of a request, one for each slot: each key with what belongs to it, `step` arguments in all.
fn by_slot(args: Args<'_>, step: usize, keys: &Keys) -> Vec<Part> {
    let words: Vec<&[u8]> = args.iter().collect();
    let mut parts: Vec<(u16, Vec<&[u8]>, Keys)> = Vec::new();
    for (index, group) in words[1..].chunks(step).enumerate() {
        let slot = slot_of(group[0]);
        let at = parts.iter().position(|(other, ..)| *other == slot).unwrap_or_else(|| {
            parts.push((slot, vec![words[0]], Keys::new()));
            parts.len() - 1
        });
        parts[at].1.extend_from_slice(group);
        parts[at].2.extend(keys.get(index).cloned());
    }
    let part = |(slot, words, keys): (u16, Vec<&[u8]>, Keys)| {
        let mut bytes = Vec::new();
        encode(words.into_iter(), &mut bytes);
        Part { target: Target::Slot(slot), bytes, keys }
    };
    parts.into_iter().map(part).collect()
}
