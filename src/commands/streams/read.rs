//! `XREAD` and `XREADGROUP`.

use super::{id, write_entries, write_entry, write_id};
use crate::commands::arguments::{Options, integer, timeout_ms};
use crate::commands::spec::{Attempt, OnTimeout};
use crate::protocol::{Args, Deferred, OwnedArgs, Reply, ReplyError};
use crate::tiers::local::{Event, View};
use crate::types::stream::{Stream, StreamId};

/// What is asked for.
#[derive(Default)]
struct Request<'a> {
    /// None: not to wait.
    block: Option<Option<u64>>,
    /// 0 for all.
    count: usize,
    /// Group and consumer.
    group: Option<(&'a [u8], &'a [u8])>,
    no_ack: bool,
    /// The first key among the arguments, and how many there are.
    first: usize,
    streams: usize,
}

/// From where on a stream is read.
#[derive(Clone, Copy)]
enum From {
    /// Behind an entry; of a group, what its consumer was given there.
    Behind(StreamId),
    /// What nobody of the group was given.
    New,
}

impl<'a> Request<'a> {
    fn parse(args: Args<'a>, of_group: bool) -> Result<Self, ReplyError> {
        let mut request = Self::default();
        let mut options = Options::new(args, 1);
        let only = |what: &str| {
            let text =
                format!("ERR The {what} option is only supported by XREADGROUP. You called XREAD instead.");
            if of_group { Ok(()) } else { Err(ReplyError::new(text)) }
        };
        while !options.is_done() {
            if options.take_with("block", 1) {
                request.block = Some(timeout_ms(options.value()?)?);
            } else if options.take_with("count", 1) {
                request.count = integer(options.value()?)?.max(0) as usize;
            } else if options.take_with("streams", 1) {
                request.first = args.len() - options.remaining();
                request.streams = options.remaining() / 2;
                if !options.remaining().is_multiple_of(2) {
                    let (name, mark) = if of_group { ("xreadgroup", '>') } else { ("xread", '$') };
                    return Err(ReplyError::new(format!(
                        "ERR Unbalanced '{name}' list of streams: for each stream key an ID or '{mark}' must be specified."
                    )));
                }
                break;
            } else if options.take_with("group", 2) {
                only("GROUP")?;
                request.group = Some((options.value()?, options.value()?));
            } else if options.take("noack") {
                only("NOACK")?;
                request.no_ack = true;
            } else {
                return Err(ReplyError::SYNTAX);
            }
        }
        if request.first == 0 {
            return Err(ReplyError::SYNTAX);
        }
        if of_group && request.group.is_none() {
            return Err(ReplyError::fixed("ERR Missing GROUP option for XREADGROUP"));
        }
        Ok(request)
    }

    /// The keys with what is given for their ids.
    fn pairs(&self, args: Args<'a>) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let (first, streams) = (self.first, self.streams);
        (first..first + streams).map(move |at| (args.at(at), args.at(at + streams)))
    }

    /// What to do if there is nothing.
    fn nothing(&self, reply: &mut Reply<'_>) -> Attempt {
        match self.block {
            Some(timeout_ms) => Attempt::Wait { timeout_ms, on_timeout: OnTimeout::NullArray },
            None => {
                reply.null_array();
                Attempt::Done
            }
        }
    }
}

/// The head of what one of several streams has.
fn begin_stream(reply: &mut Reply<'_>, key: &[u8]) {
    if !reply.is_resp3() {
        reply.array(2);
    }
    reply.bulk(key);
}

/// The head of all of them.
fn end_streams(reply: &mut Reply<'_>, all: Deferred, streams: usize) {
    if reply.is_resp3() { reply.end_map(all, streams) } else { reply.end_array(all, streams) }
}

/// The last id of the stream at a key, which `$` stands for.
fn last_id(view: &mut View<'_>, key: &[u8]) -> Result<StreamId, ReplyError> {
    Ok(view.peek_as::<Box<Stream>>(key)?.map_or(StreamId::MIN, |stream| stream.last_id))
}

pub(super) fn xread(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Attempt, ReplyError> {
    let request = Request::parse(args, false)?;
    let mut behind = Vec::with_capacity(request.streams);
    for (key, text) in request.pairs(args) {
        let last = last_id(view, key)?;
        behind.push(match text {
            b"$" => last,
            b">" => {
                return Err(ReplyError::fixed(
                    "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option.",
                ));
            }
            text => id(text, 0)?,
        });
    }
    let all = reply.deferred();
    let (begin, mut found) = (reply.position(), 0);
    for ((key, _), behind) in request.pairs(args).zip(behind) {
        let Some(stream) = view.get::<Box<Stream>>(key)? else { continue };
        let Some(from) = behind.next() else { continue };
        let mut entries = stream.range(from, StreamId::MAX).peekable();
        if entries.peek().is_some() {
            begin_stream(reply, key);
            write_entries(reply, entries, request.count);
            found += 1;
        }
    }
    if found == 0 {
        reply.truncate(begin);
        return Ok(request.nothing(reply));
    }
    end_streams(reply, all, found);
    Ok(Attempt::Done)
}

/// The arguments of an `XREAD` that waits: `$` is the last id as of now.
pub(super) fn settled(view: &mut View<'_>, args: Args<'_>) -> OwnedArgs {
    let Ok(request) = Request::parse(args, false) else { return args.to_owned() };
    let ids: Vec<Vec<u8>> = request
        .pairs(args)
        .map(|(key, text)| match text {
            b"$" => last_id(view, key).unwrap_or_default().to_string().into_bytes(),
            text => text.to_vec(),
        })
        .collect();
    let before = args.take(request.first + request.streams);
    OwnedArgs::from_slices(before.iter().chain(ids.iter().map(|id| &id[..])))
}

pub(super) fn xreadgroup(
    view: &mut View<'_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> Result<Attempt, ReplyError> {
    let request = Request::parse(args, true)?;
    let Some((group, consumer)) = request.group else { return Err(ReplyError::SYNTAX) };
    let mut from = Vec::with_capacity(request.streams);
    for (key, text) in request.pairs(args) {
        let stream = view.peek_as::<Box<Stream>>(key)?;
        if stream.is_none_or(|stream| stream.group(group).is_none()) {
            return Err(super::groups::no_group(key, group, " in XREADGROUP with GROUP option"));
        }
        from.push(match text {
            b"$" => {
                return Err(ReplyError::fixed(
                    "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return an empty result set.",
                ));
            }
            b">" => From::New,
            text => From::Behind(id(text, 0)?),
        });
    }
    let all = reply.deferred();
    let (begin, mut found) = (reply.position(), 0);
    let now_ms = view.now_ms();
    for ((key, _), from) in request.pairs(args).zip(from) {
        let done = view.edit(key, Event::SILENT, |stream: &mut Box<Stream>| {
            let is_new = stream.group_mut(group).is_some_and(|group| group.see(consumer, now_ms).1);
            let gives = match from {
                From::New => {
                    let given = stream.group(group).map_or(StreamId::MAX, |group| group.last_id);
                    // Mostly there is nothing, and no entry need be looked at to tell.
                    let has_some = stream.last_id > given
                        && given
                            .next()
                            .is_some_and(|from| stream.range(from, StreamId::MAX).next().is_some());
                    has_some.then(|| give_new(stream, &request, key, (group, consumer), now_ms, reply))
                }
                From::Behind(id) => {
                    give_again(stream, &request, key, (group, consumer), (id, now_ms), reply);
                    Some(())
                }
            };
            ((is_new, gives.is_some()), is_new || gives.is_some())
        })?;
        let (is_new, gives) = done.unwrap_or_default();
        if is_new {
            view.announce(key, Event::stream("xgroup-createconsumer"));
        }
        found += usize::from(gives);
    }
    if found == 0 {
        reply.truncate(begin);
        return Ok(request.nothing(reply));
    }
    end_streams(reply, all, found);
    Ok(Attempt::Done)
}

/// Gives a consumer what nobody of its group was given.
fn give_new(
    stream: &mut Stream,
    request: &Request<'_>,
    key: &[u8],
    (name, consumer): (&[u8], &[u8]),
    now_ms: u64,
    reply: &mut Reply<'_>,
) {
    begin_stream(reply, key);
    // Out of the stream meanwhile, so that both can be looked at.
    let Some(mut group) = stream.group_mut(name).map(std::mem::take) else { return };
    let array = reply.deferred();
    let mut given = 0;
    for entry in group.last_id.next().into_iter().flat_map(|from| stream.range(from, StreamId::MAX)) {
        group.entries_read = stream.place_after(&group, entry.id);
        group.last_id = entry.id;
        write_entry(reply, &entry);
        if !request.no_ack {
            group.give(entry.id, consumer, now_ms, 1);
        }
        given += 1;
        if given == request.count {
            break;
        }
    }
    group.note_active(consumer, now_ms);
    reply.end_array(array, given);
    if let Some(place) = stream.group_mut(name) {
        *place = group;
    }
}

/// Gives a consumer again what it was given behind an entry and is not done with.
fn give_again(
    stream: &mut Stream,
    request: &Request<'_>,
    key: &[u8],
    (name, consumer): (&[u8], &[u8]),
    (behind, now_ms): (StreamId, u64),
    reply: &mut Reply<'_>,
) {
    begin_stream(reply, key);
    let most = if request.count == 0 { usize::MAX } else { request.count };
    let pending =
        stream.group(name).and_then(|group| group.consumer(consumer)).map(|consumer| &consumer.pending);
    let ids: Vec<StreamId> = match (pending, behind.next()) {
        (Some(pending), Some(from)) => pending.range(from..).take(most).copied().collect(),
        _ => Vec::new(),
    };
    reply.array(ids.len());
    for id in ids {
        let is_there = stream.get(id).map(|entry| write_entry(reply, &entry)).is_some();
        if !is_there {
            reply.array(2);
            write_id(reply, id);
            reply.null_array();
        } else if let Some(group) = stream.group_mut(name) {
            group.give_again(id, now_ms);
        }
    }
}
