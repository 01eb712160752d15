//! What is to be known of a request before it goes upstream: its way, and what it does to keys.

use smallvec::{SmallVec, smallvec};

use crate::clients::Session;
use crate::commands::keys;
use crate::commands::routing::{Route, foreign_command};
use crate::commands::spec::flag;
use crate::commands::table::Command;
use crate::protocol::{Args, Protocol, ReplyError};
use crate::tiers::upstream::{Rewrite, Upstream};
use crate::types::hasher::hash_bytes;

/// What a request does to keys.
pub(super) enum Touch {
    Nothing,
    /// Reads these.
    Reads(SmallVec<[(u64, Box<[u8]>); 1]>),
    /// May change these.
    Writes(SmallVec<[(u64, Box<[u8]>); 1]>),
    /// May change any.
    Everything,
}

/// What is to be known of a request.
pub(super) struct Routed<'c> {
    pub command: Option<&'c Command>,
    pub route: Route,
    pub touch: Touch,
    pub rewrite: Option<Rewrite>,
    /// Its keys are never kept: upstream need not watch over them.
    pub is_bypass: bool,
}

/// Whether a request's reply must come in RESP2 because nobody here can put it into RESP2.
pub(super) fn is_plain(session: &Session, routed: &Routed<'_>) -> bool {
    session.protocol == Protocol::Resp2 && (routed.rewrite.is_none() || routed.is_bypass)
}

/// The argument that is the only key.
pub(super) fn only_key(command: &Command, args: Args<'_>) -> Option<usize> {
    match keys::extract(command.spec, args)?[..] {
        [(index, _)] => Some(index),
        _ => None,
    }
}

pub(super) fn touch_of(command: &Command, args: Args<'_>) -> Touch {
    let spec = command.spec;
    if spec.has(flag::PUBSUB) {
        return Touch::Nothing;
    }
    let changes = spec.has(flag::WRITE) || spec.has(flag::MAY_REPLICATE) && !spec.has(flag::READONLY);
    if let Some(index) = command.single_key() {
        let Some(key) = args.get(index) else { return Touch::Nothing };
        let keys = smallvec![(hash_bytes(key), Box::from(key))];
        return if changes { Touch::Writes(keys) } else { Touch::Reads(keys) };
    }
    let Some(found) = keys::extract(spec, args) else {
        return if changes { Touch::Everything } else { Touch::Nothing };
    };
    touching(&found.iter().map(|(index, _)| *index).collect::<Vec<_>>(), changes, args)
}

/// What a queued request does to keys; one of a command that has no row is known already.
pub(super) fn touch_of_queued(upstream: &Upstream, command: Option<&Command>, args: Args<'_>) -> Touch {
    match command {
        Some(command) => touch_of(command, args),
        None => {
            foreign_route(upstream, args, ReplyError::SYNTAX).map_or(Touch::Everything, |routed| routed.touch)
        }
    }
}

fn touching(indices: &[usize], changes: bool, args: Args<'_>) -> Touch {
    let key = |index: &usize| args.get(*index).map(|key| (hash_bytes(key), Box::from(key)));
    let keys: SmallVec<[(u64, Box<[u8]>); 1]> = indices.iter().filter_map(key).collect();
    match (keys.is_empty(), changes) {
        (true, true) => Touch::Everything,
        (true, false) => Touch::Nothing,
        (false, true) => Touch::Writes(keys),
        (false, false) => Touch::Reads(keys),
    }
}

/// What is to be known of a command that has no row: what is said of it here, or else by upstream.
pub(super) fn foreign_route(
    upstream: &Upstream,
    args: Args<'_>,
    unknown: ReplyError,
) -> Result<Routed<'static>, ReplyError> {
    let routed = |route, touch| Routed { command: None, route, touch, rewrite: None, is_bypass: false };
    if let Some(foreign) = foreign_command(args.at(0)) {
        return Ok(routed(foreign.route, Touch::Nothing));
    }
    let catalogue = upstream.about().catalogue;
    if catalogue.is_empty() {
        return Ok(routed(Route::Shared, Touch::Everything));
    }
    let Some(command) = catalogue.get(args.at(0)) else { return Err(unknown) };
    if !command.accepts(args.len()) {
        let name = String::from_utf8_lossy(args.at(0)).to_lowercase();
        return Err(ReplyError::wrong_arity(&name));
    }
    let touch = match command.keys(args.len()) {
        None if command.is_readonly => Touch::Nothing,
        None => Touch::Everything,
        Some(_) if !command.is_write && !command.is_readonly => Touch::Nothing,
        Some(keys) => touching(&keys, command.is_write, args),
    };
    Ok(routed(if command.is_blocking { Route::Dedicated } else { Route::Shared }, touch))
}
