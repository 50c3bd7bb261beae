//! The checksum of payloads and files: CRC64 with Redis's polynomial (Jones).

use crc_fast::{CrcAlgorithm, Digest, checksum, checksum_combine};

const REDIS: CrcAlgorithm = CrcAlgorithm::Crc64Redis;

/// The checksum of some bytes.
pub fn of(bytes: &[u8]) -> u64 {
    checksum(REDIS, bytes)
}

/// A checksum of bytes that come in parts.
#[derive(Clone, Debug)]
pub struct Sum {
    digest: Digest,
    bytes: u64,
}

impl Default for Sum {
    fn default() -> Sum {
        Sum { digest: Digest::new(REDIS), bytes: 0 }
    }
}

impl Sum {
    /// The sum of some bytes.
    pub fn of(bytes: &[u8]) -> Sum {
        let mut sum = Sum::default();
        sum.add(bytes);
        sum
    }

    pub fn add(&mut self, bytes: &[u8]) {
        self.digest.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    pub fn finish(&self) -> u64 {
        self.digest.finalize()
    }

    /// The checksum of these bytes, and then of others.
    pub fn followed_by(&self, behind: &Sum) -> u64 {
        checksum_combine(REDIS, self.finish(), behind.finish(), behind.bytes)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_checksum_is_that_of_redis() {
        // What DEBUG SELFTEST of Redis compares with.
        assert_eq!(super::of(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
        assert_eq!(super::of(b""), 0);
    }

    #[test]
    fn what_comes_in_parts_has_the_same_checksum() {
        let bytes: Vec<u8> = (0..1000u32).map(|number| (number * 7) as u8).collect();
        for split in [0, 1, 9, 500, 1000] {
            let (front, behind) = bytes.split_at(split);
            let mut sum = super::Sum::of(front);
            assert_eq!(sum.followed_by(&super::Sum::of(behind)), super::of(&bytes), "split at {split}");
            sum.add(behind);
            assert_eq!(sum.finish(), super::of(&bytes), "split at {split}");
        }
    }
}
