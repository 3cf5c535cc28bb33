//! The TCP proxy of zhaul: connections in, connections out, and payload that stays in the kernel.
//!
//! ```text
//! listener ─▶ worker ─▶ session: access ─▶ [PROXY header] ─▶ [ClientHello] ─▶ server ─▶ connect ─▶ relay
//! ```
//!
//! Workers are threads with an event loop each and no runtime; a session is an entry in a worker's
//! slab. Everything that is not on the path of bytes (checks of servers, names, metrics, the
//! administrator's socket, reloading) runs on one thread of its own and talks to the workers through
//! shared state.
#![forbid(unsafe_code)]

mod addresses;
pub mod balance;
pub mod client_hello;
pub mod config;
mod connect;
mod control;
mod counts;
mod departed;
mod gate;
pub mod health;
mod log;
mod mailbox;
mod opening;
mod pool;
mod proxy;
pub mod proxy_header;
mod server;
mod session;
mod site;
mod timers;
mod trial;
mod worker;

pub use proxy::{Handle, Proxy, ProxyError};
