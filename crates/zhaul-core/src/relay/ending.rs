//! How a relay ended, and the account of what it moved.

use std::fmt;

use crate::errno::{Errno, ErrnoClass};
use crate::route::Route;

use super::side::{Side, Way};

/// What ended a relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RelayCause {
    /// Both streams ended, and all of both was delivered. In a relay of one way: that stream did.
    Closed {
        /// Who ended first.
        first: Side,
    },
    /// A side went away: it reset the connection, or closed it and was sent more.
    Reset {
        /// Which.
        by: Side,
    },
    /// Nothing moved for too long.
    Idle,
    /// One side ended its stream, and then nothing moved for too long.
    HalfClosed {
        /// The side that had ended.
        closed: Side,
    },
    /// The time for the whole is up.
    Deadline,
    /// The caller stopped it.
    Cancelled,
    /// The caller stopped it gracefully: all that had been taken was delivered and acknowledged,
    /// before either stream had ended by itself.
    Stopped,
    /// Receiving failed, otherwise than by a reset.
    Read {
        /// From which side.
        side: Side,
        /// How.
        errno: Errno,
    },
    /// Sending failed, otherwise than by a reset.
    Write {
        /// To which side.
        side: Side,
        /// How.
        errno: Errno,
    },
}

impl RelayCause {
    /// True if both streams came through whole.
    pub const fn is_clean(self) -> bool {
        matches!(self, Self::Closed { .. })
    }

    pub(super) const fn of_read(side: Side, errno: Errno) -> Self {
        if matches!(errno.class(), ErrnoClass::Reset) {
            Self::Reset { by: side }
        } else {
            Self::Read { side, errno }
        }
    }

    pub(super) const fn of_write(side: Side, errno: Errno) -> Self {
        if matches!(errno.class(), ErrnoClass::Reset) {
            Self::Reset { by: side }
        } else {
            Self::Write { side, errno }
        }
    }
}

impl fmt::Display for RelayCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed { first } => write!(f, "closed, first by {first}"),
            Self::Reset { by } => write!(f, "reset by {by}"),
            Self::Idle => f.write_str("idle for too long"),
            Self::HalfClosed { closed } => write!(f, "half closed by {closed} for too long"),
            Self::Deadline => f.write_str("the deadline passed"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Stopped => f.write_str("stopped, with everything taken delivered"),
            Self::Read { side, errno } => write!(f, "receiving from {side}: {errno}"),
            Self::Write { side, errno } => write!(f, "sending to {side}: {errno}"),
        }
    }
}

/// The account of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WayStats {
    /// Bytes taken from the source, preloaded ones included.
    pub taken: u64,
    /// Bytes that the sink's kernel took; copied into what is no socket, those that were flushed.
    pub delivered: u64,
    /// Of these, those that went through a pipe and were not copied.
    pub spliced: u64,
    /// System calls.
    pub calls: u64,
    /// Changes between copying and splicing.
    pub switches: u32,
    /// The route in force: [`Route::ReadWrite`] or [`Route::Splice`].
    pub route: Route,
    /// The source ended its stream.
    pub ended: bool,
}

impl WayStats {
    pub(super) const START: Self = Self {
        taken: 0,
        delivered: 0,
        spliced: 0,
        calls: 0,
        switches: 0,
        route: Route::ReadWrite,
        ended: false,
    };

    /// Bytes copied through a buffer.
    pub const fn copied(&self) -> u64 {
        self.delivered - self.spliced
    }

    /// Bytes taken and not delivered: under way or, once the relay has ended, lost.
    pub const fn in_transit(&self) -> u64 {
        self.taken - self.delivered
    }
}

/// The account of both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    ways: [WayStats; 2],
}

impl Stats {
    pub(super) const fn new(ways: [WayStats; 2]) -> Self {
        Self { ways }
    }

    /// One direction.
    pub const fn way(&self, way: Way) -> &WayStats {
        &self.ways[way.index()]
    }

    /// Bytes delivered both ways.
    pub const fn delivered(&self) -> u64 {
        self.ways[0].delivered + self.ways[1].delivered
    }
}

/// A relay that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RelayEnding {
    /// Why.
    pub cause: RelayCause,
    /// What it moved.
    pub stats: Stats,
}

impl RelayEnding {
    pub(super) const fn new(cause: RelayCause, stats: Stats) -> Self {
        Self { cause, stats }
    }
}
