//! What a transfer tells about itself.

use std::time::Duration;

use crate::error::{Cause, TransferError};
use crate::limits::Limits;
use crate::plan::Plan;
use crate::route::Route;
use crate::summary::{Ending, RouteChange, Summary};

use super::release::Release;
use super::{Machine, Transfer};

impl Transfer {
    /// The plan it started with.
    pub const fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The route taken now.
    pub const fn route(&self) -> Route {
        match self.machine {
            Machine::ReadWrite(_) => Route::ReadWrite,
            Machine::MmapWrite(_) => Route::MmapWrite,
            Machine::Sendfile => Route::Sendfile,
            Machine::Splice(_) => Route::Splice,
            Machine::CopyFileRange => Route::CopyFileRange,
        }
    }

    /// Bytes that the sink took so far.
    pub const fn moved(&self) -> u64 {
        self.ledger.moved
    }

    /// System calls reported so far.
    pub const fn calls(&self) -> u64 {
        self.ledger.calls
    }

    /// Changes of route so far.
    pub fn changes(&self) -> &[RouteChange] {
        &self.changes
    }

    /// Bytes in the pipe between source and sink. At 0 the driver may give the pipe back; a pipe
    /// that is not empty when the transfer ends must be closed.
    pub const fn pipe_bytes(&self) -> u64 {
        match &self.machine {
            Machine::Splice(machine) => machine.pipe_bytes(),
            _ => 0,
        }
    }

    /// Bytes that were taken from the source and that the sink has not taken yet: in the pipe or
    /// buffer between.
    pub const fn in_transit(&self) -> u64 {
        self.ledger.in_transit()
    }

    /// Those of them that would be lost if nobody delivered them: none of a file, which can be read
    /// again.
    pub const fn stranded(&self) -> u64 {
        self.ledger.stranded()
    }

    /// When to give up, on the driver's clock.
    pub const fn deadline(&self) -> Option<Duration> {
        self.deadline
    }

    /// Where a seekable source will be read last, as far as it is known: for reading ahead.
    pub const fn source_end(&self) -> Option<u64> {
        self.ledger.source_end()
    }

    /// The account so far.
    pub fn summary(&self) -> Summary {
        Summary {
            moved: self.ledger.moved,
            stranded: self.ledger.stranded(),
            route: self.route(),
            changes: self.changes.clone(),
            calls: self.ledger.calls,
            ending: self.over.and_then(Result::ok),
            grew: self.guard.grew,
            holes: self.ledger.holes,
            reserved: self.reserved,
        }
    }

    /// Tells that the sink has the blocks for so many bytes.
    pub const fn sink_reserved(&mut self, bytes: u64) {
        self.reserved = bytes;
    }

    /// Tells that somebody else made the sink shorter than what it had got; instead of the submitted
    /// operation, or when all was moved.
    pub fn sink_truncated(&mut self, size: u64) {
        let cause = Cause::SinkTruncated { size };
        match self.over {
            Some(Ok(_)) => self.over = Some(Err(cause)),
            Some(Err(_)) => {}
            None => self.end(cause),
        }
    }

    /// Goes on with another account of budget and rate, and gives its own.
    pub(crate) const fn exchange_limits(&mut self, limits: &mut Limits) {
        std::mem::swap(&mut self.ledger.limits, limits);
    }

    pub(super) fn is_in_place(&self) -> bool {
        let by_reference = |route| matches!(route, Route::Sendfile | Route::Splice);
        by_reference(self.route()) || self.changes.iter().any(|change| by_reference(change.from))
    }

    /// Pages of a leased source may still be queued in the sink by reference.
    pub(super) fn is_in_flight(&self) -> bool {
        self.leased_in_place
            && self.release != Release::Released
            && self.ledger.moved > 0
            && self.is_in_place()
    }

    pub(super) fn outcome(&self, outcome: Result<Ending, Cause>) -> Result<Summary, TransferError> {
        match outcome {
            Ok(_) => Ok(self.summary()),
            Err(cause) => Err(self.error(cause)),
        }
    }

    pub(super) fn error(&self, cause: Cause) -> TransferError {
        TransferError {
            cause,
            summary: self.summary(),
            in_flight: self.is_in_flight(),
        }
    }
}
