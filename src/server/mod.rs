//! The server: sockets in, commands through, replies out.

pub mod ahead;
mod blocking;
pub mod connection;
pub mod dispatch;
pub mod forwarding;
pub mod listener;
pub mod output;
mod routing;
pub mod socket;
mod timing;
pub mod worker;
