//! What workers and control share: a configuration in force, with its sockets, servers, queues and
//! counts. Whoever reads it holds an `Arc`; what changes in it is behind atomics and short locks.

pub(crate) mod counts;
pub(crate) mod error;
pub(crate) mod gate;
pub(crate) mod listener;
pub(crate) mod pool;
pub(crate) mod queue;
pub(crate) mod resolve;
pub(crate) mod server;
pub(crate) mod site;
pub(crate) mod sockets;
pub(crate) mod tcp_options;
