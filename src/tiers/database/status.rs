//! How the tier is, gathered once for all who show it.

use std::sync::atomic::Ordering::Relaxed;

use super::journal::Statistics;
use super::tier::Tier;

/// A figure: its name, whether it only rises, what it is, and its value.
pub struct Figure {
    /// In words joined by `_`.
    pub name: &'static str,
    /// Whether it counts since the start.
    pub is_total: bool,
    /// What it is.
    pub help: &'static str,
    /// Its value.
    pub value: u64,
}

/// How the tier is.
pub struct Status {
    /// Whether the last try to flush failed because the database is away, or it was not there since the start.
    pub is_away: bool,
    /// Why the journal takes nothing, if so.
    pub trouble: Option<String>,
    /// The figures.
    pub figures: Vec<Figure>,
}

impl Tier {
    /// How it is.
    pub fn status(&self) -> Status {
        let (journal, counters, (depth, age)) = (self.journal.statistics(), &self.counters, self.depth());
        let (query_hits, query_runs) = self.results.counts();
        let Statistics { disk_bytes, buffered_bytes, trouble, .. } = &journal;
        let batches = counters.batches.load(Relaxed);
        let mean = counters.batch_nanos.load(Relaxed).checked_div(batches).unwrap_or(0);
        let gauge = |name, help, value| Figure { name, is_total: false, help, value };
        let total = |name, help, value| Figure { name, is_total: true, help, value };
        let figures = vec![
            gauge("depth", "Changes that wait for the database.", depth as u64),
            gauge("oldest_age_ms", "How long the oldest of them has waited.", age.as_millis() as u64),
            total("batches", "Batches committed.", batches),
            total("changes", "Changes committed.", counters.changes.load(Relaxed)),
            gauge("batch_mean_us", "The mean time of a batch.", mean / 1000),
            total("retries", "Tries that the database could not serve.", counters.retries.load(Relaxed)),
            total("dead_letters", "Changes that the database refused.", counters.dead_letters.load(Relaxed)),
            total(
                "unjournaled",
                "Changes of the cache that the journal did not take.",
                counters.unjournaled.load(Relaxed),
            ),
            total("loads", "Rows read.", counters.loads.load(Relaxed)),
            total("failed_loads", "Reads of rows that failed.", counters.failed_loads.load(Relaxed)),
            total("query_hits", "Named queries answered from the cache.", query_hits),
            total("query_runs", "Named queries run.", query_runs),
            gauge("journal_bytes", "The journal's size.", disk_bytes + buffered_bytes),
            gauge("journal_segments", "Its segments.", journal.segments as u64),
            gauge("journal_records", "Its records that are not done.", journal.unfinished),
            gauge("journal_last_sequence", "The sequence of its last record.", self.journal.last()),
            gauge("journal_durable_sequence", "Up to where it is synced.", journal.durable),
            total("journal_writes", "Its writes.", journal.writes),
            total("journal_syncs", "Its syncs.", journal.syncs),
            gauge("journal_longest_sync_us", "The longest sync.", journal.longest_sync.as_micros() as u64),
            total("journal_errors", "Its errors.", journal.errors),
            total("journal_refused", "Writes that it refused.", journal.refused),
        ];
        let trouble = trouble.as_ref().map(ToString::to_string);
        Status { is_away: !self.readiness.is_ready() || counters.failing.load(Relaxed) > 0, trouble, figures }
    }
}
