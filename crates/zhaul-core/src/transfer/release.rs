//! Pages of a leased source that the sink still refers to when a transfer ends.
//!
//! The lease keeps editors away from them, so the end is not reported before the sink let go; not
//! that of a failed transfer either, because whoever gets the error drops the lease.

use crate::errno::Errno;
use crate::error::{Cause, TransferError};
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
    pub(super) fn end(&mut self, cause: Cause) -> Result<(), TransferError> {
        let at_once = matches!(cause, Cause::Cancelled | Cause::DeadlineExceeded);
        if at_once || !self.must_await_release() {
            return Err(self.error(cause));
        }
        self.pending = None;
        self.blocked = None;
        self.release = Release::Awaited(Err(cause));
        Ok(())
    }

    pub(super) fn must_await_release(&self) -> bool {
        self.release == Release::Wanted && self.is_in_flight()
    }

    /// Reports that the sink let go of the source's pages
    /// ([`Step::AwaitRelease`](crate::Step::AwaitRelease)). A driver that
    /// cannot wait any longer stops the transfer instead.
    ///
    /// # Errors
    /// What ended the transfer before, if it was waiting with an error.
    pub fn released(&mut self) -> Result<(), TransferError> {
        let Release::Awaited(outcome) = self.release else {
            return Ok(());
        };
        self.release = Release::Released;
        match outcome {
            Ok(ending) => {
                self.finish(ending);
                Ok(())
            }
            Err(cause) => Err(self.error(cause)),
        }
    }

    /// Ends the transfer with an error of the driver's own (waiting, reading ahead).
    ///
    /// # Errors
    /// That error, with the account so far. `Ok` as with [`stop`](Self::stop).
    pub fn fail(&mut self, operation: Operation, errno: Errno) -> Result<(), TransferError> {
        let cause = Cause::Io { operation, errno };
        let Release::Awaited(outcome) = self.release else {
            return self.end(cause);
        };
        if errno.is_disconnect() {
            // The kernel dropped what was queued.
            self.release = Release::Released;
        }
        Err(self.error(outcome.err().unwrap_or(cause)))
    }

    /// True if only the release of pages in flight is awaited before an error ends the transfer.
    pub const fn has_failed(&self) -> bool {
        matches!(self.release, Release::Awaited(Err(_)))
    }
}
