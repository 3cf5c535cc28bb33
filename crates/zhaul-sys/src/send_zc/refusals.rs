//! Why there is no batch, and why a slot is not queued.

use std::fmt;
use std::io;

/// Why a slot cannot be sent; it comes back with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotQueued {
    /// As many as were asked for are in flight: submit and reap.
    Full,
    /// A limit of [`Limits`](crate::msg_zerocopy::Limits) is met.
    Limit,
    /// It is not of the memory that was registered.
    Foreign,
    /// No bytes, or more than the 65,527 that a datagram can have, or not of the slot.
    Size,
}

impl fmt::Display for NotQueued {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "as many datagrams as there may be are in flight",
            Self::Limit => "the process has as much memory in flight as it may",
            Self::Foreign => "memory of another pool",
            Self::Size => "no datagram has so many bytes",
        })
    }
}

impl std::error::Error for NotQueued {}

/// Why there is no [`Batch`](super::Batch).
#[derive(Debug)]
#[non_exhaustive]
pub enum Unavailable {
    /// EOPNOTSUPP for what is not UDP, ENOTCONN for what is not connected, as `dup(2)`.
    Socket(io::Error),
    /// `io_uring_setup(2)` refused: ENOSYS without CONFIG_IO_URING or under a filter that hides it,
    /// EPERM by `kernel.io_uring_disabled` or a security module, EINVAL for none or more than 32,768
    /// in flight.
    Ring(io::Error),
    /// IORING_OP_SEND_ZC with reports of copies is not known: before Linux 6.2.
    Operation,
    /// IORING_REGISTER_BUFFERS refused: ENOMEM beyond RLIMIT_MEMLOCK, EINVAL for slots over 1 GiB.
    Register(io::Error),
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(f, "a socket for SEND_ZC: {error}"),
            Self::Ring(error) => write!(f, "io_uring_setup: {error}"),
            Self::Operation => f.write_str("SEND_ZC that reports copies needs Linux 6.2"),
            Self::Register(error) => {
                write!(
                    f,
                    "IORING_REGISTER_BUFFERS: {error} (RLIMIT_MEMLOCK bounds it)"
                )
            }
        }
    }
}

impl std::error::Error for Unavailable {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Socket(error) | Self::Ring(error) | Self::Register(error) => Some(error),
            Self::Operation => None,
        }
    }
}
