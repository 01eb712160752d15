//! `MEMORY STATS`: the figures, by the names that Redis gives them.

use std::sync::atomic::Ordering::Relaxed;

use super::super::spec::Context;
use crate::clients::Client;
use crate::protocol::{Args, CommandResult, Reply};
use crate::tiers::local::memory;

/// Writes the figures; what does not exist here is zero.
pub(super) fn stats(context: &mut Context<'_, '_>, _: Args<'_>, reply: &mut Reply<'_>) -> CommandResult {
    let instance = context.instance;
    let (used, resident) = (memory::used(), memory::resident());
    let peak = (instance.telemetry.peak_memory.load(Relaxed) as usize).max(used);
    let startup = instance.startup_memory;
    let clients: usize = instance.clients.list().iter().map(|client| client_memory(client)).sum();
    let tables: Vec<(usize, usize, usize)> = (0..context.view.databases())
        .map(|db| (db, context.view.key_counts(db).0, context.view.table_memory(db)))
        .filter(|(_, keys, _)| *keys > 0)
        .collect();
    let keys: usize = tables.iter().map(|(_, keys, _)| keys).sum();
    let overhead = startup + clients + tables.iter().map(|(_, _, bytes)| bytes).sum::<usize>();
    let net = used.saturating_sub(startup);
    let dataset = used.saturating_sub(overhead);
    let allocator = memory::allocator_figures();

    let mut figures = Figures { reply, pairs: 0 };
    let header = figures.reply.deferred();
    figures.count("peak.allocated", peak);
    figures.count("total.allocated", used);
    figures.count("startup.allocated", startup);
    figures.count("replication.backlog", 0);
    figures.count("clients.slaves", 0);
    figures.count("clients.normal", clients);
    for absent in ["cluster.links", "aof.buffer", "lua.caches", "functions.caches"] {
        figures.count(absent, 0);
    }
    for (db, _, bytes) in &tables {
        figures.name(&format!("db.{db}"));
        figures.reply.map(3);
        for (name, value) in [
            ("overhead.hashtable.main", *bytes),
            ("overhead.hashtable.expires", 0),
            ("overhead.hashtable.slot-to-keys", 0),
        ] {
            figures.reply.bulk(name.as_bytes());
            figures.reply.count(value);
        }
    }
    figures.count("overhead.total", overhead);
    figures.count("keys.count", keys);
    figures.count("keys.bytes-per-key", net.checked_div(keys).unwrap_or(0));
    figures.count("dataset.bytes", dataset);
    figures.ratio("dataset.percentage", dataset * 100, net);
    figures.ratio("peak.percentage", used * 100, peak);
    figures.count("allocator.allocated", allocator.allocated);
    figures.count("allocator.active", allocator.active);
    figures.count("allocator.resident", allocator.resident);
    figures.excess("allocator-fragmentation", allocator.active, allocator.allocated);
    figures.excess("allocator-rss", allocator.resident, allocator.active);
    figures.excess("rss-overhead", resident, allocator.resident);
    figures.ratio("fragmentation", resident, used);
    figures.difference("fragmentation.bytes", resident, used);
    let pairs = figures.pairs;
    reply.end_map(header, pairs);
    Ok(())
}

/// Bytes that a connection takes.
pub(super) fn client_memory(client: &Client) -> usize {
    let (query, output) = (client.query_buffer.load(Relaxed), client.output_buffer.load(Relaxed));
    query + output + client.transaction_memory.load(Relaxed) + size_of::<Client>()
}

struct Figures<'r, 'a> {
    reply: &'r mut Reply<'a>,
    pairs: usize,
}

impl Figures<'_, '_> {
    fn name(&mut self, name: &str) {
        self.pairs += 1;
        self.reply.bulk(name.as_bytes());
    }

    fn count(&mut self, name: &str, value: usize) {
        self.name(name);
        self.reply.count(value);
    }

    fn ratio(&mut self, name: &str, part: usize, whole: usize) {
        self.name(name);
        self.reply.double(part as f64 / whole.max(1) as f64);
    }

    fn difference(&mut self, name: &str, more: usize, less: usize) {
        self.name(name);
        self.reply.integer(more as i64 - less as i64);
    }

    /// How much more one is than the other: as a ratio and in bytes.
    fn excess(&mut self, name: &str, more: usize, less: usize) {
        self.ratio(&format!("{name}.ratio"), more, less);
        self.difference(&format!("{name}.bytes"), more, less);
    }
}
