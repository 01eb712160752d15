//! The values of directives that are lists: `client-output-buffer-limit`, `latency-tracking-info-percentiles` and `save`.

use std::fmt;

use super::units::parse_memory;

/// What a class of clients may leave unread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// More than so many bytes close the connection at once; 0 for no limit.
    pub hard: i64,
    /// More than so many close it after a while; 0 for no limit.
    pub soft: i64,
    /// That while, in seconds.
    pub soft_seconds: i64,
}

/// The limits of all classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputLimits {
    /// Of ordinary clients.
    pub normal: OutputLimit,
    /// Of replicas.
    pub replica: OutputLimit,
    /// Of subscribers.
    pub pubsub: OutputLimit,
}

/// The default, as `CONFIG GET` shows it.
pub(super) const DEFAULT: &str = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";

impl OutputLimits {
    /// Reads `class hard soft seconds`, once or more; classes that are not named keep what they have in `self`.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn with(mut self, text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if words.is_empty() || !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        }
        for class in words.chunks_exact(4) {
            let limit = || {
                let (hard, soft, seconds) =
                    (parse_memory(class[1])?, parse_memory(class[2])?, class[3].parse().ok()?);
                (hard >= 0 && soft >= 0 && seconds >= 0).then_some(OutputLimit {
                    hard,
                    soft,
                    soft_seconds: seconds,
                })
            };
            let place = match class[0].to_ascii_lowercase().as_str() {
                "normal" => &mut self.normal,
                "slave" | "replica" => &mut self.replica,
                "pubsub" => &mut self.pubsub,
                _ => return Err("Invalid client class specified in buffer limit configuration.".to_owned()),
            };
            *place = limit()
                .ok_or("Error in hard, soft or soft_seconds setting in buffer limit configuration.")?;
        }
        Ok(self)
    }

    /// The limits of a text that was accepted before.
    pub(super) fn of(text: &str) -> Self {
        let none = OutputLimit::default();
        let empty = Self { normal: none, replica: none, pubsub: none };
        empty.with(text).unwrap_or(empty)
    }
}

impl fmt::Display for OutputLimits {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let classes = [("normal", self.normal), ("slave", self.replica), ("pubsub", self.pubsub)];
        for (index, (name, limit)) in classes.into_iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(formatter, "{space}{name} {} {} {}", limit.hard, limit.soft, limit.soft_seconds)?;
        }
        Ok(())
    }
}

/// A point of the schedule of snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SavePoint {
    /// After so many seconds,
    pub seconds: u64,
    /// if there were so many changes.
    pub changes: u64,
}

/// The schedule of snapshots: `seconds changes`, any number of times.
pub(super) fn parse_save_points(text: &str) -> Result<Vec<SavePoint>, String> {
    let wrong = || "Invalid save parameters".to_owned();
    let words: Vec<u64> =
        text.split_whitespace().map(str::parse).collect::<Result<_, _>>().map_err(|_| wrong())?;
    let (points, rest) = words.as_chunks::<2>();
    if !rest.is_empty() || points.iter().any(|[seconds, _]| *seconds == 0) {
        return Err(wrong());
    }
    Ok(points.iter().map(|[seconds, changes]| SavePoint { seconds: *seconds, changes: *changes }).collect())
}

/// Percentiles, each from 0 to 100.
pub(super) fn parse_percentiles(text: &str) -> Result<Vec<f64>, String> {
    let parse = |word: &str| word.parse().ok().filter(|percentile| (0.0..=100.0).contains(percentile));
    let percentiles: Option<Vec<f64>> = text.split_whitespace().map(parse).collect();
    percentiles
        .ok_or_else(|| "latency-tracking-info-percentiles must consist of numbers from 0 to 100".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_changed_one_by_one_and_shown_together() {
        let default = OutputLimits::of(DEFAULT);
        assert_eq!(default.to_string(), DEFAULT);
        let changed = default.with("normal 1mb 1kb 5 replica 0 0 0").unwrap();
        assert_eq!(changed.normal, OutputLimit { hard: 1 << 20, soft: 1 << 10, soft_seconds: 5 });
        assert_eq!((changed.replica, changed.pubsub), (OutputLimit::default(), default.pubsub));
        for wrong in ["", "normal 1 2", "nobody 0 0 0", "normal -1 0 0", "normal x 0 0"] {
            assert!(default.with(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn save_points_come_in_pairs() {
        let point = |seconds, changes| SavePoint { seconds, changes };
        assert_eq!(parse_save_points("3600 1 300  100").unwrap(), [point(3600, 1), point(300, 100)]);
        assert_eq!(parse_save_points("").unwrap(), []);
        for wrong in ["1", "1 2 3", "0 1", "-1 1", "1 -1", "a b"] {
            assert!(parse_save_points(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn percentiles_are_bounded() {
        assert_eq!(parse_percentiles("50 99.9 100").unwrap(), [50.0, 99.9, 100.0]);
        assert_eq!(parse_percentiles("").unwrap(), [0.0; 0]);
        assert!(parse_percentiles("50 101").is_err() && parse_percentiles("x").is_err());
    }
}
