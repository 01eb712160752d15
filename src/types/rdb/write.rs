//! Writing lengths and strings.

use crate::types::listpack::{Item, NumBuf};

/// A payload that grows.
#[derive(Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }

    /// A length or a count.
    pub(super) fn length(&mut self, length: usize) {
        let wide = length as u64;
        match length {
            0..64 => self.0.push(length as u8),
            64..16_384 => self.0.extend_from_slice(&[0x40 | (length >> 8) as u8, length as u8]),
            _ => match u32::try_from(wide) {
                Ok(narrow) => {
                    self.0.push(0x80);
                    self.0.extend_from_slice(&narrow.to_be_bytes());
                }
                Err(_) => {
                    self.0.push(0x81);
                    self.0.extend_from_slice(&wide.to_be_bytes());
                }
            },
        }
    }

    /// A string: an integer if it spells one of 32 bits.
    pub(super) fn string(&mut self, item: Item<'_>) {
        let item = match item {
            Item::Bytes(bytes) if bytes.len() <= 11 => Item::of(bytes),
            other => other,
        };
        if let Item::Int(integer) = item
            && self.integer(integer)
        {
            return;
        }
        let mut buffer = NumBuf::new();
        self.bytes(item.to_bytes(&mut buffer));
    }

    /// A string as it is.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    fn integer(&mut self, value: i64) -> bool {
        let (mark, width) = match value {
            -0x80..=0x7f => (0xc0, 1),
            -0x8000..=0x7fff => (0xc1, 2),
            -0x8000_0000..=0x7fff_ffff => (0xc2, 4),
            _ => return false,
        };
        self.0.push(mark);
        self.0.extend_from_slice(&value.to_le_bytes()[..width]);
        true
    }
}
