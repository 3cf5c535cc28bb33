//! What the driver of a relay does next.

use std::ops::{BitOr, BitOrAssign};
use std::time::Duration;

use super::ending::RelayEnding;
use super::side::{Side, Way};

/// One system call. Exhaustive, as [`Op`](crate::Op) is: a driver knows them all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// `recv(2)` from the way's source into its buffer, from the beginning.
    Recv {
        /// Which direction.
        way: Way,
        /// How much at most.
        len: usize,
    },
    /// `send(2)` out of the way's buffer to its sink.
    Send {
        /// Which direction.
        way: Way,
        /// First byte of the buffer.
        start: usize,
        /// How much.
        len: usize,
    },
    /// `splice(2)` from the way's source into its pipe, which is empty.
    SpliceIn {
        /// Which direction.
        way: Way,
        /// How much at most.
        len: usize,
    },
    /// `splice(2)` from the way's pipe to its sink, without `SPLICE_F_MORE`.
    SpliceOut {
        /// Which direction.
        way: Way,
        /// How much: what the pipe holds.
        len: usize,
    },
    /// `read(2)` from the way's pipe into its buffer, from the beginning: the sink does not take
    /// from pipes.
    ReadPipe {
        /// Which direction.
        way: Way,
        /// How much at most.
        len: usize,
    },
    /// `shutdown(2)` with `SHUT_WR` of the way's sink: everything was delivered. What is no socket
    /// and cannot take the end yet answers EAGAIN, and is asked again once it is writable.
    ShutdownWrite {
        /// Which direction.
        way: Way,
    },
    /// `getsockopt(2)` SO_ERROR: the result is the error number, 0 for none.
    TakeError {
        /// Of which socket.
        side: Side,
    },
    /// `ioctl(2)` SIOCOUTQ: how much the send queue holds.
    Unsent {
        /// Of which socket.
        side: Side,
    },
    /// The same before a reset, which would throw the queue away. 0 for sockets whose close does
    /// not take back what was sent (UNIX).
    Unacknowledged {
        /// Of which socket.
        side: Side,
    },
    /// Resets the connection, as a close with a linger time of 0 does. Where there is no such
    /// thing (UNIX), shuts it down both ways.
    Reset {
        /// Which.
        side: Side,
    },
}

impl Call {
    /// The direction that the call belongs to.
    pub const fn way(&self) -> Option<Way> {
        match *self {
            Self::Recv { way, .. }
            | Self::Send { way, .. }
            | Self::SpliceIn { way, .. }
            | Self::SpliceOut { way, .. }
            | Self::ReadPipe { way, .. }
            | Self::ShutdownWrite { way } => Some(way),
            Self::TakeError { .. }
            | Self::Unsent { .. }
            | Self::Unacknowledged { .. }
            | Self::Reset { .. } => None,
        }
    }
}

/// What the driver does next. Exhaustive, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelayStep {
    /// Make this call and report with [`RelayMachine::complete`](super::RelayMachine::complete).
    Call(Call),
    /// Find a buffer for the direction and answer with
    /// [`RelayMachine::buffer`](super::RelayMachine::buffer).
    NeedBuffer(Way),
    /// Find an empty pipe for the direction and answer with
    /// [`RelayMachine::pipe`](super::RelayMachine::pipe).
    NeedPipe(Way),
    /// Ask the direction's limit, and answer with
    /// [`RelayMachine::grant`](super::RelayMachine::grant).
    NeedGrant {
        /// Which direction.
        way: Way,
        /// More than this is of no use.
        wanted: usize,
    },
    /// Nothing can be done now.
    Wait(Wants),
    /// The budget of this turn is used up: let others run, then begin another turn.
    Yield,
    /// It is over.
    Done(RelayEnding),
}

/// What a side is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelayInterest {
    /// Bytes, or the end of the stream.
    pub readable: bool,
    /// Room.
    pub writable: bool,
}

/// What a relay waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Wants {
    /// Of A.
    pub a: RelayInterest,
    /// Of B.
    pub b: RelayInterest,
    /// A buffer was refused: a turn is worth while when one is free.
    pub buffer: bool,
    /// A turn is due at this reading of the clock, whatever happens.
    pub wake_at: Option<Duration>,
}

impl Wants {
    /// Of this side.
    pub const fn of(&self, side: Side) -> RelayInterest {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    pub(super) const fn of_mut(&mut self, side: Side) -> &mut RelayInterest {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }
}

/// What was reported of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness(u8);

impl Readiness {
    /// There may be bytes.
    pub const READABLE: Self = Self(1);
    /// There may be room.
    pub const WRITABLE: Self = Self(2);
    /// The peer ended its stream (`EPOLLRDHUP`, `EPOLLHUP`).
    pub const ENDED: Self = Self(4);
    /// The socket has an error (`EPOLLERR`).
    pub const ERROR: Self = Self(8);
    /// There is urgent data (`EPOLLPRI`).
    pub const URGENT: Self = Self(16);

    /// Nothing.
    pub const fn empty() -> Self {
        Self(0)
    }

    /// Whether any of `other` is in it.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

impl BitOr for Readiness {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Readiness {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
