//! `zhaul doctor` from outside: the binary is run on file systems, limits and filters that the tests
//! make, and what it says is compared with what /proc, the file systems and other programs say.
//!
//! The modules follow the promises: how it ends and what it prints ([`running`], [`screen`],
//! [`json`]), what it leaves ([`leftovers`]), and whether its findings are true ([`files`],
//! [`filters`], [`network`], [`limits`], [`privilege`]).
//!
//! A test that lacks what it needs prints `SKIP name: reason`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests panic and print to report"
)]

mod support;

mod files;
mod filters;
mod json;
mod leftovers;
mod limits;
mod network;
mod privilege;
mod running;
mod screen;
