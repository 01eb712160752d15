//! `math.random` as Redis has it: the 48-bit generator of `drand48`, so that a seed gives the same numbers everywhere.

use super::machine::shared;
use super::stack::{Raise, Stack};

const MULTIPLIER: u64 = 0x5_DEEC_E66D;
const INCREMENT: u64 = 0xB;
const MASK: u64 = (1 << 48) - 1;
const RANGE: u64 = i32::MAX as u64;

/// The generator's state.
pub struct Random(u64);

impl Default for Random {
    fn default() -> Self {
        // Machines on several threads must not draw the same numbers.
        Self(fastrand::u64(..) & MASK)
    }
}

impl Random {
    fn seed(&mut self, seed: i32) {
        self.0 = (u64::from(seed as u32) << 16) | 0x330E;
    }

    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT) & MASK;
        ((self.0 >> 17) % RANGE) as f64 / RANGE as f64
    }
}

/// `math.random`
pub(super) fn random(stack: &mut Stack) -> Result<usize, Raise> {
    let part = shared(stack).random.next();
    let bound = |index| stack.check_number(index, "random").map(|number| number as i32);
    let result = match stack.len() {
        0 => part,
        1 => {
            let upper = bound(1)?;
            if upper < 1 {
                return Err(Stack::bad_argument(1, "random", "interval is empty"));
            }
            (part * f64::from(upper)).floor() + 1.0
        }
        2 => {
            let (lower, upper) = (bound(1)?, bound(2)?);
            if lower > upper {
                return Err(Stack::bad_argument(2, "random", "interval is empty"));
            }
            (part * f64::from(upper.wrapping_sub(lower).wrapping_add(1))).floor() + f64::from(lower)
        }
        _ => return Err("wrong number of arguments".into()),
    };
    stack.push_number(result);
    Ok(1)
}

/// `math.randomseed`
pub(super) fn random_seed(stack: &mut Stack) -> Result<usize, Raise> {
    let seed = stack.check_number(1, "randomseed")?;
    shared(stack).random.seed(seed as i64 as i32);
    Ok(0)
}
