//! `CLIENT TRACKING`, `CACHING`, `TRACKINGINFO` and `GETREDIR`.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use super::super::arguments::{Options, integer};
use super::super::spec::Context;
use crate::clients::{Caching, Tracker, TrackingOptions};
use crate::protocol::{Args, CommandResult, Reply, ReplyError};

pub(super) fn tracking(
    context: &mut Context<'_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let options = parse(context, args)?;
    if args.is(2, "on") {
        enable(context, options)?;
    } else if args.is(2, "off") {
        context.session.end_tracking(&context.instance.clients, &context.instance.keyspace);
    } else {
        return Err(ReplyError::SYNTAX);
    }
    reply.ok();
    Ok(())
}

fn parse(context: &Context<'_, '_>, args: Args<'_>) -> Result<TrackingOptions, ReplyError> {
    let mut asked = TrackingOptions::default();
    let mut options = Options::new(args, 3);
    while !options.is_done() {
        if options.take_with("REDIRECT", 1) {
            let id = options.value()?;
            if asked.redirect != 0 {
                return Err(ReplyError::fixed("ERR A client can only redirect to a single other client"));
            }
            let id = u64::try_from(integer(id)?).unwrap_or(0);
            let target = context
                .instance
                .clients
                .get(id)
                .ok_or(ReplyError::fixed("ERR The client ID you want redirect to does not exist"))?;
            if !target.resp3.load(Relaxed) && context.instance.upstream.is_some() {
                return Err(ReplyError::fixed(
                    "ERR the connection to redirect to must speak RESP3: with an upstream, channels are that's",
                ));
            }
            asked.redirect = id;
        } else if options.take_with("PREFIX", 1) {
            asked.prefixes.push(options.value()?.into());
        } else if options.take("BCAST") {
            asked.broadcast = true;
        } else if options.take("OPTIN") {
            asked.opt_in = true;
        } else if options.take("OPTOUT") {
            asked.opt_out = true;
        } else if options.take("NOLOOP") {
            asked.no_loop = true;
        } else {
            return Err(ReplyError::SYNTAX);
        }
    }
    Ok(asked)
}

fn enable(context: &mut Context<'_, '_>, mut asked: TrackingOptions) -> CommandResult {
    if !asked.broadcast && !asked.prefixes.is_empty() {
        return Err(ReplyError::fixed("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    let old = context.session.tracking.as_ref().map(|tracker| &tracker.options);
    if old.is_some_and(|old| old.broadcast != asked.broadcast) {
        return Err(ReplyError::fixed(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    if asked.broadcast && (asked.opt_in || asked.opt_out) {
        return Err(ReplyError::fixed("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if asked.opt_in && asked.opt_out {
        return Err(ReplyError::fixed("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if old.is_some_and(|old| asked.opt_in && old.opt_out || asked.opt_out && old.opt_in) {
        return Err(ReplyError::fixed(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then \
             re-enabling it with a different mode.",
        ));
    }
    if context.instance.upstream.as_ref().is_some_and(|upstream| !upstream.config.tracking) {
        return Err(ReplyError::fixed(
            "ERR nobody can be told of changes: upstream is not asked to tell of them (tracking = \"off\")",
        ));
    }
    if asked.broadcast {
        if context.instance.upstream.as_ref().is_some_and(|upstream| upstream.cluster.is_some()) {
            return Err(ReplyError::fixed("ERR BCAST is not served before a cluster"));
        }
        let existing = old.map_or(&[][..], |old| &old.prefixes);
        check_prefixes(&asked.prefixes, existing)?;
        if asked.prefixes.is_empty() && existing.is_empty() {
            asked.prefixes.push(Box::default());
        }
        asked.prefixes.extend_from_slice(existing);
        asked.prefixes.sort();
    }
    let tracker = Tracker { id: context.session.client.id, options: asked, is_broken: false.into() };
    let is_broadcast = tracker.options.broadcast;
    context.session.begin_tracking(Arc::new(tracker), &context.instance.clients, &context.instance.keyspace);
    if let Some(upstream) = context.instance.upstream.as_ref().filter(|_| is_broadcast) {
        upstream.broadcast.want();
    }
    Ok(())
}

/// A key must not begin with two prefixes of one client.
fn check_prefixes(asked: &[Box<[u8]>], existing: &[Box<[u8]>]) -> Result<(), ReplyError> {
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let refuse = |prefix: &[u8], kind: &str, other: &[u8]| {
        let text = [
            b"ERR Prefix '",
            prefix,
            b"' overlaps with ",
            kind.as_bytes(),
            b" prefix '",
            other,
            b"'. Prefixes for a single client must not overlap.",
        ];
        Err(ReplyError::new(text.concat()))
    };
    for (index, prefix) in asked.iter().enumerate() {
        if let Some(other) = existing.iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "an existing", other);
        }
        if let Some(other) = asked[index + 1..].iter().find(|other| overlap(prefix, other)) {
            return refuse(prefix, "another provided", other);
        }
    }
    Ok(())
}

pub(super) fn caching(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let Some(tracker) = &context.session.tracking else {
        return Err(ReplyError::fixed(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT \
             mode enabled",
        ));
    };
    if args.is(2, "yes") {
        if !tracker.options.opt_in {
            return Err(ReplyError::fixed(
                "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
    } else if args.is(2, "no") {
        if !tracker.options.opt_out {
            return Err(ReplyError::fixed(
                "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
    } else {
        return Err(ReplyError::SYNTAX);
    }
    context.session.caching = Caching::Said;
    reply.ok();
    Ok(())
}

pub(super) fn getredir(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.integer(redirection(context));
    Ok(())
}

fn redirection(context: &Context<'_, '_>) -> i64 {
    context.session.tracking.as_ref().map_or(-1, |tracker| tracker.options.redirect as i64)
}

pub(super) fn trackinginfo(
    context: &mut Context<'_, '_>,
    _: Args<'_>,
    reply: &mut Reply<'_>,
) -> CommandResult {
    let (mut flags, tracker) = (Vec::new(), context.session.tracking.as_ref());
    let is_caching = context.session.caching != Caching::Unsaid;
    match tracker {
        None => flags.push("off"),
        Some(tracker) => {
            let options = &tracker.options;
            flags.push("on");
            for (is_set, name) in [
                (options.broadcast, "bcast"),
                (options.opt_in, "optin"),
                (options.opt_in && is_caching, "caching-yes"),
                (options.opt_out, "optout"),
                (options.opt_out && is_caching, "caching-no"),
                (options.no_loop, "noloop"),
                (tracker.is_broken.load(Relaxed), "broken_redirect"),
            ] {
                flags.extend(is_set.then_some(name));
            }
        }
    }
    reply.map(3);
    reply.bulk(b"flags");
    reply.set(flags.len());
    flags.iter().for_each(|flag| reply.bulk(flag.as_bytes()));
    reply.bulk(b"redirect");
    reply.integer(redirection(context));
    reply.bulk(b"prefixes");
    let prefixes = tracker.map_or(&[][..], |tracker| &tracker.options.prefixes);
    reply.array(prefixes.len());
    prefixes.iter().for_each(|prefix| reply.bulk(prefix));
    Ok(())
}
