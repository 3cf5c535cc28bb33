//! Why a session ended, and what the log says of it.

use zhaul::relay::{RelayCause, RelayEnding, Side};
use zhaul_core::Errno;

use crate::pure::termination::Termination;

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The relay did.
    Relay(RelayEnding),
    /// The client went away before it was relayed.
    ClientGone,
    /// The client did not say in time what has to be known.
    HelloTimeout,
    /// The client that a PROXY header names may not come.
    Refused(&'static str),
    /// The PROXY header is missing or wrong.
    BadHeader(String),
    /// The beginning of TLS is wrong.
    BadHello(&'static str),
    /// No route claims it, and there is no default.
    NoRoute,
    /// No server is up, or none could be reached.
    NoServer,
    /// Too many wait for a server already.
    QueueFull,
    /// It waited for a server long enough.
    QueueTimeout,
    /// The machine has run out of something.
    Exhausted(Errno),
    /// The proxy was told to stop, or the session to end.
    Killed,
    /// A defect of ours.
    Defect,
}

impl End {
    /// How it is counted and called.
    pub(super) const fn termination(&self) -> Termination {
        use Termination as T;
        match self {
            Self::Relay(ending) => match ending.cause {
                RelayCause::Closed { first: Side::A } => T::ClosedByClient,
                RelayCause::Closed { first: Side::B } => T::ClosedByServer,
                RelayCause::Reset { by: Side::A } => T::ResetByClient,
                RelayCause::Reset { by: Side::B } => T::ResetByServer,
                RelayCause::Idle => T::IdleTimeout,
                RelayCause::HalfClosed { .. } => T::FinTimeout,
                RelayCause::Deadline => T::SessionTimeout,
                RelayCause::Cancelled => T::Killed,
                RelayCause::Read { side: Side::A, .. } => T::ClientReadError,
                RelayCause::Read { side: Side::B, .. } => T::ServerReadError,
                RelayCause::Write { side: Side::A, .. } => T::ClientWriteError,
                RelayCause::Write { side: Side::B, .. } => T::ServerWriteError,
                _ => T::Other,
            },
            Self::ClientGone => T::ClientGone,
            Self::HelloTimeout => T::HelloTimeout,
            Self::Refused(_) => T::Refused,
            Self::BadHeader(_) => T::BadProxyHeader,
            Self::BadHello(_) => T::BadClientHello,
            Self::NoRoute => T::NoRoute,
            Self::NoServer => T::NoServer,
            Self::QueueFull => T::QueueFull,
            Self::QueueTimeout => T::QueueTimeout,
            Self::Exhausted(_) => T::Exhausted,
            Self::Killed => T::Killed,
            Self::Defect => T::Defect,
        }
    }

    /// More about it, where there is more.
    pub(super) fn detail(&self) -> Option<String> {
        match self {
            Self::Relay(ending) => match ending.cause {
                RelayCause::Read { errno, .. } | RelayCause::Write { errno, .. } => {
                    Some(errno.to_string())
                }
                _ => None,
            },
            Self::BadHeader(why) => Some(why.clone()),
            Self::BadHello(why) | Self::Refused(why) => Some((*why).to_owned()),
            Self::Exhausted(errno) => Some(errno.to_string()),
            _ => None,
        }
    }

    /// The machine has run out of something.
    pub(super) fn exhausted(errno: rustix::io::Errno) -> Self {
        Self::Exhausted(Errno::from_raw(errno.raw_os_error()))
    }
}
