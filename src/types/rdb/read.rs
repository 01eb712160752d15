//! Reading lengths, strings and scores.

use std::borrow::Cow;

use super::{Invalid, compress};

/// What is left of a payload.
pub(super) struct Reader<'a>(&'a [u8]);

/// A length, or a string in one of the special forms.
enum Length {
    Plain(u64),
    Special(u8),
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// How many bytes are left.
    pub(super) fn left(&self) -> usize {
        self.0.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn bytes(&mut self, count: usize) -> Result<&'a [u8], Invalid> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Invalid::Data)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Invalid> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Invalid::Data)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(super) fn byte(&mut self) -> Result<u8, Invalid> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn any_length(&mut self) -> Result<Length, Invalid> {
        let first = self.byte()?;
        Ok(match (first >> 6, first) {
            (0, _) => Length::Plain(first.into()),
            (1, _) => Length::Plain(u64::from(first & 0x3f) << 8 | u64::from(self.byte()?)),
            (2, 0x80) => Length::Plain(u32::from_be_bytes(self.array()?).into()),
            (2, 0x81) => Length::Plain(u64::from_be_bytes(self.array()?)),
            (3, _) => Length::Special(first & 0x3f),
            _ => return Err(Invalid::Data),
        })
    }

    /// A length or a count.
    pub(super) fn length(&mut self) -> Result<u64, Invalid> {
        match self.any_length()? {
            Length::Plain(length) => Ok(length),
            Length::Special(_) => Err(Invalid::Data),
        }
    }

    fn size(&mut self) -> Result<usize, Invalid> {
        usize::try_from(self.length()?).map_err(|_| Invalid::Data)
    }

    /// A string.
    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>, Invalid> {
        let integer = |value: i64| Cow::Owned(itoa::Buffer::new().format(value).as_bytes().to_vec());
        Ok(match self.any_length()? {
            Length::Plain(length) => {
                Cow::Borrowed(self.bytes(usize::try_from(length).map_err(|_| Invalid::Data)?)?)
            }
            Length::Special(0) => integer(i8::from_le_bytes(self.array()?).into()),
            Length::Special(1) => integer(i16::from_le_bytes(self.array()?).into()),
            Length::Special(2) => integer(i32::from_le_bytes(self.array()?).into()),
            Length::Special(3) => {
                let (compressed, length) = (self.size()?, self.size()?);
                Cow::Owned(compress::decompress(self.bytes(compressed)?, length)?)
            }
            Length::Special(_) => return Err(Invalid::Data),
        })
    }

    /// A score in eight bytes.
    pub(super) fn score(&mut self) -> Result<f64, Invalid> {
        Some(f64::from_le_bytes(self.array()?)).filter(|score| !score.is_nan()).ok_or(Invalid::Data)
    }

    /// A score as text behind its length.
    pub(super) fn score_text(&mut self) -> Result<f64, Invalid> {
        match self.byte()? {
            253 => Err(Invalid::Data),
            254 => Ok(f64::INFINITY),
            255 => Ok(f64::NEG_INFINITY),
            length => score_of(self.bytes(length.into())?),
        }
    }
}

/// The score that a text spells.
pub(super) fn score_of(text: &[u8]) -> Result<f64, Invalid> {
    crate::types::number::parse_f64(text).filter(|score| !score.is_nan()).ok_or(Invalid::Data)
}
