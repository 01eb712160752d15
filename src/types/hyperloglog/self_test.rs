//! The tests that `PFSELFTEST` runs on the server it is sent to.

use super::{HEADER, REGISTERS, add, count, create, dense, is_sparse, make_dense};

/// Elements that are added.
const ELEMENTS: u64 = 10_000_000;
const REGISTER_ROUNDS: u32 = 1000;

/// Writes and reads all registers with random values, then adds ten million elements to a dense and to a sparse
/// one and compares them and their error at each power of ten. Takes about a second.
///
/// # Errors
/// The text that Redis would reply.
pub fn self_test(seed: u64, max_sparse: usize) -> Result<(), String> {
    check_registers(seed, REGISTER_ROUNDS)?;
    check_estimates(seed, max_sparse, ELEMENTS)
}

pub(super) fn check_registers(seed: u64, rounds: u32) -> Result<(), String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut packed = vec![0; dense::LEN];
    let mut plain = vec![0; REGISTERS];
    for _ in 0..rounds {
        for (index, register) in plain.iter_mut().enumerate() {
            *register = random.u8(0..64);
            dense::set(&mut packed, index, *register);
        }
        for (index, want) in plain.iter().enumerate() {
            let value = dense::get(&packed, index);
            if value != *want {
                return Err(format!("TESTFAILED Register {index} should be {want} but is {value}"));
            }
        }
    }
    Ok(())
}

pub(super) fn check_estimates(seed: u64, max_sparse: usize, elements: u64) -> Result<(), String> {
    const BROKEN: &str = "TESTFAILED registers are missing";
    let standard_error = 1.04 / (REGISTERS as f64).sqrt();
    let (mut always_dense, mut other) = (create(), create());
    make_dense(&mut always_dense).map_err(|_| BROKEN)?;
    let mut checkpoint = 1;
    for number in 1..=elements {
        let element = (number ^ seed).to_le_bytes();
        add(&mut always_dense, &element, max_sparse).map_err(|_| BROKEN)?;
        add(&mut other, &element, max_sparse).map_err(|_| BROKEN)?;
        if number != checkpoint {
            continue;
        }
        if number < max_sparse as u64 / 2 && !is_sparse(&other) {
            return Err("TESTFAILED sparse encoding not used".into());
        }
        let estimate = count(&always_dense).map_err(|_| BROKEN)?;
        if count(&other) != Ok(estimate) {
            return Err("TESTFAILED dense/sparse disagree".into());
        }
        let error = checkpoint.abs_diff(estimate);
        // Six times the standard error, except where a single collision would be beyond.
        let allowed = if number == 10 { 1 } else { (standard_error * 6.0 * number as f64).ceil() as u64 };
        if error > allowed {
            return Err(format!("TESTFAILED Too big error. card:{checkpoint} abserr:{error}"));
        }
        checkpoint *= 10;
    }
    debug_assert!(always_dense.len() == HEADER + dense::LEN);
    Ok(())
}
