//! `zhaul proxy` from outside: the binary is started between real clients and real servers, and what
//! arrives is compared with what was sent, byte by byte.
//!
//! One binary, because each integration test file is a link step of its own. The modules follow the
//! promises: what is relayed ([`relaying`], [`pressure`], [`soak`]), where it goes ([`choosing`],
//! [`headers`], [`hello`], [`health`], [`addresses`], [`namespace`]), who may come ([`limits`]), what
//! the operator can do ([`startup`], [`operating`]), and real programs ([`programs`]).
//!
//! Each test has servers and a proxy of its own, on ports that the kernel chose, so that all run in
//! parallel. A test that lacks what it needs prints `SKIP name: reason`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests panic and print to report"
)]

mod support;

mod addresses;
mod choosing;
mod headers;
mod health;
mod hello;
mod limits;
mod namespace;
mod operating;
mod pressure;
mod programs;
mod relaying;
mod soak;
mod startup;
