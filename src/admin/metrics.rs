//! `/metrics`: the text format of Prometheus. What Redis has too bears the name that redis_exporter gives it, so that its
//! dashboards work; what is ours begins with `anteroom_`.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::figures::{CommandFigures, Figures};
use crate::acl::Incident;
use crate::commands::REDIS_VERSION;
use crate::config::Id;

/// Bounds of the latency histogram: 2^10 ns (about 1 µs) to 2^30 ns (about 1 s), each four times the one before.
const BOUNDS: [usize; 11] = [10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30];

struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, content)) in labels.iter().enumerate() {
            let content = content.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{content}\"", if index == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl std::fmt::Display) {
        self.head(name, "counter", help);
        self.sample(name, &[], value);
    }

    /// A metric with one label; nothing at all if there is no sample.
    fn family<'a, V: std::fmt::Display>(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        label: &str,
        samples: impl IntoIterator<Item = (&'a str, V)>,
    ) {
        let mut samples = samples.into_iter().peekable();
        if samples.peek().is_some() {
            self.head(name, kind, help);
        }
        for (content, value) in samples {
            self.sample(name, &[(label, content)], value);
        }
    }
}

/// The figures as text.
pub(super) fn render(figures: &Figures) -> String {
    let mut text = Text(String::with_capacity(16 * 1024));
    server(&mut text, figures);
    memory(&mut text, figures);
    traffic(&mut text, figures);
    commands(&mut text, figures);
    keys(&mut text, figures);
    limits(&mut text, figures);
    database(&mut text, figures);
    upstream(&mut text, figures);
    text.0
}

fn server(text: &mut Text, figures: &Figures) {
    let (instance, settings) = (figures.instance, &figures.instance.settings);
    text.gauge("redis_up", "Whether the server answers.", 1);
    text.gauge(
        "redis_uptime_in_seconds",
        "Seconds since the start.",
        format_args!("{:.0}", figures.uptime_seconds.floor()),
    );
    let started = figures.unix_seconds - figures.uptime_seconds;
    text.gauge("redis_start_time_seconds", "Unix time of the start.", format_args!("{started:.0}"));
    let (pid, port) = (std::process::id().to_string(), instance.config.port.to_string());
    let policy = settings.shown(Id::MaxmemoryPolicy);
    text.head("redis_instance_info", "gauge", "What does not change.");
    let labels = [
        ("redis_version", REDIS_VERSION),
        ("redis_mode", "standalone"),
        ("os", std::env::consts::OS),
        ("process_id", &pid),
        ("run_id", &instance.run_id),
        ("tcp_port", &port),
        ("role", "master"),
        ("maxmemory_policy", &policy),
    ];
    text.sample("redis_instance_info", &labels, 1);
    text.head("anteroom_info", "gauge", "The version of Anteroom.");
    text.sample("anteroom_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    text.gauge("anteroom_ready", "Whether clients are served.", i32::from(instance.is_ready()));
    text.gauge("anteroom_worker_threads", "Worker threads.", instance.config.threads);
    text.gauge("redis_connected_clients", "Clients connected.", instance.clients.len());
    text.gauge("redis_blocked_clients", "Clients that wait.", instance.clients.blocked());
    text.gauge("redis_config_maxclients", "Clients allowed at a time.", settings.int(Id::Maxclients));
}

fn memory(text: &mut Text, figures: &Figures) {
    let limit = figures.instance.settings.int(Id::Maxmemory);
    text.gauge("redis_memory_used_bytes", "Bytes allocated.", figures.memory_used);
    text.gauge("redis_memory_used_peak_bytes", "The most bytes allocated.", figures.memory_peak);
    text.gauge("redis_memory_used_rss_bytes", "Bytes of physical memory.", figures.memory_resident);
    text.gauge(
        "redis_memory_used_startup_bytes",
        "Bytes allocated at the start.",
        figures.instance.startup_memory,
    );
    text.gauge("redis_memory_max_bytes", "The limit, 0 for none.", limit);
    text.gauge("redis_config_maxmemory", "The limit, 0 for none.", limit);
    text.gauge(
        "redis_mem_fragmentation_ratio",
        "Physical memory by what is allocated.",
        format_args!("{:.3}", figures.memory_resident as f64 / figures.memory_used.max(1) as f64),
    );
}

fn traffic(text: &mut Text, figures: &Figures) {
    let (totals, telemetry) = (&figures.totals, &figures.instance.telemetry);
    text.counter("redis_connections_received_total", "Connections accepted.", totals.connections);
    text.counter(
        "redis_rejected_connections_total",
        "Connections refused at the limit.",
        telemetry.rejected_connections.load(Relaxed),
    );
    for incident in [Incident::Auth, Incident::Command, Incident::Key, Incident::Channel] {
        let name = if incident == Incident::Command { "cmd" } else { incident.name() };
        let help = "What users were denied.";
        text.counter(
            &format!("redis_acl_access_denied_{name}_total"),
            help,
            figures.instance.acl.denied(incident),
        );
    }
    text.counter("redis_commands_processed_total", "Commands executed.", totals.commands);
    text.counter("redis_net_input_bytes_total", "Bytes read from clients.", totals.input_bytes);
    text.counter("redis_net_output_bytes_total", "Bytes written to clients.", totals.output_bytes);
    text.gauge(
        "redis_instantaneous_ops_per_sec",
        "Commands in the last second or so.",
        figures.rates.commands,
    );
    text.counter("anteroom_error_replies_total", "Replies that were errors.", totals.errors);
    text.counter("anteroom_command_panics_total", "Commands that panicked.", totals.panics);
    let errors = figures.errors.iter().map(|(code, count)| (code.as_str(), *count));
    text.family("redis_errors_total", "counter", "Error replies by their code.", "err", errors);
    text.gauge("redis_slowlog_length", "Entries in the slow log.", figures.slow_len);
    let last = figures.slow.first().map_or(0, |entry| entry.id);
    text.gauge("redis_slowlog_last_id", "The last entry in the slow log.", last);
}

fn commands(text: &mut Text, figures: &Figures) {
    let list = &figures.commands;
    let counts = |of: fn(&CommandFigures) -> u64| list.iter().map(move |command| (command.name, of(command)));
    text.family("redis_commands_total", "counter", "Executions.", "cmd", counts(|command| command.calls));
    text.family(
        "redis_commands_duration_seconds_total",
        "counter",
        "Their time.",
        "cmd",
        list.iter().map(|command| (command.name, seconds(command.nanos))),
    );
    text.family(
        "redis_commands_rejected_calls_total",
        "counter",
        "Refused before they ran.",
        "cmd",
        counts(|command| command.rejected),
    );
    text.family(
        "redis_commands_failed_calls_total",
        "counter",
        "Ran and replied an error.",
        "cmd",
        counts(|command| command.failed),
    );
    let name = "anteroom_command_duration_seconds";
    let measured = || list.iter().filter(|command| command.measured() > 0);
    if measured().next().is_some() {
        text.head(name, "histogram", "How long executions took.");
    }
    for command in measured() {
        let bucket = format!("{name}_bucket");
        for doubling in BOUNDS {
            let bound = seconds(1 << doubling);
            text.sample(&bucket, &[("cmd", command.name), ("le", &bound)], command.below(doubling));
        }
        text.sample(&bucket, &[("cmd", command.name), ("le", "+Inf")], command.measured());
        text.sample(&format!("{name}_sum"), &[("cmd", command.name)], seconds(command.nanos));
        text.sample(&format!("{name}_count"), &[("cmd", command.name)], command.measured());
    }
}

/// Nanoseconds as seconds, exactly.
fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

fn keys(text: &mut Text, figures: &Figures) {
    let keyspace = &figures.keyspace;
    text.counter("redis_keyspace_hits_total", "Reads that found their key.", keyspace.hits);
    text.counter("redis_keyspace_misses_total", "Reads that did not.", keyspace.misses);
    text.counter("redis_expired_keys_total", "Keys gone at their deadline.", keyspace.expired);
    text.counter(
        "redis_expired_subkeys_total",
        "Fields of hashes gone at their deadline.",
        keyspace.expired_fields,
    );
    text.counter("redis_evicted_keys_total", "Keys gone for want of memory.", keyspace.evicted);
    let names: Vec<String> = figures.databases.iter().map(|(db, ..)| format!("db{db}")).collect();
    let databases = || names.iter().map(String::as_str).zip(&figures.databases);
    let keys = databases().map(|(name, (_, keys, _))| (name, *keys));
    text.family("redis_db_keys", "gauge", "Keys.", "db", keys);
    let expiring = databases().map(|(name, (.., volatile))| (name, *volatile));
    text.family("redis_db_keys_expiring", "gauge", "Keys with a deadline.", "db", expiring);
}

fn limits(text: &mut Text, figures: &Figures) {
    let admitted = figures.policies.iter().map(|(name, admitted, _)| (name.as_str(), *admitted));
    let help = "Calls that a rate limit policy admitted.";
    text.family("anteroom_ratelimit_admitted_total", "counter", help, "policy", admitted);
    let refused = figures.policies.iter().map(|(name, _, refused)| (name.as_str(), *refused));
    let help = "Calls that a rate limit policy refused.";
    text.family("anteroom_ratelimit_refused_total", "counter", help, "policy", refused);
    let help = "Rate limit calls that upstream was to decide on and did not.";
    text.counter("anteroom_ratelimit_undecided_total", help, figures.instance.limits.undecided());
}

fn database(text: &mut Text, figures: &Figures) {
    let Some(tier) = figures.instance.write_behind() else { return };
    let status = tier.status();
    text.gauge(
        "anteroom_database_up",
        "Whether the database took the last batch.",
        i32::from(!status.is_away),
    );
    text.gauge(
        "anteroom_journal_up",
        "Whether the journal takes records.",
        i32::from(status.trouble.is_none()),
    );
    for figure in status.figures {
        if figure.is_total {
            let name = format!("anteroom_database_{}_total", figure.name);
            text.counter(&name, figure.help, figure.value);
        } else {
            text.gauge(&format!("anteroom_database_{}", figure.name), figure.help, figure.value);
        }
    }
    let statements = tier.backend().store.statements();
    let counts = statements.iter().map(|statement| (&*statement.statement, statement.count));
    let help = "Statements run.";
    text.family("anteroom_database_statements_total", "counter", help, "statement", counts);
    let failed =
        statements.iter().map(|statement| (&*statement.statement, statement.count - statement.succeeded));
    let help = "Statements that failed.";
    text.family("anteroom_database_statements_failed_total", "counter", help, "statement", failed);
}

fn upstream(text: &mut Text, figures: &Figures) {
    let Some(upstream) = &figures.instance.upstream else { return };
    text.gauge("anteroom_upstream_up", "Whether upstream is connected.", i32::from(upstream.is_up()));
    let is_stale = upstream.near.is_stale(crate::tiers::upstream::now_ms());
    text.gauge("anteroom_upstream_stale", "Whether what is kept may be old.", i32::from(is_stale));
    for (name, value) in crate::commands::cache::figures(&upstream.statistics) {
        let name = name.replace('-', "_");
        if name == "connections" {
            text.gauge("anteroom_upstream_connections", "Connections to upstream.", value);
        } else {
            let help = "See CACHE.STATS.";
            text.counter(&format!("anteroom_upstream_{name}_total"), help, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_seconds_exact() {
        let mut text = Text(String::new());
        text.sample("a", &[("b", "x\"y\\z\n"), ("c", "d")], 1);
        assert_eq!(text.0, "a{b=\"x\\\"y\\\\z\\n\",c=\"d\"} 1\n");
        assert_eq!((seconds(1024), seconds(1 << 30)), ("0.000001024".into(), "1.073741824".into()));
    }
}
