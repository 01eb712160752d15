//! HyperLogLog, in the bytes that Redis stores and with its estimator.
//!
//! Header of 16 bytes: `HYLL`, encoding, three zeros, the cached cardinality (little-endian; its top bit says that it is
//! out of date). Then 16,384 registers of 6 bits: dense, one behind the other; or sparse, as runs:
//! `00xxxxxx` zeros (1–64), `01xxxxxx yyyyyyyy` zeros (1–16384), `1vvvvvxx` value (1–32) times (1–4).

/// Registers, and bits of the hash that choose one.
const REGISTERS: usize = 16_384;
const INDEX_BITS: u32 = 14;
/// The largest value a register can have.
const MAX_RANK: u32 = 64 - INDEX_BITS + 1;
const HEADER: usize = 16;
const DENSE_LEN: usize = HEADER + REGISTERS * 6 / 8;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// The largest value that a sparse run can hold.
const MAX_SPARSE: u8 = 32;
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
    encode_sparse(&[(0, REGISTERS)], &mut bytes);
    bytes
}

fn header(encoding: u8) -> Vec<u8> {
    let mut bytes = b"HYLL".to_vec();
    bytes.extend_from_slice(&[encoding, 0, 0, 0]);
    bytes.extend_from_slice(&[0; 8]);
    bytes
}

/// Checks the header.
///
/// # Errors
/// If it is none.
pub fn validate(bytes: &[u8]) -> Result<(), Invalid> {
    let valid = bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && bytes[4] <= SPARSE
        && (bytes[4] != DENSE || bytes.len() == DENSE_LEN);
    if valid { Ok(()) } else { Err(Invalid::NotOne) }
}

/// Whether it is sparse; the header is valid.
pub fn is_sparse(bytes: &[u8]) -> bool {
    bytes[4] == SPARSE
}

/// MurmurHash2, 64 bits (Austin Appleby's `MurmurHash64A`).
fn murmur(bytes: &[u8]) -> u64 {
    const M: u64 = 0xc6a4_a793_5bd1_e995;
    let mut hash = SEED ^ (bytes.len() as u64).wrapping_mul(M);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut k = u64::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ k >> 47).wrapping_mul(M);
        hash = (hash ^ k).wrapping_mul(M);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(M);
    }
    hash = (hash ^ hash >> 47).wrapping_mul(M);
    hash ^ hash >> 47
}

/// The register an element belongs to, and the value it asks for.
fn place(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element);
    let rest = hash >> INDEX_BITS | 1 << (64 - INDEX_BITS);
    ((hash & (REGISTERS as u64 - 1)) as usize, rest.trailing_zeros() as u8 + 1)
}

/// Adds an element; says whether a register changed.
///
/// # Errors
/// If the registers are broken.
pub fn add(bytes: &mut Vec<u8>, element: &[u8], max_sparse: usize) -> Result<bool, Invalid> {
    let (index, value) = place(element);
    if !is_sparse(bytes) {
        let changed = dense_get(bytes, index) < value;
        if changed {
            dense_set(bytes, index, value);
        }
        return Ok(changed);
    }
    let mut runs = decode_sparse(&bytes[HEADER..])?;
    let (mut start, mut run) = (0, 0);
    while start + runs[run].1 <= index {
        start += runs[run].1;
        run += 1;
    }
    let (old, len) = runs[run];
    if old >= value {
        return Ok(false);
    }
    let pieces = [(old, index - start), (value, 1), (old, start + len - index - 1)];
    runs.splice(run..=run, pieces.into_iter().filter(|piece| piece.1 > 0));
    let mut encoded = bytes[..HEADER].to_vec();
    encode_sparse(&runs, &mut encoded);
    if value > MAX_SPARSE || encoded.len() > max_sparse {
        let registers = registers(bytes)?;
        *bytes = dense(&registers);
        dense_set(bytes, index, value);
    } else {
        *bytes = encoded;
    }
    Ok(true)
}

/// Runs of equal values with their lengths.
type Runs = Vec<(u8, usize)>;

fn decode_sparse(bytes: &[u8]) -> Result<Runs, Invalid> {
    let (mut runs, mut total, mut at) = (Runs::new(), 0, 0);
    while at < bytes.len() {
        let byte = bytes[at];
        let (value, len) = match byte {
            0x00..=0x3f => (0, (byte & 0x3f) as usize + 1),
            0x40..=0x7f => {
                let low = *bytes.get(at + 1).ok_or(Invalid::Corrupted)?;
                at += 1;
                (0, (usize::from(byte & 0x3f) << 8 | usize::from(low)) + 1)
            }
            _ => ((byte >> 2 & 0x1f) + 1, (byte & 3) as usize + 1),
        };
        total += len;
        runs.push((value, len));
        at += 1;
    }
    if total == REGISTERS { Ok(runs) } else { Err(Invalid::Corrupted) }
}

fn encode_sparse(runs: &[(u8, usize)], bytes: &mut Vec<u8>) {
    let mut at = 0;
    while at < runs.len() {
        let value = runs[at].0;
        let mut len = 0;
        while at < runs.len() && runs[at].0 == value {
            len += runs[at].1;
            at += 1;
        }
        while len > 0 {
            let piece = len.min(if value == 0 { REGISTERS } else { 4 });
            match (value, piece) {
                (0, 1..=64) => bytes.push(piece as u8 - 1),
                (0, _) => bytes.extend_from_slice(&[0x40 | ((piece - 1) >> 8) as u8, (piece - 1) as u8]),
                _ => bytes.push(0x80 | (value - 1) << 2 | (piece as u8 - 1)),
            }
            len -= piece;
        }
    }
}

fn dense_get(bytes: &[u8], index: usize) -> u8 {
    let (byte, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    let next = bytes.get(byte + 1).copied().unwrap_or(0);
    ((u16::from(bytes[byte]) | u16::from(next) << 8) >> shift) as u8 & 63
}

fn dense_set(bytes: &mut [u8], index: usize, value: u8) {
    let (byte, shift) = (HEADER + index * 6 / 8, index * 6 % 8);
    bytes[byte] = bytes[byte] & !(63 << shift) | value << shift;
    if shift > 2 {
        let above = 8 - shift;
        bytes[byte + 1] = bytes[byte + 1] & !(63 >> above) | value >> above;
    }
}

/// A dense one with these registers.
pub fn dense(registers: &Registers) -> Vec<u8> {
    let mut bytes = header(DENSE);
    bytes.resize(DENSE_LEN, 0);
    for (index, value) in registers.iter().enumerate().filter(|(_, value)| **value > 0) {
        dense_set(&mut bytes, index, *value);
    }
    bytes
}

/// One with these registers: sparse if that fits into so many bytes, dense if not.
pub fn encode(registers: &Registers, max_sparse: usize) -> Vec<u8> {
    let runs: Runs = registers.iter().map(|value| (*value, 1)).collect();
    let mut sparse = header(SPARSE);
    if registers.iter().all(|value| *value <= MAX_SPARSE) {
        encode_sparse(&runs, &mut sparse);
        if sparse.len() <= max_sparse {
            return sparse;
        }
    }
    dense(registers)
}

/// Decodes all registers.
///
/// # Errors
/// If they are broken.
pub fn registers(bytes: &[u8]) -> Result<Box<Registers>, Invalid> {
    let mut registers = Box::new([0; REGISTERS]);
    if is_sparse(bytes) {
        let mut at = 0;
        for (value, len) in decode_sparse(&bytes[HEADER..])? {
            registers[at..at + len].fill(value);
            at += len;
        }
    } else {
        registers.iter_mut().enumerate().for_each(|(index, register)| *register = dense_get(bytes, index));
    }
    Ok(registers)
}

/// Takes the larger of each two registers.
pub fn merge(into: &mut Registers, from: &Registers) {
    for (register, other) in into.iter_mut().zip(from) {
        *register = (*register).max(*other);
    }
}

/// The cached cardinality, if it is up to date.
pub fn cached(bytes: &[u8]) -> Option<u64> {
    let card: [u8; 8] = bytes.get(8..16)?.try_into().ok()?;
    (card[7] & 0x80 == 0).then(|| u64::from_le_bytes(card))
}

/// Writes the cached cardinality.
pub fn set_cached(bytes: &mut [u8], cardinality: u64) {
    bytes[8..16].copy_from_slice(&cardinality.to_le_bytes());
}

/// Says that the cached cardinality is out of date.
pub fn invalidate(bytes: &mut [u8]) {
    bytes[15] |= 0x80;
}

/// The estimate of Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (2017).
pub fn estimate(registers: &Registers) -> u64 {
    let mut histogram = [0u32; 64];
    registers.iter().for_each(|value| histogram[(value & 63) as usize] += 1);
    let m = REGISTERS as f64;
    let mut z = m * tau((m - f64::from(histogram[MAX_RANK as usize])) / m);
    for value in (1..MAX_RANK as usize).rev() {
        z = (z + f64::from(histogram[value])) * 0.5;
    }
    z += m * sigma(f64::from(histogram[0]) / m);
    (0.5 / std::f64::consts::LN_2 * m * m / z).round() as u64
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
        z -= (1.0 - x).powi(2) * y;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_and_dense_agree() {
        let (mut sparse, mut dense_form) = (create(), dense(&registers(&create()).unwrap()));
        for number in 0..3000u32 {
            let element = number.to_string();
            let changed = add(&mut sparse, element.as_bytes(), 3000).unwrap();
            assert_eq!(add(&mut dense_form, element.as_bytes(), 3000).unwrap(), changed);
            assert!(!add(&mut sparse, element.as_bytes(), 3000).unwrap());
        }
        assert_eq!(registers(&sparse).unwrap(), registers(&dense_form).unwrap());
        let estimate = estimate(&registers(&sparse).unwrap());
        assert!((2900..3100).contains(&estimate), "{estimate}");
    }

    #[test]
    fn refuses_what_is_none() {
        assert_eq!(validate(b"HYLL"), Err(Invalid::NotOne));
        assert_eq!(validate(&[b"HYLL\x00".as_slice(), &[0; 20]].concat()), Err(Invalid::NotOne));
        let mut cut = create();
        cut.pop();
        assert_eq!(registers(&cut).unwrap_err(), Invalid::Corrupted);
        assert_eq!(add(&mut cut, b"x", 3000), Err(Invalid::Corrupted));
    }
}
