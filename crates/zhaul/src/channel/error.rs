//! Why a channel ended, or did not do what was asked.

use std::fmt;
use std::io;

use super::wire::Violation;

/// Why a call on a channel failed. After anything but [`TimedOut`](Self::TimedOut) the channel is of no
/// more use, and every further call says the same.
#[derive(Debug)]
#[non_exhaustive]
pub enum ChannelError {
    /// The other end is gone, and did not say that it had finished (as EPIPE, or an end of file before
    /// the end of the data).
    PeerGone,
    /// The deadline passed first. What was to be sent is dropped; nothing else happened.
    TimedOut,
    /// The other end did what it must not do, or is not a channel of this version.
    Violation(Violation),
    /// Not a connected UNIX socket of the type SOCK_SEQPACKET.
    NotSeqpacket,
    /// The buffer came through too many processes to be passed on once more
    /// ([`MAX_LEASES`](super::wire::MAX_LEASES)).
    TooManyHops,
    /// A system call.
    Io {
        /// What was called.
        operation: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl ChannelError {
    pub(super) fn io(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { operation, source }
    }

    pub(super) fn errno(operation: &'static str) -> impl FnOnce(rustix::io::Errno) -> Self {
        move |errno| Self::Io {
            operation,
            source: errno.into(),
        }
    }

    /// True if the receiver said of what is out something that no receiver of this crate says: it does not
    /// keep buffers by that. Nothing that could be the fault of this process or of the kernel is meant.
    pub(super) const fn ends_loans(&self) -> bool {
        matches!(
            self,
            Self::Violation(Violation::NotOut(_) | Violation::RingOverrun { .. })
        )
    }

    /// The same once more, for a channel that ended with it.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::PeerGone => Self::PeerGone,
            Self::TimedOut => Self::TimedOut,
            Self::Violation(violation) => Self::Violation(*violation),
            Self::NotSeqpacket => Self::NotSeqpacket,
            Self::TooManyHops => Self::TooManyHops,
            Self::Io { operation, source } => Self::Io {
                operation,
                source: match source.raw_os_error() {
                    Some(errno) => io::Error::from_raw_os_error(errno),
                    None => source.kind().into(),
                },
            },
        }
    }
}

impl From<Violation> for ChannelError {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl fmt::Display for ChannelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PeerGone => write!(f, "the other end of the channel is gone"),
            Self::TimedOut => write!(f, "the deadline passed"),
            Self::Violation(violation) => {
                write!(f, "the other end broke the protocol: {violation}")
            }
            Self::NotSeqpacket => write!(f, "not a connected UNIX socket of type SOCK_SEQPACKET"),
            Self::TooManyHops => write!(f, "the buffer came through too many processes"),
            Self::Io { operation, source } => write!(f, "{operation}: {source}"),
        }
    }
}

impl std::error::Error for ChannelError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
