//! Rounding a binary significand to a precision, half to even, with gradual underflow.
//!
//! Shared by the readers of hexadecimal floats and by the 80-bit arithmetic. Callers that drop bits
//! beforehand record it by setting the lowest bit of what they pass ("sticky"), which is exact as
//! long as at least two bits are below the precision.

/// Rounds `significand · 2^exponent` to `precision` bits (at most 64), the result's exponent being at
/// least `min_exponent`. Returns significand and exponent; the significand is not normalised.
pub(super) fn round_half_even(
    significand: u128,
    exponent: i32,
    precision: u32,
    min_exponent: i32,
) -> (u64, i32) {
    let bits = 128 - significand.leading_zeros();
    let surplus = bits as i32 - precision as i32;
    let shift = surplus.max(min_exponent - exponent);
    if shift <= 0 {
        return (significand as u64, exponent);
    }
    let rounded_exponent = exponent + shift;
    let shift = shift as u32;
    if shift > 128 {
        return (0, rounded_exponent);
    }
    let half = 1u128 << (shift - 1);
    let (kept, dropped) = match shift {
        128 => (0, significand),
        _ => (significand >> shift, significand & ((1 << shift) - 1)),
    };
    let up = dropped > half || (dropped == half && kept & 1 == 1);
    let kept = kept + u128::from(up);
    if kept >> precision != 0 {
        return ((kept >> 1) as u64, rounded_exponent + 1);
    }
    (kept as u64, rounded_exponent)
}

#[cfg(test)]
mod tests {
    use super::round_half_even;

    #[test]
    fn ties_go_to_even_and_carry() {
        assert_eq!(round_half_even(0b101, 0, 8, -100), (0b101, 0));
        assert_eq!(round_half_even(0b1011, 0, 3, -100), (0b110, 1));
        assert_eq!(round_half_even(0b1001, 0, 3, -100), (0b100, 1));
        assert_eq!(round_half_even(0b1111, 0, 3, -100), (0b100, 2));
        assert_eq!(round_half_even(u128::MAX, 0, 64, -100), (1 << 63, 65));
    }

    #[test]
    fn underflow_is_gradual() {
        assert_eq!(round_half_even(0b1100, -4, 64, -2), (0b11, -2));
        assert_eq!(round_half_even(1, -3, 64, -2), (0, -2));
        assert_eq!(round_half_even(3, -3, 64, -2), (2, -2));
        assert_eq!(round_half_even(u128::MAX, -128, 64, 0), (1, 0));
        assert_eq!(round_half_even(1 << 127, -128, 64, 0), (0, 0));
        assert_eq!(round_half_even(u128::MAX, -200, 64, 0), (0, 0));
    }
}
