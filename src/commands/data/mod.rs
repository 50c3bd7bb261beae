//! Commands on keys, a file per family. Each begins with its rows.
//!
//! A handler parses everything first, then touches keys through the keyspace it is given. It knows no socket, no
//! session, no cluster and no time but the keyspace's.

pub mod bitmap;
pub mod blocking;
pub mod cluster_scan;
pub mod dump;
pub mod expiry;
pub mod generic;
pub mod geo;
pub mod hash;
pub mod hyperloglog;
pub mod keyspace;
pub mod list;
mod popping;
pub mod random;
pub mod set;
pub mod sort;
pub mod sorted_set;
pub mod stream;
pub mod string;
