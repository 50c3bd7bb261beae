//! RESP, the Redis serialization protocol, from the server's side: requests in, replies out.
//!
//! Requests are parsed by hand, because they come from strangers: incrementally, without copying, within limits and
//! without recursion. Replies are appended to a buffer in the protocol version the connection speaks; no tree of reply
//! values is built.

pub mod arguments;
pub mod decoder;
pub mod reply;
