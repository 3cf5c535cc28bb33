//! The asynchronous half of the builder.

use std::future::{Future, IntoFuture};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use zhaul_core::{
    InPlaceEnd, Operation, Refusal, SinkKind, SourceKind, Summary, Transfer, TransferError, Version,
};

use super::{Haul, Prepared, Running};
use crate::async_io::{
    AsyncEnd, AtDrop, Control, CopyState, Drive, DriveState, Goal, Kept, MAX_READ_BYTES, ReadAhead,
    Registered, drive_files,
};
use crate::cold::ColdPool;
use crate::endpoint;
use crate::errno::errno_of;
use crate::handle::Handle;
use crate::peer;
use crate::progress::Progress;
use crate::reserve::Reservation;
use crate::residency::ResidencyCache;

/// A transfer under way.
pub(super) enum Begun {
    /// On the task that drives it.
    OnTask {
        state: Box<DriveState>,
        disk: Option<Disk>,
    },
    /// By threads that may wait.
    Files(Box<CopyState>),
}

impl Begun {
    pub(super) const fn transfer(&self) -> &Transfer {
        match self {
            Self::OnTask { state, .. } => state.transfer(),
            Self::Files(state) => state.transfer(),
        }
    }
}

/// A copy that is not driven on when its future is dropped.
struct Settled<'a> {
    state: CopyState,
    progress: Option<&'a Progress>,
    /// A position hangs on what is counted: it ends with no call under way.
    counts_position: bool,
}

impl Drop for Settled<'_> {
    fn drop(&mut self) {
        if self.counts_position {
            self.state.settle(self.progress);
        }
        self.state.publish_end(self.progress);
    }
}

/// A source whose pages may have to be read first.
#[derive(Clone, Copy)]
pub(super) struct Disk {
    version: Option<Version>,
    end: Option<u64>,
}

/// What transfers on tokio need besides.
impl<'a, S, K> Haul<'a, S, K> {
    /// Has cold pages read, and files written, by this pool instead of [`ColdPool::shared`] and
    /// another of the process's for what is written. Who writes to a disk that may stall gives it a
    /// pool of its own, and it holds up nobody else.
    pub fn cold_pool(mut self, pool: &Arc<ColdPool>) -> Self {
        self.cold = Some(Arc::clone(pool));
        self
    }

    /// Remembers here which files were found in memory, instead of in the residency cache of the process.
    pub fn residency(mut self, cache: impl Into<Handle<'a, ResidencyCache>>) -> Self {
        self.residency = Some(cache.into());
        self
    }
}

impl<'a, S: AsyncEnd + Sync, K: AsyncEnd + Sync> Haul<'a, S, K> {
    /// Makes the transfer on this task; see [`crate::async_io`]. Awaiting the builder does the same.
    ///
    /// Cold pages of a file are read by a pool. Calls that write to a file on a disk are made there,
    /// and from file to file all of them, since any may wait. Dropping the future stops it there too,
    /// but one call that a thread is making at that moment may still write what it was asked to: at
    /// most [`Haul::chunk_bytes`], capped at 16 MiB. From a file with [`Haul::from_position`] the drop
    /// waits for that call, on its own thread, since the position depends on what it moved.
    ///
    /// From a stream, dropping the future (as `tokio::time::timeout` does) loses what is on its way,
    /// unless the sink is a stream and takes it at that moment; [`Progress::stranded`] counts it, what
    /// a thread still writes included. To interrupt a
    /// transfer and go on, [`start`](Self::start) it.
    ///
    /// # Errors
    /// Why it stopped, and how many bytes were moved before.
    ///
    /// # Panics
    /// With a deadline or a throttle, on a runtime without timers.
    pub async fn run_async(mut self) -> Result<Summary, TransferError> {
        self.limit_chunks();
        if !self.source.is_registered() || !self.sink.is_registered() {
            return Box::pin(self.registered()?.run_registered()).await;
        }
        self.run_registered().await
    }

    async fn run_registered(&self) -> Result<Summary, TransferError> {
        if self.from_position {
            return Box::pin(self.run_from_position()).await;
        }
        self.perform(self.progress.as_deref()).await
    }

    /// Begins a transfer that can be interrupted and driven on without losing what is on its way.
    ///
    /// # Errors
    /// As [`run_async`](Self::run_async), before anything was moved.
    ///
    /// # Panics
    /// With a deadline or a throttle, on a runtime without timers.
    pub async fn start(mut self) -> Result<Running<'a, S, K>, TransferError> {
        self.limit_chunks();
        Running::new(self.registered()?).await
    }

    /// The same transfer, with ends that a reactor knows.
    fn registered(self) -> Result<Haul<'a, Registered<S>, Registered<K>>, TransferError> {
        let unless =
            |operation| move |error| TransferError::before_start(operation, errno_of(&error));
        let source = Registered::of(self.source)
            .map_err(|(_, error)| error)
            .map_err(unless(Operation::ExamineSource))?;
        let sink = Registered::of(self.sink)
            .map_err(|(_, error)| error)
            .map_err(unless(Operation::ExamineSink))?;
        Ok(Haul {
            source,
            sink,
            ask: self.ask,
            from_position: self.from_position,
            reserve: self.reserve,
            source_facts: self.source_facts,
            sink_facts: self.sink_facts,
            lease: self.lease,
            cancel: self.cancel,
            progress: self.progress,
            pipes: self.pipes,
            cold: self.cold,
            residency: self.residency,
        })
    }

    /// No more than is made resident at once.
    fn limit_chunks(&mut self) {
        self.ask.chunk_bytes = self.ask.chunk_bytes.min(MAX_READ_BYTES);
    }

    async fn run_from_position(&self) -> Result<Summary, TransferError> {
        let counted = Progress::new();
        let progress = self.counts_in(&counted);
        let _position = self.keep_position(self.source.fd(), progress)?;
        self.perform(progress).await
    }

    async fn perform(&self, progress: Option<&Progress>) -> Result<Summary, TransferError> {
        if self.is_made_by_threads() {
            return Box::pin(self.run_files(progress)).await;
        }
        let (mut state, disk) = self.hold(self.in_place_end().await)?;
        let control = self.control(progress, self.began());
        let (ends, read_ahead) = ((&self.source, &self.sink), self.read_ahead(disk));
        let drive = Drive::new(ends, &mut state, read_ahead, control, AtDrop::Flush);
        ended(drive.run(Goal::End).await, || state.transfer().summary())
    }

    /// True if writing to the sink may wait for a disk.
    fn is_made_by_threads(&self) -> bool {
        self.sink.is_file()
            && (self.source.is_file() || self.reserve || endpoint::waits_for_disk(self.sink.fd()))
    }

    /// The source, if it has to be waited for by the task.
    pub(super) fn stream(&self) -> Option<&S> {
        (!self.source.is_file()).then_some(&self.source)
    }

    /// Every call on a file is made by a thread that may wait.
    async fn run_files(&self, progress: Option<&Progress>) -> Result<Summary, TransferError> {
        let mut state = Settled {
            state: self.hold_files().await?,
            progress,
            counts_position: self.from_position && self.source.is_file(),
        };
        let control = self.control(progress, self.began());
        let ends = (self.stream(), &**self.copies());
        let outcome = drive_files(&mut state.state, ends, control, Goal::End).await;
        ended(outcome, || state.state.transfer().summary())
    }

    pub(super) async fn begin(&self) -> Result<Begun, TransferError> {
        if self.is_made_by_threads() {
            return self.hold_files().await.map(Box::new).map(Begun::Files);
        }
        let (state, disk) = self.hold(self.in_place_end().await)?;
        let state = Box::new(state);
        Ok(Begun::OnTask { state, disk })
    }

    /// Where page references in the sink end, if that matters.
    async fn in_place_end(&self) -> InPlaceEnd {
        if !self.asks_for_peer() || self.sink.is_file() {
            return InPlaceEnd::Never;
        }
        let pool = self.cold.as_ref().unwrap_or_else(|| ColdPool::shared());
        Box::pin(in_place_end_of(self.sink.fd(), pool)).await
    }

    fn hold(&self, in_place_end: InPlaceEnd) -> Result<(DriveState, Option<Disk>), TransferError> {
        let prepared = self.prepare(self.source.fd(), self.sink.fd(), |_| in_place_end)?;
        self.ready_ends(&prepared).map_err(TransferError::refused)?;
        let reads_disk = matches!(
            prepared.source.kind,
            SourceKind::Regular | SourceKind::Block
        );
        let disk = reads_disk.then(|| Disk {
            version: prepared.source.version,
            end: prepared.transfer.source_end(),
        });
        Ok((DriveState::new(prepared.transfer, prepared.buffers), disk))
    }

    async fn hold_files(&self) -> Result<CopyState, TransferError> {
        let (source, sink) = (self.source.fd(), self.sink.fd());
        let prepared = self.prepare(source, sink, |_| InPlaceEnd::Never)?;
        self.ready_ends(&prepared).map_err(TransferError::refused)?;
        let duplicate = |fd: BorrowedFd<'_>, operation| {
            fd.try_clone_to_owned()
                .map(Arc::new)
                .map_err(|error| TransferError::before_start(operation, errno_of(&error)))
        };
        let source = duplicate(self.source.fd(), Operation::ExamineSource)?;
        let sink = duplicate(self.sink.fd(), Operation::ExamineSink)?;
        let (mut transfer, mut buffers) = (prepared.transfer, prepared.buffers);
        let mut reserved = None;
        if self.reserve {
            let (file, facts, ask) = (Arc::clone(&sink), prepared.sink, self.ask);
            let make = move || Reservation::make(file.as_fd(), &facts, &ask);
            reserved = self.copies().run(make).await?;
        }
        if let Some(reserved) = &reserved {
            reserved.tell(&mut transfer, &mut buffers);
        }
        let reserved = reserved.map(|reserved| (Arc::new(reserved), Arc::clone(self.copies())));
        Ok(CopyState::new((source, sink), transfer, buffers, reserved))
    }

    /// For a source on a disk.
    pub(super) fn read_ahead(&self, disk: Option<Disk>) -> Option<ReadAhead<'_, Kept<'_, S>>> {
        let Disk { version, end } = disk?;
        Some(ReadAhead::new(
            Kept::new(&self.source),
            version,
            self.residency.as_deref().unwrap_or_else(|| shared_cache()),
            self.cold.as_ref().unwrap_or_else(|| ColdPool::shared()),
            self.ask.chunk_bytes,
            end,
        ))
    }

    /// Who makes the calls of a copy to a file.
    pub(super) fn copies(&self) -> &Arc<ColdPool> {
        self.cold.as_ref().unwrap_or_else(|| ColdPool::copies())
    }

    pub(super) fn control<'b>(
        &'b self,
        progress: Option<&'b Progress>,
        began: Option<Instant>,
    ) -> Control<'b> {
        Control {
            lease: self.lease.as_deref(),
            cancel: self.cancel.as_ref(),
            progress,
            began,
            deadline: self.ask.deadline,
        }
    }

    /// When it began, if that counts.
    ///
    /// # Panics
    /// If it counts and the runtime has no timers: now, and not when the first is due.
    pub(super) fn began(&self) -> Option<Instant> {
        self.keeps_time().then(|| {
            drop(tokio::time::sleep(Duration::ZERO));
            Instant::now()
        })
    }

    /// A FIFO, a socket or a terminal opened as a file is not always ready: it would hold the
    /// thread, or be asked again and again.
    fn ready_ends(&self, prepared: &Prepared) -> Result<(), Refusal> {
        let source_waits = !prepared.source.seekable;
        if source_waits && self.source.is_file() {
            return Err(Refusal::SourceNotAttached);
        }
        let sink_waits = match prepared.sink.kind {
            SinkKind::Regular | SinkKind::Block | SinkKind::Null => false,
            SinkKind::Device => !endpoint::is_seekable(self.sink.fd()),
            _ => true,
        };
        if sink_waits && self.sink.is_file() {
            return Err(Refusal::SinkNotAttached);
        }
        Ok(())
    }
}

/// `haul.await` is `haul.run_async().await` in a box.
impl<'a, S, K> IntoFuture for Haul<'a, S, K>
where
    S: AsyncEnd + Send + Sync + 'a,
    K: AsyncEnd + Send + Sync + 'a,
{
    type Output = Result<Summary, TransferError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run_async())
    }
}

/// Where page references in the sink end. To find out takes several system calls, which a thread of
/// the pool makes.
pub(crate) async fn in_place_end_of(sink: BorrowedFd<'_>, pool: &ColdPool) -> InPlaceEnd {
    let Ok(sink) = sink.try_clone_to_owned() else {
        return InPlaceEnd::Never;
    };
    pool.run(move || peer::in_place_end(&sink)).await
}

/// What transfers made by the builders found resident. The HTTP server has one per worker.
pub(crate) fn shared_cache() -> &'static ResidencyCache {
    static CACHE: OnceLock<ResidencyCache> = OnceLock::new();
    CACHE.get_or_init(ResidencyCache::new)
}

/// The outcome of a transfer that was driven to its end.
fn ended(
    outcome: Option<Result<Summary, TransferError>>,
    summary: impl FnOnce() -> Summary,
) -> Result<Summary, TransferError> {
    outcome.unwrap_or_else(|| Ok(summary()))
}
