//! The latency monitor: what took longer than `latency-monitor-threshold`, a series of samples an event.

use std::collections::{BTreeMap, VecDeque};

/// Samples kept of an event, one a second at most.
const MAX_SAMPLES: usize = 160;

/// The worst that happened in one second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Unix time in seconds.
    pub time: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// What is known of one event.
#[derive(Debug, Default, Clone)]
pub struct Series {
    /// Oldest first; never empty.
    samples: VecDeque<Sample>,
    /// The longest since the last reset, in milliseconds.
    pub all_time_high: u64,
}

/// What a series comes to.
#[derive(Debug, PartialEq, Eq)]
pub struct Summary {
    /// The mean.
    pub average: u64,
    /// The mean distance from the mean.
    pub deviation: u64,
    /// The least of the samples.
    pub min: u64,
    /// The greatest of the samples.
    pub max: u64,
    /// Seconds since the first sample.
    pub period: u64,
}

/// The series by event, `command` and `expire-cycle` for example.
#[derive(Debug, Default)]
pub struct LatencyMonitor {
    events: BTreeMap<&'static str, Series>,
}

impl LatencyMonitor {
    /// Adds a sample.
    pub fn add(&mut self, event: &'static str, time: u64, millis: u64) {
        let series = self.events.entry(event).or_default();
        series.all_time_high = series.all_time_high.max(millis);
        match series.samples.back_mut() {
            Some(last) if last.time == time => last.millis = last.millis.max(millis),
            _ => {
                if series.samples.len() == MAX_SAMPLES {
                    series.samples.pop_front();
                }
                series.samples.push_back(Sample { time, millis });
            }
        }
    }

    /// The series of an event.
    pub fn series(&self, event: &[u8]) -> Option<(&'static str, &Series)> {
        self.events().find(|(name, _)| name.as_bytes() == event)
    }

    /// All events with their series.
    pub fn events(&self) -> impl ExactSizeIterator<Item = (&'static str, &Series)> {
        self.events.iter().map(|(name, series)| (*name, series))
    }

    /// Forgets the events that are meant; returns how many those were.
    pub fn reset(&mut self, is_meant: impl Fn(&str) -> bool) -> usize {
        let before = self.events.len();
        self.events.retain(|name, _| !is_meant(name));
        before - self.events.len()
    }
}

impl Series {
    /// The samples, oldest first.
    pub fn samples(&self) -> impl ExactSizeIterator<Item = Sample> {
        self.samples.iter().copied()
    }

    /// The last sample.
    pub fn last(&self) -> Option<Sample> {
        self.samples.back().copied()
    }

    /// What they come to, as of a Unix time in seconds.
    pub fn summary(&self, now: u64) -> Summary {
        let count = self.samples.len().max(1) as u64;
        let values = || self.samples.iter().map(|sample| sample.millis);
        let average = values().sum::<u64>() / count;
        let first = self.samples.front().map_or(now, |sample| sample.time);
        Summary {
            average,
            deviation: values().map(|value| value.abs_diff(average)).sum::<u64>() / count,
            min: values().min().unwrap_or(0),
            max: values().max().unwrap_or(0),
            period: now.saturating_sub(first).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sample_a_second_and_no_more_than_fit() {
        let mut monitor = LatencyMonitor::default();
        for (time, millis) in [(10, 300), (10, 200), (10, 400), (12, 100)] {
            monitor.add("command", time, millis);
        }
        let (_, series) = monitor.series(b"command").unwrap();
        assert_eq!(series.samples().map(|sample| sample.millis).collect::<Vec<_>>(), [400, 100]);
        let expected = Summary { average: 250, deviation: 150, min: 100, max: 400, period: 4 };
        assert_eq!(series.summary(14), expected);
        (20..1000).for_each(|time| monitor.add("command", time, 1));
        let (_, series) = monitor.series(b"command").unwrap();
        assert_eq!((series.samples().len(), series.all_time_high), (MAX_SAMPLES, 400));
        assert_eq!(monitor.reset(|name| name == "nothing"), 0);
        assert_eq!(monitor.reset(|_| true), 1);
    }
}
