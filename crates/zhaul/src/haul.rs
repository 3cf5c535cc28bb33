//! The builder behind [`transfer`].

#[cfg(feature = "tokio")]
mod task;

use std::num::NonZeroU64;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use zhaul_core::{
    Ask, Errno, HostFacts, Length, Operation, Plan, Route, SinkFacts, SourceFacts, Stability,
    Summary, Transfer, TransferError,
};

use crate::blocking;
use crate::cancel::CancelToken;
#[cfg(feature = "tokio")]
use crate::cold::ColdPool;
use crate::endpoint;
use crate::hands::Hands;
use crate::lease::{self, Lease};
use crate::pipe_pool::PipePool;
use crate::progress::Progress;

/// A transfer to be made; see [`transfer`].
#[derive(Debug)]
#[must_use = "nothing moves before run() or run_async()"]
pub struct Haul<'a, S, K> {
    source: S,
    sink: K,
    ask: Ask,
    lease: Option<&'a Lease>,
    cancel: Option<&'a CancelToken>,
    progress: Option<&'a Progress>,
    pipes: Option<&'a PipePool>,
    #[cfg(feature = "tokio")]
    cold: Option<&'a std::sync::Arc<ColdPool>>,
}

/// Describes a transfer from `source` to `sink`, which [`Haul::run`] or [`Haul::run_async`] makes.
///
/// A seekable source is read from offset 0 or [`Haul::offset`]; its own position is neither used
/// nor moved. A sink is written at its own position, as `write(2)` does.
pub fn transfer<'a, S, K>(source: S, sink: K) -> Haul<'a, S, K> {
    Haul {
        source,
        sink,
        ask: Ask::default(),
        lease: None,
        cancel: None,
        progress: None,
        pipes: None,
        #[cfg(feature = "tokio")]
        cold: None,
    }
}

impl<'a, S, K> Haul<'a, S, K> {
    /// Where to start in a seekable source.
    pub const fn offset(mut self, offset: u64) -> Self {
        self.ask.offset = offset;
        self
    }

    /// Exactly so many bytes; without this, until the source ends.
    pub const fn length(mut self, bytes: u64) -> Self {
        self.ask.length = Length::Exact(bytes);
        self
    }

    /// Where to start in a seekable sink, whose own position is then neither used nor moved.
    pub const fn sink_offset(mut self, offset: u64) -> Self {
        self.ask.sink_offset = Some(offset);
        self
    }

    /// Who else may write to the source. Without this [`Stability::MayChange`]: files are copied.
    pub const fn stability(mut self, stability: Stability) -> Self {
        self.ask.stability = stability;
        self
    }

    /// Largest amount per system call; 1 MiB without this.
    pub const fn chunk_bytes(mut self, bytes: usize) -> Self {
        self.ask.chunk_bytes = bytes;
        self
    }

    /// Bytes before other tasks of the runtime get their turn; 1 MiB without this.
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

    /// Stops when cancelled.
    pub const fn cancel(mut self, cancel: &'a CancelToken) -> Self {
        self.cancel = Some(cancel);
        self
    }

    /// Counts here while it runs.
    pub const fn progress(mut self, progress: &'a Progress) -> Self {
        self.progress = Some(progress);
        self
    }

    /// Relies on this lease on the source, and stops when it breaks. Implies
    /// [`Stability::Leased`]. When the transfer is done the lease may be dropped; after an error,
    /// too, unless it says that pages are [in flight](TransferError::in_flight).
    pub const fn lease(mut self, lease: &'a Lease) -> Self {
        self.lease = Some(lease);
        self.ask.stability = Stability::Leased;
        self
    }

    /// Takes pipes from this pool instead of [`PipePool::shared`].
    pub const fn pipes(mut self, pool: &'a PipePool) -> Self {
        self.pipes = Some(pool);
        self
    }
}

/// What was found out about the two ends.
struct Facts {
    source: SourceFacts,
    sink: SinkFacts,
    host: HostFacts,
}

impl<S: AsFd, K: AsFd> Haul<'_, S, K> {
    /// The route that would be taken, why, and what spoke against the others.
    ///
    /// # Errors
    /// If an end cannot be examined: not open, a directory, open the wrong way round.
    pub fn plan(&self) -> Result<Plan, Errno> {
        let facts = self.facts()?;
        Ok(self.plan_with(&facts))
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
        let (transfer, hands, _) = self.prepare()?;
        let control = blocking::Control {
            lease: self.lease,
            cancel: self.cancel,
            progress: self.progress,
            began: Instant::now(),
            keeps_time: self.keeps_time(),
        };
        blocking::drive(
            self.source.as_fd(),
            self.sink.as_fd(),
            transfer,
            hands,
            control,
        )
    }

    fn facts(&self) -> Result<Facts, Errno> {
        Ok(Facts {
            source: endpoint::source_facts(&self.source)?,
            sink: endpoint::sink_facts(&self.sink)?,
            host: endpoint::host_facts(),
        })
    }

    fn plan_with(&self, facts: &Facts) -> Plan {
        Plan::select(&facts.source, &facts.sink, &facts.host, &self.ask)
    }

    fn prepare(&self) -> Result<(Transfer, Hands, Facts), TransferError> {
        let facts = self
            .facts()
            .map_err(|errno| TransferError::before_start(Operation::Examine, errno))?;
        lease::covers(self.lease, &facts.source, self.ask.stability)
            .map_err(TransferError::refused)?;
        let plan = self.plan_with(&facts);
        let transfer = Transfer::new(plan, &facts.source, &facts.sink, &facts.host, &self.ask)?;
        let hands = Hands::new(&facts.source, &facts.sink, self.pipes.cloned());
        Ok((transfer, hands, facts))
    }

    const fn keeps_time(&self) -> bool {
        self.ask.deadline.is_some() || self.ask.throttle.is_some()
    }
}
