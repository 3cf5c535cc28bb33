//! What the tests share: a server that ends with its test, a client that sees every byte, and a
//! directory of files with known ages.

pub(crate) mod client;
pub(crate) mod files;
pub(crate) mod fuse;
pub(crate) mod http;
pub(crate) mod process;
pub(crate) mod running;
pub(crate) mod server;

pub(crate) use client::Client;
pub(crate) use files::{Files, pattern};
pub(crate) use http::Response;
pub(crate) use server::{Serve, Server};

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// No single wait of a test is longer than this; it is generous because the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Says why a test does not apply here, and ends it.
macro_rules! skip {
    ($name:expr, $($why:tt)+) => {{
        zhaul_untested::skip($name, format_args!($($why)+));
        return;
    }};
}
pub(crate) use skip;

/// Looks again and again until `done` holds, and panics with `what` if it never does.
pub(crate) fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "did not happen in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Says that background threads may end, also when the test panics: a scope waits for them.
pub(crate) struct EndsOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for EndsOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether this user may do what only root may.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a program is installed.
pub(crate) fn has_program(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(name).is_file())
}
