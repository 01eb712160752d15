//! How the tier is, gathered once for all who show it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::backend::Backend;
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

impl Figure {
    pub(super) fn gauge(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, is_total: false, help, value }
    }

    pub(super) fn total(name: &'static str, help: &'static str, value: u64) -> Self {
        Self { name, is_total: true, help, value }
    }
}

impl Backend {
    /// The figures that do not depend on where the journal is; so many changes wait, the oldest for so long.
    pub(super) fn figures(&self, depth: u64, age_ms: u64) -> Vec<Figure> {
        let (counters, (query_hits, query_runs)) = (&self.counters, self.results.counts());
        let (batches, locked) = (counters.batches.load(Relaxed), self.backlog.lock().held_up() as u64);
        let mean = counters.batch_nanos.load(Relaxed).checked_div(batches).unwrap_or(0);
        let total = |name, help, counter: &AtomicU64| Figure::total(name, help, counter.load(Relaxed));
        vec![
            Figure::gauge("depth", "Changes that wait for the database.", depth),
            Figure::gauge("oldest_age_ms", "How long the oldest of them has waited.", age_ms),
            Figure::gauge("locked", "Records that wait for rows which others have locked.", locked),
            Figure::total("batches", "Batches committed.", batches),
            total("changes", "Changes committed.", &counters.changes),
            Figure::gauge("batch_mean_us", "The mean time of a batch.", mean / 1000),
            total("retries", "Tries that the database could not serve.", &counters.retries),
            total("dead_letters", "Changes that the database refused.", &counters.dead_letters),
            total(
                "unjournaled",
                "Changes of the cache that the journal did not take.",
                &counters.unjournaled,
            ),
            total("loads", "Rows read.", &counters.loads),
            total("failed_loads", "Reads of rows that failed.", &counters.failed_loads),
            Figure::total("query_hits", "Named queries answered from the cache.", query_hits),
            Figure::total("query_runs", "Named queries run.", query_runs),
        ]
    }

    /// Whether the database did not take what was last tried, or was not seen to be as it should be.
    pub(super) fn is_away(&self) -> bool {
        !self.readiness.is_ready() || self.counters.failing.load(Relaxed) > 0
    }
}

impl Tier {
    /// How it is.
    pub fn status(&self) -> Status {
        let (journal, (depth, age)) = (self.journal.statistics(), self.backend.depth());
        let Statistics { disk_bytes, buffered_bytes, trouble, .. } = &journal;
        let (gauge, total) = (Figure::gauge, Figure::total);
        let mut figures = self.backend.figures(depth as u64, age.as_millis() as u64);
        figures.extend([
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
        ]);
        Status {
            is_away: self.backend.is_away(),
            trouble: trouble.as_ref().map(ToString::to_string),
            figures,
        }
    }
}
