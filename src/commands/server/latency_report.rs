//! What `LATENCY DOCTOR` and `LATENCY GRAPH` make of the latency monitor's samples.

use crate::config::{Id, Settings};
use crate::latency::{LatencyMonitor, Series};

const COLUMNS: usize = 80;
const ROWS: usize = 4;
/// The characters that fill a cell from its bottom.
const FILL: [u8; 3] = *b"_o#";

/// An ASCII graph of a series: columns of bars with the samples' ages written downwards below them.
pub(super) fn graph(event: &str, series: &Series, now: u64) -> String {
    let summary = series.summary(now);
    let (low, high) = (summary.min, summary.max);
    let mut text =
        format!("{event} - high {high} ms, low {low} ms (all time high {} ms)\n", series.all_time_high);
    text.push_str(&"-".repeat(COLUMNS));
    text.push('\n');
    let bars: Vec<(usize, String)> = series
        .samples()
        .map(|sample| {
            let steps = (FILL.len() * ROWS) as u64;
            let step = ((sample.millis - low) * steps / (high - low).max(1)).min(steps - 1);
            (step as usize, age(now.saturating_sub(sample.time)))
        })
        .collect();
    for (index, part) in bars.chunks(COLUMNS).enumerate() {
        if index > 0 {
            text.push('\n');
        }
        draw(part, &mut text);
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn draw(bars: &[(usize, String)], text: &mut String) {
    let mut line = |cell: &dyn Fn(&(usize, String)) -> u8| {
        text.extend(bars.iter().map(|bar| char::from(cell(bar))));
        text.push('\n');
    };
    for row in (0..ROWS).rev() {
        let below = row * FILL.len();
        line(&|(step, _)| match step.checked_sub(below) {
            None => b' ',
            Some(height) => FILL.get(height).copied().unwrap_or(b'|'),
        });
    }
    line(&|_| b' ');
    let longest = bars.iter().map(|(_, label)| label.len()).max().unwrap_or(0);
    for at in 0..longest {
        line(&|(_, label)| label.as_bytes().get(at).copied().unwrap_or(b' '));
    }
}

/// What the samples say in words, with advice.
pub(super) fn doctor(monitor: &LatencyMonitor, settings: &Settings, now: u64) -> String {
    let threshold = settings.int(Id::LatencyMonitorThreshold);
    if monitor.events().len() == 0 {
        return if threshold == 0 {
            "Latency monitoring is disabled. CONFIG SET latency-monitor-threshold <milliseconds> enables it.\n"
        } else {
            "No event took longer than latency-monitor-threshold so far.\n"
        }
        .to_owned();
    }
    let mut text = "These events took longer than latency-monitor-threshold:\n\n".to_owned();
    let mut advice = Vec::new();
    for (index, (event, series)) in monitor.events().enumerate() {
        let summary = series.summary(now);
        let spikes = series.samples().len();
        text.push_str(&format!(
            "{}. {event}: {spikes} latency spikes (average {}ms, mean deviation {}ms, period {:.2} sec). \
             Worst all time event {}ms.\n",
            index + 1,
            summary.average,
            summary.deviation,
            summary.period as f64 / spikes as f64,
            series.all_time_high,
        ));
        advise(event, settings, threshold, &mut advice);
    }
    text.push_str("\nWhat may help:\n\n");
    advice.iter().for_each(|line| text.push_str(&format!("- {line}\n")));
    text
}

fn advise(event: &str, settings: &Settings, threshold: i64, advice: &mut Vec<String>) {
    match event {
        "command" => {
            let slow_log = settings.int(Id::SlowlogLogSlowerThan);
            if slow_log < 0 || slow_log / 1000 > threshold {
                advice.push(format!(
                    "The slow log misses some of these commands: CONFIG SET slowlog-log-slower-than {}.",
                    threshold.saturating_mul(1000)
                ));
            }
            advice.push("SLOWLOG GET names the slow commands; most walk over a large value or all keys.".to_owned());
        }
        "fast-command" => advice.push(
            "Commands that do little were slow, so the process did not get its processors: lower the load of the \
             machine, or start fewer threads."
                .to_owned(),
        ),
        "expire-cycle" => advice.push(
            "Many keys expire at the same time: spread their times to live by a random amount.".to_owned(),
        ),
        "eviction-cycle" => advice.push(
            "Much was evicted at once: lower maxmemory in small steps, and avoid single commands that store a lot."
                .to_owned(),
        ),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graphs_are_those_of_redis() {
        let mut monitor = LatencyMonitor::default();
        for (time, millis) in [(100, 100), (103, 200), (160, 480), (170, 350)] {
            monitor.add("command", time, millis);
        }
        let (_, series) = monitor.series(b"command").unwrap();
        let expected = [
            "command - high 480 ms, low 100 ms (all time high 480 ms)",
            &"-".repeat(80),
            "  # ",
            "  |o",
            " _||",
            "_|||",
            "    ",
            "1115",
            "mm5s",
            "  s ",
            "",
        ];
        assert_eq!(graph("command", series, 175), expected.join("\n"));
    }
}
