//! `SUBSCRIBE`, `PUBLISH` and their kin: messages on channels.
//!
//! Subscriptions belong to the connection. With an upstream, all of these are upstream's.

use super::keys::{KeySpec, access::NOT_KEY, key_at, keys_in};
use super::spec::Arity::{AtLeast, Exactly};
use super::spec::{Channels, CommandSpec, Context, Group, SessionHandler, flag};
use super::{write_help, wrong_subcommand};
use crate::clients::Audience;
use crate::protocol::{Args, CommandResult, Reply};

const SHARD_CHANNEL: &[KeySpec] = &[key_at(1, NOT_KEY)];
const SHARD_CHANNELS: &[KeySpec] = &[keys_in(1, -1, 1, NOT_KEY)];

/// A row of those that change what a connection listens to.
const fn listening(name: &'static str, least: u16, handler: SessionHandler) -> CommandSpec {
    CommandSpec::session(name, Group::PubSub, AtLeast(least), handler)
        .with(flag::PUBSUB | flag::NOSCRIPT | flag::LOADING | flag::STALE)
}

/// A row of those that say something.
const fn saying(name: &'static str, handler: SessionHandler) -> CommandSpec {
    CommandSpec::session(name, Group::PubSub, Exactly(3), handler)
        .with(flag::PUBSUB | flag::LOADING | flag::STALE)
        .fast()
}

/// A row of `PUBSUB`.
const fn looking(name: &'static str, arity: super::spec::Arity, handler: SessionHandler) -> CommandSpec {
    CommandSpec::session(name, Group::PubSub, arity, handler).with(flag::PUBSUB | flag::LOADING | flag::STALE)
}

/// The rows.
pub const COMMANDS: &[CommandSpec] = &[
    saying("publish", publish).channels(Channels::First).doc(
        "Says something on a channel.",
        "2.0.0",
        "O(N+M), with N the channel's listeners and M all patterns listened to",
        "channel message",
    ),
    saying("spublish", spublish).channels(Channels::First).keys(SHARD_CHANNEL).doc(
        "Says something on a channel of a shard.",
        "7.0.0",
        "O(N), with N the channel's listeners",
        "shardchannel message",
    ),
    listening("subscribe", 2, subscribe).channels(Channels::All).doc(
        "Listens to channels.",
        "2.0.0",
        "O(N), with N the channels",
        "channel...",
    ),
    listening("unsubscribe", 1, unsubscribe).doc(
        "Listens to channels no more, to none if none is named.",
        "2.0.0",
        "O(N), with N the channels",
        "[channel...]",
    ),
    listening("psubscribe", 2, psubscribe).channels(Channels::Patterns).doc(
        "Listens to channels whose names match patterns.",
        "2.0.0",
        "O(N), with N the patterns",
        "pattern:pattern...",
    ),
    listening("punsubscribe", 1, punsubscribe).doc(
        "Listens to patterns no more, to none if none is given.",
        "2.0.0",
        "O(N), with N the patterns",
        "[pattern:pattern...]",
    ),
    listening("ssubscribe", 2, ssubscribe).channels(Channels::All).keys(SHARD_CHANNELS).doc(
        "Listens to channels of a shard.",
        "7.0.0",
        "O(N), with N the channels",
        "shardchannel...",
    ),
    listening("sunsubscribe", 1, sunsubscribe).keys(SHARD_CHANNELS).doc(
        "Listens to channels of a shard no more, to none if none is named.",
        "7.0.0",
        "O(N), with N the channels",
        "[shardchannel...]",
    ),
    CommandSpec::container("pubsub", Group::PubSub, PUBSUB).doc(
        "A container for commands on channels.",
        "2.8.0",
        "Depends on the subcommand",
        "",
    ),
];

const PUBSUB: &[CommandSpec] = &[
    looking("channels", AtLeast(2), channels).doc(
        "Returns the channels that are listened to.",
        "2.8.0",
        "O(N), with N the channels",
        "[pattern:pattern]",
    ),
    looking("numpat", Exactly(2), numpat).doc(
        "Returns how many patterns are listened to.",
        "2.8.0",
        "O(1)",
        "",
    ),
    looking("numsub", AtLeast(2), numsub).doc(
        "Returns how many listen to channels.",
        "2.8.0",
        "O(N), with N the channels asked for",
        "[channel...]",
    ),
    looking("shardchannels", AtLeast(2), shardchannels).doc(
        "Returns the channels of shards that are listened to.",
        "7.0.0",
        "O(N), with N the channels",
        "[pattern:pattern]",
    ),
    looking("shardnumsub", AtLeast(2), shardnumsub).doc(
        "Returns how many listen to channels of shards.",
        "7.0.0",
        "O(N), with N the channels asked for",
        "[shardchannel...]",
    ),
    CommandSpec::session("help", Group::PubSub, Exactly(2), help).with(flag::LOADING | flag::STALE).doc(
        "Shows what can be asked.",
        "6.2.0",
        "O(1)",
        "",
    ),
];

/// What happened to keys before, in the same transaction or script, is heard before what is said.
fn tell_events(context: &mut Context<'_, '_>) {
    let events = context.view.take_events();
    context.instance.publish_events(&events);
}

fn publish(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    tell_events(context);
    reply.count(context.instance.publish(args.at(1), args.at(2)));
    Ok(())
}

fn spublish(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    tell_events(context);
    reply.count(context.instance.publish_sharded(args.at(1), args.at(2)));
    Ok(())
}

/// What each change of subscriptions is answered with.
fn acknowledge(
    context: &Context<'_, '_>,
    audience: Audience,
    what: &str,
    name: Option<&[u8]>,
    reply: &mut Reply<'_>,
) {
    let [channels, patterns, shards] = &context.session.subscribed;
    reply.push(3);
    reply.bulk(what.as_bytes());
    match name {
        Some(name) => reply.bulk(name),
        None => reply.null(),
    }
    reply.count(if audience == Audience::Shard { shards.len() } else { channels.len() + patterns.len() });
}

fn listen(
    context: &mut Context<'_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    audience: Audience,
    what: &str,
) -> CommandResult {
    for name in args.skip(1).iter() {
        context.session.subscribe(&context.instance.clients, audience, name);
        acknowledge(context, audience, what, Some(name), reply);
    }
    Ok(())
}

fn leave(
    context: &mut Context<'_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    audience: Audience,
    what: &str,
) -> CommandResult {
    let mut names: Vec<Box<[u8]>> = args.skip(1).iter().map(Box::from).collect();
    if names.is_empty() {
        names = context.session.subscribed[audience as usize].iter().cloned().collect();
    }
    if names.is_empty() {
        acknowledge(context, audience, what, None, reply);
    }
    for name in names {
        context.session.unsubscribe(&context.instance.clients, audience, &name);
        acknowledge(context, audience, what, Some(&name), reply);
    }
    Ok(())
}

fn subscribe(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    listen(context, args, reply, Audience::Channel, "subscribe")
}

fn psubscribe(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    listen(context, args, reply, Audience::Pattern, "psubscribe")
}

fn ssubscribe(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    listen(context, args, reply, Audience::Shard, "ssubscribe")
}

fn unsubscribe(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    leave(context, args, reply, Audience::Channel, "unsubscribe")
}

fn punsubscribe(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    leave(context, args, reply, Audience::Pattern, "punsubscribe")
}

fn sunsubscribe(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    leave(context, args, reply, Audience::Shard, "sunsubscribe")
}

fn write_names(
    context: &Context<'_, '_>,
    args: Args<'_>,
    reply: &mut Reply<'_>,
    audience: Audience,
) -> CommandResult {
    if args.len() > 3 {
        return Err(wrong_subcommand(args));
    }
    let names = context.instance.clients.subscriptions.names(audience, args.get(2));
    reply.array(names.len());
    names.iter().for_each(|name| reply.bulk(name));
    Ok(())
}

fn write_counts(context: &Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>, audience: Audience) {
    let names = args.skip(2);
    reply.array(names.len() * 2);
    for name in names.iter() {
        reply.bulk(name);
        reply.count(context.instance.clients.subscriptions.listeners(audience, name));
    }
}

fn channels(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_names(context, args, reply, Audience::Channel)
}

fn shardchannels(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_names(context, args, reply, Audience::Shard)
}

fn numpat(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    reply.count(context.instance.clients.subscriptions.len(Audience::Pattern));
    Ok(())
}

fn numsub(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_counts(context, args, reply, Audience::Channel);
    Ok(())
}

fn shardnumsub(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_counts(context, args, reply, Audience::Shard);
    Ok(())
}

fn help(_: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    write_help(
        reply,
        "PUBSUB",
        &[
            "CHANNELS [<pattern>]",
            "    Return the currently active channels matching a <pattern> (default: '*').",
            "NUMPAT",
            "    Return number of subscriptions to patterns.",
            "NUMSUB [<channel> ...]",
            "    Return the number of subscribers for the specified channels, excluding",
            "    pattern subscriptions(default: no channels).",
            "SHARDCHANNELS [<pattern>]",
            "    Return the currently active shard level channels matching a <pattern> (default: '*').",
            "SHARDNUMSUB [<shardchannel> ...]",
            "    Return the number of subscribers for the specified shard level channel(s)",
        ],
    );
    Ok(())
}
