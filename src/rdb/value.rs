//! Values, as they are written behind their kind.

pub mod read;
mod stream;
#[cfg(test)]
mod tests;
pub mod write;
