//! Relays between real sockets, by each driver and for each mixture of TCP and UNIX sockets.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../common/mod.rs"]
mod common;

mod ends;
mod exact;
mod limits;
mod pressure;
mod quiet;
mod random;
mod stand;
mod stopping;
mod urgent;
