//! Commands on the session and the node, a file per family. Each begins with its rows.

pub mod client;
pub mod config;
pub mod connection;
pub mod pubsub;
pub mod transaction;
