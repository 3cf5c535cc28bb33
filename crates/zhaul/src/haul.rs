//! The builder behind [`transfer`].

mod position;
#[cfg(feature = "tokio")]
mod running;
#[cfg(feature = "tokio")]
mod task;

use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use zhaul_core::{
    Ask, InPlaceEnd, Length, Operation, Plan, Route, SinkFacts, SourceFacts, Stability, Summary,
    Transfer, TransferError,
};

use crate::blocking;
use crate::calls::Buffers;
use crate::cancel::CancelToken;
#[cfg(feature = "tokio")]
use crate::cold::ColdPool;
use crate::endpoint;
use crate::handle::Handle;
use crate::lease::{self, Lease};
use crate::peer;
use crate::pipe_pool::PipePool;
use crate::progress::Progress;
use crate::reserve::Reservation;
#[cfg(feature = "tokio")]
use crate::residency::ResidencyCache;
use position::Position;
#[cfg(feature = "tokio")]
pub use running::Running;
#[cfg(feature = "tokio")]
pub(crate) use task::{in_place_end_of, shared_cache};

/// A transfer to be made; see [`transfer`].
///
/// What others watch, stop or hold may be lent (`&progress`) or shared (`Arc<Progress>`): with
/// owned ends and nothing lent, the future of [`run_async`](Self::run_async) is `'static`.
#[derive(Debug)]
#[must_use = "nothing moves before run() or run_async()"]
pub struct Haul<'a, S, K> {
    source: S,
    sink: K,
    ask: Ask,
    from_position: bool,
    reserve: bool,
    source_facts: Option<SourceFacts>,
    sink_facts: Option<SinkFacts>,
    lease: Option<Handle<'a, Lease>>,
    cancel: Option<CancelToken>,
    progress: Option<Handle<'a, Progress>>,
    pipes: Option<PipePool>,
    #[cfg(feature = "tokio")]
    cold: Option<std::sync::Arc<ColdPool>>,
    #[cfg(feature = "tokio")]
    residency: Option<Handle<'a, ResidencyCache>>,
}

/// Describes a transfer from `source` to `sink`, which [`Haul::run`] or [`Haul::run_async`] makes.
///
/// A seekable source is read from offset 0 or [`Haul::offset`]; its own position is neither used
/// nor moved, unless [`Haul::from_position`] says so, as it should for standard input. A sink is
/// written at its own position, as `write(2)` does.
///
/// Without a word about who else may write to the source, a file is *copied*
/// ([`Stability::MayChange`]): say [`Haul::stability`] or hold a [`Haul::lease`] to have its pages
/// sent without copying them.
pub fn transfer<'a, S, K>(source: S, sink: K) -> Haul<'a, S, K> {
    Haul {
        source,
        sink,
        ask: Ask::default(),
        from_position: false,
        reserve: false,
        source_facts: None,
        sink_facts: None,
        lease: None,
        cancel: None,
        progress: None,
        pipes: None,
        #[cfg(feature = "tokio")]
        cold: None,
        #[cfg(feature = "tokio")]
        residency: None,
    }
}

/// What to move.
impl<'a, S, K> Haul<'a, S, K> {
    /// Where to start in a seekable source. Anything but 0 is refused for a stream.
    pub const fn offset(mut self, offset: u64) -> Self {
        self.ask.offset = offset;
        self.from_position = false;
        self
    }

    /// Starts where the descriptor of the source stands, and leaves it behind the last byte that
    /// was moved, also after an error or when the future is dropped: for a source that is shared in
    /// turns, as standard input is. A stream has no other position and is taken as it comes.
    pub const fn from_position(mut self) -> Self {
        self.from_position = true;
        self
    }

    /// Exactly so many bytes; without this, until the source ends.
    pub const fn length(mut self, bytes: u64) -> Self {
        self.ask.length = Length::Exact(bytes);
        self
    }

    /// The bytes of a seekable source from `range.start` to before `range.end`.
    pub const fn range(self, range: Range<u64>) -> Self {
        self.offset(range.start)
            .length(range.end.saturating_sub(range.start))
    }

    /// Where to start in a seekable sink, whose own position is then neither used nor moved.
    pub const fn sink_offset(mut self, offset: u64) -> Self {
        self.ask.sink_offset = Some(offset);
        self
    }

    /// The sink is a file of this transfer's alone, as an upload's is, and the
    /// [`length`](Self::length) is known. Its blocks are reserved first (`fallocate(2)`), so that too
    /// little room is an error before anything is moved; [`Summary::reserved`] says how much. What is
    /// not filled is given back (others must not append at that moment), and the file is never longer
    /// than what was written. With a [`sink_offset`](Self::sink_offset), a sink that somebody cuts
    /// meanwhile is [`Cause::SinkTruncated`](zhaul_core::Cause::SinkTruncated) instead of a hole.
    pub const fn reserve(mut self, wanted: bool) -> Self {
        self.reserve = wanted;
        self
    }
}

/// What is known about the ends.
impl<'a, S, K> Haul<'a, S, K> {
    /// Who else may write to the source. Without this [`Stability::MayChange`]: files are copied.
    pub const fn stability(mut self, stability: Stability) -> Self {
        self.ask.stability = stability;
        self
    }

    /// Relies on this lease on the source, and stops when it breaks. Implies
    /// [`Stability::Leased`]. When the transfer is done the lease may be dropped; after an error,
    /// too, unless it says that pages are [in flight](TransferError::in_flight).
    pub fn lease(mut self, lease: impl Into<Handle<'a, Lease>>) -> Self {
        self.lease = Some(lease.into());
        self.ask.stability = Stability::Leased;
        self
    }

    /// All bytes come from one version of the file, or the transfer ends before the first that does
    /// not. Costs an fstat for each read where the file is copied.
    pub const fn one_version(mut self, wanted: bool) -> Self {
        self.ask.one_version = wanted;
        self
    }

    /// Where versions are compared, a move of ctime alone counts as an edit: an editor who sets mtime
    /// back is found, and a chmod, chown, setxattr or rename ends the transfer, too.
    pub const fn ctime_is_edit(mut self, wanted: bool) -> Self {
        self.ask.ctime_is_edit = wanted;
        self
    }

    /// What the source is, for a caller who has examined it; nothing is asked then.
    pub const fn source_facts(mut self, facts: SourceFacts) -> Self {
        self.source_facts = Some(facts);
        self
    }

    /// The version in [`source_facts`](Self::source_facts) was read just now: the first chunk needs
    /// no check of its own.
    pub const fn version_is_fresh(mut self, fresh: bool) -> Self {
        self.ask.version_is_fresh = fresh;
        self
    }

    /// What the sink is, for a caller who has examined it; nothing is asked then.
    pub const fn sink_facts(mut self, facts: SinkFacts) -> Self {
        self.sink_facts = Some(facts);
        self
    }
}

/// How to move it.
impl<'a, S, K> Haul<'a, S, K> {
    /// Largest amount per system call; 1 MiB without this. 0 is refused, and more than 1 GiB, on
    /// tokio 16 MiB, is that much.
    pub const fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.ask.chunk_bytes = bytes;
        self
    }

    /// Bytes before other tasks of the runtime get their turn; 1 MiB without this. 0 is refused.
    pub const fn budget_bytes(mut self, bytes: usize) -> Self {
        self.ask.budget_bytes = bytes;
        self
    }

    /// Gives up so long after the start.
    pub const fn deadline(mut self, after: Duration) -> Self {
        self.ask.deadline = Some(after);
        self
    }

    /// Moves at most so many bytes a second.
    pub const fn throttle(mut self, bytes_per_second: NonZeroU64) -> Self {
        self.ask.throttle = Some(bytes_per_second);
        self
    }

    /// Takes this route or fails.
    pub const fn only(mut self, route: Route) -> Self {
        self.ask.only = Some(route);
        self
    }

    /// Whether to wait, under a lease, until what was sent in place is acknowledged; true without
    /// this. Otherwise the transfer is done when all is queued, and if
    /// [`Summary::sent_in_place`] the lease has to be held until the receiver has acknowledged it.
    pub const fn await_release(mut self, wanted: bool) -> Self {
        self.ask.await_release = wanted;
        self
    }

    /// Stops when cancelled.
    pub fn cancel(mut self, cancel: impl Into<CancelToken>) -> Self {
        self.cancel = Some(cancel.into());
        self
    }

    /// Counts here while it runs.
    pub fn progress(mut self, progress: impl Into<Handle<'a, Progress>>) -> Self {
        self.progress = Some(progress.into());
        self
    }

    /// Takes pipes from this pool instead of [`PipePool::shared`].
    pub fn pipes(mut self, pool: &PipePool) -> Self {
        self.pipes = Some(pool.clone());
        self
    }
}

/// A transfer that is about to begin.
struct Prepared {
    transfer: Transfer,
    buffers: Buffers,
    source: SourceFacts,
    sink: SinkFacts,
}

impl<S: AsFd, K: AsFd> Haul<'_, S, K> {
    /// The route that would be taken, why, and what spoke against the others.
    ///
    /// # Errors
    /// If an end cannot be examined: not open, a directory, open the wrong way round. If what is
    /// asked for is refused; but a lease may be taken after planning.
    pub fn plan(&self) -> Result<Plan, TransferError> {
        // What it costs depends on the way to the peer.
        let (source, sink) = (self.source.as_fd(), self.sink.as_fd());
        let prepared = self.examine(source, sink, |sink| peer::in_place_end(sink))?;
        Ok(*prepared.transfer.plan())
    }

    /// Makes the transfer on this thread and returns when it is done.
    ///
    /// Descriptors may be in either mode. With a deadline, a token or a lease it waits for its ends in
    /// `poll(2)` only and stops at once, or within a tick of the kernel's clock (1 to 10 ms), also
    /// if they are in blocking mode. The kernel having no "do not wait" flag for most of the calls,
    /// this changes something of such ends until it returns: a socket has a timeout in the
    /// direction that is used (`SO_SNDTIMEO` of the sink, `SO_RCVTIMEO` of the source), and what
    /// cannot be opened anew through `/proc/thread-self/fd` is in non-blocking mode for all who
    /// share the open file description. Without any of the three, calls wait as the mode of the
    /// descriptors says.
    ///
    /// # Errors
    /// Why it stopped, and how many bytes were moved before.
    pub fn run(self) -> Result<Summary, TransferError> {
        let (source, sink) = (self.source.as_fd(), self.sink.as_fd());
        let counted = Progress::new();
        let progress = self.counts_in(&counted);
        let mut prepared = self.prepare(source, sink, |sink| {
            if self.asks_for_peer() {
                peer::in_place_end(sink)
            } else {
                InPlaceEnd::Never
            }
        })?;
        let mut reserved = None;
        if self.reserve {
            reserved = Reservation::make(sink, &prepared.sink, &self.ask)?;
        }
        if let Some(reserved) = &reserved {
            reserved.tell(&mut prepared.transfer, &mut prepared.buffers);
        }
        let _position = self.keep_position(source, progress)?;
        let control = blocking::Control {
            lease: self.lease.as_deref(),
            cancel: self.cancel.as_ref(),
            progress,
            began: self.keeps_time().then(Instant::now),
        };
        let ends = (source, sink);
        blocking::drive(ends, prepared.transfer, prepared.buffers, reserved, control)
    }
}

impl<S, K> Haul<'_, S, K> {
    fn prepare(
        &self,
        source: BorrowedFd<'_>,
        sink: BorrowedFd<'_>,
        in_place_end: impl FnOnce(BorrowedFd<'_>) -> InPlaceEnd,
    ) -> Result<Prepared, TransferError> {
        let prepared = self.examine(source, sink, in_place_end)?;
        lease::covers(self.lease.as_deref(), &prepared.source, self.ask.stability)
            .map_err(TransferError::refused)?;
        Ok(prepared)
    }

    fn examine(
        &self,
        source_fd: BorrowedFd<'_>,
        sink_fd: BorrowedFd<'_>,
        in_place_end: impl FnOnce(BorrowedFd<'_>) -> InPlaceEnd,
    ) -> Result<Prepared, TransferError> {
        let source = match self.source_facts {
            Some(facts) => facts,
            None => endpoint::source_facts(source_fd)
                .map_err(|errno| TransferError::before_start(Operation::ExamineSource, errno))?,
        };
        let sink = match self.sink_facts {
            Some(facts) => facts,
            None => endpoint::sink_facts_with(sink_fd, in_place_end)
                .map_err(|errno| TransferError::before_start(Operation::ExamineSink, errno))?,
        };
        let mut ask = self.ask;
        if self.from_position {
            // A stream has no other.
            ask.offset = if source.seekable {
                position(source_fd)?
            } else {
                0
            };
        }
        let host = endpoint::host_facts();
        let plan = Plan::select(&source, &sink, &host, &ask);
        Ok(Prepared {
            transfer: Transfer::new(plan, &source, &sink, &host, &ask)?,
            buffers: Buffers::new(&source, &sink, self.pipes.clone()),
            source,
            sink,
        })
    }

    /// Where to count what is moved: with a position to keep, somewhere.
    fn counts_in<'b>(&'b self, own: &'b Progress) -> Option<&'b Progress> {
        let asked = self.progress.as_deref();
        asked.or_else(|| self.from_position.then_some(own))
    }

    fn keep_position<'b>(
        &self,
        source: BorrowedFd<'b>,
        progress: Option<&'b Progress>,
    ) -> Result<Option<Position<'b>>, TransferError> {
        match progress.filter(|_| self.from_position && endpoint::is_seekable(source)) {
            Some(progress) => Ok(Some(Position::keep(source, position(source)?, progress))),
            None => Ok(None),
        }
    }

    /// Whether it matters where the peer of the sink is: only a lease is held until it has
    /// acknowledged.
    fn asks_for_peer(&self) -> bool {
        self.ask.stability == Stability::Leased && self.sink_facts.is_none()
    }

    const fn keeps_time(&self) -> bool {
        self.ask.deadline.is_some() || self.ask.throttle.is_some()
    }
}

fn position(source: BorrowedFd<'_>) -> Result<u64, TransferError> {
    Position::of(source)
        .map_err(|errno| TransferError::before_start(Operation::ExamineSource, errno))
}
