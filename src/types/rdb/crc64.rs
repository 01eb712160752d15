//! The checksum of payloads: CRC-64 with Jones's polynomial, reflected, beginning with 0.

const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9;

/// What each byte does to the sum; row `n` as if `n` zeros followed it.
static TABLE: [[u64; 256]; 8] = table();

const fn table() -> [[u64; 256]; 8] {
    let reflected = POLYNOMIAL.reverse_bits();
    let mut table = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let (mut sum, mut bit) = (byte as u64, 0);
        while bit < 8 {
            sum = if sum & 1 == 1 { sum >> 1 ^ reflected } else { sum >> 1 };
            bit += 1;
        }
        table[0][byte] = sum;
        byte += 1;
    }
    let mut row = 1;
    while row < 8 {
        let mut byte = 0;
        while byte < 256 {
            let before = table[row - 1][byte];
            table[row][byte] = before >> 8 ^ table[0][(before & 0xff) as usize];
            byte += 1;
        }
        row += 1;
    }
    table
}

/// The checksum of some bytes.
pub fn crc64(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let sum = words.iter().fold(0, |sum: u64, word| {
        let mixed = (sum ^ u64::from_le_bytes(*word)).to_le_bytes();
        (0..8).fold(0, |sum, at| sum ^ TABLE[7 - at][usize::from(mixed[at])])
    });
    rest.iter().fold(sum, |sum, byte| TABLE[0][usize::from(sum as u8 ^ byte)] ^ sum >> 8)
}

#[cfg(test)]
mod tests {
    use super::crc64;

    #[test]
    fn known_sums() {
        assert_eq!(crc64(b""), 0);
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let bitwise = |bytes: &[u8]| {
            bytes.iter().fold(0u64, |sum, byte| {
                (0..8).fold(sum ^ u64::from(*byte), |sum, _| {
                    if sum & 1 == 1 { sum >> 1 ^ super::POLYNOMIAL.reverse_bits() } else { sum >> 1 }
                })
            })
        };
        let bytes: Vec<u8> = (0..100u8).map(|byte| byte.wrapping_mul(37)).collect();
        (0..bytes.len()).for_each(|len| assert_eq!(crc64(&bytes[..len]), bitwise(&bytes[..len])));
    }
}
