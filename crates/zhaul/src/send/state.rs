//! [`SendState`]: an aggregate under way, which an event loop of one's own gives its turns.

use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use zhaul_core::outbound::{
    Outbound, OutboundStep, SegmentFacts, SegmentList, SendError, SendSummary, ZeroCopyPolicy,
};
use zhaul_core::{Ask, InPlaceEnd, Operation, SinkFacts, SourceFacts, SourceKind, Step, Stop};

use super::gather;
#[cfg(feature = "tokio")]
use crate::async_io::{DriveState as FileState, Watch};
use crate::calls::Buffers;
use crate::endpoint;
use crate::in_flight::is_in_flight;
use crate::lease;
use crate::memory::{Aggregate, Segment};
use crate::pipe_pool::PipePool;
use crate::progress::Progress;
use crate::residency::{ResidencyCache, is_resident};
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

/// What a turn works with.
#[derive(Clone, Copy, Debug, Default)]
pub struct TurnTerms<'a> {
    /// Pages of files that are not known here, nor found in memory, are not touched: the turn ends
    /// with [`Advance::Cold`]. Without a cache a turn may wait for a disk.
    pub residency: Option<&'a ResidencyCache>,
    /// Counts here.
    pub progress: Option<&'a Progress>,
}

/// What a turn came to. Exhaustive: an event loop that forgot one would spin or stall.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Advance {
    /// All of it is in the socket.
    Done(SendSummary),
    /// The socket takes no more: another turn when it is writable.
    Blocked,
    /// There is more to do: another turn, after the others had theirs.
    Again,
    /// Another turn at this time, or a little later: of a throttle, or because a file or an
    /// acknowledgement is to be looked at again.
    Later(Instant),
    /// What is next has to be read from a disk. A task ([`SendState::to`]) has that done by a pool.
    Cold,
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

    /// Sends what can be sent now, up to the budget. The socket is in non-blocking mode or not: no
    /// turn waits for it, except in `sendfile(2)` and `splice(2)` on one in blocking mode.
    ///
    /// # Errors
    /// Why it stopped, and how much was sent before. Another turn says the same.
    pub fn turn(&mut self, socket: impl AsFd, terms: TurnTerms<'_>) -> Result<Advance, SendError> {
        let socket = socket.as_fd();
        loop {
            self.tick();
            match self.next() {
                OutboundStep::Send(gather) => {
                    let sent = gather::send(socket, &self.aggregate, &gather, false);
                    self.machine.complete(gather, sent, None);
                    self.publish(terms.progress);
                }
                OutboundStep::File { segment } => {
                    if let Some(advance) = self.turn_of_file(segment, socket, terms) {
                        return Ok(advance);
                    }
                }
                OutboundStep::Wait(_) => return Ok(Advance::Blocked),
                OutboundStep::Yield => return Ok(Advance::Again),
                OutboundStep::Pause { until } => return Ok(Advance::Later(self.time(until))),
                OutboundStep::Reap | OutboundStep::AwaitRelease => {}
                OutboundStep::Done(outcome) => return outcome.map(Advance::Done),
            }
        }
    }

    pub(super) fn next(&mut self) -> OutboundStep {
        self.machine.next(&self.aggregate)
    }

    /// `None` once the file is done.
    fn turn_of_file(
        &mut self,
        segment: usize,
        socket: BorrowedFd<'_>,
        terms: TurnTerms<'_>,
    ) -> Option<Advance> {
        if !self.begin_file(segment, InPlaceEnd::Never, None) {
            return None;
        }
        let (Some(part), Some(Segment::File(range))) =
            (&mut self.file, self.aggregate.get(segment))
        else {
            return None;
        };
        let residency = terms.residency.filter(|_| part.is_on_disk());
        let (file, version) = (range.file().as_fd(), part.source.version);
        let held = part.state.held_mut();
        if let Some(began) = self.began {
            held.transfer.tick(began.elapsed());
        }
        if range.held_lease().is_some_and(|lease| lease.is_broken()) {
            held.transfer.stop(Stop::LeaseBroken);
        }
        let step = held.advance((file, socket), terms.progress, |op| {
            match (residency, op.source_range()) {
                (Some(cache), Some((offset, len))) => {
                    let end = offset.saturating_add(len as u64);
                    version.is_some_and(|version| is_resident(file, &version, offset..end, cache))
                }
                _ => true,
            }
        });
        let now = Instant::now;
        match step {
            Step::Submit(_) => Some(Advance::Cold),
            Step::Wait(_) => Some(Advance::Blocked),
            Step::Yield => Some(Advance::Again),
            Step::Pause { until } => Some(Advance::Later(self.time(until))),
            Step::StatAgain { after } => Some(Advance::Later(now() + after)),
            Step::AwaitRelease => {
                match is_in_flight(socket) {
                    Ok(false) => held.transfer.released(),
                    Ok(true) => return Some(Advance::Later(now() + LOOK_AGAIN)),
                    Err(errno) => held.transfer.fail(Operation::Wait, errno),
                }
                None
            }
            Step::Done(_) => {
                held.publish_end(terms.progress);
                self.end_file();
                None
            }
        }
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
        let ask = self.machine.ask();
        if ask.deadline.is_some() || ask.throttle.is_some() {
            let began = *self.began.get_or_insert_with(Instant::now);
            self.machine.tick(began.elapsed());
        }
    }

    fn time(&self, after: Duration) -> Instant {
        let began = self.began.unwrap_or_else(Instant::now);
        // A throttle of a byte a second may ask for more time than the clock can tell.
        began
            .checked_add(after)
            .unwrap_or_else(|| began + Duration::from_secs(365 * 24 * 3600))
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

/// How long an acknowledgement is not asked for again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);
