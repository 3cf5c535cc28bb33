//! Pages of a leased source that the sink still refers to when a transfer ends.
//!
//! The lease keeps editors away from them, so the end is not reported before the sink let go; not
//! that of a failed transfer either, because whoever gets the error drops the lease.

use crate::errno::Errno;
use crate::error::Cause;
use crate::op::Operation;
use crate::summary::Ending;

use super::Transfer;

/// Whether the sink's references to the source are waited for before the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    NotWanted,
    Wanted,
    /// Then the transfer ends like this.
    Awaited(Result<Ending, Cause>),
    Released,
}

impl Transfer {
    /// Ends with an error, but not before the sink let go of leased pages, if that is waited for.
    /// Whoever cancels or sets a deadline does not wait.
    pub(super) fn end(&mut self, cause: Cause) {
        self.pending = None;
        self.blocked = None;
        let at_once = matches!(cause, Cause::Cancelled | Cause::DeadlineExceeded);
        if at_once || !self.must_await_release() {
            self.over = Some(Err(cause));
        } else {
            self.release = Release::Awaited(Err(cause));
        }
    }

    pub(super) fn must_await_release(&self) -> bool {
        self.release == Release::Wanted && self.is_in_flight()
    }

    /// Reports that the sink let go of the source's pages
    /// ([`Step::AwaitRelease`](crate::Step::AwaitRelease)). A driver that
    /// cannot wait any longer stops the transfer instead.
    pub fn released(&mut self) {
        let Release::Awaited(outcome) = self.release else {
            return;
        };
        self.release = Release::Released;
        match outcome {
            Ok(ending) => {
                self.finish(ending);
            }
            Err(cause) => self.over = Some(Err(cause)),
        }
    }

    /// Ends the transfer with an error of the driver's own (waiting, reading ahead). Pages in flight
    /// under a lease may have to be waited for first, as with [`stop`](Self::stop).
    pub fn fail(&mut self, operation: Operation, errno: Errno) {
        let cause = Cause::Io { operation, errno };
        let Release::Awaited(outcome) = self.release else {
            self.end(cause);
            return;
        };
        if errno.is_disconnect() {
            // The kernel dropped what was queued.
            self.release = Release::Released;
        }
        self.over = Some(Err(outcome.err().unwrap_or(cause)));
    }

    /// True if only the release of pages in flight is awaited before an error ends the transfer.
    pub const fn has_failed(&self) -> bool {
        matches!(self.release, Release::Awaited(Err(_)))
    }
}
