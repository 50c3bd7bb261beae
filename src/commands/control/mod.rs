//! Commands on the session and the node, a file per family. Each begins with its rows.

pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod connection;
pub mod debug;
pub mod documentation;
pub mod hotkeys;
pub mod info;
pub mod latency;
pub mod memory;
pub mod migrate;
pub mod persistence;
pub mod pubsub;
pub mod server;
pub mod slowlog;
pub mod transaction;
