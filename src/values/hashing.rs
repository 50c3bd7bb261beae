//! The keyed hash of every table: SipHash-1-3 under one key per process.
//!
//! A cluster draws the key once, so that hash order (and with it a scan cursor) is equal on all of
//! its nodes and survives a move. The key must be set before the first hash is taken; whoever hashes
//! first without a key fixes the default one, and a later attempt to set another key fails instead
//! of splitting the tables in two.

use std::sync::OnceLock;

use siphasher::sip::SipHasher13;

/// The key of a process that never set one: tests, tools.
const KEY_DEFAULT: u128 = 0x5374_6172_6c69_6e67_2074_6162_6c65_2031;

static HASHER: OnceLock<(u128, SipHasher13)> = OnceLock::new();

/// A key was already in use when another one was set. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashKeyInUse;

impl std::fmt::Display for HashKeyInUse {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("tables are already hashed under another key")
    }
}

impl std::error::Error for HashKeyInUse {}

/// Sets the process-wide key of `table_hash`; call once, before any table exists. Setting the key
/// in use again is allowed.
pub fn set_hash_key(key: u128) -> Result<(), HashKeyInUse> {
    if HASHER.get_or_init(|| (key, hasher(key))).0 == key { Ok(()) } else { Err(HashKeyInUse) }
}

/// The hash of a key, field or member: all 64 bits are usable.
#[inline]
pub fn table_hash(bytes: &[u8]) -> u64 {
    HASHER.get_or_init(|| (KEY_DEFAULT, hasher(KEY_DEFAULT))).1.hash(bytes)
}

/// A bijective mix of 64 bits (the finaliser of splitmix64): turns one random number into a sequence.
#[inline]
pub(crate) fn mix(seed: u64) -> u64 {
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A number below `bound` (which is not 0) from a random one: multiply and take the high half.
#[inline]
pub(crate) fn below(random: u64, bound: usize) -> usize {
    ((u128::from(random) * bound as u128) >> 64) as usize
}

fn hasher(key: u128) -> SipHasher13 {
    SipHasher13::new_with_keys(key as u64, (key >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_key_is_refused_once_one_is_in_use() {
        let first = table_hash(b"starling");
        assert_eq!(set_hash_key(KEY_DEFAULT), Ok(()));
        assert_eq!(set_hash_key(7), Err(HashKeyInUse));
        assert_eq!(table_hash(b"starling"), first);
    }
}
