//! Format 1 of the files. All numbers are little-endian.
//!
//! A segment `journal-<first sequence, 20 digits>.log` is a header, twice, and frames:
//!
//! ```text
//! header:  0 magic "ANTEJRNL"   8 version u32   12 crc u32 (of the other 60 bytes)
//!         16 id u64            24 first u64    32 follows u64   40 created u64   48 zeros   (64 bytes)
//! frame:   0 length u32         4 crc u32 (of id, length, sequence, payload)   8 sequence u64   16 payload
//! ```
//!
//! - `id` is random, so that bytes of another segment are never taken for records of this one.
//! - `first` is the sequence of the first record, `follows` the last sequence before it that was recorded: in between
//!   lie only sequences that no record has. A segment in which `follows` does not meet the one before tells of a loss.
//! - `created` is in milliseconds since the Unix epoch.
//! - The sequences of records are contiguous. A frame whose length is [`MARK`] has no payload and says that everything
//!   up to `sequence` was synced before it was written; one whose length is [`GAP`] that the sequences from the next
//!   expected to its own were given up in a repair.
//!
//! A segment gets its name when its header is synced, so a header is never torn.

use crc32fast::Hasher;

use super::Sequence;

/// The version that is written, and the only one that is read.
pub const VERSION: u32 = 1;
/// Bytes before the first frame.
pub const HEADER_LEN: usize = 2 * COPY_LEN;
/// Bytes of a frame without its payload.
pub const FRAME_LEN: usize = 16;
/// The longest payload.
pub const MAX_PAYLOAD: usize = 1 << 30;
/// The length of a frame that says what is durable.
pub const MARK: u32 = 0x8000_0000;
/// The length of a frame that says what is lost.
pub const GAP: u32 = 0xC000_0000;

const COPY_LEN: usize = 64;
const MAGIC: &[u8; 8] = b"ANTEJRNL";

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Distinguishes it from all other segments.
    pub id: u64,
    /// The sequence of its first record.
    pub first: Sequence,
    /// The last recorded sequence before it.
    pub follows: Sequence,
    /// When, in milliseconds since the Unix epoch.
    pub created: u64,
}

/// Why there is no header to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// The file ends before it.
    Short,
    /// Neither copy is whole.
    Damaged,
    /// It is whole, and of a version that is not known here.
    Version(u32),
}

impl Header {
    /// Both copies.
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let mut bytes = [0; HEADER_LEN];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        for (at, field) in [(16, self.id), (24, self.first), (32, self.follows), (40, self.created)] {
            bytes[at..at + 8].copy_from_slice(&field.to_le_bytes());
        }
        let crc = header_crc(&bytes[..COPY_LEN]);
        bytes[12..16].copy_from_slice(&crc.to_le_bytes());
        bytes.copy_within(..COPY_LEN, COPY_LEN);
        bytes
    }

    /// The header at the start of a segment, and whether both copies are whole.
    pub fn decode(bytes: &[u8]) -> Result<(Self, bool), HeaderFault> {
        if bytes.len() < HEADER_LEN {
            return Err(HeaderFault::Short);
        }
        let (first, second) = bytes[..HEADER_LEN].split_at(COPY_LEN);
        match (Self::decode_copy(first), Self::decode_copy(second)) {
            (Ok(header), second) => Ok((header.clone(), second == Ok(header))),
            (Err(_), Ok(header)) => Ok((header, false)),
            (Err(fault), Err(_)) => Err(fault),
        }
    }

    fn decode_copy(bytes: &[u8]) -> Result<Self, HeaderFault> {
        if &bytes[..8] != MAGIC || u32_at(bytes, 12) != header_crc(bytes) {
            return Err(HeaderFault::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => {}
            other => return Err(HeaderFault::Version(other)),
        }
        let (id, first) = (u64_at(bytes, 16), u64_at(bytes, 24));
        Ok(Self { id, first, follows: u64_at(bytes, 32), created: u64_at(bytes, 40) })
    }

    /// Where the checksums of its frames start.
    pub fn seed(&self) -> Hasher {
        let mut hasher = Hasher::new();
        hasher.update(&self.id.to_le_bytes());
        hasher
    }
}

fn header_crc(copy: &[u8]) -> u32 {
    let mut hasher = Hasher::new();
    hasher.update(&copy[..12]);
    hasher.update(&copy[16..COPY_LEN]);
    hasher.finalize()
}

/// What stands at a place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A record.
    Record(Sequence, &'a [u8]),
    /// All up to here had been synced.
    Mark(Sequence),
    /// All up to here is given up.
    Gap(Sequence),
}

/// The frame at this offset and the offset behind it, if it is whole.
#[inline]
pub fn decode<'a>(seed: &Hasher, bytes: &'a [u8], at: usize) -> Option<(Frame<'a>, usize)> {
    let rest = bytes.get(at..)?;
    if rest.len() < FRAME_LEN {
        return None;
    }
    let length = u32_at(rest, 0);
    let payload = if matches!(length, MARK | GAP) { 0 } else { length as usize };
    if payload > MAX_PAYLOAD {
        return None;
    }
    let frame = rest.get(..FRAME_LEN + payload)?;
    if u32_at(frame, 4) != frame_crc(seed, frame) {
        return None;
    }
    let sequence = u64_at(frame, 8);
    let decoded = match length {
        MARK => Frame::Mark(sequence),
        GAP => Frame::Gap(sequence),
        _ => Frame::Record(sequence, &frame[FRAME_LEN..]),
    };
    Some((decoded, at + frame.len()))
}

/// Appends a frame that still lacks its checksum, which depends on the segment.
#[inline]
pub fn push_record(into: &mut Vec<u8>, sequence: Sequence, parts: &[&[u8]]) {
    let payload: usize = parts.iter().map(|part| part.len()).sum();
    into.reserve(FRAME_LEN + payload);
    push_head(into, payload as u32, sequence);
    for part in parts {
        into.extend_from_slice(part);
    }
}

/// Appends a mark or a gap that still lacks its checksum.
pub fn push_head(into: &mut Vec<u8>, length: u32, sequence: Sequence) {
    into.extend_from_slice(&head(length, sequence));
}

/// A frame without payload and checksum.
pub fn head(length: u32, sequence: Sequence) -> [u8; FRAME_LEN] {
    let mut bytes = [0; FRAME_LEN];
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    bytes[8..].copy_from_slice(&sequence.to_le_bytes());
    bytes
}

/// Puts the checksum into a frame.
#[inline]
pub fn seal(seed: &Hasher, frame: &mut [u8]) {
    let crc = frame_crc(seed, frame);
    frame[4..8].copy_from_slice(&crc.to_le_bytes());
}

/// The length of the record at the start of bytes that are known to be whole.
#[inline]
pub fn record_len(frame: &[u8]) -> usize {
    FRAME_LEN + u32_at(frame, 0) as usize
}

/// The sequence of a frame.
#[inline]
pub fn sequence(frame: &[u8]) -> Sequence {
    u64_at(frame, 8)
}

/// What the length field of a frame says.
#[inline]
pub fn length(frame: &[u8]) -> u32 {
    u32_at(frame, 0)
}

#[inline]
fn frame_crc(seed: &Hasher, frame: &[u8]) -> u32 {
    let mut hasher = seed.clone();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// The number at this place, which has to be inside.
#[inline]
pub fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
