//! `INFO`.

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::super::spec::Arity::AtLeast;
use super::super::spec::{CommandSpec, Context, Group, Scope, category};
use super::super::table::COMMANDS;
use crate::acl::Incident;
use crate::clients::Audience;
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
    ("writebehind", true, write_behind),
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
    line(text, "redis_git_sha1", "00000000");
    line(text, "redis_git_dirty", 0);
    line(text, "os", std::env::consts::OS);
    line(text, "arch_bits", usize::BITS);
    line(text, "multiplexing_api", if instance.uses_io_uring() { "io_uring" } else { "epoll" });
    line(text, "process_id", std::process::id());
    line(text, "run_id", &instance.run_id);
    line(text, "tcp_port", instance.config.port);
    line(text, "server_time_usec", clock::wall_us());
    line(text, "uptime_in_seconds", uptime);
    line(text, "uptime_in_days", uptime / 86_400);
    line(text, "hz", instance.settings.int(Id::Hz));
    line(text, "configured_hz", instance.settings.int(Id::Hz));
    line(text, "lru_clock", clock::wall_ms() / 1000 % (1 << 24));
    line(
        text,
        "executable",
        std::env::current_exe().map(|path| path.display().to_string()).unwrap_or_default(),
    );
    line(text, "worker_threads", instance.config.threads);
    line(text, "io_threads_active", i32::from(instance.config.threads > 1));
    let file = instance.config.file.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    line(text, "config_file", file);
}

fn write_behind(context: &mut Context<'_, '_>, text: &mut String) {
    let Some(tier) = context.instance.write_behind() else { return line(text, "writebehind_enabled", 0) };
    let status = tier.status();
    line(text, "writebehind_enabled", 1);
    line(text, "writebehind_database", if status.is_away { "away" } else { "up" });
    line(text, "writebehind_journal", status.trouble.as_deref().unwrap_or("ok"));
    for figure in status.figures {
        line(text, &format!("writebehind_{}", figure.name), figure.value);
    }
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
    line(text, "tracking_clients", instance.clients.tracking.figures().0);
    line(text, "clients_in_timeout_table", 0);
    let waiting = list.iter().filter_map(|client| client.blocked.lock().clone());
    let (mut keys, mut keys_or_none) = (HashSet::new(), HashSet::new());
    for waiter in waiting {
        let named = || waiter.keys.iter().map(|key| (waiter.db, key.clone()));
        keys.extend(named());
        if COMMANDS.at(waiter.command).spec.waits_for_absence() {
            keys_or_none.extend(named());
        }
    }
    line(text, "total_blocking_keys", keys.len());
    line(text, "total_blocking_keys_on_nokey", keys_or_none.len());
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
    let share = |part: usize, whole: usize| format!("{:.2}%", part as f64 / whole.max(1) as f64 * 100.0);
    line(text, "used_memory_peak_perc", share(used, peak));
    let startup = instance.startup_memory;
    let dataset = used.saturating_sub(tables);
    line(text, "used_memory_overhead", tables);
    line(text, "used_memory_startup", startup);
    line(text, "used_memory_dataset", dataset);
    line(
        text,
        "used_memory_dataset_perc",
        share(dataset.saturating_sub(startup), used.saturating_sub(startup)),
    );
    let system = system_memory().unwrap_or(0);
    line(text, "total_system_memory", system);
    line(text, "total_system_memory_human", human(system));
    let machines = instance.scripts.machine_memory();
    let (scripts, script_bytes) = instance.scripts.usage();
    line(text, "used_memory_lua", machines);
    line(text, "used_memory_vm_eval", machines);
    line(text, "used_memory_lua_human", human(machines));
    line(text, "used_memory_scripts_eval", script_bytes);
    line(text, "number_of_cached_scripts", scripts);
    let (libraries, functions, function_bytes) = instance.libraries.usage();
    line(text, "number_of_functions", functions);
    line(text, "number_of_libraries", libraries);
    // The same machines run both.
    line(text, "used_memory_vm_functions", 0);
    line(text, "used_memory_vm_total", machines);
    line(text, "used_memory_vm_total_human", human(machines));
    line(text, "used_memory_functions", function_bytes);
    line(text, "used_memory_scripts", script_bytes + function_bytes);
    line(text, "used_memory_scripts_human", human(script_bytes + function_bytes));
    line(text, "maxmemory", limit);
    line(text, "maxmemory_human", human(limit));
    line(text, "maxmemory_policy", instance.settings.shown(Id::MaxmemoryPolicy));
    line(text, "mem_fragmentation_ratio", format!("{:.2}", resident as f64 / used.max(1) as f64));
    line(text, "mem_fragmentation_bytes", resident as i64 - used as i64);
    for absent in ["mem_clients_slaves", "mem_replication_backlog", "mem_aof_buffer", "mem_cluster_links"] {
        line(text, absent, 0);
    }
    line(text, "mem_allocator", "jemalloc");
    let is_running = instance.telemetry.defrag_running.load(Relaxed);
    // In percent of the time of a core, as in Redis.
    let share = if is_running { instance.settings.int(Id::ActiveDefragCycleMax) } else { 0 };
    line(text, "active_defrag_running", share);
    line(text, "lazyfree_pending_objects", instance.lazy_free.pending());
    line(text, "lazyfreed_objects", instance.lazy_free.freed());
}

/// The machine's memory.
fn system_memory() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix(" kB")?.parse::<usize>().ok()? * 1024)
}

fn persistence(context: &mut Context<'_, '_>, text: &mut String) {
    line(text, "loading", 0);
    line(text, "async_loading", 0);
    let last = context.instance.snapshots.last();
    let seconds = |time: Option<std::time::Duration>| time.map_or(-1, |time| time.as_secs() as i64);
    let changes = context.view.counters().changes.saturating_sub(last.changes);
    line(text, "rdb_changes_since_last_save", changes);
    line(text, "rdb_bgsave_in_progress", i32::from(last.began.is_some()));
    line(text, "rdb_last_save_time", last.saved_s);
    line(text, "rdb_last_bgsave_status", if last.is_ok { "ok" } else { "err" });
    line(text, "rdb_last_bgsave_time_sec", seconds(last.took));
    line(text, "rdb_current_bgsave_time_sec", seconds(last.began.map(|began| began.elapsed())));
    line(text, "rdb_saves", last.saves);
    // Nothing is copied.
    line(text, "rdb_last_cow_size", 0);
    line(text, "rdb_last_load_keys_expired", last.loaded.expired);
    line(text, "rdb_last_load_keys_loaded", last.loaded.keys);
    line(text, "aof_enabled", 0);
    line(text, "aof_rewrite_in_progress", 0);
    line(text, "aof_rewrite_scheduled", 0);
    line(text, "aof_last_rewrite_time_sec", -1);
    line(text, "aof_current_rewrite_time_sec", -1);
    line(text, "aof_last_bgrewrite_status", "ok");
    line(text, "aof_last_write_status", "ok");
    line(text, "aof_last_cow_size", 0);
    line(text, "module_fork_in_progress", 0);
    line(text, "module_fork_last_cow_size", 0);
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
    line(text, "expired_subkeys", counters.expired_fields);
    line(text, "evicted_keys", counters.evicted);
    line(text, "keyspace_hits", counters.hits);
    line(text, "keyspace_misses", counters.misses);
    let subscriptions = &context.instance.clients.subscriptions;
    line(text, "pubsub_channels", subscriptions.len(Audience::Channel));
    line(text, "pubsub_patterns", subscriptions.len(Audience::Pattern));
    line(text, "pubsubshard_channels", subscriptions.len(Audience::Shard));
    let (_, keys, items, prefixes) = context.instance.clients.tracking.figures();
    line(text, "tracking_total_keys", keys);
    line(text, "tracking_total_items", items);
    line(text, "tracking_total_prefixes", prefixes);
    for absent in [
        "evicted_clients",
        "sync_full",
        "sync_partial_ok",
        "sync_partial_err",
        "latest_fork_usec",
        "total_forks",
        "migrate_cached_sockets",
        "slave_expires_tracked_keys",
        "active_defrag_misses",
        "active_defrag_key_misses",
    ] {
        line(text, absent, 0);
    }
    let telemetry = &context.instance.telemetry;
    line(text, "active_defrag_hits", telemetry.defrag_moved.load(Relaxed));
    line(text, "active_defrag_key_hits", telemetry.defrag_keys.load(Relaxed));
    line(text, "total_error_replies", totals.errors);
    for incident in [Incident::Auth, Incident::Command, Incident::Key, Incident::Channel] {
        let name = if incident == Incident::Command { "cmd" } else { incident.name() };
        line(text, &format!("acl_access_denied_{name}"), context.instance.acl.denied(incident));
    }
    line(text, "command_panics", totals.panics);
}

fn replication(context: &mut Context<'_, '_>, text: &mut String) {
    line(text, "role", "master");
    line(text, "connected_slaves", 0);
    line(text, "master_failover_state", "no-failover");
    line(text, "master_replid", &context.instance.run_id);
    line(text, "master_replid2", "0".repeat(40));
    line(text, "master_repl_offset", 0);
    line(text, "second_repl_offset", -1);
    for absent in
        ["repl_backlog_active", "repl_backlog_size", "repl_backlog_first_byte_offset", "repl_backlog_histlen"]
    {
        line(text, absent, 0);
    }
}

fn cpu(_: &mut Context<'_, '_>, text: &mut String) {
    // utime and stime are the 14th and 15th fields; the second, in parentheses, may hold spaces.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let seconds =
        |index: usize| fields.get(index).and_then(|ticks| ticks.parse::<f64>().ok()).unwrap_or(0.0) / 100.0;
    line(text, "used_cpu_sys", format!("{:.6}", seconds(12)));
    line(text, "used_cpu_user", format!("{:.6}", seconds(11)));
    line(text, "used_cpu_sys_children", format!("{:.6}", seconds(14)));
    line(text, "used_cpu_user_children", format!("{:.6}", seconds(13)));
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
    let percentiles = context.instance.settings.info_percentiles();
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
        let shown = percentiles.iter().map(|wanted| format!("p{wanted}={:.3}", percentile(wanted / 100.0)));
        line(
            text,
            &format!("latency_percentiles_usec_{}", command.name),
            shown.collect::<Vec<_>>().join(","),
        );
    }
}

fn rate_limits(context: &mut Context<'_, '_>, text: &mut String) {
    let counts: Vec<_> = context.instance.limits.counts().collect();
    let instance = context.instance;
    let scope = instance.config.sharing.scope(instance.upstream.is_some());
    line(text, "ratelimit_scope", scope.name());
    line(text, "ratelimit_undecided", instance.limits.undecided());
    line(text, "ratelimit_policies", counts.len());
    for (name, admitted, refused) in counts {
        line(text, &format!("policy_{name}"), format!("admitted={admitted},refused={refused}"));
    }
}

fn upstream(context: &mut Context<'_, '_>, text: &mut String) {
    let Some(upstream) = &context.instance.upstream else { return line(text, "upstream", "none") };
    line(text, "upstream", format!("{:?}", upstream.config.endpoint));
    line(text, "upstream_up", i32::from(upstream.is_up()));
    if let Some(cluster) = &upstream.cluster {
        line(text, "upstream_nodes", cluster.connected_nodes());
    }
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
