//! What consumers were given and are not done with: `XPENDING`, `XCLAIM`, `XAUTOCLAIM`.

use super::groups::no_group;
use super::{end, id, start, write_entry, write_id};
use crate::commands::arguments::{Options, integer, integer_in};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::number::parse_i64;
use crate::types::stream::{Group, Stream, StreamId};

/// How many pending entries `XAUTOCLAIM` looks at for each that it may take.
const LOOKS: u64 = 10;

/// That the stream or its group is not there, unless both are.
fn check_group(view: &mut View<'_>, key: &[u8], group: &[u8]) -> CommandResult {
    let stream = view.peek_as::<Box<Stream>>(key)?;
    if stream.is_some_and(|stream| stream.group(group).is_some()) {
        Ok(())
    } else {
        Err(no_group(key, group, ""))
    }
}

pub(super) fn xpending(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, name) = (args.at(1), args.at(2));
    let filter = if args.len() == 3 { None } else { Some(Filter::parse(args)?) };
    let now_ms = view.now_ms();
    let stream = view.get::<Box<Stream>>(key)?;
    let Some(group) = stream.and_then(|stream| stream.group(name)) else {
        return Err(no_group(key, name, ""));
    };
    match filter {
        None => summarize(group, reply),
        Some(filter) => filter.write(group, now_ms, reply),
    }
    Ok(())
}

fn summarize(group: &Group, reply: &mut Reply<'_>) {
    reply.array(4);
    reply.count(group.pending().len());
    let (Some((first, _)), Some((last, _))) =
        (group.pending().first_key_value(), group.pending().last_key_value())
    else {
        reply.null();
        reply.null();
        reply.null_array();
        return;
    };
    write_id(reply, *first);
    write_id(reply, *last);
    let array = reply.deferred();
    let mut consumers = 0;
    for consumer in group.consumers().filter(|consumer| !consumer.pending.is_empty()) {
        reply.array(2);
        reply.bulk(&consumer.name);
        reply.bulk_integer(consumer.pending.len() as i64);
        consumers += 1;
    }
    reply.end_array(array, consumers);
}

/// Which pending entries are asked for.
struct Filter<'a> {
    from: StreamId,
    to: StreamId,
    count: usize,
    idle_ms: u64,
    consumer: Option<&'a [u8]>,
}

impl<'a> Filter<'a> {
    fn parse(args: Args<'a>) -> Result<Self, ReplyError> {
        if !(6..=9).contains(&args.len()) {
            return Err(ReplyError::SYNTAX);
        }
        let (mut at, mut idle_ms) = (3, 0);
        if args.is(3, "idle") {
            idle_ms = integer(args.at(4))?.max(0) as u64;
            at = 5;
            if args.len() < 8 {
                return Err(ReplyError::SYNTAX);
            }
        }
        let count = integer(args.at(at + 2))?.max(0) as usize;
        let (from, to) = (start(args.at(at))?, end(args.at(at + 1))?);
        Ok(Self { from, to, count, idle_ms, consumer: args.get(at + 3) })
    }

    fn write(&self, group: &Group, now_ms: u64, reply: &mut Reply<'_>) {
        let array = reply.deferred();
        let mut written = 0;
        let is_asked = |consumer: &[u8]| self.consumer.is_none_or(|asked| *asked == *consumer);
        let range =
            if self.from <= self.to { Some(group.pending().range(self.from..=self.to)) } else { None };
        for (id, pending) in range.into_iter().flatten() {
            if written == self.count {
                break;
            }
            let idle = now_ms.saturating_sub(pending.delivered_ms);
            if !is_asked(&pending.consumer) || idle < self.idle_ms {
                continue;
            }
            reply.array(4);
            write_id(reply, *id);
            reply.bulk(&pending.consumer);
            reply.integer(idle as i64);
            reply.integer(pending.deliveries as i64);
            written += 1;
        }
        reply.end_array(array, written);
    }
}

/// What `XCLAIM` is asked for.
struct Claim {
    ids: Vec<StreamId>,
    idle_ms: u64,
    delivered_ms: u64,
    deliveries: Option<u64>,
    is_forced: bool,
    only_ids: bool,
    last_id: StreamId,
}

impl Claim {
    fn parse(args: Args<'_>, now_ms: u64) -> Result<Self, ReplyError> {
        let number = |text: &[u8], error: &'static str| parse_i64(text).ok_or(ReplyError::fixed(error));
        let idle_ms = number(args.at(4), "ERR Invalid min-idle-time argument for XCLAIM")?.max(0) as u64;
        let ids: Vec<StreamId> = args.skip(5).iter().map_while(|text| StreamId::parse(text, 0)).collect();
        let mut options = Options::new(args, 5 + ids.len());
        let mut claim = Self {
            ids,
            idle_ms,
            delivered_ms: now_ms,
            deliveries: None,
            is_forced: false,
            only_ids: false,
            last_id: StreamId::MIN,
        };
        // A time that is not over yet is now.
        let past =
            |millis: i64| u64::try_from(millis).ok().filter(|millis| *millis <= now_ms).unwrap_or(now_ms);
        while !options.is_done() {
            if options.take("force") {
                claim.is_forced = true;
            } else if options.take("justid") {
                claim.only_ids = true;
            } else if options.take_with("idle", 1) {
                let idle = number(options.value()?, "ERR Invalid IDLE option argument for XCLAIM")?;
                claim.delivered_ms = past((now_ms as i64).wrapping_sub(idle));
            } else if options.take_with("time", 1) {
                claim.delivered_ms =
                    past(number(options.value()?, "ERR Invalid TIME option argument for XCLAIM")?);
            } else if options.take_with("retrycount", 1) {
                let count = number(options.value()?, "ERR Invalid RETRYCOUNT option argument for XCLAIM")?;
                claim.deliveries = u64::try_from(count).ok();
            } else if options.take_with("lastid", 1) {
                claim.last_id = id(options.value()?, 0)?;
            } else {
                let option = options.value()?;
                return Err(ReplyError::showing("ERR Unrecognized XCLAIM option '", option, "'"));
            }
        }
        Ok(claim)
    }
}

pub(super) fn xclaim(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, name, consumer) = (args.at(1), args.at(2), args.at(3));
    check_group(view, key, name)?;
    let now_ms = view.now_ms();
    let claim = Claim::parse(args, now_ms)?;
    let array = reply.deferred();
    let done = view.edit(key, Event::SILENT, |stream: &mut Box<Stream>| {
        // Out of the stream meanwhile, so that both can be looked at.
        let Some(mut group) = stream.group_mut(name).map(std::mem::take) else { return ((0, false), false) };
        let mut changed = claim.last_id > group.last_id;
        group.last_id = group.last_id.max(claim.last_id);
        let is_new = group.see(consumer, now_ms).1;
        let mut claimed = 0;
        for id in &claim.ids {
            let pending = group.pending().get(id).cloned();
            let Some(entry) = stream.get(*id) else {
                changed |= group.acknowledge(*id);
                continue;
            };
            let deliveries = match &pending {
                Some(pending) if now_ms.saturating_sub(pending.delivered_ms) < claim.idle_ms => continue,
                Some(pending) => pending.deliveries,
                None if claim.is_forced => 1,
                None => continue,
            };
            let deliveries = claim.deliveries.unwrap_or(deliveries + u64::from(!claim.only_ids));
            group.give(*id, consumer, claim.delivered_ms, deliveries);
            if claim.only_ids {
                write_id(reply, *id)
            } else {
                write_entry(reply, &entry)
            }
            claimed += 1;
        }
        if claimed > 0 {
            group.note_active(consumer, now_ms);
        }
        if let Some(place) = stream.group_mut(name) {
            *place = group;
        }
        ((claimed, is_new), changed || is_new || claimed > 0)
    })?;
    let (claimed, is_new) = done.unwrap_or_default();
    reply.end_array(array, claimed);
    if is_new {
        view.announce(key, Event::stream("xgroup-createconsumer"));
    }
    Ok(())
}

pub(super) fn xautoclaim(view: &mut View<'_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let (key, name, consumer) = (args.at(1), args.at(2), args.at(3));
    let idle_ms =
        integer_in(args.at(4), i64::MIN..=i64::MAX, "ERR Invalid min-idle-time argument for XAUTOCLAIM")?;
    let idle_ms = idle_ms.max(0) as u64;
    let from = start(args.at(5))?;
    let mut options = Options::new(args, 6);
    let (mut count, mut only_ids) = (100, false);
    while !options.is_done() {
        if options.take_with("count", 1) {
            let bounds = 1..=i64::MAX / 16;
            count = integer_in(options.value()?, bounds, "ERR COUNT must be > 0")? as u64;
        } else if options.take("justid") {
            only_ids = true;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    check_group(view, key, name)?;
    let now_ms = view.now_ms();
    reply.array(3);
    let is_new = view.edit(key, Event::SILENT, |stream: &mut Box<Stream>| {
        let Some(mut group) = stream.group_mut(name).map(std::mem::take) else { return (false, false) };
        let is_new = group.see(consumer, now_ms).1;
        let (mut claimed, mut gone) = (Vec::new(), Vec::new());
        let looks = usize::try_from(count.saturating_mul(LOOKS)).unwrap_or(usize::MAX);
        let looked_at: Vec<StreamId> = group.pending().range(from..).take(looks).map(|(id, _)| *id).collect();
        let mut last = None;
        for id in looked_at {
            if (claimed.len() + gone.len()) as u64 == count {
                break;
            }
            last = Some(id);
            if stream.get(id).is_none() {
                group.acknowledge(id);
                gone.push(id);
                continue;
            }
            let Some(pending) = group.pending().get(&id) else { continue };
            if now_ms.saturating_sub(pending.delivered_ms) < idle_ms {
                continue;
            }
            let deliveries = pending.deliveries + u64::from(!only_ids);
            group.give(id, consumer, now_ms, deliveries);
            claimed.push(id);
        }
        let next = last.and_then(StreamId::next).unwrap_or(from);
        let next = group.pending().range(next..).next().map_or(StreamId::MIN, |(id, _)| *id);
        write_id(reply, next);
        reply.array(claimed.len());
        for id in &claimed {
            match stream.get(*id).filter(|_| !only_ids) {
                Some(entry) => write_entry(reply, &entry),
                None => write_id(reply, *id),
            }
        }
        reply.array(gone.len());
        gone.iter().for_each(|id| write_id(reply, *id));
        if !claimed.is_empty() {
            group.note_active(consumer, now_ms);
        }
        if let Some(place) = stream.group_mut(name) {
            *place = group;
        }
        (is_new, is_new || !claimed.is_empty() || !gone.is_empty())
    })?;
    if is_new == Some(true) {
        view.announce(key, Event::stream("xgroup-createconsumer"));
    }
    Ok(())
}
