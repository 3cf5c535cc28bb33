//! What became of an aggregate.

use std::fmt;

use crate::errno::Errno;
use crate::error::Cause;
use crate::summary::{Summary, Why};

use super::Outbound;

/// Account of an aggregate, sent whole or not. `taken ≥ moved ≥ released`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendSummary {
    /// Bytes that an operation was made for, whatever became of it.
    pub taken: u64,
    /// Bytes that the socket took: the aggregate up to here is sent.
    pub moved: u64,
    /// The kernel reads nobody's memory below this byte any more. What was copied, and files, count
    /// from the moment they are moved; [`Summary::sent_in_place`] says what that means for a file.
    pub released: u64,
    /// System calls submitted, waiting excepted.
    pub calls: u64,
    /// Bytes of memory that were sent by reference (MSG_ZEROCOPY).
    pub by_reference: u64,
    /// Those of them that the kernel copied all the same, as far as completions have come.
    pub copied_after_all: u64,
    /// Each time that sending by reference was given up for a while.
    pub changes: Vec<ZeroCopyChange>,
    /// Account of each file, in order, the one that failed included.
    pub files: Vec<Summary>,
}

/// Sending by reference is given up for a while at this byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroCopyChange {
    /// Bytes moved when it happened.
    pub moved: u64,
    /// Why.
    pub why: Why,
}

impl fmt::Display for ZeroCopyChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "memory is copied from byte {} on: {}",
            self.moved, self.why
        )
    }
}

/// An aggregate that was not sent to its end: the cause, and the account up to there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SendError {
    /// Why it stopped.
    pub cause: Cause,
    /// What was done until then; `summary.moved` bytes are sent.
    pub summary: SendSummary,
    /// Pages of a leased file are still queued in the socket by reference; see
    /// [`TransferError::in_flight`](crate::TransferError::in_flight).
    pub in_flight: bool,
}

impl SendError {
    /// A failure before anything was sent.
    pub fn before_start(cause: Cause) -> Self {
        Self {
            cause,
            summary: SendSummary::default(),
            in_flight: false,
        }
    }

    /// Bytes that the socket took before it stopped.
    pub const fn moved(&self) -> u64 {
        self.summary.moved
    }

    /// The error number, if a system call failed.
    pub const fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }

    /// True if the peer went away: reset, closed, timed out or unreachable.
    pub const fn is_disconnect(&self) -> bool {
        self.cause.is_disconnect()
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {} bytes)", self.cause, self.summary.moved)
    }
}

/// The source of an error is the error number of the system call that failed, if one did.
impl std::error::Error for SendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io { errno, .. } => Some(errno),
            _ => None,
        }
    }
}

/// As for [`TransferError`](crate::TransferError): an error number stays one.
impl From<SendError> for std::io::Error {
    fn from(error: SendError) -> Self {
        error.cause.into_io_error(error)
    }
}

impl Outbound {
    /// Bytes that the socket took; those of a file count when its transfer is handed back.
    pub const fn moved(&self) -> u64 {
        self.moved
    }

    /// The first byte whose memory the kernel may still read.
    pub fn released(&self) -> u64 {
        self.in_flight.start().unwrap_or(self.moved)
    }

    /// System calls reported so far.
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// True once [`next`](Self::next) says that it is done.
    pub const fn is_over(&self) -> bool {
        self.over.is_some()
    }

    /// What was learnt about sending by reference, for the next aggregate on this socket.
    pub const fn policy(&self) -> super::ZeroCopyPolicy {
        self.policy
    }

    /// The account so far.
    pub fn summary(&self) -> SendSummary {
        let pending = self.pending.map_or(0, |gather| gather.len as u64);
        SendSummary {
            taken: self.moved + pending,
            moved: self.moved,
            released: self.released(),
            calls: self.calls,
            by_reference: self.by_reference,
            copied_after_all: self.copied_after_all,
            changes: self.changes.clone(),
            files: self.files.clone(),
        }
    }

    pub(super) fn outcome(&self, outcome: Result<(), Cause>) -> Result<SendSummary, SendError> {
        match outcome {
            Ok(()) => Ok(self.summary()),
            Err(cause) => Err(SendError {
                cause,
                summary: self.summary(),
                in_flight: self.leased_in_flight,
            }),
        }
    }
}
