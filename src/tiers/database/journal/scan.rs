//! Reading the frames of a segment: as far as they are whole, and behind a damaged place.

use crc32fast::Hasher;

use super::Sequence;
use super::format::{self, FRAME_LEN, Frame, GAP, MARK, MAX_PAYLOAD};

/// How many bytes are checked in search of frames: payloads may look like frames by intent.
const SEARCH_BUDGET: usize = 4 << 30;
/// Sequences further from what is expected are not taken for such.
const PLAUSIBLE_DISTANCE: u64 = 1 << 40;

/// Where reading has come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// The offset.
    pub at: usize,
    /// The sequence that the next record should have.
    pub expected: Sequence,
}

/// Frames that are whole and in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The first frame, a record, and its sequence.
    pub start: Position,
    /// Behind the last.
    pub end: Position,
}

/// What lies behind a damaged place.
#[derive(Debug, Default)]
pub struct Rest {
    /// In ascending order.
    pub pieces: Vec<Piece>,
    /// Marks say that everything up to here was synced.
    pub durable: Sequence,
    /// The search was given up.
    pub exhausted: bool,
}

/// A segment's bytes, and how to check them.
#[derive(Clone)]
pub struct Frames<'a> {
    /// From the header.
    pub seed: Hasher,
    /// All bytes.
    pub bytes: &'a [u8],
}

impl Frames<'_> {
    /// Reads while frames are whole and in order; returns where they end.
    pub fn read(&self, from: Position, mut visit: impl FnMut(usize, Sequence, &[u8])) -> Position {
        let Position { mut at, mut expected } = from;
        while let Some((frame, behind)) = format::decode(&self.seed, self.bytes, at) {
            match frame {
                Frame::Record(sequence, payload) if sequence == expected => {
                    visit(at, sequence, payload);
                    expected += 1;
                }
                Frame::Mark(sequence) if sequence < expected => {}
                Frame::Gap(sequence) if sequence >= expected && sequence < Sequence::MAX => {
                    expected = sequence + 1;
                }
                _ => break,
            }
            at = behind;
        }
        Position { at, expected }
    }

    /// Searches for whole frames behind a place at which there is none.
    pub fn search(&self, from: Position) -> Rest {
        let Position { mut at, mut expected } = from;
        let (mut rest, mut budget) = (Rest::default(), SEARCH_BUDGET);
        while at + FRAME_LEN <= self.bytes.len() {
            let Some(cost) = self.plausible(at, expected) else {
                at += 1;
                continue;
            };
            let Some(left) = budget.checked_sub(cost) else {
                rest.exhausted = true;
                break;
            };
            budget = left;
            match format::decode(&self.seed, self.bytes, at) {
                Some((Frame::Record(sequence, _), _)) => {
                    let start = Position { at, expected: sequence };
                    let end = self.read(start, |_, _, _| {});
                    rest.durable = rest.durable.max(self.last_mark(start, end));
                    rest.pieces.push(Piece { start, end });
                    Position { at, expected } = end;
                }
                Some((Frame::Mark(sequence) | Frame::Gap(sequence), behind)) => {
                    rest.durable = rest.durable.max(sequence);
                    at = behind;
                }
                None => at += 1,
            }
        }
        rest
    }

    /// The bytes to check if there may be a frame here.
    fn plausible(&self, at: usize, expected: Sequence) -> Option<usize> {
        let head = &self.bytes[at..at + FRAME_LEN];
        let (length, sequence) = (format::length(head), format::sequence(head));
        if matches!(length, MARK | GAP) {
            return Some(FRAME_LEN);
        }
        let len = length as usize;
        let fits = len <= MAX_PAYLOAD && at + FRAME_LEN + len <= self.bytes.len();
        let near = sequence.checked_sub(expected).is_some_and(|distance| distance < PLAUSIBLE_DISTANCE);
        (fits && near).then_some(FRAME_LEN + len)
    }

    fn last_mark(&self, start: Position, end: Position) -> Sequence {
        let (mut at, mut last) = (start.at, 0);
        while at < end.at {
            let frame = &self.bytes[at..];
            at += match format::length(frame) {
                // A gap was synced too, when the segment was repaired.
                MARK | GAP => {
                    last = format::sequence(frame);
                    FRAME_LEN
                }
                _ => format::record_len(frame),
            };
        }
        last
    }
}
