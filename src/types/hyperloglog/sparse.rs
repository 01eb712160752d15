//! Registers as runs of equal values, for few elements.
//!
//! `00xxxxxx`: 1 to 64 zeros; `01xxxxxx yyyyyyyy`: 1 to 16,384 zeros; `1vvvvvxx`: the value 1 to 32, 1 to 4 times.
//! A run is changed in place and merged with its neighbours only as far as Redis merges them: how the same
//! registers are cut into runs depends on the order of their changes, and must not differ from Redis.

use super::estimate::Histogram;
use super::{HEADER, Invalid, REGISTERS};

/// The largest value a run can hold.
pub(super) const MAX_VALUE: u8 = 32;
/// The longest run of a value that is not zero.
const MAX_VALUES: usize = 4;
/// The longest run of zeros in one byte.
const MAX_SHORT_ZEROS: usize = 64;
/// All registers zero.
pub(super) const EMPTY: [u8; 2] = zeros(REGISTERS);

/// A decoded run: `len` registers of this value, in `size` bytes.
#[derive(Clone, Copy)]
struct Run {
    value: u8,
    len: usize,
    size: usize,
}

/// The run at a place, which must be inside. A second byte that is missing counts as zero.
fn run_at(bytes: &[u8], at: usize) -> Run {
    let byte = bytes[at];
    match byte {
        0x00..=0x3f => Run { value: 0, len: usize::from(byte) + 1, size: 1 },
        0x40..=0x7f => {
            let low = bytes.get(at + 1).copied().unwrap_or(0);
            Run { value: 0, len: (usize::from(byte & 0x3f) << 8 | usize::from(low)) + 1, size: 2 }
        }
        _ => Run { value: (byte >> 2 & 0x1f) + 1, len: usize::from(byte & 3) + 1, size: 1 },
    }
}

fn runs(encoded: &[u8]) -> impl Iterator<Item = Run> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let run = (at < encoded.len()).then(|| run_at(encoded, at))?;
        at += run.size;
        Some(run)
    })
}

const fn zeros(len: usize) -> [u8; 2] {
    let len = len - 1;
    [0x40 | (len >> 8) as u8, len as u8]
}

fn values(value: u8, len: usize) -> u8 {
    0x80 | (value - 1) << 2 | (len - 1) as u8
}

/// Calls for each register that is not zero.
pub(super) fn for_each_value(encoded: &[u8], mut call: impl FnMut(usize, u8)) -> Result<(), Invalid> {
    let mut index = 0;
    for run in runs(encoded) {
        if run.value > 0 {
            if index + run.len > REGISTERS {
                break;
            }
            (index..index + run.len).for_each(|index| call(index, run.value));
        }
        index += run.len;
    }
    if index == REGISTERS { Ok(()) } else { Err(Invalid::Corrupted) }
}

/// Counts the registers by value.
pub(super) fn add_to(histogram: &mut Histogram, encoded: &[u8]) -> Result<(), Invalid> {
    let mut total = 0;
    for run in runs(encoded) {
        histogram.add(run.value, run.len as u64);
        total += run.len;
    }
    if total == REGISTERS { Ok(()) } else { Err(Invalid::Corrupted) }
}

/// The runs in words.
pub(super) fn describe(encoded: &[u8]) -> String {
    let words = runs(encoded).map(|run| match run {
        Run { value: 0, len, size: 1 } => format!("z:{len}"),
        Run { value: 0, len, .. } => format!("Z:{len}"),
        Run { value, len, .. } => format!("v:{value},{len}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// What became of [`raise`].
pub(super) enum Raised {
    Changed,
    Unchanged,
    /// The value is too large for a run, or the bytes would be too many; nothing changed.
    DoesNotFit,
}

/// Raises a register, if it is lower. `bytes` begin with the header, which counts towards `max_sparse`.
pub(super) fn raise(
    bytes: &mut Vec<u8>,
    index: usize,
    value: u8,
    max_sparse: usize,
) -> Result<Raised, Invalid> {
    if value > MAX_VALUE {
        return Ok(Raised::DoesNotFit);
    }
    let (mut at, mut first, mut previous) = (HEADER, 0, None);
    let run = loop {
        if at >= bytes.len() {
            return Err(Invalid::Corrupted);
        }
        let run = run_at(bytes, at);
        if index < first + run.len {
            break run;
        }
        previous = Some(at);
        at += run.size;
        first += run.len;
    };
    if run.value >= value {
        return Ok(Raised::Unchanged);
    }
    let mut pieces = Pieces::default();
    pieces.push(run.value, index - first);
    pieces.push(value, 1);
    pieces.push(run.value, first + run.len - 1 - index);
    let new_len = bytes.len() + pieces.len - run.size;
    if pieces.len > run.size && new_len > max_sparse {
        return Ok(Raised::DoesNotFit);
    }
    let end = (at + run.size).min(bytes.len());
    if pieces.len == run.size {
        bytes[at..end].copy_from_slice(&pieces.bytes[..end - at]);
    } else {
        bytes.splice(at..end, pieces.bytes[..pieces.len].iter().copied());
        // Shorter than what was put in only if the run's second byte was missing.
        bytes.truncate(new_len);
    }
    join_values(bytes, previous.unwrap_or(HEADER));
    Ok(Raised::Changed)
}

/// The bytes of at most three runs.
#[derive(Default)]
struct Pieces {
    bytes: [u8; 5],
    len: usize,
}

impl Pieces {
    fn push(&mut self, value: u8, len: usize) {
        match (value, len) {
            (_, 0) => {}
            (0, 1..=MAX_SHORT_ZEROS) => self.extend(&[(len - 1) as u8]),
            (0, _) => self.extend(&zeros(len)),
            _ => self.extend(&[values(value, len)]),
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }
}

/// Joins runs of the same value where one run can hold them, looking at five runs from here.
fn join_values(bytes: &mut Vec<u8>, mut at: usize) {
    for _ in 0..5 {
        if at >= bytes.len() {
            return;
        }
        let run = run_at(bytes, at);
        if run.value > 0 && at + 1 < bytes.len() {
            let next = run_at(bytes, at + 1);
            if next.value == run.value && run.len + next.len <= MAX_VALUES {
                bytes[at + 1] = values(run.value, run.len + next.len);
                bytes.remove(at);
                continue;
            }
        }
        at += run.size;
    }
}
