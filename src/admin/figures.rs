//! The figures that metrics and the page show, gathered at once.

use std::sync::atomic::Ordering::Relaxed;

use crate::clock;
use crate::commands::table::COMMANDS;
use crate::instance::Instance;
use crate::slow_log::SlowEntry;
use crate::telemetry::{LATENCY_STEPS, Rates, Totals, step_limit};
use crate::tiers::local::{Effects, LockPlan, View, memory};

/// Slow commands shown.
const SLOW: usize = 20;
/// Subjects shown that were refused most.
const REFUSED: usize = 10;

/// What is known of the server at one time.
pub(super) struct Figures {
    pub(super) instance: &'static Instance,
    pub(super) uptime_seconds: f64,
    pub(super) unix_seconds: f64,
    pub(super) memory_used: usize,
    pub(super) memory_resident: usize,
    pub(super) memory_peak: usize,
    pub(super) totals: Totals,
    pub(super) rates: Rates,
    pub(super) keyspace: Keyspace,
    /// Of each database that holds keys: its number, keys, keys with a deadline.
    pub(super) databases: Vec<(usize, usize, usize)>,
    /// Commands that were called or refused, in the table's order.
    pub(super) commands: Vec<CommandFigures>,
    pub(super) errors: Vec<(String, u64)>,
    pub(super) slow: Vec<SlowEntry>,
    pub(super) slow_len: usize,
    /// Of each policy: its name, admitted, refused.
    pub(super) policies: Vec<(String, u64, u64)>,
    pub(super) most_refused: Vec<(String, u64)>,
    /// Prefixes whose keys only grow in number: about how many keys, how many bytes.
    pub(super) growing: Vec<(String, usize, usize)>,
}

/// What the keyspace counted.
pub(super) struct Keyspace {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) expired: u64,
    pub(super) expired_fields: u64,
    pub(super) evicted: u64,
}

/// What is known of one command.
pub(super) struct CommandFigures {
    pub(super) name: &'static str,
    pub(super) calls: u64,
    pub(super) nanos: u64,
    pub(super) rejected: u64,
    pub(super) failed: u64,
    /// How many latencies fell into each step.
    pub(super) latencies: [u64; LATENCY_STEPS],
}

impl CommandFigures {
    /// How many latencies were measured.
    pub(super) fn measured(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// The upper end of the step that a quantile falls into, in nanoseconds; `None` if nothing was measured.
    pub(super) fn quantile(&self, fraction: f64) -> Option<u64> {
        let wanted = ((self.measured() as f64 * fraction).ceil() as u64).max(1);
        let mut sum = 0;
        let step = self.latencies.iter().position(|count| {
            sum += count;
            sum >= wanted
        });
        step.map(step_limit)
    }

    /// The lower end of the first step that anything fell into.
    pub(super) fn least(&self) -> Option<u64> {
        let step = self.latencies.iter().position(|count| *count > 0)?;
        Some(step.checked_sub(1).map_or(0, |before| step_limit(before) + 1))
    }

    /// Latencies below 2^`doubling` nanoseconds.
    pub(super) fn below(&self, doubling: usize) -> u64 {
        self.latencies[..doubling * 4].iter().sum()
    }
}

impl Figures {
    /// Gathers them, one shard locked after the other.
    pub(super) fn gather(instance: &'static Instance) -> Self {
        let mut effects = Effects::default();
        let mut view = View::new(&instance.keyspace, &LockPlan::Each, 0, clock::wall_ms(), &mut effects);
        let counters = view.counters();
        let counts = (0..view.databases()).map(|db| (db, view.key_counts(db)));
        let databases =
            counts.filter(|(_, (keys, _))| *keys > 0).map(|(db, (keys, volatile))| (db, keys, volatile));
        let databases = databases.collect();
        drop(view);
        let telemetry = &instance.telemetry;
        let memory_used = memory::used();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (slow, slow_len) = {
            let log = instance.slow_log.lock();
            (log.entries().take(SLOW).cloned().collect(), log.len())
        };
        Self {
            instance,
            uptime_seconds: (clock::monotonic() - instance.started).as_secs_f64(),
            unix_seconds: clock::wall_ms() as f64 / 1000.0,
            memory_used,
            memory_resident: memory::resident(),
            memory_peak: (telemetry.peak_memory.load(Relaxed) as usize).max(memory_used),
            totals: telemetry.totals(),
            rates: *telemetry.rates.lock(),
            keyspace: Keyspace {
                hits: counters.hits,
                misses: counters.misses,
                expired: counters.expired,
                expired_fields: counters.expired_fields,
                evicted: counters.evicted,
            },
            databases,
            commands: commands(instance),
            errors: telemetry.errors(),
            slow,
            slow_len,
            policies: instance.limits.counts().collect(),
            most_refused: {
                let most = instance.limits.most_refused(REFUSED);
                most.into_iter().map(|(key, count)| (text(&key), count)).collect()
            },
            growing: {
                let growing = instance.growth.lock().growing();
                growing.iter().map(|growth| (text(&growth.prefix), growth.keys, growth.bytes)).collect()
            },
        }
    }
}

fn commands(instance: &Instance) -> Vec<CommandFigures> {
    let mut commands: Vec<CommandFigures> = COMMANDS
        .iter()
        .map(|command| CommandFigures {
            name: &command.name,
            calls: 0,
            nanos: 0,
            rejected: 0,
            failed: 0,
            latencies: [0; LATENCY_STEPS],
        })
        .collect();
    instance.telemetry.each(|worker| {
        for (sum, (counters, latencies)) in
            commands.iter_mut().zip(worker.commands.iter().zip(&worker.latencies))
        {
            sum.calls += counters.calls.get();
            sum.nanos += counters.nanos.get();
            sum.rejected += counters.rejected.get();
            sum.failed += counters.failed.get();
            if counters.calls.get() > 0 {
                latencies.add_to(&mut sum.latencies);
            }
        }
    });
    commands.retain(|command| command.calls + command.rejected > 0);
    commands
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_ends_of_steps() {
        let mut command = CommandFigures {
            name: "get",
            calls: 100,
            nanos: 0,
            rejected: 0,
            failed: 0,
            latencies: [0; LATENCY_STEPS],
        };
        assert_eq!(command.quantile(0.5), None);
        // 99 between 1024 and 1279 ns, one between 1048576 and 1310719.
        (command.latencies[40], command.latencies[80]) = (99, 1);
        assert_eq!((command.least(), command.quantile(0.0)), (Some(1024), Some(1279)));
        assert_eq!(command.quantile(0.99), Some(1279));
        assert_eq!(command.quantile(1.0), Some(1_310_719));
        assert_eq!((command.below(10), command.below(11), command.below(21)), (0, 99, 100));
    }
}
