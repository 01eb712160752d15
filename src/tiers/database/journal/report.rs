//! What was found when a journal was opened.

use std::fmt::Write;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::Sequence;

/// What was found, and what was done about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Segments found.
    pub segments: usize,
    /// Records replayed.
    pub records: u64,
    /// Bytes of their payloads.
    pub bytes: u64,
    /// Everything up to here was done, as the checkpoint says.
    pub mark: Sequence,
    /// The checkpoint was not whole, so that more was replayed than needed.
    pub checkpoint_damaged: bool,
    /// It had been closed in an orderly way.
    pub orderly: bool,
    /// The end of the last segment that was cut off.
    pub torn: Option<Torn>,
    /// Damaged places.
    pub damage: Vec<Damage>,
    /// The next sequence.
    pub next: Sequence,
    /// How long it took.
    pub elapsed: Duration,
}

/// The end of the last segment, cut off: writes that a crash interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Torn {
    /// The file.
    pub segment: String,
    /// Where it was cut.
    pub offset: u64,
    /// Bytes cut off.
    pub bytes: u64,
    /// Whole records among these bytes, behind the tear: kept in a copy of the segment.
    pub records_after: u64,
    /// Records that are not there although an orderly shutdown had left them.
    pub missing: u64,
}

/// A place that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub segment: String,
    /// Where.
    pub offset: u64,
    /// How many bytes cannot be read.
    pub bytes: u64,
    /// The sequences that are lost, of those not yet done; the end is [`Sequence::MAX`] if not known. Absent: none, so
    /// that it may be no damage but a mark that did not reach the disk when the power went.
    pub lost: Option<RangeInclusive<Sequence>>,
}

impl Report {
    /// Whether records that were not done are lost.
    pub fn has_losses(&self) -> bool {
        self.damage.iter().any(|damage| damage.lost.is_some())
    }

    /// The damaged places, in words.
    pub fn damage_text(&self) -> String {
        let mut text = String::new();
        for damage in &self.damage {
            let separator = if text.is_empty() { "" } else { "; " };
            let Damage { segment, offset, bytes, lost } = damage;
            let _ = write!(text, "{separator}{segment} at {offset}, {bytes} bytes");
            let _ = match lost {
                Some(lost) if *lost.end() == Sequence::MAX => {
                    write!(text, ", records from {} are lost", lost.start())
                }
                Some(lost) => write!(text, ", records {} to {} are lost", lost.start(), lost.end()),
                None => write!(text, ", no record lost"),
            };
        }
        text
    }
}
