//! When a value leaves its packed form: Redis 7.2's thresholds, under their directives' names.

/// Thresholds of all encodings. Passed to whatever may grow; a value that is already large stays so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// `hash-max-listpack-entries`: fields of a packed hash.
    pub hash_max_listpack_entries: usize,
    /// `hash-max-listpack-value`: bytes of a field or value in a packed hash.
    pub hash_max_listpack_value: usize,
    /// `hll-sparse-max-bytes`: bytes of a sparse HyperLogLog.
    pub hll_sparse_max_bytes: usize,
    /// `list-max-listpack-size`: elements of a list chunk, or its bytes by class: -1 is 4 KiB, -2 is 8, to -5, 64.
    pub list_max_listpack_size: i32,
    /// Bytes from which an element of a list has a chunk of its own, whatever the chunks' limit is. No directive: DEBUG
    /// QUICKLIST-PACKED-THRESHOLD.
    pub list_lone_element_bytes: usize,
    /// `set-max-intset-entries`: members of a set of integers.
    pub set_max_intset_entries: usize,
    /// `set-max-listpack-entries`: members of a packed set.
    pub set_max_listpack_entries: usize,
    /// `set-max-listpack-value`: bytes of a member of a packed set.
    pub set_max_listpack_value: usize,
    /// `zset-max-listpack-entries`: members of a packed sorted set.
    pub zset_max_listpack_entries: usize,
    /// `zset-max-listpack-value`: bytes of a member of a packed sorted set.
    pub zset_max_listpack_value: usize,
    /// `stream-node-max-bytes`: bytes of a node of a stream, about; 0: no limit.
    pub stream_node_max_bytes: usize,
    /// `stream-node-max-entries`: entries of a node of a stream; 0: no limit.
    pub stream_node_max_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hash_max_listpack_entries: 512,
            hash_max_listpack_value: 64,
            hll_sparse_max_bytes: 3000,
            list_max_listpack_size: -2,
            list_lone_element_bytes: usize::MAX,
            set_max_intset_entries: 512,
            set_max_listpack_entries: 128,
            set_max_listpack_value: 64,
            zset_max_listpack_entries: 128,
            zset_max_listpack_value: 64,
            stream_node_max_bytes: 4096,
            stream_node_max_entries: 100,
        }
    }
}
