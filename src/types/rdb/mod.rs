//! Values as bytes, in the format of Redis's RDB files, version 11: what `DUMP` returns and `RESTORE` takes.
//!
//! ```text
//! type 1 | value | version 2, little-endian | CRC-64 of all before 8, little-endian
//! ```
//! Nothing here trusts its input: lengths are checked before memory is taken for them, and a payload that is wrong in
//! any way is an error.

mod compress;
mod crc64;
mod file;
mod functions;
mod packed;
mod read;
mod stream;
mod value;
mod write;

pub use crc64::crc64;
pub use file::{FileError, FileWriter, Record, read_file};
pub use functions::{decode_libraries, encode_libraries};
pub use value::{Decoded, Limits, Source, decode, encode};

/// The version that is written.
pub const VERSION: u16 = 11;
/// The newest that is read: that of Redis 7.4, which brought hashes with deadlines.
pub const NEWEST: u16 = 12;
/// Bytes of version and checksum.
const FOOTER: usize = 10;

/// Why a payload is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// It is too short, too new, or damaged on its way.
    #[error("payload version or checksum are wrong")]
    Footer,
    /// What it says makes no sense, or is of a type that is not known.
    #[error("bad data format")]
    Data,
}

/// A payload's content with version and checksum behind it.
fn sealed(mut content: Vec<u8>) -> Vec<u8> {
    content.extend_from_slice(&VERSION.to_le_bytes());
    let sum = crc64(&content);
    content.extend_from_slice(&sum.to_le_bytes());
    content
}

/// The content of a payload whose version and checksum are right.
fn unsealed(payload: &[u8]) -> Result<&[u8], Invalid> {
    let content_len = payload.len().checked_sub(FOOTER).ok_or(Invalid::Footer)?;
    let (content, footer) = payload.split_at(content_len);
    let (version, sum) = footer.split_first_chunk::<2>().ok_or(Invalid::Footer)?;
    let is_sound = crc64(&payload[..content_len + 2]).to_le_bytes() == *sum;
    if u16::from_le_bytes(*version) > NEWEST || !is_sound {
        return Err(Invalid::Footer);
    }
    Ok(content)
}

/// The types of values, as their first byte says.
mod kind {
    pub const STRING: u8 = 0;
    pub const LIST: u8 = 1;
    pub const SET: u8 = 2;
    /// With scores as text.
    pub const ZSET_TEXT: u8 = 3;
    pub const HASH: u8 = 4;
    pub const ZSET: u8 = 5;
    pub const SET_INTEGERS: u8 = 11;
    pub const HASH_LISTPACK: u8 = 16;
    pub const ZSET_LISTPACK: u8 = 17;
    pub const LIST_NODES: u8 = 18;
    /// Without what was deleted and how many were ever added.
    pub const STREAM_WITHOUT_COUNTS: u8 = 15;
    /// Without when consumers last got something.
    pub const STREAM_WITHOUT_ACTIVITY: u8 = 19;
    pub const SET_LISTPACK: u8 = 20;
    pub const STREAM: u8 = 21;
    /// As `HASH`, each field behind its deadline; and as a listpack of such. Redis 7.4 wrote these before its release.
    pub const HASH_TIMES: u8 = 22;
    pub const HASH_TIMES_LISTPACK: u8 = 23;
    /// The same behind the earliest deadline, which those of `HASH_DEADLINES` count from.
    pub const HASH_DEADLINES: u8 = 24;
    pub const HASH_DEADLINES_LISTPACK: u8 = 25;
}

/// How a list's node lies in the payload.
mod node {
    /// One element, as it is.
    pub const PLAIN: u64 = 1;
    /// A listpack.
    pub const PACKED: u64 = 2;
}

#[cfg(test)]
mod tests;
