//! `INFO`.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::super::spec::Arity::AtLeast;
use super::super::spec::{CommandSpec, Context, Group, Scope, category};
use super::super::table::COMMANDS;
use crate::clock;
use crate::config::Id;
use crate::protocol::{Args, CommandResult, Reply};
use crate::telemetry::{LATENCY_STEPS, step_limit};
use crate::tiers::local::memory;

/// The row.
pub(super) const INFO: CommandSpec = CommandSpec::session("info", Group::Server, AtLeast(1), info)
    .with(super::ALWAYS)
    .categories(category::DANGEROUS)
    .scope(Scope::Each)
    .tips(&["nondeterministic_output", "request_policy:all_shards", "response_policy:special"])
    .doc("Returns figures on the server, by section.", "1.0.0", "O(1)", "[section...]");

type Section = (&'static str, bool, fn(&mut Context<'_, '_>, &mut String));

/// The sections in order; whether each is part of the default.
const SECTIONS: &[Section] = &[
    ("server", true, server),
    ("clients", true, clients),
    ("memory", true, memory_section),
    ("persistence", true, persistence),
    ("stats", true, stats),
    ("replication", true, replication),
    ("cpu", true, cpu),
    ("modules", true, |_, _| ()),
    ("commandstats", false, command_stats),
    ("errorstats", true, error_stats),
    ("latencystats", false, latency_stats),
    ("ratelimit", true, rate_limits),
    ("upstream", true, upstream),
    ("cluster", true, |_, text| line(text, "cluster_enabled", 0)),
    ("keyspace", true, keyspace),
];

fn info(context: &mut Context<'_, '_>, args: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let asked: Vec<Vec<u8>> = args.skip(1).iter().map(<[u8]>::to_ascii_lowercase).collect();
    let has = |name: &str| asked.iter().any(|section| section == name.as_bytes());
    let everything = has("all") || has("everything");
    let default = asked.is_empty() || has("default");
    let mut text = String::new();
    for (name, in_default, write) in SECTIONS {
        if !(everything || default && *in_default || has(name)) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let title = match *name {
            "cpu" => "CPU".to_owned(),
            name => name[..1].to_uppercase() + &name[1..],
        };
        text.push_str(&format!("# {title}\r\n"));
        write(context, &mut text);
    }
    reply.verbatim("txt", text.as_bytes());
    Ok(())
}

fn line(text: &mut String, name: &str, value: impl std::fmt::Display) {
    // Writing to a string does not fail.
    let _ = write!(text, "{name}:{value}\r\n");
}

fn server(context: &mut Context<'_, '_>, text: &mut String) {
    let instance = context.instance;
    let uptime = (clock::monotonic() - instance.started).as_secs();
    line(text, "redis_version", super::super::REDIS_VERSION);
    line(text, "anteroom_version", env!("CARGO_PKG_VERSION"));
    line(text, "redis_mode", "standalone");
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "multiplexing_api", "epoll");
    line(text, "process_id", std::process::id());
    line(text, "run_id", &instance.run_id);
    line(text, "tcp_port", instance.config.port);
    line(text, "server_time_usec", clock::wall_us());
    line(text, "uptime_in_seconds", uptime);
    line(text, "uptime_in_days", uptime / 86_400);
    line(text, "worker_threads", instance.config.threads);
    line(text, "io_threads_active", i32::from(instance.config.threads > 1));
    let file = instance.config.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    line(text, "config_file", file);
}

fn clients(context: &mut Context<'_, '_>, text: &mut String) {
    let (instance, list) = (context.instance, context.instance.clients.list());
    line(text, "connected_clients", list.len());
    line(text, "cluster_connections", 0);
    line(text, "maxclients", instance.settings.int(Id::Maxclients));
    let largest =
        |of: fn(&crate::clients::Client) -> usize| list.iter().map(|client| of(client)).max().unwrap_or(0);
    line(text, "client_recent_max_input_buffer", largest(|client| client.query_buffer.load(Relaxed)));
    line(text, "client_recent_max_output_buffer", largest(|client| client.output_buffer.load(Relaxed)));
    line(text, "blocked_clients", instance.clients.blocked());
    line(text, "tracking_clients", 0);
    line(text, "clients_in_timeout_table", 0);
}

fn human(bytes: usize) -> String {
    let size = bytes as f64;
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", size / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", size / 1_048_576.0),
        _ => format!("{:.2}G", size / 1_073_741_824.0),
    }
}

fn memory_section(context: &mut Context<'_, '_>, text: &mut String) {
    let instance = context.instance;
    let (used, resident) = (memory::used(), memory::resident());
    let peak = (instance.telemetry.peak_memory.load(Relaxed) as usize).max(used);
    let limit = instance.settings.int(Id::Maxmemory) as usize;
    line(text, "used_memory", used);
    line(text, "used_memory_human", human(used));
    line(text, "used_memory_rss", resident);
    line(text, "used_memory_rss_human", human(resident));
    line(text, "used_memory_peak", peak);
    line(text, "used_memory_peak_human", human(peak));
    let tables: usize = (0..context.view.databases()).map(|db| context.view.table_memory(db)).sum();
    line(text, "used_memory_overhead", tables);
    line(text, "used_memory_dataset", used.saturating_sub(tables));
    line(text, "maxmemory", limit);
    line(text, "maxmemory_human", human(limit));
    line(text, "maxmemory_policy", instance.settings.shown(Id::MaxmemoryPolicy));
    line(text, "mem_fragmentation_ratio", format!("{:.2}", resident as f64 / used.max(1) as f64));
    line(text, "mem_allocator", "jemalloc");
}

fn persistence(context: &mut Context<'_, '_>, text: &mut String) {
    line(text, "loading", 0);
    line(text, "async_loading", 0);
    line(text, "rdb_changes_since_last_save", context.view.counters().changes);
    line(text, "rdb_bgsave_in_progress", 0);
    line(text, "aof_enabled", 0);
    line(text, "aof_rewrite_in_progress", 0);
}

fn stats(context: &mut Context<'_, '_>, text: &mut String) {
    let (telemetry, counters) = (&context.instance.telemetry, context.view.counters());
    let (totals, rates) = (telemetry.totals(), *telemetry.rates.lock());
    line(text, "total_connections_received", totals.connections);
    line(text, "total_commands_processed", totals.commands);
    line(text, "instantaneous_ops_per_sec", rates.commands);
    line(text, "total_net_input_bytes", totals.input_bytes);
    line(text, "total_net_output_bytes", totals.output_bytes);
    line(text, "instantaneous_input_kbps", format!("{:.2}", rates.input_bytes as f64 / 1024.0));
    line(text, "instantaneous_output_kbps", format!("{:.2}", rates.output_bytes as f64 / 1024.0));
    line(text, "rejected_connections", telemetry.rejected_connections.load(Relaxed));
    line(text, "expired_keys", counters.expired);
    line(text, "evicted_keys", counters.evicted);
    line(text, "keyspace_hits", counters.hits);
    line(text, "keyspace_misses", counters.misses);
    line(text, "total_error_replies", totals.errors);
    line(text, "command_panics", totals.panics);
}

fn replication(context: &mut Context<'_, '_>, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
    line(text, "master_replid", &context.instance.run_id);
    line(text, "master_repl_offset", 0);
}

fn cpu(_: &mut Context<'_, '_>, text: &mut String) {
    // utime and stime are the 14th and 15th fields; the second, in parentheses, may hold spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds =
        |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    line(text, "used_cpu_sys", format!("{:.6}", seconds(12)));
    line(text, "used_cpu_user", format!("{:.6}", seconds(11)));
}

fn command_stats(context: &mut Context<'_, '_>, text: &mut String) {
    for command in COMMANDS.iter() {
        let (mut calls, mut nanos, mut rejected, mut failed) = (0, 0, 0, 0);
        context.instance.telemetry.each(|worker| {
            let counters = &worker.commands[command.index];
            calls += counters.calls.get();
            nanos += counters.nanos.get();
            rejected += counters.rejected.get();
            failed += counters.failed.get();
        });
        if calls + rejected > 0 {
            let micros = nanos / 1000;
            let per_call = nanos as f64 / 1000.0 / calls.max(1) as f64;
            let value = format!(
                "calls={calls},usec={micros},usec_per_call={per_call:.2},rejected_calls={rejected},failed_calls={failed}"
            );
            line(text, &format!("cmdstat_{}", command.name), value);
        }
    }
}

fn error_stats(context: &mut Context<'_, '_>, text: &mut String) {
    for (code, count) in context.instance.telemetry.errors() {
        line(text, &format!("errorstat_{code}"), format!("count={count}"));
    }
}

fn latency_stats(context: &mut Context<'_, '_>, text: &mut String) {
    for command in COMMANDS.iter() {
        let mut counts = [0; LATENCY_STEPS];
        context.instance.telemetry.each(|worker| worker.latencies[command.index].add_to(&mut counts));
        let total: u64 = counts.iter().sum();
        if total == 0 {
            continue;
        }
        let percentile = |fraction: f64| {
            let wanted = (total as f64 * fraction).ceil() as u64;
            let mut sum = 0;
            let step = counts.iter().position(|count| {
                sum += count;
                sum >= wanted
            });
            step_limit(step.unwrap_or(0)) as f64 / 1000.0
        };
        let (p50, p99, p999) = (percentile(0.5), percentile(0.99), percentile(0.999));
        line(
            text,
            &format!("latency_percentiles_usec_{}", command.name),
            format!("p50={p50:.3},p99={p99:.3},p99.9={p999:.3}"),
        );
    }
}

fn rate_limits(context: &mut Context<'_, '_>, text: &mut String) {
    let counts: Vec<_> = context.instance.limits.counts().collect();
    line(text, "ratelimit_policies", counts.len());
    for (name, admitted, refused) in counts {
        line(text, &format!("policy_{name}"), format!("admitted={admitted},refused={refused}"));
    }
}

fn upstream(context: &mut Context<'_, '_>, text: &mut String) {
    let Some(upstream) = &context.instance.upstream else { return line(text, "upstream", "none") };
    line(text, "upstream", format!("{:?}", upstream.config.endpoint));
    line(text, "upstream_up", i32::from(upstream.tracked.is_up()));
    for (name, value) in super::super::cache::figures(&upstream.statistics) {
        line(text, &format!("upstream_{}", name.replace('-', "_")), value);
    }
}

fn keyspace(context: &mut Context<'_, '_>, text: &mut String) {
    for db in 0..context.view.databases() {
        let (keys, volatile) = context.view.key_counts(db);
        if keys > 0 {
            line(text, &format!("db{db}"), format!("keys={keys},expires={volatile},avg_ttl=0"));
        }
    }
}
