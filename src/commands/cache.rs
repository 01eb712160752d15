//! The near cache of an upstream: `CACHE.*`. What removes keys upstream is the engine's.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::Relaxed;

use super::keys::{access::RO, key_at};
use super::spec::Arity::Exactly;
use super::spec::{CommandSpec, Context, Control, Group, category, flag};
use crate::config::upstream::KeyTier;
use crate::protocol::{Args, CommandResult, Reply, ReplyError};
use crate::tiers::upstream::{Statistics, Upstream, now_ms, prefix_of};

/// Prefixes shown by themselves; the rest is summed up.
const MAX_PREFIXES: usize = 100;

/// The rows of this family.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec::control("cache.invalidate", Group::Server, Exactly(2), Control::Invalidate)
        .with(flag::NO_MULTI | flag::NOSCRIPT)
        .categories(category::DANGEROUS | category::KEYSPACE)
        .doc(
            "Removes the keys that match a pattern, upstream and on every host; returns how many there were.",
            "7.2.0",
            "O(N) in the number of keys of the database",
            "pattern:pattern",
        ),
    CommandSpec::session("cache.inspect", Group::Server, Exactly(2), inspect)
        .readonly()
        .fast()
        .keys(&[key_at(1, RO)])
        .doc("Tells where a key lives and what is kept of it.", "7.2.0", "O(1)", "key"),
    CommandSpec::session("cache.stats", Group::Server, Exactly(1), stats).doc(
        "Returns what the near cache counts, and what it holds by prefix.",
        "7.2.0",
        "O(N) in the number of keys kept",
        "",
    ),
];

/// The error of all of them where there is none.
pub const NO_UPSTREAM: ReplyError = ReplyError::fixed("ERR there is no upstream, so nothing is kept of it");

fn upstream<'c>(context: &'c Context<'_, '_>) -> Result<&'c Upstream, ReplyError> {
    context.instance.upstream.as_deref().ok_or(NO_UPSTREAM)
}

fn inspect(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let upstream = upstream(context)?;
    let (key, now_ms) = (args.at(1), now_ms());
    let tier = upstream.tier_of(key);
    let report = if tier.is_none() { upstream.near.inspect(key, now_ms) } else { None }.unwrap_or_default();
    let name = match tier {
        Some(KeyTier::Local) => "local",
        Some(KeyTier::Bypass) => "bypass",
        None if report.replies > 0 => "near",
        None => "upstream",
    };
    reply.map(8);
    reply.bulk(b"tier");
    reply.bulk(name.as_bytes());
    let is_stale = report.replies > 0 && upstream.near.is_stale(now_ms);
    for (name, value) in [
        ("replies", report.replies as u64),
        ("bytes", report.bytes as u64),
        ("age-ms", report.age_ms),
        ("ttl-ms", report.ttl_ms),
        ("stale", is_stale.into()),
        ("filling", report.is_filling.into()),
        ("version", report.version),
    ] {
        reply.bulk(name.as_bytes());
        reply.integer(value as i64);
    }
    Ok(())
}

fn stats(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let upstream = upstream(context)?;
    let mut prefixes: BTreeMap<Vec<u8>, [u64; 6]> = BTreeMap::new();
    let mut add = |prefix: Option<&[u8]>, figures: [u64; 6]| {
        let prefix = prefix.filter(|prefix| prefixes.len() < MAX_PREFIXES || prefixes.contains_key(*prefix));
        let sums = prefixes.entry(prefix.unwrap_or(b"(others)").to_vec()).or_default();
        sums.iter_mut().zip(figures).for_each(|(sum, figure)| *sum += figure);
    };
    upstream.near.each_prefix(|prefix, [hits, misses, fills]| add(prefix, [0, 0, 0, hits, misses, fills]));
    upstream.near.each(|key, replies, bytes| {
        add(Some(prefix_of(key)), [1, replies as u64, bytes as u64, 0, 0, 0]);
    });
    let figures = figures(&upstream.statistics);
    reply.map(figures.len() + 2);
    for (name, value) in figures {
        reply.bulk(name.as_bytes());
        reply.integer(value);
    }
    reply.bulk(b"stale");
    reply.integer(upstream.near.is_stale(now_ms()).into());
    reply.bulk(b"prefixes");
    reply.map(prefixes.len());
    for (prefix, figures) in prefixes {
        reply.bulk(&prefix);
        reply.map(figures.len());
        for (name, value) in ["keys", "replies", "bytes", "hits", "misses", "fills"].iter().zip(figures) {
            reply.bulk(name.as_bytes());
            reply.integer(value as i64);
        }
    }
    Ok(())
}

/// What is counted, by name.
pub fn figures(statistics: &Statistics) -> Vec<(&'static str, i64)> {
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Relaxed) as i64;
    vec![
        ("hits", get(&statistics.hits)),
        ("stale-hits", get(&statistics.stale_hits)),
        ("misses", get(&statistics.misses)),
        ("joined", get(&statistics.joined)),
        ("fills", get(&statistics.fills)),
        ("voided", get(&statistics.voided)),
        ("invalidations", get(&statistics.invalidations)),
        ("flushes", get(&statistics.flushes)),
        ("evictions", get(&statistics.evictions)),
        ("requests", get(&statistics.requests)),
        ("failures", get(&statistics.failures)),
        ("connects", get(&statistics.connects)),
        ("connections", statistics.connections.load(Relaxed)),
        ("refreshes", get(&statistics.refreshes)),
        ("shadowed", get(&statistics.shadowed)),
        ("mismatches", get(&statistics.mismatches)),
    ]
}
