//! Changes to segments that are not as they should be.

use std::io;

use super::Sequence;
use super::format::{self, FRAME_LEN, GAP, HEADER_LEN, MARK};
use super::scan::Piece;
use super::segment::{self, Closed};
use super::storage::Storage;

/// Keeps a copy of a segment under a name that is not one of a segment.
pub fn keep_copy(storage: &dyn Storage, name: &str, bytes: &[u8]) -> io::Result<()> {
    let names = storage.names()?;
    let free = (1u32..).map(|n| format!("{name}.damaged-{n}")).find(|copy| !names.contains(copy));
    let copy = storage.create(&free.unwrap_or_else(|| format!("{name}.damaged")))?;
    copy.write_at(0, bytes)?;
    copy.sync()?;
    storage.sync()
}

/// Puts a segment that has only these pieces of the old one in its place. What is missing in between, and up to
/// `through`, it says to be given up.
pub fn rewrite(
    storage: &dyn Storage,
    first: Sequence,
    follows: Sequence,
    bytes: &[u8],
    pieces: &[Piece],
    through: Sequence,
) -> io::Result<Closed> {
    let header = segment::header(first, follows);
    let seed = header.seed();
    let mut frames = Vec::with_capacity(bytes.len());
    let mut expected = first;
    let give_up = |frames: &mut Vec<u8>, expected: Sequence, next: Sequence| {
        if next > expected {
            let mut gap = format::head(GAP, next - 1);
            format::seal(&seed, &mut gap);
            frames.extend_from_slice(&gap);
        }
    };
    for piece in pieces {
        give_up(&mut frames, expected, piece.start.expected);
        let from = frames.len();
        frames.extend_from_slice(&bytes[piece.start.at..piece.end.at]);
        reseal(&seed, &mut frames[from..]);
        expected = piece.end.expected;
    }
    give_up(&mut frames, expected, through.saturating_add(1));
    segment::create(storage, &header, &frames)?;
    let bytes = (HEADER_LEN + frames.len()) as u64;
    let end = if frames.is_empty() { follows } else { through.max(expected - 1) };
    Ok(Closed { name: segment::name(first), end, bytes })
}

fn reseal(seed: &crc32fast::Hasher, mut frames: &mut [u8]) {
    while !frames.is_empty() {
        let len = match format::length(frames) {
            MARK | GAP => FRAME_LEN,
            _ => format::record_len(frames),
        };
        let (frame, rest) = frames.split_at_mut(len);
        format::seal(seed, frame);
        frames = rest;
    }
}
