//! Registers of six bits, one behind the other, the lowest bits of a byte first.

use super::REGISTERS;

/// Bytes of all registers.
pub(super) const LEN: usize = REGISTERS * 6 / 8;
/// The largest value a register can hold.
const MAX: u8 = 63;

/// The registers in groups of four, which fill three bytes.
pub(super) fn groups(encoded: &[u8]) -> impl Iterator<Item = [u8; 4]> {
    encoded.as_chunks::<3>().0.iter().map(|[a, b, c]| {
        let word = u32::from_le_bytes([*a, *b, *c, 0]);
        [0, 6, 12, 18].map(|shift| (word >> shift) as u8 & MAX)
    })
}

/// Writes a register.
pub(super) fn set(encoded: &mut [u8], index: usize, value: u8) {
    let (group, shift) = (index / 4 * 3, index % 4 * 6);
    let word = u32::from_le_bytes([encoded[group], encoded[group + 1], encoded[group + 2], 0]);
    let word = (word & !(u32::from(MAX) << shift)) | (u32::from(value) << shift);
    encoded[group..group + 3].copy_from_slice(&word.to_le_bytes()[..3]);
}

/// Reads a register.
pub(super) fn get(encoded: &[u8], index: usize) -> u8 {
    let group = index / 4 * 3;
    let word = u32::from_le_bytes([encoded[group], encoded[group + 1], encoded[group + 2], 0]);
    (word >> (index % 4 * 6)) as u8 & MAX
}

/// Raises a register, if it is lower; says whether it was.
pub(super) fn raise(encoded: &mut [u8], index: usize, value: u8) -> bool {
    let lower = get(encoded, index) < value;
    if lower {
        set(encoded, index, value);
    }
    lower
}
