//! The asynchronous half of the builder.

use std::future::{Future, IntoFuture};
use std::os::fd::BorrowedFd;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};

use zhaul_core::{Operation, Refusal, SinkKind, SourceKind, Summary, TransferError};

use super::{Haul, Prepared};
use crate::cold::ColdPool;
use crate::endpoint;
use crate::errno::errno_of;
use crate::handle::Handle;
use crate::progress::Progress;
use crate::residency::Memo;
use crate::tokio::{Ahead, Control, Kept, MAX_READ_BYTES, Readiness, drive, drive_files};

/// What transfers on tokio need besides.
impl<'a, S, K> Haul<'a, S, K> {
    /// Has cold pages read, and copies from file to file made, by this pool instead of
    /// [`ColdPool::shared`] and a pool of its own for copies.
    pub fn cold_pool(mut self, pool: &Arc<ColdPool>) -> Self {
        self.cold = Some(Arc::clone(pool));
        self
    }

    /// Remembers here which files were found in memory, instead of in a memo of the process.
    pub fn residency(mut self, memo: impl Into<Handle<'a, Memo>>) -> Self {
        self.residency = Some(memo.into());
        self
    }
}

impl<S: Readiness, K: Readiness> Haul<'_, S, K> {
    /// Makes the transfer on this task; see [`crate::tokio`]. Awaiting the builder does the same.
    ///
    /// Cold pages of a file are read by a pool. From file to file every call is made there, since
    /// any of them may wait for a disk. Dropping the future stops it there too, but one call that
    /// a thread is making at that moment may still write what it was asked to: at most
    /// [`Haul::chunk_bytes`], capped at 16 MiB.
    ///
    /// # Errors
    /// Why it stopped, and how many bytes were moved before.
    pub async fn run_async(mut self) -> Result<Summary, TransferError> {
        // No more than is made resident at once.
        self.ask.chunk_bytes = self.ask.chunk_bytes.min(MAX_READ_BYTES);
        if self.from_position {
            return Box::pin(self.run_from_position()).await;
        }
        self.perform(self.progress.as_deref()).await
    }

    async fn run_from_position(&self) -> Result<Summary, TransferError> {
        let counted = Progress::new();
        let progress = self.counts_in(&counted);
        let _position = self.keep_position(self.source.fd(), progress)?;
        self.perform(progress).await
    }

    async fn perform(&self, progress: Option<&Progress>) -> Result<Summary, TransferError> {
        if self.source.is_file() && self.sink.is_file() {
            return Box::pin(self.run_files(progress)).await;
        }
        // Nothing of what is prepared here is part of every connection's task.
        {
            let prepared = self.prepare(self.source.fd(), self.sink.fd())?;
            self.ready_ends(&prepared).map_err(TransferError::refused)?;
            let source = &prepared.source;
            let reads_disk = matches!(source.kind, SourceKind::Regular | SourceKind::Block);
            let ahead = reads_disk.then(|| {
                Ahead::new(
                    Kept::new(&self.source),
                    source.version,
                    self.residency.as_deref().unwrap_or_else(|| memo()),
                    self.cold.as_ref().unwrap_or_else(|| ColdPool::shared()),
                    self.ask.chunk_bytes,
                    prepared.transfer.source_end(),
                )
            });
            let (transfer, hands) = (prepared.transfer, prepared.hands);
            let control = self.control(progress);
            drive(&self.source, &self.sink, transfer, hands, ahead, control)
        }
        .await
    }

    /// Every call is made by a thread that may wait.
    async fn run_files(&self, progress: Option<&Progress>) -> Result<Summary, TransferError> {
        let prepared = self.prepare(self.source.fd(), self.sink.fd())?;
        self.ready_ends(&prepared).map_err(TransferError::refused)?;
        let duplicate = |fd: BorrowedFd<'_>, operation| {
            fd.try_clone_to_owned()
                .map(Arc::new)
                .map_err(|error| TransferError::before_start(operation, errno_of(&error)))
        };
        let source = duplicate(self.source.fd(), Operation::ExamineSource)?;
        let sink = duplicate(self.sink.fd(), Operation::ExamineSink)?;
        let copies = self.cold.as_ref().unwrap_or_else(|| ColdPool::copies());
        let control = self.control(progress);
        drive_files(
            source,
            sink,
            prepared.transfer,
            prepared.hands,
            copies,
            control,
        )
        .await
    }

    fn control<'b>(&'b self, progress: Option<&'b Progress>) -> Control<'b> {
        Control {
            lease: self.lease.as_deref(),
            cancel: self.cancel.as_ref(),
            progress,
            began: self.keeps_time().then(tokio::time::Instant::now),
            deadline: self.ask.deadline,
        }
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
    S: Readiness + Send + Sync + 'a,
    K: Readiness + Send + Sync + 'a,
{
    type Output = Result<Summary, TransferError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run_async())
    }
}

/// What transfers made by this builder found resident. The HTTP server has one per worker.
fn memo() -> &'static Memo {
    static MEMO: OnceLock<Memo> = OnceLock::new();
    MEMO.get_or_init(Memo::new)
}
