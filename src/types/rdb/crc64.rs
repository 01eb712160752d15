//! The checksum of payloads: CRC-64 with Jones's polynomial, reflected, beginning with 0.

use crc_fast::CrcAlgorithm::Crc64Redis;

/// The checksum of some bytes.
pub fn crc64(bytes: &[u8]) -> u64 {
    crc_fast::checksum(Crc64Redis, bytes)
}

#[cfg(test)]
mod tests {
    use super::crc64;

    const POLYNOMIAL: u64 = 0xad93_d235_94c9_35a9;

    #[test]
    fn known_sums() {
        assert_eq!(crc64(b""), 0);
        assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        let bitwise = |bytes: &[u8]| {
            bytes.iter().fold(0u64, |sum, byte| {
                (0..8).fold(sum ^ u64::from(*byte), |sum, _| {
                    if sum & 1 == 1 { sum >> 1 ^ POLYNOMIAL.reverse_bits() } else { sum >> 1 }
                })
            })
        };
        let bytes: Vec<u8> = (0..1100u16).map(|byte| byte.wrapping_mul(37) as u8).collect();
        (0..bytes.len()).for_each(|len| assert_eq!(crc64(&bytes[..len]), bitwise(&bytes[..len])));
    }
}
