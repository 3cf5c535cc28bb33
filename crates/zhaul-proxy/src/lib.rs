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
//!
//! Each part imports only from those before it: `config` (what a proxy is told), `pure` (what decides
//! and computes), `state` (what workers and control share), `worker` (the event loop), `control`
//! (everything that is not on the path of bytes), and on top of them starting, reloading and stopping.
#![forbid(unsafe_code)]

pub mod config;
mod control;
mod descriptors;
mod handle;
mod preflight;
mod proxy;
mod pure;
mod state;
mod worker;

pub use handle::Handle;
pub use proxy::Proxy;
pub use pure::{balance, client_hello, health, proxy_header};
pub use state::error::ProxyError;
