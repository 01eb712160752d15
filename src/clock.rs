//! Time: the wall clock for deadlines that users see, a monotonic clock for durations.
//!
//! The only file that reads the system clocks.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

static TICKS: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// Milliseconds since the Unix epoch.
pub fn wall_ms() -> u64 {
    wall().as_millis() as u64
}

/// Microseconds since the Unix epoch.
pub fn wall_us() -> u64 {
    wall().as_micros() as u64
}

#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// A monotonic instant, for timers.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
pub fn monotonic() -> Instant {
    Instant::now()
}

/// A cheap monotonic reading for measuring one command; only differences mean anything.
#[inline]
pub fn ticks() -> u64 {
    TICKS.raw()
}

/// Nanoseconds between two readings of [`ticks`].
#[inline]
pub fn nanos_between(start: u64, end: u64) -> u64 {
    TICKS.delta_as_nanos(start, end)
}

/// A reading of [`ticks`] in milliseconds of a clock that never goes back, for deadlines within the process.
#[inline]
pub fn steady_ms(ticks: u64) -> u64 {
    nanos_between(0, ticks) / 1_000_000
}
