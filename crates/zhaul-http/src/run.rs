//! Connections and those who attend to them: accepting, the event loop, sending, start and stop.

pub(crate) mod accept;
pub(crate) mod account;
pub(crate) mod admission;
pub(crate) mod allowance;
pub(crate) mod answer;
pub(crate) mod attend;
pub(crate) mod connection;
pub(crate) mod connections;
pub(crate) mod door;
pub(crate) mod drain;
pub(crate) mod linger;
pub(crate) mod reactor;
pub(crate) mod reports;
pub(crate) mod requests;
pub(crate) mod rounds;
pub(crate) mod send;
pub(crate) mod server;
pub(crate) mod terms;
pub(crate) mod worker;
