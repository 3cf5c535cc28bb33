//! Real perf events of real threads and processes.
//!
//! What this kernel or user may not do is skipped, and said to be.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout)]

mod copies;
mod counter;
mod estimate;
mod meter;
mod ordinary_user;
mod process;
mod session;
mod worker;

use zhaul_measure::perf::{Error, Tracefs, Tracepoint};

/// The entry of system calls, unless this kernel or user has none.
fn sys_enter(test: &str) -> Option<Tracepoint> {
    Tracefs::find()
        .and_then(|tracefs| tracefs.tracepoint("raw_syscalls:sys_enter"))
        .inspect_err(|error| zhaul_untested::skip(test, error.with_remedy()))
        .ok()
}

/// What is not permitted is skipped; anything else is a failure.
fn permitted<T>(test: &str, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ (Error::NotPermitted { .. } | Error::LockedMemory)) => {
            zhaul_untested::skip(test, error.with_remedy());
            None
        }
        Err(error) => panic!("{}", error.with_remedy()),
    }
}

/// The number of `getppid(2)` on this architecture: a call that nothing else here makes.
const GETPPID: i64 = if cfg!(target_arch = "x86_64") {
    110
} else {
    173
};

fn getppid_only() -> String {
    format!("id == {GETPPID}")
}

fn own_tid() -> u32 {
    rustix::thread::gettid()
        .as_raw_nonzero()
        .get()
        .unsigned_abs()
}
