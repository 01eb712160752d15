//! Unsigned integers of any size, with just the operations exact decimal conversion needs.
//!
//! Only rare inputs come here (more than 19 digits, large exponents), and none is larger than about
//! 35,000 bits, so schoolbook methods are enough.

use std::cmp::Ordering;

/// Little-endian 32-bit limbs without leading zeros; zero has none.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct BigUint {
    limbs: Vec<u32>,
}

impl BigUint {
    pub(super) fn from_u64(value: u64) -> Self {
        let mut number = Self { limbs: vec![value as u32, (value >> 32) as u32] };
        number.trim();
        number
    }

    pub(super) fn is_zero(&self) -> bool {
        self.limbs.is_empty()
    }

    /// The position of the highest set bit plus one; zero for zero.
    pub(super) fn bit_len(&self) -> u32 {
        self.limbs.last().map_or(0, |top| self.limbs.len() as u32 * 32 - top.leading_zeros())
    }

    /// `self = self · factor + addend`.
    pub(super) fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.limbs {
            let t = u64::from(*limb) * u64::from(factor) + carry;
            *limb = t as u32;
            carry = t >> 32;
        }
        if carry != 0 {
            self.limbs.push(carry as u32);
        }
    }

    pub(super) fn multiply_by_power_of_ten(&mut self, power: u32) {
        for _ in 0..power / 9 {
            self.multiply_add(1_000_000_000, 0);
        }
        self.multiply_add(10u32.pow(power % 9), 0);
    }

    pub(super) fn shift_left(&mut self, bits: u32) {
        if self.is_zero() {
            return;
        }
        if !bits.is_multiple_of(32) {
            self.multiply_add(1 << (bits % 32), 0);
        }
        let words = (bits / 32) as usize;
        self.limbs.splice(..0, std::iter::repeat_n(0, words));
    }

    /// `self -= other`, where `other` is not larger.
    pub(super) fn subtract(&mut self, other: &Self) {
        let mut borrow = false;
        for (i, limb) in self.limbs.iter_mut().enumerate() {
            let (difference, first) = limb.overflowing_sub(other.limbs.get(i).copied().unwrap_or(0));
            let (difference, second) = difference.overflowing_sub(u32::from(borrow));
            *limb = difference;
            borrow = first || second;
        }
        debug_assert!(!borrow);
        self.trim();
    }

    /// Appends the decimal digits.
    pub(super) fn write_decimal(mut self, out: &mut Vec<u8>) {
        let mut groups = Vec::with_capacity(self.limbs.len() + self.limbs.len() / 8 + 1);
        while !self.is_zero() {
            let mut rest: u64 = 0;
            for limb in self.limbs.iter_mut().rev() {
                let t = rest << 32 | u64::from(*limb);
                *limb = (t / 1_000_000_000) as u32;
                rest = t % 1_000_000_000;
            }
            self.trim();
            groups.push(rest as u32);
        }
        let mut buffer = itoa::Buffer::new();
        let first = groups.pop().unwrap_or(0);
        out.extend_from_slice(buffer.format(first).as_bytes());
        for group in groups.into_iter().rev() {
            let digits = buffer.format(group).as_bytes();
            out.extend_from_slice(&b"000000000"[digits.len()..]);
            out.extend_from_slice(digits);
        }
    }

    fn trim(&mut self) {
        while self.limbs.last() == Some(&0) {
            self.limbs.pop();
        }
    }
}

impl Ord for BigUint {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_length = self.limbs.len().cmp(&other.limbs.len());
        by_length.then_with(|| self.limbs.iter().rev().cmp(other.limbs.iter().rev()))
    }
}

impl PartialOrd for BigUint {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decimal(number: BigUint) -> String {
        let mut out = Vec::new();
        number.write_decimal(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn powers() {
        assert_eq!(decimal(BigUint::from_u64(0)), "0");
        let mut ten = BigUint::from_u64(1);
        ten.multiply_by_power_of_ten(40);
        assert_eq!(decimal(ten), format!("1{}", "0".repeat(40)));
        let mut two = BigUint::from_u64(1);
        two.shift_left(127);
        assert_eq!(two.bit_len(), 128);
        assert_eq!(decimal(two), (1u128 << 127).to_string());
    }

    proptest! {
        #[test]
        fn agrees_with_u128(a: u64, b: u64, shift in 0u32..60) {
            let (high, low) = (a.max(b), a.min(b));
            let mut n = BigUint::from_u64(high);
            n.shift_left(shift);
            n.subtract(&BigUint::from_u64(low));
            prop_assert_eq!(decimal(n.clone()), ((u128::from(high) << shift) - u128::from(low)).to_string());
            prop_assert_eq!(BigUint::from_u64(a).cmp(&BigUint::from_u64(b)), a.cmp(&b));
            n.multiply_add(10, 7);
            let want = ((u128::from(high) << shift) - u128::from(low)) * 10 + 7;
            prop_assert_eq!(n.bit_len(), 128 - want.leading_zeros());
            prop_assert_eq!(decimal(n), want.to_string());
        }
    }
}
