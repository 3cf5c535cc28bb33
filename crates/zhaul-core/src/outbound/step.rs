//! One step of an aggregate: the call to make, or the event to wait for.

use std::time::Duration;

use crate::op::Interest;

use super::{SendError, SendSummary};

/// What a segment of an aggregate is, as far as the machine cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentFacts {
    /// Immutable memory.
    Memory {
        /// Bytes.
        len: usize,
    },
    /// A range of a file.
    File {
        /// First byte in the file.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

impl SegmentFacts {
    /// Bytes.
    pub const fn len(&self) -> u64 {
        match *self {
            Self::Memory { len } => len as u64,
            Self::File { len, .. } => len,
        }
    }

    /// True for a segment that nothing is sent of.
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The list of segments, which does not change while it is sent.
pub trait SegmentList {
    /// What the segment at this index is; `None` behind the last.
    fn facts(&self, index: usize) -> Option<SegmentFacts>;
}

impl SegmentList for [SegmentFacts] {
    fn facts(&self, index: usize) -> Option<SegmentFacts> {
        self.get(index).copied()
    }
}

/// Memory that goes out by one call: `sendmsg(2)`, or `send(2)` for a single piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gather {
    /// Index of the first segment.
    pub segment: usize,
    /// First byte in that.
    pub offset: usize,
    /// How much at most: to the end of all but the last of the segments.
    pub len: usize,
    /// How many segments it is of, [`MAX_GATHERED_SEGMENTS`] at most, empty ones included.
    pub segments: usize,
    /// More is certain to follow at once (`MSG_MORE`).
    pub more: bool,
    /// By reference (`MSG_ZEROCOPY`); it is then of one segment. A driver that cannot, or whose
    /// socket cannot, sends it plainly and reports no number of a call.
    pub zero_copy: bool,
}

/// As many pieces of memory as one call takes (`UIO_MAXIOV`).
pub const MAX_GATHERED_SEGMENTS: usize = 1024;

/// What the driver does next. Exhaustive, so that a step that a driver does not know does not
/// compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OutboundStep {
    /// Make this call and report with [`complete`](super::Outbound::complete).
    Send(Gather),
    /// The file of this segment is next: [begin](super::Outbound::begin_file) its transfer, drive it
    /// to its end, and [hand it back](super::Outbound::end_file).
    File {
        /// Index of the segment.
        segment: usize,
    },
    /// Wait for readiness, then ask again.
    Wait(Interest),
    /// Let others run, then ask again: the fairness budget is used up.
    Yield,
    /// The throttle is ahead of its rate: ask again at this reading of the clock.
    Pause {
        /// Not before.
        until: Duration,
    },
    /// Take what there is from the socket's error queue, report it with
    /// [`completed`](super::Outbound::completed), and ask again.
    Reap,
    /// Everything is in the socket, but the kernel still reads memory: wait until something comes
    /// into the error queue and report that with [`completed`](super::Outbound::completed).
    AwaitRelease,
    /// It is over: all was moved, or the error says why not. Asking again gives the same answer.
    Done(Result<SendSummary, SendError>),
}
