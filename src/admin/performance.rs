//! `/admin/performance`: the figures as JSON. Latencies are in microseconds; least, most and percentiles come from
//! histograms and are exact to a quarter.

use serde_json::{Value, json};

use super::figures::{CommandFigures, Figures};
use crate::config::Id;
use crate::tiers::database::store::StatementStatistics;

/// The report.
pub(super) fn report(figures: &Figures) -> Value {
    let (instance, totals, keyspace) = (figures.instance, &figures.totals, &figures.keyspace);
    let limit = instance.settings.int(Id::Maxmemory);
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "ready": instance.is_ready(),
        "uptime_seconds": figures.uptime_seconds.floor(),
        "threads": instance.config.threads,
        "memory": {
            "used_bytes": figures.memory_used,
            "peak_bytes": figures.memory_peak,
            "resident_bytes": figures.memory_resident,
            "max_bytes": limit,
            "policy": instance.settings.shown(Id::MaxmemoryPolicy),
        },
        "clients": { "connected": instance.clients.len(), "blocked": instance.clients.blocked() },
        "requests": {
            "total": totals.commands,
            "per_second": figures.rates.commands,
            "errors": totals.errors,
            "error_rate": ratio(totals.errors, totals.commands.max(totals.errors)),
            "panics": totals.panics,
        },
        "network": {
            "input_bytes": totals.input_bytes,
            "output_bytes": totals.output_bytes,
            "input_bytes_per_second": figures.rates.input_bytes,
            "output_bytes_per_second": figures.rates.output_bytes,
        },
        "tiers": {
            "local": {
                "hits": keyspace.hits,
                "misses": keyspace.misses,
                "hit_ratio": ratio(keyspace.hits, keyspace.hits + keyspace.misses),
                "expired": keyspace.expired,
                "evicted": keyspace.evicted,
            },
        },
        "databases": figures.databases.iter().map(|(db, keys, volatile)| json!({
            "db": db, "keys": keys, "expiring": volatile,
        })).collect::<Vec<_>>(),
        "commands": figures.commands.iter().map(command).collect::<Vec<_>>(),
        "errors": figures.errors.iter().map(|(code, count)| json!({
            "code": code, "count": count,
        })).collect::<Vec<_>>(),
        "slow": figures.slow.iter().map(|entry| json!({
            "id": entry.id,
            "time": entry.time,
            "micros": entry.micros,
            "command": entry.arguments.iter().map(|argument| String::from_utf8_lossy(argument)).collect::<Vec<_>>(),
            "client": entry.address,
        })).collect::<Vec<_>>(),
        "ratelimit": {
            "policies": figures.policies.iter().map(|(name, admitted, refused)| json!({
                "name": name, "admitted": admitted, "refused": refused,
            })).collect::<Vec<_>>(),
            "most_refused": figures.most_refused.iter().map(|(key, refused)| json!({
                "key": key, "refused": refused,
            })).collect::<Vec<_>>(),
        },
        "database": instance.write_behind().map(|tier| {
            let status = tier.status();
            let figures: serde_json::Map<String, Value> =
                status.figures.iter().map(|figure| (figure.name.to_owned(), figure.value.into())).collect();
            json!({
                "up": !status.is_away,
                "journal": status.trouble.as_deref().unwrap_or("ok"),
                "figures": figures,
                "statements": tier.backend().store.statements().iter().map(statement).collect::<Vec<_>>(),
            })
        }),
        "growing": figures.growing.iter().map(|(prefix, keys, bytes)| json!({
            "prefix": prefix, "keys": keys, "bytes": bytes,
        })).collect::<Vec<_>>(),
    })
}

fn statement(statement: &StatementStatistics) -> Value {
    let micros = |time: std::time::Duration| time.as_nanos() as f64 / 1000.0;
    json!({
        "statement": &*statement.statement,
        "count": statement.count,
        "success_rate": ratio(statement.succeeded, statement.count),
        "mean_micros": micros(statement.mean),
        "min_micros": micros(statement.min),
        "max_micros": micros(statement.max),
    })
}

fn command(command: &CommandFigures) -> Value {
    let asked = command.calls + command.rejected;
    let micros = |fraction| command.quantile(fraction).map(|nanos| nanos as f64 / 1000.0);
    json!({
        "name": command.name,
        "calls": command.calls,
        "failed": command.failed,
        "rejected": command.rejected,
        "success_rate": ratio(asked.saturating_sub(command.failed + command.rejected), asked),
        "mean_micros": (command.calls > 0).then(|| command.nanos as f64 / 1000.0 / command.calls as f64),
        "min_micros": command.least().map(|nanos| nanos as f64 / 1000.0),
        "p50_micros": micros(0.5),
        "p95_micros": micros(0.95),
        "p99_micros": micros(0.99),
        "p999_micros": micros(0.999),
        "max_micros": micros(1.0),
    })
}

/// A part of a whole; null if there is none.
fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}
