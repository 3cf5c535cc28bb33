//! Requests that no route can honour.

use std::fmt;

use crate::ask::{Ask, MAX_OFFSET};
use crate::facts::{SinkFacts, SinkKind, SourceFacts, SourceKind};
use crate::op::End;

/// Why a transfer is refused before anything moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The source keeps message boundaries. A transfer is a stream of bytes cut wherever a buffer
    /// or a chunk ends, and the kernel drops the rest of a message of which less was read.
    SourceKeepsMessages,
    /// The sink keeps message boundaries (UDP, `SOCK_SEQPACKET`). It would get datagrams cut
    /// wherever a buffer ends, and none larger than a datagram may be.
    SinkKeepsMessages,
    /// A place in the source was asked for, and the source is a stream, which has none.
    SourceIsStream,
    /// [`Ask::chunk_bytes`](crate::Ask::chunk_bytes) is 0.
    ChunkIsZero,
    /// [`Ask::budget_bytes`](crate::Ask::budget_bytes) is 0.
    BudgetIsZero,
    /// A place in the sink was asked for, and the sink is opened with `O_APPEND`, which writes at
    /// the end whatever the place.
    SinkAppends,
    /// A place in the sink was asked for, and the sink is a stream, which has none.
    SinkIsStream,
    /// An offset behind 2^63 - 1, the last that the kernel knows, in the source or the sink.
    OffsetTooLarge,
    /// [`Stability::Leased`](crate::Stability::Leased) without a lease.
    NoLease,
    /// The lease is on another file than the source.
    LeaseOnAnotherFile,
    /// The source is a stream that was handed to an asynchronous driver as a file, which is
    /// thought to be always ready.
    SourceNotAttached,
    /// The sink is a stream that was handed to an asynchronous driver as a file.
    SinkNotAttached,
    /// An aggregate is sent to sockets, and this is none.
    SinkIsNoSocket,
}

impl Refusal {
    /// What no route can do between these two ends.
    pub(crate) fn of(source: &SourceFacts, sink: &SinkFacts, ask: &Ask) -> Option<Self> {
        if source.kind == SourceKind::MessageSocket {
            return Some(Self::SourceKeepsMessages);
        }
        if sink.kind == SinkKind::MessageSocket {
            return Some(Self::SinkKeepsMessages);
        }
        if ask.chunk_bytes == 0 {
            return Some(Self::ChunkIsZero);
        }
        if ask.budget_bytes == 0 {
            return Some(Self::BudgetIsZero);
        }
        if ask.offset > 0 && !source.seekable {
            return Some(Self::SourceIsStream);
        }
        let is_too_large = |offset: u64| offset > MAX_OFFSET;
        if source.seekable && is_too_large(ask.offset) || ask.sink_offset.is_some_and(is_too_large)
        {
            return Some(Self::OffsetTooLarge);
        }
        ask.sink_offset?;
        if sink.kind.is_socket() || sink.kind == SinkKind::Pipe {
            return Some(Self::SinkIsStream);
        }
        sink.append.then_some(Self::SinkAppends)
    }

    /// The end that it is about, if it is about one of them.
    pub const fn end(self) -> Option<End> {
        match self {
            Self::SourceKeepsMessages
            | Self::SourceIsStream
            | Self::NoLease
            | Self::LeaseOnAnotherFile
            | Self::SourceNotAttached => Some(End::Source),
            Self::SinkKeepsMessages
            | Self::SinkAppends
            | Self::SinkIsStream
            | Self::SinkIsNoSocket
            | Self::SinkNotAttached => Some(End::Sink),
            Self::ChunkIsZero | Self::BudgetIsZero | Self::OffsetTooLarge => None,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SourceKeepsMessages => "the source keeps message boundaries (a datagram socket)",
            Self::SinkKeepsMessages => "the sink keeps message boundaries (a datagram socket)",
            Self::SourceIsStream => "an offset was asked for in a source that is a stream",
            Self::ChunkIsZero => "chunks of 0 bytes were asked for",
            Self::BudgetIsZero => "a budget of 0 bytes was asked for",
            Self::SinkAppends => "an offset was asked for in a sink opened for appending",
            Self::SinkIsStream => "an offset was asked for in a sink that is a stream",
            Self::OffsetTooLarge => "an offset is behind 2^63 - 1, the last that the kernel knows",
            Self::NoLease => "the source is said to be leased, and there is no lease",
            Self::LeaseOnAnotherFile => "the lease is on another file",
            Self::SourceNotAttached => {
                "the source is a stream and not known to the runtime (use Attached or AsyncFd)"
            }
            Self::SinkIsNoSocket => "an aggregate is sent to sockets, and the sink is none",
            Self::SinkNotAttached => {
                "the sink is a stream and not known to the runtime (use Attached or AsyncFd)"
            }
        })
    }
}
