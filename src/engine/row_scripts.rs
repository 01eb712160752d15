//! What is asked of upstream for requests on rows, and what is said to clients who cannot have what they want.

use std::borrow::Cow;
use std::sync::Arc;

use super::batch::fail;
use super::row_keys::Row;
use crate::protocol::{Protocol, Reply, ReplyError};
use crate::tiers::database::install::Brought;
use crate::tiers::database::shared::{GUARD, Shared};
use crate::tiers::database::store::Failure as LoadFailure;
use crate::tiers::local::DATABASE;
use crate::tiers::upstream::{
    self, Expected, Failure, Form, Gather, Outcome, Upstream, Writing, elements, encode, integer, is_error,
    now_ms,
};
use crate::types::hasher::hash_bytes;

/// What was loaded may be gone before the request is there again; nobody waits for that for ever.
pub(super) const MOST_TRIES: usize = 16;

/// Writes a call of one of the journal's scripts.
pub(super) fn encode_script(shared: &Shared, script: &str, rows: &[Row], rest: &[&[u8]], to: &mut Vec<u8>) {
    let absence: Vec<u8> = rows.iter().map(|row| row.absence.mark()).collect();
    let guard: Vec<u8> = rows.iter().map(|row| if row.depends { b'g' } else { b'-' }).collect();
    let mut words: Vec<&[u8]> = vec![b"EVAL", script.as_bytes(), b"0"];
    words.extend(shared.names.journal().iter().map(|name| name.as_bytes()));
    words.extend([&*absence, &guard, shared.names.lease.as_bytes()]);
    words.extend(rows.iter().map(|row| &*row.key));
    words.extend(rest);
    encode(words.into_iter(), to);
}

/// What one of the journal's scripts says.
pub(super) enum Said<'r> {
    /// It did what it was to do; the command's reply.
    Done(Cow<'r, [u8]>),
    /// Nothing was done, for want of these rows.
    Missing(Vec<usize>),
    /// It makes no sense.
    Nonsense,
}

/// Reads what one of the journal's scripts says, and keeps what it says of the journal's size.
pub(super) fn said<'r>(shared: &Shared, frame: &'r [u8]) -> Said<'r> {
    let parts = elements(frame).unwrap_or_default();
    match (parts.first().and_then(|part| integer(part)), &parts[..]) {
        (Some(0), [_, bytes, reply @ ..]) => {
            shared.note_size(integer(bytes));
            Said::Done(upstream::scripted(reply))
        }
        (Some(1), [_, places @ ..]) => {
            let place = |part: &&[u8]| integer(part).and_then(|place| usize::try_from(place).ok());
            Said::Missing(places.iter().filter_map(place).collect())
        }
        _ => Said::Nonsense,
    }
}

/// An error that a script of ours met, in the words of Redis, which do not speak of the script.
pub(super) fn plain_error(error: &[u8]) -> Vec<u8> {
    let end = memchr::memmem::find(error, b" script: ").unwrap_or(error.len());
    [error[..end].trim_ascii_end(), b"\r\n"].concat()
}

/// What a client is told whose row cannot be loaded.
pub(super) fn cannot_load(error: &LoadFailure) -> Vec<u8> {
    encoded(&ReplyError::new(format!("DBERR cannot load the row: {error}")))
}

pub(super) fn encoded(error: &ReplyError) -> Vec<u8> {
    let mut out = Vec::new();
    Reply::new(&mut out, Protocol::Resp2).error(error);
    out
}

/// That rows came and went faster than the request.
pub(super) fn overtaken() -> Vec<u8> {
    b"-TRYAGAIN what the command needs was evicted before it could run\r\n".to_vec()
}

pub(super) fn failed(upstream: &Upstream, failure: Failure, is_write: bool) -> Vec<u8> {
    let mut out = Vec::new();
    fail(upstream, failure, is_write, &mut out);
    out
}

/// Sends a request and waits for its reply.
pub(super) async fn send(
    upstream: &Arc<Upstream>,
    is_plain: bool,
    request: &[u8],
    writing: impl FnOnce() -> Writing,
) -> Outcome {
    let gather = Arc::<Gather>::default();
    let (ticket, _) = gather.ticket();
    let expected = [Expected::Answer(ticket, Form::Raw, writing())];
    wait(upstream, is_plain, request, expected, &gather).await.pop().unwrap_or(Err(Failure::TimedOut))
}

pub(super) async fn wait(
    upstream: &Arc<Upstream>,
    is_plain: bool,
    request: &[u8],
    expected: impl IntoIterator<Item = Expected>,
    gather: &Arc<Gather>,
) -> Vec<Outcome> {
    let link = if is_plain { &upstream.plain } else { &upstream.tracked };
    if !request.is_empty() {
        link.send(DATABASE, request, expected, now_ms());
        link.flush();
    }
    if tokio::time::timeout(upstream.config.timeout, gather.complete()).await.is_err() {
        upstream::count(&upstream.statistics.failures);
    }
    gather.take().into_vec()
}

/// Brings rows into the cache; the places of those that are absent from the database, too, or the error to reply.
pub(super) async fn load(
    shared: &'static Shared,
    rows: &[Row],
    places: &[usize],
) -> Result<Vec<usize>, Vec<u8>> {
    let mut absent = Vec::new();
    let loads = places.iter().filter_map(|place| Some((*place, rows.get(*place)?)));
    let loading: Vec<_> = loads
        .map(|(place, row)| (place, tokio::spawn(load_one(shared, row.rule, row.key.clone()))))
        .collect();
    for (place, load) in loading {
        match load.await {
            Ok(Ok(Brought::Nothing)) => absent.push(place),
            Ok(Ok(Brought::Value)) => {}
            Ok(Err(error)) => return Err(cannot_load(&error)),
            Err(_) => return Err(encoded(&ReplyError::fixed("ERR the server is ending"))),
        }
    }
    Ok(absent)
}

/// Brings those of the rows into the cache that are not there, and are in the database.
pub(super) async fn bring(
    shared: &'static Shared,
    upstream: &Arc<Upstream>,
    rows: &[Row],
) -> Result<(), Vec<u8>> {
    let mut request = Vec::new();
    encode_script(shared, GUARD, rows, &[], &mut request);
    for _ in 0..MOST_TRIES {
        match send(upstream, false, &request, Writing::default).await {
            Err(failure) => return Err(failed(upstream, failure, false)),
            Ok(frame) if is_error(&frame) => return Err(plain_error(&frame)),
            Ok(frame) => match said(shared, &frame) {
                Said::Done(_) => return Ok(()),
                Said::Missing(places) => drop(load(shared, rows, &places).await?),
                Said::Nonsense => return Err(nonsense()),
            },
        }
    }
    Err(overtaken())
}

async fn load_one(shared: &'static Shared, rule: usize, key: Box<[u8]>) -> Result<Brought, LoadFailure> {
    shared.load(rule, &key).await
}

/// Marks keys as being written until what is returned is dropped.
pub(super) fn writing(upstream: &Upstream, keys: &[Box<[u8]>]) -> Writing {
    upstream.writing(keys.iter().map(|key| (hash_bytes(key), key.clone())).collect())
}

pub(super) fn nonsense() -> Vec<u8> {
    encoded(&ReplyError::fixed("ERR upstream's reply makes no sense"))
}
