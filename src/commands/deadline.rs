//! Deadlines: the units and limits that all commands with an expiry share.

use crate::protocol::ReplyError;
use crate::types::number::parse_i64;

/// How a command gives a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds from now.
    Seconds,
    /// Milliseconds from now.
    Millis,
    /// Unix time in seconds.
    UnixSeconds,
    /// Unix time in milliseconds.
    UnixMillis,
}

impl TimeUnit {
    /// Whether it counts from now.
    pub fn is_relative(self) -> bool {
        matches!(self, Self::Seconds | Self::Millis)
    }

    /// The deadline in Unix milliseconds, which may lie in the past.
    ///
    /// # Errors
    /// That the time is no integer, or that the deadline is beyond what can be counted.
    pub fn deadline(self, argument: &[u8], now_ms: u64, command: &str) -> Result<i64, ReplyError> {
        let value = parse_i64(argument).ok_or(ReplyError::NOT_INTEGER)?;
        let millis = match self {
            Self::Seconds | Self::UnixSeconds => value.checked_mul(1000),
            Self::Millis | Self::UnixMillis => Some(value),
        };
        let base = if self.is_relative() { now_ms as i64 } else { 0 };
        millis.and_then(|millis| millis.checked_add(base)).ok_or_else(|| invalid(command))
    }

    /// The same for commands that set a value, where the time must be positive.
    ///
    /// # Errors
    /// As [`TimeUnit::deadline`], and that the time is not positive.
    pub fn positive_deadline(self, argument: &[u8], now_ms: u64, command: &str) -> Result<u64, ReplyError> {
        if parse_i64(argument).ok_or(ReplyError::NOT_INTEGER)? <= 0 {
            return Err(invalid(command));
        }
        self.deadline(argument, now_ms, command).map(|deadline| deadline as u64)
    }
}

pub fn invalid(command: &str) -> ReplyError {
    ReplyError::new(format!("ERR invalid expire time in '{command}' command"))
}
