//! A full queue of real-time signals: the kernel falls back to SIGIO, whose default action ends
//! the process. A program of its own, because the limit holds for the whole process.
#![cfg(feature = "tokio")]
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use common::{TestFile, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use zhaul::Lease;

#[test]
fn breaks_are_noticed_although_no_signal_can_be_queued() {
    let files: Vec<_> = (0..20).map(|n| TestFile::with(&[n])).collect();
    let leases: Vec<_> = files
        .iter()
        .map(|file| Lease::acquire(file.open()).unwrap())
        .collect();
    let limit = getrlimit(Resource::Sigpending);
    setrlimit(
        Resource::Sigpending,
        Rlimit {
            current: Some(0),
            maximum: limit.maximum,
        },
    )
    .unwrap();
    for file in &files {
        let opened = OpenOptions::new()
            .write(true)
            .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
            .open(file.path());
        assert!(opened.is_err());
    }
    for (number, lease) in leases.iter().enumerate() {
        wait_until(&format!("lease {number} is broken"), || lease.is_broken());
    }
}
