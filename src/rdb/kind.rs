//! The byte in front of a value that says how it is written. A number is never given twice, but for [`HASH_DEADLINES`].

pub const STRING: u8 = 0;
/// Elements, one by one.
pub const LIST: u8 = 1;
pub const SET: u8 = 2;
/// Scores as text.
pub const SORTED_SET_TEXT: u8 = 3;
pub const HASH: u8 = 4;
/// Scores as eight bytes.
pub const SORTED_SET: u8 = 5;
pub const HASH_ZIPMAP: u8 = 9;
pub const LIST_ZIPLIST: u8 = 10;
pub const SET_INTSET: u8 = 11;
pub const SORTED_SET_ZIPLIST: u8 = 12;
pub const HASH_ZIPLIST: u8 = 13;
/// Ziplists, one by one.
pub const LIST_QUICKLIST: u8 = 14;
/// Of Redis 5 and 6.
pub const STREAM_5: u8 = 15;
pub const HASH_LISTPACK: u8 = 16;
pub const SORTED_SET_LISTPACK: u8 = 17;
/// Listpacks, and elements by themselves.
pub const LIST_QUICKLIST_2: u8 = 18;
/// Of Redis 7.0.
pub const STREAM: u8 = 19;
pub const SET_LISTPACK: u8 = 20;
/// Consumers have another time, of Redis 7.2 and Valkey.
pub const STREAM_7_2: u8 = 21;
/// A hash whose fields have deadlines. Redis 7.4's release candidates wrote it in one way, and Valkey 9 writes it in
/// another.
pub const HASH_DEADLINES: u8 = 22;
/// The same in a listpack, of the release candidates.
pub const HASH_LISTPACK_DEADLINES_EARLY: u8 = 23;
/// A hash whose fields have deadlines, of Redis 7.4 and later: the earliest one in front.
pub const HASH_DEADLINES_FROM: u8 = 24;
pub const HASH_LISTPACK_DEADLINES: u8 = 25;
