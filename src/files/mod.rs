//! Files that a server has left, looked at without one: explained, repaired, printed as commands.
//!
//! ```text
//!  kind      which file it is, by its first bytes, or by its name where those are damaged
//!  check     what is in it, and what is wrong     report   both as lines, and what could be cut off to make it whole
//!  print     what is in it, as commands           words    commands in the form that redis-cli takes
//! ```
//! Nothing is changed but by [`report::Repair::apply`], which keeps what was there beside it.

pub mod check;
pub mod kind;
pub mod print;
pub mod report;
pub mod transfer;
pub mod words;

mod contents;
mod effects;
mod log;
mod moment;
mod rdb;
mod redis_log;
mod segment;

pub use kind::Kind;
pub use report::Report;

#[cfg(test)]
mod tests;
