//! HyperLogLog: how many distinct elements were seen, in at most 12 KiB, in the bytes that Redis stores.
//!
//! A header of 16 bytes: `HYLL`, encoding, three unused bytes, the cached cardinality (little-endian; its top bit says
//! that it is out of date). Then 16,384 registers, [`dense`] or [`sparse`]. The bytes develop exactly as in
//! Redis, so that `GET`, `DUMP` and replication show the same; what a client stored with `SET` is checked
//! only as far as Redis checks it, and nothing here trusts more than that.

mod dense;
mod estimate;
mod self_test;
mod sparse;

pub use self_test::self_test;

use estimate::{Histogram, cardinality};

/// Registers, and bits of the hash that choose one.
const REGISTERS: usize = 1 << INDEX_BITS;
const INDEX_BITS: u32 = 14;
const HEADER: usize = 16;
const ENCODING: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
const SEED: u64 = 0xadc8_3b19;

/// The bytes are no HyperLogLog, or a broken one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Invalid {
    /// The header is not one.
    NotOne,
    /// The registers are not all there.
    Corrupted,
}

/// All registers, decoded.
pub type Registers = [u8; REGISTERS];

/// An empty one, sparse.
pub fn create() -> Vec<u8> {
    let mut bytes = header(SPARSE);
    bytes.extend_from_slice(&sparse::EMPTY);
    bytes
}

fn header(encoding: u8) -> Vec<u8> {
    let mut bytes = b"HYLL".to_vec();
    bytes.resize(HEADER, 0);
    bytes[ENCODING] = encoding;
    bytes
}

/// Checks the header; the other functions expect bytes that pass.
///
/// # Errors
/// If it is none.
pub fn validate(bytes: &[u8]) -> Result<(), Invalid> {
    let valid = bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && bytes[ENCODING] <= SPARSE
        && (is_sparse(bytes) || bytes.len() == HEADER + dense::LEN);
    if valid { Ok(()) } else { Err(Invalid::NotOne) }
}

/// Whether it is sparse.
pub fn is_sparse(bytes: &[u8]) -> bool {
    bytes[ENCODING] == SPARSE
}

/// `MurmurHash64A` by Austin Appleby.
fn murmur(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 47)).wrapping_mul(M);
        hash = (hash ^ k).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 47)).wrapping_mul(M);
    hash ^ (hash >> 47)
}

/// The register an element belongs to, and the value it asks for: one more than the zeros that follow the
/// index in its hash, at most 51.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let rest = (hash >> INDEX_BITS) | (1 << (64 - INDEX_BITS));
    (hash as usize % REGISTERS, rest.trailing_zeros() as u8 + 1)
}

/// Adds an element; says whether a register changed, in which case the caller owes an [`invalidate`].
///
/// A sparse one that would become longer than `max_sparse` bytes becomes dense.
///
/// # Errors
/// If the registers are broken, as far as that is noticed.
pub fn add(bytes: &mut Vec<u8>, element: &[u8], max_sparse: usize) -> Result<bool, Invalid> {
    let (index, value) = place(element);
    raise(bytes, index, value, max_sparse)
}

/// Raises a register to a value, if it is lower.
fn raise(bytes: &mut Vec<u8>, index: usize, value: u8, max_sparse: usize) -> Result<bool, Invalid> {
    if is_sparse(bytes) {
        match sparse::raise(bytes, index, value, max_sparse)? {
            sparse::Raised::Changed => {
                invalidate(bytes);
                return Ok(true);
            }
            sparse::Raised::Unchanged => return Ok(false),
            sparse::Raised::DoesNotFit => make_dense(bytes)?,
        };
    }
    Ok(dense::raise(&mut bytes[HEADER..], index, value))
}

/// Changes the encoding from sparse to dense; says whether there was anything to change.
///
/// # Errors
/// If the registers are not all there; nothing changes then.
pub fn make_dense(bytes: &mut Vec<u8>) -> Result<bool, Invalid> {
    if !is_sparse(bytes) {
        return Ok(false);
    }
    let mut dense = Vec::with_capacity(HEADER + dense::LEN);
    dense.extend_from_slice(&bytes[..HEADER]);
    dense[ENCODING] = DENSE;
    dense.resize(HEADER + dense::LEN, 0);
    let registers = &mut dense[HEADER..];
    sparse::for_each_value(&bytes[HEADER..], |index, value| dense::set(registers, index, value))?;
    *bytes = dense;
    Ok(true)
}

/// Decodes all registers.
///
/// # Errors
/// If they are not all there.
pub fn registers(bytes: &[u8]) -> Result<Box<Registers>, Invalid> {
    let mut registers = Box::new([0; REGISTERS]);
    merge_from(&mut registers, bytes)?;
    Ok(registers)
}

/// Takes the larger of each two registers.
pub fn merge(into: &mut Registers, from: &Registers) {
    for (register, other) in into.iter_mut().zip(from) {
        *register = (*register).max(*other);
    }
}

/// The same for registers that are not decoded yet.
///
/// # Errors
/// If they are not all there; some may have been taken then.
pub fn merge_from(into: &mut Registers, bytes: &[u8]) -> Result<(), Invalid> {
    let encoded = &bytes[HEADER..];
    if is_sparse(bytes) {
        return sparse::for_each_value(encoded, |index, value| into[index] = into[index].max(value));
    }
    for (registers, packed) in into.as_chunks_mut::<4>().0.iter_mut().zip(dense::groups(encoded)) {
        for (register, value) in registers.iter_mut().zip(packed) {
            *register = (*register).max(value);
        }
    }
    Ok(())
}

/// Raises each register to the given one, as the last step of `PFMERGE`: what `bytes` hold must have been
/// merged into `registers` before. With `as_dense`, which Redis wants if any source is dense, it becomes dense first.
///
/// # Errors
/// If the registers are not all there.
pub fn store(
    bytes: &mut Vec<u8>,
    registers: &Registers,
    as_dense: bool,
    max_sparse: usize,
) -> Result<(), Invalid> {
    if as_dense {
        make_dense(bytes)?;
    }
    for (index, value) in registers.iter().enumerate().filter(|(_, value)| **value > 0) {
        raise(bytes, index, *value, max_sparse)?;
    }
    invalidate(bytes);
    Ok(())
}

/// The cached cardinality, if it is up to date.
pub fn cached(bytes: &[u8]) -> Option<u64> {
    let cached = u64::from_le_bytes(bytes.get(8..16)?.try_into().ok()?);
    (cached >> 63 == 0).then_some(cached)
}

/// Writes the cached cardinality.
pub fn set_cached(bytes: &mut [u8], cardinality: u64) {
    bytes[8..16].copy_from_slice(&cardinality.to_le_bytes());
}

/// Says that the cached cardinality is out of date.
pub fn invalidate(bytes: &mut [u8]) {
    bytes[15] |= 0x80;
}

/// The estimated number of elements, from the registers; the cache is not looked at.
///
/// # Errors
/// If the registers are not all there.
pub fn count(bytes: &[u8]) -> Result<u64, Invalid> {
    let mut histogram = Histogram::default();
    let encoded = &bytes[HEADER..];
    if is_sparse(bytes) {
        sparse::add_to(&mut histogram, encoded)?;
    } else {
        dense::groups(encoded).flatten().for_each(|value| histogram.add(value, 1));
    }
    Ok(cardinality(&histogram))
}

/// The estimated number of elements of decoded registers, as of a union.
pub fn estimate(registers: &Registers) -> u64 {
    cardinality(&Histogram::of(&registers[..]))
}

/// The runs of a sparse one in words: `Z:` and `z:` for zeros in two bytes or one with their number, `v:` for a
/// value and how many times. `None` if it is dense.
pub fn describe(bytes: &[u8]) -> Option<String> {
    is_sparse(bytes).then(|| sparse::describe(&bytes[HEADER..]))
}

#[cfg(test)]
mod tests;
