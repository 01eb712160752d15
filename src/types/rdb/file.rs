//! Whole files: what `SAVE` writes and a start reads.
//!
//! ```text
//! "REDIS" version in four digits | records | 255 | CRC-64 of all before 8, little-endian
//! ```

use std::borrow::Cow;
use std::io::{self, Write};

use crc_fast::{CrcAlgorithm, Digest};

use super::functions::LIBRARY;
use super::read::Reader;
use super::value::{encode_content, read_value};
use super::write::Writer;
use super::{Decoded, Invalid, Limits, NEWEST, Source, VERSION};

const MAGIC: &[u8] = b"REDIS";
/// Written when so much has gathered.
const PIECE: usize = 64 * 1024;

/// What stands before records that are no values.
mod mark {
    pub const SLOT: u8 = 244;
    pub const IDLE: u8 = 248;
    pub const FREQUENCY: u8 = 249;
    pub const AUXILIARY: u8 = 250;
    pub const SIZES: u8 = 251;
    pub const DEADLINE_MS: u8 = 252;
    pub const DEADLINE_S: u8 = 253;
    pub const DATABASE: u8 = 254;
    pub const END: u8 = 255;
}

/// Why a file is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It does not begin as one.
    #[error("it is no RDB file")]
    Foreign,
    /// It is newer than what is known.
    #[error("its version {0} is not known")]
    Version(u16),
    /// It does not end as one, or was changed.
    #[error("its checksum is wrong: it is damaged, or not whole")]
    Checksum,
    /// What is in it makes no sense, or is of a type that is not known.
    #[error("it has something at byte {0} that is not understood")]
    Content(usize),
}

/// Writes a file.
pub struct FileWriter<W> {
    out: W,
    sum: Digest,
    gathered: Writer,
    db: Option<usize>,
}

impl<W: Write> FileWriter<W> {
    /// Begins a file of a server of this version of Redis, at this time in seconds since the Unix epoch.
    pub fn new(out: W, redis_version: &str, created_s: u64) -> Self {
        let mut gathered = Writer::default();
        gathered.0.extend_from_slice(MAGIC);
        gathered.0.extend_from_slice(format!("{VERSION:04}").as_bytes());
        for (name, value) in
            [("redis-ver", redis_version), ("redis-bits", "64"), ("ctime", &created_s.to_string())]
        {
            gathered.byte(mark::AUXILIARY);
            gathered.bytes(name.as_bytes());
            gathered.bytes(value.as_bytes());
        }
        Self { out, sum: Digest::new(CrcAlgorithm::Crc64Redis), gathered, db: None }
    }

    /// Adds a library of functions, by its source.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn library(&mut self, source: &[u8]) -> io::Result<()> {
        self.gathered.byte(LIBRARY);
        self.gathered.bytes(source);
        self.write_if_much()
    }

    /// Adds a key with its value and its deadline in milliseconds since the Unix epoch.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn entry(
        &mut self,
        db: usize,
        key: &[u8],
        value: Source<'_>,
        deadline: Option<u64>,
    ) -> io::Result<()> {
        if self.db != Some(db) {
            self.db = Some(db);
            self.gathered.byte(mark::DATABASE);
            self.gathered.length(db);
        }
        if let Some(deadline) = deadline {
            self.gathered.byte(mark::DEADLINE_MS);
            self.gathered.0.extend_from_slice(&deadline.to_le_bytes());
        }
        let content = encode_content(value);
        let Some((kind, value)) = content.split_first() else { return Ok(()) };
        self.gathered.byte(*kind);
        self.gathered.bytes(key);
        self.gathered.0.extend_from_slice(value);
        self.write_if_much()
    }

    fn write_if_much(&mut self) -> io::Result<()> {
        if self.gathered.0.len() < PIECE { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> io::Result<()> {
        self.sum.update(&self.gathered.0);
        self.out.write_all(&self.gathered.0)?;
        self.gathered.0.clear();
        self.gathered.0.shrink_to(4 * PIECE);
        Ok(())
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        self.gathered.byte(mark::END);
        self.write()?;
        self.out.write_all(&self.sum.finalize().to_le_bytes())?;
        Ok(self.out)
    }
}

/// Something that a file holds.
pub enum Record<'a> {
    /// A library of functions, by its source.
    Library(Cow<'a, [u8]>),
    /// A key.
    Entry {
        /// Its database.
        db: usize,
        /// Its name.
        key: Cow<'a, [u8]>,
        /// Its value.
        value: Decoded,
        /// When it expires, in milliseconds since the Unix epoch.
        deadline: Option<u64>,
    },
}

/// Visits what a file holds, once its checksum is found to be right.
///
/// # Errors
/// What is wrong with it.
pub fn read_file<'a>(
    bytes: &'a [u8],
    limits: &Limits,
    mut visit: impl FnMut(Record<'a>),
) -> Result<(), FileError> {
    let version = bytes.strip_prefix(MAGIC).and_then(|rest| rest.get(..4)).ok_or(FileError::Foreign)?;
    let version = std::str::from_utf8(version).ok().and_then(|digits| digits.parse().ok());
    let version: u16 = version.ok_or(FileError::Foreign)?;
    if version > NEWEST {
        return Err(FileError::Version(version));
    }
    // Version 5 brought the checksum; what wants none has zeros.
    let (content, sum) = if version < 5 {
        (bytes, None)
    } else {
        let (content, sum) = bytes.split_last_chunk::<8>().ok_or(FileError::Checksum)?;
        (content, Some(u64::from_le_bytes(*sum)).filter(|sum| *sum != 0))
    };
    if sum.is_some_and(|sum| sum != super::crc64(content)) {
        return Err(FileError::Checksum);
    }
    let mut reader = Reader::new(&content[MAGIC.len() + 4..]);
    let mut at = reader.left();
    let read = read_records(&mut reader, limits, &mut at, &mut visit);
    read.map_err(|_| FileError::Content(content.len() - at))
}

fn read_records<'a>(
    reader: &mut Reader<'a>,
    limits: &Limits,
    at: &mut usize,
    visit: &mut impl FnMut(Record<'a>),
) -> Result<(), Invalid> {
    let (mut db, mut deadline) = (0, None);
    loop {
        *at = reader.left();
        match reader.byte()? {
            mark::END if reader.is_empty() => return Ok(()),
            mark::DATABASE => db = usize::try_from(reader.length()?).map_err(|_| Invalid::Data)?,
            mark::SIZES => {
                reader.length()?;
                reader.length()?;
            }
            mark::SLOT => {
                for _ in 0..3 {
                    reader.length()?;
                }
            }
            mark::AUXILIARY => {
                reader.string()?;
                reader.string()?;
            }
            mark::IDLE => drop(reader.length()?),
            mark::FREQUENCY => drop(reader.byte()?),
            mark::DEADLINE_MS => deadline = Some(u64::from_le_bytes(reader.array()?)),
            mark::DEADLINE_S => deadline = Some(u64::from(u32::from_le_bytes(reader.array()?)) * 1000),
            LIBRARY => visit(Record::Library(reader.string()?)),
            kind => {
                let key = reader.string()?;
                let value = read_value(reader, kind, limits)?;
                visit(Record::Entry { db, key, value, deadline: deadline.take() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::listpack::Item;
    use crate::types::{hash, set, sorted_set};

    const LIMITS: Limits = Limits {
        list: -2,
        hash: hash::Limits { entries: 8, value: 20 },
        set: set::Limits { integers: 16, entries: 8, value: 20 },
        sorted_set: sorted_set::Limits { entries: 8, value: 20 },
    };

    fn file() -> Vec<u8> {
        let mut writer = FileWriter::new(Vec::new(), "7.2.4", 1_700_000_000);
        writer.library(b"#!lua name=a\n").unwrap();
        let mut set = set::Set::default();
        (0..30).for_each(|number: i32| assert!(set.insert(number.to_string().as_bytes(), &LIMITS.set)));
        writer.entry(0, b"set", Source::Set(&set), None).unwrap();
        writer
            .entry(3, b"text", Source::String(Item::Bytes(&[b'x'; 70_000])), Some(1_800_000_000_123))
            .unwrap();
        writer.entry(3, b"number", Source::String(Item::Int(-5)), None).unwrap();
        writer.finish().unwrap()
    }

    fn lines(bytes: &[u8]) -> Result<Vec<String>, FileError> {
        let mut lines = Vec::new();
        read_file(bytes, &LIMITS, |record| {
            lines.push(match record {
                Record::Library(source) => format!("library of {}", source.len()),
                Record::Entry { db, key, value, deadline } => {
                    let size = match value {
                        Decoded::String(bytes) => bytes.len(),
                        Decoded::Set(set) => set.len(),
                        _ => unreachable!("nothing else was written"),
                    };
                    format!("{db} {} {size} {deadline:?}", String::from_utf8_lossy(&key))
                }
            });
        })?;
        Ok(lines)
    }

    #[test]
    fn what_is_written_is_read() {
        let expected =
            ["library of 13", "0 set 30 None", "3 text 70000 Some(1800000000123)", "3 number 2 None"];
        assert_eq!(lines(&file()).unwrap(), expected);
    }

    #[test]
    fn damage_is_noticed() {
        let whole = file();
        for len in (0..200).chain(whole.len() - 200..whole.len()) {
            lines(&whole[..len]).unwrap_err();
        }
        for at in (0..200).chain(whole.len() - 200..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] ^= 4;
            lines(&damaged).unwrap_err();
        }
    }

    /// With zeros for a checksum, as some write it, what is there is looked at.
    #[test]
    fn whatever_is_there_is_an_error_or_a_record() {
        let mut whole = file();
        let content_len = whole.len() - 8;
        whole[content_len..].fill(0);
        assert_eq!(lines(&whole).unwrap().len(), 4);
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..2000 {
            let mut damaged = whole.clone();
            let at = random.usize(9..300);
            damaged[at] = random.u8(..);
            if let Err(error) = read_file(&damaged, &LIMITS, |_| ()) {
                assert!(matches!(error, FileError::Content(_)), "{error}");
            }
        }
    }
}
