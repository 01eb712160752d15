//! LZF, read only: Redis compresses strings of more than 20 bytes where that helps.

use super::Invalid;

/// The most bytes that one compressed byte stands for: three make a run of 264.
const MAX_RATIO: usize = 88;

/// The longest string that is taken.
const MAX_LEN: usize = 512 << 20;

/// Decompresses to exactly `len` bytes.
pub(super) fn decompress(mut input: &[u8], len: usize) -> Result<Vec<u8>, Invalid> {
    if len > input.len().saturating_mul(MAX_RATIO) || len > MAX_LEN {
        return Err(Invalid::Data);
    }
    let mut output = Vec::with_capacity(len);
    let mut next = |count: usize| {
        let (taken, rest) = input.split_at_checked(count).ok_or(Invalid::Data)?;
        input = rest;
        Ok(taken)
    };
    while output.len() < len {
        let control = usize::from(next(1)?[0]);
        if control < 32 {
            output.extend_from_slice(next(control + 1)?);
            continue;
        }
        let mut count = control >> 5;
        if count == 7 {
            count += usize::from(next(1)?[0]);
        }
        let distance = ((control & 31) << 8 | usize::from(next(1)?[0])) + 1;
        let start = output.len().checked_sub(distance).ok_or(Invalid::Data)?;
        if count + 2 > len - output.len() {
            return Err(Invalid::Data);
        }
        // What is copied may begin with what is being written.
        for at in start..start + count + 2 {
            output.push(output[at]);
        }
    }
    if output.len() == len { Ok(output) } else { Err(Invalid::Data) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_references() {
        // "ab", then 14 bytes from two before; "c" to end with.
        let input = [1, b'a', b'b', 7 << 5, 5, 1, 0, b'c'];
        assert_eq!(decompress(&input, 17).unwrap(), b"abababababababab\x63");
        assert_eq!(decompress(&input, 18), Err(Invalid::Data));
        assert_eq!(decompress(&input, 15), Err(Invalid::Data));
        assert_eq!(decompress(&[1, b'a'], 2), Err(Invalid::Data));
        assert_eq!(decompress(&[0, b'a', 1 << 5, 1], 4), Err(Invalid::Data), "before the beginning");
        assert_eq!(decompress(&[0], usize::MAX), Err(Invalid::Data));
        assert_eq!(decompress(&[], 0).unwrap(), b"");
    }
}
