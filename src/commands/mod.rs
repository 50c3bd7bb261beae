//! The commands: rows of data and the functions that execute them.
//!
//! `data` handlers see keys only and do not know that there are sockets or a cluster; `control` handlers see their
//! session and the node's services.

pub mod context;
pub mod control;
pub mod data;
pub mod error;
pub mod execution;
pub mod help;
pub mod parse;
pub mod replay;
pub mod session;
pub mod spec;
pub mod table;

pub use crate::services::REDIS_VERSION;
