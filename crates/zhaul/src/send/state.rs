//! [`SendState`]: an aggregate under way, which an event loop of one's own gives its turns.

use std::fmt;
use std::time::{Duration, Instant};

use zhaul_core::outbound::{
    Outbound, OutboundStep, SegmentFacts, SegmentList, SendSummary, ZeroCopyPolicy,
};
use zhaul_core::{Ask, InPlaceEnd, Operation, SinkFacts, SourceFacts, SourceKind, Stop};

#[cfg(feature = "tokio")]
use crate::async_io::{DriveState as FileState, Watch};
use crate::calls::Buffers;
use crate::endpoint;
use crate::lease;
use crate::memory::{Aggregate, Segment};
use crate::pipe_pool::PipePool;
use crate::progress::Progress;
#[cfg(not(feature = "tokio"))]
use crate::transfer_state::TransferState as FileState;

/// An aggregate on its way into a stream socket, with what was sent of it.
///
/// It belongs to nobody's future: an event loop gives it [turns](Self::turn), and where an answer has
/// to wait for more than the socket it is [sent on](Self::to) by a task, from where it stands. As long
/// as it is memory, a turn is one `send(2)` or `sendmsg(2)` and nothing else, nor is memory allocated
/// for up to 16 pieces.
///
/// ```no_run
/// # fn example(socket: std::os::unix::net::UnixStream) -> Result<(), zhaul::SendError> {
/// use zhaul::send::{Advance, SendState, TurnTerms};
///
/// let mut answer = SendState::new("HTTP/1.1 204 No Content\r\n\r\n");
/// match answer.turn(&socket, TurnTerms::default())? {
///     Advance::Done(summary) => println!("{} bytes", summary.moved),
///     Advance::Blocked => { /* another turn when the socket is writable */ }
///     _ => { /* later, or by a task */ }
/// }
/// # Ok(())
/// # }
/// ```
pub struct SendState {
    pub(super) aggregate: Aggregate,
    pub(super) machine: Outbound,
    /// The file that is next, once it was begun.
    pub(super) file: Option<Box<FilePart>>,
    pub(super) sink: Option<SinkFacts>,
    pub(super) began: Option<Instant>,
    /// The file under way looks edited, and is not looked at again before: to do so at once would take
    /// an append in progress for an edit.
    pub(super) stat_again_at: Option<Instant>,
    /// Of memory, in some [`Progress`].
    published: Counts,
    /// Of files that are done.
    of_files: Counts,
    #[cfg(feature = "tokio")]
    pub(super) watch: Watch,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    moved: u64,
    calls: u64,
}

/// A file under way.
pub(super) struct FilePart {
    pub(super) state: FileState,
    pub(super) source: SourceFacts,
}

impl FilePart {
    /// Whether it is on a disk that may have to be waited for.
    pub(super) const fn is_on_disk(&self) -> bool {
        matches!(self.source.kind, SourceKind::Regular | SourceKind::Block)
    }
}

impl SegmentList for Aggregate {
    fn facts(&self, index: usize) -> Option<SegmentFacts> {
        self.get(index).map(|segment| match segment {
            Segment::Memory(memory) => SegmentFacts::Memory { len: memory.len() },
            Segment::File(range) => SegmentFacts::File {
                offset: range.range().start,
                len: range.len(),
            },
        })
    }
}

impl SendState {
    /// All of an aggregate, on the usual terms; that what is sent of a leased file is acknowledged
    /// is not waited for.
    pub fn new(aggregate: impl Into<Aggregate>) -> Self {
        let ask = Ask {
            await_release: false,
            ..Ask::default()
        };
        Self::with(aggregate, &ask)
    }

    /// The same on terms of one's own. What an [`Ask`] says of a source is said of each file by its
    /// [`FileRange`](crate::FileRange), and not looked at.
    pub fn with(aggregate: impl Into<Aggregate>, ask: &Ask) -> Self {
        Self {
            aggregate: aggregate.into(),
            machine: Outbound::new(ask, ZeroCopyPolicy::NEVER),
            file: None,
            sink: None,
            began: None,
            stat_again_at: None,
            published: Counts::default(),
            of_files: Counts::default(),
            #[cfg(feature = "tokio")]
            watch: Watch::sink(),
        }
    }

    /// What the socket is; without it, a stream socket of whose peer nothing is known. Leased files
    /// are copied to such a one.
    #[must_use]
    pub const fn sink_facts(mut self, facts: SinkFacts) -> Self {
        self.sink = Some(facts);
        self
    }

    pub(super) fn next(&mut self) -> OutboundStep {
        self.machine.next(&self.aggregate)
    }

    /// Examines the file that is next and makes its transfer, unless that was done before. False if
    /// there can be none: then it is over.
    pub(super) fn begin_file(
        &mut self,
        segment: usize,
        in_place_end: InPlaceEnd,
        pipes: Option<&PipePool>,
    ) -> bool {
        if self.file.is_some() {
            return true;
        }
        let Some(Segment::File(range)) = self.aggregate.get(segment) else {
            return false;
        };
        let facts = match range.facts() {
            Some(facts) => Ok(*facts),
            None => endpoint::source_facts(range.file()),
        };
        let source = match facts {
            Ok(source) => source,
            Err(errno) => {
                self.machine.fail(Operation::ExamineSource, errno);
                return false;
            }
        };
        let ask = range.ask();
        let lease = range.held_lease().map(|lease| &**lease);
        if let Err(refusal) = lease::covers(lease, &source, ask.stability) {
            self.machine.refuse(refusal);
            return false;
        }
        let sink = self
            .sink
            .unwrap_or_else(|| SinkFacts::stream_socket(in_place_end));
        let host = endpoint::host_facts();
        let begun = self
            .machine
            .begin_file(&self.aggregate, &source, &sink, &host, &ask);
        self.file = begun.map(|transfer| {
            let buffers = Buffers::new(&source, &sink, pipes.cloned());
            let state = FileState::new(transfer, buffers);
            Box::new(FilePart { state, source })
        });
        self.file.is_some()
    }

    pub(super) fn end_file(&mut self) {
        let Some(part) = self.file.take() else { return };
        let transfer = part.state.into_transfer();
        self.of_files.moved += transfer.moved();
        self.of_files.calls += transfer.calls();
        self.machine.end_file(transfer);
    }

    /// Counts the memory that was sent since the last time.
    pub(super) fn publish(&mut self, progress: Option<&Progress>) {
        let Some(progress) = progress else { return };
        let now = Counts {
            moved: self.machine.moved() - self.of_files.moved,
            calls: self.machine.calls() - self.of_files.calls,
        };
        let before = std::mem::replace(&mut self.published, now);
        progress.count(now.moved - before.moved, now.calls - before.calls);
    }

    /// Starts the clock if anything goes by it, and tells the time.
    pub(super) fn tick(&mut self) {
        if let Some(began) = self.start_clock() {
            self.machine.tick(began.elapsed());
        }
    }

    /// When it began, if anything goes by the clock.
    pub(super) fn start_clock(&mut self) -> Option<Instant> {
        let ask = self.machine.ask();
        let keeps_time = ask.deadline.is_some() || ask.throttle.is_some();
        keeps_time.then(|| *self.began.get_or_insert_with(Instant::now))
    }

    pub(super) fn time(&self, after: Duration) -> Instant {
        let began = self.began.unwrap_or_else(Instant::now);
        // A throttle of a byte a second may ask for more time than the clock can tell.
        began
            .checked_add(after)
            .unwrap_or_else(|| began + Duration::from_secs(365 * 24 * 3600))
    }

    /// How long the file under way is not to be looked at again, for a driver that waits so long
    /// itself.
    pub(super) fn take_stat_pause(&mut self) -> Option<Duration> {
        let at = self.stat_again_at.take()?;
        let left = at.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Says that something was waited for since it was made: a version that was
    /// [fresh](crate::FileRange::version_is_fresh) then is compared again before anything of the file is
    /// sent. What its own turns wait for is known.
    pub const fn time_passed(&mut self) {
        self.machine.time_passed();
    }

    /// Stops it. The next turn says so.
    pub fn stop(&mut self, stop: Stop) {
        if let Some(part) = &mut self.file {
            part.state.held_mut().transfer.stop(stop);
        }
        self.machine.stop(stop);
    }

    /// Bytes that the socket took.
    pub fn moved(&self) -> u64 {
        let of_file = self
            .file
            .as_ref()
            .map_or(0, |part| part.state.transfer().moved());
        self.machine.moved() + of_file
    }

    /// The account so far, without the file that is under way.
    pub fn summary(&self) -> SendSummary {
        self.machine.summary()
    }

    /// Everything that was to be sent.
    pub const fn aggregate(&self) -> &Aggregate {
        &self.aggregate
    }

    /// What the socket has not taken.
    pub fn into_rest(self) -> Aggregate {
        let moved = self.moved();
        let mut rest = self.aggregate;
        rest.advance(moved);
        rest
    }
}

impl fmt::Debug for SendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendState")
            .field("moved", &self.moved())
            .field("len", &self.aggregate.len())
            .finish_non_exhaustive()
    }
}
