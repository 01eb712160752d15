//! What a journal holds, as text. Nothing is locked or changed: a journal that is being written can be looked at, and
//! its end may then look torn.

use std::io::{self, Write};
use std::path::Path;

use super::Sequence;
use super::checkpoint::CheckpointFile;
use super::format::{HEADER_LEN, Header};
use super::scan::{Frames, Position};
use super::segment;
use super::storage::{Directory, Storage};

/// What a look found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// Segments.
    pub segments: u64,
    /// Whole records.
    pub records: u64,
    /// Of these, records that are not done, as the checkpoint says.
    pub unfinished: u64,
    /// Places that cannot be read, a torn end included.
    pub unreadable: u64,
}

/// Prints a line for the checkpoint, one for each segment and each place in it that cannot be read, and one for each
/// record with what `describe` makes of its payload; none for records if that says nothing of them.
pub fn inspect(
    directory: &Path,
    out: &mut dyn Write,
    describe: &mut dyn FnMut(Sequence, &[u8]) -> Option<String>,
) -> io::Result<Contents> {
    let storage = Directory::at(directory);
    let checkpoint = CheckpointFile::read(&storage)?;
    let mark = checkpoint.content.mark;
    let state = match checkpoint.content.orderly {
        _ if checkpoint.damaged => ", damaged",
        Some(_) => ", closed in order",
        None => "",
    };
    writeln!(out, "checkpoint: done up to {mark}{state}")?;
    let mut contents = Contents::default();
    let mut names: Vec<_> = storage.names()?;
    names.retain(|name| segment::first_of(name).is_some());
    names.sort_unstable();
    let mut bytes = Vec::new();
    for name in names {
        // It may have been removed just now.
        match storage.read(&name, u64::MAX, &mut bytes) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        contents.segments += 1;
        segment_lines(&name, &bytes, mark, out, describe, &mut contents)?;
    }
    Ok(contents)
}

fn segment_lines(
    name: &str,
    bytes: &[u8],
    mark: Sequence,
    out: &mut dyn Write,
    describe: &mut dyn FnMut(Sequence, &[u8]) -> Option<String>,
    contents: &mut Contents,
) -> io::Result<()> {
    let header = match Header::decode(bytes) {
        Ok((header, _)) => header,
        Err(fault) => {
            contents.unreadable += 1;
            return writeln!(out, "{name}: {} bytes, unreadable header ({fault:?})", bytes.len());
        }
    };
    let Header { first, follows, created, .. } = header;
    writeln!(out, "{name}: {} bytes, from {first}, follows {follows}, created {created} ms", bytes.len())?;
    let frames = Frames { seed: header.seed(), bytes };
    let start = Position { at: HEADER_LEN, expected: first };
    let (mut records, mut failure) = (0, None);
    let mut position = frames.read(start, |_, _, _| {});
    let mut pieces = vec![(start, position)];
    if position.at < bytes.len() {
        pieces.extend(frames.search(position).pieces.iter().map(|piece| (piece.start, piece.end)));
    }
    for (index, (from, _)) in pieces.iter().enumerate() {
        if index > 0 {
            contents.unreadable += 1;
            writeln!(out, "  unreadable: {} bytes at {}", from.at - position.at, position.at)?;
        }
        position = frames.read(*from, |at, sequence, payload| {
            records += 1;
            contents.unfinished += u64::from(sequence > mark);
            let done = if sequence > mark { "" } else { " done" };
            if let Some(text) = describe(sequence, payload).filter(|_| failure.is_none()) {
                let len = payload.len();
                failure = writeln!(out, "  {sequence} at {at}: {len} bytes{done} {text}").err();
            }
        });
    }
    if let Some(error) = failure {
        return Err(error);
    }
    if position.at < bytes.len() {
        contents.unreadable += 1;
        writeln!(out, "  unreadable: {} bytes at {}", bytes.len() - position.at, position.at)?;
    }
    contents.records += records;
    writeln!(out, "  {records} records, next {}", position.expected)
}
