//! What is measured of statements, and the log of slow ones: their texts, never their values.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::store::StatementStatistics;

/// From when on a statement is logged as slow.
const SLOW: Duration = Duration::from_secs(1);
/// Statements kept apart; as columns change in many combinations, the rest count together.
const MOST: usize = 512;
const REST: &str = "(other statements)";

#[derive(Debug, Default)]
struct Counts {
    count: u64,
    succeeded: u64,
    total: Duration,
    min: Duration,
    max: Duration,
}

/// The counts of all statements.
#[derive(Debug, Default)]
pub struct Statistics(Mutex<AHashMap<Arc<str>, Counts>>);

impl Statistics {
    /// Counts one execution.
    pub fn record(&self, statement: &str, took: Duration, is_success: bool) {
        if took >= SLOW {
            tracing::warn!(milliseconds = took.as_millis() as u64, statement, "slow statement");
        }
        let mut all = self.0.lock();
        let statement = if all.len() >= MOST && !all.contains_key(statement) { REST } else { statement };
        if !all.contains_key(statement) {
            all.insert(statement.into(), Counts { min: took, ..Counts::default() });
        }
        let Some(counts) = all.get_mut(statement) else { return };
        counts.count += 1;
        counts.succeeded += u64::from(is_success);
        counts.total += took;
        counts.min = counts.min.min(took);
        counts.max = counts.max.max(took);
    }

    /// What was counted, the costliest first.
    pub fn all(&self) -> Vec<StatementStatistics> {
        let all = self.0.lock();
        let mut list: Vec<_> = all
            .iter()
            .map(|(statement, counts)| StatementStatistics {
                statement: statement.clone(),
                count: counts.count,
                succeeded: counts.succeeded,
                mean: counts.total.div_f64(counts.count.max(1) as f64),
                min: counts.min,
                max: counts.max,
            })
            .collect();
        list.sort_by_key(|entry| std::cmp::Reverse(entry.mean.saturating_mul(entry.count as u32)));
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_by_statement() {
        let statistics = Statistics::default();
        for (millis, is_success) in [(2, true), (4, false), (6, true)] {
            statistics.record("SELECT 1", Duration::from_millis(millis), is_success);
        }
        statistics.record("SELECT 2", Duration::from_millis(1), true);
        let all = statistics.all();
        assert_eq!(all.len(), 2);
        assert_eq!((all[0].count, all[0].succeeded), (3, 2));
        assert_eq!(all[0].min, Duration::from_millis(2));
        assert_eq!(all[0].mean, Duration::from_millis(4));
        assert_eq!(all[0].max, Duration::from_millis(6));
    }

    #[test]
    fn many_statements_count_together() {
        let statistics = Statistics::default();
        for number in 0..MOST + 10 {
            statistics.record(&format!("SELECT {number}"), Duration::from_millis(1), true);
        }
        let all = statistics.all();
        assert_eq!(all.len(), MOST + 1);
        assert_eq!(all.iter().find(|entry| &*entry.statement == REST).unwrap().count, 10);
    }
}
