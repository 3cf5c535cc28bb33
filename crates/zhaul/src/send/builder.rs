//! The builder behind [`send()`].

use std::num::NonZeroU64;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use zhaul_core::outbound::{MAX_GATHERED_SEGMENTS, SendError, ZeroCopy};
use zhaul_core::{Ask, Cause, InPlaceEnd, Operation, Refusal, SinkFacts, SinkKind, Stability};

use super::SendState;
use super::zero_copy::{ByReference, ZeroCopySender};
use crate::cancel::CancelToken;
#[cfg(feature = "tokio")]
use crate::cold::ColdPool;
use crate::endpoint;
use crate::handle::Handle;
use crate::memory::{Aggregate, Segment};
use crate::pipe_pool::PipePool;
use crate::progress::Progress;
#[cfg(feature = "tokio")]
use crate::residency::ResidencyCache;

/// An aggregate to be sent; see [`send()`].
///
/// What others watch may be lent (`&progress`) or shared (`Arc<Progress>`), as for
/// [`Haul`](crate::Haul).
#[derive(Debug)]
#[must_use = "nothing is sent before run() or run_async()"]
pub struct SendBuilder<'a, K> {
    pub(super) state: SendState,
    pub(super) socket: K,
    pub(super) cancel: Option<CancelToken>,
    pub(super) progress: Option<Handle<'a, Progress>>,
    pub(super) pipes: Option<PipePool>,
    pub(super) by_reference: ByReference<'a>,
    #[cfg(feature = "tokio")]
    pub(super) cold: Option<std::sync::Arc<ColdPool>>,
    #[cfg(feature = "tokio")]
    pub(super) residency: Option<Handle<'a, ResidencyCache>>,
}

/// Describes the sending of an aggregate, which [`SendBuilder::run`] or [`SendBuilder::run_async`] does:
/// to a stream socket; or to one that keeps message boundaries if it is memory and one call takes it,
/// as one message.
///
/// ```no_run
/// # fn example(body: bytes::Bytes, socket: std::net::TcpStream) -> Result<(), zhaul::SendError> {
/// let header = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
/// zhaul::send((header, body), &socket).run()?;
/// # Ok(())
/// # }
/// ```
pub fn send<'a, K>(aggregate: impl Into<Aggregate>, socket: K) -> SendBuilder<'a, K> {
    SendState::with(aggregate, &Ask::default()).to(socket)
}

impl SendState {
    /// Sends on from where it stands, on this thread or on a task: what was an answer of an event
    /// loop's turns, and has to wait for a disk now. It is the same socket.
    pub const fn to<'a, K>(self, socket: K) -> SendBuilder<'a, K> {
        SendBuilder {
            state: self,
            socket,
            cancel: None,
            progress: None,
            pipes: None,
            by_reference: ByReference::Never,
            #[cfg(feature = "tokio")]
            cold: None,
            #[cfg(feature = "tokio")]
            residency: None,
        }
    }
}

impl<'a, K> SendBuilder<'a, K> {
    /// What the socket is, for a caller who has examined it; nothing is asked then.
    pub const fn sink_facts(mut self, facts: SinkFacts) -> Self {
        self.state.sink = Some(facts);
        self
    }

    /// Largest amount of a file per system call; 1 MiB without this.
    pub fn chunk_bytes(self, bytes: usize) -> Self {
        self.asking(|ask| ask.chunk_bytes = bytes)
    }

    /// Bytes before other tasks of the runtime get their turn; 1 MiB without this.
    pub fn budget_bytes(self, bytes: usize) -> Self {
        self.asking(|ask| ask.budget_bytes = bytes)
    }

    /// Gives up so long after the start.
    pub fn deadline(self, after: Duration) -> Self {
        self.asking(|ask| ask.deadline = Some(after))
    }

    /// Sends at most so many bytes a second.
    pub fn throttle(self, bytes_per_second: NonZeroU64) -> Self {
        self.asking(|ask| ask.throttle = Some(bytes_per_second))
    }

    /// Whether to wait until nobody's memory is read any more and what was sent in place of leased
    /// files is acknowledged; true without this, but for an [`SendState`] of one's own. Memory that is
    /// not waited for is kept by the sender.
    pub fn await_release(self, wanted: bool) -> Self {
        self.asking(|ask| ask.await_release = wanted)
    }

    /// More is certain to be sent at once behind it: its last bytes may wait for that (`MSG_MORE`).
    pub fn more_follows(self, certain: bool) -> Self {
        self.asking(|ask| ask.more_follows = certain)
    }

    /// Of something that is under way, budget and rate stay.
    fn asking(mut self, change: impl FnOnce(&mut Ask)) -> Self {
        let mut ask = *self.state.machine.ask();
        change(&mut ask);
        self.state.machine.set_ask(&ask);
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

    /// Sends large pieces of memory by reference (MSG_ZEROCOPY), on TCP; without this all memory is
    /// copied. What cannot go so is copied, and [`SendSummary::changes`](crate::SendSummary::changes) tells why.
    ///
    /// The sender is made for this one aggregate, which costs some ten system calls; a connection
    /// that sends many has [one of its own](Self::zero_copy_sender). If the sending fails, is stopped
    /// or dropped while the peer has not acknowledged all, and nothing more is acknowledged for 60
    /// seconds, the connection is reset, whoever else may still use it.
    pub fn zero_copy(mut self, mode: ZeroCopy) -> Self {
        self.by_reference = ByReference::Wanted(mode);
        self
    }

    /// Sends large pieces of memory by the sender of this connection.
    pub fn zero_copy_sender(mut self, sender: &'a mut ZeroCopySender) -> Self {
        self.by_reference = ByReference::Lent(sender);
        self
    }

    /// Takes pipes from this pool instead of [`PipePool::shared`].
    pub fn pipes(mut self, pool: &PipePool) -> Self {
        self.pipes = Some(pool.clone());
        self
    }

    /// Finds out what the socket is, where that matters.
    pub(super) fn examine(&self, socket: BorrowedFd<'_>) -> Result<(), SendError> {
        if self.state.sink.is_some() || !self.takes_more_than_one_call() {
            return Ok(());
        }
        let refused = |refusal| Err(SendError::before_start(Cause::Refused { refusal }));
        let facts = endpoint::sink_facts_with(socket, |_| InPlaceEnd::Never).map_err(|errno| {
            let operation = Operation::ExamineSink;
            SendError::before_start(Cause::Io { operation, errno })
        })?;
        match facts.kind {
            SinkKind::StreamSocket => Ok(()),
            SinkKind::MessageSocket => refused(Refusal::SinkKeepsMessages),
            _ => refused(Refusal::SinkIsNoSocket),
        }
    }

    fn takes_more_than_one_call(&self) -> bool {
        let aggregate = &self.state.aggregate;
        let is_file = |segment: &Segment| matches!(segment, Segment::File(_));
        !self.by_reference.is_never()
            || aggregate.segment_count() > MAX_GATHERED_SEGMENTS
            || aggregate.len() > self.state.machine.ask().budget_bytes as u64
            || aggregate.segments().any(is_file)
    }

    /// Whether it matters where the peer is: only leased files are held until it has acknowledged.
    pub(super) fn asks_for_peer(&self) -> bool {
        let is_leased = |segment: &Segment| match segment {
            Segment::File(range) => range.ask().stability == Stability::Leased,
            Segment::Memory(_) => false,
        };
        self.state.sink.is_none() && self.state.aggregate.segments().any(is_leased)
    }
}
