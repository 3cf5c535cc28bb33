//! One step of a transfer: the system call to make, or the event to wait for.

use std::fmt;
use std::time::Duration;

use crate::error::TransferError;
use crate::summary::Summary;

/// An end of a system call, which the driver maps to a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Where the bytes come from.
    Source,
    /// Where they go.
    Sink,
    /// The pipe between, which the driver takes from its pool when bytes first enter it and
    /// gives back when [`Transfer::pipe_bytes`](crate::Transfer::pipe_bytes) is 0 again.
    Pipe,
}

/// One system call to make. Offsets of `None` mean the descriptor's own position.
///
/// Exhaustive on purpose: an operation that a driver does not know must not compile, or it would be
/// a busy loop or a silent fallback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `fstat(2)` of the source; answered by [`Transfer::observed`](crate::Transfer::observed).
    Stat,
    /// `read(2)` or `pread(2)` into the transfer's buffer, from its beginning.
    Read {
        /// Source or pipe.
        from: End,
        /// Where in the source.
        offset: Option<u64>,
        /// How much at most.
        len: usize,
    },
    /// `write(2)`, `pwrite(2)` or `send(2)` out of the transfer's buffer to the sink.
    Write {
        /// First byte of the buffer to write.
        start: usize,
        /// How much at most.
        len: usize,
        /// Where in the sink.
        offset: Option<u64>,
        /// More is certain to follow at once (`MSG_MORE`).
        more: bool,
    },
    /// `mmap(2)` of a window of the source, in place of the window before.
    Map {
        /// First byte, at a page boundary.
        offset: u64,
        /// Length of the window.
        len: usize,
    },
    /// `write(2)` or `send(2)` out of the mapped window to the sink.
    WriteMapped {
        /// Where in the source (inside the window).
        offset: u64,
        /// How much at most.
        len: usize,
        /// Where in the sink.
        sink_offset: Option<u64>,
        /// More is certain to follow at once (`MSG_MORE`).
        more: bool,
    },
    /// `sendfile(2)` from the source to the sink.
    Sendfile {
        /// Where in the source.
        offset: u64,
        /// How much at most.
        len: usize,
    },
    /// `splice(2)` with `SPLICE_F_MOVE | SPLICE_F_NONBLOCK`.
    Splice {
        /// Where from.
        from: End,
        /// Where to.
        to: End,
        /// Where in a seekable source.
        source_offset: Option<u64>,
        /// Where in a seekable sink.
        sink_offset: Option<u64>,
        /// How much at most.
        len: usize,
        /// More is certain to follow at once (`SPLICE_F_MORE`).
        more: bool,
    },
    /// `copy_file_range(2)` from the source to the sink.
    CopyFileRange {
        /// Where in the source.
        source_offset: u64,
        /// Where in the sink.
        sink_offset: Option<u64>,
        /// How much at most.
        len: usize,
    },
    /// `lseek(2)` with SEEK_DATA in the source, without moving its position: how far the hole at
    /// this place reaches, up to the end of the file; 0 if there is data.
    SeekData {
        /// Where in the source.
        offset: u64,
    },
    /// `lseek(2)` with SEEK_HOLE in the source, without moving its position: how far the data at
    /// this place reaches.
    SeekHole {
        /// Where in the source.
        offset: u64,
    },
    /// Makes so many bytes of the sink a hole: `fallocate(2)` with FALLOC_FL_PUNCH_HOLE of what it
    /// has there, `ftruncate(2)` of what it has not.
    PunchHole {
        /// Where in the sink.
        offset: Option<u64>,
        /// How much.
        len: usize,
    },
}

impl Op {
    /// The system call, for errors.
    pub const fn operation(&self) -> Operation {
        match self {
            Self::Stat => Operation::Stat,
            Self::Read { .. } => Operation::Read,
            Self::Write { .. } | Self::WriteMapped { .. } => Operation::Write,
            Self::Map { .. } => Operation::Map,
            Self::Sendfile { .. } => Operation::Sendfile,
            Self::Splice { .. } => Operation::Splice,
            Self::CopyFileRange { .. } => Operation::CopyFileRange,
            Self::SeekData { .. } | Self::SeekHole { .. } => Operation::Seek,
            Self::PunchHole { .. } => Operation::PunchHole,
        }
    }

    /// True for what comes before data is moved.
    pub(crate) const fn is_about_holes(&self) -> bool {
        matches!(
            self,
            Self::SeekData { .. } | Self::SeekHole { .. } | Self::PunchHole { .. }
        )
    }

    /// The range of a seekable source that the call reads, for residency.
    pub const fn source_range(&self) -> Option<(u64, usize)> {
        match *self {
            Self::Read {
                from: End::Source,
                offset: Some(offset),
                len,
            }
            | Self::WriteMapped { offset, len, .. }
            | Self::Sendfile { offset, len }
            | Self::Splice {
                from: End::Source,
                source_offset: Some(offset),
                len,
                ..
            }
            | Self::CopyFileRange {
                source_offset: offset,
                len,
                ..
            } => Some((offset, len)),
            _ => None,
        }
    }

    /// Where in a seekable sink it writes, if it names a place.
    pub const fn sink_offset(&self) -> Option<u64> {
        match *self {
            Self::Write {
                offset: sink_offset,
                ..
            }
            | Self::WriteMapped { sink_offset, .. }
            | Self::Splice {
                to: End::Sink,
                sink_offset,
                ..
            }
            | Self::CopyFileRange { sink_offset, .. } => sink_offset,
            _ => None,
        }
    }
}

/// The system call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `fstat(2)`.
    Stat,
    /// `read(2)`, `pread(2)` or `recv(2)`.
    Read,
    /// `write(2)`, `pwrite(2)` or `send(2)`.
    Write,
    /// `sendmsg(2)` with MSG_ZEROCOPY.
    SendZeroCopy,
    /// `mmap(2)`.
    Map,
    /// `sendfile(2)`.
    Sendfile,
    /// `splice(2)`.
    Splice,
    /// `splice(2)`, where it is the source that failed.
    SpliceIn,
    /// `copy_file_range(2)`.
    CopyFileRange,
    /// `lseek(2)` for holes and data.
    Seek,
    /// `fallocate(2)` or `ftruncate(2)` for a hole.
    PunchHole,
    /// `fallocate(2)` of the blocks of the sink.
    Reserve,
    /// Waiting for an end to become ready.
    Wait,
    /// Bringing pages of the source into memory.
    Populate,
    /// Finding out what the source is.
    ExamineSource,
    /// Finding out what the sink is.
    ExamineSink,
}

impl Operation {
    /// The end that it is about; `None` for calls that touch both.
    pub const fn end(self) -> Option<End> {
        match self {
            Self::Stat
            | Self::Read
            | Self::Map
            | Self::SpliceIn
            | Self::Seek
            | Self::Populate
            | Self::ExamineSource => Some(End::Source),
            Self::Write
            | Self::SendZeroCopy
            | Self::PunchHole
            | Self::Reserve
            | Self::ExamineSink => Some(End::Sink),
            Self::Sendfile | Self::Splice | Self::CopyFileRange | Self::Wait => None,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stat => "fstat of the source",
            Self::Read => "read from the source",
            Self::Write => "write to the sink",
            Self::SendZeroCopy => "send with MSG_ZEROCOPY",
            Self::Map => "mmap of the source",
            Self::Sendfile => "sendfile",
            Self::Splice => "splice",
            Self::SpliceIn => "splice from the source",
            Self::CopyFileRange => "copy_file_range",
            Self::Seek => "lseek in the source",
            Self::PunchHole => "making a hole in the sink",
            Self::Reserve => "reserving blocks of the sink",
            Self::Wait => "poll",
            Self::Populate => "reading ahead in the source",
            Self::ExamineSource => "examining the source",
            Self::ExamineSink => "examining the sink",
        })
    }
}

/// What has to become ready. With both set, at least one of them is not, and the call could not
/// say which (splice between a pipe and another stream): the driver polls to find out, and waits
/// for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest {
    /// The source must become readable.
    pub source_readable: bool,
    /// The sink must become writable.
    pub sink_writable: bool,
    /// Something must come into the sink's error queue: a completion of MSG_ZEROCOPY, a timestamp.
    ///
    /// An event of its own. What lies there makes the sink neither readable nor writable, and
    /// whoever does not ask for it is not woken by it again and again, although `poll(2)` reports
    /// it unasked. Whoever asks is told once of each arrival, and takes all there is.
    pub sink_error_queue: bool,
}

impl Interest {
    /// Wait for the source.
    pub const SOURCE: Self = Self {
        source_readable: true,
        ..Self::NOTHING
    };
    /// Wait for the sink.
    pub const SINK: Self = Self {
        sink_writable: true,
        ..Self::NOTHING
    };
    /// Wait for whichever is not ready.
    pub const EITHER: Self = Self {
        source_readable: true,
        sink_writable: true,
        ..Self::NOTHING
    };
    /// Wait for what comes into the sink's error queue.
    pub const ERROR_QUEUE: Self = Self {
        sink_error_queue: true,
        ..Self::NOTHING
    };
    const NOTHING: Self = Self {
        source_readable: false,
        sink_writable: false,
        sink_error_queue: false,
    };
}

/// What the driver does next. Exhaustive for the reason that [`Op`] is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make this system call and report with [`Transfer::complete`](crate::Transfer::complete),
    /// or for [`Op::Stat`] with [`Transfer::observed`](crate::Transfer::observed).
    Submit(Op),
    /// Wait for readiness, then ask again.
    Wait(Interest),
    /// Let others run, then ask again: the fairness budget is used up.
    Yield,
    /// The throttle is ahead of its rate: ask again at this reading of the clock.
    Pause {
        /// Not before.
        until: Duration,
    },
    /// The source looks edited in place, but may be in the middle of an append, which stamps the
    /// times before it raises the size: wait so long, then ask again.
    StatAgain {
        /// How long.
        after: Duration,
    },
    /// Everything is queued, but the sink still holds references to the source: report with
    /// [`Transfer::released`](crate::Transfer::released) when it let go.
    AwaitRelease,
    /// It is over: all was moved, or the error says why not. Asking again gives the same answer.
    Done(Result<Summary, TransferError>),
}
