//! A connection's socket, and how messages look on it.

pub(crate) mod h1;
pub(crate) mod pace;
pub(crate) mod stream;
