//! Whether a socket still refers to what was queued in it.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use zhaul_core::Errno;

#[cfg(feature = "tokio")]
use crate::async_io::pause;
use crate::errno::{errno_of, of_rustix};
use crate::lease::Lease;

/// True while bytes are queued that the peer's kernel has not acknowledged (`SIOCOUTQ`).
///
/// # Errors
/// ENOTTY if this is no socket; ECONNRESET, or what the socket says, if the connection is gone:
/// then the kernel dropped the queue, but the count of unacknowledged bytes stays as it was.
pub(crate) fn is_in_flight(socket: BorrowedFd<'_>) -> Result<bool, Errno> {
    match zhaul_sys::siocoutq::unacknowledged(socket) {
        Ok(0) => return Ok(false),
        Ok(_) => {}
        Err(error) => return Err(errno_of(&error)),
    }
    // A closed connection has no peer any more. poll says POLLHUP already when both directions
    // are shut down and bytes are still on their way.
    match rustix::net::getpeername(socket) {
        Err(rustix::io::Errno::NOTCONN) => Err(reason(socket)),
        _ => Ok(true),
    }
}

fn reason(socket: BorrowedFd<'_>) -> Errno {
    match rustix::net::sockopt::socket_error(socket) {
        Ok(Err(errno)) => of_rustix(errno),
        _ => Errno::ECONNRESET,
    }
}

/// How long to wait for pages in flight. Without anybody waiting for the lease, as long as it
/// takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience<'a> {
    lease: Option<&'a Lease>,
    began: Instant,
    limited: bool,
}

impl<'a> Patience<'a> {
    /// From now on; a transfer that has failed already waits for [`LONGEST`] at most.
    pub(crate) fn new(lease: Option<&'a Lease>, has_failed: bool) -> Self {
        Self {
            lease,
            began: Instant::now(),
            limited: has_failed,
        }
    }

    /// When it ends, as far as is known now.
    pub(crate) fn ends_at(&self) -> Option<Instant> {
        let by_failure = self.limited.then(|| self.began + LONGEST);
        let by_break = self
            .lease
            .and_then(Lease::broken_at)
            .map(|at| at + before_it_is_taken());
        match (by_failure, by_break) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.ends_at().is_some_and(|end| Instant::now() >= end)
    }

    /// Waits until it is over.
    #[cfg(feature = "tokio")]
    pub(crate) async fn over(self) {
        loop {
            match (self.ends_at(), self.lease) {
                (Some(end), _) if Instant::now() >= end => return,
                (Some(end), Some(lease)) if !lease.is_broken() => tokio::select! {
                    () = pause(end.saturating_duration_since(Instant::now())) => {}
                    () = lease.broken() => {}
                },
                (Some(end), _) => pause(end.saturating_duration_since(Instant::now())).await,
                (None, Some(lease)) => lease.broken().await,
                (None, None) => std::future::pending().await,
            }
        }
    }
}

/// A part of the time after which the kernel takes a broken lease away
/// (`/proc/sys/fs/lease-break-time`, 45 s by default; with 0 it never does).
fn before_it_is_taken() -> Duration {
    let seconds = std::fs::read_to_string("/proc/sys/fs/lease-break-time")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match seconds {
        Some(0) => LONGEST,
        Some(seconds) => (Duration::from_secs(seconds) * 3 / 4).min(LONGEST),
        None => LONGEST.min(Duration::from_secs(1)),
    }
}

/// An editor is not kept waiting for longer.
const LONGEST: Duration = Duration::from_secs(10);

#[cfg(test)]
#[cfg(feature = "tokio")]
#[path = "in_flight_tests.rs"]
mod tests;
