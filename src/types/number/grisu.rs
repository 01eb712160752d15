//! Decimal digits of a double by the Grisu2 algorithm.
//!
//! Any shortest-digits algorithm would serve, but Redis 7.2 prints what Grisu2 finds, and that is in
//! about one case of a thousand a digit longer than the shortest or not the nearest of the shortest.
//! To answer the same bytes the same algorithm is needed, with the same table of powers.
//!
//! Source: Florian Loitsch, "Printing Floating-Point Numbers Quickly and Accurately with Integers",
//! PLDI 2010, section 5.

/// `0.d₁d₂…dₙ`-style digits: the value is the integer they spell times `10^exponent`.
pub(super) struct Digits {
    bytes: [u8; 18],
    len: usize,
    pub(super) exponent: i32,
}

impl Digits {
    /// The ASCII digits, the first of them not zero.
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    fn push(&mut self, digit: u32) {
        self.bytes[self.len] = b'0' + digit as u8;
        self.len += 1;
    }
}

const FIRST_POWER: i32 = -348;
const POWER_STEP: i32 = 8;
const POWERS: usize = 87;

/// Significands of `10^(FIRST_POWER + POWER_STEP·i)`, 64 bits with the highest set, nearest.
static POWERS_OF_TEN: [u64; POWERS] = powers_of_ten();

/// The binary exponent that goes with an entry of [`POWERS_OF_TEN`].
fn binary_exponent(power: i32) -> i32 {
    // 217706 / 2^16 is log2(10), good enough for every power in the table.
    ((power * 217_706) >> 16) - 63
}

/// Builds the table from a 1152-bit number that starts as a power of two and is divided or multiplied
/// by powers of five: the powers of two in ten only move the binary point.
const fn powers_of_ten() -> [u64; POWERS] {
    const LIMBS: usize = 36;
    let mut table = [0; POWERS];
    // Upwards from 10^-4 the number is exact; downwards each quotient is the exact floor.
    let start = ((-FIRST_POWER) / POWER_STEP) as usize;
    let mut up = [0u32; LIMBS];
    up[0] = 1;
    let mut i = start + 1;
    multiply(&mut up, 625);
    while i < POWERS {
        table[i] = top_bits(&up);
        multiply(&mut up, 390_625);
        i += 1;
    }
    let mut down = [0u32; LIMBS];
    down[LIMBS - 1] = 1 << 31;
    divide(&mut down, 625);
    let mut i = start + 1;
    while i > 0 {
        i -= 1;
        table[i] = top_bits(&down);
        divide(&mut down, 390_625);
    }
    table
}

const fn multiply(limbs: &mut [u32], factor: u32) {
    let mut carry: u64 = 0;
    let mut i = 0;
    while i < limbs.len() {
        let t = limbs[i] as u64 * factor as u64 + carry;
        limbs[i] = t as u32;
        carry = t >> 32;
        i += 1;
    }
}

const fn divide(limbs: &mut [u32], divisor: u32) {
    let mut rest: u64 = 0;
    let mut i = limbs.len();
    while i > 0 {
        i -= 1;
        let t = rest << 32 | limbs[i] as u64;
        limbs[i] = (t / divisor as u64) as u32;
        rest = t % divisor as u64;
    }
}

/// The 64 highest bits, rounded by the next one (a tie would need a power that is exact in 65 bits;
/// there is none in the table).
const fn top_bits(limbs: &[u32]) -> u64 {
    let mut highest = limbs.len() - 1;
    while limbs[highest] == 0 {
        highest -= 1;
    }
    let mut window: u128 = 0;
    let mut i = 0;
    while i < 4 {
        let limb = if highest >= i { limbs[highest - i] } else { 0 };
        window = window << 32 | limb as u128;
        i += 1;
    }
    window <<= window.leading_zeros();
    (window >> 64) as u64 + ((window >> 63) & 1) as u64
}

/// A table entry that brings a significand with binary exponent `exponent` (after a 64-bit product)
/// into the range -60..=-32, so that the integral part fits 32 bits. Returns its index.
fn power_for(exponent: i32) -> usize {
    let approximate = (-(exponent + POWERS as i32)) as f64 * std::f64::consts::LOG10_2;
    let mut index = (approximate as i32 - FIRST_POWER) / POWER_STEP;
    loop {
        let reached = exponent + binary_exponent(FIRST_POWER + index * POWER_STEP) + 64;
        if reached < -60 {
            index += 1;
        } else if reached > -32 {
            index -= 1;
        } else {
            return index as usize;
        }
    }
}

/// The upper half of a 128-bit product, rounded.
fn multiply_high(a: u64, b: u64) -> u64 {
    ((u128::from(a) * u128::from(b) + (1 << 63)) >> 64) as u64
}

/// The digits of a positive finite double.
pub(super) fn shortest_digits(value: f64) -> Digits {
    const HIDDEN: u64 = 1 << 52;
    let bits = value.to_bits();
    let biased = (bits >> 52) as i32;
    let fraction = bits & (HIDDEN - 1);
    let (significand, exponent) =
        if biased == 0 { (fraction, -1074) } else { (fraction | HIDDEN, biased - 1075) };

    // Half way to the neighbours, all three scaled to the exponent of the upper bound.
    let upper = 2 * significand + 1;
    let shift = upper.leading_zeros();
    let upper_exponent = exponent - 1 - shift as i32;
    let upper = upper << shift;
    let lower = if significand == HIDDEN {
        (4 * significand - 1) << (shift - 1)
    } else {
        (2 * significand - 1) << shift
    };
    let middle = significand << (shift + 1);

    let index = power_for(upper_exponent);
    let power = POWERS_OF_TEN[index];
    let decimal_power = FIRST_POWER + index as i32 * POWER_STEP;
    let scaled_exponent = upper_exponent + binary_exponent(decimal_power) + 64;
    // One unit inwards each, because the products are not exact.
    let scaled_upper = multiply_high(upper, power) - 1;
    let scaled_lower = multiply_high(lower, power) + 1;
    let scaled = multiply_high(middle, power);
    generate(scaled, scaled_upper, scaled_upper - scaled_lower, -scaled_exponent as u32, -decimal_power)
}

/// Digits of `upper · 2^-point` until what is left is below `delta`, then drawn back towards `value`.
fn generate(value: u64, upper: u64, mut delta: u64, point: u32, exponent: i32) -> Digits {
    let mut out = Digits { bytes: [0; 18], len: 0, exponent };
    let below_point = (1u64 << point) - 1;
    let distance = upper - value;
    let mut integral = (upper >> point) as u32;
    let mut fraction = upper & below_point;

    let mut remaining = integral.checked_ilog10().map_or(0, |log| log as i32 + 1);
    let mut unit = 10u32.pow(remaining.saturating_sub(1).unsigned_abs());
    while remaining > 0 {
        out.push(integral / unit);
        integral %= unit;
        remaining -= 1;
        let rest = (u64::from(integral) << point) + fraction;
        if rest <= delta {
            out.exponent += remaining;
            draw_back(&mut out, delta, rest, u64::from(unit) << point, distance);
            return out;
        }
        unit /= 10;
    }

    let mut scale: u64 = 1;
    loop {
        fraction *= 10;
        delta *= 10;
        scale = scale.wrapping_mul(10);
        remaining -= 1;
        let digit = (fraction >> point) as u32;
        if digit != 0 || out.len > 0 {
            out.push(digit);
        }
        fraction &= below_point;
        if fraction < delta {
            out.exponent += remaining;
            draw_back(&mut out, delta, fraction, 1 << point, distance.wrapping_mul(scale));
            return out;
        }
    }
}

/// Lowers the last digit while that brings the number nearer to the value and keeps it in bounds.
fn draw_back(out: &mut Digits, delta: u64, mut rest: u64, unit: u64, distance: u64) {
    while rest < distance && delta - rest >= unit {
        let next = rest.wrapping_add(unit);
        if next >= distance && distance - rest <= next - distance {
            break;
        }
        out.bytes[out.len - 1] -= 1;
        rest = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn powers_are_the_nearest() {
        // 10^-348, 10^-12, 10^-4, 10^4, 10^20, 10^340 to 64 bits, computed apart.
        let known = [
            (0, 18_054_884_314_459_144_840, -1220),
            (42, 10_141_204_801_825_835_212, -103),
            (43, 15_111_572_745_182_864_684, -77),
            (44, 11_258_999_068_426_240_000, -50),
            (46, 12_500_000_000_000_000_000, 3),
            (86, 12_648_080_533_535_911_531, 1066),
        ];
        for (i, significand, exponent) in known {
            assert_eq!(POWERS_OF_TEN[i], significand, "{i}");
            assert_eq!(binary_exponent(FIRST_POWER + i as i32 * POWER_STEP), exponent, "{i}");
        }
    }

    proptest! {
        #[test]
        fn digits_read_back(bits in 1u64..0x7ff0_0000_0000_0000) {
            let v = f64::from_bits(bits);
            let d = shortest_digits(v);
            let digits = std::str::from_utf8(d.as_bytes()).unwrap();
            prop_assert!(digits.len() <= 17 && !digits.starts_with('0'));
            let text = format!("{digits}e{}", d.exponent);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits, "{}", text);
        }
    }
}
