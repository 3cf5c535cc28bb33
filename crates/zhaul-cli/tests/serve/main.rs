//! `zhaul serve` from outside: the binary is started, spoken to over real sockets, and its answers
//! are compared with the files byte by byte.
//!
//! One binary, because each integration test file is a link step of its own. The modules follow the
//! promises: what is spoken ([`protocol`], [`refusals`], [`bodies`]), what is sent ([`conditional`],
//! [`ranges`], [`codings`], [`directories`], [`fields`]), what is never sent ([`confinement`],
//! [`freshness`], [`changing`], [`short_files`]), what clients may take ([`limits`], [`exhaustion`],
//! [`soak`]), what is waited for and by whom ([`promptness`], [`remote`], [`write_lease`]), and what is
//! told to the operator ([`access_log`], [`shutdown`], [`startup`]).
//!
//! Each test has a directory and a server of its own, on a port that the kernel chose, so that all
//! run in parallel. A test that lacks what it needs prints `SKIP name: reason`.
#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "tests panic and print to report"
)]

#[path = "../../../zhaul/tests/common/metadata.rs"]
mod metadata;
mod support;

mod access_log;
mod bodies;
mod changing;
mod clients;
mod closing;
mod codings;
mod conditional;
mod confinement;
mod directories;
mod disk_error;
mod error_pages;
mod exhaustion;
mod fields;
mod freshness;
mod limits;
mod moved_root;
mod promptness;
mod protocol;
mod ranges;
mod refusals;
mod remote;
mod short_files;
mod shutdown;
mod soak;
mod startup;
mod system_calls;
mod unix_socket;
mod write_lease;
