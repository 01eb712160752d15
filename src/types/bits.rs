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
    let (words, rest) = bytes[first + 1..last].as_chunks::<8>();
    // Plain sums, so that the compiler makes vectors of them.
    let inner: u64 = words.iter().map(|word| u64::from(u64::from_ne_bytes(*word).count_ones())).sum();
    let rest: u32 = rest.iter().map(|byte| byte.count_ones()).sum();
    let ends = (bytes[first] & head).count_ones() + (bytes[last] & tail).count_ones();
    inner as usize + (rest + ends) as usize
}

/// The first bit of this value from bit `start` to bit `end`, both included and inside the string.
pub fn position(bytes: &[u8], value: bool, start: usize, end: usize) -> Option<usize> {
    if start > end {
        return None;
    }
    // What is wanted becomes a one.
    let invert: u8 = if value { 0 } else { 0xff };
    let (first, last) = (start / 8, end / 8);
    let head = (bytes[first] ^ invert) & (0xff >> (start % 8));
    let found = if head != 0 {
        first * 8 + head.leading_zeros() as usize
    } else {
        (first + 1) * 8 + first_unlike(&bytes[first + 1..=last], invert)?
    };
    (found <= end).then_some(found)
}

/// The first bit in which the bytes differ from the filling.
fn first_unlike(bytes: &[u8], filling: u8) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<8>();
    let like = u64::from_ne_bytes([filling; 8]);
    if let Some(at) = words.iter().position(|word| u64::from_ne_bytes(*word) != like) {
        return Some(at * 64 + (u64::from_be_bytes(words[at]) ^ like).leading_zeros() as usize);
    }
    let at = rest.iter().position(|byte| *byte != filling)?;
    Some((words.len() * 8 + at) * 8 + (rest[at] ^ filling).leading_zeros() as usize)
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

/// Combines strings; shorter ones count as filled up with zeros. `Not` looks at the first alone.
pub fn combine(operation: Operation, operands: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let Some((first, others)) = operands.split_first() else { return Vec::new() };
    if operation == Operation::Not {
        return first.as_ref().iter().map(|byte| !byte).collect();
    }
    let len = operands.iter().map(|operand| operand.as_ref().len()).max().unwrap_or(0);
    let mut result = Vec::with_capacity(len);
    result.extend_from_slice(first.as_ref());
    result.resize(len, 0);
    for operand in others {
        let operand = operand.as_ref();
        let (common, rest) = result.split_at_mut(operand.len());
        // One loop an operation, each simple enough to become vector instructions.
        match operation {
            Operation::And => {
                common.iter_mut().zip(operand).for_each(|(byte, other)| *byte &= other);
                rest.fill(0);
            }
            Operation::Or => common.iter_mut().zip(operand).for_each(|(byte, other)| *byte |= other),
            Operation::Xor | Operation::Not => {
                common.iter_mut().zip(operand).for_each(|(byte, other)| *byte ^= other);
            }
        }
    }
    result
}

/// An integer of some bits, as `BITFIELD` has them: the most significant bit first, at any bit offset.
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
    /// Reads the field at a bit; bits beyond the end are 0.
    pub fn read(self, bytes: &[u8], offset: usize) -> i64 {
        let tail = bytes.get(offset / 8..).unwrap_or_default();
        let mut window = [0; 16];
        let len = tail.len().min(self.window_len(offset));
        window[..len].copy_from_slice(&tail[..len]);
        let aligned = u128::from_be_bytes(window) << (offset % 8);
        self.extend((aligned >> (128 - self.bits)) as u64)
    }

    /// Writes the lowest bits of a value into the field at a bit, making the string longer if it must be.
    pub fn write(self, bytes: &mut Vec<u8>, offset: usize, value: i64) {
        let (start, len) = (offset / 8, self.window_len(offset));
        if bytes.len() < start + len {
            bytes.resize(start + len, 0);
        }
        let place = &mut bytes[start..start + len];
        let mut window = [0; 16];
        window[..len].copy_from_slice(place);
        let shift = 128 - self.bits - (offset % 8) as u32;
        let mask = u128::from(u64::MAX >> (64 - self.bits)) << shift;
        let value = (u128::from(value as u64) << shift) & mask;
        let merged = (u128::from_be_bytes(window) & !mask) | value;
        place.copy_from_slice(&merged.to_be_bytes()[..len]);
    }

    /// How many bytes the field touches: at most nine.
    fn window_len(self, offset: usize) -> usize {
        (offset % 8 + self.bits as usize).div_ceil(8)
    }

    fn extend(self, raw: u64) -> i64 {
        let unused = 64 - self.bits;
        if self.signed { ((raw << unused) as i64) >> unused } else { (raw << unused >> unused) as i64 }
    }

    /// The value that `INCRBY` stores for `value + by`; `None` if it does not fit and may not be stored.
    pub fn fit(self, value: i64, by: i64, overflow: Overflow) -> Option<i64> {
        self.fit_wide(i128::from(value) + i128::from(by), overflow)
    }

    /// The value that `SET` stores; `None` if it does not fit and may not be stored.
    ///
    /// An unsigned field takes it for an unsigned integer of 64 bits: a negative one saturates to the
    /// highest value, where an increment below zero saturates to zero.
    pub fn fit_value(self, value: i64, overflow: Overflow) -> Option<i64> {
        self.fit_wide(if self.signed { value.into() } else { (value as u64).into() }, overflow)
    }

    fn fit_wide(self, value: i128, overflow: Overflow) -> Option<i64> {
        let (low, high) = if self.signed {
            (-(1i128 << (self.bits - 1)), (1i128 << (self.bits - 1)) - 1)
        } else {
            (0, (1i128 << self.bits) - 1)
        };
        if (low..=high).contains(&value) {
            return Some(value as i64);
        }
        match overflow {
            Overflow::Fail => None,
            Overflow::Saturate => Some(value.clamp(low, high) as i64),
            Overflow::Wrap => Some(self.extend(value as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sets_and_grows() {
        let mut bytes = Vec::new();
        assert!(!set(&mut bytes, 7, true));
        assert!(!set(&mut bytes, 16, false));
        assert!(set(&mut bytes, 7, true));
        assert_eq!(bytes, [1, 0, 0]);
        assert!(get(&bytes, 7) && !get(&bytes, 8) && !get(&bytes, 1000));
    }

    #[test]
    fn overflows_as_in_redis() {
        // BITFIELD k OVERFLOW … SET / INCRBY on redis-server 7.2.
        use Overflow::{Fail, Saturate, Wrap};
        let field = |signed, bits| Field { signed, bits };
        for (field, value, overflow, want) in [
            (field(false, 8), -1, Saturate, Some(255)),
            (field(false, 8), -1, Wrap, Some(255)),
            (field(false, 8), -1, Fail, None),
            (field(false, 8), 256, Wrap, Some(0)),
            (field(false, 63), -1, Saturate, Some(i64::MAX)),
            (field(true, 8), 128, Saturate, Some(127)),
            (field(true, 8), -129, Saturate, Some(-128)),
            (field(true, 8), 200, Wrap, Some(-56)),
            (field(true, 64), i64::MIN, Fail, Some(i64::MIN)),
        ] {
            assert_eq!(field.fit_value(value, overflow), want, "{field:?} {value} {overflow:?}");
        }
        for (field, value, by, overflow, want) in [
            (field(false, 8), 0, -1, Saturate, Some(0)),
            (field(false, 8), 250, 10, Wrap, Some(4)),
            (field(false, 63), i64::MAX, 1, Wrap, Some(0)),
            (field(true, 64), i64::MAX, 1, Wrap, Some(i64::MIN)),
            (field(true, 64), i64::MIN, -1, Saturate, Some(i64::MIN)),
            (field(true, 64), i64::MIN, -1, Fail, None),
            (field(true, 1), -1, 1, Wrap, Some(0)),
            (field(true, 1), 0, 1, Wrap, Some(-1)),
        ] {
            assert_eq!(field.fit(value, by, overflow), want, "{field:?} {value} {by} {overflow:?}");
        }
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(prop_oneof![Just(0u8), Just(255), any::<u8>()], 1..60)
    }

    proptest! {
        #[test]
        fn counts_and_finds_like_a_loop(
            bytes in any_bytes(),
            a in any::<prop::sample::Index>(),
            b in any::<prop::sample::Index>(),
        ) {
            let (a, b) = (a.index(bytes.len() * 8), b.index(bytes.len() * 8));
            let (start, end) = (a.min(b), a.max(b));
            prop_assert_eq!(count(&bytes, start, end), (start..=end).filter(|at| get(&bytes, *at)).count());
            for value in [false, true] {
                let want = (start..=end).find(|at| get(&bytes, *at) == value);
                prop_assert_eq!(position(&bytes, value, start, end), want);
            }
        }

        #[test]
        fn a_lone_bit_is_found(len in 1usize..80, at in any::<prop::sample::Index>(), value in any::<bool>()) {
            let at = at.index(len * 8);
            let mut bytes = vec![if value { 0 } else { 0xff }; len];
            set(&mut bytes, at, value);
            prop_assert_eq!(position(&bytes, value, 0, len * 8 - 1), Some(at));
            prop_assert_eq!(position(&bytes, value, at + 1, len * 8 - 1), None);
        }

        #[test]
        fn combines_like_a_loop(operands in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..4)) {
            let len = operands.iter().map(Vec::len).max().unwrap();
            let bit = |operand: &Vec<u8>, at| get(operand, at);
            for operation in [Operation::And, Operation::Or, Operation::Xor, Operation::Not] {
                let operands = if operation == Operation::Not { &operands[..1] } else { &operands[..] };
                let len = if operation == Operation::Not { operands[0].len() } else { len };
                let result = combine(operation, operands);
                prop_assert_eq!(result.len(), len);
                for at in 0..len * 8 {
                    let want = match operation {
                        Operation::And => operands.iter().all(|operand| bit(operand, at)),
                        Operation::Or => operands.iter().any(|operand| bit(operand, at)),
                        Operation::Xor => operands.iter().filter(|operand| bit(operand, at)).count() % 2 == 1,
                        Operation::Not => !bit(&operands[0], at),
                    };
                    prop_assert_eq!(get(&result, at), want);
                }
            }
        }

        #[test]
        fn fields_are_their_bits(
            bytes in any_bytes(),
            bits in 1u32..=64,
            signed in any::<bool>(),
            offset in 0usize..500,
            value in any::<i64>(),
        ) {
            let field = Field { signed, bits: if signed { bits } else { bits.min(63) } };
            let raw = (0..field.bits as usize).fold(0u64, |raw, bit| raw << 1 | u64::from(get(&bytes, offset + bit)));
            prop_assert_eq!(field.read(&bytes, offset), field.extend(raw));

            let mut written = bytes.clone();
            let stored = field.fit_value(value, Overflow::Wrap).unwrap();
            field.write(&mut written, offset, stored);
            prop_assert_eq!(written.len(), bytes.len().max((offset + field.bits as usize).div_ceil(8)));
            prop_assert_eq!(field.read(&written, offset), stored);
            for at in (0..written.len() * 8).filter(|at| !(offset..offset + field.bits as usize).contains(at)) {
                prop_assert_eq!(get(&written, at), get(&bytes, at));
            }
            let saturated = field.fit_value(value, Overflow::Saturate).unwrap();
            prop_assert_eq!(field.fit_value(value, Overflow::Fail).is_none(), saturated != value);
        }
    }
}
