//! Bits of byte strings, the most significant bit of the first byte first.

/// Reads a bit; those beyond the end are 0.
pub fn get(bytes: &[u8], offset: usize) -> bool {
    bytes.get(offset / 8).is_some_and(|byte| byte >> (7 - offset % 8) & 1 == 1)
}

/// Writes a bit, making the string longer if it must be; returns the bit that was there.
pub fn set(bytes: &mut Vec<u8>, offset: usize, value: bool) -> bool {
    let old = get(bytes, offset);
    if bytes.len() <= offset / 8 {
        bytes.resize(offset / 8 + 1, 0);
    }
    let mask = 1 << (7 - offset % 8);
    if value {
        bytes[offset / 8] |= mask;
    } else {
        bytes[offset / 8] &= !mask;
    }
    old
}

/// Counts the bits that are 1 from bit `start` to bit `end`, both included and inside the string.
pub fn count(bytes: &[u8], start: usize, end: usize) -> usize {
    let (first, last) = (start / 8, end / 8);
    let head = 0xff >> (start % 8);
    let tail = 0xff << (7 - end % 8);
    if first == last {
        return (bytes[first] & head & tail).count_ones() as usize;
    }
    let inner: u64 = bytes[first + 1..last]
        .chunks(8)
        .map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from(u64::from_le_bytes(word).count_ones())
        })
        .sum();
    let ends = (bytes[first] & head).count_ones() + (bytes[last] & tail).count_ones();
    inner as usize + ends as usize
}

/// The first bit of this value from bit `start` to bit `end`, both included and inside the string.
pub fn position(bytes: &[u8], value: bool, start: usize, end: usize) -> Option<usize> {
    let skip = if value { 0 } else { 0xff };
    let mut at = start;
    while at <= end {
        if at.is_multiple_of(8) && at + 8 <= end + 1 && bytes[at / 8] == skip {
            at += 8;
        } else if get(bytes, at) == value {
            return Some(at);
        } else {
            at += 1;
        }
    }
    None
}

/// What `BITOP` does with its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Bits that all have.
    And,
    /// Bits that any has.
    Or,
    /// Bits that an odd number have.
    Xor,
    /// Bits that the only operand does not have.
    Not,
}

/// Combines strings; shorter ones count as filled up with zeros.
pub fn combine(operation: Operation, operands: &[Vec<u8>]) -> Vec<u8> {
    let len = operands.iter().map(Vec::len).max().unwrap_or(0);
    let mut result = operands.first().cloned().unwrap_or_default();
    result.resize(len, 0);
    if operation == Operation::Not {
        result.iter_mut().for_each(|byte| *byte = !*byte);
        return result;
    }
    for operand in &operands[1..] {
        let (common, rest) = result.split_at_mut(operand.len());
        for (byte, other) in common.iter_mut().zip(operand) {
            match operation {
                Operation::And => *byte &= other,
                Operation::Or => *byte |= other,
                Operation::Xor | Operation::Not => *byte ^= other,
            }
        }
        if operation == Operation::And {
            rest.fill(0);
        }
    }
    result
}

/// An integer of some bits, as `BITFIELD` has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// Whether it has a sign.
    pub signed: bool,
    /// How many bits: 1 to 64 with a sign, 1 to 63 without.
    pub bits: u32,
}

/// What happens to a value that does not fit its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overflow {
    /// The bits that do not fit are dropped.
    Wrap,
    /// The nearest value that fits is taken.
    Saturate,
    /// Nothing is written.
    Fail,
}

impl Field {
    /// Reads the field at a bit.
    pub fn read(self, bytes: &[u8], offset: usize) -> i64 {
        let raw =
            (0..self.bits as usize).fold(0u64, |raw, bit| raw << 1 | u64::from(get(bytes, offset + bit)));
        self.extend(raw)
    }

    /// Writes the field at a bit.
    pub fn write(self, bytes: &mut Vec<u8>, offset: usize, value: i64) {
        for bit in 0..self.bits as usize {
            set(bytes, offset + bit, value as u64 >> (self.bits as usize - 1 - bit) & 1 == 1);
        }
    }

    fn extend(self, raw: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { ((raw << unused) as i64) >> unused } else { (raw << unused >> unused) as i64 }
    }

    /// The value that is stored for `value + by`; `None` if it does not fit and may not be stored.
    pub fn fit(self, value: i64, by: i64, overflow: Overflow) -> Option<i64> {
        self.fit_wide(i128::from(value) + i128::from(by), overflow)
    }

    /// The value that is stored for `value`, which an unsigned field takes for an unsigned integer of 64 bits.
    pub fn fit_value(self, value: i64, overflow: Overflow) -> Option<i64> {
        self.fit_wide(if self.signed { value.into() } else { (value as u64).into() }, overflow)
    }

    fn fit_wide(self, sum: i128, overflow: Overflow) -> Option<i64> {
        let (low, high) = if self.signed {
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        };
        if (low..=high).contains(&sum) {
            return Some(sum as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(sum.clamp(low, high) as i64),
            Overflow::Wrap => Some(self.extend(sum as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn counts_and_finds_like_a_loop(bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 1..60),
            a in any::<prop::sample::Index>(), b in any::<prop::sample::Index>()) {
            let (a, b) = (a.index(bytes.len() * 8), b.index(bytes.len() * 8));
            let (start, end) = (a.min(b), a.max(b));
            prop_assert_eq!(count(&bytes, start, end), (start..=end).filter(|at| get(&bytes, *at)).count());
            for value in [false, true] {
                prop_assert_eq!(position(&bytes, value, start, end), (start..=end).find(|at| get(&bytes, *at) == value));
            }
        }

        #[test]
        fn fields_read_what_was_written(bits in 1u32..=64, signed in any::<bool>(), offset in 0usize..70, value in any::<i64>()) {
            let field = Field { signed, bits: if signed { bits } else { bits.min(63) } };
            let mut bytes = vec![0xa5; 3];
            let stored = field.fit_value(value, Overflow::Wrap).unwrap();
            field.write(&mut bytes, offset, stored);
            prop_assert_eq!(field.read(&bytes, offset), stored);
            let saturated = field.fit_value(value, Overflow::Saturate).unwrap();
            prop_assert_eq!(field.fit_value(value, Overflow::Fail).is_none(), saturated != value);
        }
    }
}
