//! The x87 long double that `INCRBYFLOAT` computes with: 64 bits of mantissa, so that sums print as Redis prints them.
//!
//! Conversions are exact, by integers as long as they need to be; rounding is to nearest, ties to even.

/// A finite long double: `mantissa` × 2^`exponent`, the mantissa's top bit set unless it is zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongDouble {
    negative: bool,
    mantissa: u64,
    exponent: i32,
}

/// A result that is not finite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongDoubleError;

/// The exponent of the largest finite value.
const MAX_EXPONENT: i32 = 16383 - 63;
/// The exponent below which a value counts as zero (denormals are not kept).
const MIN_EXPONENT: i32 = -16382 - 63;
/// Digits and exponents beyond these cannot matter to a finite result.
const MAX_TEXT: usize = 256;
const MAX_DECIMAL_EXPONENT: i32 = 4940;

impl LongDouble {
    /// Zero.
    pub const ZERO: Self = Self { negative: false, mantissa: 0, exponent: 0 };

    /// A double, exactly; it must be finite.
    pub fn from_f64(value: f64) -> Self {
        let bits = value.to_bits();
        let (fraction, biased) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
        let (mantissa, exponent) =
            if biased == 0 { (fraction, -1074) } else { (fraction | 1 << 52, biased - 1075) };
        if mantissa == 0 {
            return Self { negative: value.is_sign_negative(), ..Self::ZERO };
        }
        let shift = mantissa.leading_zeros();
        Self { negative: value < 0.0, mantissa: mantissa << shift, exponent: exponent - shift as i32 }
    }

    /// Whether a text spells an infinity, which no arithmetic accepts.
    pub fn is_infinity(text: &[u8]) -> bool {
        let unsigned = text.strip_prefix(b"-").or(text.strip_prefix(b"+")).unwrap_or(text);
        unsigned.eq_ignore_ascii_case(b"inf") || unsigned.eq_ignore_ascii_case(b"infinity")
    }

    /// Reads a decimal number, all of the text; infinities, NaN and what is too large are refused.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_TEXT {
            return None;
        }
        let (negative, unsigned) = match text {
            [b'-', rest @ ..] => (true, rest),
            [b'+', rest @ ..] => (false, rest),
            rest => (false, rest),
        };
        let split = unsigned.iter().position(|byte| matches!(byte, b'e' | b'E')).unwrap_or(unsigned.len());
        let exponent: i32 = match &unsigned[split..] {
            [] => 0,
            [_, digits @ ..] => std::str::from_utf8(digits).ok()?.parse().ok()?,
        };
        let (mut digits, mut point, mut seen) = (BigUint::zero(), None, false);
        for (index, &byte) in unsigned[..split].iter().enumerate() {
            match byte {
                b'.' if point.is_none() => point = Some(index),
                b'0'..=b'9' => {
                    digits.multiply_add(10, u32::from(byte - b'0'));
                    seen = true;
                }
                _ => return None,
            }
        }
        if !seen {
            return None;
        }
        let decimals = point.map_or(0, |at| split - at - 1) as i32;
        let power = exponent.checked_sub(decimals)?;
        if digits.is_zero() || power < -MAX_DECIMAL_EXPONENT - MAX_TEXT as i32 {
            return Some(Self { negative, ..Self::ZERO });
        }
        if power > MAX_DECIMAL_EXPONENT {
            return None;
        }
        Self::from_ratio(negative, digits, power)
    }

    /// `digits` × 10^`power`, rounded.
    fn from_ratio(negative: bool, mut digits: BigUint, power: i32) -> Option<Self> {
        if power >= 0 {
            for _ in 0..power {
                digits.multiply_add(10, 0);
            }
            return Self::round(negative, &digits, 0, false);
        }
        let mut divisor = BigUint::from(1);
        for _ in 0..-power {
            divisor.multiply_add(10, 0);
        }
        // Shifted so far that the quotient has at least 66 bits: what is cut off can only break a tie.
        let shift = (divisor.bits() + 66).saturating_sub(digits.bits());
        digits.shift_left(shift);
        let (quotient, inexact) = digits.divide(&divisor);
        Self::round(negative, &quotient, -(shift as i32), inexact)
    }

    /// Rounds an integer times 2^`exponent` to 64 bits; `inexact` says that something was cut off below.
    fn round(negative: bool, value: &BigUint, exponent: i32, inexact: bool) -> Option<Self> {
        let bits = value.bits();
        if bits == 0 {
            return Some(Self { negative, ..Self::ZERO });
        }
        let excess = bits as i32 - 64;
        let (mut mantissa, mut exponent) = (value.top_64(), exponent + excess);
        if excess > 0 {
            let half = value.bit(excess as usize - 1);
            let rest = inexact || value.any_below(excess as usize - 1);
            if half && (rest || mantissa & 1 == 1) {
                let (sum, carried) = mantissa.overflowing_add(1);
                mantissa = if carried { 1 << 63 } else { sum };
                exponent += i32::from(carried);
            }
        }
        if exponent > MAX_EXPONENT {
            return None;
        }
        if exponent < MIN_EXPONENT {
            return Some(Self { negative, ..Self::ZERO });
        }
        Some(Self { negative, mantissa, exponent })
    }

    /// The sum, rounded.
    ///
    /// # Errors
    /// If it is not finite.
    pub fn plus(self, other: Self) -> Result<Self, LongDoubleError> {
        if self.mantissa == 0 || other.mantissa == 0 {
            return Ok(if self.mantissa == 0 { other } else { self });
        }
        let (large, small) = if self.exponent >= other.exponent { (self, other) } else { (other, self) };
        let distance = (large.exponent - small.exponent) as usize;
        if distance > 130 {
            return Ok(large);
        }
        let mut left = BigUint::from(large.mantissa);
        left.shift_left(distance);
        let right = BigUint::from(small.mantissa);
        let (negative, sum) = if large.negative == small.negative {
            (large.negative, left.plus(&right))
        } else if left.is_less(&right) {
            (small.negative, right.minus(&left))
        } else {
            (large.negative, left.minus(&right))
        };
        let negative = negative && !sum.is_zero();
        Self::round(negative, &sum, small.exponent, false).ok_or(LongDoubleError)
    }

    /// The text with up to 17 decimals, trailing zeros cut off.
    pub fn to_text(self) -> Vec<u8> {
        const DECIMALS: usize = 17;
        let mut scaled = BigUint::from(self.mantissa);
        for _ in 0..DECIMALS {
            scaled.multiply_add(10, 0);
        }
        if self.exponent >= 0 {
            scaled.shift_left(self.exponent as usize);
        } else {
            scaled.shift_right_rounded(self.exponent.unsigned_abs() as usize);
        }
        let mut digits = scaled.to_decimal();
        while digits.len() <= DECIMALS {
            digits.insert(0, b'0');
        }
        let point = digits.len() - DECIMALS;
        digits.insert(point, b'.');
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.last() == Some(&b'.') {
            digits.pop();
        }
        if self.negative && digits != b"0" {
            digits.insert(0, b'-');
        }
        digits
    }
}

/// A natural number of any size, least significant limb first, without leading zero limbs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BigUint(Vec<u32>);

impl From<u64> for BigUint {
    fn from(value: u64) -> Self {
        let mut number = Self(vec![value as u32, (value >> 32) as u32]);
        number.trim();
        number
    }
}

impl BigUint {
    fn zero() -> Self {
        Self(Vec::new())
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    fn trim(&mut self) {
        while self.0.last() == Some(&0) {
            self.0.pop();
        }
    }

    fn bits(&self) -> usize {
        self.0.last().map_or(0, |top| self.0.len() * 32 - top.leading_zeros() as usize)
    }

    fn bit(&self, index: usize) -> bool {
        self.0.get(index / 32).is_some_and(|limb| limb >> (index % 32) & 1 == 1)
    }

    fn any_below(&self, index: usize) -> bool {
        (0..index).any(|bit| self.bit(bit))
    }

    /// The 64 most significant bits.
    fn top_64(&self) -> u64 {
        let bits = self.bits();
        (0..64)
            .filter(|offset| bits > *offset && self.bit(bits - 1 - offset))
            .fold(0, |top, o| top | 1 << (63 - o))
    }

    fn multiply_add(&mut self, factor: u32, addend: u32) {
        let mut carry = u64::from(addend);
        for limb in &mut self.0 {
            carry += u64::from(*limb) * u64::from(factor);
            *limb = carry as u32;
            carry >>= 32;
        }
        if carry > 0 {
            self.0.push(carry as u32);
        }
    }

    fn shift_left(&mut self, bits: usize) {
        if self.is_zero() {
            return;
        }
        let (limbs, bits) = (bits / 32, bits % 32);
        self.multiply_add(1 << bits, 0);
        self.0.splice(0..0, std::iter::repeat_n(0, limbs));
    }

    fn shift_right(&mut self, bits: usize) {
        let (limbs, bits) = (bits / 32, bits % 32);
        self.0.drain(..limbs.min(self.0.len()));
        let mut carry = 0;
        for limb in self.0.iter_mut().rev() {
            let value = u64::from(*limb);
            *limb = (carry | value >> bits) as u32;
            carry = value << (32 - bits) & 0xffff_ffff;
        }
        self.trim();
    }

    fn shift_right_rounded(&mut self, bits: usize) {
        let half = bits > 0 && self.bit(bits - 1);
        let rest = bits > 0 && self.any_below(bits - 1);
        self.shift_right(bits);
        if half && (rest || self.bit(0)) {
            *self = self.plus(&Self::from(1));
        }
    }

    fn plus(&self, other: &Self) -> Self {
        let mut sum = Vec::with_capacity(self.0.len().max(other.0.len()) + 1);
        let mut carry = 0u64;
        for index in 0..self.0.len().max(other.0.len()) {
            carry += u64::from(self.0.get(index).copied().unwrap_or(0));
            carry += u64::from(other.0.get(index).copied().unwrap_or(0));
            sum.push(carry as u32);
            carry >>= 32;
        }
        sum.push(carry as u32);
        let mut sum = Self(sum);
        sum.trim();
        sum
    }

    fn is_less(&self, other: &Self) -> bool {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.iter().rev().cmp(other.0.iter().rev())).is_lt()
    }

    /// The difference; `other` is not larger.
    fn minus(&self, other: &Self) -> Self {
        let mut difference = Vec::with_capacity(self.0.len());
        let mut borrow = 0i64;
        for index in 0..self.0.len() {
            let mut limb = i64::from(self.0[index]) - borrow;
            limb -= i64::from(other.0.get(index).copied().unwrap_or(0));
            borrow = i64::from(limb < 0);
            difference.push(limb as u32);
        }
        let mut difference = Self(difference);
        difference.trim();
        difference
    }

    /// The quotient, and whether something remains: bit by bit, the quotient has about 66 of them.
    fn divide(&self, divisor: &Self) -> (Self, bool) {
        let (mut quotient, mut remainder) = (Self::zero(), Self::zero());
        for index in (0..self.bits()).rev() {
            remainder.multiply_add(2, u32::from(self.bit(index)));
            let fits = !remainder.is_less(divisor);
            if fits {
                remainder = remainder.minus(divisor);
            }
            if quotient.is_zero() {
                quotient = Self::from(u64::from(fits));
            } else {
                quotient.multiply_add(2, u32::from(fits));
            }
        }
        let inexact = !remainder.is_zero();
        (quotient, inexact)
    }

    fn to_decimal(&self) -> Vec<u8> {
        let mut limbs = self.0.clone();
        let mut digits = Vec::new();
        while !limbs.is_empty() {
            let mut remainder = 0u64;
            for limb in limbs.iter_mut().rev() {
                let value = remainder << 32 | u64::from(*limb);
                *limb = (value / 1_000_000_000) as u32;
                remainder = value % 1_000_000_000;
            }
            while limbs.last() == Some(&0) {
                limbs.pop();
            }
            for _ in 0..9 {
                digits.push(b'0' + (remainder % 10) as u8);
                remainder /= 10;
            }
        }
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        digits.reverse();
        digits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(left: &str, right: &str) -> String {
        let sum =
            LongDouble::parse(left.as_bytes()).unwrap().plus(LongDouble::parse(right.as_bytes()).unwrap());
        String::from_utf8(sum.unwrap().to_text()).unwrap()
    }

    #[test]
    fn sums_print_as_long_doubles_do() {
        // From redis-server 7.2: SET k LEFT; INCRBYFLOAT k RIGHT.
        for (left, right, expected) in [
            ("3.0", "1.1", "4.1"),
            ("10.50", "0.1", "10.6"),
            ("5.0e3", "2.0e2", "5200"),
            ("0", "-0.25", "-0.25"),
            ("1", "-1", "0"),
            ("3.0", "1.000000000000000005", "4.00000000000000001"),
            ("17179869184", "1.5", "17179869185.5"),
        ] {
            assert_eq!(sum(left, right), expected, "{left} + {right}");
        }
    }

    #[test]
    fn refuses_what_is_no_number() {
        for text in ["", "abc", "1 ", " 1", "nan", "inf", "1e", "1e99999", ".", "-"] {
            assert_eq!(LongDouble::parse(text.as_bytes()), None, "{text:?}");
        }
    }
}
