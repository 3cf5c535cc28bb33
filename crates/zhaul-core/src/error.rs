//! Why a transfer stopped before its end.

use std::fmt;

use crate::errno::Errno;
use crate::op::{End, Operation};
use crate::plan::Rejection;
use crate::refusal::Refusal;
use crate::route::Route;
use crate::summary::Summary;

/// A transfer that did not finish: the cause, and the account up to there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TransferError {
    /// Why it stopped.
    pub cause: Cause,
    /// What was done until then; `summary.moved` bytes reached the sink.
    pub summary: Summary,
    /// Pages of a leased source are still queued in the sink by reference. Before the lease is
    /// dropped, or the kernel takes it away, the connection has to be reset (closed with a linger
    /// of 0), or the receiver may get what an editor writes.
    pub in_flight: bool,
}

/// Why a transfer stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A system call failed.
    Io {
        /// Which.
        operation: Operation,
        /// How.
        errno: Errno,
    },
    /// The file became shorter than it was when the transfer began, or than it was seen to be
    /// since, and ends before what was to be moved.
    Truncated {
        /// Where the file ends now.
        size: u64,
    },
    /// The file was edited in place or replaced while its pages were sent.
    Changed,
    /// The source ended before the length asked for, or before the size that `fstat(2)` states of it
    /// to this moment (FUSE and network file systems with a stale size). Nobody shortened it.
    SourceEnded,
    /// A write was accepted and took no byte.
    SinkStalled,
    /// Somebody else made the file that is written to shorter than what it had got: what followed
    /// would have lain behind a hole.
    SinkTruncated {
        /// Where the sink ended.
        size: u64,
    },
    /// The lease broke: somebody is about to write to the file.
    LeaseBroken,
    /// The caller cancelled.
    Cancelled,
    /// The deadline passed.
    DeadlineExceeded,
    /// The only route asked for cannot be taken.
    RouteRefused {
        /// The route.
        route: Route,
        /// Why not.
        rejection: Rejection,
    },
    /// No route can do what was asked.
    Refused {
        /// Why not.
        refusal: Refusal,
    },
    /// Source and sink are the same file and the ranges overlap: the copy would read its own
    /// output.
    SameFile,
}

impl TransferError {
    /// An error of a driver before there was a transfer.
    pub const fn before_start(operation: Operation, errno: Errno) -> Self {
        Self::without_transfer(Cause::Io { operation, errno })
    }

    /// A request that a driver refuses.
    pub const fn refused(refusal: Refusal) -> Self {
        Self::without_transfer(Cause::Refused { refusal })
    }

    const fn without_transfer(cause: Cause) -> Self {
        let summary = Summary {
            moved: 0,
            stranded: 0,
            route: Route::ReadWrite,
            changes: Vec::new(),
            calls: 0,
            ending: None,
            grew: false,
            holes: 0,
            reserved: 0,
        };
        Self {
            cause,
            summary,
            in_flight: false,
        }
    }

    /// Bytes that the sink took before it stopped.
    pub const fn moved(&self) -> u64 {
        self.summary.moved
    }

    /// The error number, if a system call failed.
    pub const fn errno(&self) -> Option<Errno> {
        self.cause.errno()
    }

    /// The end that it is about, as far as that can be told. A call that touches both ends says so
    /// only by its number: a connection is gone, or a disk is full, at the sink.
    pub const fn end(&self) -> Option<End> {
        match self.cause {
            Cause::Io { operation, errno } => match operation.end() {
                None if errno.is_disconnect() || errno.is_about_room() => Some(End::Sink),
                end => end,
            },
            Cause::Truncated { .. } | Cause::Changed | Cause::SourceEnded | Cause::LeaseBroken => {
                Some(End::Source)
            }
            Cause::SinkStalled | Cause::SinkTruncated { .. } => Some(End::Sink),
            Cause::Refused { refusal } => refusal.end(),
            Cause::Cancelled
            | Cause::DeadlineExceeded
            | Cause::RouteRefused { .. }
            | Cause::SameFile => None,
        }
    }

    /// True if the other side of the sink went away: reset, closed, timed out or unreachable.
    pub const fn is_disconnect(&self) -> bool {
        self.cause.is_disconnect()
    }
}

impl Cause {
    /// The error number, if a system call failed.
    pub const fn errno(&self) -> Option<Errno> {
        match *self {
            Self::Io { errno, .. } => Some(errno),
            _ => None,
        }
    }

    /// True if the other side of the sink went away: reset, closed, timed out or unreachable.
    pub const fn is_disconnect(&self) -> bool {
        match *self {
            Self::Io { operation, errno } => {
                let is_about_the_sink = matches!(
                    operation,
                    Operation::Write
                        | Operation::SendZeroCopy
                        | Operation::Sendfile
                        | Operation::Splice
                        | Operation::Wait
                );
                is_about_the_sink && errno.is_disconnect()
            }
            _ => false,
        }
    }

    /// The error that it is to callers who deal in [`std::io::Error`]; what is not an error number
    /// keeps the whole account as its inner error.
    pub(crate) fn into_io_error<E>(self, account: E) -> std::io::Error
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        use std::io::ErrorKind;
        let kind = match self {
            Self::Io { errno, .. } => return errno.into(),
            Self::Truncated { .. } | Self::SourceEnded => ErrorKind::UnexpectedEof,
            Self::Changed | Self::LeaseBroken | Self::SinkTruncated { .. } => {
                ErrorKind::ResourceBusy
            }
            Self::SinkStalled => ErrorKind::WriteZero,
            // Not Interrupted, which the standard library takes for EINTR and tries again.
            Self::Cancelled => ErrorKind::Other,
            Self::DeadlineExceeded => ErrorKind::TimedOut,
            Self::RouteRefused { .. } => ErrorKind::Unsupported,
            Self::Refused { .. } | Self::SameFile => ErrorKind::InvalidInput,
        };
        std::io::Error::new(kind, account)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { operation, errno } => write!(f, "{operation}: {errno}"),
            Self::Truncated { size } => write!(f, "the file was truncated to {size} bytes"),
            Self::Changed => f.write_str("the file changed while it was sent"),
            Self::SourceEnded => {
                f.write_str("the source ended before the length asked for, or stated by fstat")
            }
            Self::SinkStalled => f.write_str("the sink took no byte"),
            Self::SinkTruncated { size } => {
                write!(
                    f,
                    "the file written to was truncated to {size} bytes by another"
                )
            }
            Self::LeaseBroken => f.write_str("somebody is about to write to the file"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::DeadlineExceeded => f.write_str("the deadline passed"),
            Self::RouteRefused { route, rejection } => write!(f, "{route} refused: {rejection}"),
            Self::Refused { refusal } => write!(f, "refused: {refusal}"),
            Self::SameFile => f.write_str("source and sink overlap in one file"),
        }
    }
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (after {} bytes", self.cause, self.summary.moved)?;
        if self.summary.stranded > 0 {
            write!(f, ", {} more lost on the way", self.summary.stranded)?;
        }
        f.write_str(")")
    }
}

/// The source of an error is the error number of the system call that failed, if one did.
impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Io { errno, .. } => Some(errno),
            _ => None,
        }
    }
}

/// For callers who deal in [`std::io::Error`]. The error of a system call stays one, with its
/// [`raw_os_error`](std::io::Error::raw_os_error); of others the kind follows the cause, and the
/// inner error is the whole account.
impl From<TransferError> for std::io::Error {
    fn from(error: TransferError) -> Self {
        error.cause.into_io_error(error)
    }
}
