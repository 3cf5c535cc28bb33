//! The access log: what is kept of a request, how a line looks, and a worker's lines.

pub mod access_log;
pub(crate) mod lines;
pub(crate) mod record;
