//! The checksum of payloads and files: CRC64 with Redis's polynomial (Jones).

use crc_fast::{CrcAlgorithm, checksum};

/// The checksum of some bytes.
pub fn of(bytes: &[u8]) -> u64 {
    checksum(CrcAlgorithm::Crc64Redis, bytes)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_redis() {
        // What DEBUG SELFTEST of Redis compares with.
        assert_eq!(super::of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(super::of(b""), 0);
    }
}
