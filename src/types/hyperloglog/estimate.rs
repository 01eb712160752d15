//! From registers to a cardinality.
//!
//! Source: Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017), algorithm 6.
//! The operations come in Redis's order, so that the last bit agrees.

use super::{INDEX_BITS, REGISTERS};

/// The largest value that a hash can ask for.
const MAX_VALUE: usize = (64 - INDEX_BITS + 1) as usize;

/// How many registers have each value.
pub(super) struct Histogram([u64; 64]);

impl Default for Histogram {
    fn default() -> Self {
        Self([0; 64])
    }
}

impl Histogram {
    pub(super) fn add(&mut self, value: u8, times: u64) {
        self.0[usize::from(value) % 64] += times;
    }
}

impl Histogram {
    /// Counts registers, most of which have one of a few values: in several rows in turn, so that no count waits for the one
    /// before it.
    pub(super) fn of(registers: &[u8]) -> Self {
        const ROWS: usize = 8;
        let mut rows = [[0_u32; 64]; ROWS];
        let (chunks, rest) = registers.as_chunks::<ROWS>();
        for chunk in chunks {
            if *chunk == [0; ROWS] {
                rows[0][0] += ROWS as u32;
                continue;
            }
            for (row, value) in rows.iter_mut().zip(chunk) {
                row[usize::from(*value) % 64] += 1;
            }
        }
        let mut histogram = Self::default();
        for (value, sum) in histogram.0.iter_mut().enumerate() {
            *sum = rows.iter().map(|row| u64::from(row[value])).sum();
        }
        rest.iter().for_each(|value| histogram.add(*value, 1));
        histogram
    }
}

/// The estimate.
pub(super) fn cardinality(Histogram(histogram): &Histogram) -> u64 {
    let m = REGISTERS as f64;
    let mut z = m * tau((m - histogram[MAX_VALUE] as f64) / m);
    for value in (1..MAX_VALUE).rev() {
        z = (z + histogram[value] as f64) * 0.5;
    }
    z += m * sigma(histogram[0] as f64 / m);
    let estimate = (0.5 / std::f64::consts::LN_2 * m * m / z).round();
    // No hash leads there, but stored bytes may: what the conversion gives on the machines Redis runs on.
    if estimate.is_finite() { estimate as u64 } else { 1 << 63 }
}

fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let previous = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if previous == z {
            return z / 3.0;
        }
    }
}

fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let previous = z;
        z += x * y;
        y += y;
        if previous == z {
            return z;
        }
    }
}
