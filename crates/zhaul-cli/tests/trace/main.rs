//! `zhaul trace` from outside: real programs are traced, and what is said of them is compared with
//! what they are known to do. Byte counts are compared exactly wherever the method promises it.
//!
//! [`verdicts`] is about what is found, [`attaching`] about how a trace begins and ends, [`refusals`]
//! about what cannot be traced, [`printing`] about the report.
//!
//! A test that lacks the program or the permission prints `SKIP name: reason`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests panic and print to report"
)]

mod support;

mod attaching;
mod printing;
mod refusals;
mod verdicts;
